"""Connections that break at any byte, arrive late or not at all: nothing is lost, doubled or stale."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paglets.core.errors import PagletError
from paglets.remote.transfer import TransferTicket
from tests.faults.cluster import Cluster, Nursery, cluster_in
from tests.faults.judge import assert_good, judge, quiet
from tests.faults.proxy import Network, Weather
from tests.faults.workload import Call, load, mixed_calls
from tests.support import eventually


@pytest.fixture
def meshed(nursery: Nursery, network: Network, tmp_path: Path) -> Iterator[Cluster]:
    """Give a cluster whose hosts reach each other, and are reached, through the network."""
    with cluster_in(tmp_path, nursery, network=network) as made:
        yield made


def await_growth(number: Callable[[], int], by: int, what: str) -> None:
    wanted = number() + by
    eventually(lambda: number() >= wanted, f"{by} more {what}", 60.0)


@pytest.mark.parametrize("seed", [11, 12])
def test_bad_weather_loses_and_doubles_nothing(meshed: Cluster, network: Network, seed: int) -> None:
    hosts = meshed.start("alpha", "beta", "gamma")
    network.seed = seed
    homes = [(meshed.create(host), host.url) for host in hosts]
    with load() as talk:
        for number, (agent_id, _) in enumerate(homes):
            others = [home for home in homes if home[0] != agent_id]
            calls = mixed_calls(f"{seed}:{number}", urls=[host.url for host in hosts], others=others)
            talk.talk(f"voice{number}", meshed.proxy(hosts[number], agent_id), calls)
        network.weather = Weather(delay=0.005, drop=0.1, cut=0.8, cut_after=5_000)
        eventually(
            lambda: (len(talk.notes.told) >= 250 and network.statistics.cut > 10) or talk.notes.given_up,
            "250 acknowledgements in bad weather",
            90.0,
        )
        network.heal()
        notes = talk.finish()
        verdict = judge(meshed, notes, [agent_id for agent_id, _ in homes])
    assert_good(verdict, f"errors on the way: {dict(notes.errors)}")


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_a_partition_in_the_middle_of_moves(meshed: Cluster, network: Network, silent: bool) -> None:
    """A paglet whose hosts cannot agree waits on one of them, and is reached again when they can."""
    alpha, beta = meshed.start("alpha", "beta")
    agent_id = meshed.create(alpha)
    chance = random.Random(silent)
    with load() as talk:
        sender = talk.sender("s", meshed.proxy(alpha, agent_id))

        def wander() -> None:
            while not talk.stop.is_set():
                target = chance.choice([alpha, beta]).url
                try:
                    meshed.proxy(chance.choice([alpha, beta]), agent_id).dispatch(TransferTicket(target, timeout=1.0))
                except PagletError as exc:
                    talk.notes.wrong(exc)

        talk.run("wanderer", wander)
        talk.run("talker", lambda: sender.say_on(Call))
        for _ in range(3 if silent else 6):
            await_growth(lambda: len(talk.notes.told), 10, "acknowledgements")
            network.partition([alpha.name], [beta.name], silent=silent)
            await_growth(talk.notes.errors.total, 2, "errors: somebody to notice")
            network.heal()
        notes = talk.finish()
        verdict = judge(meshed, notes, [agent_id])
        assert len(quiet(meshed)[agent_id]) == 1
    assert_good(verdict, f"errors on the way: {dict(notes.errors)}")


def test_a_sender_finds_a_paglet_whose_home_is_cut_off(meshed: Cluster, network: Network) -> None:
    """It asks where the paglet was last; the home host is needed only where nobody else knows."""
    alpha, beta, gamma = meshed.start("alpha", "beta", "gamma")
    agent_id = meshed.create(alpha)
    with load() as talk:
        sender = talk.sender("s", meshed.proxy(alpha, agent_id).dispatch(beta.url))
        sender.say(Call())
        network.partition([alpha.name], [beta.name, gamma.name])
        sender.proxy.dispatch(gamma.url)
        assert sender.say(Call()) == 2
        network.heal()
        sender.proxy = meshed.proxy(alpha, agent_id)
        assert sender.say(Call()) == 3
        verdict = judge(meshed, talk.finish(), [agent_id])
    assert_good(verdict)
