"""What is remembered of transfers that have ended: enough for late questions, and no more than that."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from paglets.protocol.transfer.model import Refusal, RefusalReason
from paglets.protocol.transfer.participant import MOST_TOMBSTONE_TEXT, ParticipantPhase, ParticipantState
from paglets.runtime import ended_transfers
from paglets.runtime.ended_transfers import LOCATION_SECONDS, EndedTransfers, Location
from tests.effort import thorough

HERE: Location = {"host_url": "http://here", "agent_id": "a"}
FORGOTTEN = ParticipantState(ParticipantPhase.FORGOTTEN)
ABORTED = ParticipantState(ParticipantPhase.ABORTED)


class NoError(Exception):
    """Can be watched being freed, which built-in errors cannot."""


class Clocked(asyncio.SelectorEventLoop):
    """A loop whose clock is set by hand; it never waits."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def turn(self) -> None:
        """Do what is to be done now."""
        self.run_until_complete(asyncio.sleep(0))
        self.run_until_complete(asyncio.sleep(0))

    def settling(self, outcome: asyncio.Future[Location]) -> asyncio.Task[Location]:
        """Return a task that ends as a future does."""

        async def settle() -> Location:
            return await outcome

        task = self.create_task(settle())
        self.turn()
        return task


@pytest.fixture
def loop() -> Iterator[Clocked]:
    made = Clocked()
    yield made
    made.close()


def refused(text: str, cause: Exception | None = None) -> ParticipantState:
    refusal = Refusal(RefusalReason.POLICY, text, cause=cause)
    return ParticipantState(ParticipantPhase.REFUSED, attempt=2, refusal=refusal)


def test_a_refusal_is_remembered_once_without_what_was_under_way(loop: Clocked) -> None:
    ended = EndedTransfers(loop)
    error = NoError("no")
    seen = weakref.ref(error)
    ended.bury("t", refused("x" * 10 * MOST_TOMBSTONE_TEXT, error), None)
    del error
    gc.collect()

    assert seen() is None
    assert len(ended) == 1
    kept = ended.unbury("t")
    assert kept is not None and kept.refusal is not None
    assert (kept.phase, kept.attempt, kept.plan) == (ParticipantPhase.REFUSED, 2, None)
    assert kept.refusal.text == "x" * MOST_TOMBSTONE_TEXT
    assert ended.unbury("t") is None
    assert len(ended) == 0


def test_nothing_is_kept_of_a_transfer_that_finds_nothing_to_repeat(loop: Clocked) -> None:
    ended = EndedTransfers(loop)
    ended.bury("t", FORGOTTEN, None)
    assert len(ended) == 0
    assert loop.run_until_complete(ended.location("t")) is None


def test_who_asks_before_the_run_has_settled_waits_and_may_give_up(loop: Clocked) -> None:
    ended = EndedTransfers(loop)
    outcome: asyncio.Future[Location] = loop.create_future()
    settling = loop.settling(outcome)
    ended.bury("t", FORGOTTEN, settling)
    patient, hasty = (loop.create_task(ended.location("t")) for _ in range(2))
    loop.turn()
    assert not patient.done()

    hasty.cancel()
    loop.turn()
    assert hasty.cancelled() and not settling.done()  # others still want to know

    outcome.set_result(HERE)
    assert loop.run_until_complete(patient) == HERE
    assert loop.run_until_complete(ended.location("t")) == HERE


def test_a_task_that_has_ended_is_not_kept(loop: Clocked) -> None:
    ended = EndedTransfers(loop)
    outcome: asyncio.Future[Location] = loop.create_future()
    settling = loop.settling(outcome)
    seen = weakref.ref(settling)
    ended.bury("t", FORGOTTEN, settling)
    outcome.set_result(HERE)
    loop.turn()
    del settling, outcome

    gc.collect()
    assert seen() is None
    assert loop.run_until_complete(ended.location("t")) == HERE


def test_a_location_that_could_not_be_found_is_none_and_reported(
    loop: Clocked, caplog: pytest.LogCaptureFixture
) -> None:
    ended = EndedTransfers(loop)
    failed: asyncio.Future[Location] = loop.create_future()
    called_off: asyncio.Future[Location] = loop.create_future()
    ended.bury("failed", FORGOTTEN, loop.settling(failed))
    ended.bury("called off", FORGOTTEN, loop.settling(called_off))
    with caplog.at_level(logging.ERROR, ended_transfers.__name__):
        failed.set_exception(ValueError("lost"))
        called_off.cancel()
        loop.turn()

    assert [loop.run_until_complete(ended.location(each)) for each in ("failed", "called off")] == [None, None]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["lost"]


