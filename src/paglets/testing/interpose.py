"""What simulated threads get in place of time, threads, randomness and the end of the process.

While a mesh is open a few functions of the standard library are replaced by ones that look who calls: simulated threads
and the thread of the test have virtual time and seeded ids, simulated threads have locks and threads that wait in
virtual time. Everybody else gets what was there before.
"""

from __future__ import annotations

import _thread
import asyncio
import logging
import os
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from paglets.core.chance import CHANCE
from paglets.persistence import journal
from paglets.remote import senders
from paglets.runtime import attachment, entrance, process_title, timekeeper
from paglets.testing.bindings import Undo, rebind
from paglets.testing.locks import MeshLock
from paglets.testing.loop import PagletLoop
from paglets.testing.scheduler import MeshStuckError, ProcessExit, Scheduler, this_thread

#: Unix time at which every mesh begins: 2026-01-01 00:00:00 UTC.
EPOCH: Final = 1_767_225_600.0

#: Between two looks at what never changes.
_SELDOM_SECONDS: Final = 600.0

_open = threading.Lock()


class Interposition:
    """Replace functions from `start` until `stop`; one at a time in a program.

    :param sleep: what `time.sleep` does in the thread of the test.
    :param submit: begins there what `senders.submit` is given, and returns what will hold its result.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        seed: int,
        sleep: Callable[[float], None],
        submit: Callable[[Callable[[], Any]], Future[Any]],
    ) -> None:
        self._scheduler = scheduler
        self._submit = submit
        self._seed = seed
        self._sleep = sleep
        self._owner = 0
        self._before: list[tuple[Any, str, Any]] = []
        self._undo: list[Undo] = []
        self._random_state: Any = None
        self._chance_state: Any = None
        # Of its own, so that what a paglet draws does not depend on how many ids there were.
        self._ids = random.Random(seed ^ 0x5EED)  # noqa: S311 - for repeatable runs, guards nothing

    def start(self) -> None:
        """Begin.

        :raises MeshStuckError: another mesh of this program is open.
        """
        if not _open.acquire(blocking=False):
            raise MeshStuckError("another testing mesh is open in this program; close that first")
        self._owner = _thread.get_ident()
        self._random_state, self._chance_state = random.getstate(), CHANCE.getstate()
        random.seed(self._seed)
        CHANCE.seed(self._seed)
        self._replace_time()
        self._replace_threads()
        self._replace_others()
        early = {before: getattr(owner, name) for owner, name, before in self._before if owner in (time, uuid)}
        self._undo = rebind(early)
        executors = logging.getLogger("concurrent.futures")
        executors.addFilter(self._is_news)
        self._undo.append(lambda: executors.removeFilter(self._is_news))

    def stop(self) -> None:
        """Put everything back."""
        for undo in self._undo:
            undo()
        self._undo.clear()
        for owner, name, value in reversed(self._before):
            setattr(owner, name, value)
        self._before.clear()
        random.setstate(self._random_state)
        CHANCE.setstate(self._chance_state)
        _open.release()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        before = getattr(owner, name)
        self._before.append((owner, name, before))
        setattr(owner, name, make(before))

    def _is_ours(self) -> bool:
        return this_thread() is not None or _thread.get_ident() == self._owner

    def _replace_time(self) -> None:
        loop = self._scheduler.loop

        def clock(offset: float, factor: int) -> Callable[[Any], Any]:
            def make(before: Any) -> Any:
                def now() -> float:
                    if not self._is_ours():
                        return before()  # type: ignore[no-any-return]  # a clock
                    seconds = offset + loop.time()
                    return int(seconds * factor) if factor > 1 else seconds

                return now

            return make

        self._replace(time, "time", clock(EPOCH, 1))
        self._replace(time, "time_ns", clock(EPOCH, 1_000_000_000))
        self._replace(time, "monotonic", clock(0.0, 1))
        self._replace(time, "monotonic_ns", clock(0.0, 1_000_000_000))

        def sleeping(before: Any) -> Any:
            def sleep(seconds: float) -> None:
                if this_thread() is not None:
                    self._park_until(loop.time() + seconds)
                elif _thread.get_ident() == self._owner and not loop.is_running():
                    self._sleep(seconds)
                else:
                    before(seconds)

            return sleep

        self._replace(time, "sleep", sleeping)

        def counting(before: Any) -> Any:
            def perf_counter() -> float:
                return before() if this_thread() is None else loop.time()

            return perf_counter

        # Not for the test: its framework measures with it.
        self._replace(time, "perf_counter", counting)

    def _park_until(self, deadline: float) -> None:
        while self._scheduler.loop.time() < deadline:
            self._scheduler.park(deadline)

    def _replace_threads(self) -> None:
        scheduler = self._scheduler

        def for_simulated(make_ours: Callable[..., Any]) -> Callable[[Any], Any]:
            def make(before: Any) -> Any:
                def chosen(*args: Any, **options: Any) -> Any:
                    return (before if this_thread() is None else make_ours)(*args, **options)

                return chosen

            return make

        def start_bare(
            function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
        ) -> int:
            thread = this_thread()
            assert thread is not None  # noqa: S101 - chosen for simulated threads
            scheduler.spawn(thread.process, lambda: function(*args, **(kwargs or {})), function.__name__)
            return 0

        self._replace(threading, "Lock", for_simulated(lambda: MeshLock(scheduler)))
        self._replace(threading, "_allocate_lock", for_simulated(lambda: MeshLock(scheduler)))
        self._replace(threading, "RLock", for_simulated(lambda: threading._PyRLock()))  # type: ignore[attr-defined]  # the one that is made of locks
        self._replace(threading, "enumerate", for_simulated(_threads_of_this_process))
        self._replace(_thread, "start_new_thread", for_simulated(start_bare))
        for module in (queue, journal):
            self._replace(module, "SimpleQueue", for_simulated(queue._PySimpleQueue))  # type: ignore[attr-defined]  # the one that is made of locks

        def starting(before: Any) -> Any:
            def start(thread: threading.Thread) -> None:
                ours = this_thread()
                if ours is None:
                    before(thread)
                else:
                    _start(scheduler, ours.process, thread)

            return start

        def joining(before: Any) -> Any:
            def join(thread: threading.Thread, timeout: float | None = None) -> None:
                target, ours = getattr(thread, "_paglets_thread", None), this_thread()
                if target is None or ours is None:
                    before(thread, timeout)
                    return
                deadline = None if timeout is None else scheduler.loop.time() + max(0.0, timeout)
                while not target.done and (deadline is None or scheduler.loop.time() < deadline):
                    target.joiners.append(ours)
                    scheduler.park(deadline)

            return join

        def living(before: Any) -> Any:
            def is_alive(thread: threading.Thread) -> bool:
                target = getattr(thread, "_paglets_thread", None)
                return bool(before(thread)) if target is None else not target.done

            return is_alive

        self._replace(threading.Thread, "start", starting)
        self._replace(threading.Thread, "join", joining)
        self._replace(threading.Thread, "is_alive", living)

    def _replace_others(self) -> None:
        scheduler = self._scheduler

        def exiting(before: Any) -> Any:
            def leave(code: int) -> None:
                thread = this_thread()
                if thread is None:
                    before(code)
                else:
                    scheduler.end_process(thread.process, code)
                    raise ProcessExit

            return leave

        def identifying(before: Any) -> Any:
            def uuid4() -> uuid.UUID:
                return uuid.UUID(int=self._ids.getrandbits(128), version=4) if self._is_ours() else before()

            return uuid4

        def looping(before: Any) -> Any:
            def new_event_loop() -> asyncio.AbstractEventLoop:
                return before() if this_thread() is None else PagletLoop(scheduler)

            return new_event_loop

        def titling(before: Any) -> Any:
            def title(text: str) -> None:
                if this_thread() is None:
                    before(text)

            return title

        def submitting(before: Any) -> Any:
            pools: dict[Any, senders.SenderPool] = {}

            def submit(call: Callable[[], Any]) -> Any:
                thread = this_thread()
                if thread is None:
                    return self._submit(call) if self._is_ours() else before(call)
                if thread.process not in pools:
                    # Its threads are those of the process that uses it.
                    pools[thread.process] = senders.SenderPool()
                return pools[thread.process].submit(call)

            return submit

        self._replace(os, "_exit", exiting)
        self._replace(uuid, "uuid4", identifying)
        self._replace(asyncio, "new_event_loop", looping)
        self._replace(asyncio.events, "new_event_loop", looping)
        # The thread that closes large memory files belongs to no simulated process.
        self._replace(attachment, "SLOW_CLOSE_BYTES", lambda _: 1 << 62)
        # Nobody sets the clock of a mesh, or changes the key files of its hosts.
        self._replace(timekeeper, "_CLOCK_CHECK_SECONDS", lambda _: _SELDOM_SECONDS)
        self._replace(entrance, "WATCH_SECONDS", lambda _: _SELDOM_SECONDS)
        self._replace(process_title, "set_title", titling)
        self._replace(senders, "submit", submitting)

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Tell whether a log record is about more than the end of a simulated process."""
        return record.exc_info is None or not isinstance(record.exc_info[1], ProcessExit)


