"""The documented routes, loaded when the first of them is asked for.

Their framework is a fifth of what a host has to load. A host that only passes messages, takes paglets in and answers
the mesh never needs it, and one that starts is ready that much sooner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from paglets.runtime.http.guards import Application, Receive, Scope, Send


class LateRoutes:
    """Serve requests by an application that is made for the first of them, beside the event loop.

    :param make: makes it, on a thread; what it raises ends the requests that wait, and the next one tries again.
    """

    def __init__(self, make: Callable[[], Application]) -> None:
        self._make = make
        self._made: Application | None = None
        self._making: asyncio.Task[Application] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        routes = self._made or await self._once()
        await routes(scope, receive, send)

    async def _once(self) -> Application:
        if self._making is None:
            self._making = asyncio.get_running_loop().create_task(self._load())
        # Whoever asked first may go; others wait for it too.
        return await asyncio.shield(self._making)

    async def _load(self) -> Application:
        try:
            # A thread of its own: those of the loop may all be waiting for something.
            with ThreadPoolExecutor(1, "paglets-routes") as thread:
                self._made = await asyncio.get_running_loop().run_in_executor(thread, self._make)
            return self._made
        finally:
            self._making = None
