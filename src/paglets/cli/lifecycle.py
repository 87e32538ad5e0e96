"""The commands that move paglets, put them to sleep, wake them and end them."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paglets.cli.console import print_error, print_json, say
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
    confirm,
    duration_of,
    moment_of,
    reported,
)
from paglets.core.errors import PagletError, RemoteHostError

if TYPE_CHECKING:
    from paglets.cli.fleet import Fleet, Found
    from paglets.core.policies import DeactivationPolicy

MOVE_EPILOG: Final = """
Examples:

  paglets move 3f2a90c1 beta                    to a host of the mesh

  paglets move 3f2a90c1 http://10.0.0.7:8765    to any other host

Whatever fails, the paglet lives on one host. Refused, it stays where it was.
"""

SLEEP_EPILOG: Final = """
Examples:

  paglets sleep 3f2a90c1                        until a message comes

  paglets sleep 3f2a90c1 --for 8h --messages-wait

  paglets sleep 3f2a90c1 --until 07:30 --reason "the night"

It is stored on its host's disk. It may change the terms in on_deactivating.
"""

WAKE_EPILOG: Final = """
Examples:

  paglets wake 3f2a90c1

A paglet that crashed starts again from its last durable state.
"""

RM_EPILOG: Final = """
Examples:

  paglets rm 3f2a90c1

  paglets rm --yes 3f2a90c1 77be0a52            without being asked

This cannot be undone: state, files and waiting messages are gone.
"""


def move(
    context: typer.Context,
    agent: AgentArgument,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Name of a host of the mesh, or a URL.")],
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Move a paglet to another host."""
    with reported(context.command_path):
        from paglets.cli.fleet import fleet_of
        from paglets.remote.requests import location_of, move_payload

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            found = fleet.find(agent)
            address = _target(fleet, target)
            reply = fleet.client.operate(found.server.url, found.agent_id, "dispatch", move_payload(address))
            location = location_of(reply, found.server.url).host_url
            names = {server.url.rstrip("/"): server.name for server in fleet.servers}
        if json:
            print_json({"agent_id": found.agent_id, "from": found.server.url, "host_url": location})
        else:
            where = names.get(location.rstrip("/"), location)
            say(f"{found.agent_id} moved from {found.server.name} to {where}")


def _target(fleet: Fleet, target: str) -> str:
    """Return what the host of the paglet is to be told: the URL of a known host, or what was given if it is a URL."""
    known = {server.name: server.url for server in fleet.servers}
    if target in known:
        return known[target]
    if any(mark in target for mark in ".:/") or len(known) < 2:
        return target
    if target in fleet.offline:
        raise RemoteHostError(f"host {target!r} is offline")
    raise RemoteHostError(f"no host is named {target!r}; there are {', '.join(known)}, or give a URL")


def sleep(
    context: typer.Context,
    agent: AgentArgument,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="Wake it after 90s, 10m, 2h, ...", show_default=False)
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="Wake it at 07:30 or 2027-01-31T07:30.", show_default=False),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="What the paglet is told.")] = "deactivate",
    messages_wait: Annotated[
        bool, typer.Option("--messages-wait", help="Messages wait for it instead of waking it.")
    ] = False,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Store a paglet on disk and end its process."""
    with reported(context.command_path):
        wake_at = _wake_at(duration, until)
        from paglets.cli.fleet import fleet_of
        from paglets.core.policies import DeactivationPolicy, DeactivationRequest

        policy = None
        if wake_at is not None or messages_wait:
            policy = DeactivationPolicy(activate_on_message=not messages_wait, activate_at=wake_at)
        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            found = fleet.find(agent)
            request = DeactivationRequest(reason, policy=policy).to_wire()
            fleet.client.operate(found.server.url, found.agent_id, "deactivate", {"request": request})
            agreed = _agreed(fleet, found)
        if json:
            wire = None if agreed is None else agreed.to_wire()
            print_json({"agent_id": found.agent_id, "host_url": found.server.url, "policy": wire})
        else:
            say(f"{found.agent_id} sleeps on {found.server.name}{_terms(agreed)}")


def _wake_at(duration: str | None, until: str | None) -> float | None:
    now = datetime.now().astimezone()
    if duration is not None and until is not None:
        raise ValueError("--for and --until exclude each other")
    if duration is not None:
        return now.timestamp() + duration_of(duration, "--for")
    if until is None:
        return None
    moment = moment_of(until, "--until", now=now)
    if moment <= now.timestamp():
        raise ValueError(f"--until must be in the future, not {until!r}")
    return moment


def _agreed(fleet: Fleet, found: Found) -> DeactivationPolicy | None:
    """Return the terms on which a paglet sleeps, which are its own to decide; None if it is awake again already."""
    from paglets.core.policies import DeactivationPolicy

    wire = fleet.client.agent_info(found.server.url, found.agent_id).get("deactivation_policy")
    return None if wire is None else DeactivationPolicy.from_wire(wire)


def _terms(policy: DeactivationPolicy | None) -> str:
    if policy is None:
        return ""
    until = [] if policy.activate_at is None else [clock_text(policy.activate_at)]
    if policy.activate_on_message:
        until.append("a message comes")
    if policy.activate_on_startup:
        until.append("the host starts")
    return f" until {' or '.join(until)}" if until else " until it is woken"


def wake(
    context: typer.Context,
    agent: AgentArgument,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Wake a paglet that sleeps or has crashed."""
    with reported(context.command_path):
        from paglets.cli.fleet import fleet_of
        from paglets.remote.requests import location_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            found = fleet.find(agent)
            reply = fleet.client.operate(found.server.url, found.agent_id, "activate", {})
            location = location_of(reply, found.server.url).host_url
        if json:
            print_json({"agent_id": found.agent_id, "host_url": location})
        else:
            say(f"{found.agent_id} is awake on {found.server.name}")


def rm(
    context: typer.Context,
    agents: Annotated[
        list[str],
        typer.Argument(metavar="PAGLET...", help="Ids of paglets, or their first characters (4 or more) if unique."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """End paglets for good, whether they are active, asleep or crashed."""
    command = context.command_path
    with reported(command):
        if not yes and (json or not sys.stdin.isatty()):
            raise ValueError("the end of a paglet cannot be undone: add --yes where nobody can be asked")
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            # All are looked up before the first one ends: a mistake in the last one changes nothing.
            meant = {found.agent_id: found for found in map(fleet.find, agents)}
            if not yes:
                _confirm(command, list(meant.values()))
            failed: list[dict[str, Any]] = []
            for found in meant.values():
                try:
                    fleet.client.operate(found.server.url, found.agent_id, "dispose", {})
                except PagletError as exc:
                    failed.append({"agent_id": found.agent_id, "error": str(exc)})
                    print_error(command, f"{found.agent_id}: {exc}")
                else:
                    if not json:
                        say(f"{found.agent_id} ended on {found.server.name}")
        if json:
            lost = {each["agent_id"] for each in failed}
            print_json({"removed": [each for each in meant if each not in lost], "failed": failed})
        if failed:
            raise typer.Exit(FAILURE_EXIT)


def _confirm(command: str, found: list[Found]) -> None:
    for each in found:
        say(each.label)
    several = "this paglet" if len(found) == 1 else f"these {len(found)} paglets"
    confirm(command, f"End {several} for good?", unasked="--yes")
