"""The `paglets mesh` commands: how all hosts do, and which of them suit work best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paglets.cli.console import bytes_text
from paglets.cli.options import FAILURE_EXIT, EntryOption, JsonOption, KeyOption, TimeoutOption, help_unless_chosen
from paglets.cli.rounds import REFRESH_SECONDS, EveryOption, WatchOption, print_sorted_json, watch
from paglets.cli.system import examples, failing_with_two, host_table, section, show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from paglets.services.contracts import ServiceOperation
    from paglets.system.mesh_info.agent import LandscapeReply, TargetSelectionReply

DEFAULT_TIMEOUT_SECONDS: Final = 20.0

AgeOption = Annotated[
    float,
    typer.Option(
        "--max-age", metavar="SECONDS", min=0.0, help="How old news may be; 0 leaves that to the service (20 s)."
    ),
]

app = typer.Typer(
    name="mesh",
    help="Hosts of the mesh: how they do, and which suit work best.",
    epilog=examples("paglets mesh summary --watch", "paglets mesh targets --mem 8G --disk 50G")
    + "\n\nThe mesh-info service of the entry host answers from what it knows; no other host is asked.",
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def mesh(context: typer.Context) -> None:
    """Tell how the hosts of the mesh do, and which of them suit work best."""
    help_unless_chosen(context)


@app.command(epilog=examples("paglets mesh summary", "paglets mesh summary --max-age 60 --json"))
def summary(
    context: typer.Context,
    max_age: AgeOption = 0.0,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="At most so many; 0 for all.")] = 0,
    watching: WatchOption = False,
    every: EveryOption = REFRESH_SECONDS,
    json: JsonOption = False,
    entry: EntryOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Show how all hosts do."""
    with failing_with_two(context.command_path):
        from paglets.system.mesh_info.agent import GET_LANDSCAPE, LandscapeRequest

        request = LandscapeRequest(max_age_seconds=max_age, limit=limit)
        reply = _ask(
            GET_LANDSCAPE,
            request,
            entry,
            timeout,
            api_key_env,
            json=json,
            every=every if watching else None,
            draw=_draw_landscape,
        )
        if reply is not None and not reply.hosts:
            raise typer.Exit(FAILURE_EXIT)


@app.command(epilog=examples("paglets mesh targets", "paglets mesh targets --mem 8G --limit 1 --no-fallback --json"))
def targets(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 5,
    max_age: AgeOption = 0.0,
    max_load_per_cpu: Annotated[
        float, typer.Option("--max-load-per-cpu", metavar="X", help="Hosts above it come last.")
    ] = 1.0,
    max_cpu_percent: Annotated[
        float, typer.Option("--max-cpu-percent", metavar="X", help="Hosts above it come last.")
    ] = 100.0,
    memory: Annotated[
        str, typer.Option("--mem", "--min-memory", metavar="SIZE", help="Memory that must be free, like 512M or 8G.")
    ] = "0",
    disk: Annotated[
        str, typer.Option("--disk", "--min-work-free", metavar="SIZE", help="Storage that must be free, like 50G.")
    ] = "0",
    include_self: Annotated[
        bool, typer.Option("--include-self/--exclude-self", help="Whether the entry host is meant, too.")
    ] = True,
    fallback: Annotated[
        bool, typer.Option("--fallback/--no-fallback", help="When no host does, show those that nearly do.")
    ] = True,
    watching: WatchOption = False,
    every: EveryOption = REFRESH_SECONDS,
    json: JsonOption = False,
    entry: EntryOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Show which hosts suit work best, the best first; a lower score is better."""
    with failing_with_two(context.command_path):
        from paglets.system.mesh_info.agent import SELECT_TARGETS, TargetSelectionRequest
        from paglets.system.sizes import parse_size

        request = TargetSelectionRequest(
            limit=limit,
            max_age_seconds=max_age,
            max_load_per_cpu=max_load_per_cpu,
            max_cpu_percent=max_cpu_percent,
            min_memory_available_bytes=parse_size(memory),
            min_work_free_bytes=parse_size(disk),
            include_self=include_self,
            allow_fallback=fallback,
        )
        reply = _ask(
            SELECT_TARGETS,
            request,
            entry,
            timeout,
            api_key_env,
            json=json,
            every=every if watching else None,
            draw=_draw_targets,
        )
        if reply is not None and not reply.targets:
            raise typer.Exit(FAILURE_EXIT)


def _ask(
    operation: ServiceOperation[Any, Any],
    request: Any,
    entry: str | None,
    timeout: float,
    api_key_env: str | None,
    *,
    json: bool,
    every: float | None,
    draw: Callable[[Any], Sequence[RenderableType]],
) -> Any:
    """Print what the service answers and return it; None once it was watched."""
    # Imported this late, so that help and mistakes need not wait for the clients to load.
    from paglets.config.env import resolve_api_key
    from paglets.remote.admin import entry_server
    from paglets.remote.client import HostClient
    from paglets.serialization.codec import to_wire
    from paglets.system.mesh_info.reports import ask

    with HostClient(timeout, api_key=resolve_api_key(api_key_env)) as client:
        server = entry_server(entry, client, timeout)
        if every is not None:
            watch(
                lambda: ask(client, server, operation, request, timeout=timeout),
                draw=draw,
                wire=to_wire,
                json=json,
                every=every,
            )
            return None
        reply = ask(client, server, operation, request, timeout=timeout)
    if json:
        print_sorted_json(to_wire(reply))
    else:
        show(draw(reply))
    return reply


def _draw_landscape(reply: LandscapeReply) -> Sequence[RenderableType]:
    from paglets.system.mesh_info.reports import landscape_errors, landscape_report

    report = landscape_report(reply, bytes_text, texts=False)
    shown = host_table("Mesh Summary", report.columns, report.rows, right=report.right)
    return [shown, *section("Errors", landscape_errors(reply))]


def _draw_targets(reply: TargetSelectionReply) -> Sequence[RenderableType]:
    from rich.text import Text

    from paglets.system.mesh_info.reports import NO_ELIGIBLE, is_fallback, target_remarks, targets_report

    report = targets_report(reply, bytes_text)
    return [
        host_table("Mesh Targets", report.columns, report.rows, right=report.right),
        *([Text(NO_ELIGIBLE, style="yellow")] if is_fallback(reply) else []),
        *section("Remarks", target_remarks(reply)),
        *section("Rejected", reply.rejected),
        *section("Errors", reply.errors),
    ]
