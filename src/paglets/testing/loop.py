"""Event loops whose clock is virtual: when nothing is left to do, it is the next moment at which something is."""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import base_events
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from paglets.testing.scheduler import CURRENT, MeshStuckError, Process, Scheduler, this_thread

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from paglets.testing.sockets import MemorySocket

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Executors whose work waits for other hosts, and needs a thread; all other work is done at once.
_WAITING_EXECUTORS = ("paglets-move", "paglets-far")


class _Selector:
    """Stands where a loop looks for sockets that are ready."""

    def __init__(self, wait: Callable[[float | None], None]) -> None:
        self._wait = wait

    def select(self, timeout: float | None) -> list[Any]:
        """Let something happen for at most so many virtual seconds."""
        self._wait(timeout)
        return []


class _VirtualLoop(base_events.BaseEventLoop):
    """What both kinds of loops have in common."""

    _selector: _Selector

    def _process_events(self, event_list: list[Any]) -> None:
        del event_list

    def _write_to_self(self) -> None:
        """Do nothing: only one thread runs at a time, and it is not one that waits in `select`."""


class MeshLoop(_VirtualLoop):
    """The loop of all hosts of a testing mesh."""

    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = _Selector(self._wait)
        self._scheduler = scheduler
        scheduler.loop = self
        self._readers: dict[int, tuple[Callable[[], None], contextvars.Context]] = {}
        self._clock_resolution = 1e-9
        self.set_task_factory(_quiet_task)

    def time(self) -> float:
        """Return virtual seconds since the mesh was made."""
        return self._now

    def _wait(self, timeout: float | None) -> None:
        if self._scheduler.has_ready:
            self._scheduler.run_one()
        elif timeout is None:
            raise MeshStuckError("nothing can happen in the testing mesh any more")
        elif timeout > 0:
            # Exactly to what is next, if need be a little further than the clock can tell apart.
            self._now = max(self._now + timeout, self._scheduled[0].when() if self._scheduled else 0.0)

    def wake_at(self, when: float, thread: Any) -> asyncio.TimerHandle:
        """Let a simulated thread go on at a virtual moment."""
        return super().call_at(when, self._scheduler.wake, thread)

    # --- nothing is done on behalf of a process that has ended --------------------------------------------------------

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call back, unless the process that asks has ended by then."""
        process = CURRENT.get() if context is None else context.get(CURRENT)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(_if_alive, process, callback, args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back at a moment, unless the process that asks has ended by then."""
        process = CURRENT.get() if context is None else context.get(CURRENT)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, _if_alive, process, callback, args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call back; nothing needs to be woken."""
        return self.call_soon(callback, *args, context=context)

    # --- sockets in memory --------------------------------------------------------------------------------------------

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        """Call back whenever something can be read."""
        from paglets.testing.sockets import socket_of

        # What a paglet writes is read on behalf of its host.
        self._readers[fd] = lambda: callback(*args), contextvars.copy_context()
        socket_of(fd).on_readable = self._readable
        if socket_of(fd).readable:
            self._readable(socket_of(fd))

    def remove_reader(self, fd: Any) -> bool:
        """Call back no more."""
        return self._readers.pop(fd, None) is not None

    def _readable(self, sock: MemorySocket) -> None:
        reader = self._readers.get(sock.fileno())
        if reader is not None and not sock.told:
            sock.told = True
            self.call_soon(self._read, sock, context=reader[1])

    def _read(self, sock: MemorySocket) -> None:
        sock.told = False
        reader = self._readers.get(sock.fileno())
        if reader is not None and sock.readable:
            reader[0]()
            if sock.readable:
                self._readable(sock)

    # --- threads ------------------------------------------------------------------------------------------------------

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Do work at once, or on a simulated thread where it may wait for other hosts."""
        prefix = "" if executor is None else str(getattr(executor, "_thread_name_prefix", ""))
        if executor is None or prefix.startswith(_WAITING_EXECUTORS):
            return self.in_thread(func, *args)
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future

    def in_thread(self, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Do work on a simulated thread of the process that asks."""
        process = CURRENT.get()
        if process is None:
            raise MeshStuckError("this work belongs to no process of the testing mesh")
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            outcome: Any = None
            error: Exception | None = None
            try:
                outcome = func(*args)
            except Exception as exc:
                error = exc
            self.call_soon(_settle, future, outcome, error)

        self._scheduler.spawn(process, work, getattr(func, "__name__", "work"))
        return future


class PagletLoop(_VirtualLoop):
    """The loop on which a paglet's coroutines run, in a simulated thread."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._selector = _Selector(self._wait)
        self._waiting: Any = None
        self._woken = False
        self.set_task_factory(_quiet_task)

    def __del__(self, *_: Any) -> None:
        # That of a process that has ended is not closed, and has nothing open.
        return

    def time(self) -> float:
        """Return virtual seconds since the mesh was made."""
        return self._scheduler.loop.time()

    def _wait(self, timeout: float | None) -> None:
        if timeout is not None and timeout <= 0:
            return
        deadline = None if timeout is None else self.time() + timeout
        self._waiting = this_thread()
        try:
            while not self._woken and (deadline is None or self.time() < deadline):
                self._scheduler.park(deadline)
        finally:
            self._waiting, self._woken = None, False

    def _write_to_self(self) -> None:
        self._woken = True
        if self._waiting is not None:
            self._scheduler.wake(self._waiting)


def _if_alive(process: Process, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
    if not process.dead:
        callback(*args)


def _settle(future: asyncio.Future[Any], outcome: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)


def _quiet_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    # Those of a host that crashed never end, as those of a real one would not.
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # what asyncio.gather does, too
    return task
