"""A host dies at every step of a move with files: none is lost, deleted too early, torn or left behind."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paglets.artifacts import read_content
from paglets.artifacts.tree import scan
from paglets.core.errors import PagletError, TransferError
from paglets.core.messages import Message
from paglets.remote.transfer import TransferTicket
from tests.faults.cluster import Cluster, HostProcess, Nursery, cluster_in
from tests.faults.judge import quiet
from tests.faults.points import (
    SOURCE,
    SOURCE_FILE_POINTS,
    SOURCE_POINTS,
    TARGET,
    TARGET_FILE_POINTS,
    TARGET_POINTS,
    Point,
)
from tests.faults.proxy import Network, Weather
from tests.faults.small_disk import CannotMountError, small_disk
from tests.support import eventually

LARGE = 6_000_000
PORTER = "tests.agents.porter:Porter"


@dataclass
class Baggage:
    """What a porter carries, and where that came from."""

    directory: Path
    digests: dict[str, str]
    """By name, of everything."""

    @property
    def originals(self) -> list[str]:
        """Names of what is still where it came from."""
        return sorted(path.name for path in self.directory.iterdir())


def pack(cluster: Cluster, host: HostProcess, agent_id: str) -> Baggage:
    """Have a porter carry a large file and a directory that move, a small file that is copied, and one of its own."""
    directory = cluster.directory / "originals"
    tree = directory / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "deep" / "link").symlink_to("../small")
    (tree / "small").write_text("in a directory")
    (tree / "large").write_bytes(os.urandom(1000) * (LARGE // 1000))
    (directory / "large.bin").write_bytes(os.urandom(1000) * (LARGE // 1000))
    (directory / "small.txt").write_text("small")
    digests = {path.name: read_content(path).sha256 for path in directory.iterdir()}
    digests["own.txt"] = hashlib.sha256(b"own").hexdigest()
    proxy = cluster.proxy(host, agent_id)
    for name, mode in (("large.bin", "move"), ("small.txt", "copy"), ("tree", "move")):
        proxy.send(Message("take", {"path": str(directory / name), "mode": mode}))
    proxy.send(Message("make", {"name": "own.txt", "text": "own"}))
    return Baggage(directory, digests)


def place_of(cluster: Cluster, agent_id: str) -> str:
    """Wait until nothing is under way; return on which host a paglet is, by its name in the cluster."""
    (found,) = quiet(cluster)[agent_id]
    return {host.name: name for name, host in cluster.hosts.items()}[found.host]


def debris(host: HostProcess, *agent_ids: str) -> list[str]:
    """Return what lies in a host's directory that belongs to nobody there.

    :param agent_ids: the paglets that are there.
    """
    found = [path for path in host.directory.rglob("*") if path.name.startswith(".paglets-")]
    found += (host.directory / "artifacts" / "tmp").iterdir()
    for name in ("work", "removed"):
        found += [path for path in (host.directory / name).glob("*") if path.name not in agent_ids]
    for blob in (host.directory / "artifacts" / "blobs").glob("*/*"):
        if hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name:
            found.append(blob)
    return sorted(str(path.relative_to(host.directory)) for path in found)


def check(cluster: Cluster, agent_id: str, baggage: Baggage, place: str) -> None:
    """Check that a porter has everything, and that nothing else is anywhere."""
    proxy = cluster.proxy(cluster.hosts[place], agent_id)
    assert proxy.send(Message("carried")) == baggage.digests
    if place == SOURCE:
        assert baggage.originals == ["large.bin", "small.txt", "tree"]
        for name in baggage.originals:
            assert read_content(baggage.directory / name).sha256 == baggage.digests[name]
    else:
        assert proxy.send(Message("noted")) == baggage.digests
        eventually(lambda: baggage.originals == ["small.txt"], "what moved to be deleted where it was")
        work = cluster.hosts[place].directory / "work" / agent_id
        assert sorted(path.name for path in work.iterdir()) == sorted(baggage.digests)
        scan(work)
    # What a target has of a move that failed, its source sends no second time; else nothing is left.
    parts = {f"artifacts/tmp/{digest}.{kind}" for digest in digests_of(baggage) for kind in ("part", "json")}
    for name, host in cluster.hosts.items():
        allowed = parts if place == SOURCE and name == TARGET else set()
        own = (agent_id,) if name == place else ()
        eventually(lambda h=host, o=own, a=allowed: set(debris(h, *o)) <= a, lambda h=host, o=own: f"{debris(h, *o)}")


def digests_of(baggage: Baggage) -> set[str]:
    """Return the checksums of large contents."""
    known = set(baggage.digests.values())
    tree = baggage.directory / "tree" / "large"
    if tree.exists():
        known.add(hashlib.sha256(tree.read_bytes()).hexdigest())
    return known


def attempt(cluster: Cluster, agent_id: str, at: str, to: HostProcess) -> threading.Thread:
    """Begin to move a paglet, once; whoever asks for it cannot know what becomes of it."""
    proxy = cluster.proxy(cluster.hosts[at], agent_id)

    def move() -> None:
        with suppress(PagletError):
            proxy.dispatch(TransferTicket(to.url, retries=0))

    mover = threading.Thread(target=move)
    mover.start()
    return mover


def die(cluster: Cluster, mover: threading.Thread, *names: str) -> None:
    """Wait until armed hosts have died of SIGKILL, and start them again."""
    hosts = [cluster.hosts[name] for name in names]
    eventually(lambda: any(host.deaths for host in hosts), f"the armed points to kill one of {names}", timeout=30.0)
    assert all(host.deaths in ([], [-9]) for host in hosts), [(host.deaths, host.last_words()) for host in hosts]
    cluster.until(lambda: not mover.is_alive(), "the one who moves it to be told", timeout=60.0)


def move_and_die(cluster: Cluster, faults: dict[str, str]) -> str:
    """Move a porter, have hosts die on the way, check, move it for good, check, and return where it was first."""
    alpha, beta = cluster.start_all([cluster.add(SOURCE), cluster.add(TARGET)], faults)
    agent_id = cluster.create(alpha, PORTER)
    baggage = pack(cluster, alpha, agent_id)
    die(cluster, attempt(cluster, agent_id, SOURCE, beta), *faults)
    place = place_of(cluster, agent_id)
    check(cluster, agent_id, baggage, place)
    if place == SOURCE:
        for _ in range(2):  # the other host may meet its point only now
            attempt(cluster, agent_id, SOURCE, beta).join()
            if place_of(cluster, agent_id) == TARGET:
                break
        check(cluster, agent_id, baggage, TARGET)
    return place


@pytest.mark.parametrize("point", [*SOURCE_FILE_POINTS, *SOURCE_POINTS], ids=lambda point: point.name)
def test_the_source_of_a_move_with_files_dies(cluster: Cluster, point: Point) -> None:
    assert move_and_die(cluster, {SOURCE: point.name}) in point.owners


@pytest.mark.parametrize("point", [*TARGET_FILE_POINTS, *TARGET_POINTS], ids=lambda point: point.name)
def test_the_target_of_a_move_with_files_dies(cluster: Cluster, point: Point) -> None:
    assert move_and_die(cluster, {TARGET: point.name}) in point.owners


@pytest.mark.parametrize(
    ("at_source", "at_target"),
    [
        ("source.blob-sent", "target.blob-stored"),
        ("source.prepare-sent", "target.materialised"),
        ("source.committed", "target.activating"),
    ],
)
def test_both_hosts_of_a_move_with_files_die(cluster: Cluster, at_source: str, at_target: str) -> None:
    move_and_die(cluster, {SOURCE: at_source, TARGET: at_target})


@pytest.mark.parametrize("name", ["target.materialised", "target.prepared"])
def test_a_host_dies_when_files_come_back_to_it(cluster: Cluster, name: str) -> None:
    """What it still had of them is put in place without being sent, and must not be lost in that."""
    alpha, beta = cluster.start_all([cluster.add(SOURCE), cluster.add(TARGET)], {SOURCE: name})
    agent_id = cluster.create(alpha, PORTER)
    baggage = pack(cluster, alpha, agent_id)
    attempt(cluster, agent_id, SOURCE, beta).join()
    check(cluster, agent_id, baggage, TARGET)
    die(cluster, attempt(cluster, agent_id, TARGET, alpha), SOURCE)
    if place_of(cluster, agent_id) == TARGET:
        check(cluster, agent_id, baggage, TARGET)
        attempt(cluster, agent_id, TARGET, alpha).join()
    assert place_of(cluster, agent_id) == SOURCE
    assert cluster.proxy(alpha, agent_id).send(Message("carried")) == baggage.digests
    assert baggage.originals == ["small.txt"]
    eventually(lambda: debris(beta) == [], "nothing to be left at the host that it left")


@pytest.mark.parametrize("fault", ["target.prepared:2", "source.committed", "target.activated:2"])
def test_a_host_dies_in_a_move_within_it_while_an_earlier_departure_is_not_settled(
    cluster: Cluster, fault: str
) -> None:
    """What the earlier departure still has to remove is not what the paglet has now; that goes when it leaves."""
    hosts = [cluster.add(name) for name in (SOURCE, TARGET, "gamma")]
    alpha, beta, gamma = cluster.start_all(hosts, {TARGET: "source.releasing"})
    agent_id = cluster.create(beta, PORTER)
    baggage = pack(cluster, beta, agent_id)
    mover = attempt(cluster, agent_id, TARGET, alpha)
    eventually(lambda: beta.deaths == [-9], "the host to die before it removes anything")
    mover.join()
    cluster.proxy(alpha, agent_id).dispatch(gamma.url)
    alpha.kill()  # so that nobody acknowledges what its host asks about when it is back
    beta.start(fault)
    cluster.proxy(gamma, agent_id).dispatch(beta.url)
    mover = attempt(cluster, agent_id, TARGET, beta)
    eventually(lambda: beta.deaths == [-9, -9], "the host to die again")
    mover.join()
    beta.start()
    alpha.start()

    assert place_of(cluster, agent_id) == TARGET
    assert cluster.proxy(beta, agent_id).send(Message("carried")) == baggage.digests
    cluster.proxy(beta, agent_id).dispatch(alpha.url)
    assert place_of(cluster, agent_id) == SOURCE
    assert cluster.proxy(alpha, agent_id).send(Message("carried")) == baggage.digests
    eventually(lambda: debris(beta) == [], "nothing to be left at the host that it left")


# --- the network and the disk ----------------------------------------------------------------------------------------


def test_a_large_file_comes_through_bad_weather(nursery: Nursery, network: Network, tmp_path: Path) -> None:
    """Connections are cut in the middle, again and again; what has arrived is not sent again."""
    with cluster_in(tmp_path, nursery, network=network) as cluster:
        alpha, beta = cluster.start(SOURCE, TARGET)
        agent_id = cluster.create(alpha, PORTER)
        baggage = pack(cluster, alpha, agent_id)
        network.weather = Weather(cut=1.0, cut_after=4_000_000)
        proxy = cluster.proxy(alpha, agent_id)
        proxy.dispatch(TransferTicket(beta.url, retries=20, retry_interval=0.05))
        assert network.statistics.cut > 1
        network.heal()
        check(cluster, agent_id, baggage, place_of(cluster, agent_id))


@pytest.fixture
def cramped(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[HostProcess, Any]]:
    """Give a host on a small disk with the disk, and take both away again."""
    try:
        with small_disk(tmp_path / "disk", 30_000_000) as disk:
            host = cluster.add(TARGET, directory=disk.path / "host").start()
            yield host, disk
            if host.alive:
                host.kill()
    except CannotMountError as exc:
        pytest.skip(f"no disk of its own for this test: {exc}")


def test_files_for_a_full_disk_stay_where_they_are(cluster: Cluster, cramped: tuple[HostProcess, Any]) -> None:
    beta, disk = cramped
    (alpha,) = cluster.start(SOURCE)
    agent_id = cluster.create(alpha, PORTER)
    baggage = pack(cluster, alpha, agent_id)
    proxy = cluster.proxy(alpha, agent_id)
    disk.fill()
    with pytest.raises(TransferError, match=r"room|space"):
        proxy.dispatch(beta.url)
    check(cluster, agent_id, baggage, place_of(cluster, agent_id))
    disk.make_room()
    proxy.dispatch(beta.url)
    assert place_of(cluster, agent_id) == TARGET
    check(cluster, agent_id, baggage, TARGET)
