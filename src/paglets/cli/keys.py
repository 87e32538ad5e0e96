"""The `paglets keys` commands: who may do what on the hosts, and how they prove who they are."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paglets.cli.console import note, print_json, print_table, say
from paglets.cli.options import JsonOption, clock_text, duration_of, help_unless_chosen, reported, size_or_none

if TYPE_CHECKING:
    from paglets.security.key_file import KeyFile
    from paglets.security.keys import KeyRecord

EPILOG: Final = """
Examples:

  paglets keys new laptop --role message --expires 30d

  paglets keys list

  paglets keys revoke laptop

  paglets keys ca                        once, then for each host:

  paglets keys host alpha --address alpha.example --address 10.0.0.5
"""

app = typer.Typer(
    name="keys", help="Keys and certificates: who may do what on hosts.", epilog=EPILOG, rich_markup_mode="rich"
)

FileOption = Annotated[
    Path | None,
    typer.Option("--keys", metavar="FILE", help="Key file; ~/.paglets/keys.toml by default.", show_default=False),
]
DirectoryOption = Annotated[
    Path | None,
    typer.Option(
        "--directory", metavar="DIR", help="Where certificates are; ~/.paglets/tls by default.", show_default=False
    ),
]


def _examples(*lines: str) -> str:
    return "\n\n".join(["Examples:", *(f"  {line}" for line in lines)])


@app.callback(invoke_without_command=True)
def keys(context: typer.Context) -> None:
    """Say who may do what on hosts."""
    help_unless_chosen(context)


@app.command("new", epilog=_examples("paglets keys new laptop --role message --expires 30d"))
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what will use it; shown in the audit log.")],
    role: Annotated[str, typer.Option("--role", help="observe, message, operate (hosts need it) or admin.")],
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="How long it is valid, like 30d.", show_default=False),
    ] = None,
    requests_per_second: Annotated[
        float | None, typer.Option("--requests-per-second", metavar="NUMBER", help="At most, on average.")
    ] = None,
    connections: Annotated[
        int | None, typer.Option("--connections", metavar="NUMBER", help="At most, open at a time.")
    ] = None,
    bytes_in_flight: Annotated[
        str | None, typer.Option("--bytes-in-flight", metavar="SIZE", help="At most, of unanswered requests, like 64M.")
    ] = None,
    max_paglets: Annotated[
        int | None, typer.Option("--max-paglets", metavar="NUMBER", help="At most, created or brought with it.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="URL", help="Address that paglets may come from, * for any part; repeatable."),
    ] = None,
    keys: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key and print it: this once, it is stored nowhere. Hosts that run take it up within seconds."""
    with reported(context.command_path):
        from paglets.security.key_file import DEFAULT_KEY_FILE, change_key_file
        from paglets.security.keys import KeyLimits, new_key
        from paglets.security.roles import role_named

        limits = KeyLimits(
            requests_per_second,
            connections,
            None if bytes_in_flight is None else size_or_none(bytes_in_flight, "--bytes-in-flight"),
            max_paglets,
        )
        end = None if expires is None else time.time() + duration_of(expires, "--expires")
        key, record = new_key(name, role_named(role), expires=end, limits=limits, hosts=tuple(source or ()))
        path = keys or DEFAULT_KEY_FILE
        change_key_file(path, lambda content: replace(content, keys=(*content.keys, record)))
    if json:
        print_json({"key": key, **_wire(record), "file": str(path)})
        return
    # Alone on standard output, so that it can be read into a variable.
    typer.echo(key)
    until = "" if end is None else f" until {clock_text(end)}"
    note(f"key {record.key_id} of {name} with the role {record.role}{until}; it is not shown again")


@app.command("list", epilog=_examples("paglets keys list", "paglets keys list --json"))
def list_keys(context: typer.Context, keys: FileOption = None, json: JsonOption = False) -> None:
    """List the keys: never what they are, only what is known of them."""
    with reported(context.command_path):
        from paglets.security.key_file import DEFAULT_KEY_FILE, load_key_file

        content = load_key_file(keys or DEFAULT_KEY_FILE)
    if json:
        print_json(
            {"keys": [_wire(each) for each in content.keys], "revoked_certificates": list(content.revoked_certificates)}
        )
        return
    rows = [
        [
            each.key_id,
            each.name,
            str(each.role),
            each.state(time.time()),
            clock_text(each.created),
            "-" if each.expires is None else clock_text(each.expires),
        ]
        for each in content.keys
    ]
    print_table("Keys", ["key", "name", "role", "state", "created", "expires"], rows)


