"""The `paglets classes` command: which paglet classes there are, and what a first state of each has to say."""

from __future__ import annotations

import dataclasses
import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from paglets.cli.console import note, print_error, print_json, print_table
from paglets.cli.options import FAILURE_EXIT, JsonOption

EPILOG: Final = """
Examples:

  paglets classes myapp.agents           a module

  paglets classes src/myapp notes.py     what is below a directory, and one file

  paglets classes . --static             only read the files: nothing is imported, no line is run

  paglets classes myapp --json | jq -r '.classes[].class_name'

A field without a default stands as `name (required)`: a first state has to give it.
"""


def classes(
    context: typer.Context,
    places: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH|MODULE]...", help="Files, directories and modules; the present directory."),
    ] = None,
    static: Annotated[
        bool, typer.Option("--static", help="Read the source instead of importing it, which would run it.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the paglet classes of modules, files and directories, with their states."""
    from paglets.tooling.discovery import AgentDiscoveryConfig, discover_agent_classes

    config = AgentDiscoveryConfig([], [])
    for place in places or ["."]:
        (config.paths if _is_path(place) else config.modules).append(place)
    here = str(Path.cwd())
    if here not in sys.path:
        # An installed program's search path has no present directory, in which modules are expected.
        sys.path.insert(0, here)
    result = discover_agent_classes(config, static=static)
    if json:
        print_json(
            {"classes": [dataclasses.asdict(record) for record in result.agent_classes], "errors": result.errors}
        )
    else:
        rows = [
            [record.class_name, record.state_class_name, _state_text(record), record.description]
            for record in result.agent_classes
        ]
        print_table("Paglet classes", ["class", "state class", "state", "description"], rows)
        if not rows:
            note("there are none; a paglet class extends Paglet and sets State to a dataclass")
    for error in result.errors:
        print_error(context.command_path, error)
    if result.errors:
        raise typer.Exit(FAILURE_EXIT)


def _is_path(place: str) -> bool:
    if Path(place).exists():
        return True
    return not all(part.isidentifier() for part in place.split("."))


def _state_text(record: Any) -> str:
    required = [f"{name} (required)" for name in record.required_state_fields]
    given = [f"{name} = {json_module.dumps(value, default=repr)}" for name, value in record.state_template.items()]
    return ", ".join([*required, *given])
