from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import HostError, InsufficientStorageError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.persistence import schema
from paglets.persistence.journal import Journal, read_only
from paglets.persistence.migrations import MIGRATIONS
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import Status
from paglets.persistence.schema import open_for_writing
from paglets.persistence.states import INLINE_BYTES
from paglets.persistence.tables import outbox, paglets, queued
from paglets.serialization.values import pack

from .journal_rows import inline, put, record


def agent_ids(c: sqlite3.Connection) -> list[str]:
    return [summary.agent_id for summary in paglets.summaries(c)]


def filled(path: Path, count: int = 50) -> None:
    with Journal(path) as journal:
        for number in range(count):
            journal.write_now(lambda c, n=number: put(c, f"a{n}", os.urandom(3000)))


def tear(path: Path) -> None:
    """Overwrite the start of every page but the first."""
    with path.open("r+b") as stream:
        for offset in range(4096, path.stat().st_size, 4096):
            stream.seek(offset)
            stream.write(b"\xff" * 64)


def asides(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.glob("*.corrupt-*"))


# settings


def test_the_file_is_private_and_durable(journal: Journal, journal_path: Path) -> None:
    assert journal_path.stat().st_mode & 0o077 == 0
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "user_version": schema.SCHEMA_VERSION}
    found = journal.write_now(lambda c: {name: c.execute(f"PRAGMA {name}").fetchone()[0] for name in expected})
    assert found == expected


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"disk I/O error|unable to open"):
        Journal(tmp_path)


# damage


def test_garbage_is_set_aside(journal_path: Path) -> None:
    journal_path.parent.mkdir(parents=True)
    journal_path.write_bytes(b"this is no database " * 400)
    with pytest.raises(HostError, match="damaged"), read_only(journal_path):
        pass
    with Journal(journal_path) as journal:
        (warning,) = journal.warnings
        journal.write_now(put)
    with Journal(journal_path) as journal:
        assert journal.warnings == []
        assert journal.read(agent_ids) == ["a1"]
    (aside,) = journal_path.parent.glob("*.corrupt-*")
    assert str(aside) in warning
    assert aside.read_bytes().startswith(b"this is no database")


def test_a_torn_page_is_noticed(journal_path: Path) -> None:
    filled(journal_path)
    tear(journal_path)
    with Journal(journal_path) as journal:
        assert len(journal.warnings) == 1
        assert journal.read(agent_ids) == []


@pytest.mark.parametrize("kept", [100, 4096, 5000, 40_960])
def test_a_truncated_file_is_noticed(journal_path: Path, kept: int) -> None:
    filled(journal_path)
    os.truncate(journal_path, kept)
    with Journal(journal_path) as journal:
        assert len(journal.warnings) == 1
        assert journal.read(agent_ids) == []
    # The log, if any, is kept under the name by which database tools find it again.
    first, *others = asides(journal_path)
    assert set(others) <= {first + "-wal", first + "-shm"}


def test_an_empty_file_is_a_new_journal(journal_path: Path) -> None:
    journal_path.parent.mkdir(parents=True)
    journal_path.touch()
    with read_only(journal_path) as connection:
        assert connection is None
    with Journal(journal_path) as journal:
        assert journal.warnings == []
        journal.write_now(put)


def test_large_states_go_aside_with_their_journal(journal_path: Path) -> None:
    blob = os.urandom(INLINE_BYTES + 1)
    with Journal(journal_path) as journal:
        ref = journal.states.keep(blob)
        journal.write_now(lambda c: paglets.put(c, record("a1"), ref))
    tear(journal_path)
    with Journal(journal_path) as journal:
        assert len(journal.warnings) == 1
        assert not journal.states.directory.exists()
    (states,) = journal_path.parent.glob("*.corrupt-*-states")
    assert (states / ref.file).read_bytes() == blob


def test_two_damaged_files_in_one_second_are_both_kept(journal_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema.time, "strftime", lambda _: "20260101-000000")
    journal_path.parent.mkdir(parents=True)
    for _ in range(2):
        journal_path.write_bytes(b"garbage " * 1000)
        Journal(journal_path).close()
    assert asides(journal_path) == ["journal.db.corrupt-20260101-000000", "journal.db.corrupt-20260101-000000-2"]


