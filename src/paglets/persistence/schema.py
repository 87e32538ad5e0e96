"""Opening the file of the journal: versions, damage, settings, and what its errors mean."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from paglets.core.errors import HostError, InsufficientStorageError
from paglets.persistence.atomic import fsync_directory
from paglets.persistence.migrations import MIGRATIONS

SCHEMA_VERSION: Final = len(MIGRATIONS)
BUSY_TIMEOUT_SECONDS: Final = 5.0
#: How long opening may look for damage. It covers any journal of usual size; a very large one is checked in part, and
#: in full when the last host that used it met damage.
CHECK_SECONDS: Final = 0.15

#: Pages that the writer keeps in memory, and the reader as many. What is known of paglets that left or ended grows to
#: some 20 MB, of which each commit touches pages at random, so this is full in any host that is old enough. With 8 MB a
#: commit takes 2 % less time (record 0019).
CACHE_KB: Final = 1024

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_REFUSED: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY})
# A file that may not grow: a quota or a limit of the process, as opposed to a full disk.
_NO_GROWTH: Final = frozenset({sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
_STATEMENTS: Final = 128


class DamagedJournalError(HostError):
    """The journal file is not a readable database."""


def journal_error(path: Path, error: sqlite3.Error) -> HostError:
    """Return what an error of the database means for a host.

    `InsufficientStorageError`: the disk does not take the change. `DamagedJournalError`: the file itself is broken.
    """
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        if code & 0xFF in _DAMAGE:
            return DamagedJournalError(f"Journal {path} is damaged: {error}")
        if code & 0xFF in _REFUSED or code in _NO_GROWTH:
            return InsufficientStorageError(f"Journal {path} cannot be written: {error}. Make room and try again")
    return HostError(f"Journal {path}: {error}")


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Turn errors of the database into what `journal_error` makes of them."""
    try:
        yield
    except sqlite3.Error as error:
        raise journal_error(path, error) from error


def suspect(path: Path) -> Path:
    """Return the name of the file that says: this journal was found damaged, check all of it."""
    return path.with_name(f"{path.name}.suspect")


def open_for_writing(path: Path) -> tuple[sqlite3.Connection, list[str]]:
    """Open the journal, created or brought to this schema version first; return it with warnings for the operator.

    A damaged file is set aside with its states and an empty journal takes its place.

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
        suspect(path).unlink(missing_ok=True)
    path.touch(mode=0o600)
    with mapped_errors(path):
        connection = sqlite3.connect(
            path,
            timeout=BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENTS,
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
    with mapped_errors(path), closing(connect_readonly(path)) as connection:
        version = _version(connection, path)
        if version == 0:
            # A file whose tables another host is just about to create.
            yield None
        elif version == SCHEMA_VERSION:
            yield connection
        else:
            # Only the host that owns the file may bring it to this version.
            with closing(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)) as copy:
                connection.backup(copy)
                _migrate(copy)
                yield copy


def connect_readonly(path: Path) -> sqlite3.Connection:
    """Open the file so that nothing can be written through the connection."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS,
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
    """Look for damage: the header and the size always, all pages as far as the time goes.

    What is not looked at here shows when it is read: the structure of a page by SQLite, a state by its checksum.
    """
    with mapped_errors(path), closing(connect_readonly(path)) as connection:
        _version(connection, path)
        limit = None if suspect(path).exists() else CHECK_SECONDS
        verdict = _quick_check(connection, limit)
    if verdict != "ok":
        raise DamagedJournalError(f"Journal {path} is damaged: {verdict}")


def _quick_check(connection: sqlite3.Connection, seconds: float | None) -> str:
    if seconds is None:
        return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    # A progress handler does not do: the check of a whole tree is one instruction to SQLite.
    timer = threading.Timer(seconds, connection.interrupt)
    timer.start()
    try:
        return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return "ok"
    finally:
        timer.cancel()
        timer.join()


def _configure(connection: sqlite3.Connection) -> str:
    mode = str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    # FULL: a transaction that has been acknowledged survives a power cut; fullfsync is what that takes on macOS.
    for setting in (
        "synchronous = FULL",
        "fullfsync = ON",
        "checkpoint_fullfsync = ON",
        "foreign_keys = ON",
        "trusted_schema = OFF",
        "secure_delete = OFF",
        "temp_store = MEMORY",
        f"cache_size = -{CACHE_KB}",
        "wal_autocheckpoint = 2000",
        f"journal_size_limit = {64 * 1024 * 1024}",
    ):
        connection.execute(f"PRAGMA {setting}")
    return mode


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        for steps in MIGRATIONS[version:]:
            for step in steps:
                if isinstance(step, str):
                    connection.execute(step)
                else:
                    step(connection)
        if version < SCHEMA_VERSION:
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        if connection.in_transaction:
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
    states = states_directory(path)
    if states.exists():
        # Its large states too, which the empty journal would sweep away.
        states.rename(aside.with_name(f"{aside.name}-states"))
    fsync_directory(path.parent)
    return aside


def states_directory(path: Path) -> Path:
    """Return where the large states of a journal are."""
    return path.with_name("states")
