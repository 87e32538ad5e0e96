"""Inactive paglets and the messages that wait for them, as one object over the tables of the journal."""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from paglets.core.errors import HostError, InvalidAgentError
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import RecordSummary, StateRef, Status, StoredRecord
from paglets.persistence.schema import mapped_errors, open_for_reading, open_for_writing
from paglets.persistence.tables import paglets, queued

__all__ = ["RecordStore", "RecordSummary", "StoredRecord"]

T = TypeVar("T")


class RecordStore:
    """Inactive paglets in one SQLite file.

    Every change is on disk when its method returns. Safe to call from several threads. Problems with the file raise
    `HostError`. Usable as a context manager that closes the store.
    """

    def __init__(self, path: Path | str, *, readonly: bool = False) -> None:
        """Open the store, for writing unless told otherwise; see `open_readonly`.

        The file is created when absent. A damaged one is set aside as `<name>.corrupt-<time>`, which `warnings` then
        tells.

        :raises HostError: the file was written by a newer version, and is left as it is, or it cannot be opened.
        """
        self.path = Path(path).expanduser().absolute()
        self.warnings: list[str] = []
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._closed = False
        if not readonly:
            self._connection, self.warnings = open_for_writing(self.path)

    @classmethod
    def open_readonly(cls, path: Path | str) -> RecordStore:
        """Return a store that only reads, also while another host writes.

        Nothing is opened before it is needed and nothing is ever created: an absent file reads as an empty store.
        """
        return cls(path, readonly=True)

    # reading

    def get(self, agent_id: str) -> StoredRecord | None:
        """Return the record of a paglet, or None.

        :raises HostError: its stored state is damaged.
        """
        found = self._read(lambda c: paglets.get(c, agent_id), None)
        if found is None:
            return None
        record, ref = found
        blob = ref.inline
        if blob is None or zlib.crc32(blob) != ref.crc:
            raise HostError(f"Journal {self.path}: the stored state of {agent_id!r} is damaged (checksum differs)")
        record.state_blob = blob
        return record

    def summaries(self) -> list[RecordSummary]:
        """Return all records in order of deactivation, without reading their states."""
        return self._read(lambda c: paglets.summaries(c, (Status.INACTIVE,)), [])

    def due(self, now: float) -> list[str]:
        """Return the ids of paglets whose activation time, in Unix seconds, has come, the earliest first."""
        times = [(summary.policy.activate_at, summary.agent_id) for summary in self.summaries()]
        return [agent_id for at, agent_id in sorted((at, name) for at, name in times if at is not None) if at <= now]

    def next_due(self) -> float | None:
        """Return the earliest activation time in Unix seconds, or None when no paglet has one."""
        times = [summary.policy.activate_at for summary in self.summaries()]
        return min((at for at in times if at is not None), default=None)

    def startup_ids(self) -> list[str]:
        """Return the ids of paglets that a starting host wakes, in order of deactivation."""
        return [summary.agent_id for summary in self.summaries() if summary.policy.activate_on_startup]

    def queued(self, agent_id: str) -> list[QueuedMessage]:
        """Return the messages that wait for a paglet, in the order in which they came."""
        nothing: list[tuple[int, QueuedMessage]] = []
        return [message for _, message in self._read(lambda c: queued.waiting(c, agent_id), nothing)]

    # writing

    def put(self, record: StoredRecord) -> None:
        """Store a record in place of an earlier one of the same paglet, whose queued messages stay.

        :raises HostError: the id is invalid.
        :raises SerializationError: the metadata are no wire values.
        """
        ref = StateRef(bytes(record.state_blob), "", zlib.crc32(record.state_blob), len(record.state_blob))
        with self._transaction() as connection:
            paglets.put(connection, record, ref)

    def delete(self, agent_id: str, *, deactivated_at: float | None = None) -> bool:
        """Remove a record with its queued messages; return whether there was one.

        With `deactivated_at` only that very record goes, not one that has replaced it since.
        """
        with self._transaction() as connection:
            found = paglets.get(connection, agent_id)
            if found is None or (deactivated_at is not None and found[0].deactivated_at != deactivated_at):
                return False
            queued.clear(connection, agent_id)
            return paglets.remove(connection, agent_id)

    def append_message(self, agent_id: str, message: QueuedMessage, *, max_count: int, max_bytes: int) -> None:
        """Add a message to those that wait for a paglet; a repeated message id is stored once.

        :raises InvalidAgentError: there is no such record.
        :raises OverloadedError: more than `max_count` messages or `max_bytes` encoded bytes would wait.
        """
        with self._transaction() as connection:
            if paglets.get(connection, agent_id) is None:
                raise InvalidAgentError(f"No inactive paglet {agent_id!r}")
            queued.enqueue(connection, agent_id, message, max_count=max_count, max_bytes=max_bytes)

    def remove_message(self, agent_id: str, message_id: str) -> bool:
        """Remove one queued message, after it was handled; return whether it was there."""
        with self._transaction() as connection:
            return queued.dequeue(connection, agent_id, message_id)

    def close(self) -> None:
        """Close the file; later calls raise `HostError`. A second call does nothing."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __enter__(self) -> RecordStore:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # inside

    def _read(self, work: Callable[[sqlite3.Connection], T], absent: T) -> T:
        with self._lock:
            if self._closed:
                raise HostError(f"Journal {self.path} is closed")
            if self._connection is not None:
                with mapped_errors(self.path):
                    return work(self._connection)
            with open_for_reading(self.path) as connection:
                return absent if connection is None else work(connection)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._connection
            if connection is None:
                state = "closed" if self._closed else "opened for reading only"
                raise HostError(f"Journal {self.path} is {state}")
            with mapped_errors(self.path):
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    # A full disk, for one, has ended the transaction already.
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
