"""A host dies at every step of everything that it does, comes back, and nothing is lost, doubled or stale."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable

import pytest

from paglets.core.errors import ConflictError, PagletError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy
from paglets.remote.transfer import TransferTicket
from tests.faults import points
from tests.faults.cluster import Cluster, HostProcess
from tests.faults.judge import assert_good, judge, quiet, stored_state
from tests.faults.points import MESSAGE_POINTS, SOURCE, SOURCE_POINTS, TARGET, TARGET_POINTS, Point
from tests.faults.workload import Call, Load, load
from tests.support import eventually

#: Larger than what is stored in a row of the journal.
LARGE = 1_500_000


def test_every_point_of_the_sources_is_killed_at_and_none_is_missing() -> None:
    assert points.points_in_sources() == points.ALL_POINTS


def alternating() -> Callable[[], Call]:
    """Return a source of calls whose reply is waited for and of one-way calls, in turn."""
    kinds = itertools.cycle([False, True])
    return lambda: Call(oneway=next(kinds))


def more(cluster: Cluster, talk: Load, count: int = 5) -> None:
    """Wait until those who talk were told some more; hosts that die meanwhile come back."""
    wanted = len(talk.notes.told) + count
    cluster.until(
        lambda: len(talk.notes.told) >= wanted or talk.notes.given_up, f"{count} more acknowledgements", timeout=60.0
    )


def await_death(cluster: Cluster, *names: str) -> None:
    """Wait until an armed host has died of SIGKILL, and start it again."""
    hosts = [cluster.hosts[name] for name in names]
    eventually(lambda: any(host.deaths for host in hosts), f"the armed points to kill one of {names}", timeout=30.0)
    assert all(host.deaths in ([], [-9]) for host in hosts), [(host.deaths, host.last_words()) for host in hosts]
    cluster.everyone_back()


def settle(cluster: Cluster, talk: Load, *agent_ids: str) -> list[str]:
    """Let everything come to rest, judge it, and return on which host each paglet is, by its name in the cluster."""
    talk.stop.set()
    cluster.until(lambda: talk.ended, "those who talk to end", timeout=90.0)
    notes = talk.finish()
    found = quiet(cluster)
    verdict = judge(cluster, notes, agent_ids, found)
    assert_good(verdict, f"errors on the way: {dict(notes.errors)}\nfound: {found}")
    names = {host.name: name for name, host in cluster.hosts.items()}
    return [names[found[agent_id][0].host] for agent_id in agent_ids]


def attempt(work: Callable[[], object]) -> Callable[[], None]:
    """Return work whose failure is part of the test: whoever asked cannot know what became of it."""

    def tried() -> None:
        try:
            work()
        except PagletError:
            return

    return tried


# --- moves -----------------------------------------------------------------------------------------------------------


def move_and_die(cluster: Cluster, faults: dict[str, str], *, nbytes: int = 0, by_itself: bool = False) -> str:
    """Move a ledger to which somebody talks all the while, have hosts die on the way, and return where it is then.

    :param faults: by host, the point at which it dies.
    :param by_itself: a handler of the paglet moves it, rather than somebody outside.
    """
    alpha, beta = cluster.start_all([cluster.add(SOURCE), cluster.add(TARGET)], faults)
    agent_id = cluster.create(alpha)
    proxy = cluster.proxy(alpha, agent_id)
    if nbytes:
        assert proxy.send(Message("load", {"nbytes": nbytes})) == nbytes
    with load() as talk:
        talk.talk("steady", proxy, alternating())
        more(cluster, talk)
        if by_itself:
            traveller = talk.sender("traveller", proxy)
            mover = threading.Thread(target=traveller.say, args=[Call("hop", {"to": beta.url})])
        else:
            # One attempt, so that where the paglet is afterwards depends on the point alone.
            ticket = TransferTicket(beta.url, retries=0)
            mover = threading.Thread(target=attempt(lambda: proxy.dispatch(ticket)))
        mover.start()
        await_death(cluster, *faults)
        cluster.until(lambda: not mover.is_alive(), "the one who moves it to be told", timeout=60.0)
        more(cluster, talk)
        (place,) = settle(cluster, talk, agent_id)
    assert cluster.proxy(cluster.hosts[place], agent_id).send(Message("receipt")) == agent_id
    return place


@pytest.mark.parametrize("point", SOURCE_POINTS, ids=lambda point: point.name)
def test_the_source_of_a_move_dies(cluster: Cluster, point: Point) -> None:
    assert move_and_die(cluster, {SOURCE: point.name}) in point.owners


@pytest.mark.parametrize("point", TARGET_POINTS, ids=lambda point: point.name)
def test_the_target_of_a_move_dies(cluster: Cluster, point: Point) -> None:
    assert move_and_die(cluster, {TARGET: point.name}) in point.owners


@pytest.mark.parametrize(
    ("at_source", "at_target"),
    [
        ("source.prepare-sent", "target.received"),
        ("source.voted", "target.prepared"),
        ("source.committing", "target.prepared"),
        ("source.committed", "target.activating"),
        ("source.commit-sent", "target.activated"),
        ("source.acknowledged", "target.acknowledged"),
    ],
)
def test_both_hosts_of_a_move_die(cluster: Cluster, at_source: str, at_target: str) -> None:
    """With a state that lies beside the journal. A host whose point is not met the first time dies in the recovery."""
    move_and_die(cluster, {SOURCE: at_source, TARGET: at_target}, nbytes=LARGE)


@pytest.mark.parametrize("name", ["source.voted", "source.committed", "source.acknowledged"])
def test_the_source_dies_when_a_handler_moves_its_paglet(cluster: Cluster, name: str) -> None:
    """The message is repeated by its sender until it was answered, so the paglet has moved in the end, once."""
    assert move_and_die(cluster, {SOURCE: name}, by_itself=True) == TARGET


# --- everything on one host ------------------------------------------------------------------------------------------


def lonely(cluster: Cluster, fault: str) -> tuple[HostProcess, str]:
    """Return an armed host and the id of a ledger on it."""
    host = cluster.add(SOURCE).start(fault)
    return host, cluster.create(host)


def test_a_host_dies_when_a_paglet_has_gone_to_sleep(cluster: Cluster) -> None:
    host, agent_id = lonely(cluster, "sleep.stored")
    proxy = cluster.proxy(host, agent_id)
    with load() as talk:
        sender = talk.sender("s", proxy)
        for _ in range(3):
            sender.say(Call())
        talk.run("deactivation", attempt(proxy.deactivate))
        await_death(cluster, SOURCE)
        assert not proxy.is_active()
        assert proxy.is_valid()
        assert sender.say(Call()) == 4
        settle(cluster, talk, agent_id)


@pytest.mark.parametrize("oneway", [False, True])
@pytest.mark.parametrize("name", ["wake.started", "wake.activated"])
def test_a_host_dies_when_a_message_wakes_a_paglet(cluster: Cluster, name: str, oneway: bool) -> None:
    host, agent_id = lonely(cluster, name)
    proxy = cluster.proxy(host, agent_id)
    with load() as talk:
        sender = talk.sender("s", proxy)
        sender.say(Call())
        proxy.deactivate()
        talk.run("waker", lambda: sender.say_all([Call(oneway=oneway), Call()]))
        await_death(cluster, SOURCE)
        settle(cluster, talk, agent_id)
    assert sender.count == 3


def test_a_host_dies_when_queued_messages_are_worked_off(cluster: Cluster) -> None:
    """What waited for a sleeper is handled once, although the host died in the middle of it."""
    host, agent_id = lonely(cluster, "message.recorded:4")
    proxy = cluster.proxy(host, agent_id)
    with load() as talk:
        sender = talk.sender("s", proxy)
        sender.say(Call())
        proxy.deactivate(policy=DeactivationPolicy(activate_on_message=False))
        sender.say_all([Call(oneway=True) for _ in range(10)])
        talk.run("activation", attempt(proxy.activate))
        await_death(cluster, SOURCE)
        attempt(proxy.activate)()
        settle(cluster, talk, agent_id)


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("name", [name for name in MESSAGE_POINTS if name != "outbox.sent"])
def test_a_host_dies_when_it_handles_messages(cluster: Cluster, name: str, count: int) -> None:
    """Several talk at the same time, so that records of several messages are under way when it happens."""
    host, agent_id = lonely(cluster, f"{name}:{count}")
    with load() as talk:
        for voice in range(3):
            talk.talk(f"voice{voice}", cluster.proxy(host, agent_id), alternating())
        await_death(cluster, SOURCE)
        more(cluster, talk, 20)
        settle(cluster, talk, agent_id)


@pytest.mark.parametrize("name", ["outbox.sent", "message.handled", "message.recorded"])
def test_a_host_dies_when_a_handler_has_sent_messages(cluster: Cluster, name: str) -> None:
    """What a handler passed on arrives once, however often the handler ran."""
    alpha, beta = cluster.start_all([cluster.add(SOURCE), cluster.add(TARGET)], {SOURCE: f"{name}:3"})
    first, second = cluster.create(alpha), cluster.create(beta)
    with load() as talk:
        sender = talk.sender("s", cluster.proxy(alpha, first))
        call = Call("relay", {"to": second, "at": beta.url})
        talk.run("relay", lambda: sender.say_all([call] * 8))
        await_death(cluster, SOURCE)
        settle(cluster, talk, first, second)


def test_the_receiver_of_passed_on_messages_dies(cluster: Cluster) -> None:
    alpha, beta = cluster.start_all([cluster.add(SOURCE), cluster.add(TARGET)], {TARGET: "message.accepted:3"})
    first, second = cluster.create(alpha), cluster.create(beta)
    with load() as talk:
        sender = talk.sender("s", cluster.proxy(alpha, first))
        call = Call("relay", {"to": second, "at": beta.url})
        talk.run("relay", lambda: sender.say_all([call] * 8))
        await_death(cluster, TARGET)
        settle(cluster, talk, first, second)


@pytest.mark.parametrize("name", points.CREATION_POINTS)
def test_a_host_dies_when_it_creates_a_paglet(cluster: Cluster, name: str) -> None:
    """Whoever repeats the request under the same id has one paglet in the end."""
    host = cluster.add(SOURCE).start(name)
    agent_id = uuid.uuid4().hex
    creator = threading.Thread(target=attempt(lambda: cluster.create(host, agent_id=agent_id)))
    creator.start()
    await_death(cluster, SOURCE)
    creator.join()
    exists = cluster.proxy(host, agent_id).is_valid()
    if name == "create.stored":
        assert exists, "what is on disk must come back"
    if exists:
        with pytest.raises(ConflictError):
            cluster.create(host, agent_id=agent_id)
    else:
        cluster.create(host, agent_id=agent_id)
    with load() as talk:
        assert talk.sender("s", cluster.proxy(host, agent_id)).say(Call()) == 1
        settle(cluster, talk, agent_id)
    assert cluster.proxy(host, agent_id).send(Message("receipt")) == agent_id


def await_alarm(cluster: Cluster, agent_id: str) -> None:
    cluster.until(lambda: "s!:1" in quiet(cluster)[agent_id][0].entries, "the alarm to ring")


@pytest.mark.parametrize("name", points.REMINDER_POINTS)
def test_a_host_dies_when_a_timer_is_due(cluster: Cluster, name: str) -> None:
    host, agent_id = lonely(cluster, name)
    with load() as talk:
        talk.sender("s", cluster.proxy(host, agent_id)).say(Call("alarm", {"after": 0.2}))
        await_death(cluster, SOURCE)
        await_alarm(cluster, agent_id)
        settle(cluster, talk, agent_id)


def test_a_timer_rings_although_its_host_was_down_when_it_was_due(cluster: Cluster) -> None:
    """Once for a series that was missed."""
    host, agent_id = lonely(cluster, "")
    proxy = cluster.proxy(host, agent_id)
    with load() as talk:
        talk.sender("s", proxy).say(Call("alarm", {"after": 0.5}))
        proxy.send(Message("clock", {"every": 0.1}))
        proxy.deactivate()
        host.kill()
        await_alarm(cluster, agent_id)
        proxy.send(Message("clock", {"every": 1e6}))
        settle(cluster, talk, agent_id)
        ticks = quiet(cluster)[agent_id][0].state["ticks"]
    assert len(set(ticks)) == len(ticks) > 0


# --- the weaker promises ---------------------------------------------------------------------------------------------


def test_a_checkpoint_is_what_comes_back(cluster: Cluster) -> None:
    host = cluster.add(SOURCE).start()
    agent_id = cluster.create(host, "tests.agents.ledger_agent:CheckpointLedger")
    proxy = cluster.proxy(host, agent_id)
    for number in range(1, 6):
        proxy.send(Message("add", {"sender": "s", "number": number}))
    assert proxy.send(Message("keep")) == 5
    proxy.send(Message("add", {"sender": "s", "number": 6}))
    host.kill()
    host.start()
    entries = quiet(cluster)[agent_id][0].entries
    assert entries in ([f"s:{number}" for number in range(1, 6)], [f"s:{number}" for number in range(1, 7)])
    assert quiet(cluster)[agent_id][0].state["awakenings"] == ["recovery"]


def test_changes_are_on_disk_soon_after_a_handler(cluster: Cluster) -> None:
    """Without being asked for; the interval begins with the end of the handler."""
    host = cluster.add(SOURCE).start()
    agent_id = cluster.create(host, "tests.agents.ledger_agent:CheckpointLedger")
    cluster.proxy(host, agent_id).send(Message("add", {"sender": "changed", "number": 1}))
    eventually(lambda: b"changed:1" in stored_state(host.directory, agent_id), "the change to be on disk")
    host.kill()
    host.start()
    assert quiet(cluster)[agent_id][0].entries == ["changed:1"]


def test_what_keeps_nothing_ends_with_its_host(cluster: Cluster) -> None:
    host = cluster.add(SOURCE).start()
    fleeting = cluster.create(host, "tests.agents.ledger_agent:FleetingLedger")
    lasting = cluster.create(host)
    asleep = cluster.create(host, "tests.agents.ledger_agent:FleetingLedger")
    cluster.proxy(host, asleep).deactivate()
    host.kill()
    host.start()
    assert not cluster.proxy(host, fleeting).is_valid()
    assert cluster.proxy(host, lasting).is_active()
    assert cluster.proxy(host, asleep).send(Message("add", {"sender": "s", "number": 1})) == 1
