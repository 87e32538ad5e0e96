"""Run ``async def`` hooks, handlers and ``run`` of a paglet: one event loop in one thread, started on first use."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Coroutine
from typing import Any


class CoroutineRunner:
    """Wait for coroutines from synchronous threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def owns(self, thread: threading.Thread) -> bool:
        """Tell whether ``thread`` is the one that runs the paglet's coroutines."""
        return thread is self._thread

    @property
    def busy(self) -> bool:
        """Whether a coroutine of the paglet goes on beside its handlers and hooks."""
        return self._loop is not None and bool(asyncio.all_tasks(self._loop))

    def settle(self, value: Any) -> Any:
        """Return ``value``, or what it evaluates to when it is awaitable.

        When the calling thread is the loop's own (a coroutine of the paglet made a blocking call that needs an
        asynchronous hook), the hook runs in this very thread, so that locks it holds are held for the hook, and on a
        loop of its own, because the other one cannot turn until the call returns.
        """
        if value is None or not inspect.isawaitable(value):
            return value
        coroutine = _as_coroutine(value)
        loop = self.loop()
        if threading.current_thread() is self._thread:
            return _run_nested(coroutine)
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop; the first call starts it."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="paglet-coroutines", daemon=True)
                self._thread.start()
            return self._loop


def _as_coroutine(awaitable: Any) -> Coroutine[Any, Any, Any]:
    if inspect.iscoroutine(awaitable):
        return awaitable

    async def wait() -> Any:
        return await awaitable

    return wait()


def _run_nested(coroutine: Coroutine[Any, Any, Any]) -> Any:
    outer = asyncio.get_running_loop()
    inner = asyncio.new_event_loop()
    # A loop refuses to run where another does; the outer one stands still until this returns.
    asyncio._set_running_loop(None)
    try:
        return inner.run_until_complete(coroutine)
    finally:
        inner.close()
        asyncio._set_running_loop(outer)
