"""The messages that a paglet handled last, so that a repeated one gets the recorded answer and has no second effect.

The rows of a paglet are numbered, so that the oldest are found without counting.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from paglets.persistence.rows import HandledMessage

#: How many handled messages of a paglet are remembered.
WINDOW: Final = 1000

_REMEMBER = """
    INSERT INTO handled (agent_id, number, message_id, handled_at, reply, error)
    SELECT ?1, coalesce(max(number), 0) + 1, ?2, ?3, ?4, ?5 FROM handled WHERE agent_id = ?1
"""
_TRIM = """
    DELETE FROM handled WHERE agent_id = ?1 AND number <= (SELECT max(number) FROM handled WHERE agent_id = ?1) - ?2
"""


def remember(c: sqlite3.Connection, agent_id: str, item: HandledMessage, keep: int = WINDOW) -> None:
    """Add a handled message; only the newest `keep` stay."""
    c.execute(_REMEMBER, (agent_id, item.message_id, item.handled_at, item.reply, item.error))
    c.execute(_TRIM, (agent_id, keep))


def window(c: sqlite3.Connection, agent_id: str) -> list[HandledMessage]:
    """Return the remembered messages of a paglet, the oldest first."""
    rows = c.execute(
        "SELECT message_id, handled_at, reply, error FROM handled WHERE agent_id = ? ORDER BY number", (agent_id,)
    )
    return [HandledMessage(*row) for row in rows]


def find(c: sqlite3.Connection, agent_id: str, message_id: str) -> HandledMessage | None:
    """Return one remembered message of a paglet, or None."""
    row = c.execute(
        "SELECT message_id, handled_at, reply, error FROM handled WHERE agent_id = ? AND message_id = ?",
        (agent_id, message_id),
    ).fetchone()
    return None if row is None else HandledMessage(*row)


def replace(c: sqlite3.Connection, agent_id: str, items: Iterable[HandledMessage]) -> None:
    """Make these, the oldest first, the remembered messages of a paglet; only the newest `WINDOW` stay."""
    newest = list(items)[-WINDOW:]
    c.execute("DELETE FROM handled WHERE agent_id = ?", (agent_id,))
    c.executemany(
        "INSERT INTO handled (agent_id, number, message_id, handled_at, reply, error) VALUES (?, ?, ?, ?, ?, ?)",
        (
            (agent_id, number, item.message_id, item.handled_at, item.reply, item.error)
            for number, item in enumerate(newest, 1)
        ),
    )
