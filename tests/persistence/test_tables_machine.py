"""The tables against dicts, in a file that is closed and opened again at any time."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from paglets.core.errors import OverloadedError
from paglets.persistence.journal import Journal
from paglets.persistence.rows import HandledMessage, ReminderRow, Status, StoredRecord
from paglets.persistence.tables import handled, paglets, queued, reminders

from .journal_rows import handled_message, inline, message, record, reminder

AGENTS = st.sampled_from(["a", "b", "c"])
MESSAGES = st.sampled_from(["m1", "m2", "m3", "m4"])
EPOCHS = st.integers(1, 3)
STATUSES = st.sampled_from(Status)
BLOBS = st.binary(max_size=5)
WINDOW = 3
MOST = 3


class TablesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.paglets: dict[str, tuple[StoredRecord, bytes]] = {}
        self.queued: dict[str, list[str]] = {}
        self.handled: dict[str, list[HandledMessage]] = {}
        self.reminders: dict[str, dict[str, ReminderRow]] = {}

    @initialize()
    def open(self) -> None:
        self.journal = Journal(self.directory / "journal.db")
        assert self.journal.warnings == []

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.open()

    def write(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return self.journal.write_now(lambda c: function(c, *args, **kwargs))

    # paglets

    @rule(agent_id=AGENTS, epoch=EPOCHS, status=STATUSES, blob=BLOBS, at=st.integers(0, 3))
    def put(self, agent_id: str, epoch: int, status: Status, blob: bytes, at: int) -> None:
        stored = record(agent_id, epoch=epoch, status=status, deactivated_at=float(at))
        self.write(paglets.put, stored, inline(blob))
        self.paglets[agent_id] = stored, blob

    @rule(agent_id=AGENTS, epoch=EPOCHS, blob=BLOBS)
    def update_state(self, agent_id: str, epoch: int, blob: bytes) -> None:
        stored = self.paglets.get(agent_id)
        fits = stored is not None and (stored[0].epoch, stored[0].status) == (epoch, Status.ACTIVE)
        assert self.write(paglets.update_state, agent_id, epoch, inline(blob)) == fits
        if stored is not None and fits:
            self.paglets[agent_id] = stored[0], blob

    @rule(agent_id=AGENTS, epoch=EPOCHS, status=STATUSES, at=st.none() | st.floats(0, 3), handed_over=st.booleans())
    def set_status(self, agent_id: str, epoch: int, status: Status, at: float | None, handed_over: bool) -> None:
        stored = self.paglets.get(agent_id)
        fits = stored is not None and stored[0].epoch == epoch
        # What was handed over stays so, unless the hand-over is taken back.
        fits = fits and stored is not None and (handed_over or stored[0].status is not Status.DEPARTING)
        assert self.write(paglets.set_status, agent_id, epoch, status, at=at, handed_over=handed_over) == fits
        if stored is not None and fits:
            since = stored[0].deactivated_at if at is None else at
            self.paglets[agent_id] = replace(stored[0], status=status, deactivated_at=since), stored[1]

    @rule(agent_id=AGENTS, epoch=st.none() | EPOCHS, status=st.none() | STATUSES)
    def remove(self, agent_id: str, epoch: int | None, status: Status | None) -> None:
        stored = self.paglets.get(agent_id)
        fits = stored is not None and epoch in (None, stored[0].epoch) and status in (None, stored[0].status)
        assert self.write(paglets.remove, agent_id, epoch=epoch, status=status) == fits
        if fits:
            del self.paglets[agent_id]
            self.handled.pop(agent_id, None)
            self.reminders.pop(agent_id, None)

    # queued

    @rule(agent_id=AGENTS, message_id=MESSAGES)
    def enqueue(self, agent_id: str, message_id: str) -> None:
        queue = self.queued.setdefault(agent_id, [])
        if message_id not in queue and len(queue) == MOST:
            with pytest.raises(OverloadedError):
                self.write(queued.enqueue, agent_id, message(message_id), max_count=MOST, max_bytes=10_000)
            return
        self.write(queued.enqueue, agent_id, message(message_id), max_count=MOST, max_bytes=10_000)
        if message_id not in queue:
            queue.append(message_id)

    @rule(agent_id=AGENTS, message_id=MESSAGES)
    def dequeue(self, agent_id: str, message_id: str) -> None:
        queue = self.queued.get(agent_id, [])
        assert self.write(queued.dequeue, agent_id, message_id) == (message_id in queue)
        if message_id in queue:
            queue.remove(message_id)

    @rule(agent_id=AGENTS, message_ids=st.sets(MESSAGES))
    def dequeue_many(self, agent_id: str, message_ids: set[str]) -> None:
        self.write(queued.dequeue_many, agent_id, message_ids)
        self.queued[agent_id] = [one for one in self.queued.get(agent_id, []) if one not in message_ids]

    @rule(agent_id=AGENTS)
    def clear(self, agent_id: str) -> None:
        cleared = [item.message.message_id for item in self.write(queued.clear, agent_id)]
        assert cleared == self.queued.pop(agent_id, [])

    # handled

    @rule(agent_id=AGENTS, message_id=MESSAGES, reply=st.none() | BLOBS)
    def remember(self, agent_id: str, message_id: str, reply: bytes | None) -> None:
        item = handled_message(message_id, reply)
        self.write(handled.remember, agent_id, item, keep=WINDOW)
        self.handled[agent_id] = [*self.handled.get(agent_id, []), item][-WINDOW:]

    @rule(agent_id=AGENTS, message_ids=st.lists(MESSAGES, max_size=WINDOW))
    def replace_window(self, agent_id: str, message_ids: list[str]) -> None:
        items = [handled_message(message_id) for message_id in message_ids]
        self.write(handled.replace, agent_id, items)
        self.handled[agent_id] = items

    # reminders

    @rule(agent_id=AGENTS, name=MESSAGES, due_at=st.integers(0, 5))
    def remind(self, agent_id: str, name: str, due_at: int) -> None:
        row = reminder(name, agent_id, float(due_at))
        self.write(reminders.put, row)
        self.reminders.setdefault(agent_id, {})[name] = row

    @rule(agent_id=AGENTS, name=MESSAGES, due_at=st.integers(0, 5), count=st.integers(0, 3))
    def move_on(self, agent_id: str, name: str, due_at: int, count: int) -> None:
        mine = self.reminders.get(agent_id, {})
        assert self.write(reminders.move_on, agent_id, name, float(due_at), count) == (name in mine)
        if name in mine:
            mine[name] = replace(mine[name], due_at=float(due_at), count=count)

    @rule(agent_id=AGENTS, name=MESSAGES)
    def forget(self, agent_id: str, name: str) -> None:
        mine = self.reminders.get(agent_id, {})
        assert self.write(reminders.forget, agent_id, name) == (mine.pop(name, None) is not None)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "journal"):
            return
        summaries = self.journal.read(paglets.summaries)
        known = sorted((row.deactivated_at, agent_id) for agent_id, (row, _) in self.paglets.items())
        assert [(row.deactivated_at, row.agent_id) for row in summaries] == known
        assert [row.queued_message_count for row in summaries] == [len(self.queued.get(a, [])) for _, a in known]
        assert self.journal.read(queued.receivers) == sorted(a for a, queue in self.queued.items() if queue)
        for agent_id in "abc":
            stored = self.paglets.get(agent_id)
            expected = None if stored is None else (stored[0], inline(stored[1]))
            assert self.journal.read(lambda c, a=agent_id: paglets.get(c, a)) == expected
            waiting = self.journal.read(lambda c, a=agent_id: queued.waiting(c, a))
            assert [item.message.message_id for _, item in waiting] == self.queued.get(agent_id, [])
            assert self.journal.read(lambda c, a=agent_id: handled.window(c, a)) == self.handled.get(agent_id, [])
            mine = self.reminders.get(agent_id, {})
            assert self.journal.read(lambda c, a=agent_id: reminders.of(c, a)) == [mine[name] for name in sorted(mine)]
        due = [(row.due_at, row.agent_id, row.name) for mine in self.reminders.values() for row in mine.values()]
        assert self.journal.read(reminders.all_due) == [(agent_id, name, at) for at, agent_id, name in sorted(due)]

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
        shutil.rmtree(self.directory)


TablesMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
test_tables_machine = TablesMachine.TestCase