@app.command("revoke", epilog=_examples("paglets keys revoke laptop", "paglets keys revoke 3f2a90c1d25e"))
def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME|KEY", help="Name of its holder, or the id of one key.")],
    keys: FileOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """End all keys of a name, or one, and the certificate of that name; hosts that run refuse them within seconds."""
    with reported(context.command_path):
        from paglets.core.errors import NotFoundError
        from paglets.security.certificates import DEFAULT_TLS_DIRECTORY, paths_of, serial_of
        from paglets.security.key_file import DEFAULT_KEY_FILE, change_key_file

        folder, now = directory or DEFAULT_TLS_DIRECTORY, time.time()
        ended: list[str] = []
        has_certificate = "/" not in name and paths_of(folder, name)[0].exists()
        serial = serial_of(folder, name) if has_certificate else None

        def change(content: KeyFile) -> KeyFile:
            meant = [each for each in content.keys if name in (each.name, each.key_id) and each.revoked is None]
            if not meant and serial is None:
                raise NotFoundError(f"there is no valid key {name!r} and no certificate of that name")
            ended[:] = [each.key_id for each in meant]
            serials = content.revoked_certificates
            return replace(
                content,
                keys=tuple(each.ended(now) if each in meant else each for each in content.keys),
                revoked_certificates=serials if serial is None or serial in serials else (*serials, serial),
            )

        change_key_file(keys or DEFAULT_KEY_FILE, change)
    if json:
        print_json({"revoked": ended, "certificate": serial})
        return
    say(f"revoked {', '.join([*ended, *([f'certificate {serial}'] if serial else [])])}")


@app.command("ca", epilog=_examples("paglets keys ca"))
def ca(context: typer.Context, directory: DirectoryOption = None, json: JsonOption = False) -> None:
    """Make a CA of your own, for the certificates of hosts."""
    with reported(context.command_path):
        from paglets.security.certificates import DEFAULT_TLS_DIRECTORY, make_ca

        made = make_ca(directory or DEFAULT_TLS_DIRECTORY)
    if json:
        print_json({"certificate": str(made.certificate), "key": str(made.key), "expires": made.expires})
        return
    say(f"made {made.certificate}: give it to all hosts and clients (PAGLETS_CA_FILE)")
    note(f"keep {made.key} to yourself: it makes hosts and people")


@app.command("host", epilog=_examples("paglets keys host alpha --address alpha.example --address 10.0.0.5"))
def host(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the host, or of a person.")],
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address", metavar="ADDRESS", help="Under which it is reached, beside this machine's; repeatable."
        ),
    ] = None,
    role: Annotated[str, typer.Option("--role", help="What it may do on other hosts; none for nothing.")] = "operate",
    days: Annotated[int, typer.Option("--days", min=1, help="How long it is valid.")] = 397,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Make a certificate for a host, which is its key on other hosts as well."""
    with reported(context.command_path):
        from paglets.remote.lan import lan_address
        from paglets.security.certificates import CA_NAME, DEFAULT_TLS_DIRECTORY, issue, paths_of
        from paglets.security.roles import role_named

        folder = directory or DEFAULT_TLS_DIRECTORY
        given = address or [lan_address()]
        made = issue(
            folder,
            name,
            addresses=[*given, "localhost", "127.0.0.1", "::1"],
            role=None if role == "none" else role_named(role),
            days=days,
        )
        authority = paths_of(folder, CA_NAME)[0]
    if json:
        wire = {"certificate": str(made.certificate), "key": str(made.key), "ca": str(authority)}
        print_json({**wire, "serial": made.serial, "expires": made.expires})
        return
    say(f"made {made.certificate} for {', '.join(given)}, valid until {clock_text(made.expires)}")
    options = f"--tls-cert {made.certificate} --tls-key {made.key} --tls-client-ca {authority}"
    note(f"paglets host --name {name} --bind-public auto {options}")


def _wire(record: KeyRecord) -> dict[str, Any]:
    limits = record.limits
    return {
        "id": record.key_id,
        "name": record.name,
        "role": str(record.role),
        "state": record.state(time.time()),
        "created": record.created,
        "expires": record.expires,
        "revoked": record.revoked,
        "from": list(record.hosts),
        "requests_per_second": limits.requests_per_second,
        "connections": limits.connections,
        "bytes_in_flight": limits.bytes_in_flight,
        "max_paglets": limits.max_paglets,
    }
