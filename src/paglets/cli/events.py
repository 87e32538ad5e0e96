"""The `paglets events` command: what happened on the hosts, and what is happening."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from paglets.cli.console import note, one_line, print_json, say
from paglets.cli.options import (
    DEFAULT_TIMEOUT_SECONDS,
    EntryOption,
    HostOption,
    JsonOption,
    KeyOption,
    TimeoutOption,
    Where,
    duration_of,
    moment_of,
    reported,
)
from paglets.core.context_events import ContextEvent

if TYPE_CHECKING:
    pass

EPILOG: Final = """
Examples:

  paglets events                                  the latest of all hosts

  paglets events --since 10m --kind paglet-crashed

  paglets events --follow --agent 3f2a90c1        from now on, until Ctrl-C

  paglets events --follow --json | jq -r .kind    one line of JSON per event

Hosts keep 1,000 events in memory; 'paglets journey' reads what is on disk.
"""

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are shown."""

    kinds: frozenset[str] = field(default_factory=frozenset)
    """None means all."""
    agent: str = ""
    """Id of a paglet, or its beginning."""
    since: float = 0.0
    """Unix seconds."""

    def __contains__(self, event: ContextEvent) -> bool:
        return (
            event.timestamp >= self.since
            and (not self.kinds or event.kind in self.kinds)
            and (not self.agent or (event.agent_id or "").startswith(self.agent))
        )


def events(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with every event until Ctrl-C.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="Only events of the last 90s, 10m, ..., or since 07:30.", show_default=False
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="Only events of this kind; repeatable.", show_default=False),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent", metavar="PAGLET", help="Only events of paglets whose id begins so.", show_default=False
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the latest.")] = 100,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Show what happened on all hosts of the mesh, or on one, in order of time."""
    command = context.command_path
    with reported(command):
        chosen = Selection(frozenset(kind or ()), agent or "", 0.0 if since is None else since_of(since))
        where = Where(entry, host, timeout, api_key_env)
        # Imported this late, so that help and mistakes need not wait for the clients to load.
        from paglets.cli.fleet import fleet_of, report_missing

        with fleet_of(where) as fleet:
            if follow:
                from paglets.cli.follow import follow_events

                latest = None if since is not None else 0
                follow_events(fleet, chosen, Printer(json=json), latest=latest, command=command)
                return
            answers = fleet.ask(lambda server: fleet.client.events(server.url, limit=_PAGE))
        found = sorted(
            (event for _, given in answers.given for event in given if event in chosen),
            key=lambda event: (event.timestamp, event.host_name, event.event_id),
        )[-limit:]
        if json:
            print_json({"events": [event.to_wire() for event in found], "errors": answers.errors})
        else:
            Printer(json=False).show(found)
        report_missing(command, answers)


def since_of(text: str) -> float:
    """Return the moment that `--since` names: a time span before now, or a time in the past.

    :raises ValueError: it is neither.
    """
    now = datetime.now().astimezone()
    if "-" not in text and ":" not in text:
        return now.timestamp() - duration_of(text, "--since")
    moment = moment_of(text, "--since", now=now)
    # A time of the day means the last one here, not the next.
    return moment - 86400.0 if moment > now.timestamp() else moment


class Printer:
    """Print events as lines, for people or as JSON."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def show(self, events: Sequence[ContextEvent]) -> None:
        """Print some events."""
        for event in events:
            if self._json:
                sys.stdout.write(json_module.dumps(event.to_wire(), default=str) + "\n")
            else:
                say(line_of(event))
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Say something about the events to whoever watches."""
        note(text)


def line_of(event: ContextEvent) -> str:
    """Return an event as a line: time, host, and what the host's own log would say."""
    from paglets.cli.host_log import describe

    moment = datetime.fromtimestamp(event.timestamp).astimezone()
    clock = moment.strftime("%H:%M:%S") if time.time() - event.timestamp < 86400 / 2 else moment.strftime("%m-%d %H:%M")
    return f"{clock}  {one_line(event.host_name):<12} {describe(event)}"
