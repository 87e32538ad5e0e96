"""The search of one host, advanced slice by slice by whoever wants its results."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Final

from paglets.examples.search.bounds import ProcessorTime, can_tick
from paglets.examples.search.local_search import LocalSearch
from paglets.examples.search.models import HostSearchSummary, SearchEvent, SearchRequest

#: With something to tell, a slice goes on for so long to tell more at once; the first result is told at once.
TELL_SECONDS: Final = 0.01
#: A slice without anything to tell is over after so long at most.
MAX_SLICE_SECONDS: Final = 1.0


class SlicedSearch:
    """Search in slices, each in the main thread of this process, where a pattern that takes too long is stopped.

    Nothing is searched in between, so that whoever takes no results stops the search, and nothing piles up.
    """

    def __init__(self, request: SearchRequest, *, host_name: str, host_url: str) -> None:
        self._events: list[SearchEvent] = []
        self._bound = ProcessorTime() if can_tick() else None
        self._search = LocalSearch(
            request, host_name=host_name, host_url=host_url, emit=self._events.extend, bound=self._bound
        )
        self._steps = self._search.steps()
        self._told = False
        self.done = False

    def advance(self, *, limit: int, seconds: float) -> list[SearchEvent]:
        """Search on, and return what was found; `done` then says whether that was all.

        :param limit: about so many events at most.
        :param seconds: how long to search when nothing is found.
        """
        events, clock = self._events, time.monotonic
        until = clock() + min(max(0.0, seconds), MAX_SLICE_SECONDS)
        telling = False
        with self._bound.ticking() if self._bound is not None else nullcontext():
            for _ in self._steps:
                if len(events) >= limit:
                    break
                now = clock()
                if events and not telling:
                    telling = True
                    until = min(until, now + TELL_SECONDS if self._told else now)
                if now >= until:
                    break
            else:
                self.done = True
        found = events[:]
        self._told = self._told or bool(found)
        events.clear()
        return found

    def summary(self) -> HostSearchSummary:
        """Return what the search has come to so far."""
        return self._search.summary()

    def close(self) -> None:
        """Stop the search, and close what it has open."""
        self._steps.close()
