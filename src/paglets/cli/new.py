"""The `paglets new` command: begin a project that runs and is tested."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from paglets.cli.console import note, print_json, say
from paglets.cli.options import JsonOption, reported

EPILOG: Final = """
Examples:

  paglets new my-counter

  cd my-counter && pytest && python -m my_counter.main
"""


def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the project, and of its directory.")],
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where that directory is made.", file_okay=False)
    ] = Path(),
    json: JsonOption = False,
) -> None:
    """Write a small project: a paglet with state and messages, a program, a launch file, and tests."""
    with reported(context.command_path):
        from paglets.tooling.new_project import new_project, package_of

        path = new_project(name, directory.expanduser())
    if json:
        files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
        print_json({"directory": str(path), "package": package_of(name), "files": files})
        return
    say(f"wrote {path}")
    note(f"now: cd {path} && pip install -e . pytest && pytest && python -m {package_of(name)}.main")