def test_the_task_of_an_earlier_transfer_of_the_same_id_changes_nothing(loop: Clocked) -> None:
    ended = EndedTransfers(loop)
    old: asyncio.Future[Location] = loop.create_future()
    new: asyncio.Future[Location] = loop.create_future()
    ended.bury("t", FORGOTTEN, loop.settling(old))
    ended.bury("t", FORGOTTEN, loop.settling(new))
    old.set_result({"host_url": "http://elsewhere", "agent_id": "a"})
    loop.turn()
    assert len(ended) == 1

    new.set_result(HERE)
    assert loop.run_until_complete(ended.location("t")) == HERE


@dataclass
class Remembered:
    """What the model knows of a location."""

    until: float
    settled: bool


class Memory(RuleBasedStateMachine):
    """Compare with two plain tables that are cut at the front, where the oldest is."""

    MOST_TRANSFERS = 3
    MOST_LOCATIONS = 2
    ids = st.sampled_from("abcdef")

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(ended_transfers, "REMEMBERED_TRANSFERS", self.MOST_TRANSFERS)
        self.patch.setattr(ended_transfers, "REMEMBERED_LOCATIONS", self.MOST_LOCATIONS)
        self.loop = Clocked()
        self.ended = EndedTransfers(self.loop)
        self.tombstones: OrderedDict[str, int] = OrderedDict()
        self.places: OrderedDict[str, Remembered] = OrderedDict()
        self.outcomes: dict[str, asyncio.Future[Location]] = {}
        self.attempts = 0

    def teardown(self) -> None:
        for outcome in self.outcomes.values():
            outcome.cancel()
        self.loop.turn()
        self.loop.close()
        self.patch.undo()

    def _cut(self) -> None:
        while len(self.tombstones) > self.MOST_TRANSFERS:
            self.tombstones.popitem(last=False)
        while len(self.places) > self.MOST_LOCATIONS:
            self.places.popitem(last=False)
        while self.places and next(iter(self.places.values())).until <= self.loop.now:
            self.places.popitem(last=False)

    @rule(transfer_id=ids, phase=st.sampled_from([ParticipantPhase.ABORTED, ParticipantPhase.REFUSED]))
    def refuse(self, transfer_id: str, phase: ParticipantPhase) -> None:
        self.attempts += 1
        self.ended.bury(transfer_id, ParticipantState(phase, attempt=self.attempts), None)
        self.tombstones[transfer_id] = self.attempts
        self.tombstones.move_to_end(transfer_id)
        self._cut()

    @rule(transfer_id=ids)
    def arrive(self, transfer_id: str) -> None:
        outcome: asyncio.Future[Location] = self.loop.create_future()
        self.ended.bury(transfer_id, FORGOTTEN, self.loop.settling(outcome))
        earlier = self.outcomes.pop(transfer_id, None)
        if earlier is not None:
            earlier.cancel()
        self.outcomes[transfer_id] = outcome
        self.places[transfer_id] = Remembered(self.loop.now + LOCATION_SECONDS, settled=False)
        self.places.move_to_end(transfer_id)
        self._cut()

    @rule(transfer_id=ids)
    def forget(self, transfer_id: str) -> None:
        self.ended.bury(transfer_id, FORGOTTEN, None)
        self._cut()

    @precondition(lambda self: self.outcomes)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        transfer_id = data.draw(st.sampled_from(sorted(self.outcomes)))
        self.outcomes.pop(transfer_id).set_result({"agent_id": transfer_id})
        self.loop.turn()
        if transfer_id in self.places:
            self.places[transfer_id].settled = True

    @rule(transfer_id=ids)
    def unbury(self, transfer_id: str) -> None:
        found = self.ended.unbury(transfer_id)
        assert (None if found is None else found.attempt) == self.tombstones.pop(transfer_id, None)

    @rule(transfer_id=ids)
    def locate(self, transfer_id: str) -> None:
        asking = self.loop.create_task(self.ended.location(transfer_id))
        self.loop.turn()
        place = self.places.get(transfer_id)
        if place is not None and not place.settled:
            assert not asking.done()
            asking.cancel()
            self.loop.turn()
        else:
            assert asking.result() == (None if place is None else {"agent_id": transfer_id})

    @rule(seconds=st.sampled_from([0.0, 1.0, LOCATION_SECONDS / 2, LOCATION_SECONDS]))
    def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds

    @invariant()
    def as_many(self) -> None:
        assert len(self.ended) == len(self.tombstones.keys() | self.places.keys())


Memory.TestCase.settings = settings(max_examples=thorough(40, 2000), stateful_step_count=30, deadline=None)
TestMemory = Memory.TestCase
