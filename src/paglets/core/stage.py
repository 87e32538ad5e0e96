"""What code that works for a paglet, without having it at hand, can use of the process that runs the paglet."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from paglets.core.messages import Message


@dataclass(slots=True)
class Stage:
    """One paglet's place in its process."""

    loop: Callable[[], asyncio.AbstractEventLoop]
    """Returns the loop that runs the coroutines of the paglet; the first call starts it."""
    tell_self: Callable[[Message], None]
    """Sends the paglet a message one-way; blocks until its host has accepted it."""
    streams: Any = None
    """The streams that the paglet serves, once it does."""


current_stage: ContextVar[Stage | None] = ContextVar("paglets-stage", default=None)
"""The stage of the paglet for which the calling code runs, None outside of handlers."""
