"""Programs that are forked behave like programs that are started."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preload import INTERPRETER, Preloaded
from tests.support import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

PROGRAM = """
import os, sys
print(sys.argv[1:], os.environ["GREETING"], os.getcwd(), sys.stdin.read(), flush=True)
print("to the other", file=sys.stderr)
sys.exit(7)
"""
SHOWS = """
import sys
print(sys.argv, repr(sys.path[0]), __name__ == "__main__" and vars(sys.modules["__main__"]) is globals())
sys.exit(3)
"""
WAITS = """
import os, signal, sys
print(os.getpid(), flush=True)
signal.pause()
"""


def environment(directory: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(directory), "GREETING": "good day"}


def waiting(preloaded: Preloaded, directory: Path) -> tuple[subprocess.Popen[str], int]:
    """Return what stands for a program that waits for a signal, and the process id of the program."""
    (directory / "waits.py").write_text(WAITS)
    command = subprocess.Popen(
        preloaded.command("waits"), env=environment(directory), cwd=directory, stdout=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    return command, int(command.stdout.readline())


def test_arguments_environment_directory_streams_and_exit_code(preloaded: Preloaded, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [*preloaded.command("program"), "a b", "ü", ""],
        env=environment(tmp_path), cwd=tmp_path, input="typed", capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == f"['a b', 'ü', ''] good day {tmp_path} typed\n"
    assert done.stderr == "to the other\n"
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("words", "name", "place"),
    [
        (["-c", SHOWS], "-c", ""),
        (["-m", "below.shows"], "{}/below/shows.py", "{}"),
        (["-P", "-m", "below.shows"], "{}/below/shows.py", "{}"),
        (["below/shows.py"], "below/shows.py", "{}/below"),
    ],
    ids=["code", "module", "safe-path", "file"],
)
def test_python_itself(preloaded: Preloaded, tmp_path: Path, words: list[str], name: str, place: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "shows.py").write_text(SHOWS)
    for command in ([sys.executable], preloaded.command(INTERPRETER)):
        done = subprocess.run(
            [*command, *words, "-x", "y"], env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True
        )
        assert done.stdout == f"{[name.format(tmp_path), '-x', 'y']} {place.format(tmp_path)!r} True\n", done.stderr
        assert done.returncode == 3


def test_an_option_of_python_that_is_not_understood(preloaded: Preloaded, tmp_path: Path) -> None:
    done = subprocess.run(
        [*preloaded.command(INTERPRETER), "-X", "dev", "x.py"],
        env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "does not understand ['-X', 'dev', 'x.py']" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_so_is_the_end_by_it(
    preloaded: Preloaded, tmp_path: Path, number: signal.Signals
) -> None:
    command, _ = waiting(preloaded, tmp_path)
    with command:
        command.send_signal(number)
        assert command.wait(30) == -number


def test_who_kills_the_command_kills_the_program(preloaded: Preloaded, tmp_path: Path) -> None:
    command, process_id = waiting(preloaded, tmp_path)
    with command:
        command.kill()
        eventually(lambda: not Path(f"/proc/{process_id}").exists(), "the end of the program")


def test_programs_end_with_what_forked_them(tmp_path: Path) -> None:
    own = Preloaded(tmp_path)
    command, process_id = waiting(own, tmp_path)
    with command:
        own.close()
        assert command.wait(30) == 70
    eventually(lambda: not Path(f"/proc/{process_id}").exists(), "the end of the program")


def test_a_new_home_is_empty_and_where_the_old_one_was(preloaded: Preloaded) -> None:
    first = preloaded.new_home()
    (first / "left").write_text("")
    assert preloaded.new_home() == first
    assert list(first.iterdir()) == []
