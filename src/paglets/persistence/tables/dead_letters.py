"""What was accepted and cannot be delivered: to be read, tried again or cleared by an operator."""

from __future__ import annotations

import sqlite3
from typing import Final

from paglets.persistence.rows import DeadLetter, kept_text

#: How many are kept; the oldest make room.
MOST_LETTERS: Final = 10_000

_LISTING = """
    SELECT letter_id, died_at, agent_id, host_url, message_id, kind, reason, body FROM dead_letters
    WHERE letter_id > ? ORDER BY letter_id LIMIT ?
"""
_LISTING_OF_PAGLET = """
    SELECT letter_id, died_at, agent_id, host_url, message_id, kind, reason, body FROM dead_letters
    WHERE agent_id = ? AND letter_id > ? ORDER BY letter_id LIMIT ?
"""
_HEADINGS = """
    SELECT letter_id, died_at, agent_id, host_url, message_id, kind, reason, x'', length(body) FROM dead_letters
    WHERE letter_id > ? ORDER BY letter_id LIMIT ?
"""
_HEADINGS_OF_PAGLET = """
    SELECT letter_id, died_at, agent_id, host_url, message_id, kind, reason, x'', length(body) FROM dead_letters
    WHERE agent_id = ? AND letter_id > ? ORDER BY letter_id LIMIT ?
"""
_GET = """
    SELECT letter_id, died_at, agent_id, host_url, message_id, kind, reason, body FROM dead_letters
    WHERE letter_id = ?
"""
_REMOVE_OLDEST = """
    DELETE FROM dead_letters WHERE letter_id IN (SELECT letter_id FROM dead_letters ORDER BY letter_id LIMIT ?)
"""


def add(c: sqlite3.Connection, letter: DeadLetter) -> int:
    """Add a letter, whose own id is ignored, and return the id it got; beyond `MOST_LETTERS` the oldest go."""
    letter_id = c.execute(
        "INSERT INTO dead_letters (died_at, agent_id, host_url, message_id, kind, reason, body) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            letter.died_at,
            letter.agent_id,
            letter.host_url,
            letter.message_id,
            letter.kind,
            kept_text(letter.reason),
            letter.body,
        ),
    ).lastrowid
    excess = count(c) - MOST_LETTERS
    if excess > 0:
        c.execute(_REMOVE_OLDEST, (excess,))
    return letter_id or 0


def listing(
    c: sqlite3.Connection, *, since: int = 0, limit: int = 100, agent_id: str | None = None
) -> list[DeadLetter]:
    """Return letters with an id above `since`, of one paglet or of all, the oldest first."""
    rows = (
        c.execute(_LISTING, (since, limit))
        if agent_id is None
        else c.execute(_LISTING_OF_PAGLET, (agent_id, since, limit))
    )
    return [DeadLetter(*row) for row in rows]


def headings(
    c: sqlite3.Connection, *, since: int = 0, limit: int = 100, agent_id: str | None = None
) -> list[tuple[DeadLetter, int]]:
    """Return letters as `listing` does, but in place of their bodies, which may be large, the sizes of these."""
    rows = (
        c.execute(_HEADINGS, (since, limit))
        if agent_id is None
        else c.execute(_HEADINGS_OF_PAGLET, (agent_id, since, limit))
    )
    return [(DeadLetter(*row[:-1]), row[-1]) for row in rows]


def get(c: sqlite3.Connection, letter_id: int) -> DeadLetter | None:
    """Return one letter, or None."""
    row = c.execute(_GET, (letter_id,)).fetchone()
    return None if row is None else DeadLetter(*row)


def remove(c: sqlite3.Connection, letter_id: int) -> bool:
    """Remove one letter; return whether it was there."""
    return c.execute("DELETE FROM dead_letters WHERE letter_id = ?", (letter_id,)).rowcount > 0


def clear(c: sqlite3.Connection, agent_id: str | None = None) -> int:
    """Remove the letters of one paglet, or all, and return how many there were."""
    if agent_id is None:
        return c.execute("DELETE FROM dead_letters").rowcount
    return c.execute("DELETE FROM dead_letters WHERE agent_id = ?", (agent_id,)).rowcount


def count(c: sqlite3.Connection) -> int:
    """Return how many letters there are."""
    return int(c.execute("SELECT count FROM dead_letter_count").fetchone()[0])
