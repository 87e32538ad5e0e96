"""The command that empties a host."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paglets.cli.console import console, note, print_error, print_json, say
from paglets.cli.options import (
    DEFAULT_TIMEOUT_SECONDS,
    FAILURE_EXIT,
    EntryOption,
    JsonOption,
    KeyOption,
    TimeoutOption,
    Where,
    duration_of,
    reported,
)

if TYPE_CHECKING:
    from paglets.cli.fleet import Fleet
    from paglets.remote.admin import ServerRef

EPILOG: Final = """
Examples:

  paglets drain beta                      everything moves to the other hosts, or sleeps where none takes it

  paglets drain beta --to alpha --to gamma

  paglets drain beta --sleep              nothing moves, everything sleeps

  paglets drain beta --undo               take paglets in again

The host refuses new paglets and wakes nobody until the drain is undone or the host is started again. Messages for those
who sleep wait on its disk. Exit code 1 if a paglet could neither move nor sleep.
"""

_PAUSE_SECONDS: Final = 0.2


def drain(
    context: typer.Context,
    host: Annotated[str, typer.Argument(metavar="HOST", help="Name or URL of the host to empty.")],
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="HOST", help="A host that takes paglets (repeatable); by default all others."),
    ] = None,
    sleep: Annotated[bool, typer.Option("--sleep", help="Put everything to sleep and move nothing.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="End a drain and take paglets in again.")] = False,
    each: Annotated[
        str, typer.Option("--each", metavar="TIME", help="How long one paglet may take for each step.")
    ] = "30s",
    json: JsonOption = False,
    entry: EntryOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Empty a host: move its paglets to others or put them to sleep, and take nothing new in."""
    command = context.command_path
    with reported(command):
        if sum((bool(to), sleep, undo)) > 1:
            raise ValueError("--to, --sleep and --undo exclude each other")
        seconds = duration_of(each, "--each")
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            server = fleet.servers[0]
            if undo:
                report = fleet.client.post_json(f"{server.url}/admin/undrain", {})
            else:
                body = {"to": [] if sleep else to or None, "timeout": seconds}
                report = _followed(fleet, server, fleet.client.post_json(f"{server.url}/admin/drain", body))
        if json:
            print_json({"host": server.name, **report})
        elif undo:
            say(f"{server.name} takes paglets in again")
        else:
            _print(command, server.name, report)
        if report["stayed"]:
            raise typer.Exit(FAILURE_EXIT)


def _followed(fleet: Fleet, server: ServerRef, report: dict[str, Any]) -> dict[str, Any]:
    """Wait until a drain has seen to everyone, with a line that says how far it is where somebody watches."""
    shown = console.is_terminal
    with console.status(f"{server.name} drains") if shown else _Silent() as status:
        while report["running"]:
            time.sleep(_PAUSE_SECONDS)
            report = fleet.client.get_json(f"{server.url}/admin/drain")
            if not report["draining"]:
                note(f"{server.name}: the drain was undone by somebody else, or the host was started again")
                break
            done = sum(len(report[key]) for key in ("moved", "asleep", "stayed"))
            status.update(f"{server.name} drains: {done} of {report['total']}")
    return report


class _Silent:
    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_error: object) -> None:
        return None

    def update(self, _text: str) -> None:
        """Show nothing."""


def _print(command: str, name: str, report: dict[str, Any]) -> None:
    moved, asleep, stayed = report["moved"], report["asleep"], report["stayed"]
    say(f"{name}: {len(moved)} moved, {len(asleep)} asleep, {len(stayed)} stayed")
    for each in asleep:
        if each["reason"]:
            say(f"{each['agent_id']} sleeps instead of moving: {each['reason']}")
    for each in stayed:
        print_error(command, f"{each['agent_id']} stays: {each['reason']}")
