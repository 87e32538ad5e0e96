"""Group commit: waiting units of work share one transaction, and one that fails takes no other along.

The usual case costs no savepoint: a unit that raises before it wrote anything needs no rollback. Only when one raises
after it wrote is the group run again, each unit in a savepoint. When the commit itself fails, as on a full disk, the
units are tried one by one. So a unit of work may run more than once and must have no effect but on the connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from paglets.core.errors import HostError
from paglets.persistence.schema import DamagedJournalError, journal_error, suspect

Work = Callable[[sqlite3.Connection], Any]
Done = Callable[[Any, Exception | None], None]

# A row that no longer names the file of its state reports the name; temporary triggers leave the file itself as it is.
_REPORT_DROPPED: Final = (
    """
    CREATE TEMP TRIGGER state_replaced AFTER UPDATE OF file ON main.states
    WHEN old.file <> '' AND old.file <> new.file BEGIN SELECT state_dropped(old.file); END
    """,
    """
    CREATE TEMP TRIGGER state_removed AFTER DELETE ON main.states
    WHEN old.file <> '' BEGIN SELECT state_dropped(old.file); END
    """,
    """
    CREATE TEMP TRIGGER transfer_replaced AFTER UPDATE OF file ON main.transfers
    WHEN old.file <> '' AND old.file <> new.file BEGIN SELECT state_dropped(old.file); END
    """,
    """
    CREATE TEMP TRIGGER transfer_removed AFTER DELETE ON main.transfers
    WHEN old.file <> '' BEGIN SELECT state_dropped(old.file); END
    """,
)
_IS_NAMED: Final = """
    SELECT EXISTS (SELECT 1 FROM states WHERE file = ?1 AND file <> '')
        OR EXISTS (SELECT 1 FROM transfers WHERE file = ?1 AND file <> '')
"""


@dataclass(slots=True, eq=False)
class Unit:
    """One unit of work; after its group was committed it has its value or its error."""

    work: Work
    done: Done
    key: str
    direct: bool = False
    """`done` may be called on any thread."""
    value: Any = None
    error: Exception | None = None


class _HalfDoneError(Exception):
    """A unit raised after it had written something, or the database ended the transaction."""


class Committer:
    """The only user of the connection that writes; not thread-safe."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Take over an open connection in autocommit mode.

        :param path: the file, for what errors say.
        """
        self._connection = connection
        self._path = path
        self._failed: dict[str, Exception] = {}
        self._dropped: list[str] = []
        connection.create_function("state_dropped", 1, self._dropped.append)
        for trigger in _REPORT_DROPPED:
            connection.execute(trigger)

    def commit(self, units: Iterable[Unit]) -> list[Unit]:
        """Run units and return those taken: what they did is on disk, or they have an error and did nothing.

        :param units: asked for the next one while the transaction is open, so that late ones still join. After a
            failure some may not have been taken.
        """
        source = iter(units)
        # One is taken before the transaction begins, as someone has to be told when that fails already.
        taken = list(islice(source, 1))
        further = _noting(source, taken)
        try:
            try:
                self._transaction(chain(taken.copy(), further))
            except _HalfDoneError:
                self._transaction(chain(taken.copy(), further), guarded=True)
        except (_HalfDoneError, sqlite3.Error):
            self._reuse_log()
            for unit in taken:
                self._alone(unit)
        return taken

    def release(self, key: str) -> None:
        """Let units of a key through again."""
        self._failed.pop(key, None)

    def unnamed_files(self) -> list[str]:
        """Return, once, the files of states that no row names any more since the last commit."""
        if not self._dropped:
            return []
        names = [name for name in self._dropped if not self._connection.execute(_IS_NAMED, (name,)).fetchone()[0]]
        self._dropped.clear()
        return names

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # inside

    def _reuse_log(self) -> None:
        """Move the log into the file, so that it is written from its start again and need not grow on a full disk."""
        with suppress(sqlite3.Error):  # the units that are tried next say what is wrong
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _alone(self, unit: Unit) -> None:
        try:
            self._transaction((unit,))
        except (_HalfDoneError, sqlite3.Error) as error:
            cause = error.__cause__ if isinstance(error, _HalfDoneError) else error
            unit.value, unit.error = None, self._meaning(cause or error)
            if unit.key:
                self._failed[unit.key] = unit.error

    def _transaction(self, units: Iterable[Unit], *, guarded: bool = False) -> None:
        connection = self._connection
        failed: dict[str, Exception] = {}
        run = self._run_guarded if guarded else self._run
        dropped = len(self._dropped)
        try:
            connection.execute("BEGIN IMMEDIATE")
            for unit in units:
                key = unit.key
                if key and (earlier := failed.get(key) or self._failed.get(key)) is not None:
                    unit.value, unit.error = None, earlier
                    continue
                unit.value, error = run(unit.work)
                unit.error = error
                if error is not None and key:
                    failed[key] = error
            connection.execute("COMMIT")
        except BaseException:
            # A full disk, for one, has ended the transaction already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            del self._dropped[dropped:]
            raise
        self._failed.update(failed)

    def _run(self, work: Work) -> tuple[Any, Exception | None]:
        connection = self._connection
        before = connection.total_changes
        try:
            return work(connection), None
        except BaseException as error:
            if connection.total_changes != before or not connection.in_transaction:
                raise _HalfDoneError from error
            return None, self._meaning(error)

    def _run_guarded(self, work: Work) -> tuple[Any, Exception | None]:
        connection = self._connection
        dropped = len(self._dropped)
        connection.execute("SAVEPOINT unit")
        outcome: tuple[Any, Exception | None]
        try:
            outcome = work(connection), None
        except BaseException as error:
            if not connection.in_transaction:
                raise _HalfDoneError from error
            connection.execute("ROLLBACK TO unit")
            del self._dropped[dropped:]
            outcome = None, self._meaning(error)
        connection.execute("RELEASE unit")
        return outcome

    def _meaning(self, error: BaseException) -> Exception:
        if isinstance(error, sqlite3.Error):
            meaning = journal_error(self._path, error)
            meaning.__cause__ = error
            if isinstance(meaning, DamagedJournalError):
                with suppress(OSError):  # only makes the next opening look closer
                    suspect(self._path).touch()
            return meaning
        if isinstance(error, Exception):
            return error
        return HostError(f"Journal {self._path}: a unit of work ended with {error!r}")


def _noting(units: Iterator[Unit], taken: list[Unit]) -> Iterator[Unit]:
    for unit in units:
        taken.append(unit)
        yield unit
