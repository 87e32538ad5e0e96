"""The journal of a host: everything durable in one SQLite file that one thread writes.

Whoever has something to keep submits a *unit of work*, a function of the open connection, and is told when it is on
disk. The writer commits the units that wait together (`paglets.persistence.commits`): many callers share one `fsync`.
Readers have a connection of their own and never wait for the writer.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, TypeVar

from paglets.core.errors import HostError, OverloadedError
from paglets.persistence.commits import Committer, Unit
from paglets.persistence.schema import (
    CACHE_KB,
    connect_readonly,
    mapped_errors,
    open_for_reading,
    open_for_writing,
    states_directory,
)
from paglets.persistence.states import StateStore
from paglets.persistence.tables import paglets

T = TypeVar("T")

#: The most units, and about the most seconds of work, that share one commit.
GROUP_UNITS: Final = 256
GROUP_SECONDS: Final = 0.002
#: How many units may wait for the disk before more are refused.
MOST_WAITING: Final = 65_536

read_only = open_for_reading

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """How busy a journal is: units that wait now, units and groups that were committed since it was opened."""

    waiting: int
    units: int
    groups: int


class Journal:
    """One file, one writer thread, group commit. Usable as a context manager that closes it.

    A unit of work may be run more than once before it succeeds, so it must have no effect but on its connection; it
    neither begins nor ends a transaction. What it raises goes to its own caller and undoes what it did. What the disk
    does not take is an `InsufficientStorageError`, another failure of the file a `HostError`.

    A unit may have a *key*: after a unit of a key failed, later ones of that key fail with the same error without being
    run, until `release`, because they were made on top of what is not on disk.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the file, which is created or brought to this version, and start the writer.

        A damaged file is set aside as `<name>.corrupt-<time>`, which `warnings` then tells.

        :raises HostError: the file was written by a newer version, and is left as it is, or it cannot be opened.
        """
        self.path = Path(path).expanduser().absolute()
        self.states = StateStore(states_directory(self.path))
        connection, self.warnings = open_for_writing(self.path)
        try:
            with mapped_errors(self.path):
                self._committer = Committer(connection, self.path)
                self.states.sweep(paglets.state_files(connection))
        except OSError as error:
            self.warnings.append(f"Files of states that no paglet has any more stay for now: {error}")
        except BaseException:
            connection.close()
            raise
        self._loop: asyncio.AbstractEventLoop | None = None
        # A string is a key to release, None the end.
        self._queue: SimpleQueue[Unit | str | None] = SimpleQueue()
        self._submitting = threading.Lock()
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._closed = False
        self._units = self._groups = 0
        self._thread = threading.Thread(
            target=self._serve, name=f"paglets-journal-{self.path.parent.name}", daemon=True
        )
        self._thread.start()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call what `submit` is given on this loop from now on, not on the writer's thread.

        Nothing is called any more once the loop is closed.
        """
        self._loop = loop

    def submit(
        self,
        work: Callable[[sqlite3.Connection], T],
        done: Callable[[T | None, Exception | None], None],
        *,
        key: str = "",
    ) -> None:
        """Have a unit of work done; never waits, and safe from any thread. Units are done in order.

        :param done: called with the value, or with None and the error, after the commit.
        :raises HostError: the journal is closed.
        :raises OverloadedError: `MOST_WAITING` units wait already.
        """
        self._put(Unit(work, done, key))

    async def write(self, work: Callable[[sqlite3.Connection], T], *, key: str = "") -> T:
        """Have a unit of work done and return its value; only on the attached loop.

        It happens even if the waiting task is cancelled.

        :raises HostError: the journal is closed, or the file failed.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise HostError(f"Journal {self.path} is not attached to this event loop")
        future: asyncio.Future[T] = loop.create_future()

        def done(value: Any, error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        self._put(Unit(work, done, key))
        return await future

    def write_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have a unit of work done and return its value; blocks, so not for the attached loop's thread.

        :raises HostError: the journal is closed, or the file failed.
        """
        if threading.current_thread() is self._thread:
            raise HostError(f"Journal {self.path}: the writer would wait for itself")
        ended = threading.Event()
        unit = Unit(work, lambda _value, _error: ended.set(), "", direct=True)
        self._put(unit)
        ended.wait()
        if unit.error is not None:
            raise unit.error
        value: T = unit.value
        return value

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return the value of a function of a connection that only reads, in one snapshot of what is committed.

        Blocks for as long as the function and other readers take; safe from any thread.

        :raises HostError: the journal is closed, or the file failed.
        """
        with self._reading:
            return self._read(work)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with mapped_errors(self.path):
            if self._closed:
                raise self._closed_error()
            if self._reader is None:
                self._reader = connect_readonly(self.path)
                self._reader.execute(f"PRAGMA cache_size = -{CACHE_KB}")
            reader = self._reader
            reader.execute("BEGIN")
            try:
                return work(reader)
            finally:
                if reader.in_transaction:
                    reader.execute("ROLLBACK")

    def glance(self, work: Callable[[sqlite3.Connection], T]) -> tuple[T] | None:
        """Read a few rows by their keys at once, as `read` does; None where that would mean waiting for other readers.

        For event loops: it takes less time than telling a thread about it.

        :raises HostError: the journal is closed, or the file failed.
        """
        if not self._reading.acquire(blocking=False):
            return None
        try:
            return (self._read(work),)
        finally:
            self._reading.release()

    def release(self, key: str) -> None:
        """Let units of a key through again that are submitted from now on; those before still fail."""
        with self._submitting:
            if not self._closed:
                self._queue.put(key)

    def statistics(self) -> JournalStatistics:
        """Return how busy the journal is."""
        return JournalStatistics(self._queue.qsize(), self._units, self._groups)

    def close(self) -> None:
        """Finish what was submitted and close the file; a second call does nothing, other calls raise `HostError`."""
        with self._submitting:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()
        with self._reading:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()
            # Last, as the last one to leave folds the log into the file.
            self._committer.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # inside

    def _put(self, unit: Unit) -> None:
        with self._submitting:
            if self._closed:
                raise self._closed_error()
            if self._queue.qsize() >= MOST_WAITING:
                raise OverloadedError(f"Journal {self.path}: {MOST_WAITING} changes wait for the disk; try again later")
            self._queue.put(unit)

    def _closed_error(self) -> HostError:
        return HostError(f"Journal {self.path} is closed")

    # the writer's thread

    def _serve(self) -> None:
        item = self._queue.get()
        while item is not None:
            if isinstance(item, str):
                self._committer.release(item)
                item = self._queue.get()
            else:
                group = _Group(item, self._queue)
                item = None  # what was committed is not held until there is something else to commit
                self._deliver(self._committer.commit(group))
                self._remove_files()
                item = group.follower()

    def _deliver(self, units: list[Unit]) -> None:
        self._units += len(units)
        self._groups += 1
        loop = self._loop
        if loop is None:
            _complete(units)
            return
        direct = [unit for unit in units if unit.direct]
        _complete(direct)
        if len(direct) < len(units):
            others = [unit for unit in units if not unit.direct] if direct else units
            try:
                loop.call_soon_threadsafe(_complete, others)
            except RuntimeError:
                _logger.debug("%s: %d completions for a closed loop", self.path, len(others))

    def _remove_files(self) -> None:
        try:
            for name in self._committer.unnamed_files():
                self.states.drop(name)
        except (OSError, sqlite3.Error) as error:
            # Left for the sweep of the next start.
            _logger.warning("%s: the file of a replaced state stays for now: %s", self.path, error)


class _Group:
    """The units of one commit, taken from the queue one by one while its limits allow."""

    def __init__(self, first: Unit, queue: SimpleQueue[Unit | str | None]) -> None:
        self._first: Unit | None = first
        self._queue = queue
        self._follower: str | None = None
        self._ended = False

    def __iter__(self) -> Iterator[Unit]:
        if self._first is not None:
            yield self._first
            self._first = None
        queue = self._queue
        deadline = time.perf_counter() + GROUP_SECONDS
        for _ in range(GROUP_UNITS - 1):
            # Only this thread takes, so what is there stays there.
            if queue.empty() or time.perf_counter() >= deadline:
                return
            item = queue.get()
            if not isinstance(item, Unit):
                self._follower, self._ended = item, item is None
                return
            yield item

    def follower(self) -> Unit | str | None:
        """Return what comes after the group: what ended it, or the next in the queue."""
        if self._ended or self._follower is not None:
            return self._follower
        return self._queue.get()


def _complete(units: list[Unit]) -> None:
    for unit in units:
        try:
            unit.done(unit.value, unit.error)
        except Exception:
            _logger.exception("what was to be done after a commit failed")
