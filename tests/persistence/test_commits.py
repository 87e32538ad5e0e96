from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.core.errors import HostError, InsufficientStorageError, OverloadedError, PagletError
from paglets.persistence import schema
from paglets.persistence.commits import Committer, Unit
from paglets.persistence.tables import outbox, paglets
from tests.effort import thorough

from .journal_rows import in_file, inline, record


def disk_full() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


class FlakyConnection(sqlite3.Connection):
    """A connection whose commits fail while `full` says so, as on a full disk, or whose transactions do not begin."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.full: Callable[[FlakyConnection], bool] = lambda _: False
        self.commits = 0
        self.locked = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql == "BEGIN IMMEDIATE" and self.locked:
            raise sqlite3.OperationalError("database is locked")
        if sql == "COMMIT":
            if self.full(self):
                raise disk_full()
            self.commits += 1
        return super().execute(sql, parameters)

    def bodies(self) -> list[str]:
        return [row.body.decode() for row in outbox.pending(self)]


def flaky(path: str = ":memory:") -> tuple[FlakyConnection, Committer]:
    connection = sqlite3.connect(path, isolation_level=None, factory=FlakyConnection)
    schema._migrate(connection)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.commits = 0
    return connection, Committer(connection, Path(path))


def unit(work: Callable[[sqlite3.Connection], Any], key: str = "") -> Unit:
    return Unit(work, lambda _value, _error: None, key)


def adds(body: str, *, raises: PagletError | None = None, key: str = "", first: PagletError | None = None) -> Unit:
    """Return a unit that adds to the outbox; it raises `first` before that, `raises` after it."""

    def work(c: sqlite3.Connection) -> str:
        if first is not None:
            raise first
        outbox.add(c, "s", "http://h", "a", body.encode())
        if raises is not None:
            raise raises
        return body

    return unit(work, key)


def everything(committer: Committer, units: list[Unit]) -> list[Unit]:
    """Commit all units, as the journal does with those that a failed group has left."""
    source = iter(units)
    done: list[Unit] = []
    while taken := committer.commit(source):
        done += taken
    return done


def outcomes(units: list[Unit]) -> list[Any]:
    return [one.value if one.error is None else one.error for one in units]


def test_a_group_is_one_commit() -> None:
    connection, committer = flaky()
    with closing(connection):
        units = committer.commit([adds("1"), adds("2"), unit(lambda c: None)])
        assert outcomes(units) == ["1", "2", None]
        assert connection.commits == 1
        assert connection.bodies() == ["1", "2"]


def test_a_unit_that_refuses_costs_the_others_nothing() -> None:
    connection, committer = flaky()
    with closing(connection):
        refusal = OverloadedError("full")
        units = committer.commit([adds("1"), adds("2", first=refusal), adds("3")])
        assert outcomes(units) == ["1", refusal, "3"]
        assert connection.commits == 1
        assert connection.bodies() == ["1", "3"]


def test_a_unit_that_fails_half_way_is_undone_alone() -> None:
    connection, committer = flaky()
    with closing(connection):
        failure = PagletError("no")
        units = committer.commit([adds("1"), adds("2", raises=failure), adds("3")])
        assert outcomes(units) == ["1", failure, "3"]
        assert connection.commits == 1
        assert connection.bodies() == ["1", "3"]


def test_what_is_no_exception_of_a_program_is_one_for_the_caller() -> None:
    connection, committer = flaky()
    with closing(connection):

        def work(_: sqlite3.Connection) -> None:
            raise SystemExit(3)

        (ended,) = committer.commit([unit(work)])
        assert isinstance(ended.error, HostError)
        assert "SystemExit(3)" in str(ended.error)


def test_a_bad_statement_fails_its_unit_only() -> None:
    connection, committer = flaky()
    with closing(connection):
        units = committer.commit([adds("1"), unit(lambda c: c.execute("nonsense")), adds("2")])
        assert isinstance(units[1].error, HostError)
        assert connection.bodies() == ["1", "2"]


def test_when_the_commit_fails_the_units_are_tried_one_by_one() -> None:
    connection, committer = flaky()
    with closing(connection):
        connection.full = lambda c: "large" in c.bodies()
        units = committer.commit([adds("1"), adds("large"), adds("2")])
        assert [type(one.error) for one in units] == [type(None), InsufficientStorageError, type(None)]
        assert units[1].value is None
        assert connection.bodies() == ["1", "2"]


def test_nothing_is_left_when_nothing_can_be_committed() -> None:
    connection, committer = flaky()
    with closing(connection):
        connection.full = lambda c: True
        units = committer.commit([adds("1"), adds("2", raises=PagletError("no")), adds("3")])
        assert [type(one.error) for one in units] == [
            InsufficientStorageError,
            PagletError,
            InsufficientStorageError,
        ]
        connection.full = lambda c: False
        assert outcomes(committer.commit([adds("4")])) == ["4"]
        assert connection.bodies() == ["4"]


@pytest.mark.parametrize("how", ["first", "raises"])
def test_a_key_stays_failed_until_it_is_released(how: str) -> None:
    connection, committer = flaky()
    with closing(connection):
        failure = PagletError("no")
        failing = adds("2", key="k", **{how: failure})
        units = committer.commit([adds("1", key="k"), failing, adds("3", key="k"), adds("4", key="other"), adds("5")])
        assert outcomes(units) == ["1", failure, failure, "4", "5"]
        assert outcomes(committer.commit([adds("6", key="k")])) == [failure]
        committer.release("k")
        assert outcomes(committer.commit([adds("7", key="k")])) == ["7"]
        assert connection.bodies() == ["1", "4", "5", "7"]


def test_a_key_fails_with_its_commit() -> None:
    connection, committer = flaky()
    with closing(connection):
        connection.full = lambda c: "large" in c.bodies()
        units = committer.commit([adds("large", key="k"), adds("2", key="k"), adds("3", key="other")])
        assert isinstance(units[0].error, InsufficientStorageError)
        assert outcomes(units)[1:] == [units[0].error, "3"]
        assert outcomes(committer.commit([adds("4", key="k")])) == [units[0].error]
        committer.release("k")
        assert outcomes(committer.commit([adds("5", key="k")])) == ["5"]


def test_a_key_that_only_failed_in_a_first_try_is_free() -> None:
    """The first unit fails only while the second one's writing fails the whole group."""
    connection, committer = flaky()
    with closing(connection):
        tries = 0

        def once(c: sqlite3.Connection) -> str:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise PagletError("not yet")
            return "done"

        units = committer.commit([unit(once, "k"), adds("1", raises=PagletError("no")), adds("2", key="k")])
        assert outcomes(units)[0] == "done"
        assert outcomes(units)[2] == "2"


