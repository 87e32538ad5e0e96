"""The `paglets sys` commands: how busy the machines of all hosts are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paglets.cli.console import bytes_text, console, fail, one_line, table
from paglets.cli.options import FAILURE_EXIT, EntryOption, JsonOption, KeyOption, TimeoutOption, help_unless_chosen
from paglets.cli.rounds import REFRESH_SECONDS, EveryOption, WatchOption, print_sorted_json, watch
from paglets.core.errors import PagletError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

DEFAULT_TIMEOUT_SECONDS: Final = 5.0
_HOST_WIDTH: Final = 16
"""Characters of a host's name that one line has, however narrow the terminal is."""
_TITLES: Final = {"load": "Load", "df": "Disk", "plist": "Processes", "summary": "Host Summary"}


def examples(*lines: str) -> str:
    """Return the examples below the help of a command."""
    return "\n\n".join(["Examples:", *(f"  {line}" for line in lines)])


app = typer.Typer(
    name="sys",
    help="Machines of the hosts: load, disks, processes.",
    epilog=examples(
        "paglets sys load --watch",
        "paglets sys df / /data",
        "paglets sys ps python --limit 5",
        "paglets sys summary --json",
    )
    + "\n\nIn a container all figures are those of the container. A clone goes to each host and asks the server-info "
    "service there.",
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def system(context: typer.Context) -> None:
    """Tell how busy the machines of all hosts are, how full their volumes, and what runs on them."""
    help_unless_chosen(context)


@app.command(epilog=examples("paglets sys load", "paglets sys load --interval 1 --no-gpu", "paglets sys load --watch"))
def load(
    context: typer.Context,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", metavar="SECONDS", min=0.0, max=10.0, help="Measure processors so long; 0: since last asked."
        ),
    ] = 0.0,
    gpu: Annotated[bool, typer.Option("--gpu/--no-gpu", help="Ask for GPUs of NVIDIA.")] = True,
    watching: WatchOption = False,
    every: EveryOption = REFRESH_SECONDS,
    json: JsonOption = False,
    entry: EntryOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Show how busy processors, memory, swap and GPUs are."""
    request = {"interval": interval, "include_gpu": gpu}
    _run(context, "load", request, entry, timeout, api_key_env, json=json, every=every if watching else None)


@app.command(epilog=examples("paglets sys df", "paglets sys df /data ~"))
def df(
    context: typer.Context,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH]...", help="Volumes that these are on; by default all.")
    ] = None,
    watching: WatchOption = False,
    every: EveryOption = REFRESH_SECONDS,
    json: JsonOption = False,
    entry: EntryOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Show how full volumes are."""
    request = {"paths": list(paths or ())}
    _run(context, "df", request, entry, timeout, api_key_env, json=json, every=every if watching else None)


@app.command("plist", hidden=True)
@app.command("ps", epilog=examples("paglets sys ps python", "paglets sys ps '' --limit 10 --args"))
def processes(
    context: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Part of their names or command lines, in any case.")],
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many of each host.")] = 25,
    arguments: Annotated[bool, typer.Option("--args", help="With command lines; they may hold secrets.")] = False,
    watching: WatchOption = False,
    every: EveryOption = REFRESH_SECONDS,
    json: JsonOption = False,
    entry: EntryOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """List processes, those with most memory first."""
    request = {"query": query, "limit": limit, "include_args": arguments}
    _run(context, "plist", request, entry, timeout, api_key_env, json=json, every=every if watching else None)


@app.command(epilog=examples("paglets sys summary", "paglets sys summary --json"))
def summary(
    context: typer.Context,
    watching: WatchOption = False,
    every: EveryOption = REFRESH_SECONDS,
    json: JsonOption = False,
    entry: EntryOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Show what machines they are."""
    _run(context, "summary", {}, entry, timeout, api_key_env, json=json, every=every if watching else None)


def _run(
    context: typer.Context,
    operation: str,
    request: dict[str, Any],
    entry: str | None,
    timeout: float,
    api_key_env: str | None,
    *,
    json: bool,
    every: float | None,
) -> None:
    with failing_with_two(context.command_path):
        # Imported this late, so that help and mistakes need not wait for the clients to load.
        from paglets.config.env import resolve_api_key
        from paglets.remote.admin import entry_server
        from paglets.remote.client import HostClient
        from paglets.system.programs import SLACK_SECONDS
        from paglets.system.server_info.reports import collect

        with HostClient(timeout + SLACK_SECONDS, api_key=resolve_api_key(api_key_env)) as client:
            server = entry_server(entry, client, timeout)

            def ask() -> dict[str, Any]:
                return collect(client, server, operation, request, timeout=timeout)

            if every is not None:
                watch(ask, draw=_draw, wire=dict, json=json, every=every)
                return
            found = ask()
        if json:
            print_sorted_json(found)
        else:
            show(_draw(found))
        if found["errors"]:
            raise typer.Exit(FAILURE_EXIT)


def _draw(found: dict[str, Any]) -> Sequence[RenderableType]:
    from paglets.system.server_info.reports import report_of

    report = report_of(found, bytes_text)
    shown = host_table(_TITLES[found["operation"]], report.columns, report.rows, right=report.right)
    return [shown, *section("Errors", report.errors)]


# --- shared with the commands of the mesh -----------------------------------------------------------------------------


@contextmanager
def failing_with_two(command: str) -> Iterator[None]:
    """Turn what goes wrong into one line on standard error and the exit code 2.

    Here 1 means that there was an answer with something wrong in it.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # nobody is left who could read about it
    except (PagletError, OSError, ValueError) as exc:
        fail(command, exc)


def host_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str]) -> Table:
    """Return a table whose first column, the hosts, stays readable in a narrow terminal."""
    shown = table(title, columns, rows, right=right)
    shown.columns[0].min_width = min(_HOST_WIDTH, max((len(row[0]) for row in rows), default=0))
    return shown


def show(parts: Sequence[RenderableType]) -> None:
    """Print tables as wide as the terminal is, and lines as they are."""
    from rich.text import Text

    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text), crop=False)


def section(title: str, texts: dict[str, str]) -> list[RenderableType]:
    """Return what is said about hosts as a list with a title, nothing if nothing is."""
    from rich.text import Text

    if not texts:
        return []
    lines = [Text(f"- {one_line(name)}: {one_line(text)}") for name, text in sorted(texts.items())]
    return [Text(title, style="bold"), *lines]
