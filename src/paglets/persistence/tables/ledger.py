"""What happened to paglets on this host: the newest arrivals, departures, sleeps, awakenings, crashes and ends."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from paglets.persistence.rows import LedgerRow, kept_text

#: How many entries are kept, give or take those between two removals of the oldest.
MOST_ENTRIES: Final = 100_000
_TRIM_EVERY: Final = 1000

_ADD = """
    INSERT INTO ledger
        (at, agent_id, class_name, event, epoch, peer, peer_name, cause, size_bytes, seconds, transfer_id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_OF = """
    SELECT sequence, at, agent_id, class_name, event, epoch, peer, peer_name, cause, size_bytes, seconds, transfer_id
    FROM ledger WHERE agent_id = ? ORDER BY sequence DESC LIMIT ?
"""
_RECENT = """
    SELECT sequence, at, agent_id, class_name, event, epoch, peer, peer_name, cause, size_bytes, seconds, transfer_id
    FROM ledger ORDER BY sequence DESC LIMIT ?
"""


def add(c: sqlite3.Connection, row: LedgerRow) -> int:
    """Add an entry, whose own sequence number is ignored, and return the number it got."""
    sequence = c.execute(
        _ADD,
        (
            row.at,
            row.agent_id,
            row.class_name,
            row.event,
            row.epoch,
            row.peer,
            row.peer_name,
            kept_text(row.cause),
            row.size_bytes,
            row.seconds,
            row.transfer_id,
        ),
    ).lastrowid
    if sequence and sequence % _TRIM_EVERY == 0:
        # Entries go from the oldest on only, so the numbers have no gaps.
        c.execute("DELETE FROM ledger WHERE sequence <= ?", (sequence - MOST_ENTRIES,))
    return sequence or 0


def of(c: sqlite3.Connection, agent_id: str, limit: int = 1000) -> list[LedgerRow]:
    """Return the newest entries of a paglet, the oldest of them first."""
    return _entries(c.execute(_OF, (agent_id, limit)).fetchall())


def recent(c: sqlite3.Connection, limit: int) -> list[LedgerRow]:
    """Return the newest entries of all paglets, the oldest of them first."""
    return _entries(c.execute(_RECENT, (limit,)).fetchall())


def _entries(newest_first: list[tuple[Any, ...]]) -> list[LedgerRow]:
    return [LedgerRow(*row) for row in reversed(newest_first)]
