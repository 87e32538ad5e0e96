"""The `paglets` program: one command per task, each in a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from paglets.cli import demo, host
from paglets.cli.console import configure_console
from paglets.cli.launcher import run_app

PROGRAM = "paglets"

_EPILOG = """
Examples:

  paglets demo ~/projects        watch paglets survey a directory on three hosts

  paglets host --name alpha      run a host until Ctrl-C

  paglets host --help            everything a host can be told
"""

app = typer.Typer(
    name=PROGRAM,
    help="Run hosts for paglets: durable Python objects that move between machines.",
    epilog=_EPILOG,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("host", epilog=host.EPILOG)(host.host)
app.command("demo", epilog=demo.EPILOG)(demo.demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        # Looked up only when asked: it reads the installed package's files.
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version('paglets')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def paglets(
    context: typer.Context,
    no_color: Annotated[bool, typer.Option("--no-color", help="Print without colours.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run hosts for paglets: durable Python objects that move between machines."""
    configure_console(no_color=no_color)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code: 0 on success alone, 2 for a wrong command line."""
    return run_app(app, argv, PROGRAM)
