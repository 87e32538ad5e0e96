"""Large files and directories on their way between hosts: sent once, never lost, and what they were when they left."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from paglets.artifacts import PagletDirectoryRef, PagletFileRef
from paglets.artifacts.tree.removal import remove_tree
from paglets.core.errors import ConnectionLostError, InsufficientStorageError, PagletError, TransferError
from paglets.core.runtime_values import ArrivalMode
from paglets.remote.aio import AsyncHostClient
from paglets.remote.proxy import PagletProxy
from paglets.remote.transfer import TransferTicket
from paglets.runtime.carriage import Meter
from paglets.runtime.host import Host
from paglets.runtime.transfer_wire import HttpTransferLink
from tests.agents.keeper import Keeper, KeeperState
from tests.artifacts.test_tree import contents_of, sample
from tests.support import HostFactory, await_event, events_of, eventually, leftovers, where

LARGE = 6_000_000


@dataclass
class Traffic:
    """What is brought ahead of moves."""

    sent: list[str] = field(default_factory=list)
    """Checksums, in order."""
    before: Callable[[Path], None] | None = None
    """Is called with the file that is about to be sent."""
    after: Callable[[str, str], None] | None = None
    """Is called with the host and the checksum when it is there."""


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Traffic:
    seen = Traffic()
    put = AsyncHostClient.put_blob

    async def watched(self: AsyncHostClient, url: str, sha256: str, source: Path, size: int, **options: Any) -> None:
        if seen.before is not None:
            seen.before(source)
        seen.sent.append(sha256)
        await put(self, url, sha256, source, size, **options)
        if seen.after is not None:
            seen.after(url, sha256)

    monkeypatch.setattr(AsyncHostClient, "put_blob", watched)
    return seen


def large(path: Path, *, size: int = LARGE) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(os.urandom(1000) * (size // 1000))
    # What was modified this very moment may be modified once more without a trace, and is not remembered.
    os.utime(path, (time.time() - 60, time.time() - 60))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def keeper(host: Host) -> PagletProxy:
    return host.create(Keeper, KeeperState(look=False))


def path_of(host: Host, proxy: PagletProxy, name: str) -> Path:
    return host.registered_file_path_for(proxy.agent_id, name)


def ref_of(host: Host, proxy: PagletProxy, name: str) -> PagletFileRef:
    (found,) = [ref for ref in host.registered_files_for(proxy.agent_id) if ref.name == name]
    return found


def settled(*hosts: Host) -> None:
    """Wait until nothing of a transfer is held anywhere."""
    for host in hosts:
        blobs = host._node.blobs
        eventually(lambda blobs=blobs: blobs.held_bytes == 0, f"{host.name} to hold nothing")
        assert list((host.persistence_dir / "artifacts" / "tmp").iterdir()) == []
        removed = host.persistence_dir / "removed"
        eventually(lambda removed=removed: not list(removed.glob("*")), f"{host.name} to delete what was removed")


def released(path: Path) -> None:
    eventually(lambda: not path.exists(), f"{path} to be removed")


# --- what is sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_large_file_is_sent_once_however_often_its_paglet_moves(
    hosts: HostFactory, tmp_path: Path, traffic: Traffic, mode: str
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = large(tmp_path / "data.bin")
    content, checksum, modified = path.read_bytes(), sha256(path), path.stat().st_mtime
    proxy = keeper(alpha)
    first = alpha.register_file_for(proxy.agent_id, path, mode=mode)
    assert (first.size_bytes, first.sha256) == (LARGE, checksum)
    works = {host.name: host.persistence_dir / "work" / proxy.agent_id for host in (alpha, beta)}
    for _ in range(3):
        proxy = proxy.dispatch(beta.address)
        assert path_of(beta, proxy, "data.bin").read_bytes() == content
        if mode == "move":
            released(path)
        else:
            assert path.read_bytes() == content
        released(works["alpha"])
        proxy = proxy.dispatch(alpha.address)
        assert path_of(alpha, proxy, "data.bin").read_bytes() == content
        released(works["beta"])
    assert traffic.sent == [checksum]
    ref = ref_of(alpha, proxy, "data.bin")
    assert (ref.source_path, ref.source_host_name, ref.source_modified_at) == (str(path), "alpha", modified)
    assert (ref.size_bytes, ref.sha256) == (LARGE, checksum)
    assert path_of(alpha, proxy, "data.bin").stat().st_mtime == pytest.approx(modified, abs=1e-6)
    settled(alpha, beta)


def test_a_file_that_was_written_to_is_sent_as_it_is_now(hosts: HostFactory, tmp_path: Path, traffic: Traffic) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = large(tmp_path / "data.bin")
    proxy = keeper(alpha)
    alpha.register_file_for(proxy.agent_id, path)
    proxy = proxy.dispatch(beta.address)
    there = path_of(beta, proxy, "data.bin")
    with there.open("r+b") as stream:
        stream.write(b"changed at beta")
    changed = there.read_bytes()
    proxy = proxy.dispatch(alpha.address)
    assert path_of(alpha, proxy, "data.bin").read_bytes() == changed
    assert path.read_bytes() != changed
    assert len(traffic.sent) == 2
    assert ref_of(alpha, proxy, "data.bin").sha256 == hashlib.sha256(changed).hexdigest()


def test_what_two_paglets_carry_is_sent_once(hosts: HostFactory, tmp_path: Path, traffic: Traffic) -> None:
    """Also for two names of one content; each has a file of its own."""
    alpha, beta = hosts("alpha"), hosts("beta")
    path = large(tmp_path / "data.bin")
    one, two = keeper(alpha), keeper(alpha)
    alpha.register_file_for(one.agent_id, path, name="a")
    alpha.register_file_for(one.agent_id, path, name="b")
    alpha.register_file_for(two.agent_id, path, name="a")
    one, two = one.dispatch(beta.address), two.dispatch(beta.address)
    places = [path_of(beta, one, "a"), path_of(beta, one, "b"), path_of(beta, two, "a")]
    assert len({place.stat().st_ino for place in places}) == 3
    assert {sha256(place) for place in places} == {sha256(path)}
    assert len(traffic.sent) == 1
    with places[0].open("r+b") as stream:
        stream.write(b"only here")
    assert {sha256(place) for place in places[1:]} == {sha256(path)}


def test_equal_files_stay_files_of_their_own(hosts: HostFactory, tmp_path: Path, traffic: Traffic) -> None:
    """In a directory, beside it, and modified so lately that nothing of them is remembered."""
    alpha, beta = hosts("alpha"), hosts("beta")
    path, root = large(tmp_path / "data.bin"), tmp_path / "root"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).write_bytes(path.read_bytes())
        (tmp_path / f"beside-{name}").write_bytes(path.read_bytes())
    proxy = keeper(alpha)
    names = ["data.bin", "root", "beside-a", "beside-b"]
    for name in names:
        alpha.register_file_for(proxy.agent_id, tmp_path / name, mode="move")
    for touched in (root / "a", root / "b", tmp_path / "beside-a", tmp_path / "beside-b"):
        touched.touch()
    moved = proxy.dispatch(beta.address)
    places = [path_of(beta, moved, name) for name in names if name != "root"]
    places += [path_of(beta, moved, "root") / name for name in ("a", "b")]
    assert {sha256(place) for place in places} == set(traffic.sent)
    assert len(traffic.sent) == 1
    assert len({place.stat().st_ino for place in places}) == 5
    for name in names:
        released(tmp_path / name)
    assert contents_of(path_of(beta, moved, "root")).keys() == {".", "a", "b"}
    settled(alpha, beta)


def test_a_target_is_told_to_hold_what_it_has(
    hosts: HostFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    monkeypatch.setattr("paglets.runtime.carriage._RENEW_SECONDS", 0.001)
    asked: list[int] = []
    renewed = asyncio.Event()
    missing, put = HttpTransferLink.missing, HttpTransferLink.put

    async def counted(self: HttpTransferLink, holder: str, contents: list[Any], **options: Any) -> Any:
        asked.append(len(contents))
        if not contents:
            renewed.set()
        return await missing(self, holder, contents, **options)

    async def slow(self: HttpTransferLink, *arguments: Any, **options: Any) -> None:
        await renewed.wait()
        await put(self, *arguments, **options)

    monkeypatch.setattr(HttpTransferLink, "missing", counted)
    monkeypatch.setattr(HttpTransferLink, "put", slow)
    path = large(tmp_path / "data.bin")
    proxy = keeper(alpha)
    alpha.register_file_for(proxy.agent_id, path)
    moved = proxy.dispatch(beta.address)
    assert sha256(path_of(beta, moved, "data.bin")) == sha256(path)
    assert asked[0] == 1
    assert 0 in asked
    settled(alpha, beta)


def test_a_move_that_failed_does_not_send_again(hosts: HostFactory, tmp_path: Path, traffic: Traffic) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = large(tmp_path / "data.bin")
    proxy = alpha.create(Keeper, KeeperState(refuse=True, look=False))
    alpha.register_file_for(proxy.agent_id, path, mode="move")
    with pytest.raises(TransferError, match="keeper refuses"):
        proxy.dispatch(beta.address)
    assert path.exists()
    eventually(lambda: leftovers(beta) == [], "the files of the failed move to be removed")
    settled(alpha, beta)
    proxy.call(Keeper.accept)
    moved = proxy.dispatch(beta.address)
    assert sha256(path_of(beta, moved, "data.bin")) == traffic.sent[0]
    assert len(traffic.sent) == 1
    released(path)


def test_a_connection_that_breaks_is_survived(
    hosts: HostFactory, tmp_path: Path, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paglets.runtime.carriage._FIRST_PAUSE_SECONDS", 0.001)
    alpha, beta = hosts("alpha"), hosts("beta")
    path = large(tmp_path / "data.bin")
    proxy = keeper(alpha)
    alpha.register_file_for(proxy.agent_id, path)
    breaks = [ConnectionLostError("lost on the way"), ConnectionLostError("lost on the way")]

    def lose(_: Path) -> None:
        if breaks:
            raise breaks.pop()

    traffic.before = lose
    moved = proxy.dispatch(beta.address)
    assert sha256(path_of(beta, moved, "data.bin")) == sha256(path)
    assert events_of(alpha, "transfer-failed") == []
    breaks += [ConnectionLostError("lost for good")] * 100
    clone_of = large(tmp_path / "other.bin")
    beta.register_file_for(moved.agent_id, clone_of)
    with pytest.raises(TransferError, match="lost for good"):
        moved.dispatch(alpha.address)
    assert where(moved, alpha, beta) == ["beta"]


def test_a_host_that_stops_calls_off_what_it_sends(
    hosts: HostFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = large(tmp_path / "data.bin")
    proxy = keeper(alpha)
    alpha.register_file_for(proxy.agent_id, path, mode="move")
    begun = threading.Event()

    async def endless(*_: Any, **__: Any) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(AsyncHostClient, "put_blob", endless)
    failures: list[str] = []

    def move() -> None:
        try:
            proxy.dispatch(beta.address)
        except PagletError as exc:
            failures.append(str(exc))

    mover = threading.Thread(target=move)
    mover.start()
    assert begun.wait(20)
    alpha.shutdown()
    mover.join(20)
    assert "shutting down" in failures[0]
    monkeypatch.undo()
    again = hosts("alpha", port=alpha.port)
    assert sha256(path_of(again, proxy, "data.bin")) == sha256(path)
    assert leftovers(beta) == []
    moved = again.get_proxy(proxy.agent_id).dispatch(beta.address)
    assert path_of(beta, moved, "data.bin").stat().st_size == LARGE
    released(path)


def test_what_the_target_lost_again_is_sent_again(hosts: HostFactory, tmp_path: Path, traffic: Traffic) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = large(tmp_path / "data.bin")
    proxy = keeper(alpha)
    alpha.register_file_for(proxy.agent_id, path)

    def lose(_: str, checksum: str) -> None:
        if len(traffic.sent) == 1:
            beta._node.blobs.path(checksum).unlink()

    traffic.after = lose
    moved = proxy.dispatch(beta.address)
    assert sha256(path_of(beta, moved, "data.bin")) == sha256(path)
    assert len(traffic.sent) == 2
    traffic.after = lambda _, checksum: alpha._node.blobs.path(checksum).unlink()
    beta.register_file_for(moved.agent_id, large(tmp_path / "other.bin"))
    with pytest.raises(TransferError, match="does not keep the files"):
        moved.dispatch(alpha.address)
    assert where(moved, alpha, beta) == ["beta"]


# --- what changes on the way -------------------------------------------------------------------------------------


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def test_a_file_that_changes_while_it_is_sent_arrives_as_it_is_then(
    hosts: HostFactory, tmp_path: Path, traffic: Traffic
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = large(tmp_path / "data.bin")
    proxy = keeper(alpha)
    alpha.register_file_for(proxy.agent_id, path, mode="move")

    def change(source: Path) -> None:
        if len(traffic.sent) < 2:
            append(source)

    traffic.before = change
    moved = proxy.dispatch(beta.address)
    assert path_of(beta, moved, "data.bin").stat().st_size == LARGE + 8
    released(path)
    assert events_of(alpha, "transfer-failed") == []


def test_a_file_that_changes_all_the_time_keeps_its_paglet(
    hosts: HostFactory, tmp_path: Path, traffic: Traffic
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = large(tmp_path / "data.bin")
    proxy = keeper(alpha)
    alpha.register_file_for(proxy.agent_id, path, mode="move")
    traffic.before = append
    with pytest.raises(TransferError, match=r"registered file 'data\.bin' changes while it is sent"):
        proxy.dispatch(beta.address)
    assert len(traffic.sent) == 3
    assert path.stat().st_size == LARGE + 12
    assert where(proxy, alpha, beta) == ["alpha"]
    assert leftovers(beta) == []
    traffic.before = None
    moved = proxy.dispatch(beta.address)
    assert path_of(beta, moved, "data.bin").stat().st_size == LARGE + 12
    released(path)


def test_a_directory_that_changes_while_it_is_sent_arrives_as_it_is_then(
    hosts: HostFactory, tmp_path: Path, traffic: Traffic
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    source = sample(tmp_path / "source")
    large(source / "large.bin")
    proxy = keeper(alpha)
    alpha.register_file_for(proxy.agent_id, source)

    def change(path: Path) -> None:
        if not traffic.sent:
            append(path)
            (source / "new").write_text("new")

    traffic.before = change
    moved = proxy.dispatch(beta.address)
    assert contents_of(path_of(beta, moved, "source")) == contents_of(source)


def test_a_file_that_was_changed_after_it_was_sent_is_not_deleted(
    hosts: HostFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path, small, untouched = large(tmp_path / "data.bin"), tmp_path / "small", tmp_path / "untouched"
    source = sample(tmp_path / "source")
    small.write_text("small")
    untouched.write_text("untouched")
    proxy = keeper(alpha)
    for moving in (path, small, source, untouched):
        alpha.register_file_for(proxy.agent_id, moving, mode="move")
    commit = HttpTransferLink.commit

    async def late(self: HttpTransferLink, *arguments: Any) -> dict[str, Any]:
        append(path)
        small.write_text("SMALL")
        (source / "new").touch()
        return await commit(self, *arguments)

    monkeypatch.setattr(HttpTransferLink, "commit", late)
    moved = proxy.dispatch(beta.address)
    released(untouched)
    eventually(lambda: len(events_of(alpha, "file-kept")) == 3, "three files to be kept")
    assert {event.data["path"] for event in events_of(alpha, "file-kept")} == {str(path), str(small), str(source)}
    assert path.stat().st_size == LARGE + 4
    assert small.read_text() == "SMALL"
    assert (source / "new").exists()
    assert path_of(beta, moved, "small").read_text() == "small"


# --- directories -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_directory_travels_as_one_file(hosts: HostFactory, tmp_path: Path, traffic: Traffic, mode: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    source = sample(tmp_path / "source")
    (source / "link").symlink_to("deep/er")
    large(source / "deep" / "large.bin")
    for number in range(30):
        large(source / f"pack{number:02}", size=200_000)
    before = contents_of(source)
    proxy = keeper(alpha)
    wire = proxy.call(Keeper.take, str(source), mode=mode)
    assert (wire["kind"], wire["name"], wire["size_bytes"]) == ("directory", "source", wire["size_bytes"])
    assert wire["size_bytes"] == sum(len(what[3]) for what in before.values() if isinstance(what[3], bytes))
    for target, other in ((beta, alpha), (alpha, beta), (beta, alpha)):
        proxy = proxy.dispatch(target.address)
        there = path_of(target, proxy, "source")
        assert there == target.persistence_dir / "work" / proxy.agent_id / "source"
        assert contents_of(there) == before
        assert proxy.call(Keeper.path_of, "source") == str(there)
        eventually(lambda other=other: leftovers(other) == [], "what was there before to be removed")
    assert isinstance(ref_of(beta, proxy, "source"), PagletDirectoryRef)
    assert ref_of(beta, proxy, "source").sha256 == wire["sha256"]
    assert len(traffic.sent) == 2, "the large file and the pack of small ones"
    if mode == "move":
        released(source)
    else:
        assert contents_of(source) == before
    settled(alpha, beta)


def test_an_empty_directory_and_a_small_one_travel_inside_the_move(
    hosts: HostFactory, tmp_path: Path, traffic: Traffic
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    (tmp_path / "empty").mkdir()
    sample(tmp_path / "small")
    proxy = keeper(alpha)
    for name in ("empty", "small"):
        proxy.call(Keeper.take, str(tmp_path / name))
    proxy = proxy.dispatch(beta.address)
    for name in ("empty", "small"):
        assert contents_of(path_of(beta, proxy, name)) == contents_of(tmp_path / name)
    assert traffic.sent == []


def test_a_clone_on_the_same_host_has_copies_of_its_own(hosts: HostFactory, tmp_path: Path, traffic: Traffic) -> None:
    host = hosts()
    source = sample(tmp_path / "source")
    path = large(tmp_path / "data.bin")
    path.chmod(0o640)
    proxy = keeper(host)
    for moving in (source, path):
        host.register_file_for(proxy.agent_id, moving, mode="move")
    copy = proxy.clone()
    for moving in (source, path):
        there = path_of(host, copy, moving.name)
        assert there.parent == host.persistence_dir / "work" / copy.agent_id
        assert contents_of(there) == contents_of(moving) if there.is_dir() else sha256(there) == sha256(moving)
    assert path_of(host, copy, "data.bin").stat().st_mode == path.stat().st_mode
    append(path_of(host, copy, "data.bin"))
    assert path.stat().st_size == LARGE
    assert traffic.sent == []
    copy.dispose()
    released(host.persistence_dir / "work" / copy.agent_id)
    assert source.exists()
    assert path.exists()


def test_a_move_on_one_host_reads_nothing(hosts: HostFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = hosts()
    path = large(tmp_path / "data.bin")
    proxy = keeper(host)
    host.register_file_for(proxy.agent_id, path, mode="move")
    sample(tmp_path / "source")
    host.register_file_for(proxy.agent_id, tmp_path / "source")
    monkeypatch.setattr("paglets.runtime.carriage.ship", None)
    proxy = proxy.dispatch(host.address)
    assert path_of(host, proxy, "data.bin") == path
    remove_tree(tmp_path / "source")
    with pytest.raises(TransferError, match="registered file 'source' is missing"):
        proxy.dispatch(host.address)


def test_files_of_a_paglet_that_arrives_asleep_are_there_when_its_host_comes_back(
    hosts: HostFactory, tmp_path: Path
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    source = sample(tmp_path / "source")
    before = contents_of(source)
    path = large(tmp_path / "data.bin")
    checksum = sha256(path)
    proxy = keeper(alpha)
    for moving in (source, path):
        alpha.register_file_for(proxy.agent_id, moving, mode="move")
    moved = proxy.dispatch(TransferTicket(beta.address, arrival_mode=ArrivalMode.INACTIVE))
    for moving in (source, path):
        released(moving)
    beta.stop()
    again = hosts("beta", port=beta.port)
    woken = again.activate(moved.agent_id)
    assert contents_of(path_of(again, woken, "source")) == before
    assert sha256(path_of(again, woken, "data.bin")) == checksum
    home = woken.dispatch(alpha.address)
    assert contents_of(path_of(alpha, home, "source")) == before
    assert sha256(path_of(alpha, home, "data.bin")) == checksum


@pytest.mark.parametrize("change", ["to a file", "to nothing"])
def test_a_directory_that_is_gone_keeps_its_paglet(hosts: HostFactory, tmp_path: Path, change: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    source = sample(tmp_path / "source")
    proxy = keeper(alpha)
    proxy.call(Keeper.take, str(source))
    remove_tree(source)
    if change == "to a file":
        source.touch()
    with pytest.raises(TransferError, match="registered file 'source' is missing"):
        proxy.dispatch(beta.address)
    assert where(proxy, alpha, beta) == ["alpha"]


def test_what_cannot_travel_keeps_its_paglet(hosts: HostFactory, tmp_path: Path) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    source = sample(tmp_path / "source")
    proxy = keeper(alpha)
    proxy.call(Keeper.take, str(source), mode="move")
    (source / "out").symlink_to("/etc")
    with pytest.raises(TransferError, match="out of the directory"):
        proxy.dispatch(beta.address)
    assert where(proxy, alpha, beta) == ["alpha"]
    (source / "out").unlink()
    os.mkfifo(source / "pipe")
    with pytest.raises(TransferError, match="is a pipe"):
        proxy.dispatch(beta.address)
    assert source.exists()
    assert leftovers(beta) == []


# --- the target --------------------------------------------------------------------------------------------------


@contextmanager
def full(monkeypatch: pytest.MonkeyPatch, what: str) -> Iterator[None]:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(what, refuse)
        yield


@pytest.mark.parametrize(
    "what",
    ["paglets.artifacts.sparse.os.write", "paglets.artifacts.places._dress", "paglets.runtime.unloading.write_all"],
    ids=["received", "put", "written"],
)
def test_a_target_without_room_says_so_and_keeps_nothing(
    hosts: HostFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path, small = large(tmp_path / "own" / "data.bin"), tmp_path / "own" / "small"
    small.write_text("small")
    source = sample(tmp_path / "own" / "source")
    proxy = keeper(alpha)
    for moving in (path, small, source):
        alpha.register_file_for(proxy.agent_id, moving, mode="move")
    before = contents_of(tmp_path / "own")
    with full(monkeypatch, what), pytest.raises((TransferError, InsufficientStorageError), match="No space left"):
        proxy.dispatch(beta.address)
    assert contents_of(tmp_path / "own") == before
    assert where(proxy, alpha, beta) == ["alpha"]
    eventually(lambda: leftovers(beta) == [], "nothing left at beta")
    settled(alpha, beta)
    moved = proxy.dispatch(beta.address)
    assert path_of(beta, moved, "small").read_text() == "small"
    for moving in (path, small, source):
        released(moving)


def test_how_far_the_sending_is_becomes_known(hosts: HostFactory, tmp_path: Path) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = large(tmp_path / "data.bin")
    proxy = keeper(alpha)
    alpha.register_file_for(proxy.agent_id, path)
    proxy.dispatch(beta.address)
    event = await_event(alpha, "transfer-progress", agent_id=proxy.agent_id)
    assert event.data["destination"] == beta.address
    assert event.data["bytes_total"] == LARGE
    assert 0 < event.data["bytes_done"] <= LARGE
    (dispatched,) = events_of(alpha, "dispatch")
    assert (dispatched.data["target"]["files"], dispatched.data["target"]["file_bytes"]) == (1, LARGE)


def test_a_meter_speaks_twice_a_second_at_most() -> None:
    meter = Meter(1000, began=10.0)
    told = [now for now in (10 + step / 100 for step in range(300)) if meter.due(int((now - 10) * 300), now)]
    assert len(told) == 5
    assert all(later - earlier >= 0.5 for earlier, later in itertools.pairwise(told))
    assert not meter.due(1000, told[-1] + 0.1)
    quick = Meter(1000, began=10.0)
    assert not quick.due(999, 10.1)
    assert quick.due(1000, 10.1), "what is over at once is told once"
    assert not quick.due(1000, 10.2)
