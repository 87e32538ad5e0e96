"""What this host has written about moves: commits as source, inert copies and activations as target."""

from __future__ import annotations

import sqlite3
from typing import Any

from paglets.persistence.rows import StateRef, TransferRole, TransferRow

_PUT = """
    INSERT INTO transfers (transfer_id, role, record, luggage, crc, size, file, inline) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (transfer_id, role) DO UPDATE SET
        record = excluded.record, luggage = excluded.luggage,
        crc = excluded.crc, size = excluded.size, file = excluded.file, inline = excluded.inline
"""
_GET = """
    SELECT transfer_id, role, record, luggage, crc, size, file, inline FROM transfers
    WHERE transfer_id = ?1 AND (?2 IS NULL OR role = ?2) ORDER BY id DESC LIMIT 1
"""
_LOAD = "SELECT transfer_id, role, record, luggage, crc, size, file, inline FROM transfers ORDER BY id"


def put(c: sqlite3.Connection, row: TransferRow) -> None:
    """Store a record in place of an earlier one of the same transfer and role."""
    state = row.state
    c.execute(
        _PUT,
        (
            row.transfer_id,
            row.role,
            row.record,
            row.luggage,
            *((None, None, "", None) if state is None else (state.crc, state.nbytes, state.file, state.inline)),
        ),
    )


def get(c: sqlite3.Connection, transfer_id: str, role: TransferRole | None = None) -> TransferRow | None:
    """Return the record of a transfer, of this role or the last written of any, or None."""
    row = c.execute(_GET, (transfer_id, role)).fetchone()
    return None if row is None else _row(row)


def remove(c: sqlite3.Connection, transfer_id: str, role: TransferRole) -> bool:
    """Remove a record; return whether it was there."""
    return c.execute("DELETE FROM transfers WHERE transfer_id = ? AND role = ?", (transfer_id, role)).rowcount > 0


def load(c: sqlite3.Connection) -> list[TransferRow]:
    """Return all records in the order in which they were first written."""
    return [_row(row) for row in c.execute(_LOAD)]


def _row(row: tuple[Any, ...]) -> TransferRow:
    transfer_id, role, record, luggage, crc, size, file, inline = row
    state = None if crc is None else StateRef(inline, file, crc, size)
    return TransferRow(transfer_id, role, record, luggage, state)
