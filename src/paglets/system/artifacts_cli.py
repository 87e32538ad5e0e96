"""`paglets-artifacts`: the artifacts of one host, as in older versions; `paglets artifacts` does more."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

from paglets.artifacts import ArtifactRef
from paglets.artifacts.catalogue import checked_artifact_id
from paglets.cli.console import bytes_text, one_line, print_json, printable
from paglets.config.env import DEFAULT_API_KEY_ENV, resolve_api_key
from paglets.core.errors import PagletError
from paglets.remote.admin import normalize_server_url, select_reachable_entry_server
from paglets.remote.client import HostClient
from paglets.system.programs import positive_seconds

PROGRAM: Final = "paglets-artifacts"
DEFAULT_TIMEOUT_SECONDS: Final = 10.0
_SHOWN_ID: Final = 12
_COLUMNS: Final = ("artifact", "size", "owner", "name")

Command = Callable[[HostClient, str, argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 on success, 2 for a wrong command line, 1 for anything else."""
    try:
        options = _parser().parse_args(argv)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    command: Command = options.run
    try:
        with HostClient(options.timeout, api_key=_key(options.api_key_env)) as client:
            command(client, _host_url(client, options), options)
    except BrokenPipeError:
        return 1  # whoever read our output has gone
    except (PagletError, OSError, ValueError) as exc:
        print(f"{PROGRAM}: {one_line(str(exc)) or type(exc).__name__}", file=sys.stderr)  # noqa: T201 - a program
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="List, describe, fetch and delete the artifacts of a host.",
        epilog="The command `paglets artifacts` does the same for all hosts of a mesh, and stores artifacts.",
    )
    parser.add_argument("--entry", metavar="NAME", help="host to look for, by its name or URL")
    parser.add_argument("--host", metavar="URL", help="host to ask, without looking for one")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=positive_seconds,
        default=DEFAULT_TIMEOUT_SECONDS,
        help="how long it may stall",
    )
    parser.add_argument(
        "--api-key-env",
        metavar="VAR",
        default=DEFAULT_API_KEY_ENV,
        help=f"environment variable with the key of the host ({DEFAULT_API_KEY_ENV} by default)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="list artifacts")
    listing.add_argument("--owner", metavar="AGENT", help="only those of this paglet")
    listing.add_argument("--json", action="store_true", help="write JSON")
    listing.set_defaults(run=_list)
    metadata = commands.add_parser("metadata", help="describe an artifact as JSON")
    metadata.add_argument("id", metavar="ID")
    metadata.set_defaults(run=_metadata)
    download = commands.add_parser("download", help="fetch an artifact into a file")
    download.add_argument("id", metavar="ID")
    download.add_argument("output", metavar="OUTPUT", type=_file)
    download.add_argument("--move", action="store_true", help="delete it on the host once it is verified")
    download.set_defaults(run=_download)
    delete = commands.add_parser("delete", help="delete an artifact")
    delete.add_argument("id", metavar="ID")
    delete.add_argument("--quiet", action="store_true", help="say nothing")
    delete.set_defaults(run=_delete)
    return parser


def _file(text: str) -> str:
    """Return the name of a file in an argument.

    :raises argparse.ArgumentTypeError: it is empty, which would stand for the current directory.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a file")
    return text


def _key(variable: str) -> str | None:
    return resolve_api_key(None if variable == DEFAULT_API_KEY_ENV else variable)


def _host_url(client: HostClient, options: argparse.Namespace) -> str:
    if options.host:
        return normalize_server_url(options.host)
    return select_reachable_entry_server(entry_name=options.entry, client=client, timeout=options.timeout).url


# --- commands ---------------------------------------------------------------------------------------------------------


def _list(client: HostClient, host_url: str, options: argparse.Namespace) -> None:
    found = client.list_artifacts(host_url, owner_agent_id=options.owner)
    if options.json:
        print_json({"artifacts": [ref.to_wire() for ref in found]})
    elif found:
        _print_table([_COLUMNS, *map(_row, found)])
    else:
        _say("No artifacts.")


def _metadata(client: HostClient, host_url: str, options: argparse.Namespace) -> None:
    print_json({"artifact": client.artifact_metadata(host_url, options.id).to_wire()})


def _download(client: HostClient, host_url: str, options: argparse.Namespace) -> None:
    client.download_artifact(host_url, options.output, checked_artifact_id(options.id), move=options.move)
    _say(options.output)


def _delete(client: HostClient, host_url: str, options: argparse.Namespace) -> None:
    client.delete_artifact(host_url, checked_artifact_id(options.id))
    if not options.quiet:
        _say(f"deleted {options.id}")


def _row(ref: ArtifactRef) -> tuple[str, ...]:
    return ref.artifact_id[:_SHOWN_ID], bytes_text(ref.size_bytes), ref.owner_agent_id or "-", ref.name or "-"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        _say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _say(text: str) -> None:
    print(printable(text))  # noqa: T201 - a program


if __name__ == "__main__":
    sys.exit(main())
