from __future__ import annotations

import sqlite3

import pytest

from paglets.core.errors import HostError, SerializationError
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.runtime_values import Durability
from paglets.persistence.rows import RecordSummary, Status, TransferRow
from paglets.persistence.tables import handled, paglets, queued, reminders, transfers

from .journal_rows import handled_message, in_file, inline, message, put, record, reminder


def test_a_record_comes_back_as_it_was(c: sqlite3.Connection) -> None:
    stored = record(
        "a1",
        status=Status.CRASHED,
        policy=DeactivationPolicy(False, True, True, 7.5),
        request=DeactivationRequest("shutdown", "host", DeactivationPolicy(activate_at=9.0), {"b": bytearray(b"1")}),
        deactivated_at=2.5,
        metadata={"registered_files": [{"name": "f"}], "raw": b"\x00"},
        epoch=4,
        home="http://home:1",
        durability=Durability.MESSAGE,
        error="it died",
    )
    paglets.put(c, stored, inline(b"state"))
    assert paglets.get(c, "a1") == (stored, inline(b"state"))
    paglets.put(c, stored, in_file("big"))
    assert paglets.get(c, "a1") == (stored, in_file("big"))
    assert paglets.get(c, "absent") is None


@pytest.mark.parametrize("on_message", [False, True])
@pytest.mark.parametrize("queue", [False, True])
@pytest.mark.parametrize("on_startup", [False, True])
def test_every_policy_comes_back(c: sqlite3.Connection, on_message: bool, queue: bool, on_startup: bool) -> None:
    policy = DeactivationPolicy(on_message, queue, on_startup, None)
    put(c, policy=policy)
    (summary,) = paglets.summaries(c)
    assert summary.policy == policy
    found = paglets.get(c, "a1")
    assert found is not None
    assert found[0].policy == policy


def test_put_replaces_all_but_the_messages(c: sqlite3.Connection) -> None:
    put(c, epoch=1)
    queued.enqueue(c, "a1", message("m1"), max_count=10, max_bytes=1000)
    handled.remember(c, "a1", handled_message("m0"))
    put(c, blob=b"other", epoch=2, status=Status.INACTIVE)
    assert paglets.get(c, "a1") == (record(epoch=2, status=Status.INACTIVE), inline(b"other"))
    assert queued.count(c, "a1") == 1
    assert len(handled.window(c, "a1")) == 1


def test_bad_records_are_refused(c: sqlite3.Connection) -> None:
    with pytest.raises(HostError, match="Invalid agent id"):
        put(c, "../x")
    with pytest.raises(SerializationError):
        put(c, metadata={"object": object()})
    assert paglets.summaries(c) == []


def test_summaries_are_in_order_and_of_the_wanted_status(c: sqlite3.Connection) -> None:
    put(c, "b", deactivated_at=2.0, status=Status.INACTIVE)
    put(c, "d", deactivated_at=2.0, epoch=3)
    put(c, "c", deactivated_at=1.0, status=Status.CRASHED)
    queued.enqueue(c, "b", message("m1"), max_count=10, max_bytes=1000)
    queued.enqueue(c, "b", message("m2"), max_count=10, max_bytes=1000)
    assert [summary.agent_id for summary in paglets.summaries(c)] == ["c", "b", "d"]
    assert paglets.summaries(c, (Status.INACTIVE, Status.ACTIVE)) == [
        RecordSummary("b", "pkg.mod:Agent", "pkg.mod:State", 2.0, Status.INACTIVE, 1, DeactivationPolicy(), 2),
        RecordSummary("d", "pkg.mod:Agent", "pkg.mod:State", 2.0, Status.ACTIVE, 3, DeactivationPolicy(), 0),
    ]
    assert paglets.summaries(c, ()) == []


def test_only_the_active_epoch_updates_its_state(c: sqlite3.Connection) -> None:
    put(c, epoch=2)
    assert paglets.update_state(c, "a1", 2, inline(b"new"))
    assert not paglets.update_state(c, "a1", 1, inline(b"old"))
    assert not paglets.update_state(c, "absent", 2, inline(b"old"))
    assert paglets.set_status(c, "a1", 2, Status.DEPARTING)
    assert not paglets.update_state(c, "a1", 2, inline(b"late"))
    assert paglets.get(c, "a1") == (record(epoch=2, status=Status.DEPARTING), inline(b"new"))


