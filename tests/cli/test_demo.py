"""The demonstration on real trees, as a process like newcomers start it; the numbers are known from making the tree."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from paglets.cli import demo_hosts
from paglets.cli.app import main
from tests.cli.processes import Program, all_gone, host_processes
from tests.preload import ROOT, Preloaded
from tests.support import eventually

SIZES = {
    "readme.md": 1200,
    "src/main.py": 5000,
    "src/übung/größe.py": 31,
    "src/日本/データ.csv": 90_000,
    "src/日本/🦊.csv": 7,
    "data/.hidden": 0,
    "data/big.BIN": 300_000,
    "data/more/noext": 64,
}
DIRECTORIES = 7  # src, src/übung, src/日本, data, data/more, empty, empty/below


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a small tree of every kind of thing."""
    root = tmp_path / "tree ü"
    for name, size in SIZES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"z" * size)
    (root / os.fsdecode(b"odd\xff")).write_bytes(b"123")
    (root / "empty" / "below").mkdir(parents=True)
    (root / "to-file").symlink_to("readme.md")
    (root / "to-directory").symlink_to("data")
    (root / "to-nowhere").symlink_to("gone")
    return root


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """Give the directory for temporary files of a program; only results are left in it, and no process works there."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    yield directory
    all_gone(host_processes(directory))
    assert [path.name for path in directory.iterdir() if not path.name.startswith("paglets-survey-")] == []


def finished(*arguments: str, scratch: Path) -> tuple[int, str, str]:
    """Run the demonstration to its end and return exit code, output and errors."""
    program = Program("demo", *arguments, TMPDIR=str(scratch))
    try:
        code = program.wait()
    finally:
        program.close()
    return code, "\n".join(program.out), "\n".join(program.err)


def test_every_number_is_right(tree: Path, scratch: Path, tmp_path: Path) -> None:
    unreadable = os.geteuid() != 0
    if unreadable:  # nothing is unreadable to root
        (tree / "empty" / "below").chmod(0)
    output = tmp_path / "rows.sqlite"
    try:
        code, out, err = finished(str(tree), "--json", "--output", str(output), scratch=scratch)
    finally:
        (tree / "empty" / "below").chmod(0o700)

    assert (code, err) == (0, "")
    told = json.loads(out)
    sizes = {**SIZES, "odd\\xff": 3}
    assert told["totals"] == {
        "files": len(sizes),
        "bytes": sum(sizes.values()),
        "directories": DIRECTORIES,
        "symlinks": 3,
        "others": 0,
        "unreadable": int(unreadable),
    }
    assert told["check"] == {"sound": True, "differences": [], "changed": [], "changed_count": 0}
    assert told["largest"] == [
        {"path": path, "bytes": size} for path, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    ]
    assert {each["type"]: (each["files"], each["bytes"]) for each in told["types"]} == {
        ".bin": (1, 300_000),
        ".csv": (2, 90_007),
        ".py": (2, 5031),
        ".md": (1, 1200),
        "(none)": (3, 67),
    }
    assert {share["host"] for share in told["shares"]} == {"alpha", "beta", "gamma"}
    assert len({host["pid"] for host in told["hosts"]}) == 3
    moves = [(move["kind"], move["source"], move["target"], move["files"]) for move in told["journey"]]
    assert sorted(moves[:4]) == [
        ("clone", "alpha", "beta", 0),
        ("clone", "alpha", "gamma", 0),
        ("dispatch", "beta", "alpha", 1),
        ("dispatch", "gamma", "alpha", 1),
    ]
    tour = [("alpha", "beta"), ("beta", "gamma"), ("gamma", "alpha")]
    assert moves[4:] == [("dispatch", source, target, 1) for source, target in tour]
    assert all(move["milliseconds"] > 0 and move["state_bytes"] > 0 for move in told["journey"])
    assert {move["paglet"] for move in told["journey"][4:]} == {told["paglet"]}
    assert told["output"] == str(output)
    with closing(sqlite3.connect(output)) as connection:
        assert dict(connection.execute("SELECT path, bytes FROM files")) == sizes
        assert [row[0] for row in connection.execute("SELECT host FROM visits")] == ["beta", "gamma", "alpha"]


def test_people_get_tables(
    tree: Path,
    scratch: Path,
    preloaded: Preloaded,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo_hosts.sys, "executable", str(preloaded.python))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert main(["demo", str(tree)]) == 0
    out, err = capsys.readouterr()
    for words in ("Journey", "Largest files", "By type", "the result", "its share", "data/big.BIN", "293.0 KB"):
        assert words in out
    assert f"9 files, 387.0 KB in {DIRECTORIES} directories of {tree}" in out
    assert "3 symbolic links, not followed" in out
    assert "it adds up" in out
    written = Path(out.splitlines()[-1].removeprefix("result: "))
    assert written.parent == scratch
    assert written.stat().st_mode & 0o077 == 0
    assert "surveying" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_survey_leaves_nothing(tree: Path, scratch: Path, number: signal.Signals) -> None:
    program = Program("demo", str(tree), TMPDIR=str(scratch))
    try:
        eventually(lambda: len(host_processes(scratch)) >= 1, "a host of the demonstration")
        children = program.children()
        program.process.send_signal(number)
        assert program.wait() == 128 + number
        all_gone(children)
        assert not list(scratch.iterdir())
    finally:
        program.close()


def test_killed_outright_its_hosts_end_by_themselves(tree: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "left"
    scratch.mkdir()
    program = Program("demo", str(tree), TMPDIR=str(scratch))
    try:
        eventually(lambda: len(host_processes(scratch)) >= 1, "a host of the demonstration")
        children = program.children()
        program.process.kill()
        all_gone(children)
    finally:
        program.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{tmp}/nosuch"], "cannot survey {tmp}/nosuch: No such file or directory"),
        (["{tmp}/file"], "cannot survey {tmp}/file: Not a directory"),
        (["{tmp}", "--output", "{tmp}/file"], "{tmp}/file exists already"),
        (["{tmp}", "--output", "{tmp}/nosuch/x"], "its directory does not exist"),
    ],
)
def test_a_bad_path_is_one_line_and_2(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["demo", *(argument.format(tmp=tmp_path) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("paglets demo: ")
    assert words.format(tmp=tmp_path) in captured.err
    assert not [child for child in psutil.Process().children() if "demo" in " ".join(child.cmdline())]
