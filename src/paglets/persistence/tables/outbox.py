"""One-way messages that a handler sent, until the receiver's host has acknowledged them."""

from __future__ import annotations

import sqlite3

from paglets.persistence.rows import OutboxRow


def add(c: sqlite3.Connection, sender_id: str, host_url: str, agent_id: str, body: bytes) -> int:
    """Add a packed message at the end and return its position, which is never used again."""
    position = c.execute(
        "INSERT INTO outbox (sender_id, host_url, agent_id, attempts, body) VALUES (?, ?, ?, 0, ?)",
        (sender_id, host_url, agent_id, body),
    ).lastrowid
    return position or 0


def pending(c: sqlite3.Connection, limit: int = 1000, *, after: int = 0) -> list[OutboxRow]:
    """Return the messages behind a position that were not acknowledged yet, in order."""
    rows = c.execute(
        "SELECT position, sender_id, host_url, agent_id, body, attempts FROM outbox WHERE position > ? "
        "ORDER BY position LIMIT ?",
        (after, limit),
    )
    return [OutboxRow(*row) for row in rows]


def attempted(c: sqlite3.Connection, position: int) -> None:
    """Count an attempt to deliver a message."""
    c.execute("UPDATE outbox SET attempts = attempts + 1 WHERE position = ?", (position,))


def done(c: sqlite3.Connection, position: int) -> None:
    """Remove a message; one that is gone is no error."""
    c.execute("DELETE FROM outbox WHERE position = ?", (position,))
