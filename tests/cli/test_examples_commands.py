"""`paglets examples`, with hosts that are processes of their own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Pair, Run
from tests.cli.processes import environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "file.txt"
    path.parent.mkdir()
    path.write_text("content")
    return path


def nobody_left(pair: Pair) -> None:
    assert (pair.ids("alpha"), pair.ids("beta")) == ([], [])


def test_help_without_a_command(run: Run) -> None:
    for group in (["examples"], ["examples", "file"]):
        code, out, _ = run(*group, entry=False)
        assert code == 0
        assert f"paglets {' '.join(group)} [OPTIONS] COMMAND" in out


@pytest.mark.parametrize(("direction", "first", "second"), [("push", "alpha", "beta"), ("pull", "beta", "alpha")])
def test_a_file_goes_from_host_to_host(
    pair: Pair, run: Run, source: Path, tmp_path: Path, direction: str, first: str, second: str
) -> None:
    target = tmp_path / "out" / "file.txt"
    command = ["examples", "file", direction, str(source), "--remote", "beta", "--dest", f"{target.parent}/"]
    code, out, err = run(*command, "--dry-run")
    assert (code, err, target.exists()) == (0, "", False)
    # The destination is shown as it was given; only its host knows what it means there.
    assert out.splitlines()[0] == f"DRY_RUN: {first}:{source} (7 B) -> {second}:{target}"
    code, out, err = run(*command, "--mode", "move")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"COMPLETED: {first}:{source} (7 B) -> {second}:{target}", "saved with mode=move"]
    assert (target.read_text(), source.exists()) == ("content", False)
    nobody_left(pair)


def test_a_file_that_is_there_is_a_failure(pair: Pair, run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "old.txt"
    target.write_text("old")
    command = ["examples", "file", "push", str(source), "--remote", pair.beta, "--dest", str(target)]
    code, out, err = run(*command)
    assert (code, err) == (1, "")
    assert out.startswith("FAILED: ")
    assert f"destination already exists: {target}" in out
    code, out, _ = run(*command, "--overwrite", "--json")
    assert (code, json.loads(out)["status"], target.read_text()) == (0, "COMPLETED", "content")
    nobody_left(pair)


def test_what_cannot_be_done_is_one_line(pair: Pair, run: Run, source: Path) -> None:
    code, out, err = run("examples", "file", "push", str(source), "--remote", "gamma")
    assert (code, out) == (2, "")
    assert err == "paglets examples file push: remote host 'gamma' was not found from entry host 'alpha'\n"
    nobody_left(pair)


def test_a_terminal_shows_that_something_goes_on(pair: Pair, source: Path, tmp_path: Path) -> None:
    """On standard error, so that results can be piped; it is gone at the end."""
    leader, follower = pty.openpty()
    command = ["examples", "file", "push", str(source), "--remote", "beta", "--dest", str(tmp_path / "x")]
    process = subprocess.Popen(
        [sys.executable, "-m", "paglets", *command, "--entry", pair.alpha],
        env=environment(TERM="xterm", COLUMNS="200"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    os.close(follower)
    assert process.stdout is not None
    with process.stdout:
        out = process.stdout.read().decode()
    assert process.wait(30) == 0
    shown = b""
    while piece := read(leader):
        shown += piece
    os.close(leader)
    assert f"push {source}, remote host beta" in shown.decode()
    assert out.startswith("COMPLETED: ")
    nobody_left(pair)


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # what the end of a terminal looks like on Linux
        return b""
