"""Hosts that are killed while a file is carried: afterwards it is whole at the source or at the destination.

The hosts are processes of their own, killed with SIGKILL and started again where they were.
"""

from __future__ import annotations

import random
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from paglets.core.errors import PagletError
from paglets.patterns.file_mobility import FileTransferMode, FileTransferRequest, FileTransferResult
from paglets.patterns.tasks import TaskClient, TaskSnapshot, TaskStatus
from paglets.serialization.codec import dataclass_to_wire
from tests.agents.carriers import Carrier, CarrierState
from tests.faults.cluster import Cluster, HostProcess
from tests.faults.points import SOURCE, TARGET
from tests.support import Gate, eventually

COPY, MOVE = FileTransferMode.COPY, FileTransferMode.MOVE
DATA = bytes(range(256)) * 4000
CARRIER = "tests.agents.carriers:Carrier"
PRELOAD = ("tests.agents.carriers",)

Snapshot = TaskSnapshot[FileTransferResult]


@dataclass
class Crossing:
    """A file, two hosts that may die, and the paglet that carries it."""

    cluster: Cluster
    source: Path
    target: Path
    agent_id: str = ""
    started: Future[Snapshot] | None = None

    @property
    def alpha(self) -> HostProcess:
        return self.cluster.hosts[SOURCE]

    @property
    def beta(self) -> HostProcess:
        return self.cluster.hosts[TARGET]

    def begin(self, *, faults: dict[str, str] | None = None, **gates: Gate) -> None:
        """Start the hosts and create the paglet."""
        hosts = [self.cluster.add(name, preload=PRELOAD) for name in (SOURCE, TARGET)]
        self.cluster.start_all(hosts, faults)
        state = CarrierState(gates={step: str(gate) for step, gate in gates.items()})
        body = {"agent_class_name": CARRIER, "state": dataclass_to_wire(state)}
        self.agent_id = str(self.cluster.client.post_json(f"{self.alpha.url}/agents", body)["proxy"]["agent_id"])

    def client(self, host: HostProcess) -> TaskClient[FileTransferRequest, FileTransferResult]:
        return TaskClient.for_paglet(self.cluster.proxy(host, self.agent_id), Carrier)

    def start(self, pool: ThreadPoolExecutor, mode: FileTransferMode, **options: bool) -> None:
        """Have the file sent; whether anybody hears what came out depends on who dies."""
        request = FileTransferRequest(str(self.source), f"{self.target}/", self.beta.url, mode, **options)
        self.started = pool.submit(self.client(self.alpha).start, request, timeout=30.0)

    def outcome(self) -> Snapshot:
        """Wait until the transfer has ended, whatever had to be started again for that, and check what must be true."""
        snapshot = self.cluster.until(self._ended, "the end of the transfer")
        assert isinstance(snapshot, TaskSnapshot)
        self.check(snapshot)
        return snapshot

    def _ended(self) -> Snapshot | None:
        for host in (self.alpha, self.beta):
            try:
                snapshot = self.client(host).status(timeout=5.0)
            except PagletError:
                continue
            # One that does not know of its start when nobody starts it any more has never begun.
            given_up = self.started is None or self.started.done()
            if snapshot.done or (given_up and snapshot.status is TaskStatus.NEW):
                return snapshot
        return None

    def check(self, snapshot: Snapshot) -> None:
        """Check that the file is where the outcome says, whole, and that nothing else is anywhere."""
        saved = {path.name: path.read_bytes() for path in self.target.glob("*")} if self.target.exists() else {}
        sent = {} if not self.source.exists() else {"file.bin": self.source.read_bytes()}
        whole = {"file.bin": DATA}
        assert saved in ({}, whole)
        assert sent in ({}, whole)
        assert saved or sent
        match snapshot.status:
            case TaskStatus.COMPLETED:
                assert saved == whole
                mode = snapshot.result.mode if snapshot.result is not None else None
                assert (sent == {}) == (mode is MOVE)
            case TaskStatus.FAILED:
                assert sent == whole
            case _:
                assert (snapshot.status, saved, sent) == (TaskStatus.NEW, {}, whole)
        assert list(self.target.parent.rglob(".paglets-*")) == []
        for host in (self.alpha, self.beta):
            eventually(lambda host=host: self.others(host) == [], f"nobody else on {host.name}")

    def others(self, host: HostProcess) -> list[str]:
        """Return the paglets of a host but the one that carries the file."""
        listed = self.cluster.client.get_json(f"{host.url}/agents?state=all")["agents"]
        return [summary["agent_id"] for summary in listed if summary["agent_id"] != self.agent_id]


