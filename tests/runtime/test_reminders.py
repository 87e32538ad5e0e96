"""Timers of paglets on real hosts: when they ring, where, and what of them survives."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace
from typing import Any

import pytest

from paglets.core.agent import INACTIVE
from paglets.core.errors import HostError, OverloadedError, PagletCrashedError, PagletError, SerializationError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy
from paglets.persistence.rows import ReminderRow
from paglets.remote.proxy import PagletProxy
from paglets.runtime import timekeeper
from paglets.runtime.host import Host
from tests.agents.hardy import Careful, Careless, Hardy, HardyState, Lively, LivelyCareful, LivelyCareless, do
from tests.faults.cluster import Cluster
from tests.support import Gate, HostFactory, await_event, events_of, eventually

SILENT = DeactivationPolicy(activate_on_message=False, queue_messages_when_inactive=False)


class Clock:
    """The wall clock of the hosts of this process, which can jump."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time(self) -> float:
        return time.time() + self.offset

    def jump(self, seconds: float, *hosts: Host) -> None:
        """Set the clock forward or back.

        :param hosts: those that are to see it at once, and not only with their next look at the clock.
        """
        self.offset += seconds
        for host in hosts:
            host._node.kernel.loop.call_soon_threadsafe(host._node.timers._changed.set)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timekeeper, "time", SimpleNamespace(time=clock.time))
    return clock


def set_timer(proxy: PagletProxy, name: str = "ring", **times: Any) -> None:
    proxy.send(Message("set_timer", {"name": name, **times}))


def state_of(host: Host, proxy: PagletProxy) -> HardyState:
    return host.get_state(proxy.agent_id, HardyState)


def rings(host: Host, proxy: PagletProxy, count: int) -> list[dict[str, Any]]:
    """Wait for the rings of a paglet."""

    def heard() -> list[dict[str, Any]]:
        try:
            found = state_of(host, proxy).rings
        except PagletError:
            return []  # it is not awake
        return found if len(found) >= count else []

    return eventually(heard, f"{count} rings")


def timers_of(host: Host, proxy: PagletProxy) -> list[ReminderRow]:
    """Return the timers that are on disk."""
    return host._node.timers.of(proxy.agent_id)


def dead_letters(host: Host) -> list[dict[str, Any]]:
    node = host._node
    return host._wait(lambda: node.letters.listing())


# --- ringing ----------------------------------------------------------------------------------------------------------


def test_timers_ring_once_or_again_and_again(hosts: HostFactory) -> None:
    host = hosts()
    once, at, series, short = (host.create(Hardy) for _ in range(4))
    began = time.time()
    set_timer(once, after=0.2, args={"what": b"\x00"})
    set_timer(at, at=began - 60.0)
    set_timer(series, every=0.1)
    set_timer(short, "tick", every=0.1)
    (ring,) = rings(host, once, 1)
    assert began + 0.2 <= ring["due"] <= time.time()
    assert (ring["args"], ring["missed"], ring["count"]) == ({"what": b"\x00"}, 0, 0)
    (overdue,) = rings(host, at, 1)
    assert (overdue["due"], overdue["missed"], overdue["count"]) == (began - 60.0, 0, 0)
    found = rings(host, series, 3)
    assert [ring["count"] for ring in found] == list(range(len(found)))
    assert len({ring["id"] for ring in found}) == len(found)
    steps = [later["due"] - ring["due"] for ring, later in itertools.pairwise(found)]
    # More where one was still being handled when the next was due: that stood for both.
    assert all(round(step / 0.1) >= 1 + ring["missed"] for step, ring in zip(steps, found, strict=False))
    assert all(abs(step / 0.1 - round(step / 0.1)) < 0.01 for step in steps)
    eventually(lambda: state_of(host, short).count >= 2, "ticks for a handler that takes nothing")
    assert timers_of(host, once) == timers_of(host, at) == []


