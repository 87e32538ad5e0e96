"""The tables of the journal, version by version."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from paglets.core.policies import DeactivationPolicy
from paglets.serialization.values import unpack

MigrationStep = str | Callable[[sqlite3.Connection], None]

_ON_MESSAGE, _QUEUES, _ON_STARTUP = 1, 2, 4


def policy_flags(policy: DeactivationPolicy) -> int:
    """Return the yes-or-no part of a policy as the number that is stored."""
    return (
        _ON_MESSAGE * policy.activate_on_message
        | _QUEUES * policy.queue_messages_when_inactive
        | _ON_STARTUP * policy.activate_on_startup
    )


def policy_of(flags: int, activate_at: float | None) -> DeactivationPolicy:
    """Return the policy that `policy_flags` and the activation time came from."""
    return DeactivationPolicy(bool(flags & _ON_MESSAGE), bool(flags & _QUEUES), bool(flags & _ON_STARTUP), activate_at)


_FIRST: Final[tuple[MigrationStep, ...]] = (
    """
    CREATE TABLE inactive (
        agent_id            TEXT PRIMARY KEY,
        agent_class_name    TEXT NOT NULL,
        state_class_name    TEXT NOT NULL,
        policy              BLOB NOT NULL,
        request             BLOB NOT NULL,
        metadata            BLOB NOT NULL,
        deactivated_at      REAL NOT NULL,
        activate_at         REAL,
        activate_on_startup INTEGER NOT NULL,
        state_crc           INTEGER NOT NULL,
        state_blob          BLOB NOT NULL
    )
    """,
    "CREATE INDEX inactive_due ON inactive (activate_at) WHERE activate_at IS NOT NULL",
    """
    CREATE TABLE queued (
        position   INTEGER PRIMARY KEY AUTOINCREMENT,
        agent_id   TEXT NOT NULL REFERENCES inactive (agent_id) ON DELETE CASCADE,
        message_id TEXT NOT NULL,
        body       BLOB NOT NULL,
        UNIQUE (agent_id, message_id)
    )
    """,
)


def _carry_over_inactive(connection: sqlite3.Connection) -> None:
    """Copy the sleeping paglets of version 1, whose policy and epoch were inside packed values."""

    def flags(policy: bytes) -> int:
        return policy_flags(DeactivationPolicy.from_wire(unpack(policy)))

    def epoch(metadata: bytes) -> int:
        values: dict[str, Any] = unpack(metadata)
        return int(values.get("epoch", 1))

    connection.create_function("flags_of", 1, flags)
    connection.create_function("epoch_of", 1, epoch)
    connection.execute(
        """
        INSERT INTO paglets (agent_id, status, epoch, home, durability, agent_class_name, state_class_name,
                             policy_flags, activate_at, since, error, request, metadata)
        SELECT agent_id, 0, epoch_of(metadata), '', NULL, agent_class_name, state_class_name,
               flags_of(policy), activate_at, deactivated_at, '', request, metadata
        FROM inactive ORDER BY deactivated_at, agent_id
        """
    )
    connection.execute(
        """
        INSERT INTO states (id, crc, size, file, inline)
        SELECT id, state_crc, length(state_blob), '', state_blob FROM paglets JOIN inactive USING (agent_id)
        """
    )
    for name in ("flags_of", "epoch_of"):
        connection.create_function(name, 1, None)


_SECOND: Final[tuple[MigrationStep, ...]] = (
    "ALTER TABLE queued RENAME TO queued_for_inactive",
    # The states are apart, so that a listing of all paglets does not read them.
    """
    CREATE TABLE paglets (
        id               INTEGER PRIMARY KEY,
        agent_id         TEXT NOT NULL UNIQUE,
        status           INTEGER NOT NULL,
        epoch            INTEGER NOT NULL,
        home             TEXT NOT NULL,
        durability       TEXT,
        agent_class_name TEXT NOT NULL,
        state_class_name TEXT NOT NULL,
        policy_flags     INTEGER NOT NULL,
        activate_at      REAL,
        since            REAL NOT NULL,
        error            TEXT NOT NULL,
        request          BLOB NOT NULL,
        metadata         BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE states (
        id     INTEGER PRIMARY KEY REFERENCES paglets (id) ON DELETE CASCADE,
        crc    INTEGER NOT NULL,
        size   INTEGER NOT NULL,
        file   TEXT NOT NULL,
        inline BLOB
    )
    """,
    "CREATE INDEX states_file ON states (file) WHERE file <> ''",
    _carry_over_inactive,
    """
    CREATE TABLE queued (
        position   INTEGER PRIMARY KEY AUTOINCREMENT,
        agent_id   TEXT NOT NULL,
        message_id TEXT NOT NULL,
        size       INTEGER NOT NULL,
        body       BLOB NOT NULL,
        UNIQUE (agent_id, message_id)
    )
    """,
    # How full each queue is, so that nobody counts before a message is added.
    """
    CREATE TABLE queue_sizes (
        agent_id TEXT PRIMARY KEY,
        count    INTEGER NOT NULL,
        bytes    INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER queued_more AFTER INSERT ON queued BEGIN
        INSERT INTO queue_sizes VALUES (new.agent_id, 1, new.size)
        ON CONFLICT (agent_id) DO UPDATE SET count = count + 1, bytes = bytes + new.size;
    END
    """,
    """
    CREATE TRIGGER queued_less AFTER DELETE ON queued BEGIN
        UPDATE queue_sizes SET count = count - 1, bytes = bytes - old.size WHERE agent_id = old.agent_id;
        DELETE FROM queue_sizes WHERE agent_id = old.agent_id AND count = 0;
    END
    """,
    """
    INSERT INTO queued (agent_id, message_id, size, body)
    SELECT agent_id, message_id, length(body), body FROM queued_for_inactive ORDER BY position
    """,
    "DROP TABLE queued_for_inactive",
    "DROP TABLE inactive",
    """
    CREATE TABLE handled (
        agent_id   TEXT NOT NULL,
        number     INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        handled_at REAL NOT NULL,
        reply      BLOB,
        error      BLOB,
        PRIMARY KEY (agent_id, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE outbox (
        position  INTEGER PRIMARY KEY AUTOINCREMENT,
        sender_id TEXT NOT NULL,
        host_url  TEXT NOT NULL,
        agent_id  TEXT NOT NULL,
        attempts  INTEGER NOT NULL,
        body      BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE dead_letters (
        letter_id  INTEGER PRIMARY KEY AUTOINCREMENT,
        died_at    REAL NOT NULL,
        agent_id   TEXT NOT NULL,
        host_url   TEXT NOT NULL,
        message_id TEXT NOT NULL,
        kind       TEXT NOT NULL,
        reason     TEXT NOT NULL,
        body       BLOB NOT NULL
    )
    """,
    "CREATE INDEX dead_letters_agent ON dead_letters (agent_id)",
    "CREATE TABLE dead_letter_count (id INTEGER PRIMARY KEY CHECK (id = 0), count INTEGER NOT NULL)",
    "INSERT INTO dead_letter_count VALUES (0, 0)",
    """
    CREATE TRIGGER dead_letters_more AFTER INSERT ON dead_letters BEGIN
        UPDATE dead_letter_count SET count = count + 1;
    END
    """,
    """
    CREATE TRIGGER dead_letters_less AFTER DELETE ON dead_letters BEGIN
        UPDATE dead_letter_count SET count = count - 1;
    END
    """,
    """
    CREATE TABLE reminders (
        agent_id TEXT NOT NULL,
        name     TEXT NOT NULL,
        due_at   REAL NOT NULL,
        every    REAL,
        count    INTEGER NOT NULL,
        args     BLOB NOT NULL,
        PRIMARY KEY (agent_id, name)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE transfers (
        id          INTEGER PRIMARY KEY,
        transfer_id TEXT NOT NULL,
        role        TEXT NOT NULL,
        crc         INTEGER,
        size        INTEGER,
        file        TEXT NOT NULL,
        inline      BLOB,
        record      BLOB NOT NULL,
        luggage     BLOB NOT NULL,
        UNIQUE (transfer_id, role)
    )
    """,
    "CREATE INDEX transfers_file ON transfers (file) WHERE file <> ''",
    """
    CREATE TABLE departed (
        position    INTEGER PRIMARY KEY,
        agent_id    TEXT NOT NULL UNIQUE,
        epoch       INTEGER NOT NULL,
        target      TEXT NOT NULL,
        home        TEXT NOT NULL,
        departed_at REAL NOT NULL
    )
    """,
    """
    CREATE TABLE homes (
        position INTEGER PRIMARY KEY,
        agent_id TEXT NOT NULL UNIQUE,
        epoch    INTEGER NOT NULL,
        host_url TEXT,
        told_at  REAL NOT NULL
    )
    """,
    "CREATE INDEX homes_ended ON homes (told_at) WHERE host_url IS NULL",
    """
    CREATE TABLE notices (
        agent_id TEXT PRIMARY KEY,
        home     TEXT NOT NULL,
        epoch    INTEGER NOT NULL,
        host_url TEXT
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE ledger (
        sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
        at          REAL NOT NULL,
        agent_id    TEXT NOT NULL,
        class_name  TEXT NOT NULL,
        event       TEXT NOT NULL,
        epoch       INTEGER NOT NULL,
        peer        TEXT NOT NULL,
        peer_name   TEXT NOT NULL,
        cause       TEXT NOT NULL,
        size_bytes  INTEGER NOT NULL,
        seconds     REAL NOT NULL,
        transfer_id TEXT NOT NULL
    )
    """,
    "CREATE INDEX ledger_agent ON ledger (agent_id)",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

_THIRD: Final[tuple[MigrationStep, ...]] = (
    "ALTER TABLE paglets ADD COLUMN balance BLOB",
    "ALTER TABLE paglets ADD COLUMN holder TEXT NOT NULL DEFAULT ''",
    # The names under which hosts have connected to this hub, each with what stands for their key.
    """
    CREATE TABLE relay_names (
        name       TEXT PRIMARY KEY,
        credential BLOB NOT NULL,
        seen_at    REAL NOT NULL
    ) WITHOUT ROWID
    """,
)

# One entry per schema version, in order. A released entry is never edited; a change is a new entry at the end.
MIGRATIONS: Final[tuple[tuple[MigrationStep, ...], ...]] = (_FIRST, _SECOND, _THIRD)
