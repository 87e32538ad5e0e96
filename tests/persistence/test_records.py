from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from paglets.core.errors import HostError, InvalidAgentError, OverloadedError, SerializationError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.persistence import schema
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.records import RecordStore, StoredRecord

FIRST_VERSION = """
import os, sys
from paglets.persistence.records import RecordStore, StoredRecord
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
store = RecordStore(sys.argv[1])
for number in range(5):
    store.put(StoredRecord(f"a{number}", "m:C", "m:S", b"x", DeactivationPolicy(), DeactivationRequest(), number))
print("stored", flush=True)
sys.stdin.read()
"""


def record(agent_id: str = "a1", *, at: float = 1.0, blob: bytes = b"state", **policy: Any) -> StoredRecord:
    return StoredRecord(
        agent_id=agent_id,
        agent_class_name="pkg.mod:Agent",
        state_class_name="pkg.mod:State",
        state_blob=blob,
        policy=DeactivationPolicy(**policy),
        request=DeactivationRequest("shutdown", "host", DeactivationPolicy(activate_at=9.0), {"b": bytearray(b"1")}),
        deactivated_at=at,
        metadata={"registered_files": [{"name": "f"}], "raw": b"\x00"},
    )


def append(store: RecordStore, agent_id: str, message_id: str, *, max_count: int = 10, max_bytes: int = 10_000) -> None:
    message = Message("kind", {"n": message_id, "blob": b"\x00"}, message_id=message_id)
    store.append_message(agent_id, QueuedMessage(message, True, 5.0), max_count=max_count, max_bytes=max_bytes)