def test_the_search_for_damage_has_an_end(journal_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check without time sees nothing; one after damage was met takes the time it needs."""
    filled(journal_path)
    tear(journal_path)
    monkeypatch.setattr(schema, "_quick_check", lambda _, seconds: "ok" if seconds is not None else "torn")
    schema._check(journal_path)
    schema.suspect(journal_path).touch()
    with pytest.raises(schema.DamagedJournalError, match="torn"):
        schema._check(journal_path)


class SlowConnection(sqlite3.Connection):
    """A connection whose statements take until they are interrupted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        self._interrupted.set()

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        assert self._interrupted.wait(10), sql
        error = sqlite3.OperationalError("interrupted")
        error.sqlite_errorcode = sqlite3.SQLITE_INTERRUPT
        raise error


def test_a_check_that_ran_out_of_time_found_nothing() -> None:
    with closing(sqlite3.connect(":memory:", factory=SlowConnection)) as connection:
        assert schema._quick_check(connection, 0.001) == "ok"


def test_damage_that_was_met_is_looked_for_at_the_next_start(journal_path: Path) -> None:
    with Journal(journal_path) as journal:

        def fail(_: sqlite3.Connection) -> None:
            error = sqlite3.DatabaseError("malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        with pytest.raises(HostError, match="damaged"):
            journal.write_now(fail)
        assert schema.suspect(journal_path).exists()
    with Journal(journal_path) as journal:
        assert journal.warnings == []
    assert not schema.suspect(journal_path).exists()


# versions


def test_a_newer_file_is_left_alone(journal_path: Path) -> None:
    filled(journal_path, 1)
    with closing(sqlite3.connect(journal_path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    before = journal_path.read_bytes()
    with pytest.raises(HostError, match="newer paglets"):
        Journal(journal_path)
    with pytest.raises(HostError, match="newer paglets"), read_only(journal_path):
        pass
    assert journal_path.read_bytes() == before
    assert asides(journal_path) == []


def test_a_failed_migration_changes_nothing(journal_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(journal_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE later (x)", "nonsense")))
        patch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
        with pytest.raises(HostError, match="nonsense"):
            Journal(journal_path)
    with Journal(journal_path) as journal:
        assert journal.read(agent_ids) == ["a0"]
        with pytest.raises(HostError, match="later"):
            journal.read(lambda c: c.execute("SELECT x FROM later"))


def test_released_migrations_stay_as_they_are() -> None:
    """A change of the tables is a new entry; here, one that is made by mistake shows."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for step in MIGRATIONS[0]:
            assert isinstance(step, str)
            connection.execute(step)
        columns = [row[1] for row in connection.execute("PRAGMA table_info(inactive)")]
        assert columns == [
            "agent_id", "agent_class_name", "state_class_name", "policy", "request", "metadata", "deactivated_at",
            "activate_at", "activate_on_startup", "state_crc", "state_blob",
        ]  # fmt: skip


def waiting(message_id: str) -> QueuedMessage:
    return QueuedMessage(Message("kind", message_id=message_id, timestamp=1.0), True, 5.0)


@pytest.fixture
def version_1(journal_path: Path) -> Path:
    """A file of schema version 1 with two sleepers and three messages."""
    journal_path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(journal_path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for step in MIGRATIONS[0]:
            assert isinstance(step, str)
            connection.execute(step)
        for number in (2, 1):
            policy = DeactivationPolicy(number == 1, True, number == 2, 7.0 if number == 2 else None)
            ref = inline(b"state" * number)
            connection.execute(
                "INSERT INTO inactive VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    f"a{number}",
                    "pkg.mod:Agent",
                    "pkg.mod:State",
                    pack(policy.to_wire()),
                    pack(DeactivationRequest("why").to_wire()),
                    pack({"epoch": number + 4, "registered_files": []}),
                    float(number),
                    policy.activate_at,
                    int(policy.activate_on_startup),
                    ref.crc,
                    ref.inline,
                ),
            )
        for agent_id, message_id in (("a2", "m2"), ("a1", "m1"), ("a2", "m1")):
            connection.execute(
                "INSERT INTO queued (agent_id, message_id, body) VALUES (?, ?, ?)",
                (agent_id, message_id, pack(waiting(message_id).to_wire())),
            )
        connection.execute("PRAGMA user_version = 1")
    return journal_path


def carried_over(c: sqlite3.Connection) -> None:
    for number, policy in ((1, DeactivationPolicy()), (2, DeactivationPolicy(False, True, True, 7.0))):
        expected = record(
            f"a{number}",
            status=Status.INACTIVE,
            policy=policy,
            request=DeactivationRequest("why"),
            metadata={"epoch": number + 4, "registered_files": []},
            deactivated_at=float(number),
            epoch=number + 4,
        )
        assert paglets.get(c, f"a{number}") == (expected, inline(b"state" * number))
    assert [(summary.agent_id, summary.queued_message_count) for summary in paglets.summaries(c)] == [
        ("a1", 1),
        ("a2", 2),
    ]
    assert [message for _, message in queued.waiting(c, "a2")] == [waiting("m2"), waiting("m1")]


def test_version_1_is_carried_over(version_1: Path) -> None:
    for _ in range(2):
        with Journal(version_1) as journal:
            assert journal.warnings == []
            journal.read(carried_over)
            tables = journal.read(lambda c: [name for (name,) in c.execute("SELECT name FROM sqlite_schema")])
            assert "inactive" not in tables
            assert "queued_for_inactive" not in tables


def test_version_1_can_be_read_and_stays(version_1: Path) -> None:
    before = version_1.read_bytes()
    with read_only(version_1) as connection:
        assert connection is not None
        carried_over(connection)
    assert version_1.read_bytes() == before


# what errors mean


def test_a_full_database_has_no_room(journal_path: Path) -> None:
    with Journal(journal_path) as journal:
        body = os.urandom(20_000)
        journal.write_now(lambda c: c.execute("PRAGMA max_page_count = 60"))
        with pytest.raises(InsufficientStorageError, match="cannot be written"):
            for _ in range(20):
                journal.write_now(lambda c: outbox.add(c, "s", "h", "a", body))
        stored = len(journal.read(outbox.pending))
        assert 0 < stored < 20
        # What is small still finds room.
        journal.write_now(lambda c: outbox.attempted(c, 1))
    with Journal(journal_path) as journal:
        rows = journal.read(outbox.pending)
        assert (len(rows), rows[0].attempts) == (stored, 1)


def test_a_file_that_may_not_be_written_has_no_room(journal_path: Path) -> None:
    filled(journal_path, 1)
    with (
        closing(schema.connect_readonly(journal_path)) as connection,
        pytest.raises(InsufficientStorageError, match="readonly"),
        schema.mapped_errors(journal_path),
    ):
        outbox.add(connection, "s", "h", "a", b"body")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_FULL, InsufficientStorageError),
        (sqlite3.SQLITE_READONLY_DBMOVED, InsufficientStorageError),
        (sqlite3.SQLITE_IOERR_WRITE, InsufficientStorageError),
        (sqlite3.SQLITE_IOERR_FSYNC, HostError),
        (sqlite3.SQLITE_IOERR_READ, HostError),
        (sqlite3.SQLITE_CORRUPT_INDEX, schema.DamagedJournalError),
        (sqlite3.SQLITE_NOTADB, schema.DamagedJournalError),
        (sqlite3.SQLITE_BUSY, HostError),
        (None, HostError),
    ],
)
def test_meanings(code: int | None, expected: type[HostError]) -> None:
    error = sqlite3.OperationalError("text")
    if code is not None:
        error.sqlite_errorcode = code
    meaning = schema.journal_error(Path("journal.db"), error)
    assert type(meaning) is expected
    assert "text" in str(meaning)
    assert "journal.db" in str(meaning)


def test_opening_twice_in_a_row_says_nothing(journal_path: Path) -> None:
    for _ in range(2):
        connection, warnings = open_for_writing(journal_path)
        connection.close()
        assert warnings == []
