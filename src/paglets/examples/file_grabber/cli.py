"""`paglets-file-grabber`, and what `paglets examples file` does."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Final

import typer

from paglets.cli.console import err_console, fail, note, one_line, print_json, say
from paglets.cli.examples import (
    DestOption,
    DryOption,
    ModeOption,
    OverwriteOption,
    RemoteOption,
    SourceArgument,
    TransferMode,
)
from paglets.cli.launcher import run_app
from paglets.cli.options import EntryOption, JsonOption, KeyOption
from paglets.config.env import resolve_api_key
from paglets.core.errors import PagletError
from paglets.examples.file_grabber.transfer import (
    DEFAULT_REQUEST_TIMEOUT_SECONDS,
    Snapshot,
    find_remote,
    path_for,
    run_transfer,
)
from paglets.patterns.tasks import TaskStatus
from paglets.remote.admin import select_reachable_entry_server
from paglets.remote.client import HostClient

__all__ = ["DEFAULT_REQUEST_TIMEOUT_SECONDS", "FAILED_EXIT", "Order", "carry_out", "main", "run_transfer"]

PROGRAM: Final = "paglets-file-grabber"
FAILED_EXIT: Final = 1


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody has asked for on a command line."""

    direction: str
    """`push` or `pull`."""
    source: str
    remote: str
    dest: str = ""
    mode: str = "copy"
    dry: bool = False
    overwrite: bool = False
    json: bool = False
    entry: str | None = None
    request_timeout: float = DEFAULT_REQUEST_TIMEOUT_SECONDS
    api_key_env: str | None = None


def carry_out(command: str, order: Order) -> int:
    """Do what was asked for, print how it ended, and return the exit code.

    :raises typer.Exit: with code 2, when it could not be done or not be watched to its end; that is printed.
    """
    try:
        with HostClient(order.request_timeout, api_key=resolve_api_key(order.api_key_env)) as client:
            entry = select_reachable_entry_server(entry_name=order.entry, client=client, timeout=order.request_timeout)
            remote = find_remote(entry, order.remote, client)
            if order.direction == "push":
                order = replace(order, source=path_for(entry, order.source))
            else:
                order = replace(order, dest=path_for(entry, order.dest))
            with _busy(f"{order.direction} {order.source}, remote host {remote.name}", shown=not order.json):
                snapshot = run_transfer(entry, remote, order, client=client)
    except (PagletError, OSError, ValueError) as exc:
        for left in getattr(exc, "__notes__", ()):
            note(f"{command}: {left}")
        fail(command, exc)
    except KeyboardInterrupt as exc:
        for left in getattr(exc, "__notes__", ()):
            note(f"{command}: {left}")
        raise
    if order.json:
        print_json(snapshot.to_wire())
    else:
        _tell(snapshot)
    return 0 if snapshot.status is TaskStatus.COMPLETED else FAILED_EXIT


def _tell(snapshot: Snapshot) -> None:
    result = snapshot.result
    if snapshot.status is not TaskStatus.COMPLETED or result is None:
        say(f"{snapshot.status.value}: {one_line(snapshot.error)}")
        return
    source, destination = result.source, result.destination
    way = f"{source.host_name}:{source.path} ({result.size}) -> {destination.host_name}:{destination.path}"
    say(f"{'DRY_RUN' if result.dry_run else snapshot.status.value}: {way}")
    say(f"{'would save' if result.dry_run else 'saved'} with mode={result.mode.value}")


@contextmanager
def _busy(text: str, *, shown: bool) -> Iterator[None]:
    """Show on a terminal that something goes on, and for how long.

    Not how far it is: hosts do not tell how much of a file has arrived.
    """
    if not shown or not err_console.is_terminal:
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=err_console, transient=True) as progress:
        progress.add_task(one_line(text), total=None)
        yield


# --- the older program ------------------------------------------------------------------------------------------------

_app = typer.Typer(
    name=PROGRAM,
    help="Fetch a file from a host, or bring one to it.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)


@_app.callback()
def _options(
    context: typer.Context,
    entry: EntryOption = None,
    request_timeout: Annotated[
        float,
        typer.Option("--request-timeout", metavar="SECONDS", min=0.1, help="How long one answer may take."),
    ] = DEFAULT_REQUEST_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    context.obj = Order("", "", "", entry=entry, request_timeout=request_timeout, api_key_env=api_key_env)


def _command(direction: str, help_text: str) -> None:
    @_app.command(direction, help=help_text)
    def transfer(
        context: typer.Context,
        source: SourceArgument,
        remote: RemoteOption,
        dest: DestOption = "",
        mode: ModeOption = TransferMode.COPY,
        dry: DryOption = False,
        overwrite: OverwriteOption = False,
        json: JsonOption = False,
    ) -> None:
        order: Order = replace(
            context.obj,
            direction=direction,
            source=source,
            remote=remote,
            dest=dest,
            mode=mode.value,
            dry=dry,
            overwrite=overwrite,
            json=json,
        )
        raise typer.Exit(carry_out(PROGRAM, order))


_command("push", "Bring a file of the entry host to another one.")
_command("pull", "Fetch a file of another host to the entry host.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code: 0 when the file was transferred, 1 when not, 2 when that is unknown."""
    return run_app(_app, argv, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
