"""Run ``async def`` hooks, handlers and ``run`` of a paglet: one event loop in one thread, started on first use."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
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

    def settle(self, value: Any) -> Any:
        """Return ``value``, or what it evaluates to when it is awaitable.

        When the calling thread is the loop's own (a coroutine of the paglet made a blocking call that needs an asynchronous hook), the
        hook runs on a loop of its own in another thread, because this one cannot turn until the call returns.
        """
        if not inspect.isawaitable(value):
            return value
        coroutine = _as_coroutine(value)
        loop = self._started()
        if threading.current_thread() is self._thread:
            return _run_elsewhere(coroutine)
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def _started(self) -> asyncio.AbstractEventLoop:
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


def _run_elsewhere(coroutine: Coroutine[Any, Any, Any]) -> Any:
    outcome: Future[Any] = Future()

    def work() -> None:
        try:
            outcome.set_result(asyncio.run(coroutine))
        except BaseException as exc:
            outcome.set_exception(exc)

    threading.Thread(target=work, name="paglet-nested-coroutine", daemon=True).start()
    return outcome.result()
