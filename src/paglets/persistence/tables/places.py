"""Where paglets are: forwarders for those that left, whereabouts of those created here, and news for other homes."""

from __future__ import annotations

import sqlite3
from typing import Final

from paglets.persistence.rows import DepartedRow, HomeRow, NoticeRow

#: How many forwarders are kept, and how many ends of paglets that were created here; the oldest make room.
MOST_DEPARTED: Final = 100_000
MOST_ENDED: Final = 100_000
# Rows over the limit are removed once in so many insertions, as finding the oldest takes milliseconds.
_TRIM_EVERY: Final = 1000


def departed_put(c: sqlite3.Connection, row: DepartedRow) -> bool:
    """Store a forwarder; return False, and change nothing, when one of a later epoch is known."""
    known = c.execute("SELECT epoch FROM departed WHERE agent_id = ?", (row.agent_id,)).fetchone()
    if known is not None:
        if known[0] > row.epoch:
            return False
        # Not updated in place: the new row is among the newest.
        c.execute("DELETE FROM departed WHERE agent_id = ?", (row.agent_id,))
    position = c.execute(
        "INSERT INTO departed (agent_id, epoch, target, home, departed_at) VALUES (?, ?, ?, ?, ?)",
        (row.agent_id, row.epoch, row.target, row.home, row.departed_at),
    ).lastrowid
    if position is not None and position % _TRIM_EVERY == 0:
        c.execute(
            "DELETE FROM departed WHERE position <= "
            "(SELECT position FROM departed ORDER BY position DESC LIMIT 1 OFFSET ?)",
            (MOST_DEPARTED,),
        )
    return True


def departed_get(c: sqlite3.Connection, agent_id: str) -> DepartedRow | None:
    """Return the forwarder of a paglet, or None."""
    row = c.execute(
        "SELECT agent_id, epoch, target, home, departed_at FROM departed WHERE agent_id = ?", (agent_id,)
    ).fetchone()
    return None if row is None else DepartedRow(*row)


def departed_all(c: sqlite3.Connection) -> list[DepartedRow]:
    """Return all forwarders, the oldest first."""
    rows = c.execute("SELECT agent_id, epoch, target, home, departed_at FROM departed ORDER BY position")
    return [DepartedRow(*row) for row in rows]


def departed_remove(c: sqlite3.Connection, agent_id: str) -> bool:
    """Remove the forwarder of a paglet; return whether there was one."""
    return c.execute("DELETE FROM departed WHERE agent_id = ?", (agent_id,)).rowcount > 0


def home_put(c: sqlite3.Connection, row: HomeRow) -> bool:
    """Store where a paglet is, unless a later epoch is known; return whether it was stored."""
    cursor = c.execute(
        """
        INSERT INTO homes (agent_id, epoch, host_url, told_at) VALUES (?, ?, ?, ?)
        ON CONFLICT (agent_id) DO UPDATE SET
            epoch = excluded.epoch, host_url = excluded.host_url, told_at = excluded.told_at
        WHERE excluded.epoch >= epoch
        """,
        (row.agent_id, row.epoch, row.host_url, row.told_at),
    )
    if cursor.rowcount <= 0:
        return False
    if row.host_url is None:
        _trim_ended(c, row.agent_id)
    return True


def home_get(c: sqlite3.Connection, agent_id: str) -> HomeRow | None:
    """Return where a paglet that was created here is, or None when it is unknown."""
    row = c.execute("SELECT agent_id, epoch, host_url, told_at FROM homes WHERE agent_id = ?", (agent_id,)).fetchone()
    return None if row is None else HomeRow(*row)


def notice_put(c: sqlite3.Connection, row: NoticeRow) -> None:
    """Store news of a paglet in place of earlier news of it; older news than the stored changes nothing."""
    c.execute(
        """
        INSERT INTO notices (agent_id, home, epoch, host_url) VALUES (?, ?, ?, ?)
        ON CONFLICT (agent_id) DO UPDATE SET home = excluded.home, epoch = excluded.epoch, host_url = excluded.host_url
        WHERE excluded.epoch >= epoch
        """,
        (row.agent_id, row.home, row.epoch, row.host_url),
    )


def notices(c: sqlite3.Connection) -> list[NoticeRow]:
    """Return all news that were not acknowledged yet."""
    return [
        NoticeRow(*row) for row in c.execute("SELECT agent_id, home, epoch, host_url FROM notices ORDER BY agent_id")
    ]


def notice_get(c: sqlite3.Connection, agent_id: str) -> NoticeRow | None:
    """Return the news of a paglet that were not acknowledged yet, or None."""
    row = c.execute("SELECT agent_id, home, epoch, host_url FROM notices WHERE agent_id = ?", (agent_id,)).fetchone()
    return None if row is None else NoticeRow(*row)


def notice_done(c: sqlite3.Connection, agent_id: str, epoch: int) -> None:
    """Remove the news of a paglet that are not newer than this epoch."""
    c.execute("DELETE FROM notices WHERE agent_id = ? AND epoch <= ?", (agent_id, epoch))


def _trim_ended(c: sqlite3.Connection, agent_id: str) -> None:
    (position,) = c.execute("SELECT position FROM homes WHERE agent_id = ?", (agent_id,)).fetchone()
    if position % _TRIM_EVERY == 0:
        c.execute(
            "DELETE FROM homes WHERE host_url IS NULL AND told_at < "
            "(SELECT told_at FROM homes WHERE host_url IS NULL ORDER BY told_at DESC LIMIT 1 OFFSET ?)",
            (MOST_ENDED - 1,),
        )


_OWN_URLS: Final = (
    ("paglets", "home"),
    ("departed", "home"),
    ("homes", "host_url"),
    ("outbox", "host_url"),
    ("dead_letters", "host_url"),
)
"""Where rows name the host that has them."""


def settle_in(c: sqlite3.Connection, here: str) -> str | None:
    """Note the address of this host; where it was another before, return that one.

    What is kept under the former address is kept under this one from now on, and the home hosts of all paglets here
    are to be told.
    """
    row = c.execute("SELECT value FROM facts WHERE name = 'address'").fetchone()
    former = None if row is None else str(row[0])
    if former == here:
        return None
    c.execute("INSERT OR REPLACE INTO facts (name, value) VALUES ('address', ?)", (here,))
    if former is None:
        return None
    for table, column in _OWN_URLS:
        c.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (here, former))  # noqa: S608 - names from above
    c.execute("DELETE FROM notices WHERE home = ?", (here,))
    c.execute(
        "INSERT OR REPLACE INTO notices (agent_id, home, epoch, host_url) "
        "SELECT agent_id, home, epoch, ? FROM paglets WHERE home NOT IN ('', ?) AND status <> 3",
        (here, here),
    )
    return former
