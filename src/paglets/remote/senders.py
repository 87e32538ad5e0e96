"""Threads that send messages whose replies are collected later, shared by all proxies of a process."""

from __future__ import annotations

import functools
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["SenderPool", "SenderStatistics", "submit"]

_MAX_THREADS: Final = 32
_MAX_WAITING: Final = 1024


@dataclass(frozen=True, slots=True)
class SenderStatistics:
    """Count what a pool does now."""

    threads: int
    """Started so far; they stay."""
    waiting: int
    """Calls that no thread has taken yet."""


class SenderPool:
    """Run calls on at most `max_threads` daemon threads, started when they are needed.

    Unlike `concurrent.futures.ThreadPoolExecutor` it does not make the end of the program wait for calls to hosts that
    do not answer, and what waits is bounded: `submit` blocks while `max_waiting` calls wait for a thread.
    """

    def __init__(self, *, max_threads: int = _MAX_THREADS, max_waiting: int = _MAX_WAITING) -> None:
        self._max_threads = max_threads
        self._waiting: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue(max_waiting)
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Run a call on a thread of the pool and return what will hold its result."""
        future: Future[Any] = Future()
        with self._lock:
            # An idle thread may be promised to a call before it took the last one: then this one waits a little.
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < self._max_threads:
                self._threads += 1
                threading.Thread(target=self._work, name=f"paglets-send-{self._threads}", daemon=True).start()
        self._waiting.put((future, call))
        return future

    def statistics(self) -> SenderStatistics:
        """Return how many threads there are and how many calls wait for one."""
        with self._lock:
            return SenderStatistics(self._threads, self._waiting.qsize())

    def _work(self) -> None:
        while True:
            self._run_next()
            with self._lock:
                self._idle += 1

    def _run_next(self) -> None:
        # A function of its own, so that a thread that waits keeps neither the last call nor its result alive.
        future, call = self._waiting.get()
        if future.set_running_or_notify_cancel():
            with _Reporting(future):
                future.set_result(call())


class _Reporting:
    """Hand what the block raises, whatever it is, to the one who waits for the future."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            self._future.set_exception(error)
        return True


_shared = SenderPool()


def submit(call: Callable[[], Any]) -> Future[Any]:
    """Run a call on the threads that all proxies of this process share."""
    _watch_forks()
    return _shared.submit(call)


def _start_anew_after_fork() -> None:
    # The threads stayed in the parent, and the lock may be held by one of them.
    global _shared
    _shared = SenderPool()


@functools.cache
def _watch_forks() -> None:
    # With the first call, not on import: every hook costs each forked paglet pages of its own.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_start_anew_after_fork)
