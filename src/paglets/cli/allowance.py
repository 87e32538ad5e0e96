"""The `paglets allowance` commands: see what paglets may still use up, and grant them more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paglets.cli.console import bytes_text, print_json, print_table, say
from paglets.cli.options import (
    DEFAULT_TIMEOUT_SECONDS,
    AgentArgument,
    EntryOption,
    HostOption,
    JsonOption,
    KeyOption,
    TimeoutOption,
    Where,
    clock_text,
    duration_of,
    help_unless_chosen,
    reported,
    size_or_none,
)

if TYPE_CHECKING:
    from paglets.core.allowance import AllowanceGrant

EPILOG: Final = """
Examples:

  paglets allowance show 3f2a90c1

  paglets allowance grant 3f2a90c1 --hops +5

  paglets allowance grant 3f2a90c1 --lifetime +2h --state 64M --wake

A paglet that goes beyond its allowance is put to sleep, and wakes when it is granted more.
"""

GRANT_EPILOG: Final = """
Examples:

  paglets allowance grant 3f2a90c1 --hops +5             five more than are left

  paglets allowance grant 3f2a90c1 --clones 0            none from now on

  paglets allowance grant 3f2a90c1 --lifetime unlimited

  paglets allowance grant 3f2a90c1 --state 64M --wake

A number is what is left from now on, +N and -N change that. It needs a key with the role admin.
"""

_UNLIMITED: Final = "unlimited"

app = typer.Typer(
    name="allowance",
    help="What paglets may use up: moves, clones, time and the size of their state.",
    epilog=EPILOG,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def allowance(context: typer.Context) -> None:
    """See what paglets may still use up, and grant them more."""
    help_unless_chosen(context)


@app.command("show")
def show(
    context: typer.Context,
    agent: AgentArgument,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Show what a paglet has used of its allowance, and what is left."""
    with reported(context.command_path):
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            found = fleet.find(agent)
            balance = fleet.client.allowance(found.server.url, found.agent_id).to_wire()
        _show(found.agent_id, found.server.url, found.server.name, balance, json=json)


@app.command("grant", epilog=GRANT_EPILOG)
def grant(
    context: typer.Context,
    agent: AgentArgument,
    hops: Annotated[
        str | None, typer.Option("--hops", metavar="N", help="Moves to other hosts.", show_default=False)
    ] = None,
    clones: Annotated[
        str | None, typer.Option("--clones", metavar="N", help="Clones, with those of its clones.", show_default=False)
    ] = None,
    lifetime: Annotated[
        str | None,
        typer.Option("--lifetime", metavar="TIME", help="Time: 90s, 10m, 2h, ... from now, +1h.", show_default=False),
    ] = None,
    state: Annotated[
        str | None, typer.Option("--state", metavar="SIZE", help="Size of its state: 64M, +1G.", show_default=False)
    ] = None,
    wake: Annotated[bool, typer.Option("--wake", help="Wake it afterwards, if it sleeps.")] = False,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Grant a paglet more, or leave it less."""
    with reported(context.command_path):
        wanted = _grant(hops, clones, lifetime, state)
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            found = fleet.find(agent)
            url, agent_id = found.server.url, found.agent_id
            balance = fleet.client.grant_allowance(url, agent_id, wanted).to_wire()
            if wake and not found.summary.get("active"):
                fleet.client.operate(url, agent_id, "activate", {})
        _show(agent_id, url, found.server.name, balance, json=json)


def _grant(hops: str | None, clones: str | None, lifetime: str | None, state: str | None) -> AllowanceGrant:
    """Return what the options grant.

    :raises ValueError: nothing, or one makes no sense.
    """
    from paglets.core.allowance import AllowanceGrant

    def scaled(text: str | None, option: str) -> str | None:
        if text is None or text.strip() == _UNLIMITED:
            return text
        sign, amount = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
        number = duration_of(amount, option) if option == "--lifetime" else size_or_none(amount, option)
        return _UNLIMITED if number is None else f"{sign}{number}"

    if hops is clones is lifetime is state is None:
        raise ValueError("say what to grant: --hops, --clones, --lifetime or --state")
    return AllowanceGrant(hops, clones, scaled(lifetime, "--lifetime"), scaled(state, "--state"))


def _show(agent_id: str, url: str, host: str, balance: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json({"agent_id": agent_id, "host_url": url, "allowance": balance})
        return
    expires_at, most = balance["expires_at"], balance["max_state_bytes"]
    rows = [
        ["hops", balance["hops_used"], _left(balance["hops_left"])],
        ["clones", balance["clones_used"], _left(balance["clones_left"])],
        ["lifetime", "", _UNLIMITED if expires_at is None else f"until {clock_text(expires_at)}"],
        ["state", "", _UNLIMITED if most is None else f"up to {bytes_text(most)}"],
    ]
    print_table(f"Allowance of {agent_id} on {host}", ["", "used", "left"], rows, right={"used"})
    if balance["exceeded"] is not None:
        say(f"it sleeps until it is granted more: {balance['exceeded']}")


def _left(count: int | None) -> str:
    return _UNLIMITED if count is None else str(count)


def allowance_text(balance: dict[str, Any] | None) -> str:
    """Return what a paglet has left in a few words; `-` where nothing is limited."""
    if balance is None:
        return "-"
    parts = []
    for name in ("hops", "clones"):
        if balance[f"{name}_left"] is not None:
            parts.append(f"{balance[f'{name}_left']} {name}")
    if balance["expires_at"] is not None:
        parts.append(f"until {clock_text(balance['expires_at'])}")
    if balance["max_state_bytes"] is not None:
        parts.append(f"state up to {bytes_text(balance['max_state_bytes'])}")
    text = ", ".join(parts) or "-"
    return f"{text} (held: {balance['exceeded']})" if balance["exceeded"] is not None else text
