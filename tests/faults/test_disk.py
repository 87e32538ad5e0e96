"""Hosts whose disk is full, or takes no writes: they say so, lose nothing, and go on when there is room again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paglets.core.errors import InsufficientStorageError, PagletError, TransferError
from paglets.core.messages import Message
from paglets.remote.transfer import TransferTicket
from tests.faults.cluster import Cluster, HostProcess, HostStartError
from tests.faults.judge import assert_good, judge, quiet
from tests.faults.small_disk import CannotMountError, SmallDisk, small_disk
from tests.faults.workload import Call, load
from tests.support import eventually

DISK_BYTES = 40_000_000
#: More than fits into what a journal has in reserve when the disk is full.
LARGE = 6_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(tmp_path / "disk", DISK_BYTES) as made:
            yield made
    except CannotMountError as exc:
        pytest.skip(f"no disk of its own for this test: {exc}")


@pytest.fixture
def cramped(disk: SmallDisk, cluster: Cluster) -> Iterator[HostProcess]:
    """Give a host on a small disk, dead before that is taken away."""
    host = cluster.add("alpha", directory=disk.path / "host").start()
    yield host
    if host.alive:
        host.kill()


def too_large_for(cluster: Cluster, host: HostProcess, agent_id: str) -> dict[str, Callable[[], object]]:
    """Return pieces of durable work that need more room than a full disk has, by name."""
    proxy = cluster.proxy(host, agent_id)
    # One that writes no files of its own: what its hooks raise is its own affair.
    body = {"agent_class_name": "tests.agents.actor:Actor", "state": {"blob": b"b" * LARGE}}
    padded = Message("add", {"sender": "lost", "number": 1, "padding": "p" * LARGE})
    return {
        "create": lambda: cluster.client.post_json(f"{host.url}/agents", body),
        "handle": lambda: proxy.send(Message("load", {"nbytes": LARGE})),
        "accept": lambda: proxy.send_oneway(padded),
    }


def test_a_full_disk_is_said_and_nothing_acknowledged_is_lost(
    cluster: Cluster, disk: SmallDisk, cramped: HostProcess
) -> None:
    agent_id = cluster.create(cramped)
    with load() as talk:
        sender = talk.sender("s", cluster.proxy(cramped, agent_id))
        for number in range(10):
            sender.say(Call(oneway=bool(number % 2)))
        quiet(cluster)  # what is accepted but not recorded by now has to wait for room
        disk.fill()
        for name, work in too_large_for(cluster, cramped, agent_id).items():
            with pytest.raises(InsufficientStorageError):
                work()
            assert cluster.client.get_json(f"{cramped.url}/health")["name"] == cramped.name, name
        assert quiet(cluster)[agent_id][0].entries[:10] == [f"s:{number}" for number in range(1, 11)]
        disk.make_room()
        sender.say(Call())
        sender.say(Call(oneway=True))
        assert cluster.proxy(cramped, agent_id).send(Message("load", {"nbytes": 1_500_000})) == 1_500_000
        verdict = judge(cluster, talk.notes, [agent_id])
    assert_good(verdict)
    cramped.kill()
    cramped.start()
    verdict = judge(cluster, talk.notes, [agent_id])
    assert_good(verdict)


def test_senders_get_through_when_there_is_room_again(cluster: Cluster, disk: SmallDisk, cramped: HostProcess) -> None:
    """Whoever repeats what was refused is in the book once."""
    agent_id = cluster.create(cramped)
    kinds = itertools.cycle([False, True])
    with load() as talk:
        for voice in range(3):
            talk.talk(
                f"voice{voice}",
                cluster.proxy(cramped, agent_id),
                lambda: Call(args={"padding": "p" * 200_000}, oneway=next(kinds)),
            )
        eventually(lambda: len(talk.notes.told) > 5, "some acknowledgements")
        disk.fill()
        eventually(lambda: talk.notes.errors["InsufficientStorageError"], "the disk to be full for somebody")
        disk.make_room()
        wanted = len(talk.notes.told) + 10
        eventually(lambda: len(talk.notes.told) > wanted, "acknowledgements after that")
        notes = talk.finish()
        verdict = judge(cluster, notes, [agent_id])
    assert_good(verdict)
    assert set(notes.errors) == {"InsufficientStorageError"}


def test_a_host_that_dies_on_a_full_disk_comes_back(cluster: Cluster, disk: SmallDisk, cramped: HostProcess) -> None:
    agent_id = cluster.create(cramped)
    with load() as talk:
        sender = talk.sender("s", cluster.proxy(cramped, agent_id))
        sender.say_all([Call(), Call(oneway=True), Call()])
        disk.fill()
        cramped.kill()
        try:
            cramped.start()
        except HostStartError as exc:
            # It may need room to start; what it must not do is to start with less than it had.
            assert "disk" in str(exc) or "space" in str(exc)
            disk.make_room()
            cramped.start()
        else:
            assert quiet(cluster)[agent_id][0].entries == ["s:1", "s:2", "s:3"]
            disk.make_room()
        sender.say(Call())
        verdict = judge(cluster, talk.notes, [agent_id])
    assert_good(verdict)


def test_a_move_to_a_full_disk_fails_and_the_paglet_stays(
    cluster: Cluster, disk: SmallDisk, cramped: HostProcess
) -> None:
    (beta,) = cluster.start("beta")
    agent_id = cluster.create(beta)
    proxy = cluster.proxy(beta, agent_id)
    assert proxy.send(Message("load", {"nbytes": LARGE})) == LARGE
    with load() as talk:
        sender = talk.sender("s", proxy)
        sender.say(Call())
        disk.fill()
        with pytest.raises(TransferError):
            proxy.dispatch(cramped.url)
        assert sender.say(Call()) == 2
        disk.make_room()
        assert proxy.dispatch(cramped.url).host_url == cramped.url
        assert sender.say(Call()) == 3
        verdict = judge(cluster, talk.notes, [agent_id])
    assert_good(verdict)


def test_a_move_from_a_full_disk_leaves_one_owner(cluster: Cluster, disk: SmallDisk, cramped: HostProcess) -> None:
    """Its commit record may not fit. Then the paglet stays, or goes when there is room; it is never in two places."""
    (beta,) = cluster.start("beta")
    agent_id = cluster.create(cramped)
    proxy = cluster.proxy(cramped, agent_id)
    with load() as talk:
        sender = talk.sender("s", proxy)
        sender.say_all([Call()] * 3)
        disk.fill()
        try:
            proxy.dispatch(TransferTicket(beta.url, timeout=2.0))
        except PagletError as exc:
            assert isinstance(exc, (TransferError, InsufficientStorageError)), repr(exc)
        disk.make_room()
        assert sender.say(Call()) == 4
        verdict = judge(cluster, talk.notes, [agent_id])
    assert_good(verdict)


def test_a_directory_that_takes_no_writes_is_refused_and_left_as_it_is(
    cluster: Cluster, disk: SmallDisk, cramped: HostProcess
) -> None:
    agent_id = cluster.create(cramped)
    with load() as talk:
        sender = talk.sender("s", cluster.proxy(cramped, agent_id))
        sender.say(Call())
        cramped.kill()
        disk.read_only()
        with pytest.raises(HostStartError, match="Read-only file system"):
            cramped.start()
        disk.read_write()
        cramped.start()
        assert sender.say(Call()) == 2
        verdict = judge(cluster, talk.notes, [agent_id])
    assert_good(verdict)
