"""Asking once, or again and again until Ctrl-C: a table that is redrawn, or one line of JSON per round."""

from __future__ import annotations

import json as json_module
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from paglets.cli.console import console, one_line
from paglets.core.errors import PagletError

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_SECONDS: Final = 2.0
SHORTEST_SECONDS: Final = 0.1

T = TypeVar("T")

WatchOption = Annotated[
    bool,
    typer.Option("--watch", help="Ask again and again until Ctrl-C; on a terminal, or with --json a line each time."),
]
EveryOption = Annotated[
    float, typer.Option("--every", metavar="SECONDS", min=SHORTEST_SECONDS, help="How often --watch asks.")
]


def print_sorted_json(payload: Any) -> None:
    """Write a value as indented JSON with sorted keys to standard output."""
    sys.stdout.write(json_module.dumps(payload, indent=2, sort_keys=True, default=str) + "\n")
    sys.stdout.flush()


def watch(
    ask: Callable[[], T],
    *,
    draw: Callable[[T], Sequence[RenderableType]],
    wire: Callable[[T], Any],
    json: bool,
    every: float,
) -> None:
    """Ask until Ctrl-C. A round that fails is shown as such, and the next one may do better.

    :param draw: what to show of an answer.
    :param wire: an answer as plain values.
    :raises ValueError: there is no terminal to draw on.
    """
    if not json and not console.is_terminal:
        raise ValueError("--watch draws on a terminal; with --json it writes a line each time")
    try:
        if json:
            while True:
                sys.stdout.write(json_module.dumps(_line(ask, wire), sort_keys=True, default=str) + "\n")
                sys.stdout.flush()
                pause(every)
        _redraw(ask, draw, every)
    except KeyboardInterrupt:
        return  # the way to end it


def _line(ask: Callable[[], T], wire: Callable[[T], Any]) -> Any:
    try:
        return wire(ask())
    except PagletError as exc:
        return {"error": str(exc)}


def pause(seconds: float) -> None:
    """Let time pass between two rounds."""
    threading.Event().wait(seconds)


def _redraw(ask: Callable[[], T], draw: Callable[[T], Sequence[RenderableType]], every: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            try:
                shown = draw(ask())
            except PagletError as exc:
                shown = [Text(one_line(str(exc)), style="red")]
            live.update(Group(*shown), refresh=True)
            pause(every)
