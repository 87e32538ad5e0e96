"""Rows for tests of the journal, complete but for what a test is about."""

from __future__ import annotations

import sqlite3
import zlib
from typing import Any

from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import (
    DeadLetter,
    HandledMessage,
    LedgerRow,
    ReminderRow,
    StateRef,
    Status,
    StoredRecord,
)
from paglets.persistence.tables import paglets


def inline(blob: bytes) -> StateRef:
    return StateRef(blob, "", zlib.crc32(blob), len(blob))


def in_file(name: str) -> StateRef:
    return StateRef(None, name, 1, 2_000_000)


def record(agent_id: str = "a1", *, status: Status = Status.ACTIVE, **fields: Any) -> StoredRecord:
    values: dict[str, Any] = {
        "agent_class_name": "pkg.mod:Agent",
        "state_class_name": "pkg.mod:State",
        "state_blob": b"",
        "policy": DeactivationPolicy(),
        "request": DeactivationRequest(),
        "deactivated_at": 1.0,
        **fields,
    }
    return StoredRecord(agent_id=agent_id, status=status, **values)


def put(c: sqlite3.Connection, agent_id: str = "a1", blob: bytes = b"state", **fields: Any) -> None:
    paglets.put(c, record(agent_id, **fields), inline(blob))


def message(message_id: str, size: int = 0) -> QueuedMessage:
    return QueuedMessage(Message("kind", {"blob": b"x" * size}, message_id=message_id, timestamp=1.0), True, 5.0)


def handled_message(message_id: str, reply: bytes | None = b"reply", error: bytes | None = None) -> HandledMessage:
    return HandledMessage(message_id, 2.0, reply, error)


def letter(message_id: str = "m1", agent_id: str = "a1") -> DeadLetter:
    return DeadLetter(0, 3.0, agent_id, "http://h", message_id, "kind", "disposed", b"body")


def reminder(name: str, agent_id: str = "a1", due_at: float = 10.0, every: float | None = 5.0) -> ReminderRow:
    return ReminderRow(agent_id, name, due_at, every, 0, b"args")


def entry(agent_id: str = "a1", event: str = "arrival") -> LedgerRow:
    return LedgerRow(0, 4.0, agent_id, "m:C", event, 1, "http://h", "h", "", 10, 0.5, "t1")
