"""The tables of the journal, and opening its file: versions, damage, settings."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from paglets.core.errors import HostError
from paglets.persistence.atomic import fsync_directory

BUSY_TIMEOUT_SECONDS: Final = 5.0

# One entry per schema version, in order. A released entry is never edited; a change is a new entry at the end.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
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
    ),
)
SCHEMA_VERSION: Final = len(MIGRATIONS)

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class DamagedJournalError(HostError):
    """The journal file is not a readable database."""


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Turn errors of the database into `HostError`, `DamagedJournalError` where the file itself is broken."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _DAMAGE:
            raise DamagedJournalError(f"Journal {path} is damaged: {error}") from error
        raise HostError(f"Journal {path}: {error}") from error


def open_for_writing(path: Path) -> tuple[sqlite3.Connection, list[str]]:
    """Open the journal, created or brought to this schema version first; return it with warnings for the operator.

    A damaged file is set aside and an empty journal takes its place.

    :raises HostError: the file has a newer schema and stays as it is, or it cannot be opened.
    """
    warnings: list[str] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        try:
            _check(path)
        except DamagedJournalError as error:
            aside = _set_aside(path)
            warnings.append(f"{error}; it was set aside as {aside} and an empty journal started")
    path.touch(mode=0o600)
    with mapped_errors(path):
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            mode = _configure(connection)
            _migrate(connection)
        except BaseException:
            connection.close()
            raise
    if mode != "wal":
        warnings.append(
            f"Journal {path} runs in the slower journal mode {mode!r}: its file system has no shared memory"
        )
    fsync_directory(path.parent)
    return connection, warnings


@contextmanager
def open_for_reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Open an existing journal without writing to it; give None when there is none yet.

    :raises HostError: it is damaged or has a newer schema.
    """
    if not path.exists():
        yield None
        return
    with mapped_errors(path), closing(_connect_readonly(path)) as connection:
        # Version 0 is a file whose tables another host is just about to create.
        yield connection if _version(connection, path) else None


def _connect_readonly(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise HostError(
            f"Journal {path} has schema version {version}, newer than {SCHEMA_VERSION} known here: "
            "it was written by a newer paglets; use that version or another persistence directory"
        )
    return version


def _check(path: Path) -> None:
    with mapped_errors(path), closing(_connect_readonly(path)) as connection:
        _version(connection, path)
        verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if verdict != "ok":
        raise DamagedJournalError(f"Journal {path} is damaged: {verdict}")


def _configure(connection: sqlite3.Connection) -> str:
    mode = str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    # FULL: a transaction that has been acknowledged survives a power cut; fullfsync is what that takes on macOS.
    for setting in (
        "synchronous = FULL",
        "fullfsync = ON",
        "checkpoint_fullfsync = ON",
        "foreign_keys = ON",
        "trusted_schema = OFF",
        f"journal_size_limit = {64 * 1024 * 1024}",
    ):
        connection.execute(f"PRAGMA {setting}")
    return mode


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        if version < SCHEMA_VERSION:
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _set_aside(path: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    counter = 1
    while aside.exists():
        counter += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{counter}")
    # The write-ahead log goes along under the name by which the database tools find it again.
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    fsync_directory(path.parent)
    return aside
