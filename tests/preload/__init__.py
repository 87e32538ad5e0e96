"""Programs that need not import anything any more: forked, by order, from one process that has imported it all.

Otherwise they are what a started program is: a process of its own with its own arguments, environment, directory and
descriptors, whose signals and exit code are passed on. What is tested about starting a program as such, or about what
it imports, needs the real thing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INTERPRETER = "tests.preload.interpreter"
"""The module that stands for `python` itself."""
_CLIENT = Path(__file__).with_name("client.py")
_PATIENCE = 60.0


class Preloaded:
    """A process that forks programs, until it is closed."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "orders"
        self._home = directory / "home"
        self._home.mkdir()
        self.python = directory / "python"
        """A program that stands for `python`, of whose options it knows few; see `interpreter`."""
        self.python.write_text(f'#!/bin/sh\nexec {shlex.join(self.command(INTERPRETER))} "$@"\n')
        self.python.chmod(0o755)
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PAGLETS_", "PYTEST_", "COV_"))
        }
        self._server = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.preload.server", str(self._socket)],
            env=environment | {"HOME": str(self._home), "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"

    def command(self, *words: str) -> list[str]:
        """Return what stands for `python -P -m` and words that follow, the first of which is a module."""
        return [sys.executable, "-I", "-S", str(_CLIENT), str(self._socket), *words]

    def new_home(self) -> Path:
        """Return an empty home directory for the next program, which takes the place of the one before.

        Modules that have been imported know what was the home then, so it is always the same path.
        """
        shutil.rmtree(self._home)
        self._home.mkdir()
        return self._home

    def close(self) -> None:
        """End the process, and with it what it forked."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        code = self._server.wait(_PATIENCE)
        self._server.stdout.close()
        assert code == 0
