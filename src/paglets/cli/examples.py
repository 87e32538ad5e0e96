"""The `paglets examples` commands: programs made of paglets, to be used and to be read."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import typer

from paglets.cli.options import EntryOption, JsonOption, KeyOption, help_unless_chosen

FILE_EPILOG: Final = """
Examples:

  paglets examples file push notes.txt --remote beta --dest /srv/notes/

  paglets examples file pull /var/log/app.log --remote beta --mode move

Whatever dies, the file is whole at one of the two hosts. To move it means to delete the original when it is saved.

Relative paths mean the present directory where the entry host is on this machine.
"""

REQUEST_TIMEOUT_SECONDS: Final = 60.0


class TransferMode(StrEnum):
    """What becomes of the original."""

    COPY = "copy"
    MOVE = "move"


SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="The file, at the host that has it.")]
RemoteOption = Annotated[
    str,
    typer.Option("--remote", metavar="NAME|URL", help="The other host, by name if the entry host knows it."),
]
DestOption = Annotated[
    str,
    typer.Option(
        "--dest",
        metavar="PATH",
        help="Where to save it at the other end; below a directory if it is one, or ends with a slash.",
        show_default=False,
    ),
]
ModeOption = Annotated[TransferMode, typer.Option("--mode", help="Keep the original, or delete it afterwards.")]
DryOption = Annotated[bool, typer.Option("--dry", "--dry-run", help="Only say what would be done.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
_TimeoutOption = Annotated[
    float,
    typer.Option("--timeout", "--request-timeout", metavar="SECONDS", min=0.1, help="How long one answer may take."),
]

app = typer.Typer(name="examples", help="Use programs that are made of paglets.", rich_markup_mode="rich")
_file = typer.Typer(name="file", help="Carry a file from host to host.", epilog=FILE_EPILOG, rich_markup_mode="rich")
app.add_typer(_file)


@app.callback(invoke_without_command=True)
@_file.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    help_unless_chosen(context)


def _file_command(direction: str, help_text: str) -> None:
    @_file.command(direction, help=help_text, epilog=FILE_EPILOG)
    def transfer(
        context: typer.Context,
        source: SourceArgument,
        remote: RemoteOption,
        dest: DestOption = "",
        mode: ModeOption = TransferMode.COPY,
        dry: DryOption = False,
        overwrite: OverwriteOption = False,
        json: JsonOption = False,
        entry: EntryOption = None,
        timeout: _TimeoutOption = REQUEST_TIMEOUT_SECONDS,
        api_key_env: KeyOption = None,
    ) -> None:
        # Imported this late, so that help and mistakes need not wait for the clients to load.
        from paglets.examples.file_grabber.cli import Order, carry_out

        order = Order(direction, source, remote, dest, mode.value, dry, overwrite, json, entry, timeout, api_key_env)
        raise typer.Exit(carry_out(context.command_path, order))


_file_command("push", "Bring a file of the entry host to another one.")
_file_command("pull", "Fetch a file of another host to the entry host.")
