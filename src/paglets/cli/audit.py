"""The `paglets audit` command: who was refused by a host of this machine, and who changed something on it."""

from __future__ import annotations

import json as json_text
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from paglets.cli.console import one_line, print_table, say
from paglets.cli.options import JsonOption, clock_text, reported

EPILOG: Final = """
Examples:

  paglets audit --name alpha

  paglets audit --name alpha --follow

  paglets audit --persistence-dir /srv/alpha --json | grep 401

The log is a file of the host; only its owner can read it.
"""

_POLL_SECONDS: Final = 0.25
_COLUMNS: Final = ("time", "status", "key", "peer", "method", "route", "target")


def audit(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", help="Name of the host, as given to `paglets host`.", show_default=False),
    ] = None,
    persistence_dir: Annotated[
        Path | None, typer.Option("--persistence-dir", metavar="DIR", help="Its directory.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="So many of the newest.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    json: JsonOption = False,
) -> None:
    """Show refused and privileged requests, oldest first."""
    with reported(context.command_path):
        from paglets.runtime.http.audit import AUDIT_NAME, audit_files
        from paglets.runtime.options import host_directory

        if (name is None) == (persistence_dir is None):
            raise ValueError("name the host, with --name or with --persistence-dir")
        path = host_directory(name or "", persistence_dir) / AUDIT_NAME
        if not path.exists():
            raise FileNotFoundError(f"there is no audit log at {path}")
        newest: deque[str] = deque(maxlen=limit)
        for each in audit_files(path)[:-1]:
            if each.exists():
                newest.extend(each.read_text(encoding="utf-8").splitlines())
        tail = Tail(path)
        try:
            newest.extend(tail.lines())
            _show(newest, json=json, follow=follow)
            while follow:
                time.sleep(_POLL_SECONDS)
                _show(tail.lines(), json=json, follow=True)
        except KeyboardInterrupt:
            return
        finally:
            tail.close()


class Tail:
    """Read the lines that are added to a file which is replaced by an empty one from time to time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("rb")
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """Give the complete lines that were added since."""
        yield from self._available()
        try:
            replaced = os.fstat(self._stream.fileno()).st_ino != self._path.stat().st_ino
        except FileNotFoundError:
            return
        if replaced:
            # What was added to the old one before it was replaced.
            yield from self._available()
            self._stream.close()
            self._stream, self._rest = self._path.open("rb"), b""
            yield from self._available()

    def _available(self) -> Iterator[str]:
        *whole, self._rest = (self._rest + self._stream.read()).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _show(lines: Any, *, json: bool, follow: bool) -> None:
    entries = [(line, entry) for line in lines if (entry := _entry(line)) is not None]
    if json:
        for line, _ in entries:
            typer.echo(line)
    elif follow:
        for _, entry in entries:
            say(one_line("  ".join(_cells(entry))))
    else:
        print_table("Audit", list(_COLUMNS), [_cells(entry) for _, entry in entries])


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json_text.loads(line)
    except ValueError:
        return None  # what a power failure left of a line
    return entry if isinstance(entry, dict) else None


def _cells(entry: dict[str, Any]) -> list[str]:
    moment = entry.get("time")
    when = clock_text(moment) if isinstance(moment, (int, float)) else "-"
    return [when, *(str(entry.get(column, "")) or "-" for column in _COLUMNS[1:])]
