"""What the older programs for system services have in common: options, plain tables, exit codes."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from paglets.cli.console import one_line, printable
from paglets.cli.launcher import INTERRUPTED_EXIT
from paglets.config.env import DEFAULT_API_KEY_ENV, resolve_api_key
from paglets.core.errors import PagletError
from paglets.remote.client import HostClient

EMPTY_EXIT: Final = 1
FAILURE_EXIT: Final = 2
#: How much longer a request may take than what it waits for.
SLACK_SECONDS: Final = 5.0


def add_options(parser: argparse.ArgumentParser, timeout: float) -> None:
    """Add the options that all commands take, before and after their name."""
    again = parser.prog.count(" ") > 0

    def default(value: Any) -> Any:
        # Given after a command it wins, not given there it must not undo what stands before.
        return argparse.SUPPRESS if again else value

    parser.add_argument("--entry", metavar="NAME", default=default(None), help="host to begin with, by name or URL")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=positive_seconds,
        default=default(timeout),
        help=f"seconds for the answers ({timeout:g} by default)",
    )
    parser.add_argument("--json", action="store_true", default=default(False), help="write JSON")
    parser.add_argument(
        "--api-key-env",
        metavar="VAR",
        default=default(None),
        help=f"environment variable with the key of the hosts ({DEFAULT_API_KEY_ENV} by default)",
    )


def run(
    program: str, parser: argparse.ArgumentParser, argv: Sequence[str] | None, command: Callable[[Any, HostClient], int]
) -> int:
    """Parse a command line, run the command with a client, and return the exit code; what goes wrong is one line."""
    try:
        options = parser.parse_args(argv)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else FAILURE_EXIT
    try:
        with HostClient(options.timeout + SLACK_SECONDS, api_key=resolve_api_key(options.api_key_env)) as client:
            return command(options, client)
    except BrokenPipeError:
        return EMPTY_EXIT  # whoever read our output has gone
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT
    except (PagletError, OSError, ValueError) as exc:
        print(f"{program}: {one_line(str(exc)) or type(exc).__name__}", file=sys.stderr)  # noqa: T201 - a program
        return FAILURE_EXIT


def positive_seconds(text: str) -> float:
    """Return the seconds in an argument.

    :raises argparse.ArgumentTypeError: they are not more than 0.
    """
    seconds = _number(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"seconds are a number above 0, not {text!r}")
    return seconds


def seconds_or_none(text: str) -> float:
    """Return the seconds in an argument, which may be 0.

    :raises argparse.ArgumentTypeError: they are negative, or no number.
    """
    seconds = _number(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"seconds are 0 or a number above it, not {text!r}")
    return seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def say(line: str) -> None:
    """Print one line, with nothing in it that a terminal would obey."""
    print(printable(line))  # noqa: T201 - a program


def say_json(payload: Any) -> None:
    """Print a value as JSON with sorted keys."""
    print(json.dumps(payload, indent=2, sort_keys=True))  # noqa: T201 - a program


def say_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    """Print columns one beside the other; those named in `right` hold numbers."""
    shown = [list(columns), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = zip(columns, row, widths, strict=True)
        say(
            "  ".join(cell.rjust(width) if name in right else cell.ljust(width) for name, cell, width in cells).rstrip()
        )


def say_list(title: str, texts: dict[str, str]) -> None:
    """Print what is said about hosts, if anything is."""
    if texts:
        say(f"{title}:")
        for name, text in sorted(texts.items()):
            say(f"  {name}: {one_line(text)}")
