"""Results on their way: collected into batches, long lines cut, names made text."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from paglets.examples.search.models import SearchEvent

#: The longest `text` of an event, characters; what is longer is cut around its match.
MAX_TEXT_CHARS: Final = 4096
_CHARS_BEFORE_MATCH: Final = 256
#: Results wait for others to be handed on with for at most so long.
_LATEST_SECONDS: Final = 0.02

Emit = Callable[[list[SearchEvent]], None]


@dataclass(slots=True)
class Outbox:
    """Collects events and hands them on in batches."""

    emit: Emit | None
    batch_size: int
    events: list[SearchEvent] = field(default_factory=list)
    sequence: int = 0
    handed_on: float = 0.0

    def add(self, event: str, host_name: str, host_url: str, path: str, **fields: Any) -> None:
        self.sequence += 1
        if self.emit is None:
            return
        self.events.append(SearchEvent(event, host_name, host_url, path, sequence=self.sequence, **fields))
        if len(self.events) >= self.batch_size or self.sequence == 1:
            self.flush()

    def flush_old(self) -> None:
        """Hand on what has waited long enough."""
        if self.events and time.monotonic() - self.handed_on > _LATEST_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.events and self.emit is not None:
            events, self.events = self.events, []
            self.emit(events)
            self.handed_on = time.monotonic()


def cut(text: str, position: int) -> tuple[str, int]:
    """Return a line, or if it is very long what is around a position of it, and where that begins."""
    if len(text) <= MAX_TEXT_CHARS:
        return text, 0
    begin = max(0, position - _CHARS_BEFORE_MATCH)
    return text[begin : begin + MAX_TEXT_CHARS], begin


def shown(path: str) -> str:
    """Return a path as text that can be sent: what of a name is no text is replaced."""
    if path.isascii():
        return path
    return os.fsencode(path).decode("utf-8", "replace")
