"""Run the code blocks of one page in the current directory: ``run_page PAGE WORD...``; see `code_blocks`.

The words are what runs a module, like `python -m`. The page runs in a process of its own, so that a page has a home
directory, modules and hosts to itself, and ends with them.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.docs.code_blocks import Block, Use, blocks_of
from tests.preload import INTERPRETER

COMMAND_SECONDS = 120
_EXPORT = re.compile(r"^export (\w+)=(\S+)$", re.MULTILINE)


class Page:
    """A page that is being run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[str, Any] = {"__name__": "page"}
        self._addresses: dict[str, str] = {}
        self._hosts: list[subprocess.Popen[str]] = []
        self._printed = ""

    def run(self) -> int:
        """Run every block that is to be run, and return how many that were."""
        blocks = blocks_of(self._path.read_text(encoding="utf-8"))
        count = 0
        try:
            for block in blocks:
                if block.use is not Use.READ:
                    self._run(block)
                    count += 1
        finally:
            self._stop_hosts()
        return count

    def _run(self, block: Block) -> None:
        source = self._with_addresses(block.source)
        match block.use:
            case Use.FILE:
                Path(block.title).write_text(source, encoding="utf-8")
            case Use.SESSION:
                # Blank lines in front, so that a traceback has the line of the page.
                code = compile("\n" * (block.line - 1) + source, str(self._path), "exec")
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(code, self._names)
                self._printed = printed.getvalue()
            case Use.SHELL:
                self._printed = self._shell(source, block)
            case Use.HOST:
                self._start_host(source, block)
            case Use.OUTPUT:
                self._compare(source, block)

    def _shell(self, source: str, block: Block) -> str:
        # As for somebody who reads on in one terminal.
        os.environ.update(_EXPORT.findall(source))
        try:
            done = subprocess.run(
                ["sh", "-euc", source],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=COMMAND_SECONDS,
            )
        except subprocess.TimeoutExpired as exc:
            printed = (exc.stdout or b"").decode("utf-8", "replace")
            raise SystemExit(f"{self._path}:{block.line}: not done after {COMMAND_SECONDS} s\n{printed}") from None
        if done.returncode:
            raise SystemExit(f"{self._path}:{block.line}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout

    def _start_host(self, source: str, block: Block) -> None:
        # Later options win: a free port instead of the usual one, and an end with this process. A host that was killed
        # and is started again has to be where it was.
        port = self._addresses.get(f"http://{block.machine}:8765", ":0").rpartition(":")[2]
        command = f"{source.rstrip()} --port {port} --json --stop-on-eof"
        host = subprocess.Popen(["sh", "-euc", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._hosts.append(host)
        assert host.stdout is not None
        line = host.stdout.readline()
        if not line:
            raise SystemExit(f"{self._path}:{block.line}: the host did not start")
        listening = json.loads(line)
        assert listening["name"] == block.machine, f"{self._path}:{block.line}: the host is named {listening['name']}"
        self._addresses[f"http://{block.machine}:8765"] = listening["address"]

    def _stop_hosts(self) -> None:
        for host in self._hosts:
            if host.stdin is not None:
                host.stdin.close()
        for host in self._hosts:
            host.wait(COMMAND_SECONDS)

    def _compare(self, expected: str, block: Block) -> None:
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if not doctest.OutputChecker().check_output(expected, self._printed, flags):
            raise SystemExit(f"{self._path}:{block.line}: expected\n{expected}\nbut printed was\n{self._printed}")

    def _with_addresses(self, source: str) -> str:
        for url, address in self._addresses.items():
            source = re.sub(rf"{re.escape(url)}\b", address, source)
        return source


def provide_commands(directory: Path, module: Sequence[str]) -> None:
    """Provide `python`, `pytest` and `paglets`.

    :param module: the command line of a module, without its name.

    Like an installed program, `paglets` does not look for modules in the current directory by itself.
    """
    directory.mkdir()
    source = shlex.quote(str(Path(__file__).resolve().parents[2] / "src"))
    path = f'PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}"{source} exec'
    commands = {
        "python": [INTERPRETER],
        "pytest": [INTERPRETER, "-m", "pytest", "-p", "no:cacheprovider"],
        "paglets": ["paglets"],
    }
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # loading plugins would take longer than the tests
    # One that hangs says where, before it is given up.
    os.environ["PYTEST_ADDOPTS"] = f"-o faulthandler_timeout={COMMAND_SECONDS // 2}"
    for name, words in commands.items():
        command = directory / name
        command.write_text(f'#!/bin/sh\n{path} {shlex.join([*module, *words])} "$@"\n')
        command.chmod(0o755)
    os.environ["PATH"] = f"{directory}{os.pathsep}{os.environ['PATH']}"


if __name__ == "__main__":
    _, page, *program = sys.argv
    provide_commands(Path.cwd() / ".commands", program)
    sys.path.insert(0, str(Path.cwd()))
    print(Page(Path(page)).run())
