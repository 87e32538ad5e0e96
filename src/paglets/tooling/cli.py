"""`paglets-host`: what `paglets host` does, under its older name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from paglets.cli.host import EPILOG, host
from paglets.cli.launcher import run_app

PROGRAM = "paglets-host"

_BIND_PUBLIC = "--bind-public"

_app = typer.Typer(name=PROGRAM, rich_markup_mode="rich", pretty_exceptions_enable=False)
_app.command(epilog=EPILOG.replace("paglets host", PROGRAM))(host)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a host until it is told to stop and return the exit code.

    The options are those of `paglets host`; here `--bind-public` may stand without a value and means the address in the
    local network then.
    """
    return run_app(_app, with_values(sys.argv[1:] if argv is None else argv), PROGRAM)


def with_values(argv: Sequence[str]) -> list[str]:
    """Return arguments in which every `--bind-public` has its value."""
    following = [*argv[1:], "-"]
    return [
        f"{_BIND_PUBLIC}=auto" if argument == _BIND_PUBLIC and behind.startswith("-") else argument
        for argument, behind in zip(argv, following, strict=False)
    ]


if __name__ == "__main__":
    sys.exit(main())
