"""A table that is renewed on a terminal until Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from paglets.cli.console import console, one_line

if TYPE_CHECKING:
    from rich.table import Table

REFRESH_SECONDS: Final = 2.0


def check_watchable(*, json: bool) -> None:
    """Refuse to renew a table where there is none.

    :raises ValueError: the output is JSON, or no terminal.
    """
    if json:
        raise ValueError("--watch draws a table, --json does not; ask again in a loop instead")
    if not console.is_terminal:
        raise ValueError("--watch needs a terminal")


def watched(look: Callable[[], tuple[Table, Sequence[str]]]) -> None:
    """Show a table and what went wrong in making it, again and again; Ctrl-C is the way to end it."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    waiter = threading.Event()
    try:
        with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
            while True:
                table, failures = look()
                live.update(Group(table, *(Text(one_line(each), style="red") for each in failures)), refresh=True)
                waiter.wait(REFRESH_SECONDS)
    except KeyboardInterrupt:
        return
