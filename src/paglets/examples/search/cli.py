"""`paglets-search`, and what `paglets search` does."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import typer

from paglets.cli.console import console, fail, note, print_error, print_json
from paglets.cli.launcher import USAGE_EXIT, run_app
from paglets.cli.options import EntryOption, KeyOption
from paglets.cli.search import EPILOG, add_commands
from paglets.cli.search_options import (
    ColorOption,
    Colors,
    DrainOption,
    HostsOption,
    JsonLinesOption,
    JsonOption,
    NoStreamOption,
    PollOption,
    TimeoutOption,
    TypeListOption,
)
from paglets.config.env import resolve_api_key
from paglets.core.errors import PagletError
from paglets.examples.search.models import (
    DEFAULT_DRAIN_WAIT_SECONDS,
    DEFAULT_SEARCH_TIMEOUT_SECONDS,
    MAX_RESULTS_PER_HOST,
    SearchRequest,
)
from paglets.examples.search.operations import SearchSummaryReply
from paglets.examples.search.printing import Style, json_lines, lines_of, write_lines
from paglets.examples.search.watching import DEFAULT_DRAIN_LIMIT, RunningSearch, searching
from paglets.remote.admin import select_reachable_entry_server
from paglets.remote.client import HostClient
from paglets.serialization.codec import dataclass_to_wire

__all__ = ["Order", "carry_out", "main", "parse_size"]

PROGRAM: Final = "paglets-search"
NOTHING_EXIT: Final = 1
_CLIENT_SECONDS: Final = 15.0
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([BKMGT]?)(?:i?B)?", re.IGNORECASE)
_FACTORS: Final = {"": 1, "B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody has asked for on a command line."""

    request: SearchRequest
    host: tuple[str, ...] = ()
    entry: str | None = None
    timeout: float = DEFAULT_SEARCH_TIMEOUT_SECONDS
    poll_interval: float = DEFAULT_DRAIN_WAIT_SECONDS
    drain_limit: int = DEFAULT_DRAIN_LIMIT
    api_key_env: str | None = None
    json: bool = False
    jsonl: bool = False
    no_stream: bool = False
    color: str = "auto"

    def style(self) -> Style:
        """Return how results are shown."""
        request, terminal = self.request, console.is_terminal
        color = self.color == "always" or (self.color == "auto" and terminal and not console.no_color)
        return Style(request.line_number, request.column, request.only_matching, color, escaped=terminal)


def parse_size(value: str) -> int:
    """Return the bytes of a size like `512`, `64K`, `1.5M` or `2G`, 0 for an empty text.

    :raises ValueError: it is none.
    """
    text = value.strip()
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"a size is a number with B, K, M, G or T behind it, not {value!r}")
    return int(float(match[1]) * _FACTORS[match[2].upper()])


def size_option(context: typer.Context, value: str) -> int:
    """Return the bytes of the option `--max-file-size`.

    :raises typer.BadParameter: it is no size.
    """
    try:
        return parse_size(value)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), ctx=context, param_hint="--max-file-size") from None


def carry_out(command: str, order: Order) -> int:
    """Do what was asked for, print what is found as it is found, and return the exit code.

    :raises typer.Exit: with code 2, when it could not be done, or not to its end; that is printed.
    """
    if order.json and order.jsonl:
        fail(command, f"--json and --jsonl exclude each other (see {command} --help)", code=USAGE_EXIT)
    try:
        with HostClient(_CLIENT_SECONDS, api_key=resolve_api_key(order.api_key_env)) as client:
            patience = min(order.timeout, _CLIENT_SECONDS)
            entry = select_reachable_entry_server(entry_name=order.entry, client=client, timeout=patience)
            targets = list(order.host)
            with searching(entry, order.request, client=client, targets=targets, timeout=order.timeout) as search:
                found = _take(command, search, order)
    except (PagletError, OSError, ValueError) as exc:
        _tell_what_is_left(command, exc)
        if isinstance(exc, BrokenPipeError):
            raise  # nobody is left who could read about it
        fail(command, exc)
    except KeyboardInterrupt as exc:
        _tell_what_is_left(command, exc)
        raise
    summary = search.summary
    if order.json:
        print_json(dataclass_to_wire(summary))
    failed = _tell_the_end(command, summary, order)
    return 0 if found and not failed else NOTHING_EXIT


