"""The `paglets ps` command: which paglets there are, where, and how they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paglets.cli.console import one_line, table
from paglets.cli.options import (
    DEFAULT_TIMEOUT_SECONDS,
    EntryOption,
    HostOption,
    JsonOption,
    KeyOption,
    TimeoutOption,
    Where,
    clock_text,
    reported,
)
from paglets.cli.rounds import REFRESH_SECONDS, EveryOption, WatchOption, watch

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from paglets.cli.fleet import Answers, Fleet, Found

EPILOG: Final = """
Examples:

  paglets ps                      active and crashed paglets of all hosts

  paglets ps --all --host beta    those of one host, sleeping ones included

  paglets ps --services           with the services that hosts run for themselves

  paglets ps --watch              renewed every 2 s until Ctrl-C

  paglets ps --all --json | jq -r '.paglets[] | select(.crashed) | .agent_id'

Ids are shortened to what tells them apart; every command takes them so.
"""

#: Of whose classes the services are that hosts run for themselves.
_SERVICES: Final = "paglets.system."


def ps(
    context: typer.Context,
    everyone: Annotated[bool, typer.Option("--all", "-a", help="Sleeping paglets as well.")] = False,
    inactive: Annotated[bool, typer.Option("--inactive", help="Only sleeping paglets.")] = False,
    services: Annotated[
        bool, typer.Option("--services", "-s", help="The services that hosts run for themselves as well.")
    ] = False,
    wide: Annotated[bool, typer.Option("--wide", "-w", help="Whole ids and class names, and more columns.")] = False,
    again: WatchOption = False,
    every: EveryOption = REFRESH_SECONDS,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """List paglets over all hosts of the mesh, or of one host."""
    command = context.command_path
    with reported(command):
        if everyone and inactive:
            raise ValueError("--all and --inactive exclude each other")
        states = {"asleep"} if inactive else {"active", "crashed"} | ({"asleep"} if everyone else set())
        # Imported this late, so that help and mistakes need not wait for the clients to load.
        from paglets.cli.fleet import fleet_of, print_listing, report_missing

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:

            def look() -> tuple[list[Found], Answers]:
                return _look(fleet, states, services=services)

            if again:
                watch(
                    look,
                    draw=lambda seen: _drawn(*seen, wide=wide),
                    wire=lambda seen: _listing(fleet, *seen),
                    json=json,
                    every=every,
                )
                return
            found, answers = look()
            listing = _listing(fleet, found, answers)
            print_listing(listing, lambda: _table(found, wide=wide), json=json, wide=wide)
            report_missing(command, answers)


def _look(fleet: Fleet, states: set[str], *, services: bool) -> tuple[list[Found], Answers]:
    from paglets.cli.fleet import state_text

    found, answers = fleet.paglets()
    return [
        each
        for each in found
        if state_text(each.summary) in states
        and (services or not str(each.summary.get("class_name", "")).startswith(_SERVICES))
    ], answers


def _drawn(found: Sequence[Found], answers: Answers, *, wide: bool) -> list[RenderableType]:
    from rich.text import Text

    return [_table(found, wide=wide), *(Text(one_line(failure), style="red") for failure in answers.failures)]


def _listing(fleet: Fleet, found: Sequence[Found], answers: Answers) -> dict[str, Any]:
    return fleet.listing("paglets", [each.summary for each in found], answers)


def _table(found: Sequence[Found], *, wide: bool) -> Table:
    from paglets.cli.allowance import allowance_text
    from paglets.cli.fleet import class_text, short_ids, state_text

    short = short_ids([each.agent_id for each in found])
    rows = []
    for each in found:
        summary = each.summary
        row = [
            each.agent_id if wide else short[each.agent_id],
            summary.get("class_name", "?") if wide else class_text(summary),
            state_text(summary),
            each.server.name,
            _mailbox(summary),
            _remark(summary),
        ]
        if wide:
            row += [
                allowance_text(summary.get("allowance")),
                summary.get("epoch", "-"),
                summary.get("pid") or "-",
                summary["host_url"],
            ]
        rows.append(row)
    columns = ["id", "class", "state", "host", "waiting", "remark"]
    return table(
        "Paglets", columns + (["allowance", "epoch", "pid", "address"] if wide else []), rows, right={"waiting", "pid"}
    )


def _mailbox(summary: dict[str, Any]) -> str:
    counts = summary.get("mailbox")
    if counts is None:
        return str(summary.get("queued_message_count", "-"))
    return str(counts["queued_count"] + counts["in_flight_count"])


def _remark(summary: dict[str, Any]) -> str:
    if summary.get("error"):
        return one_line(str(summary["error"]))
    since = summary.get("deactivated_at")
    return f"since {clock_text(since)}" if since else ""
