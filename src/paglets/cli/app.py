"""The `paglets` program: one command per task, each in a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from paglets.cli import (
    allowance,
    artifacts,
    audit,
    classes,
    config,
    create,
    dead,
    demo,
    drain,
    events,
    examples,
    host,
    hosts,
    journey,
    keys,
    lifecycle,
    mesh,
    new,
    ps,
    relay,
    search,
    send,
    services,
    system,
)
from paglets.cli.console import configure_console
from paglets.cli.launcher import run_app
from paglets.cli.options import help_unless_chosen

PROGRAM = "paglets"

_EPILOG = """
Examples:

  paglets demo ~/projects        watch paglets survey a directory on three hosts

  paglets host --name alpha      run a host until Ctrl-C

  paglets host --help            everything a host can be told

  paglets hosts                  the hosts of the mesh, and how they do

  paglets ps                     the paglets of all hosts

  paglets send 3f2a greet name=you
"""

_HOSTS = "Hosts"
_PAGLETS = "Paglets"
_FILES = "Files"
_WATCH = "What happened"
_PROGRAMS = "Your programs"
_EXAMPLES = "Examples"

app = typer.Typer(
    name=PROGRAM,
    help="Run hosts for paglets, durable Python objects that move between machines, and look after them.",
    epilog=_EPILOG,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("host", epilog=host.EPILOG, rich_help_panel=_HOSTS)(host.host)
app.add_typer(config.app, rich_help_panel=_HOSTS)
app.add_typer(keys.app, rich_help_panel=_HOSTS)
app.add_typer(relay.app, rich_help_panel=_HOSTS)
app.command("hosts", epilog=hosts.EPILOG, rich_help_panel=_HOSTS)(hosts.hosts)
app.command("demo", epilog=demo.EPILOG, rich_help_panel=_HOSTS)(demo.demo)
app.command("drain", epilog=drain.EPILOG, rich_help_panel=_HOSTS)(drain.drain)
app.add_typer(mesh.app, rich_help_panel=_HOSTS)
app.add_typer(system.app, rich_help_panel=_HOSTS)
app.command("ps", epilog=ps.EPILOG, rich_help_panel=_PAGLETS)(ps.ps)
app.command("create", epilog=create.EPILOG, rich_help_panel=_PAGLETS)(create.create)
app.command("send", epilog=send.EPILOG, rich_help_panel=_PAGLETS)(send.send)
app.command("services", epilog=services.EPILOG, rich_help_panel=_PAGLETS)(services.services)
app.command("move", epilog=lifecycle.MOVE_EPILOG, rich_help_panel=_PAGLETS)(lifecycle.move)
app.command("sleep", epilog=lifecycle.SLEEP_EPILOG, rich_help_panel=_PAGLETS)(lifecycle.sleep)
app.command("wake", epilog=lifecycle.WAKE_EPILOG, rich_help_panel=_PAGLETS)(lifecycle.wake)
app.command("rm", epilog=lifecycle.RM_EPILOG, rich_help_panel=_PAGLETS)(lifecycle.rm)
app.add_typer(allowance.app, rich_help_panel=_PAGLETS)
app.add_typer(artifacts.app, rich_help_panel=_FILES)
app.command("journey", epilog=journey.EPILOG, rich_help_panel=_WATCH)(journey.journey)
app.command("events", epilog=events.EPILOG, rich_help_panel=_WATCH)(events.events)
app.command("audit", epilog=audit.EPILOG, rich_help_panel=_WATCH)(audit.audit)
app.add_typer(dead.app, rich_help_panel=_WATCH)
app.command("new", epilog=new.EPILOG, rich_help_panel=_PROGRAMS)(new.new)
app.command("classes", epilog=classes.EPILOG, rich_help_panel=_PROGRAMS)(classes.classes)
app.add_typer(search.app, rich_help_panel=_FILES)
app.add_typer(examples.app, rich_help_panel=_EXAMPLES)


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
    """Run hosts for paglets, durable Python objects that move between machines, and look after them."""
    configure_console(no_color=no_color)
    help_unless_chosen(context)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code: 0 on success alone, 2 for a wrong command line."""
    return run_app(app, argv, PROGRAM)
