"""What every command prints with: two consoles, tables, JSON, and one-line errors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paglets.cli.whole_table import WholeTable
from paglets.core.text import one_line

__all__ = [
    "bytes_text",
    "configure_console",
    "console",
    "duration_text",
    "err_console",
    "fail",
    "note",
    "one_line",
    "print_error",
    "print_json",
    "print_shown",
    "print_table",
    "printable",
    "say",
    "table",
    "without_colors",
]

console: Final = Console(highlight=False)
"""Standard output: results."""
err_console: Final = Console(stderr=True, highlight=False)
"""Standard error: progress, warnings and errors."""

_NO_COLOR: Final = "NO_COLOR"
_WIDEST: Final = 10_000
_UNITS: Final = ("B", "KB", "MB", "GB", "TB", "PB")


def configure_console(*, no_color: bool = False) -> None:
    """Set how both consoles print from now on; the environment may have asked for no colours as well."""
    for each in (console, err_console):
        each.no_color = no_color or bool(os.environ.get(_NO_COLOR))


@contextmanager
def without_colors() -> Iterator[None]:
    """Print without colours inside: here, where help is printed, and in the programs that are started.

    Consoles of others look for an environment variable (https://no-color.org).
    """
    before = os.environ.get(_NO_COLOR)
    os.environ[_NO_COLOR] = "1"
    configure_console(no_color=True)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NO_COLOR]
        else:
            os.environ[_NO_COLOR] = before
        configure_console()


def print_json(payload: Any) -> None:
    """Write a value as indented JSON to standard output.

    Everything beyond ASCII is escaped: neither a file name that is no valid text nor a terminal that is not UTF-8 must
    stop a program that reads this.
    """
    sys.stdout.write(json.dumps(payload, indent=2, default=str) + "\n")
    sys.stdout.flush()


def print_error(command: str, exc: BaseException | str) -> None:
    """Write `command: what went wrong` as one line to standard error."""
    text = one_line(str(exc)) or type(exc).__name__
    err_console.print(Text(f"{command}: {text}", style="red"), soft_wrap=True)


def fail(command: str, exc: BaseException | str, *, code: int = 2) -> NoReturn:
    """Write an error and end the command with an exit code."""
    print_error(command, exc)
    raise typer.Exit(code)


def say(text: str) -> None:
    """Write one line to standard output as it is: no markup, not folded, and nothing a terminal would obey."""
    console.print(printable(text), markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Write one line that is no error to standard error."""
    err_console.print(one_line(text), markup=False, soft_wrap=True)


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[str | int] | None = None,
) -> Table:
    """Build a titled table; cells are plain text, never markup.

    :param right: names or positions of the columns that hold numbers.
    """
    built = WholeTable(title)
    for position, column in enumerate(columns):
        built.add(column, numeric=right is not None and (column in right or position in right))
    for row in rows:
        built.add_row(*(Text(printable(str(cell))) for cell in row))
    return built


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[str | int] | None = None,
) -> None:
    """Print what `table` builds."""
    print_shown(table(title, columns, rows, right=right), whole=False)


def print_shown(shown: Table, *, whole: bool) -> None:
    """Print a table, its texts folded to fit a terminal.

    :param whole: as wide as it is instead, past the edge of the terminal.
    """
    if not whole:
        console.print(shown, crop=False)
        return
    width = console.measure(shown, options=console.options.update_width(_WIDEST)).maximum
    wide = Console(
        file=console.file,
        width=max(width, console.width),
        highlight=False,
        no_color=console.no_color,
        force_terminal=console.is_terminal,
    )
    wide.print(shown)


def printable(text: str) -> str:
    """Return a text in which every character that a terminal might take as a command is escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def bytes_text(value: float) -> str:
    """Return a number of bytes as people read it, like `1.5 KB`; a KB has 1,024 bytes."""
    amount = float(value)
    for unit in _UNITS:
        if abs(amount) < 1024 or unit == _UNITS[-1]:
            break
        amount /= 1024
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """Return a time span as people read it: `45.0s`, `1.5m`, `2.0h`."""
    if abs(seconds) < 60:
        return f"{seconds:.1f}s"
    if abs(seconds) < 3600:
        return f"{seconds / 60:.1f}m"
    return f"{seconds / 3600:.1f}h"
