"""The `paglets journey` command: where a paglet was, and what became of it there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer

from paglets.cli.console import bytes_text, duration_text, one_line, print_error, print_json, print_table, say
from paglets.cli.options import (
    DEFAULT_TIMEOUT_SECONDS,
    FAILURE_EXIT,
    AgentArgument,
    EntryOption,
    HostOption,
    JsonOption,
    KeyOption,
    TimeoutOption,
    Where,
    clock_text,
    reported,
)

if TYPE_CHECKING:
    from paglets.cli.fleet import Fleet
    from paglets.remote.journey import Journey, Stage

EPILOG: Final = """
Examples:

  paglets journey 3f2a90c1

  paglets journey 3f2a90c1 --json | jq -r '.stages[].host'

The hosts on the way are asked; one that does not answer is a gap (exit 1).

A paglet that ended is found by its whole id.
"""


def journey(
    context: typer.Context,
    agent: AgentArgument,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Show the way of a paglet over all hosts, from its creation on."""
    command = context.command_path
    with reported(command):
        # Imported this late, so that help and mistakes need not wait for the clients to load.
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            found = _journey(fleet, agent)
        if json:
            print_json(found.to_wire())
        else:
            _print(found)
        for gap in found.gaps:
            print_error(command, f"gap: {gap.name or gap.host_url}: {gap.error}")
        if not found.complete:
            raise typer.Exit(FAILURE_EXIT)


def _journey(fleet: Fleet, text: str) -> Journey:
    from paglets.core.errors import InvalidAgentError
    from paglets.remote.journey import follow_journey

    try:
        found = fleet.find(text)
        return follow_journey(fleet.client, found.server.url, found.agent_id)
    except InvalidAgentError as exc:
        # It may have ended, or be on a host that is not asked; whoever had it still knows.
        begins = [server for server, piece in _pieces(fleet, text) if piece.get("entries")]
        if not begins:
            raise InvalidAgentError(f"{exc}, and none of them ever had it") from exc
        return follow_journey(fleet.client, begins[0].url, text)


def _pieces(fleet: Fleet, agent_id: str) -> list[Any]:
    return fleet.ask(lambda server: fleet.client.journey(server.url, agent_id)).given


def _print(found: Journey) -> None:
    rows = []
    first = found.stages[0].epoch
    for stage in found.stages:
        size = bytes_text(stage.size_bytes) if stage.size_bytes else ""
        took = _took(stage.seconds)
        rows.append([clock_text(stage.at), stage.epoch - first, stage.host, stage.event, _details(stage), size, took])
    class_name = found.stages[-1].class_name.rpartition(":")[2]
    columns = ["time", "stay", "host", "event", "", "size", "took"]
    print_table(f"{class_name} {found.agent_id}", columns, rows, right={"stay", "size", "took"})
    where = found.host_url
    last = found.stages[-1]
    if where is not None:
        name = (last.peer_name if last.event == "departed" else last.host) or "another host"
        say(f"It is on {name}, {where}.")
    elif last.event == "ended":
        say("It has ended.")


def _took(seconds: float) -> str:
    if not seconds:
        return ""
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else duration_text(seconds)


def _details(stage: Stage) -> str:
    peer = stage.peer_name or stage.peer
    match stage.event:
        case "departed":
            text = f"to {peer}"
        case "arrived" | "cloned" if peer:
            text = f"from {peer}"
        case _:
            text = ""
    cause = "" if stage.cause in ("dispatch", "") else one_line(stage.cause)
    return ", ".join(part for part in (text, cause) if part)