def _threads_of_this_process() -> list[Any]:
    ours = this_thread()
    if ours is None:
        return []
    return [thread.python_thread for thread in ours.process.threads if thread.python_thread is not None]


def _start(scheduler: Scheduler, process: Any, thread: threading.Thread) -> None:
    if getattr(thread, "_paglets_thread", None) is not None or thread.ident is not None:
        raise RuntimeError("threads can only be started once")

    def work() -> None:
        ident = _thread.get_ident()
        active: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # where current_thread() looks
        before = active.get(ident)
        thread._ident = ident  # type: ignore[attr-defined]  # as its own start does
        active[ident] = thread
        try:
            thread.run()
        except SystemExit:
            pass  # ends the thread alone, as everywhere
        except Exception:
            threading.excepthook(threading.ExceptHookArgs((*_exc_info(), thread)))
        finally:
            thread._is_stopped = True  # type: ignore[attr-defined]  # what waits for it at the end of the program
            if before is None:
                active.pop(ident, None)
            else:
                active[ident] = before

    ours = scheduler.spawn(process, work, thread.name)
    ours.python_thread = thread
    thread._paglets_thread = ours  # type: ignore[attr-defined]  # found by join and is_alive
    thread._started.set()  # type: ignore[attr-defined]  # as its own start does


def _exc_info() -> Any:
    import sys

    return sys.exc_info()
