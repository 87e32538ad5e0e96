"""The `paglets send` command: send one message to a paglet and show what it replies."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from paglets.cli.console import console, print_json, printable, say
from paglets.cli.options import (
    AgentArgument,
    EntryOption,
    HostOption,
    JsonOption,
    KeyOption,
    Where,
    reported,
)

EPILOG: Final = """
Examples:

  paglets send 3f2a90c1 greet name=world              text

  paglets send 3f2a90c1 add by:=2 'tags:=["a","b"]'   whatever JSON has

  paglets send 3f2a90c1 put --arg '{"x": 1}'          the unnamed argument

  paglets send 3f2a90c1 tick --oneway                 wait for no reply

Text is printed as it is, any other reply as JSON.
"""

DEFAULT_REPLY_SECONDS: Final = 60.0


def send(
    context: typer.Context,
    agent: AgentArgument,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What the paglet is to do: the name of a handler.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=TEXT | NAME:=JSON]...", help="Named arguments.", show_default=False),
    ] = None,
    arg: Annotated[
        str | None, typer.Option("--arg", metavar="JSON", help="The unnamed argument.", show_default=False)
    ] = None,
    oneway: Annotated[
        bool, typer.Option("--oneway", help="Return when the message is accepted; there is no reply.")
    ] = False,
    no_wake: Annotated[
        bool, typer.Option("--no-wake", help="Let a sleeping paglet sleep: the message waits for it.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long to wait for the reply.")
    ] = DEFAULT_REPLY_SECONDS,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    api_key_env: KeyOption = None,
) -> None:
    """Send a message to a paglet and print its reply."""
    with reported(context.command_path):
        named = named_arguments(arguments or ())
        unnamed = None if arg is None else json_value(arg, "--arg")
        if not kind:
            raise ValueError("KIND must not be empty")
        # Imported this late, so that help and mistakes need not wait for the clients to load.
        from paglets.cli.fleet import fleet_of
        from paglets.core.messages import Message
        from paglets.remote.transport import json_safe

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            found = fleet.find(agent)
            message = Message(kind, named, unnamed)
            reply = fleet.client.deliver(
                found.server.url,
                found.agent_id,
                message,
                oneway=oneway,
                activate_if_inactive=not no_wake,
                timeout=timeout,
            )
        plain = json_safe(reply)
        if json:
            print_json(
                {
                    "agent_id": found.agent_id,
                    "host_url": found.server.url,
                    "message_id": message.message_id,
                    "reply": plain,
                }
            )
        elif oneway:
            say(f"sent {message.message_id}")
        elif isinstance(plain, str):
            console.print(_text(plain), markup=False, soft_wrap=True)
        else:
            print_json(plain)


def named_arguments(entries: Sequence[str]) -> dict[str, Any]:
    """Return `NAME=TEXT` and `NAME:=JSON` entries as a dictionary.

    :raises ValueError: an entry is neither, a name comes twice, or the JSON is none.
    """
    named: dict[str, Any] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        is_json = name.endswith(":")
        name = name.removesuffix(":")
        if not equals or not name:
            raise ValueError(f"an argument must be NAME=TEXT or NAME:=JSON, not {entry!r}")
        if name in named:
            raise ValueError(f"the argument {name!r} is given twice")
        named[name] = json_value(value, name) if is_json else value
    return named


def json_value(text: str, name: str) -> Any:
    """Return the value that a text has as JSON.

    :raises ValueError: it is none.
    """
    try:
        return json_module.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"the JSON of {name} is nested too deeply") from None
    except ValueError as exc:
        raise ValueError(f"{name} is no JSON: {exc}; text goes into quotes, as in {name}='\"text\"'") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _text(reply: str) -> str:
    """Return a text with its lines, and without anything that a terminal would take for a command.

    What the encoding of the output does not have, such as half of a surrogate pair, becomes an escape.
    """
    if not console.is_terminal:
        encoding, errors = console.encoding, getattr(console.file, "errors", None) or "strict"
        try:
            reply.encode(encoding, errors)
        except UnicodeEncodeError:
            return reply.encode(encoding, "backslashreplace").decode(encoding)
        return reply
    return "\n".join(printable(line) for line in reply.split("\n"))
