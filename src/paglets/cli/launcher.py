"""Run a Typer application as a program: exit codes, and errors of usage as one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import typer
import typer.main

from paglets.cli.console import one_line, print_error
from paglets.cli.lazy import plainly, seldom_collected
from paglets.cli.usage import UsageError

USAGE_EXIT: Final = 2
INTERRUPTED_EXIT: Final = 130


@cache
def command_of(app: typer.Typer) -> Any:
    """Return what runs an application, made of its annotations once: that takes longer than many a command."""
    return plainly(typer.main.get_command(app))


def run_app(app: typer.Typer, argv: Sequence[str] | None, program: str) -> int:
    """Run an application with the given arguments and return its exit code.

    :param argv: without the program's name; None takes those of this process.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        with seldom_collected():
            result = command_of(app)(args=arguments, prog_name=program, standalone_mode=False)
    except UsageError as exc:
        return _refuse(exc, program)
    except typer.Exit as exc:
        return exc.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED_EXIT
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def _refuse(error: Exception, program: str) -> int:
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", None) or program
    describe = getattr(error, "format_message", None)
    text = one_line(describe() if callable(describe) else str(error)).rstrip(".")
    print_error(command, f"{text} (see {command} --help)")
    return USAGE_EXIT
