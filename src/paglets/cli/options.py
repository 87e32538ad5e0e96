"""The options that every command has which talks to hosts, and how people write times and sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final

import typer

from paglets.cli.console import fail
from paglets.cli.launcher import USAGE_EXIT
from paglets.core.errors import PagletError

FAILURE_EXIT: Final = 1
DEFAULT_TIMEOUT_SECONDS: Final = 10.0

ENTRY_VARIABLE: Final = "PAGLETS_ENTRY"
"""Environment variable with the entry host, for those who would write `--entry` all the time."""

_PANEL: Final = "Where to look"

EntryOption = Annotated[
    str | None,
    typer.Option(
        "--entry",
        metavar="NAME|URL",
        help="Host through which the others are found; by default the one at port 8765 of this machine.",
        envvar=ENTRY_VARIABLE,
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
HostOption = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="NAME|URL",
        help="Only this host; with a URL no other is asked.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long one answer may take.", rich_help_panel=_PANEL),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key-env",
        metavar="VARIABLE",
        help="Environment variable with the key of the hosts; PAGLETS_API_KEY, if set, by default.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the outcome as JSON, and nothing else.")]
AgentArgument = Annotated[
    str,
    typer.Argument(metavar="PAGLET", help="Id of a paglet, or its first characters (4 or more) if they are unique."),
]


@dataclass(frozen=True, slots=True)
class Where:
    """Which hosts a command is about, and how it talks to them."""

    entry: str | None = None
    host: str | None = None
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    api_key_env: str | None = None


@contextmanager
def reported(command: str) -> Iterator[None]:
    """Turn what goes wrong into one line on standard error and an exit code: 2 for a wrong command line, else 1."""
    try:
        yield
    except BrokenPipeError:
        raise  # nobody is left who could read about it
    except (PagletError, OSError) as exc:
        fail(command, exc, code=FAILURE_EXIT)
    except ValueError as exc:
        fail(command, f"{exc} (see {command} --help)", code=USAGE_EXIT)


def confirm(command: str, question: str, *, unasked: str) -> None:
    """Ask on the terminal whether to go on, and end the command with 1 unless somebody says yes.

    :param unasked: the option with which the command does not ask.
    """
    try:
        if typer.confirm(question):
            return
    except typer.Abort as exc:
        if not isinstance(exc.__context__, EOFError):
            raise  # Ctrl-C
        typer.echo()  # the line of the question
        fail(command, f"not confirmed; use {unasked} where nobody can be asked", code=FAILURE_EXIT)
    raise typer.Exit(FAILURE_EXIT)


def help_unless_chosen(context: typer.Context) -> None:
    """Print the help of a group of commands that was called without any of them, and end well."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


# --- times ------------------------------------------------------------------------------------------------------------

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")
_FACTORS: Final = (86400.0, 3600.0, 60.0, 1.0)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")
_LONGEST: Final = 100 * 365 * 86400.0


def duration_of(text: str, option: str) -> float:
    """Return the seconds of a time span written as `90s`, `10m`, `2h`, `1d`, `1h30m` or a bare number of seconds.

    :raises ValueError: it is none of these, or not within 0 and 100 years.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or not any(match.groups()):
        raise ValueError(f"{option} must be a time span like 90s, 10m, 2h or 1h30m, not {text!r}")
    seconds = sum(float(number) * factor for number, factor in zip(match.groups(), _FACTORS, strict=True) if number)
    if not 0 < seconds < _LONGEST:
        raise ValueError(f"{option} must be longer than nothing and shorter than 100 years, not {text!r}")
    return seconds


def moment_of(text: str, option: str, *, now: datetime) -> float:
    """Return a point in time as Unix seconds: `2027-01-31`, `2027-01-31T08:00`, one with a zone, or a time of the day.

    A time of the day is the next one. Without a zone it is local time.

    :param now: the present, with its zone.
    :raises ValueError: it is none of these.
    """
    cleaned = text.strip()
    try:
        if _CLOCK.fullmatch(cleaned):
            clock = datetime.strptime(cleaned, "%H:%M:%S" if cleaned.count(":") == 2 else "%H:%M")
            moment = now.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
            return (moment if moment > now else moment + timedelta(days=1)).timestamp()
        moment = datetime.fromisoformat(cleaned)
    except ValueError:
        raise ValueError(f"{option} must be a time like 08:30 or 2027-01-31T08:30, not {text!r}") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=now.tzinfo)).timestamp()


def clock_text(seconds: float) -> str:
    """Return Unix seconds as local time for people."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


# --- sizes ------------------------------------------------------------------------------------------------------------

_SIZE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([bkmgt]?)", re.IGNORECASE)
_POWERS: Final = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_UNLIMITED: Final = ("none", "unlimited")


def size_or_none(text: str, option: str) -> int | None:
    """Return a number of bytes written as `10485760`, `10M` or `1.5g`, or None for `none` and `unlimited`.

    :raises ValueError: it is none of these.
    """
    cleaned = text.strip().lower()
    if cleaned in _UNLIMITED:
        return None
    match = _SIZE.fullmatch(cleaned)
    if match is None:
        raise ValueError(f"{option} must be a size like 10485760, 10M, 1.5G or none, not {text!r}")
    return (
        int(float(match[1]) * 1024 ** _POWERS[match[2]])
        if "." in match[1]
        else int(match[1]) * 1024 ** _POWERS[match[2]]
    )