def _tell_what_is_left(command: str, exc: BaseException) -> None:
    for left in getattr(exc, "__notes__", ()):
        note(f"{command}: {left}")


def _take(command: str, search: RunningSearch, order: Order) -> bool:
    """Print events as they come, and tell whether there were results."""
    found = False
    kept: list[dict[str, Any]] = []
    style = order.style()
    for events in search.events(wait=order.poll_interval, limit=order.drain_limit):
        found = found or any(event["event"] not in ("error", "context") for event in events)
        if order.json:
            continue
        if order.no_stream:
            kept += events
            continue
        write_lines(json_lines(events) if order.jsonl else lines_of(events, style))
        if not order.jsonl:
            for event in events:
                if event["event"] == "error":
                    _tell_error(command, event)
    if kept:
        kept.sort(key=lambda event: (event["host_name"], event["host_url"], event["sequence"]))
        write_lines(json_lines(kept) if order.jsonl else lines_of(kept, style))
    return found


def _tell_error(command: str, event: dict[str, Any]) -> None:
    place = f"{event['host_name']}:{event['path']}" if event["path"] else event["host_name"]
    print_error(command, f"{place}: {event['message']}")


def _tell_the_end(command: str, summary: SearchSummaryReply, order: Order) -> bool:
    """Print what has not been printed of the summary, and tell whether anything went wrong."""
    # Pairs: a host that failed and could not be cleaned up either is told twice.
    failures = [*summary.errors.items()]
    failures += [(name, f"not ended: {why}") for name, why in summary.cleanup_errors.items()]
    told = order.json or order.jsonl
    if order.jsonl:
        write_lines(json_lines(_last_events(summary, failures)))
    for name, result in summary.results.items():
        if order.no_stream and not told:
            for error in result["errors"]:
                print_error(command, f"{name}: {error}")
        if result["truncated"] and not told:
            most = order.request.max_results_per_host or MAX_RESULTS_PER_HOST
            note(f"{command}: {name}: truncated after {most} results; there may be more")
    if not told:
        for name, error in failures:
            print_error(command, f"{name}: {error}")
    return bool(failures) or any(result["errors"] for result in summary.results.values())


def _last_events(summary: SearchSummaryReply, failures: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return what a reader of events has not heard: hosts that failed, and hosts that did not tell everything."""
    last: list[dict[str, Any]] = [
        {"event": "error", "host_name": name, "host_url": "", "path": "", "message": error} for name, error in failures
    ]
    last += [
        {"event": "truncated", "host_name": name, "host_url": result["host_url"], "path": "", "truncated": True}
        for name, result in summary.results.items()
        if result["truncated"]
    ]
    return last


# --- the older program ------------------------------------------------------------------------------------------------

_app = typer.Typer(
    name=PROGRAM,
    help="Search the files of all hosts.",
    epilog=EPILOG,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
add_commands(_app)


@_app.callback()
def _options(
    context: typer.Context,
    host: HostsOption = None,
    entry: EntryOption = None,
    timeout: TimeoutOption = DEFAULT_SEARCH_TIMEOUT_SECONDS,
    poll_interval: PollOption = DEFAULT_DRAIN_WAIT_SECONDS,
    drain_limit: DrainOption = DEFAULT_DRAIN_LIMIT,
    json: JsonOption = False,
    jsonl: JsonLinesOption = False,
    no_stream: NoStreamOption = False,
    color: ColorOption = Colors.AUTO,
    api_key_env: KeyOption = None,
    type_list: TypeListOption = False,
) -> None:
    given = replace(
        Order(SearchRequest(), tuple(host or ()), entry, timeout, poll_interval, drain_limit, api_key_env),
        json=json,
        jsonl=jsonl,
        no_stream=no_stream,
        color=color.value,
    )
    names = ("host", "entry", "timeout", "poll_interval", "drain_limit", "api_key_env", "json", "jsonl", "no_stream")
    context.obj = {"program": PROGRAM} | {name: getattr(given, name) for name in (*names, "color")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code: 0 for results and no failure, 1 without results or with a failure."""
    return run_app(_app, argv, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
