"""Wrong command lines, told of the command that they are meant for."""

from __future__ import annotations

from typing import Any, Final

import typer

__all__ = ["UsageError", "say_which"]

# Typer uses the installed click or brings a copy of it, by version. In both this is what a wrong command line raises.
UsageError: Final[type[Exception]] = typer.BadParameter.__mro__[1]


def say_which(command: Any) -> None:
    """Have every mistake in the arguments of a command name that command.

    By itself an option without its value is told of none.
    """
    usual = command.parse_args

    def parse_args(context: Any, arguments: list[str]) -> Any:
        try:
            return usual(context, arguments)
        except UsageError as exc:
            if getattr(exc, "ctx", None) is None:
                exc.ctx = context  # type: ignore[attr-defined]  # of the class that is found out above
            raise

    command.parse_args = parse_args
