"""Kill hosts at random while everything goes on: ledgers that are talked to, pass on, move and sleep.

What happens is drawn from a seed. Threads and processes take turns as they like, so a run cannot be repeated exactly;
but the same seed makes the same plan, and a failure tends to come back within a few runs of it.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from tests.faults.cluster import Cluster, HostProcess
from tests.faults.judge import Verdict, judge, quiet
from tests.faults.proxy import Weather
from tests.faults.workload import Load, Notes, load, mixed_calls
from tests.support import eventually

#: Acknowledged messages between two blows.
MOST_PROGRESS = 25
#: Longest time in seconds that a host is left dead or paused.
LONGEST_ABSENCE = 0.3
STALLED_SECONDS = 60.0
#: What the network does all the while, where the cluster has one.
WEATHER = Weather(delay=0.002, drop=0.02, cut=0.2, cut_after=20_000)


@dataclass
class Report:
    """What a run did and saw."""

    seed: int
    blows: Counter[str] = field(default_factory=Counter)
    """How often hosts were killed, killed together, paused."""
    told: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """Acknowledged messages by kind."""
    errors: Counter[str] = field(default_factory=Counter)
    moves: int = 0
    recoveries: int = 0
    seconds: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def kills(self) -> int:
        """How many processes of hosts were killed."""
        return self.blows["kill"] + 2 * self.blows["kill both"]

    def add(self, other: Report) -> None:
        """Count another run in."""
        self.blows += other.blows
        self.kinds += other.kinds
        self.errors += other.errors
        self.told += other.told
        self.moves += other.moves
        self.recoveries += other.recoveries
        self.seconds += other.seconds
        self.verdict.problems += other.verdict.problems

    def rows(self) -> list[tuple[str, str]]:
        """Return the report as a table."""
        return [
            ("seed", str(self.seed)),
            ("hosts killed", f"{self.kills} ({_counted(self.blows)})"),
            ("messages acknowledged", f"{self.told} ({_counted(self.kinds)})"),
            ("arrivals", str(self.moves)),
            ("recoveries of paglets", str(self.recoveries)),
            ("errors answered by a repetition", _counted(self.errors) or "none"),
            ("seconds", f"{self.seconds:.1f}"),
            ("problems", str(len(self.verdict.problems))),
        ]


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


def run_round(
    cluster: Cluster,
    seed: int,
    kills: int,
    *,
    ledgers: int = 1,
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Kill hosts of a running cluster until so many have died, let everything come to rest, and judge it.

    The verdict is in the report; the caller fails. Ledgers of its own make each round independent of those before.

    :param ledgers: how many each host has at the start, each with somebody who talks to it.
    """
    report = Report(seed)
    chance = random.Random(seed)
    hosts = list(cluster.hosts.values())
    homes = [(cluster.create(host), host) for host in hosts for _ in range(ledgers)]
    places = [(agent_id, host.url) for agent_id, host in homes]
    started = time.perf_counter()
    with load() as talk:
        for number, (agent_id, host) in enumerate(homes):
            others = [place for place in places if place[0] != agent_id]
            calls = mixed_calls(f"{seed}:{number}", urls=[host.url for host in hosts], others=others)
            talk.talk(f"voice{number}", cluster.proxy(host, agent_id), calls)
        while report.kills < kills:
            _await_progress(talk, chance.randint(1, MOST_PROGRESS))
            if talk.notes.given_up:
                break
            report.blows[_strike(chance, cluster, hosts)] += 1
            report.told = len(talk.notes.told)
            progress(report)
        if cluster.network is not None:
            cluster.network.heal()
        cluster.everyone_back()
        _conclude(cluster, talk.finish(), [agent_id for agent_id, _ in homes], report)
    report.seconds = time.perf_counter() - started
    return report


def _await_progress(talk: Load, count: int) -> None:
    wanted = len(talk.notes.told) + count
    eventually(
        lambda: len(talk.notes.told) >= wanted or talk.stop.is_set() or talk.notes.given_up,
        "progress although every host runs",
        STALLED_SECONDS,
    )


def _strike(chance: random.Random, cluster: Cluster, hosts: list[HostProcess]) -> str:
    """Do something to a host or two, leave it so for a while, and bring everybody back."""
    absence = chance.uniform(0, LONGEST_ABSENCE)
    dice = chance.random()
    if dice < 0.15:
        chance.choice(hosts).pause(with_paglets=chance.random() < 0.5)
        name = "pause"
    elif dice < 0.3:
        for host in chance.sample(hosts, 2):
            host.kill()
        name = "kill both"
    elif dice < 0.45:
        # The processes alone: their host must notice, and start them again from the disk.
        processes = chance.choice(hosts).paglets()
        for process in chance.sample(processes, min(2, len(processes))):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        name = "kill paglets"
    elif dice < 0.6 and cluster.network is not None:
        lonely = chance.choice(hosts)
        others = [host.name for host in hosts if host is not lonely]
        cluster.network.partition([lonely.name], others, silent=chance.random() < 0.5)
        name = "cut off"
    else:
        chance.choice(hosts).kill()
        name = "kill"
    time.sleep(absence)  # for no other reason than that others go on meanwhile
    if cluster.network is not None:
        cluster.network.heal()
        cluster.network.weather = WEATHER
    cluster.everyone_back()
    return name


def _conclude(cluster: Cluster, notes: Notes, agent_ids: list[str], report: Report) -> None:
    report.told = len(notes.told)
    report.kinds = Counter(told.kind + (" one-way" if told.oneway else "") for told in notes.told)
    report.errors = notes.errors
    found = quiet(cluster)
    report.verdict = judge(cluster, notes, agent_ids, found)
    for agent_id in agent_ids:
        for place in found.get(agent_id, []):
            report.moves += len(place.state.get("arrivals", ()))
            report.recoveries += place.state.get("awakenings", []).count("recovery")
