"""The `paglets create` command: create a paglet on a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paglets.cli.console import print_json, say
from paglets.cli.options import (
    DEFAULT_TIMEOUT_SECONDS,
    EntryOption,
    HostOption,
    JsonOption,
    KeyOption,
    TimeoutOption,
    Where,
    duration_of,
    reported,
    size_or_none,
)
from paglets.cli.send import json_value

if TYPE_CHECKING:
    from paglets.core.allowance import Allowance

EPILOG: Final = """
Examples:

  paglets create myapp.jobs:Counter

  paglets create myapp.jobs:Counter --state '{"count": 5}' --host beta

  paglets create myapp.jobs:Walker --max-hops 10 --max-clones 3 --lifetime 2h

The class must be importable on that host, and allowed there. The id of the paglet is printed.
"""

_PANEL: Final = "What it may use up; unlimited unless its class or its host says otherwise"


def create(
    context: typer.Context,
    class_name: Annotated[str, typer.Argument(metavar="CLASS", help="Its class, as module:name.")],
    state: Annotated[
        str | None, typer.Option("--state", metavar="JSON", help="Fields of its state.", show_default=False)
    ] = None,
    init: Annotated[
        str | None, typer.Option("--init", metavar="JSON", help="What on_creation is given.", show_default=False)
    ] = None,
    agent_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Its id; a fresh one by default.", show_default=False)
    ] = None,
    max_hops: Annotated[
        int | None,
        typer.Option("--max-hops", metavar="N", min=0, help="Moves.", show_default=False, rich_help_panel=_PANEL),
    ] = None,
    max_clones: Annotated[
        int | None,
        typer.Option(
            "--max-clones",
            metavar="N",
            min=0,
            help="Clones, with those of its clones.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ] = None,
    lifetime: Annotated[
        str | None,
        typer.Option(
            "--lifetime", metavar="TIME", help="Time: 10m, 2h, 7d, ...", show_default=False, rich_help_panel=_PANEL
        ),
    ] = None,
    max_state: Annotated[
        str | None,
        typer.Option(
            "--max-state", metavar="SIZE", help="Size of its state: 64M.", show_default=False, rich_help_panel=_PANEL
        ),
    ] = None,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Create a paglet on the entry host, or on the one that --host names."""
    with reported(context.command_path):
        fields = None if state is None else json_value(state, "--state")
        if fields is not None and not isinstance(fields, dict):
            raise ValueError("--state must be a JSON object with the fields of the state")
        begun_with: Any = None if init is None else json_value(init, "--init")
        allowance = _allowance(max_hops, max_clones, lifetime, max_state)
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            server = fleet.entry or fleet.servers[0]
            location = fleet.admin.create_agent(
                server, class_name, "", fields, init=begun_with, agent_id=agent_id, allowance=allowance
            )
        if json:
            print_json(location)
        else:
            say(location["agent_id"])


def _allowance(
    max_hops: int | None, max_clones: int | None, lifetime: str | None, max_state: str | None
) -> Allowance | None:
    """Return what the options allow, None where they say nothing.

    :raises ValueError: one makes no sense.
    """
    from paglets.core.allowance import Allowance

    given = Allowance(
        max_hops,
        max_clones,
        None if lifetime is None else duration_of(lifetime, "--lifetime"),
        None if max_state is None else size_or_none(max_state, "--max-state"),
    )
    return given if given.limits else None