def loses_the_transaction(c: sqlite3.Connection) -> None:
    """Do what the database may do when the disk is full in the middle of a statement."""
    c.execute("ROLLBACK")
    raise disk_full()


def test_a_lost_transaction_loses_nothing_of_the_others() -> None:
    connection, committer = flaky()
    with closing(connection):
        units = [adds("1"), unit(loses_the_transaction), adds("2", raises=PagletError("no")), adds("3")]
        taken = everything(committer, units)
        assert taken == units
        assert [type(one.error) for one in units] == [type(None), InsufficientStorageError, PagletError, type(None)]
        assert connection.bodies() == ["1", "3"]


def test_units_of_a_transaction_that_does_not_begin_are_told() -> None:
    connection, committer = flaky()
    with closing(connection):
        units = [adds("1"), adds("2")]
        connection.locked = True
        assert everything(committer, units) == units
        assert [str(one.error) for one in units] == ["Journal :memory:: database is locked"] * 2
        connection.locked = False

        def lock(_: sqlite3.Connection) -> None:
            connection.locked = True
            raise PagletError("nothing written yet")

        units = [adds("3"), unit(lock), adds("4", raises=PagletError("no")), adds("5")]
        assert everything(committer, units) == units
        assert ["locked" in str(one.error) for one in units] == [True] * 4
        assert connection.bodies() == []


@dataclass(frozen=True)
class Step:
    key: str
    fate: str


