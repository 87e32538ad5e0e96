"""Requests that wait for the next event of the host, so that a follower hears of it at once and asks seldom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from paglets.core.context_events import ContextEvent, ContextEventLog
from paglets.core.errors import OverloadedError

MAX_WAIT_SECONDS: Final = 30.0
MAX_FOLLOWERS: Final = 256
"""Requests that may wait at the same time."""


class Followers:
    """Let requests wait for events; used on one event loop.

    The log is asked to signal only while somebody waits. The last event of a host that stops ends every wait, so none
    holds the stop up.
    """

    def __init__(self, log: ContextEventLog, *, max_followers: int = MAX_FOLLOWERS) -> None:
        self._log = log
        self._max_followers = max_followers
        self._waiting: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    async def events(
        self, since: int, *, limit: int, wait: float, gone: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> list[ContextEvent]:
        """Return events with a higher id than `since`, oldest first.

        :param wait: seconds to wait for one while there is none.
        :param gone: returns when nobody is interested any more, which ends the wait.
        :raises OverloadedError: as many requests wait as may.
        """
        found = self._log.events_since(since, limit=limit)
        if found or wait <= 0 or limit <= 0:
            return found
        if len(self._waiting) >= self._max_followers:
            raise OverloadedError(f"{self._max_followers} requests wait for events already; ask without wait, or later")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(wait, MAX_WAIT_SECONDS)
        left_alone = None if gone is None else loop.create_task(gone())
        try:
            while not found and (left := deadline - loop.time()) > 0:
                woken = self._join(loop)
                try:
                    # Asked again: an event may have come between the last look and the signal's beginning.
                    if not (found := self._log.events_since(since, limit=limit)):
                        reasons = (woken,) if left_alone is None else (woken, left_alone)
                        await asyncio.wait(reasons, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                        found = self._log.events_since(since, limit=limit)
                finally:
                    self._leave(woken)
                if left_alone is not None and left_alone.done():
                    break
        finally:
            if left_alone is not None:
                left_alone.cancel()
        return found

    def _join(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        woken: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            self._loop = loop
            self._log.add_signal(self._signalled)
        self._waiting.add(woken)
        return woken

    def _leave(self, woken: asyncio.Future[None]) -> None:
        self._waiting.discard(woken)
        if not self._waiting:
            self._log.remove_signal(self._signalled)

    def _signalled(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop ended while another thread was about to signal: nobody waits
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)
