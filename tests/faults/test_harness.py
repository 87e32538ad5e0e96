"""The harness itself: it must see what is wrong, or its silence proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from paglets.core.errors import PagletError, RemoteHostError, RemoteTimeoutError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.serialization.names import qualified_name
from tests.agents.ledger_agent import Ledger
from tests.faults.cluster import LEDGER, Cluster, Nursery, cluster_in, processes_of_sessions
from tests.faults.judge import Verdict, judge, judge_book, quiet
from tests.faults.proxy import Network, Weather
from tests.faults.workload import Call, Load, Notes, Told, load
from tests.support import eventually


def told(number: int, reply: object = None, *, sender: str = "s", oneway: bool = False, relayed_to: str = "") -> Told:
    return Told(sender, number, "relay" if relayed_to else "add", oneway, reply, "a", relayed_to)


@pytest.mark.parametrize(
    ("book", "notes", "dead", "problem"),
    [
        (["s:1", "s:2"], [told(1, 1), told(2, 2)], [], ""),
        (["s:1"], [told(1, 1), told(2, oneway=True)], ["s:2"], "dead: s:2"),
        (["s:1", "t:1", "s:2"], [told(1, 1), told(2, 3), told(1, 2, sender="t")], [], ""),
        (["s>:2", "s>:1"], [told(1, relayed_to="b"), told(2, relayed_to="b")], [], ""),
        (["s:1"], [told(1, 1), told(2, 2)], [], "lost: s:2"),
        (["s:1"], [told(1, 1), told(2, oneway=True)], [], "lost: s:2"),
        ([], [told(1, relayed_to="b")], [], "lost: s>:1"),
        (["s:1", "s:1"], [told(1, 1)], [], "doubled: s:1"),
        (["s:1"], [told(1, 1)], ["s:1"], "doubled: s:1"),
        (["s:2", "s:1"], [told(1, 2), told(2, 1)], [], "out of order: s:1"),
        (["t:1", "s:1"], [told(1, 1), told(1, 1, sender="t")], [], "stale: s:1"),
        (["u:1", "s:1"], [told(1, 2)], [], "made up: u:1"),
    ],
)
def test_the_judge_sees_what_is_wrong_with_a_book(
    book: list[str], notes: list[Told], dead: list[str], problem: str
) -> None:
    verdict = Verdict()
    judge_book(
        verdict, "b" if any(item.relayed_to for item in notes) else "a", book, notes, dict.fromkeys(dead, "because")
    )
    assert [text.startswith(problem) for text in verdict.problems] == ([True] if problem else [])


def test_a_quiet_cluster_is_judged_good_and_a_loss_is_seen(cluster: Cluster) -> None:
    (alpha,) = cluster.start("alpha")
    agent_id = cluster.create(cluster.hosts["alpha"])
    with load() as talk:
        sender = talk.sender("s", cluster.proxy(alpha, agent_id))
        for number in range(1, 11):
            sender.say(Call(oneway=number % 2 == 0))
    verdict = judge(cluster, talk.notes, [agent_id])
    assert verdict, str(verdict)
    talk.notes.tell(told(1, 1, sender="nobody"))
    lost = Verdict()
    judge_book(lost, "a", quiet(cluster)[agent_id][0].entries, talk.notes.told, {})
    assert any(text.startswith("lost: nobody:1") for text in lost.problems)
    assert any("is on 0 hosts" in text for text in judge(cluster, Notes(), ["0" * 32]).problems)


def test_a_paused_host_answers_when_it_goes_on(cluster: Cluster) -> None:
    (alpha,) = cluster.start("alpha")
    agent_id = cluster.create(cluster.hosts["alpha"])
    alpha.pause(with_paglets=True)
    with pytest.raises(RemoteTimeoutError):
        cluster.client.get_json(f"{alpha.url}/health", timeout=0.3)
    alpha.go_on()
    reply = cluster.proxy(alpha, agent_id).send(Message("add", {"sender": "s", "number": 1}))
    assert reply == 1


def test_a_host_stops_in_order_and_says_how_it_ended(cluster: Cluster) -> None:
    (alpha,) = cluster.start("alpha")
    assert alpha.stop() == 0
    eventually(lambda: not alpha.leftovers(), "what it started to end")


def test_hosts_die_with_whoever_started_them(tmp_path: Path) -> None:
    nursery = Nursery()
    with cluster_in(tmp_path, nursery) as cluster:
        alpha, beta = cluster.start("alpha", "beta")
        cluster.create(cluster.hosts["alpha"])
        beta.pause()
        sessions = alpha.sessions | beta.sessions
        nursery.close()
        eventually(lambda: not processes_of_sessions(sessions), "every host to be gone")
        for host in (alpha, beta):
            host._end = None


def test_a_fault_kills_a_host_where_it_is_set(cluster: Cluster) -> None:
    alpha = cluster.add("alpha").start("no.such.point")
    assert cluster.client.get_json(f"{alpha.url}/health")["name"] == alpha.name


# --- the network -----------------------------------------------------------------------------------------------------


def test_hosts_with_a_proxy_are_reached_through_it(nursery: Nursery, network: Network, tmp_path: Path) -> None:
    with cluster_in(tmp_path, nursery, network=network) as cluster:
        alpha, beta = cluster.start("alpha", "beta")
        assert alpha.url != alpha.direct_url
        agent_id = cluster.create(cluster.hosts["alpha"])
        moved = cluster.proxy(alpha, agent_id).dispatch(beta.url)
        assert moved.host_url == beta.url
        assert moved.send(Message("add", {"sender": "s", "number": 1})) == 1
        assert network.statistics.connections > 2


def test_a_partition_separates_hosts_but_not_the_test(nursery: Nursery, network: Network, tmp_path: Path) -> None:
    with cluster_in(tmp_path, nursery, network=network) as cluster:
        alpha, beta = cluster.start("alpha", "beta")
        agent_id = cluster.create(cluster.hosts["alpha"])
        network.partition([alpha.name], [beta.name])
        with pytest.raises(PagletError):
            cluster.proxy(alpha, agent_id).dispatch(beta.url)
        assert network.statistics.refused > 0
        assert cluster.client.get_json(f"{beta.url}/health")["name"] == beta.name
        assert cluster.proxy(alpha, agent_id).send(Message("add", {"sender": "s", "number": 1})) == 1
        network.heal()
        moved = cluster.proxy(alpha, agent_id).dispatch(beta.url)
        assert moved.send(Message("add", {"sender": "s", "number": 2})) == 2


def test_the_weather_drops_and_cuts_connections(nursery: Nursery, network: Network, tmp_path: Path) -> None:
    with cluster_in(tmp_path, nursery, network=network) as cluster, HostClient(timeout=5.0) as client:
        (alpha,) = cluster.start("alpha")
        network.weather = Weather(drop=1.0)
        with pytest.raises(RemoteHostError):
            client.get_json(f"{alpha.url}/health")
        assert network.statistics.dropped > 0
        network.weather = Weather(cut=1.0, cut_after=10)
        with pytest.raises(RemoteHostError):
            client.get_json(f"{alpha.url}/health")
        assert network.statistics.cut > 0
        network.heal()
        assert client.get_json(f"{alpha.url}/health")["name"] == alpha.name


def test_what_a_load_raises_fails_the_test() -> None:
    talk = Load()

    def fail() -> None:
        raise ValueError("on purpose")

    talk.run("failing", fail)
    with pytest.raises(ValueError, match="on purpose"):
        talk.finish()


def test_the_class_of_the_ledgers_is_what_the_tests_create() -> None:
    assert qualified_name(Ledger) == LEDGER
