"""The durable store of inactive paglets and of the messages that wait for them."""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from paglets.core.errors import HostError, InvalidAgentError, OverloadedError
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.persistence.directory import validate_agent_id
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.schema import mapped_errors, open_for_reading, open_for_writing
from paglets.serialization.values import pack, unpack

_SUMMARIES = """
    SELECT agent_id, agent_class_name, state_class_name, policy, deactivated_at,
           (SELECT count(*) FROM queued WHERE queued.agent_id = inactive.agent_id)
    FROM inactive ORDER BY deactivated_at, agent_id
"""


@dataclass(slots=True)
class StoredRecord:
    """One inactive paglet.

    `state_blob` is opaque, `deactivated_at` Unix seconds, `metadata` a dict of wire values.
    """

    agent_id: str
    agent_class_name: str
    state_class_name: str
    state_blob: bytes
    policy: DeactivationPolicy
    request: DeactivationRequest
    deactivated_at: float
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecordSummary:
    """What a listing shows of an inactive paglet, read without its state."""

    agent_id: str
    agent_class_name: str
    state_class_name: str
    policy: DeactivationPolicy
    deactivated_at: float
    queued_message_count: int


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
        rows = self._read(
            "SELECT agent_id, agent_class_name, state_class_name, policy, request, metadata, deactivated_at, "
            "state_crc, state_blob FROM inactive WHERE agent_id = ?",
            (agent_id,),
        )
        if not rows:
            return None
        name, agent_class, state_class, policy, request, metadata, deactivated_at, checksum, blob = rows[0]
        if zlib.crc32(blob) != checksum:
            raise HostError(f"Journal {self.path}: the stored state of {agent_id!r} is damaged (checksum differs)")
        return StoredRecord(
            agent_id=name,
            agent_class_name=agent_class,
            state_class_name=state_class,
            state_blob=blob,
            policy=DeactivationPolicy.from_wire(unpack(policy)),
            request=DeactivationRequest.from_wire(unpack(request)),
            deactivated_at=deactivated_at,
            metadata=unpack(metadata),
        )

    def summaries(self) -> list[RecordSummary]:
        """Return all records in order of deactivation, without reading their states."""
        return [
            RecordSummary(
                agent_id=agent_id,
                agent_class_name=agent_class,
                state_class_name=state_class,
                policy=DeactivationPolicy.from_wire(unpack(policy)),
                deactivated_at=deactivated_at,
                queued_message_count=queued,
            )
            for agent_id, agent_class, state_class, policy, deactivated_at, queued in self._read(_SUMMARIES)
        ]

    def due(self, now: float) -> list[str]:
        """Return the ids of paglets whose activation time, in Unix seconds, has come, the earliest first."""
        rows = self._read("SELECT agent_id FROM inactive WHERE activate_at <= ? ORDER BY activate_at, agent_id", (now,))
        return [agent_id for (agent_id,) in rows]

    def next_due(self) -> float | None:
        """Return the earliest activation time in Unix seconds, or None when no paglet has one."""
        rows = self._read("SELECT min(activate_at) FROM inactive")
        return rows[0][0] if rows else None

    def startup_ids(self) -> list[str]:
        """Return the ids of paglets that a starting host wakes, in order of deactivation."""
        rows = self._read("SELECT agent_id FROM inactive WHERE activate_on_startup ORDER BY deactivated_at, agent_id")
        return [agent_id for (agent_id,) in rows]

    def queued(self, agent_id: str) -> list[QueuedMessage]:
        """Return the messages that wait for a paglet, in the order in which they came."""
        rows = self._read("SELECT body FROM queued WHERE agent_id = ? ORDER BY position", (agent_id,))
        return [QueuedMessage.from_wire(unpack(body)) for (body,) in rows]

    # writing

    def put(self, record: StoredRecord) -> None:
        """Store a record in place of an earlier one of the same paglet, whose queued messages stay.

        :raises HostError: the id is invalid.
        :raises SerializationError: the metadata are no wire values.
        """
        values = (
            validate_agent_id(record.agent_id),
            record.agent_class_name,
            record.state_class_name,
            pack(record.policy.to_wire()),
            pack(record.request.to_wire()),
            pack(record.metadata),
            float(record.deactivated_at),
            None if record.policy.activate_at is None else float(record.policy.activate_at),
            int(record.policy.activate_on_startup),
            zlib.crc32(record.state_blob),
            record.state_blob,
        )
        with self._transaction() as connection:
            connection.execute(
                """
                INSERT INTO inactive (agent_id, agent_class_name, state_class_name, policy, request, metadata,
                                      deactivated_at, activate_at, activate_on_startup, state_crc, state_blob)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (agent_id) DO UPDATE SET
                    agent_class_name = excluded.agent_class_name, state_class_name = excluded.state_class_name,
                    policy = excluded.policy, request = excluded.request, metadata = excluded.metadata,
                    deactivated_at = excluded.deactivated_at, activate_at = excluded.activate_at,
                    activate_on_startup = excluded.activate_on_startup,
                    state_crc = excluded.state_crc, state_blob = excluded.state_blob
                """,
                values,
            )

    def delete(self, agent_id: str, *, deactivated_at: float | None = None) -> bool:
        """Remove a record with its queued messages; return whether there was one.

        With `deactivated_at` only that very record goes, not one that has replaced it since.
        """
        with self._transaction() as connection:
            cursor = connection.execute(
                "DELETE FROM inactive WHERE agent_id = :agent AND (:at IS NULL OR deactivated_at = :at)",
                {"agent": agent_id, "at": deactivated_at},
            )
            return cursor.rowcount > 0

    def append_message(self, agent_id: str, queued: QueuedMessage, *, max_count: int, max_bytes: int) -> None:
        """Add a message to those that wait for a paglet; a repeated message id is stored once.

        :raises InvalidAgentError: there is no such record.
        :raises OverloadedError: more than `max_count` messages or `max_bytes` encoded bytes would wait.
        """
        body = pack(queued.to_wire())
        message_id = queued.message.message_id
        with self._transaction() as connection:
            count, size, known, repeated = connection.execute(
                """
                SELECT count(*), coalesce(sum(length(body)), 0),
                       EXISTS (SELECT 1 FROM inactive WHERE agent_id = :agent),
                       EXISTS (SELECT 1 FROM queued WHERE agent_id = :agent AND message_id = :message)
                FROM queued WHERE agent_id = :agent
                """,
                {"agent": agent_id, "message": message_id},
            ).fetchone()
            if not known:
                raise InvalidAgentError(f"No inactive paglet {agent_id!r}")
            if repeated:
                return
            if count + 1 > max_count or size + len(body) > max_bytes:
                raise OverloadedError(
                    f"Inactive paglet {agent_id!r} has {count} queued messages of {size} bytes; "
                    f"at most {max_count} messages and {max_bytes} bytes are kept. Activate it or send later"
                )
            connection.execute(
                "INSERT INTO queued (agent_id, message_id, body) VALUES (?, ?, ?)", (agent_id, message_id, body)
            )

    def remove_message(self, agent_id: str, message_id: str) -> bool:
        """Remove one queued message, after it was handled; return whether it was there."""
        with self._transaction() as connection:
            cursor = connection.execute(
                "DELETE FROM queued WHERE agent_id = ? AND message_id = ?", (agent_id, message_id)
            )
            return cursor.rowcount > 0

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

    def _read(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            if self._closed:
                raise HostError(f"Journal {self.path} is closed")
            if self._connection is not None:
                with mapped_errors(self.path):
                    return self._connection.execute(statement, parameters).fetchall()
            with open_for_reading(self.path) as connection:
                return [] if connection is None else connection.execute(statement, parameters).fetchall()

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
