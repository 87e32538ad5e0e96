"""The names under which hosts have connected to this hub, each with what stands for the key that it belongs to."""

from __future__ import annotations

import sqlite3

from paglets.persistence.rows import RelayName


def put(c: sqlite3.Connection, row: RelayName) -> None:
    """Store a name in place of an earlier row of it."""
    c.execute(
        "INSERT OR REPLACE INTO relay_names (name, credential, seen_at) VALUES (?, ?, ?)",
        (row.name, row.credential, row.seen_at),
    )


def remove(c: sqlite3.Connection, name: str) -> bool:
    """Remove a name; return whether it was there."""
    return c.execute("DELETE FROM relay_names WHERE name = ?", (name,)).rowcount > 0


def load(c: sqlite3.Connection) -> list[RelayName]:
    """Return all names, the one that was seen last at the end."""
    return [RelayName(*row) for row in c.execute("SELECT name, credential, seen_at FROM relay_names ORDER BY seen_at")]
