"""The `paglets` program: one command per task, each in a module of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import takewhile
from typing import Annotated

import typer

from paglets.cli.console import configure_console, without_colors
from paglets.cli.launcher import run_app
from paglets.cli.lazy import LazyCommand, lazy_group
from paglets.cli.options import help_unless_chosen

PROGRAM = "paglets"

_NO_COLOR = "--no-color"

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

# Each module is imported when its command is called: all of them take longer than most commands.
_COMMANDS = (
    LazyCommand(
        "host",
        "paglets.cli.host",
        "Run a host: the place where paglets live, and where other hosts and programs reach them.",
        _HOSTS,
    ),
    LazyCommand("hosts", "paglets.cli.hosts", "List the hosts of the mesh, and how they do.", _HOSTS),
    LazyCommand(
        "demo",
        "paglets.cli.demo",
        "Survey a directory with paglets on three hosts: parallel work, real moves, checked numbers.",
        _HOSTS,
    ),
    LazyCommand(
        "drain",
        "paglets.cli.drain",
        "Empty a host: move its paglets to others or put them to sleep, and take nothing new in.",
        _HOSTS,
    ),
    LazyCommand("config", "paglets.cli.config", "What a host starts by itself, and what it takes in.", _HOSTS),
    LazyCommand("keys", "paglets.cli.keys", "Keys and certificates: who may do what on hosts.", _HOSTS),
    LazyCommand("relay", "paglets.cli.relay", "The names under which hosts are connected to a hub.", _HOSTS),
    LazyCommand("mesh", "paglets.cli.mesh", "Hosts of the mesh: how they do, and which suit work best.", _HOSTS),
    LazyCommand("sys", "paglets.cli.system", "Machines of the hosts: load, disks, processes.", _HOSTS),
    LazyCommand("ps", "paglets.cli.ps", "List paglets over all hosts of the mesh, or of one host.", _PAGLETS),
    LazyCommand(
        "create", "paglets.cli.create", "Create a paglet on the entry host, or on the one that --host names.", _PAGLETS
    ),
    LazyCommand("send", "paglets.cli.send", "Send a message to a paglet and print its reply.", _PAGLETS),
    LazyCommand(
        "services",
        "paglets.cli.services",
        "List the services that paglets offer over all hosts of the mesh, or on one host.",
        _PAGLETS,
    ),
    LazyCommand("move", "paglets.cli.lifecycle", "Move a paglet to another host.", _PAGLETS, "MOVE_EPILOG"),
    LazyCommand(
        "sleep", "paglets.cli.lifecycle", "Store a paglet on disk and end its process.", _PAGLETS, "SLEEP_EPILOG"
    ),
    LazyCommand("wake", "paglets.cli.lifecycle", "Wake a paglet that sleeps or has crashed.", _PAGLETS, "WAKE_EPILOG"),
    LazyCommand(
        "rm",
        "paglets.cli.lifecycle",
        "End paglets for good, whether they are active, asleep or crashed.",
        _PAGLETS,
        "RM_EPILOG",
    ),
    LazyCommand(
        "allowance",
        "paglets.cli.allowance",
        "What paglets may use up: moves, clones, time and the size of their state.",
        _PAGLETS,
    ),
    LazyCommand(
        "journey", "paglets.cli.journey", "Show the way of a paglet over all hosts, from its creation on.", _WATCH
    ),
    LazyCommand(
        "events",
        "paglets.cli.events",
        "Show what happened on all hosts of the mesh, or on one, in order of time.",
        _WATCH,
    ),
    LazyCommand("audit", "paglets.cli.audit", "Show refused and privileged requests, oldest first.", _WATCH),
    LazyCommand("dead", "paglets.cli.dead", "Messages that could not be delivered.", _WATCH),
    LazyCommand(
        "new",
        "paglets.cli.new",
        "Write a small project: a paglet with state and messages, a program, a launch file, and tests.",
        _PROGRAMS,
    ),
    LazyCommand(
        "classes",
        "paglets.cli.classes",
        "List the paglet classes of modules, files and directories, with their states.",
        _PROGRAMS,
    ),
    LazyCommand(
        "artifacts", "paglets.cli.artifacts", "Files that hosts keep: store, list, fetch and delete them.", _FILES
    ),
    LazyCommand("search", "paglets.cli.search", "Search the files of all hosts.", _FILES),
    LazyCommand("examples", "paglets.cli.examples", "Use programs that are made of paglets.", _EXAMPLES),
)

app = typer.Typer(
    name=PROGRAM,
    cls=lazy_group(*_COMMANDS),
    help="Run hosts for paglets, durable Python objects that move between machines, and look after them.",
    epilog=_EPILOG,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        # Looked up only when asked: it reads the installed package's files.
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version('paglets')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def paglets(
    context: typer.Context,
    no_color: Annotated[bool, typer.Option(_NO_COLOR, help="Print without colours.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run hosts for paglets, durable Python objects that move between machines, and look after them."""
    configure_console(no_color=no_color)
    help_unless_chosen(context)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code: 0 on success alone, 2 for a wrong command line."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    # Looked for before anything is printed: help and mistakes are, before the options are read.
    own = takewhile(lambda each: each.startswith("-"), arguments)
    with without_colors() if _NO_COLOR in own else nullcontext():
        return run_app(app, arguments, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