FATES: dict[str, type[Exception]] = {
    "refuses": OverloadedError,
    "raises": PagletError,
    "large": InsufficientStorageError,
    "lost": InsufficientStorageError,
}
STEPS = st.builds(Step, st.sampled_from(["", "k1", "k2"]), st.sampled_from(["ok", "ok", "ok", *FATES]))


@settings(max_examples=thorough(66, 200), deadline=None)
@given(st.lists(st.lists(STEPS, min_size=1, max_size=6), max_size=5))
def test_groups_end_as_if_every_unit_were_alone(groups: list[list[Step]]) -> None:
    connection, committer = flaky()
    with closing(connection):
        connection.full = lambda c: any(body.startswith("large") for body in c.bodies())
        failed: dict[str, type[Exception]] = {}
        expected: list[str] = []
        for number, group in enumerate(groups):
            units: list[Unit] = []
            fates: list[type[Exception] | None] = []
            for place, step in enumerate(group):
                body = f"{step.fate}-{number}-{place}"
                units.append(
                    unit(loses_the_transaction, step.key)
                    if step.fate == "lost"
                    else adds(
                        body,
                        key=step.key,
                        first=OverloadedError("full") if step.fate == "refuses" else None,
                        raises=PagletError("no") if step.fate == "raises" else None,
                    )
                )
                fate = failed.get(step.key) or FATES.get(step.fate)
                fates.append(fate)
                if fate is None:
                    expected.append(body)
                elif step.key:
                    failed[step.key] = fate
            assert everything(committer, units) == units
            assert [None if one.error is None else type(one.error) for one in units] == fates
            assert connection.bodies() == expected


# files of states


def test_files_that_no_row_names_any_more_are_told_once() -> None:
    connection, committer = flaky()
    with closing(connection):

        def stored(agent_id: str, name: str) -> Unit:
            return unit(lambda c: paglets.put(c, record(agent_id), in_file(name)))

        committer.commit([stored("a1", "one"), stored("a2", "shared"), stored("a3", "shared")])
        assert committer.unnamed_files() == []
        committer.commit([unit(lambda c: paglets.update_state(c, "a1", 1, in_file("two")))])
        assert committer.unnamed_files() == ["one"]
        assert committer.unnamed_files() == []
        committer.commit([unit(lambda c: paglets.update_state(c, "a1", 1, in_file("two")))])
        assert committer.unnamed_files() == []
        committer.commit([unit(lambda c: paglets.remove(c, "a2"))])
        assert committer.unnamed_files() == []
        committer.commit([unit(lambda c: paglets.remove(c, "a3")), stored("a1", "three")])
        assert committer.unnamed_files() == ["shared", "two"]
        committer.commit([unit(lambda c: paglets.update_state(c, "a1", 1, inline(b"small")))])
        assert committer.unnamed_files() == ["three"]


def test_a_change_that_was_undone_drops_no_file() -> None:
    connection, committer = flaky()
    with closing(connection):
        committer.commit([unit(lambda c: paglets.put(c, record("a1"), in_file("one")))])

        def half(c: sqlite3.Connection) -> None:
            paglets.remove(c, "a1")
            raise PagletError("no")

        committer.commit([unit(half), adds("1")])
        assert committer.unnamed_files() == []
        connection.full = lambda c: True
        committer.commit([unit(lambda c: paglets.remove(c, "a1"))])
        assert committer.unnamed_files() == []
        connection.full = lambda c: False
        committer.commit([unit(lambda c: paglets.remove(c, "a1"))])
        assert committer.unnamed_files() == ["one"]


def test_a_failure_beside_it_leaves_no_file_behind() -> None:
    connection, committer = flaky()
    with closing(connection):
        committer.commit([unit(lambda c: paglets.put(c, record("a1"), in_file("one")))])
        connection.full = lambda c: "large" in c.bodies()
        committer.commit([unit(lambda c: paglets.remove(c, "a1")), adds("large")])
        assert committer.unnamed_files() == ["one"]


def test_a_damaged_file_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    connection, committer = flaky(str(path))
    with closing(connection):

        def work(_: sqlite3.Connection) -> None:
            error = sqlite3.DatabaseError("malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        (ended,) = committer.commit([unit(work)])
        assert isinstance(ended.error, schema.DamagedJournalError)
        assert schema.suspect(path).exists()
