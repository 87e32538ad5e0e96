"""What commands print with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import typer
from rich.console import ColorSystem

from paglets.cli import console
from paglets.cli.app import main
from paglets.cli.console import bytes_text, duration_text, fail, one_line, print_error, print_json, print_table
from tests.cli.processes import environment


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KB"),
        (1536, "1.5 KB"),
        (1024**2, "1.0 MB"),
        (5 * 1024**3, "5.0 GB"),
        (1024**4, "1.0 TB"),
        (3 * 1024**5, "3.0 PB"),
        (5000 * 1024**5, "5000.0 PB"),
        (-2048, "-2.0 KB"),
    ],
)
def test_bytes_are_read_by_people(value: int, text: str) -> None:
    assert bytes_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0s"), (45, "45.0s"), (90, "1.5m"), (7200, "2.0h"), (360000, "100.0h")]
)
def test_durations_are_read_by_people(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_json_is_readable_by_any_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"path": "\udcff/ü", "size": 1})
    written = capsys.readouterr().out
    assert written.isascii()
    assert json.loads(written) == {"path": "\udcff/ü", "size": 1}


def test_an_error_is_one_line_without_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("paglets x", ValueError("a [bold]b[/bold]\n  c" + " long" * 60))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("paglets x: a [bold]b[/bold] c long long")
    assert captured.err.count("\n") == 1


def test_an_error_without_text_is_named_by_its_class(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("paglets x", TimeoutError())
    assert capsys.readouterr().err == "paglets x: TimeoutError\n"


def test_fail_ends_with_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as usage:
        fail("paglets x", "no")
    with pytest.raises(typer.Exit) as other:
        fail("paglets x", "no", code=1)
    assert (usage.value.exit_code, other.value.exit_code) == (2, 1)
    assert capsys.readouterr().err == "paglets x: no\npaglets x: no\n"


def test_one_line_keeps_terminal_commands_away() -> None:
    assert one_line("a\x1b[31mb\tc\r\nd") == "a?[31mb c d"


def test_a_table_has_title_columns_and_plain_cells(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Things", ("name", "size"), [("[red]x[/red]", 7), ("y\x1bz", 1234)], right=("size",))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Things"
    assert [line for line in lines if "[red]x[/red]" in line and line.endswith("   7")]
    assert [line for line in lines if "y\\x1bz" in line and line.endswith("1234")]


def test_columns_to_the_right_may_be_given_by_position(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Things", ("name", "size"), [("x", 7), ("y", 1234)], right=(1,))
    assert "   7\n" in "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines())


def test_colours_can_be_switched_off() -> None:
    try:
        console.configure_console(no_color=True)
        assert console.console.no_color
        assert console.err_console.no_color
    finally:
        console.configure_console()
    assert not console.console.no_color


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything take standard output for a terminal with colours."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", True)
    for each in (console.console, console.err_console):
        monkeypatch.setattr(each, "_force_terminal", True)
        monkeypatch.setattr(each, "_color_system", ColorSystem.EIGHT_BIT)


COLOUR = re.compile(r"\x1b\[(?:\d+;)*[349]\d(?:;\d+)*m")


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--help"], 0),
        ([], 0),
        (["sys", "--help"], 0),
        (["sys", "load", "--help"], 0),
        (["nosuch"], 2),
        (["sys", "load", "--nosuch"], 2),
    ],
)
def test_without_colours_nothing_has_any(argv: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == code
    assert COLOUR.search("".join(capsys.readouterr()))
    for order, expected in ((["--no-color", *argv], code), (["--help", "--no-color"], 0)):
        assert main(order) == expected
        shown = "".join(capsys.readouterr())
        assert shown
        assert not COLOUR.search(shown)
    # And what comes later has them again.
    assert "NO_COLOR" not in os.environ
    assert main(argv) == code
    assert COLOUR.search("".join(capsys.readouterr()))


@pytest.mark.usefixtures("terminal")
def test_the_environment_may_ask_for_no_colours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for argv in (["sys", "load", "--nosuch"], ["--help"], ["--no-color", "--help"]):
        main(argv)
        assert not COLOUR.search("".join(capsys.readouterr()))
    assert os.environ["NO_COLOR"] == "1"


def test_the_module_is_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "paglets.cli.app", "--version"], env=environment(), capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"paglets ")


@pytest.mark.parametrize("argv", [[], ["--help"]])
def test_without_a_command_there_is_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert "host" in shown
    assert "demo" in shown


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("paglets ")


@pytest.mark.parametrize(
    "argv", [["nosuch"], ["--nosuch"], ["host"], ["host", "--port", "x", "--name", "a"], ["demo", "--x"]]
)
def test_a_wrong_command_line_is_one_line_and_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("paglets")
    assert "--help" in captured.err


def test_a_line_is_said_as_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    text = "[red]" + "x" * 30
    console.say(f"{text}\x1b[2J")
    console.note(f"{text}\nmore")
    assert capsys.readouterr() == (f"{text}\\x1b[2J\n", f"{text} more\n")


def test_a_whole_table_is_not_folded(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    console.print_shown(console.table("T", ["a", "b"], [["x" * 30, "y" * 30]]), whole=True)
    assert f"{'x' * 30}   {'y' * 30}" in capsys.readouterr().out
