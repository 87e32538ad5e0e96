"""Locks for simulated threads: who waits gives the baton away."""

from __future__ import annotations

from collections import deque
from typing import Any

from paglets.testing.scheduler import MeshStuckError, MeshThread, Scheduler, this_thread


class MeshLock:
    """A lock like `threading.Lock`, whose waiting takes virtual time only."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._locked = False
        self._waiting: deque[MeshThread] = deque()
        self._given_to: MeshThread | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; return whether it was had in time."""
        if not self._locked:
            self._locked = True
            return True
        if not blocking or timeout == 0:
            return False
        thread = this_thread()
        if thread is None:
            raise MeshStuckError("a lock that a paglet holds is waited for outside of paglets, which would be for ever")
        loop = self._scheduler.loop
        deadline = None if timeout < 0 else loop.time() + timeout
        self._waiting.append(thread)
        try:
            while self._given_to is not thread:
                if deadline is not None and loop.time() >= deadline:
                    return False
                self._scheduler.park(deadline)
            self._given_to = None
            return True
        finally:
            if thread in self._waiting:
                self._waiting.remove(thread)
            if self._given_to is thread:
                # Unwound at the moment when it was its turn.
                self._given_to = None
                self.release()

    def release(self) -> None:
        """Give the lock to the next who waits, or to nobody."""
        if not self._locked:
            raise RuntimeError("release unlocked lock")
        while self._waiting:
            thread = self._waiting.popleft()
            if not thread.process.dead:
                self._given_to = thread
                self._scheduler.wake(thread)
                return
        self._locked = False

    def locked(self) -> bool:
        """Tell whether it is held."""
        return self._locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: Any) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._locked = False
        self._waiting.clear()


# What errors call it: a state with a lock in it cannot travel, here as anywhere.
MeshLock.__module__, MeshLock.__qualname__ = "_thread", "lock"