def test_a_timer_is_replaced_under_its_name_and_forgotten(hosts: HostFactory, clock: Clock) -> None:
    host = hosts()
    proxy = host.create(Hardy)
    set_timer(proxy, every=1000.0)
    set_timer(proxy, after=50.0, args={"second": True})
    set_timer(proxy, "tick", after=60.0)
    assert len(timers_of(host, proxy)) == 2
    assert proxy.send(Message("drop_timer", {"name": "tick"})) is True
    assert proxy.send(Message("drop_timer", {"name": "tick"})) is False
    host.remind(proxy.agent_id, "add", after=55.0, args={"by": 5})
    host.remind(proxy.agent_id, "do", after=55.0)
    assert host.forget(proxy.agent_id, "do") is True
    assert host.forget(proxy.agent_id, "unheard of") is False
    clock.jump(2000.0, host)
    (ring,) = rings(host, proxy, 1)
    assert ring["args"] == {"second": True}
    eventually(lambda: state_of(host, proxy).count == 5, "the timer that the host set")
    assert timers_of(host, proxy) == []


@pytest.mark.parametrize(
    "times",
    [{}, {"after": 1.0, "at": 2.0}, {"every": 0.01}, {"after": -1.0}, {"after": float("nan")}, {"at": 1e15}],
    ids=str,
)
def test_a_time_that_makes_no_sense_is_refused(hosts: HostFactory, times: dict[str, float]) -> None:
    host = hosts()
    proxy = host.create(Hardy)
    for name in ("ring", "", "n" * 201):
        with pytest.raises(PagletError, match=r"reminder|after|every|at"):
            set_timer(proxy, name, **(times if name == "ring" else {"after": 1.0}))
    with pytest.raises(ValueError, match=r"reminder|after|every|at"):
        host.remind(proxy.agent_id, "ring", **times)
    assert timers_of(host, proxy) == []


def test_there_is_a_most_of_timers(hosts: HostFactory) -> None:
    host = hosts()
    many = [f"remind t{number} 1000" for number in range(1000)]
    proxy = host.create(Hardy)
    proxy.send(do(*many), timeout=60)
    with pytest.raises(OverloadedError):
        proxy.send(do("remind one-more 1000"))
    proxy.send(do("remind t7 2000"))
    assert len(timers_of(host, proxy)) == 1000
    with pytest.raises(OverloadedError):
        host.create(Lively, HardyState(plan={"creation": [*many, "remind one-more 1000"]}))
    (known,) = {row[0] for row in host._node.kernel.vault.timers()}
    assert known == proxy.agent_id
    with pytest.raises(SerializationError):
        host.remind(proxy.agent_id, "t1", after=1.0, args={"what": object()})


# --- sleeping, starting -----------------------------------------------------------------------------------------------


