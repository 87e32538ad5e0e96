"""The `paglets config` commands: what a host starts by itself, looked at, checked and changed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paglets.cli.console import err_console, note, one_line, print_json, print_table, say
from paglets.cli.options import FAILURE_EXIT, JsonOption, help_unless_chosen, reported
from paglets.core.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from paglets.config.launch_check import LaunchCheck
    from paglets.config.launch_table import Problem

EPILOG: Final = """
Examples:

  paglets config check                 the launch file of this user

  paglets config check launch.toml     another one

  paglets config show                  what holds, and which line or default says so

  paglets config edit                  change it in $VISUAL or $EDITOR
"""

EDITOR_VARIABLES: Final = ("VISUAL", "EDITOR")
FALLBACK_EDITORS: Final = ("sensible-editor", "nano", "vi")

app = typer.Typer(
    name="config", help="What a host starts by itself, and what it takes in.", epilog=EPILOG, rich_markup_mode="rich"
)

FileArgument = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="Launch file; ~/.paglets/launch.toml.", show_default=False)
]
ClassesOption = Annotated[
    bool,
    typer.Option(
        "--classes", help="Also import the classes as a host would, which runs their code, and check their states."
    ),
]


@app.callback(invoke_without_command=True)
def config(context: typer.Context) -> None:
    """Look at what a host starts by itself, and what it takes in."""
    help_unless_chosen(context)


@app.command("check")
def check(
    context: typer.Context, file: FileArgument = None, classes: ClassesOption = False, json: JsonOption = False
) -> None:
    """Say what is wrong with a launch file, with the lines, and what is allowed; exit code 1 if anything is."""
    with reported(context.command_path):
        found = _checked(_path(file), classes=classes)
    if json:
        print_json({"file": str(found.path), "problems": [_wire(problem) for problem in found.problems]})
    else:
        _print_problems(found)
        if not found.problems:
            agents, services = len(found.config.startup_agents), len(found.config.resident_services)
            say(f"{found.path} is right: {agents} startup agents, {services} resident services")
    if found.problems:
        raise typer.Exit(FAILURE_EXIT)


@app.command("show")
def show(context: typer.Context, file: FileArgument = None, json: JsonOption = False) -> None:
    """Show every value that holds, and where it comes from: a line of the file, the class, or a default."""
    path = _path(file)
    with reported(context.command_path):
        found = _checked(path, absent="")
    values = found.effective()
    if json:
        wire = [
            {"key": each.key, "value": each.value, "origin": each.origin.value, "line": each.line} for each in values
        ]
        problems = [_wire(problem) for problem in found.problems]
        print_json({"file": str(path), "exists": path.exists(), "values": wire, "problems": problems})
    else:
        rows = [
            [
                each.key,
                _value_text(each.value, each.origin.value),
                f"line {each.line}" if each.line else each.origin.value,
            ]
            for each in values
        ]
        print_table(str(path), ["key", "value", "from"], rows)
        if not path.exists():
            note(f"{path} does not exist; a host that starts puts the bundled one there, unless told otherwise")
        _print_problems(found)
    if found.problems:
        raise typer.Exit(FAILURE_EXIT)


@app.command("edit")
def edit(context: typer.Context, file: FileArgument = None, classes: ClassesOption = False) -> None:
    """Open a copy in $VISUAL or $EDITOR, and put it in place when it is right; until then a host sees the old one."""
    with reported(context.command_path):
        from paglets.config.launch_file import read_text
        from paglets.config.launch_sync import bundled_launch_config_text, write_launch_text

        path = _path(file)
        before = read_text(path) if path.exists() else None
        directory = Path(tempfile.mkdtemp(prefix="paglets-config-"))
        copy = directory / path.name
        copy.write_text(bundled_launch_config_text() if before is None else before, encoding="utf-8")
        while True:
            _open_editor(copy)
            text = read_text(copy)
            found = _check_text(text, copy, classes=classes)
            if not found.problems:
                break
            _print_problems(found)
            if not _again():
                raise HostError(f"{path} is as it was; what you wrote is in {copy}")
        if text == before:
            say(f"{path} is as it was")
        elif (read_text(path) if path.exists() else None) != before:
            raise HostError(f"{path} was changed by somebody else meanwhile; what you wrote is in {copy}")
        else:
            write_launch_text(path, text)
            say(f"changed {path}; hosts read it when they start")
        copy.unlink()
        directory.rmdir()


# --- inside -----------------------------------------------------------------------------------------------------------


def _path(file: Path | None) -> Path:
    from paglets.config.launch_file import DEFAULT_LAUNCH_CONFIG_PATH

    return (file or DEFAULT_LAUNCH_CONFIG_PATH).expanduser()


def _checked(path: Path, *, classes: bool = False, absent: str | None = None) -> LaunchCheck:
    from paglets.config.launch_file import read_text

    if absent is not None and not path.exists():
        return _check_text(absent, path, classes=classes)
    return _check_text(read_text(path), path, classes=classes)


def _check_text(text: str, path: Path, *, classes: bool) -> LaunchCheck:
    from paglets.config.launch_check import check_launch_text

    if classes and (here := str(Path.cwd())) not in sys.path:
        # An installed program's search path has no present directory, in which modules are expected.
        sys.path.insert(0, here)
    return check_launch_text(text, path, resolve=classes)


def _wire(problem: Problem) -> dict[str, Any]:
    from paglets.config.launch_check import dotted

    place = problem.place
    return {
        "line": None if place is None else place.line,
        "column": None if place is None else place.column,
        "key": dotted(problem.keys),
        "problem": problem.text,
    }


def _print_problems(found: LaunchCheck) -> None:
    for problem in found.problems:
        place = "" if problem.place is None else f":{problem.place.line}:{problem.place.column}"
        err_console.print(one_line(f"{found.path}{place}: {problem.text}"), style="red", markup=False, soft_wrap=True)


def _value_text(value: Any, origin: str) -> str:
    from paglets.config.toml_text import toml_value

    if value is None:
        return "as its class says" if origin == "class" else "-"
    return toml_value(value)


def _open_editor(path: Path) -> None:
    """Have a person change a file.

    :raises HostError: there is no editor, or it failed.
    """
    import shutil

    named = next((text for name in EDITOR_VARIABLES if (text := os.environ.get(name, "").strip())), None)
    command = shlex.split(named) if named else [next(filter(shutil.which, FALLBACK_EDITORS), "")]
    if not command or not command[0]:
        raise HostError("there is no editor: name one in the environment variable VISUAL or EDITOR")
    try:
        code = subprocess.run([*command, str(path)], check=False).returncode
    except OSError as error:
        raise HostError(f"cannot start the editor {command[0]!r}: {error.strerror or error}") from error
    if code:
        raise HostError(f"the editor {command[0]!r} ended with {code}; nothing was changed, the copy is {path}")


def _again(ask: Callable[[str], str] = input) -> bool:
    if not sys.stdin.isatty():
        return False
    try:
        return ask("Open it again? [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False
