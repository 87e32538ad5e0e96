"""Programs of this package as real processes, with nothing of them left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil

from paglets.config.env import DEFAULT_API_KEY_ENV
from tests.preload import Preloaded
from tests.support import eventually

PATIENCE = 30.0
_CHECKOUT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a program: no key of whoever runs the tests, a narrow terminal, this checkout."""
    inherited = {key: value for key, value in os.environ.items() if key != DEFAULT_API_KEY_ENV}
    return {**inherited, "PYTHONPATH": str(_CHECKOUT / "src"), "COLUMNS": "100", "PYTHONWARNINGS": "error", **more}


class Program:
    """A running program whose output is collected line by line.

    :param preloaded: has the program forked, for tests that are not about its start or what it imports.
    """

    def __init__(
        self,
        *arguments: str,
        module: str = "paglets",
        stdin: Any = subprocess.DEVNULL,
        preloaded: Preloaded | None = None,
        **more: str,
    ) -> None:
        command = [sys.executable, "-m", module] if preloaded is None else preloaded.command(module)
        if preloaded is not None:
            # As for the other kind of start, which looks for modules in the current directory.
            more = {"PYTHONPATH": os.pathsep.join([str(_CHECKOUT / "src"), str(_CHECKOUT)]), **more}
        self.process = subprocess.Popen(
            [*command, *arguments],
            env=environment(**more),
            cwd=_CHECKOUT,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._arrived: SimpleQueue[str | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._collect, args=(self.process.stdout, self.out, self._arrived), daemon=True),
            threading.Thread(target=self._collect, args=(self.process.stderr, self.err, None), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _collect(self, stream: Any, lines: list[str], arrived: SimpleQueue[str | None] | None) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                if arrived is not None:
                    arrived.put(lines[-1])
        if arrived is not None:
            arrived.put(None)

    def line(self) -> str:
        """Wait for the next line of standard output."""
        line = self._arrived.get(timeout=PATIENCE)
        assert line is not None, f"no output; on standard error: {self.err}"
        return line

    def json_line(self) -> dict[str, Any]:
        """Wait for the next line of standard output and decode it."""
        found = json.loads(self.line())
        assert isinstance(found, dict)
        return found

    def children(self) -> list[psutil.Process]:
        """Return every process that this one started, directly or not."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait(self) -> int:
        """Wait for the end, with all output collected."""
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        return code

    def close(self) -> None:
        """Make sure that nothing is left, whatever the test did."""
        if self.process.poll() is None:
            for child in self.children():
                child.kill()
            self.process.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.wait()


def all_gone(processes: Sequence[psutil.Process]) -> None:
    """Wait until none of these processes runs any more."""

    def none_left() -> bool:
        return not [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]

    def look() -> bool:
        try:
            return none_left()
        except psutil.NoSuchProcess:
            return False  # one ended between the two questions; ask again

    eventually(look, f"the end of {processes}")


def host_processes(directory: Path) -> list[psutil.Process]:
    """Return the running hosts that have their files below a directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(directory) in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found
