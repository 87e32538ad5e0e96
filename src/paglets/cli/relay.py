"""The `paglets relay` commands: to whom the names of a hub belong, and giving one back."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from paglets.cli.console import print_json, print_table, say
from paglets.cli.options import (
    DEFAULT_TIMEOUT_SECONDS,
    EntryOption,
    HostOption,
    JsonOption,
    KeyOption,
    TimeoutOption,
    Where,
    clock_text,
    help_unless_chosen,
    reported,
)
from paglets.core.errors import RemoteHostError

EPILOG: Final = """
Examples:

  paglets relay names --host hub

  paglets relay release laptop --host hub

A name belongs to the key that connected under it first, also when the hub starts again.
"""

app = typer.Typer(
    name="relay",
    help="The names under which hosts are connected to a hub.",
    epilog=EPILOG,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def relay(context: typer.Context) -> None:
    """See to whom the names of a hub belong, and give one back."""
    help_unless_chosen(context)


@app.command("names")
def names(
    context: typer.Context,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """List the names of the entry host, or of the one that --host names."""
    with reported(context.command_path):
        found = _names(Where(entry, host, timeout, api_key_env))
        if json:
            print_json({"names": found})
            return
        rows = [[each["name"], "yes" if each["online"] else "no", clock_text(each["last_seen"])] for each in found]
        print_table("Names", ["name", "connected", "last seen"], rows)


@app.command("release")
def release(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name under which no host is connected now.")],
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Let a name belong to nobody, so that a host with another key may connect under it."""
    with reported(context.command_path):
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            server = fleet.entry or fleet.servers[0]
            url = f"{server.url.rstrip('/')}/relay/names/{quote(name, safe='')}/release"
            fleet.client.post_json(url, {})
        if json:
            print_json({"name": name, "released": True})
        else:
            say(f"{name} belongs to nobody now")


def _names(where: Where) -> list[dict[str, Any]]:
    from paglets.cli.fleet import fleet_of

    with fleet_of(where) as fleet:
        server = fleet.entry or fleet.servers[0]
        url = f"{server.url.rstrip('/')}/relay/names"
        reply = fleet.client.get_json(url)
    found = reply.get("names") if isinstance(reply, dict) else None
    if not isinstance(found, list):
        raise RemoteHostError(f"{url} answered with something unreadable")
    return found
