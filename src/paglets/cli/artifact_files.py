"""The `paglets artifacts get` and `put` commands: files between this machine and a host."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paglets.artifacts.names import safe_target_filename
from paglets.cli.artifact_ids import ArtifactArgument, find
from paglets.cli.console import bytes_text, err_console, note, print_json, printable, say
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
)
from paglets.core.errors import ConflictError

if TYPE_CHECKING:
    from paglets.artifacts import ArtifactRef

Progress = Callable[[int, int], None]


class Compress(StrEnum):
    """Whether content is compressed for the way."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def get(
    context: typer.Context,
    artifact: ArtifactArgument,
    output: Annotated[
        str | None,
        typer.Argument(
            metavar="OUTPUT",
            help="File or directory; by default the name of the artifact, made safe.",
            show_default=False,
        ),
    ] = None,
    move: Annotated[bool, typer.Option("--move", help="Delete it on its host once it is safely here.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a file that is there already.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing.")] = False,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Fetch an artifact into a file, which appears complete and verified or not at all."""
    with reported(context.command_path):
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            _, ref = find(fleet, artifact)
            target = _target(ref, output)
            if target.is_file() and not force:
                raise ConflictError(f"{target} is there already; --force replaces it")
            with _shown(f"get {ref.name or ref.artifact_id}", wanted=not (quiet or json)) as progress:
                fleet.client.download_artifact(ref, target, move=move, progress=progress)
        if json:
            print_json({"artifact": ref.to_wire(), "output": str(target)})
        elif not quiet:
            say(str(target))


def _target(ref: ArtifactRef, output: str | None) -> Path:
    """Return where to write an artifact; the name that somebody gave it never leads out of the directory."""
    if output is None:
        return Path(safe_target_filename(ref.name or ref.artifact_id))
    chosen = Path(output).expanduser()
    into = chosen.is_dir() or output.endswith(("/", os.sep))
    return chosen / safe_target_filename(ref.name or ref.artifact_id) if into else chosen


def put(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to store.")],
    name: Annotated[
        str | None, typer.Option("--name", help="What it is called; the file's name by default.", show_default=False)
    ] = None,
    owner: Annotated[str, typer.Option("--owner", "--agent", metavar="AGENT", help="Paglet that it belongs to.")] = "",
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="SPAN",
            help="How long to keep it: 90s, 10m, 2h, 7d; for good by default.",
            show_default=False,
        ),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", metavar="HEX", help="Checksum that it must have.", show_default=False),
    ] = None,
    compress: Annotated[
        Compress, typer.Option("--compress", help="Compress it for the way; auto does where it pays.")
    ] = Compress.AUTO,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing.")] = False,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """Store a file on a host, the entry host by default, and print the id of the artifact."""
    with reported(context.command_path):
        expires_at = 0.0 if expires is None else time.time() + duration_of(expires, "--expires")
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            server = fleet.entry or fleet.servers[0]
            with _shown(f"put {file.name}", wanted=not (quiet or json)) as progress:
                ref = fleet.client.upload_artifact(
                    server.url,
                    file,
                    owner_agent_id=owner,
                    name=name,
                    expires_at=expires_at,
                    expected_sha256=sha256,
                    progress=progress,
                    compress=compress.value,
                )
        if json:
            print_json({"artifact": ref.to_wire()})
        elif not quiet:
            say(ref.artifact_id)
            note(f"{bytes_text(ref.size_bytes)} on {server.name}")


@contextmanager
def _shown(what: str, *, wanted: bool) -> Iterator[Progress | None]:
    """Show how far a transfer is, on a terminal."""
    if not wanted or not err_console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=err_console) as bars:
        task = bars.add_task(printable(what), total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
