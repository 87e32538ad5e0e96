"""Hosts whose disk is full: what fails, and that nothing that was acknowledged or begun suffers from it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from paglets.core.errors import InsufficientStorageError, InvalidAgentError, PagletError
from paglets.core.messages import Message
from paglets.persistence.states import INLINE_BYTES
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.hardy import Careful, Hardy, HardyState, Lively, LivelyCareful, do
from tests.runtime.full_disk import full_disk
from tests.support import Gate, HostFactory, await_event, events_of, eventually, leftovers, processes_of

NEVER = 1e6
LARGE = 2 * INLINE_BYTES


def state_of(host: Host, proxy: PagletProxy) -> HardyState:
    return host.get_state(proxy.agent_id, HardyState)


def answers(host: Host, proxy: PagletProxy) -> int:
    """Wait until a paglet that is started again answers; return its count."""

    def ask() -> list[int]:
        try:
            return [proxy.send(do("note asked"))]
        except PagletError:
            return []

    (count,) = eventually(ask, "the paglet to answer")
    return count


def rows(host: Host, table: str) -> int:
    with closing(sqlite3.connect(f"file:{host.persistence_dir / 'journal.db'}?mode=ro", uri=True)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def files(host: Host) -> list[str]:
    return [str(path) for path in host.persistence_dir.rglob("*.state")]


@pytest.mark.parametrize("nbytes", [0, LARGE])
def test_what_cannot_be_created_leaves_nothing(hosts: HostFactory, nbytes: int) -> None:
    host = hosts()
    state = HardyState(blob=b"b" * nbytes, plan={"creation": ["remind ring 100", "save x"]})
    with full_disk(host):
        for _ in range(3):
            with pytest.raises(InsufficientStorageError):
                host.create(Lively, state, agent_id="wanted")
        eventually(lambda: not processes_of("alpha"), "the processes to end")
        assert host.list_agents(inactive=True) == []
    assert (rows(host, "paglets"), rows(host, "reminders"), files(host)) == (0, 0, [])
    assert leftovers(host) == []
    proxy = host.create(Lively, state, agent_id="wanted")
    assert proxy.send(Message("add")) == 1


@pytest.mark.parametrize("nbytes", [0, LARGE])
@pytest.mark.parametrize("cls", [Careful, LivelyCareful])
def test_a_message_that_cannot_be_recorded_did_not_happen(hosts: HostFactory, cls: type[Hardy], nbytes: int) -> None:
    host = hosts(checkpoint_interval=NEVER)
    proxy, bystander = host.create(cls, HardyState(blob=b"b" * nbytes)), host.create(cls)
    assert proxy.send(Message("add")) == 1
    lost = do("count 10", message_id="lost")
    with full_disk(host):
        with pytest.raises(InsufficientStorageError):
            proxy.send(lost)
        with pytest.raises(InsufficientStorageError):
            proxy.send_oneway(do("count 100"))
        eventually(lambda: not proxy.info()["crashed"] and proxy.is_active(), "the paglet to be back")
        assert state_of(host, proxy).count == 1
        assert host.health()["active_count"] == 2
    # It was not handled, so it is when it comes again.
    assert proxy.send(lost) == 11
    assert proxy.send(lost) == 11
    assert proxy.send(Message("add")) == 12
    assert bystander.send(Message("add")) == 1
    assert len(files(host)) == (1 if nbytes else 0)
    # What the activation hook noted when it could not be written is kept with what came next.
    host.shutdown()
    host = hosts()
    assert state_of(host, proxy).count == 12
    assert state_of(host, proxy).notes.count("recovery") == (1 if cls is LivelyCareful else 0)


def test_messages_behind_one_that_cannot_be_recorded_are_not_made_up(hosts: HostFactory, gate: Gate) -> None:
    """They wait, run on top of what is on disk, and are answered once."""
    host = hosts(checkpoint_interval=NEVER)
    proxy = host.create(Careful)
    first = proxy.send_future(do("count 1", f"gate {gate}"))
    gate.await_entered()
    others = [proxy.send_future(do("count 1")) for _ in range(20)]
    eventually(lambda: host.mailbox_status(proxy.agent_id)["queued_count"] == 20, "the messages to wait")
    with full_disk(host):
        gate.open()
        with pytest.raises(InsufficientStorageError):
            first.get_reply(10)
        eventually(lambda: events_of(host, "paglet-crashed"), "the process to be ended")
    outcomes: list[Any] = []
    for other in others:
        try:
            outcomes.append(other.get_reply(10))
        except InsufficientStorageError:
            continue
    assert sorted(outcomes) == list(range(1, len(outcomes) + 1))
    assert answers(host, proxy) == len(outcomes)


def test_what_was_accepted_before_is_handled_afterwards(hosts: HostFactory, gate: Gate) -> None:
    host = hosts(checkpoint_interval=NEVER)
    proxy = host.create(Careful)
    proxy.send_oneway(do(f"gate {gate}"))
    gate.await_entered()
    for number in range(10):
        proxy.send_oneway(do("count 1", f"note {number}"))
    with full_disk(host):
        gate.open()
        eventually(lambda: events_of(host, "paglet-crashed"), "a message that could not be recorded")
        gate.await_entered()  # it is the first again
    gate.open()
    eventually(lambda: state_of(host, proxy).count == 10, "all that was accepted")
    assert state_of(host, proxy).notes == [str(number) for number in range(10)]


def test_a_checkpoint_that_cannot_be_written_is_said_and_made_up_for(hosts: HostFactory) -> None:
    host = hosts(checkpoint_interval=0.02)
    asked, unasked = host.create(Hardy), host.create(Hardy)
    vault = host._node.kernel.vault
    before = vault.awaken(unasked.agent_id)
    with full_disk(host):
        with pytest.raises(InsufficientStorageError):
            asked.send(do("count 2", "checkpoint"))
        assert unasked.send(Message("add")) == 1
        await_event(host, "checkpoint-failed", agent_id=unasked.agent_id)
        assert asked.send(Message("add")) == 3
    assert before is not None

    def caught_up() -> bool:
        found = vault.awaken(unasked.agent_id)
        return found is not None and found.state.bytes() != before.state.bytes()

    eventually(caught_up, "the next checkpoint")
    asked.send(do("checkpoint"))
    host.shutdown()
    host = hosts()
    assert (state_of(host, asked).count, state_of(host, unasked).count) == (3, 1)


@pytest.mark.parametrize("nbytes", [0, LARGE])
@pytest.mark.parametrize("cls", [Hardy, Careful])
def test_a_paglet_that_cannot_be_put_to_sleep_goes_on(hosts: HostFactory, cls: type[Hardy], nbytes: int) -> None:
    host = hosts(checkpoint_interval=NEVER)
    proxy = host.create(cls, HardyState(blob=b"b" * nbytes))
    with full_disk(host):
        with pytest.raises(InsufficientStorageError):
            proxy.deactivate()
        assert proxy.is_active()
        with pytest.raises(InsufficientStorageError):
            proxy.dispose()
        assert proxy.is_active()
    assert proxy.send(Message("add")) == 1
    proxy.deactivate()
    with full_disk(host):
        with pytest.raises(InsufficientStorageError):
            proxy.send(Message("add"))
        assert not proxy.is_active()
    assert proxy.send(Message("add")) == 2
    proxy.dispose()
    with pytest.raises(InvalidAgentError):
        proxy.send(Message("add"))
    eventually(lambda: not files(host), "the file of its state to go")


def test_a_timer_that_cannot_be_written_rings_when_it_can(hosts: HostFactory) -> None:
    host = hosts()
    awake, asleep = host.create(Careful), host.create(Careful)
    with full_disk(host), pytest.raises(PagletError):
        host.remind(awake.agent_id, "ring", after=0.0)
    for proxy in (awake, asleep):
        host.remind(proxy.agent_id, "ring", after=0.3)
    asleep.deactivate()
    with full_disk(host):
        for proxy in (awake, asleep):
            await_event(host, "reminder-failed", agent_id=proxy.agent_id)
        assert state_of(host, awake).rings == []
    await_event(host, "activate", agent_id=asleep.agent_id)
    for proxy in (awake, asleep):
        eventually(lambda proxy=proxy: state_of(host, proxy).rings, "the ring")
        assert len(state_of(host, proxy).rings) == 1