def test_a_timer_wakes_its_paglet_whatever_its_policy_says(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(LivelyCareful)
    set_timer(proxy, every=0.1, args={"steps": ["sleep"]})
    proxy.deactivate(policy=SILENT)
    eventually(lambda: len(events_of(host, "activate", agent_id=proxy.agent_id)) >= 3, "three awakenings")
    host.forget(proxy.agent_id, "ring")


def test_a_timer_that_rings_while_its_paglet_starts_is_heard(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(Lively, HardyState(plan={"activation": [f"gate {gate}"]}))
    proxy.deactivate()
    reply = proxy.send_future(Message("add"))
    gate.await_entered()
    host.remind(proxy.agent_id, "ring", after=0.0)
    eventually(lambda: timers_of(host, proxy) == [], "the timer to ring")
    # It is there to be seen all the while.
    (summary,) = host.list_agents(inactive=True, include_state=True)
    assert (summary["active"], summary["state"]["count"]) == (False, 0)
    assert [found.agent_id for found in host.get_proxies(INACTIVE)] == [proxy.agent_id]
    gate.open()
    assert reply.get_reply(10) == 1
    rings(host, proxy, 1)


def test_a_timer_that_rings_while_its_paglet_goes_to_sleep_wakes_it(hosts: HostFactory, gate: Gate) -> None:
    """Its message is in the mailbox when the paglet is stored, and its policy does not let messages wake it."""
    host = hosts()
    for cls in (Hardy, Careful):
        proxy = host.create(cls)
        proxy.send_oneway(do(f"gate {gate}", "sleep"))
        gate.await_entered()
        host.remind(proxy.agent_id, "ring", after=0.0)
        eventually(lambda proxy=proxy: timers_of(host, proxy) == [], "the timer to ring")
        gate.open()
        await_event(host, "activate", agent_id=proxy.agent_id)
        rings(host, proxy, 1)


def test_a_timer_that_is_set_on_creation_is_kept_with_the_paglet(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    for cls in (Lively, LivelyCareful, LivelyCareless):
        proxy = host.create(cls, HardyState(plan={"creation": ["remind ring 0", "every tick 0.1"]}))
        rings(host, proxy, 1)
        eventually(lambda proxy=proxy: state_of(host, proxy).count >= 2, "ticks")
        proxy.dispose()
        assert timers_of(host, proxy) == []
    assert dead_letters(host) == []


@pytest.mark.parametrize("cls", [Lively, LivelyCareless])
@pytest.mark.parametrize("hook", ["creation", "run"])
def test_a_creation_that_fails_leaves_no_timer(hosts: HostFactory, hook: str, cls: type[Hardy]) -> None:
    host = hosts()
    with pytest.raises(HostError, match="stillborn"):
        host.create(cls, HardyState(plan={hook: ["every ring 0.1", "fail stillborn"]}))
    assert host._node.kernel.vault.timers() == []
    other = host.create(Hardy)
    set_timer(other, every=0.1)
    rings(host, other, 3)
    assert dead_letters(host) == []


def test_a_crashed_paglet_hears_its_timer_when_it_is_revived(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Hardy)
    set_timer(proxy, every=0.1)
    with pytest.raises(PagletCrashedError):
        proxy.send(do("die 4"))
    host.remind(proxy.agent_id, "tick", after=0.0)
    eventually(lambda: [row.name for row in timers_of(host, proxy)] == ["ring"], "the other timer to ring")
    proxy.activate()
    rings(host, proxy, 2)
    eventually(lambda: state_of(host, proxy).count == 1, "the tick")


def test_a_paglet_that_keeps_nothing_has_its_timers_as_long_as_it_lives(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Careless)
    set_timer(proxy, every=0.1, args={"steps": []})
    rings(host, proxy, 1)
    proxy.deactivate(policy=SILENT)
    await_event(host, "activate", agent_id=proxy.agent_id)
    heard = len(state_of(host, proxy).rings)
    rings(host, proxy, heard + 2)
    host.stop()
    stopped = time.time()
    host = hosts()
    assert host._node.kernel.vault.timers() == []
    # A ring that was waiting when the host stopped ended with its paglet; none is for one that is no more.
    assert [letter for letter in dead_letters(host) if letter["died_at"] > stopped] == []


# --- moving -----------------------------------------------------------------------------------------------------------


def test_timers_move_with_their_paglet(hosts: HostFactory, clock: Clock) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Lively, HardyState(plan={"arrival": ["remind tick 200"]}))
    set_timer(proxy, every=100.0, args={"from": "alpha"})
    moved = proxy.dispatch(beta.address)
    eventually(lambda: timers_of(alpha, proxy) == [], "the rows at the source to go")
    assert [row.name for row in timers_of(beta, moved)] == ["ring", "tick"]
    clone = moved.clone()
    clock.jump(150.0, alpha, beta)
    ids = set()
    for here in (moved, clone):
        (ring,) = rings(beta, here, 1)
        assert ring["args"] == {"from": "alpha"}
        ids.add(ring["id"])
    assert len(ids) == 2
    clock.jump(100.0, alpha, beta)
    eventually(lambda: state_of(beta, moved).count == 1, "the timer of the arrival")
    assert len(rings(beta, moved, 2)) == 2
    back = moved.dispatch(alpha.address)
    clock.jump(100.0, alpha, beta)
    assert [ring["count"] for ring in rings(alpha, back, 3)] == [0, 1, 2]
    eventually(lambda: timers_of(beta, moved) == [], "the rows at the source to go")


# --- clocks and slow handlers -----------------------------------------------------------------------------------------


def test_a_series_that_was_missed_rings_once_and_goes_on(hosts: HostFactory, clock: Clock) -> None:
    host = hosts()
    asleep, active = host.create(Careful), host.create(Careful)
    for proxy in (asleep, active):
        set_timer(proxy, every=100.0)
    due = timers_of(host, asleep)[0].due_at
    asleep.deactivate(policy=SILENT)
    host.shutdown()
    clock.jump(1050.0)
    host = hosts()
    for proxy in (asleep, active):
        (ring,) = rings(host, proxy, 1)
        assert (ring["missed"], ring["count"]) == (9, 0)
        (row,) = timers_of(host, proxy)
        assert row.count == 1
        assert round((row.due_at - due) / 100.0, 3) == pytest.approx(10.0, abs=0.01)


def test_a_clock_that_jumps_neither_loses_nor_doubles_a_ring(hosts: HostFactory, clock: Clock) -> None:
    host = hosts()
    proxy = host.create(Careful)
    set_timer(proxy, every=100.0)
    clock.jump(100.0)  # to be noticed without being told of
    assert [ring["missed"] for ring in rings(host, proxy, 1)] == [0]
    clock.jump(-100.0)
    host.remind(proxy.agent_id, "tick", after=50.0)
    clock.jump(60.0, host)
    eventually(lambda: state_of(host, proxy).count == 1, "another timer")
    assert len(state_of(host, proxy).rings) == 1, "the first slot rings once"
    clock.jump(1040.0, host)
    first, second = rings(host, proxy, 2)
    assert second["due"] - first["due"] == pytest.approx(100.0)
    assert (second["count"], second["missed"]) == (1, 9)


def test_rings_do_not_pile_up_behind_a_slow_handler(hosts: HostFactory, gate: Gate, clock: Clock) -> None:
    host = hosts()
    for cls in (Hardy, Careful):
        proxy = host.create(cls)
        set_timer(proxy, every=10.0, args={"steps": [f"gate {gate}"]})
        due = timers_of(host, proxy)[0].due_at
        clock.jump(11.0, host)
        gate.await_entered()
        for number in range(2, 5):
            clock.jump(10.0, host)
            passed = due + 10.0 * number - 1.0
            eventually(lambda proxy=proxy, passed=passed: timers_of(host, proxy)[0].due_at > passed, "the slot to pass")
        assert host.mailbox_status(proxy.agent_id)["queued_count"] == 0
        assert host.forget(proxy.agent_id, "ring")
        gate.open()
        assert proxy.send(Message("add")) == 1
        assert len(state_of(host, proxy).rings) == 1


# --- the host dies ----------------------------------------------------------------------------------------------------


def test_a_sleeper_hears_a_timer_that_rang_when_its_host_died(cluster: Cluster) -> None:
    """The message was on disk and the timer gone, when nobody had been woken for it yet."""
    host = cluster.add("alpha").start("reminder.queued")
    proxy = cluster.proxy(host, cluster.create(host, "tests.agents.hardy:Careful"))
    proxy.send(Message("set_timer", {"name": "ring", "after": 0.3}))
    proxy.deactivate(policy=SILENT)
    assert host.await_end() == -9
    host.start()
    path = f"{host.url}/agents/{proxy.agent_id}"
    eventually(lambda: cluster.client.get_json(f"{path}/state")["state"]["rings"], "the ring")
    (ring,) = cluster.client.get_json(f"{path}/state")["state"]["rings"]
    assert (ring["count"], ring["missed"]) == (0, 0)


def test_timers_of_what_kept_nothing_end_with_the_host(cluster: Cluster) -> None:
    (host,) = cluster.start("alpha")
    lost, kept = (
        cluster.proxy(host, cluster.create(host, f"tests.agents.hardy:{name}")) for name in ("Careless", "Careful")
    )
    for proxy in (lost, kept):
        proxy.send(Message("set_timer", {"name": "ring", "every": 0.1}))
    host.kill()
    host.start()
    assert not lost.is_valid()
    path = f"{host.url}/agents/{kept.agent_id}/state"
    eventually(lambda: len(cluster.client.get_json(path)["state"]["rings"]) >= 3, "rings of the other")
    assert cluster.client.get_json(f"{host.url}/dead-letters")["dead_letters"] == []
