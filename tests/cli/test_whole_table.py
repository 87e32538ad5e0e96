"""Tables of which nothing is lost, in any width."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from paglets.cli import rounds
from paglets.cli.console import bytes_text, table
from paglets.cli.system import host_table
from paglets.cli.whole_table import narrowed
from paglets.system.mesh_info import LandscapeReply, MeshHostSnapshot, TargetCandidate, TargetSelectionReply
from paglets.system.mesh_info.reports import landscape_report, targets_report
from paglets.system.server_info.reports import report_of

WIDTHS = [8, 20, 40, 60, 80, 100, 140, 300]
LONG = "alpha-in-the-machine-room"
BUSY = MeshHostSnapshot(
    LONG,
    "http://a",
    "v",
    90.0,
    cpu_percent=99.9,
    load_per_cpu=12.25,
    memory_available_bytes=15 << 30,
    work_free_bytes=230 << 30,
    active_count=10250,
    inactive_count=123456,
)
IDLE = replace(BUSY, host_name="beta", active_count=7, inactive_count=0)
VOLUME = {
    "path": "/srv/data/of-the-third-floor",
    "total_bytes": 1 << 50,
    "used_bytes": 1 << 49,
    "free_bytes": 1023 << 40,
    "percent_used": 50.1,
}
PROCESS = {
    "pid": 4194303,
    "memory_rss_bytes": 1023 << 30,
    "memory_percent": 99.9,
    "cpu_percent": 12800.5,
    "status": "sleeping",
    "cmdline": ["/usr/bin/python3", "-m", "http.server"],
    "name": "python3",
}


def told(operation: str, **result: object) -> tuple[list[str], list[list[str]], set[str]]:
    results = {LONG: {"host_url": "u", "result": result}}
    report = report_of({"operation": operation, "results": results, "errors": {}}, bytes_text)
    return report.columns, report.rows, report.right


REPORTS = {
    "summary": landscape_report(LandscapeReply(100.0, [BUSY, IDLE]), bytes_text, texts=False),
    "targets": targets_report(TargetSelectionReply(100.0, [TargetCandidate(BUSY, 1234.567)]), bytes_text),
    "df": told("df", volumes=[VOLUME], errors={}),
    "plist": told("plist", processes=[PROCESS]),
    "load": told(
        "load",
        cpu_percent=100.0,
        memory_percent=99.9,
        swap_percent=10.5,
        load_average=[128.25, 64.5, 32.75],
        gpus=[{"utilization_percent": 37.0, "memory_used_mb": 1536.0, "memory_total_mb": 8192.0}],
    ),
}


def printed(console: Console, name: str) -> list[str]:
    columns, rows, right = REPORTS[name]
    console.print(host_table("Title", columns, rows, right=right), crop=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def console_of(width: int, *, terminal: bool) -> Console:
    return Console(
        file=io.StringIO(), width=width, height=200, force_terminal=terminal, color_system=None, legacy_windows=False
    )


def figures(name: str) -> list[tuple[int, str]]:
    columns, rows, right = REPORTS[name]
    return [
        (number, cell)
        for number, row in enumerate(rows)
        for head, cell in zip(columns, row, strict=True)
        if head in right
    ]


def letters(text: str) -> list[str]:
    return sorted(re.sub(r"[\s─]", "", text))


def content(name: str) -> list[str]:
    columns, rows, _ = REPORTS[name]
    return letters("".join(["Title", *columns, *(cell for row in rows for cell in row)]))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", REPORTS)
def test_into_a_pipe_every_figure_is_whole_and_in_its_line(name: str, width: int) -> None:
    lines = printed(console_of(width, terminal=False), name)
    assert letters("".join(lines)) == content(name)
    for _, cell in figures(name):
        assert [line for line in lines if re.search(rf"(?<!\S){re.escape(cell)}(?!\S)", line)], (cell, lines)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", REPORTS)
def test_on_a_terminal_lines_end_at_its_edge_and_nothing_is_missing(name: str, width: int) -> None:
    lines = printed(console_of(width, terminal=True), name)
    assert letters("".join(lines)) == content(name)
    assert max(map(cell_len, lines)) <= width
    together = "".join(lines)
    for _, cell in figures(name):
        assert re.search(rf"(?<!\S){re.escape(cell)}(?!\S)", together), (cell, lines)


@pytest.mark.parametrize("width", [20, 60, 80])
def test_what_is_redrawn_is_whole_as_well(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    console = console_of(width, terminal=True)
    monkeypatch.setattr(rounds, "console", console)

    def pause(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "pause", pause)
    columns, rows, right = REPORTS["summary"]
    shown = host_table("Title", columns, rows, right=right)
    rounds.watch(lambda: 0, draw=lambda _: [shown], wire=int, json=False, every=1)
    assert isinstance(console.file, io.StringIO)
    # Without what moves the cursor; drawn once more at the end.
    drawn = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|\r", "", console.file.getvalue())
    last = drawn[drawn.rindex("Title") :]
    assert letters(last) == content("summary")
    for _, cell in figures("summary"):
        assert cell in last.replace("\n", "")


def test_where_there_is_room_columns_stand_apart() -> None:
    wide = printed(console_of(200, terminal=True), "summary")
    assert next(line for line in wide if "host" in line).split("   ")[0].strip() == "host"
    tight = printed(console_of(100, terminal=True), "summary")
    # They move together before anything is folded.
    assert any(LONG in line and "123456" in line for line in tight)


def test_texts_are_folded_before_figures_are_past_the_edge() -> None:
    shown = table("T", ["name", "n"], [["x" * 60, "1234567890"]], right=("n",))
    console = console_of(40, terminal=False)
    console.print(shown, crop=False)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, (line.rstrip() for line in lines))) <= 40
    assert any("1234567890" in line for line in lines)


def test_a_character_of_two_columns_is_not_cut_in_two() -> None:
    console = console_of(21, terminal=True)
    console.print(table("T", ["a", "b", "c"], [["年" * 12, "月" * 12, "日" * 12]]), crop=False)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert [shown.count(each) for each in "年月日"] == [12, 12, 12]
    assert max(map(cell_len, shown.splitlines())) <= 21


def test_a_table_can_be_printed_again_with_more_room() -> None:
    shown = table("T", ["name", "n"], [["x" * 30, "12345"]], right=("n",))
    before = Console(file=io.StringIO(), width=200).measure(shown)
    console_of(10, terminal=False).print(shown, crop=False)
    assert Console(file=io.StringIO(), width=200).measure(shown) == before


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8), st.integers(-5, 300))
def test_the_widest_are_narrowed_first(columns: Sequence[tuple[int, int]], room: int) -> None:
    natural = [max(pair) for pair in columns]
    least = [min(pair) for pair in columns]
    widths = narrowed(natural, least, room)
    assert all(low <= width <= full for low, width, full in zip(least, widths, natural, strict=True))
    if sum(natural) <= room:
        assert widths == natural
    elif sum(least) > room:
        assert widths == least
    else:
        assert sum(widths) <= room
        # What is left over is not enough for one more in each that was narrowed to the common width.
        cap = max(width for width, low in zip(widths, least, strict=True) if width > low) if widths != least else 0
        wider = [max(low, min(full, cap + 1)) for low, full in zip(least, natural, strict=True)]
        assert sum(wider) > room or wider == widths
