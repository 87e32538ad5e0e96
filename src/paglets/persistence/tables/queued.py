"""Messages that were accepted for a paglet and are not handled yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from paglets.core.errors import OverloadedError
from paglets.persistence.persistency import QueuedMessage
from paglets.serialization.values import pack, unpack


def enqueue(c: sqlite3.Connection, agent_id: str, queued: QueuedMessage, *, max_count: int, max_bytes: int) -> int:
    """Add a message at the end and return its position; a repeated message id returns that of the first.

    :raises OverloadedError: more than `max_count` messages or `max_bytes` encoded bytes would wait for the paglet.
    """
    message_id = queued.message.message_id
    body = pack(queued.to_wire())
    size = len(body)
    count, waiting_bytes = _size(c, agent_id)
    if count >= max_count or waiting_bytes + size > max_bytes:
        position = _position(c, agent_id, message_id)
        if position is None:
            raise OverloadedError(
                f"{count} queued messages of {waiting_bytes} bytes wait for paglet {agent_id!r}; at most {max_count} "
                f"messages and {max_bytes} bytes are kept. Activate it if it is inactive, or send later"
            )
        return position
    cursor = c.execute(
        "INSERT INTO queued (agent_id, message_id, size, body) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (agent_id, message_id) DO NOTHING",
        (agent_id, message_id, size, body),
    )
    if cursor.rowcount and cursor.lastrowid is not None:
        return cursor.lastrowid
    position = _position(c, agent_id, message_id)
    assert position is not None  # nothing else is in conflict  # noqa: S101
    return position


def waiting(c: sqlite3.Connection, agent_id: str) -> list[tuple[int, QueuedMessage]]:
    """Return the messages that wait for a paglet with their positions, in the order in which they came.

    :raises SerializationError: a stored message is malformed.
    """
    rows = c.execute("SELECT position, body FROM queued WHERE agent_id = ? ORDER BY position", (agent_id,))
    return [(position, QueuedMessage.from_wire(unpack(body))) for position, body in rows]


def dequeue(c: sqlite3.Connection, agent_id: str, message_id: str) -> bool:
    """Remove one message; return whether it waited."""
    parameters = (agent_id, message_id)
    return c.execute("DELETE FROM queued WHERE agent_id = ? AND message_id = ?", parameters).rowcount > 0


def dequeue_many(c: sqlite3.Connection, agent_id: str, message_ids: Iterable[str]) -> None:
    """Remove several messages of one paglet; those that do not wait are no error."""
    parameters = ((agent_id, message_id) for message_id in message_ids)
    c.executemany("DELETE FROM queued WHERE agent_id = ? AND message_id = ?", parameters)


def contains(c: sqlite3.Connection, agent_id: str, message_id: str) -> bool:
    """Tell whether a message waits for a paglet."""
    return _position(c, agent_id, message_id) is not None


def count(c: sqlite3.Connection, agent_id: str) -> int:
    """Return how many messages wait for a paglet."""
    return _size(c, agent_id)[0]


def counts(c: sqlite3.Connection) -> dict[str, int]:
    """Return how many messages wait for each paglet that has any."""
    return dict(c.execute("SELECT agent_id, count FROM queue_sizes").fetchall())


def receivers(c: sqlite3.Connection) -> list[str]:
    """Return the ids of the paglets for which messages wait."""
    return [agent_id for (agent_id,) in c.execute("SELECT agent_id FROM queue_sizes ORDER BY agent_id")]


def clear(c: sqlite3.Connection, agent_id: str) -> list[QueuedMessage]:
    """Remove and return all messages that wait for a paglet, in their order.

    :raises SerializationError: a stored message is malformed; nothing is removed.
    """
    removed = [message for _, message in waiting(c, agent_id)]
    c.execute("DELETE FROM queued WHERE agent_id = ?", (agent_id,))
    return removed


def _size(c: sqlite3.Connection, agent_id: str) -> tuple[int, int]:
    row: tuple[int, int] | None = c.execute(
        "SELECT count, bytes FROM queue_sizes WHERE agent_id = ?", (agent_id,)
    ).fetchone()
    return row or (0, 0)


def _position(c: sqlite3.Connection, agent_id: str, message_id: str) -> int | None:
    row = c.execute(
        "SELECT position FROM queued WHERE agent_id = ? AND message_id = ?", (agent_id, message_id)
    ).fetchone()
    return None if row is None else int(row[0])
