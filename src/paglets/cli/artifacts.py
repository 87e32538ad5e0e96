"""The `paglets artifacts` commands: store files on hosts, look at what is there, fetch it and delete it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from paglets.cli import artifact_files
from paglets.cli.artifact_ids import ArtifactArgument, find, label
from paglets.cli.console import (
    bytes_text,
    print_error,
    print_json,
    print_shown,
    print_table,
    say,
    table,
)
from paglets.cli.options import (
    DEFAULT_TIMEOUT_SECONDS,
    FAILURE_EXIT,
    EntryOption,
    HostOption,
    JsonOption,
    KeyOption,
    TimeoutOption,
    Where,
    clock_text,
    confirm,
    help_unless_chosen,
    reported,
)
from paglets.core.errors import PagletError

if TYPE_CHECKING:
    from paglets.artifacts import ArtifactRef
    from paglets.remote.admin import ServerRef

EPILOG: Final = """
Examples:

  paglets artifacts put results.csv --expires 7d

  paglets artifacts list

  paglets artifacts get 3f2a90c1 ~/Downloads/

  paglets artifacts rm 3f2a90c1

An artifact is a file that a host keeps for others. It belongs to no process: whoever has its id can fetch it.
"""


def _examples(*lines: str) -> str:
    return "\n\n".join(["Examples:", *(f"  {line}" for line in lines)])


app = typer.Typer(
    name="artifacts",
    help="Files that hosts keep: store, list, fetch and delete them.",
    epilog=EPILOG,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def artifacts(context: typer.Context) -> None:
    """Store files on hosts, look at what is there, fetch it and delete it."""
    help_unless_chosen(context)


@app.command("list", epilog=_examples("paglets artifacts list", "paglets artifacts list --host alpha --json"))
def list_artifacts(
    context: typer.Context,
    owner: Annotated[
        str | None,
        typer.Option("--owner", "--agent", metavar="AGENT", help="Only those of this paglet.", show_default=False),
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", "-w", help="Whole ids, and checksums.")] = False,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """List the artifacts of all hosts of the mesh, or of one."""
    command = context.command_path
    with reported(command):
        from paglets.cli.fleet import fleet_of, report_missing

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            answers = fleet.ask(lambda server: fleet.client.list_artifacts(server.url, owner_agent_id=owner))
        found = [(server, ref) for server, refs in answers.given for ref in refs]
        if json:
            print_json({"artifacts": [ref.to_wire() for _, ref in found], "errors": answers.errors})
        elif found:
            _print_list(found, wide=wide)
        elif not answers.missing:
            say("No artifacts.")
        report_missing(command, answers)


def _print_list(found: Sequence[tuple[ServerRef, ArtifactRef]], *, wide: bool) -> None:
    from paglets.cli.fleet import short_ids

    short = short_ids([ref.artifact_id for _, ref in found])
    rows = []
    for server, ref in found:
        row = [
            ref.artifact_id if wide else short[ref.artifact_id],
            bytes_text(ref.size_bytes),
            ref.owner_agent_id or "-",
            server.name,
            clock_text(ref.created_at),
            _expiry(ref),
            ref.name or "-",
        ]
        rows.append([*row, ref.sha256] if wide else row)
    columns = ["artifact", "size", "owner", "host", "stored", "expires", "name"]
    shown = table("Artifacts", [*columns, "sha256"] if wide else columns, rows, right={"size"})
    print_shown(shown, whole=wide)


def _expiry(ref: ArtifactRef) -> str:
    return clock_text(ref.expires_at) if ref.expires_at else "never"


@app.command("info", epilog=_examples("paglets artifacts info 3f2a90c1", "paglets artifacts info 3f2a90c1 --json"))
def info(
    context: typer.Context,
    artifact: ArtifactArgument,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Show what is known of an artifact."""
    with reported(context.command_path):
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            server, ref = find(fleet, artifact)
        if json:
            print_json({"artifact": ref.to_wire()})
            return
        rows = [
            ["name", ref.name or "-"],
            ["size", f"{bytes_text(ref.size_bytes)} ({ref.size_bytes} bytes)"],
            ["sha256", ref.sha256],
            ["host", f"{server.name} at {ref.host_url}"],
            ["owner", ref.owner_agent_id or "-"],
            ["stored", clock_text(ref.created_at)],
            ["expires", _expiry(ref)],
            ["compression", ref.compression or "-"],
        ]
        print_table(f"Artifact {ref.artifact_id}", ["", ""], rows)


app.command(
    "get",
    epilog=_examples(
        "paglets artifacts get 3f2a90c1",
        "paglets artifacts get 3f2a90c1 ~/Downloads/",
        "paglets artifacts get 3f2a90c1 report.pdf --move",
    ),
)(artifact_files.get)
app.command(
    "put",
    epilog=_examples(
        "paglets artifacts put results.csv",
        "paglets artifacts put big.tar --host beta --expires 7d",
        "paglets artifacts put x.bin --json | jq -r .artifact.artifact_id",
    ),
)(artifact_files.put)


@app.command("rm", epilog=_examples("paglets artifacts rm 3f2a90c1", "paglets artifacts rm 3f2a 9b1c --force"))
def rm(
    context: typer.Context,
    artifacts: Annotated[
        list[str], typer.Argument(metavar="ARTIFACT...", help="Ids, or their first characters.", show_default=False)
    ],
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing.")] = False,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Delete artifacts for good, after asking."""
    command = context.command_path
    with reported(command):
        if json and not force:
            raise ValueError("--json does not ask; say --force with it")
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            found = [find(fleet, text) for text in artifacts]
            if not force:
                for server, ref in found:
                    say(label(server, ref))
                confirm(command, "Delete for good?", unasked="--force")
            deleted, failed = [], []
            for _, ref in found:
                try:
                    fleet.client.delete_artifact(ref)
                except PagletError as exc:
                    failed.append({"artifact": ref.artifact_id, "error": str(exc)})
                else:
                    deleted.append(ref.artifact_id)
        if json:
            print_json({"deleted": deleted, "failed": failed})
        elif not quiet:
            for artifact_id in deleted:
                say(f"Deleted {artifact_id}")
        for each in failed:
            print_error(command, f"{each['artifact']}: {each['error']}")
        if failed:
            raise typer.Exit(FAILURE_EXIT)
