"""Threads of simulated processes, one at a time: whoever runs says when another one may.

A paglet's code is ordinary blocking Python, so it needs threads. Here each of them runs only while it holds the
*baton*, and gives it back when it waits: for a frame, a lock, a moment. Between two of these points nothing else
happens, which makes a run repeatable: who is next is decided by a seeded generator.
"""

from __future__ import annotations

import _thread
import contextvars
import random
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from paglets.core.errors import PagletError

if TYPE_CHECKING:
    from paglets.testing.loop import MeshLoop

#: How long, in real time, a thread may run before the mesh takes it for stuck.
STUCK_SECONDS: Final = 30.0
#: Threads that wait for work instead of being started anew.
MOST_IDLE_RUNNERS: Final = 64

CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("paglets-testing-process", default=None)
"""The simulated process on whose behalf code runs."""

_by_ident: dict[int, MeshThread] = {}


class MeshStuckError(PagletError):
    """Nothing can happen in a testing mesh any more, or one of its threads never waits."""


class ProcessExit(BaseException):
    """Unwinds the threads of a simulated process that has ended."""


class Process:
    """One simulated process: its threads end with it.

    :param host: the name of the host that it is or belongs to.
    """

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.dead = False
        self.exitcode: int | None = None
        self.threads: dict[MeshThread, None] = {}
        self.at_end: list[Callable[[int], None]] = []

    def __repr__(self) -> str:
        return f"<{'dead ' if self.dead else ''}process {self.name}>"


class MeshThread:
    """One thread of a simulated process."""

    def __init__(self, process: Process, work: Callable[[], Any], name: str) -> None:
        self.process = process
        self.name = name
        self.done = False
        self.parked = False
        self.queued = False
        self.python_thread: Any = None
        """The `threading.Thread` that it stands for, if it is one."""
        self.joiners: list[MeshThread] = []
        self._work = work
        self._context = contextvars.Context()
        self._context.run(CURRENT.set, process)
        self.runner: _Runner | None = None

    def __repr__(self) -> str:
        return f"<thread {self.name} of {self.process.name}>"

    def run(self) -> None:
        """Do its work, and be done."""
        try:
            if not self.process.dead:
                self._context.run(self._work)
        except ProcessExit:
            pass  # what ends it has said so
        finally:
            self.done = True
            self.process.threads.pop(self, None)


class _Runner:
    """A thread of this program that lends itself to one simulated thread after the other."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.thread: MeshThread | None = None
        self.go = _thread.allocate_lock()
        self.go.acquire()
        self.ident = 0
        _started = _thread.allocate_lock()
        _started.acquire()

        def begin() -> None:
            self.ident = _thread.get_ident()
            _started.release()
            self._serve()

        self._scheduler.start_new_thread(begin, ())
        _started.acquire()

    def _serve(self) -> None:
        while True:
            self.go.acquire()
            thread = self.thread
            if thread is None:
                return
            _by_ident[self.ident] = thread
            try:
                thread.run()
            except BaseException:
                self._scheduler.failures.append(f"{thread!r}:\n{traceback.format_exc()}")
            del _by_ident[self.ident]
            self._scheduler.ended(thread, self)


def this_thread() -> MeshThread | None:
    """Return the simulated thread that runs this code, None for any other thread."""
    return _by_ident.get(_thread.get_ident())


class Scheduler:
    """Let simulated threads run, one at a time.

    :param seed: decides who is next where several could be.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - for repeatable runs, guards nothing
        self.start_new_thread = _thread.start_new_thread
        self.loop: MeshLoop
        self.steps = 0
        self.failures: list[str] = []
        """What threads ended with that nobody expects."""
        self._ready: list[MeshThread] = []
        self._idle: list[_Runner] = []
        self._back = _thread.allocate_lock()
        self._back.acquire()
        self._running: MeshThread | None = None

    # --- for the loop -------------------------------------------------------------------------------------------------

    @property
    def has_ready(self) -> bool:
        """Whether a thread could run."""
        return bool(self._ready)

    def run_one(self) -> None:
        """Give the baton to one thread until it waits or ends.

        :raises MeshStuckError: it does neither for `STUCK_SECONDS` of real time.
        """
        count = len(self._ready)
        thread = self._ready.pop(self.random.randrange(count) if count > 1 else 0)
        thread.queued = thread.parked = False
        self.steps += 1
        runner = thread.runner
        if runner is None:
            runner = thread.runner = self._idle.pop() if self._idle else _Runner(self)
            runner.thread = thread
        self._running = thread
        runner.go.release()
        self.wait_for_baton()

    def wait_for_baton(self) -> None:
        """Wait until the thread that runs waits or ends.

        :raises MeshStuckError: it does neither for `STUCK_SECONDS` of real time.
        """
        thread = self._running
        runner = None if thread is None else thread.runner
        if thread is None or runner is None:
            return
        if not self._back.acquire(timeout=STUCK_SECONDS):
            frame = sys._current_frames().get(runner.ident)
            stack = "" if frame is None else "".join(traceback.format_stack(frame))
            raise MeshStuckError(
                f"{thread!r} has not waited for anything for {STUCK_SECONDS:g} s; what blocks it is nothing that the "
                f"testing mesh knows of:\n{stack}"
            )
        self._running = None

    def close(self) -> None:
        """End the threads that wait for work."""
        for runner in self._idle:
            runner.thread = None
            runner.go.release()
        self._idle.clear()

    # --- for simulated threads ----------------------------------------------------------------------------------------

    def spawn(self, process: Process, work: Callable[[], Any], name: str) -> MeshThread:
        """Start a thread of a process."""
        thread = MeshThread(process, work, name)
        process.threads[thread] = None
        self.wake(thread)
        return thread

    def wake(self, thread: MeshThread) -> None:
        """Let a thread go on that waits."""
        if not thread.queued and not thread.done:
            thread.queued = True
            self._ready.append(thread)

    def park(self, deadline: float | None = None) -> None:
        """Wait in the calling thread until it is woken, which may be for no reason.

        :param deadline: virtual seconds of the loop, at which it is woken at the latest.
        :raises ProcessExit: its process has ended.
        """
        thread = this_thread()
        if thread is None:
            raise MeshStuckError("only threads of a testing mesh can wait in it")
        if thread.process.dead:
            raise ProcessExit
        timer = None if deadline is None else self.loop.wake_at(deadline, thread)
        runner = thread.runner
        assert runner is not None  # noqa: S101 - it runs
        thread.parked = True
        self._back.release()
        runner.go.acquire()
        if timer is not None:
            timer.cancel()
        if thread.process.dead:
            raise ProcessExit

    def ended(self, thread: MeshThread, runner: _Runner) -> None:
        """Take back the baton and the runner of a thread that is done; called on that thread."""
        for joiner in thread.joiners:
            self.wake(joiner)
        runner.thread = None
        if len(self._idle) < MOST_IDLE_RUNNERS:
            self._idle.append(runner)
        else:
            runner.go.release()
        self._back.release()

    def end_process(self, process: Process, code: int) -> None:
        """End a process: its threads are unwound, and do nothing more."""
        if process.dead:
            return
        process.dead = True
        process.exitcode = code
        for thread in list(process.threads):
            if thread.runner is None:
                thread.done = True
                process.threads.pop(thread, None)
                if thread in self._ready:
                    self._ready.remove(thread)
            elif thread.parked:
                self.wake(thread)
        for tell in list(process.at_end):
            tell(code)
        process.at_end.clear()