def queued_ids(store: RecordStore, agent_id: str) -> list[str]:
    return [entry.message.message_id for entry in store.queued(agent_id)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "host" / "journal.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[RecordStore]:
    with RecordStore(path) as opened:
        yield opened


# records


def test_a_record_survives_a_restart(path: Path) -> None:
    original = record(blob=os.urandom(300_000), activate_on_message=False, activate_at=7.5)
    with RecordStore(path) as store:
        store.put(original)
        assert store.get("a1") == original
        assert store.warnings == []
    with RecordStore(path) as store:
        assert store.get("a1") == original
        assert store.get("absent") is None


def test_put_replaces_and_keeps_the_queue(store: RecordStore) -> None:
    store.put(record())
    append(store, "a1", "m1")
    store.put(record(blob=b"other"))
    stored = store.get("a1")
    assert stored is not None
    assert stored.state_blob == b"other"
    assert queued_ids(store, "a1") == ["m1"]


def test_delete_takes_the_queue_along(store: RecordStore) -> None:
    store.put(record())
    append(store, "a1", "m1")
    assert store.delete("a1")
    assert not store.delete("a1")
    assert store.get("a1") is None
    assert store.queued("a1") == []


def test_summaries_are_in_order_of_deactivation(store: RecordStore) -> None:
    store.put(record("b", at=2.0))
    store.put(record("a", at=3.0, activate_on_startup=True))
    store.put(record("c", at=1.0))
    append(store, "b", "m1")
    append(store, "b", "m2")
    summaries = store.summaries()
    assert [(summary.agent_id, summary.queued_message_count) for summary in summaries] == [("c", 0), ("b", 2), ("a", 0)]
    assert summaries[2].policy == DeactivationPolicy(activate_on_startup=True)
    assert summaries[0].agent_class_name == "pkg.mod:Agent"
    assert summaries[0].deactivated_at == 1.0


def test_due_times(store: RecordStore) -> None:
    assert store.next_due() is None
    store.put(record("late", activate_at=30.0))
    store.put(record("early", activate_at=10.0))
    store.put(record("never"))
    assert store.next_due() == 10.0
    assert store.due(9.99) == []
    assert store.due(10.0) == ["early"]
    assert store.due(100.0) == ["early", "late"]
    store.put(record("early"))
    assert store.next_due() == 30.0


def test_startup_ids(store: RecordStore) -> None:
    store.put(record("b", at=1.0, activate_on_startup=True))
    store.put(record("a", at=2.0, activate_on_startup=True))
    store.put(record("c", at=0.5))
    assert store.startup_ids() == ["b", "a"]


def test_bad_records_are_refused(store: RecordStore) -> None:
    with pytest.raises(HostError, match="Invalid agent id"):
        store.put(record("../x"))
    broken = record()
    broken.metadata = {"object": object()}
    with pytest.raises(SerializationError):
        store.put(broken)
    assert store.summaries() == []


def test_a_flipped_bit_in_a_state_is_noticed(path: Path, store: RecordStore) -> None:
    store.put(record())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE states SET inline = x'00'")
    with pytest.raises(HostError, match="state of 'a1' is damaged"):
        store.get("a1")
    assert len(store.summaries()) == 1


# queued messages


def test_queued_messages_keep_their_order_and_content(path: Path) -> None:
    with RecordStore(path) as store:
        store.put(record())
        for message_id in ("m2", "m1", "m3"):
            append(store, "a1", message_id)
    with RecordStore(path) as store:
        assert queued_ids(store, "a1") == ["m2", "m1", "m3"]
        entry = store.queued("a1")[0]
        assert (entry.oneway, entry.queued_at, entry.message.args["blob"]) == (True, 5.0, b"\x00")
        assert store.remove_message("a1", "m1")
        assert not store.remove_message("a1", "m1")
        append(store, "a1", "m1")
        assert queued_ids(store, "a1") == ["m2", "m3", "m1"]


def test_a_repeated_message_is_stored_once(store: RecordStore) -> None:
    store.put(record())
    append(store, "a1", "m1", max_count=1)
    append(store, "a1", "m1", max_count=1)
    assert queued_ids(store, "a1") == ["m1"]


def test_the_queue_is_bounded_by_count(store: RecordStore) -> None:
    store.put(record())
    append(store, "a1", "m1", max_count=2)
    append(store, "a1", "m2", max_count=2)
    with pytest.raises(OverloadedError, match="2 queued messages"):
        append(store, "a1", "m3", max_count=2)
    assert queued_ids(store, "a1") == ["m1", "m2"]


def test_the_queue_is_bounded_by_bytes_per_paglet(store: RecordStore) -> None:
    store.put(record("a1"))
    store.put(record("a2"))
    append(store, "a1", "m1", max_bytes=250)
    with pytest.raises(OverloadedError, match="250 bytes"):
        append(store, "a1", "m2", max_bytes=250)
    append(store, "a2", "m2", max_bytes=250)


def test_a_message_needs_a_record(store: RecordStore) -> None:
    with pytest.raises(InvalidAgentError, match="absent"):
        append(store, "absent", "m1")


# the file


def test_reading_creates_nothing(path: Path) -> None:
    reader = RecordStore.open_readonly(path)
    assert reader.summaries() == []
    assert reader.get("a1") is None
    assert reader.next_due() is None
    assert reader.startup_ids() == []
    assert not path.parent.exists()


def test_reading_while_another_writes(path: Path) -> None:
    reader = RecordStore.open_readonly(path)
    with RecordStore(path) as writer:
        assert reader.summaries() == []
        writer.put(record())
        append(writer, "a1", "m1")
        assert reader.get("a1") == record()
        assert queued_ids(reader, "a1") == ["m1"]
        assert reader.due(100.0) == []
    assert len(reader.summaries()) == 1


def test_a_reader_does_not_write(path: Path) -> None:
    with RecordStore(path):
        pass
    reader = RecordStore.open_readonly(path)
    for attempt in (lambda: reader.put(record()), lambda: reader.delete("a1"), lambda: append(reader, "a1", "m")):
        with pytest.raises(HostError, match="reading only"):
            attempt()


def test_a_closed_store(path: Path) -> None:
    store = RecordStore(path)
    store.close()
    store.close()
    with pytest.raises(HostError, match="closed"):
        store.summaries()
    with pytest.raises(HostError, match="closed"):
        store.put(record())


def test_the_file_is_private_and_durable(path: Path, store: RecordStore) -> None:
    assert path.stat().st_mode & 0o077 == 0
    connection = store._connection
    assert connection is not None
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)


def test_a_damaged_file_is_set_aside(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is no database " * 400)
    reader = RecordStore.open_readonly(path)
    with pytest.raises(HostError, match="damaged"):
        reader.summaries()

    with RecordStore(path) as store:
        (warning,) = store.warnings
        store.put(record())
    with RecordStore(path) as store:
        assert store.warnings == []
        assert len(store.summaries()) == 1

    (aside,) = path.parent.glob("journal.sqlite.corrupt-*")
    assert str(aside) in warning
    assert aside.read_bytes().startswith(b"this is no database")


def test_a_database_with_a_torn_page_is_set_aside(path: Path) -> None:
    with RecordStore(path) as store:
        for number in range(50):
            store.put(record(f"a{number}", blob=os.urandom(3000)))
    size = path.stat().st_size
    with path.open("r+b") as stream:
        for offset in range(4096, size, 4096):
            stream.seek(offset)
            stream.write(b"\xff" * 64)
    with RecordStore(path) as store:
        assert len(store.warnings) == 1
        assert store.summaries() == []
    # The log, if any, is kept under the name by which database tools find it again.
    aside = sorted(found.name for found in path.parent.glob("*.corrupt-*"))
    assert set(aside) <= {aside[0] + suffix for suffix in ("", "-wal", "-shm")}


def test_two_damaged_files_in_one_second_are_both_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema.time, "strftime", lambda _: "20260101-000000")
    path.parent.mkdir(parents=True)
    for _ in range(2):
        path.write_bytes(b"garbage " * 1000)
        RecordStore(path).close()
    assert sorted(found.name for found in path.parent.glob("*.corrupt-*")) == [
        "journal.sqlite.corrupt-20260101-000000",
        "journal.sqlite.corrupt-20260101-000000-2",
    ]


