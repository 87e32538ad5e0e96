"""The timers of paglets, active or not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from paglets.core.errors import OverloadedError
from paglets.persistence.rows import ReminderRow

#: How many timers one paglet may have.
MOST_REMINDERS: Final = 1000

_INSERT = "INSERT OR REPLACE INTO reminders (agent_id, name, due_at, every, count, args) VALUES (?, ?, ?, ?, ?, ?)"


def put(c: sqlite3.Connection, row: ReminderRow) -> None:
    """Store a timer in place of an earlier one of the same paglet and name.

    :raises OverloadedError: the paglet has `MOST_REMINDERS` others.
    """
    (others,) = c.execute(
        "SELECT count(*) FROM reminders WHERE agent_id = ? AND name <> ?", (row.agent_id, row.name)
    ).fetchone()
    if others >= MOST_REMINDERS:
        raise _too_many(row.agent_id)
    c.execute(_INSERT, _values(row))


def forget(c: sqlite3.Connection, agent_id: str, name: str) -> bool:
    """Remove a timer; return whether it was there."""
    return c.execute("DELETE FROM reminders WHERE agent_id = ? AND name = ?", (agent_id, name)).rowcount > 0


def of(c: sqlite3.Connection, agent_id: str) -> list[ReminderRow]:
    """Return the timers of a paglet in the order of their names."""
    rows = c.execute(
        "SELECT agent_id, name, due_at, every, count, args FROM reminders WHERE agent_id = ? ORDER BY name", (agent_id,)
    )
    return [ReminderRow(*row) for row in rows]


def all_due(c: sqlite3.Connection) -> list[tuple[str, str, float]]:
    """Return paglet, name and time of every timer, the earliest first."""
    return c.execute("SELECT agent_id, name, due_at FROM reminders ORDER BY due_at, agent_id, name").fetchall()


def move_on(c: sqlite3.Connection, agent_id: str, name: str, due_at: float, count: int) -> bool:
    """Set a timer that fired to its next time; return False when it was forgotten."""
    cursor = c.execute(
        "UPDATE reminders SET due_at = ?, count = ? WHERE agent_id = ? AND name = ?", (due_at, count, agent_id, name)
    )
    return cursor.rowcount > 0


def replace(c: sqlite3.Connection, agent_id: str, rows: Iterable[ReminderRow]) -> None:
    """Make these the timers of a paglet, whatever id they carry.

    :raises OverloadedError: there are more than `MOST_REMINDERS`.
    """
    new = [(agent_id, *_values(row)[1:]) for row in rows]
    if len(new) > MOST_REMINDERS:
        raise _too_many(agent_id)
    c.execute("DELETE FROM reminders WHERE agent_id = ?", (agent_id,))
    c.executemany(_INSERT, new)


def _values(row: ReminderRow) -> tuple[str, str, float, float | None, int, bytes]:
    return row.agent_id, row.name, row.due_at, row.every, row.count, row.args


def _too_many(agent_id: str) -> OverloadedError:
    return OverloadedError(f"Paglet {agent_id!r} may have {MOST_REMINDERS} reminders at once; forget some first")