@pytest.fixture
def crossing(cluster: Cluster, tmp_path: Path) -> Crossing:
    source = tmp_path / "source" / "file.bin"
    source.parent.mkdir()
    source.write_bytes(DATA)
    return Crossing(cluster, source, tmp_path / "target")


@pytest.mark.parametrize(
    ("faults", "status"),
    [
        # Before the move is committed the paglet comes back at the source and sends the file again.
        ({SOURCE: "source.voted"}, TaskStatus.COMPLETED),
        # A target that dies before it has voted refuses, in effect; the handler at the source says so.
        ({TARGET: "target.arrived"}, TaskStatus.FAILED),
        ({SOURCE: "source.committed", TARGET: "target.activating"}, TaskStatus.COMPLETED),
    ],
    ids=lambda value: "+".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_host_dies_while_the_paglet_moves(crossing: Crossing, faults: dict[str, str], status: TaskStatus) -> None:
    crossing.begin(faults=faults)
    with ThreadPoolExecutor(1) as pool:
        crossing.start(pool, MOVE)
        eventually(lambda: any(crossing.cluster.hosts[name].deaths for name in faults), "a death")
        outcome = crossing.outcome()
        assert outcome.status is status, outcome.error


@pytest.mark.parametrize(
    ("step", "mode", "overwrite"),
    [
        ("published", MOVE, False),
        ("published", MOVE, True),
        ("removed", MOVE, False),
    ],
)
def test_the_target_dies_after_the_move(
    crossing: Crossing, gate: Gate, step: str, mode: FileTransferMode, overwrite: bool
) -> None:
    crossing.begin(**{step: gate})
    if overwrite:
        crossing.target.mkdir()
        (crossing.target / "file.bin").write_bytes(b"old")
    with ThreadPoolExecutor(1) as pool:
        crossing.start(pool, mode, overwrite=overwrite)
        gate.await_entered()
        gate.path.unlink()
        crossing.beta.kill()
        gate.open()
        assert crossing.outcome().error == ""


def test_the_source_is_gone_when_the_original_is_to_be_deleted(crossing: Crossing, gate: Gate) -> None:
    """It is asked again until it is back."""
    crossing.begin(noted=gate)
    with ThreadPoolExecutor(1) as pool:
        crossing.start(pool, MOVE)
        gate.await_entered()
        gate.path.unlink()
        crossing.alpha.kill()
        gate.open()
        assert crossing.outcome().error == ""


def test_the_source_dies_before_it_sends(crossing: Crossing, gate: Gate) -> None:
    """The paglet knows what it was asked for, and does it when its host is back."""
    crossing.begin(dispatching=gate)
    with ThreadPoolExecutor(1) as pool:
        crossing.start(pool, COPY)
        gate.await_entered()
        gate.path.unlink()
        crossing.alpha.kill()
        gate.open()
        assert crossing.outcome().error == ""


@pytest.mark.parametrize("seed", range(2))
def test_hosts_die_at_any_moment(crossing: Crossing, seed: int) -> None:
    chance = random.Random(seed)
    crossing.begin()
    with ThreadPoolExecutor(1) as pool:
        crossing.start(pool, MOVE)
        for name in chance.choices((SOURCE, TARGET), k=2):
            # Not a way to wait for something: when the host dies is to be by chance.
            with pytest.raises(TimeoutError):
                Future[None]().result(chance.uniform(0.0, 0.1))
            if crossing.cluster.hosts[name].alive:
                crossing.cluster.hosts[name].kill()
        crossing.outcome()