def test_a_newer_file_is_left_alone(path: Path) -> None:
    with RecordStore(path) as store:
        store.put(record())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(HostError, match="newer paglets"):
        RecordStore(path)
    with pytest.raises(HostError, match="newer paglets"):
        RecordStore.open_readonly(path).summaries()
    assert path.read_bytes() == before
    assert list(path.parent.glob("*.corrupt-*")) == []


def test_an_older_file_is_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RecordStore(path) as store:
        store.put(record())
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE later (x)",)))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    with RecordStore(path) as store:
        assert store.get("a1") == record()
        store._read(lambda c: c.execute("SELECT x FROM later").fetchall(), [])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)


def test_a_failed_migration_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RecordStore(path) as store:
        store.put(record())
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE later (x)", "nonsense")))
        patch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
        with pytest.raises(HostError, match="nonsense"):
            RecordStore(path)
    with RecordStore(path) as store:
        assert store.get("a1") == record()
        with pytest.raises(HostError, match="later"):
            store._read(lambda c: c.execute("SELECT x FROM later").fetchall(), [])


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"disk I/O error|unable to open"):
        RecordStore(tmp_path)


def test_what_was_stored_survives_a_kill(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FIRST_VERSION, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"stored\n"
        writer.kill()
        writer.wait()
    with RecordStore(path) as store:
        assert [summary.agent_id for summary in store.summaries()] == [f"a{number}" for number in range(5)]
        assert store.warnings == []


def test_many_threads(store: RecordStore) -> None:
    failures: list[BaseException] = []

    def work(agent_id: str) -> None:
        try:
            store.put(record(agent_id))
            for number in range(10):
                append(store, agent_id, f"m{number}")
                assert len(store.queued(agent_id)) == number + 1
                store.summaries()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"a{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [summary.queued_message_count for summary in store.summaries()] == [10] * 4


AGENTS = st.sampled_from(["a", "b", "c"])
MESSAGES = st.sampled_from(["m1", "m2", "m3", "m4"])


class StoreMachine(RuleBasedStateMachine):
    """The store against two dicts; a database in memory stands for the file."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, bytes] = {}
        self.queues: dict[str, list[str]] = {}

    @initialize()
    def open(self) -> None:
        self.store = RecordStore(":memory:", readonly=True)
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.execute("PRAGMA foreign_keys = ON")
        schema._migrate(connection)
        self.store._connection = connection

    @rule(agent_id=AGENTS, blob=st.binary(max_size=5))
    def put(self, agent_id: str, blob: bytes) -> None:
        self.store.put(record(agent_id, blob=blob))
        self.records[agent_id] = blob
        self.queues.setdefault(agent_id, [])

    @rule(agent_id=AGENTS)
    def delete(self, agent_id: str) -> None:
        assert self.store.delete(agent_id) == (agent_id in self.records)
        self.records.pop(agent_id, None)
        self.queues.pop(agent_id, None)

    @rule(agent_id=AGENTS, message_id=MESSAGES)
    def append(self, agent_id: str, message_id: str) -> None:
        if agent_id not in self.records:
            with pytest.raises(InvalidAgentError):
                append(self.store, agent_id, message_id, max_count=3)
        elif message_id in self.queues[agent_id]:
            append(self.store, agent_id, message_id, max_count=3)
        elif len(self.queues[agent_id]) == 3:
            with pytest.raises(OverloadedError):
                append(self.store, agent_id, message_id, max_count=3)
        else:
            append(self.store, agent_id, message_id, max_count=3)
            self.queues[agent_id].append(message_id)

    @rule(agent_id=AGENTS, message_id=MESSAGES)
    def remove(self, agent_id: str, message_id: str) -> None:
        there = message_id in self.queues.get(agent_id, [])
        assert self.store.remove_message(agent_id, message_id) == there
        if there:
            self.queues[agent_id].remove(message_id)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        found = {summary.agent_id: summary.queued_message_count for summary in self.store.summaries()}
        assert found == {agent_id: len(queue) for agent_id, queue in self.queues.items()}
        for agent_id, queue in self.queues.items():
            assert queued_ids(self.store, agent_id) == queue
            stored = self.store.get(agent_id)
            assert stored is not None
            assert stored.state_blob == self.records[agent_id]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


StoreMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
test_store_machine = StoreMachine.TestCase