def test_a_status_changes_with_what_is_given(c: sqlite3.Connection) -> None:
    policy = DeactivationPolicy(activate_at=5.0)
    put(c, policy=policy, error="before", deactivated_at=1.0)
    assert paglets.set_status(c, "a1", 1, Status.CRASHED)
    assert paglets.get(c, "a1") == (record(status=Status.CRASHED, policy=policy, error="before"), inline(b"state"))
    request = DeactivationRequest("why")
    assert paglets.set_status(
        c, "a1", 1, Status.INACTIVE, at=9.0, policy=DeactivationPolicy(), request=request, error=""
    )
    expected = record(status=Status.INACTIVE, deactivated_at=9.0, request=request)
    assert paglets.get(c, "a1") == (expected, inline(b"state"))
    assert not paglets.set_status(c, "a1", 2, Status.ACTIVE)
    assert paglets.get(c, "a1") == (expected, inline(b"state"))


def test_an_error_that_is_no_text_is_kept_as_its_escape(c: sqlite3.Connection) -> None:
    put(c, error="half \ud800")
    assert paglets.get(c, "a1") == (record(error=r"half \ud800"), inline(b"state"))
    request = DeactivationRequest("caf\udce9", metadata={"\ud800": float("inf")})
    assert paglets.set_status(c, "a1", 1, Status.INACTIVE, at=1.0, request=request, error="caf\udce9")
    expected = record(status=Status.INACTIVE, request=request, error=r"caf\udce9")
    assert paglets.get(c, "a1") == (expected, inline(b"state"))


def test_metadata_belong_to_an_epoch(c: sqlite3.Connection) -> None:
    put(c, metadata={"old": 1})
    assert not paglets.update_metadata(c, "a1", 2, {"late": 1})
    assert paglets.update_metadata(c, "a1", 1, {"new": 1})
    assert paglets.get(c, "a1") == (record(metadata={"new": 1}), inline(b"state"))


def test_remove_takes_what_is_the_paglets_own(c: sqlite3.Connection) -> None:
    for agent_id in ("a1", "a2"):
        put(c, agent_id)
        handled.remember(c, agent_id, handled_message("m0"))
        reminders.put(c, reminder("r", agent_id))
        queued.enqueue(c, agent_id, message("m1"), max_count=10, max_bytes=1000)
    assert paglets.remove(c, "a1")
    assert not paglets.remove(c, "a1")
    assert paglets.get(c, "a1") is None
    assert (handled.window(c, "a1"), reminders.of(c, "a1"), queued.count(c, "a1")) == ([], [], 1)
    assert paglets.get(c, "a2") is not None
    assert (len(handled.window(c, "a2")), len(reminders.of(c, "a2"))) == (1, 1)
    assert c.execute("SELECT count(*) FROM states").fetchone() == (1,)


def test_remove_only_what_is_meant(c: sqlite3.Connection) -> None:
    put(c, epoch=2, status=Status.DEPARTING)
    handled.remember(c, "a1", handled_message("m0"))
    assert not paglets.remove(c, "a1", epoch=1)
    assert not paglets.remove(c, "a1", status=Status.INACTIVE)
    assert not paglets.remove(c, "a1", epoch=2, status=Status.ACTIVE)
    assert len(handled.window(c, "a1")) == 1
    assert paglets.remove(c, "a1", epoch=2, status=Status.DEPARTING)


def test_named_files(c: sqlite3.Connection) -> None:
    put(c, "a1")
    paglets.put(c, record("a2"), in_file("two"))
    paglets.put(c, record("a3"), in_file("both"))
    transfers.put(c, TransferRow("t1", "prepared", b"r", b"", in_file("both")))
    transfers.put(c, TransferRow("t2", "commit", b"r", b"", in_file("four")))
    transfers.put(c, TransferRow("t3", "commit", b"r", b"", None))
    assert sorted(paglets.state_files(c)) == ["both", "four", "two"]
