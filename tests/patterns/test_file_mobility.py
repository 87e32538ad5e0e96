"""Files that paglets carry: what comes out at both ends, and what is said and done where it cannot be done."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import ConflictError, InvalidAgentError
from paglets.patterns.file_mobility import (
    FileMobilityMixin,
    FileTransferEndpoint,
    FileTransferMode,
    FileTransferRequest,
    FileTransferResult,
    FileTransferState,
    SingleFileTransferPaglet,
)
from paglets.patterns.placing import Original
from paglets.patterns.tasks import TaskClient, TaskPaglet, TaskSnapshot, TaskStatus
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.serialization.codec import dataclass_to_wire
from tests.agents.carriers import Carrier, CarrierState, StepwiseCarrier
from tests.faults.small_disk import CannotMountError, small_disk
from tests.support import Gate, HostFactory, eventually, leftovers, where

COPY, MOVE = FileTransferMode.COPY, FileTransferMode.MOVE
MODES = pytest.mark.parametrize("mode", [COPY, MOVE], ids=["copy", "move"])
TEXT = "content"

Client = TaskClient[FileTransferRequest, FileTransferResult]


@dataclass
class Ferry:
    """Two hosts, a file for the first and a directory of the second."""

    alpha: Host
    beta: Host
    source: Path
    target: Path

    def carrier(
        self, paglet: type[TaskPaglet[FileTransferRequest, FileTransferResult, Any]] = Carrier, **gates: Gate
    ) -> Client:
        state = CarrierState(gates={step: str(gate) for step, gate in gates.items()}) if gates else None
        return TaskClient.for_paglet(self.alpha.create(paglet, state), paglet)

    def request(self, destination: str | Path = "", **options: Any) -> FileTransferRequest:
        options.setdefault("target_host", self.beta.address)
        return FileTransferRequest(str(self.source), str(destination or self.target / "file.txt"), **options)

    def saved(self) -> dict[str, str]:
        """Return what is in the directory of the second host, hidden files included."""
        if not self.target.exists():
            return {}
        return {
            str(path.relative_to(self.target)): path.read_text() for path in self.target.rglob("*") if path.is_file()
        }

    def notices(self, client: Client, host: Host) -> list[str]:
        return host.get_state(client.proxy.agent_id, CarrierState).notices

    def check_refused(self, client: Client, snapshot: TaskSnapshot[FileTransferResult], error: str) -> None:
        """Check that nothing has happened but a failed task, and that the paglet is alive at the source."""
        assert (snapshot.status, snapshot.done, snapshot.result) == (TaskStatus.FAILED, True, None)
        assert error in snapshot.error
        assert (snapshot.host_name, snapshot.host_url) == ("alpha", self.alpha.address)
        assert self.source.read_text() == TEXT
        assert where(client.proxy, self.alpha, self.beta) == ["alpha"]
        assert client.status() == snapshot
        eventually(lambda: client.proxy.call(Carrier.files) == [], "the file to be left behind")
        eventually(lambda: leftovers(self.beta) == [], "the files at the target to be removed")


@pytest.fixture
def ferry(pair: tuple[Host, Host], tmp_path: Path) -> Ferry:
    source = tmp_path / "source" / "file.txt"
    source.parent.mkdir()
    source.write_text(TEXT)
    os.utime(source, (1_000_000, 1_000_000.5))
    return Ferry(*pair, source, tmp_path / "target")


# --- what comes out ---------------------------------------------------------------------------------------------------


@MODES
def test_a_file_is_carried(ferry: Ferry, mode: FileTransferMode) -> None:
    client = ferry.carrier()
    began = ferry.source.stat().st_ctime
    snapshot = client.start(ferry.request(mode=mode, transfer_id="t-1"))
    assert (snapshot.status, snapshot.done, snapshot.error) == (TaskStatus.COMPLETED, True, "")
    assert snapshot.result == FileTransferResult(
        "t-1",
        mode,
        False,
        FileTransferEndpoint("alpha", ferry.alpha.address, str(ferry.source), began, 1_000_000.5),
        FileTransferEndpoint("beta", ferry.beta.address, str(ferry.target / "file.txt")),
        "file.txt",
        7,
        "7 B",
    )
    assert ferry.saved() == {"file.txt": TEXT}
    assert (ferry.target / "file.txt").stat().st_mtime == 1_000_000.5
    assert ferry.source.exists() == (mode is COPY)
    assert (client.proxy.host_url, snapshot.host_name) == (ferry.beta.address, "beta")
    assert ferry.alpha.get_proxies() == []
    assert client.proxy.call(Carrier.files) == []
    work = ferry.beta.persistence_dir / "work" / client.proxy.agent_id
    assert list(work.iterdir()) == []
    titles = ["found file", "dispatching"]
    assert ferry.notices(client, ferry.beta)[:2] == [f"info File transfer: {title}" for title in titles]
    eventually(lambda: ferry.notices(client, ferry.beta)[2:] == ["info File transfer: saved file"], "the last notice")
    # Nothing of it is the paglet's any more.
    client.proxy.dispose()
    assert ferry.saved() == {"file.txt": TEXT}


@pytest.mark.parametrize("destination", ["{target}/", "{target}/other", "{target}/new/deep/"])
def test_a_destination_may_leave_out_the_name(ferry: Ferry, destination: str) -> None:
    snapshot = ferry.carrier().start(ferry.request(destination.format(target=ferry.target)))
    assert snapshot.result is not None
    assert Path(snapshot.result.destination.path).read_text() == TEXT
    assert list(ferry.saved()) == [
        str(Path(destination.format(target="x") + "file.txt").relative_to("x"))
        if destination.endswith("/")
        else "other"
    ]


def test_a_destination_that_is_a_directory_there(ferry: Ferry) -> None:
    ferry.target.mkdir()
    assert ferry.carrier().start(ferry.request(ferry.target)).status is TaskStatus.COMPLETED
    assert ferry.saved() == {"file.txt": TEXT}


@MODES
def test_a_dry_run_does_nothing(ferry: Ferry, mode: FileTransferMode) -> None:
    client = ferry.carrier()
    link = ferry.source.with_name("link")
    link.symlink_to(ferry.source)
    request = FileTransferRequest(str(link), "out/", "beta", mode, True, source_label="here", destination_label="there")
    snapshot = client.start(request)
    result = snapshot.result
    assert (snapshot.status, client.proxy.host_url) == (TaskStatus.COMPLETED, ferry.alpha.address)
    assert result is not None
    assert (result.dry_run, result.mode, result.size) == (True, mode, "7 B")
    assert (result.source.host_name, result.source.path) == ("here", str(ferry.source))
    assert (result.destination.host_name, result.destination.path) == ("there", "out/file.txt")
    assert result.transfer_id.startswith("file-transfer-")
    assert ferry.source.exists()
    assert ferry.saved() == {}
    assert ferry.notices(client, ferry.alpha) == [f"info File transfer: {title}" for title in ("found file", "dry run")]


@MODES
def test_a_file_replaces_another_only_when_told_to(ferry: Ferry, mode: FileTransferMode) -> None:
    ferry.target.mkdir()
    old = ferry.target / "file.txt"
    old.write_text("old")
    old.chmod(0o640)
    client = ferry.carrier()
    ferry.check_refused(client, client.start(ferry.request(mode=mode)), "destination already exists")
    assert ferry.saved() == {"file.txt": "old"}
    assert ferry.notices(client, ferry.alpha)[2:] == ["error File transfer: failed"]
    # The same paglet is good for another attempt.
    assert client.start(ferry.request(mode=mode, overwrite=True)).status is TaskStatus.COMPLETED
    assert ferry.saved() == {"file.txt": TEXT}
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert ferry.source.exists() == (mode is COPY)


@MODES
def test_a_file_is_carried_within_one_host(ferry: Ferry, mode: FileTransferMode) -> None:
    client = ferry.carrier()
    for destination in (ferry.source, ferry.source.parent):
        refused = client.start(ferry.request(destination, mode=mode, target_host=ferry.alpha.address, overwrite=True))
        ferry.check_refused(client, refused, "the same file")
    snapshot = client.start(ferry.request(mode=mode, target_host=ferry.alpha.address))
    assert (snapshot.status, snapshot.error, ferry.saved()) == (TaskStatus.COMPLETED, "", {"file.txt": TEXT})
    assert ferry.source.exists() == (mode is COPY)
    if mode is COPY:
        assert not ferry.source.samefile(ferry.target / "file.txt")


def test_a_disk_that_both_hosts_share_does_not_lose_the_file(ferry: Ferry) -> None:
    """The original is replaced by the saved file, which is not the original any more."""
    snapshot = ferry.carrier().start(ferry.request(ferry.source, mode=MOVE, overwrite=True))
    assert snapshot.status is TaskStatus.FAILED
    assert "has changed since it was sent" in snapshot.error
    assert ferry.source.read_text() == TEXT


def test_a_large_file_goes_to_another_file_system(ferry: Ferry, tmp_path: Path) -> None:
    other = Path("/dev/shm") / f"paglets-test-{os.getpid()}"
    if not other.parent.is_dir() or other.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    data = os.urandom(5_000_000)
    ferry.source.write_bytes(data)
    try:
        snapshot = ferry.carrier().start(ferry.request(other, mode=MOVE))
        assert (snapshot.status, snapshot.error) == (TaskStatus.COMPLETED, "")
        assert other.read_bytes() == data
        assert not ferry.source.exists()
    finally:
        other.unlink(missing_ok=True)


@MODES
def test_programs_that_save_on_arrival_go_on_working(ferry: Ferry, mode: FileTransferMode) -> None:
    client = ferry.carrier(StepwiseCarrier)
    ferry.target.mkdir()
    (ferry.target / "file.txt").write_text("old")
    refused = client.start(ferry.request(mode=mode))
    assert (refused.status, refused.host_name) == (TaskStatus.FAILED, "alpha")
    assert "destination already exists" in refused.error
    assert (ferry.source.read_text(), ferry.saved()) == (TEXT, {"file.txt": "old"})
    snapshot = client.start(ferry.request(mode=mode, overwrite=True))
    assert (snapshot.status, snapshot.host_name) == (TaskStatus.COMPLETED, "beta")
    assert ferry.saved() == {"file.txt": TEXT}
    if mode is MOVE:
        eventually(lambda: not ferry.source.exists(), "the original to be deleted")
    else:
        assert ferry.source.exists()


# --- what cannot be done ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"target_host": ""}, "target_host is required"),
        ({"target_host": "http://127.0.0.1:1"}, "reach"),
        ({"target_host": "nowhere"}, "nowhere"),
        ({"source_path": "missing.txt"}, "source is not a file: missing.txt"),
        ({"source_path": ""}, "source is not a file"),
        ({"source_path": "/"}, "source is not a file: /"),
    ],
)
def test_a_request_that_makes_no_sense_fails(ferry: Ferry, changes: dict[str, str], error: str) -> None:
    client = ferry.carrier()
    values = {"source_path": str(ferry.source), "target_host": ferry.beta.address} | changes
    ferry.check_refused(client, client.start(FileTransferRequest(**values)), error)  # type: ignore[arg-type]


@MODES
def test_a_directory_that_is_no_directory_is_seen_before_the_move_is_final(
    ferry: Ferry, mode: FileTransferMode
) -> None:
    ferry.target.write_text("a file")
    client = ferry.carrier()
    ferry.check_refused(client, client.start(ferry.request(mode=mode)), "is no directory")


def went_back(ferry: Ferry, client: Client) -> TaskSnapshot[FileTransferResult]:
    """Wait until the paglet is at the source again, where it has failed."""
    eventually(lambda: where(client.proxy, ferry.alpha, ferry.beta) == ["alpha"], "the paglet to return")
    return TaskClient.for_paglet(
        PagletProxy(ferry.alpha.address, client.proxy.agent_id, client.proxy.client), Carrier
    ).status()


@MODES
@pytest.mark.parametrize("hindrance", ["file", "no directory"])
def test_a_place_that_is_taken_after_the_move_sends_paglet_and_file_back(
    ferry: Ferry, gate: Gate, mode: FileTransferMode, hindrance: str
) -> None:
    client = ferry.carrier(saving=gate)
    taken = ferry.target / "file.txt" if hindrance == "file" else ferry.target
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(client.start, ferry.request(mode=mode))
        gate.await_entered()
        gate.path.unlink()
        taken.parent.mkdir(exist_ok=True)
        taken.write_text("somebody else's")
        gate.open()
        assert starting.result(30).status is TaskStatus.FAILED
    ferry.check_refused(client, went_back(ferry, client), "exist" if hindrance == "file" else str(ferry.target))
    assert taken.read_text() == "somebody else's"
    assert list(taken.parent.glob(".paglets-*")) == []
    assert ferry.alpha.get_state(client.proxy.agent_id, CarrierState).notices[2:] == ["error File transfer: failed"]


def test_a_paglet_that_cannot_return_fails_where_it_is(hosts: HostFactory, tmp_path: Path, gate: Gate) -> None:
    source = tmp_path / "file.txt"
    source.write_text(TEXT)
    alpha, beta = hosts("gamma"), hosts("delta")
    proxy = alpha.create(Carrier, CarrierState(gates={"saving": str(gate)}))
    client = TaskClient.for_paglet(proxy, Carrier)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(client.start, FileTransferRequest(str(source), str(tmp_path / "target"), beta.address))
        gate.await_entered()
        gate.path.unlink()
        there = eventually(lambda: beta.get_proxy(proxy.agent_id), "the paglet to have arrived")
        eventually(lambda: alpha.get_proxies() == [], "the paglet to have left")
        (tmp_path / "target").write_text("somebody else's")
        alpha.stop()
        gate.open()
        starting.exception(30)
    snapshot = TaskClient.for_paglet(there, Carrier).wait(wait_timeout=30)
    assert (snapshot.status, snapshot.host_name) == (TaskStatus.FAILED, "delta")
    assert source.read_text() == TEXT


@MODES
def test_a_full_disk_is_seen_before_the_move_is_final(ferry: Ferry, tmp_path: Path, mode: FileTransferMode) -> None:
    try:
        with small_disk(tmp_path / "disk", 1_000_000) as disk:
            ferry.source.write_text("x" * 2_000_000)
            client = ferry.carrier()
            snapshot = client.start(ferry.request(disk.path / "file.txt", mode=mode))
            assert (snapshot.status, snapshot.host_name) == (TaskStatus.FAILED, "alpha")
            assert "no room" in snapshot.error
            assert list(disk.path.iterdir()) == []
            assert ferry.source.stat().st_size == 2_000_000
    except CannotMountError as exc:
        pytest.skip(str(exc))


def test_a_source_that_cannot_be_deleted_is_not_moved(ferry: Ferry, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may delete everywhere, so the system's answer is made up; without a host, whose paglets are other processes.
    paglet = SingleFileTransferPaglet()
    monkeypatch.setattr("paglets.patterns.file_mobility.os.access", lambda path, mode: path != ferry.source.parent)
    monkeypatch.setattr(paglet, "remember_transfer_request", lambda request, source: "")
    with pytest.raises(PermissionError, match="its directory is not writable"):
        paglet.send_file(ferry.request(mode=MOVE))


def test_a_source_that_does_not_let_others_create_the_paglet_keeps_the_original(
    hosts: HostFactory, tmp_path: Path
) -> None:
    source = tmp_path / "file.txt"
    source.write_text(TEXT)
    alpha, beta = hosts("gamma", allow=["tests.agents.keeper"]), hosts("delta")
    client = TaskClient.for_paglet(alpha.create(Carrier), Carrier)
    request = FileTransferRequest(str(source), str(tmp_path / "target"), beta.address, MOVE)
    snapshot = client.start(request)
    assert (snapshot.status, snapshot.host_name) == (TaskStatus.FAILED, "delta")
    assert f"saved as {tmp_path / 'target'}, but the original gamma:{source} was not deleted" in snapshot.error
    assert source.read_text() == (tmp_path / "target").read_text() == TEXT


# --- files that change meanwhile --------------------------------------------------------------------------------------


def test_a_file_travels_as_it_is_when_it_leaves(ferry: Ferry, gate: Gate) -> None:
    client = ferry.carrier(dispatching=gate)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(client.start, ferry.request())
        gate.await_entered()
        gate.path.unlink()
        ferry.source.write_text("changed before it left")
        gate.open()
        snapshot = starting.result(30)
    assert (snapshot.status, ferry.saved()) == (TaskStatus.COMPLETED, {"file.txt": "changed before it left"})
    assert snapshot.result is not None
    assert snapshot.result.size_bytes == 22


@pytest.mark.parametrize("step", ["dispatching", "arrived", "published"])
def test_an_original_that_changes_meanwhile_is_not_deleted(ferry: Ferry, gate: Gate, step: str) -> None:
    client = ferry.carrier(**{step: gate})
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(client.start, ferry.request(mode=MOVE))
        gate.await_entered()
        gate.path.unlink()
        ferry.source.write_text("changed meanwhile")
        gate.open()
        snapshot = starting.result(30)
    assert (snapshot.status, snapshot.host_name) == (TaskStatus.FAILED, "beta")
    assert "has changed since it was sent, and was kept" in snapshot.error
    assert str(ferry.target / "file.txt") in snapshot.error
    assert ferry.source.read_text() == "changed meanwhile"
    assert list(ferry.saved()) == ["file.txt"]
    assert ferry.alpha.get_proxies() == []
    eventually(lambda: client.proxy.call(Carrier.files) == [], "the file to be left behind")


def test_a_file_that_vanishes_before_it_leaves_fails(ferry: Ferry, gate: Gate) -> None:
    client = ferry.carrier(dispatching=gate)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(client.start, ferry.request())
        gate.await_entered()
        gate.path.unlink()
        ferry.source.unlink()
        gate.open()
        snapshot = starting.result(30)
    assert (snapshot.status, snapshot.host_name) == (TaskStatus.FAILED, "alpha")
    assert "is missing" in snapshot.error
    assert ferry.saved() == {}


def test_an_original_that_is_gone_already_is_no_failure(ferry: Ferry, gate: Gate) -> None:
    client = ferry.carrier(published=gate)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(client.start, ferry.request(mode=MOVE))
        gate.await_entered()
        gate.path.unlink()
        ferry.source.unlink()
        gate.open()
        assert starting.result(30).status is TaskStatus.COMPLETED


# --- others meddle ----------------------------------------------------------------------------------------------------


@pytest.fixture
def held(ferry: Ferry, gate: Gate, request: pytest.FixtureRequest) -> Iterator[Client]:
    """Give a client of a paglet that has arrived and is about to do the step that is the parameter."""
    client = ferry.carrier(**{request.param: gate})
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(client.start, ferry.request(mode=MOVE), timeout=5)
        gate.await_entered()
        gate.path.unlink()
        eventually(lambda: ferry.alpha.get_proxies() == [], "the paglet to have left")
        there = ferry.beta.get_proxy(client.proxy.agent_id)
        assert there is not None
        yield TaskClient.for_paglet(there, Carrier)
        gate.open()
        starting.exception(30)


@pytest.mark.parametrize("held", ["saving"], indirect=True)
def test_another_start_is_refused_and_the_same_one_is_answered(ferry: Ferry, held: Client, gate: Gate) -> None:
    with pytest.raises(ConflictError, match="under way"):
        held.start(ferry.request(mode=COPY))
    assert held.start(ferry.request(mode=MOVE), timeout=5).status is TaskStatus.WAITING_FOR_ARRIVAL
    with pytest.raises(ConflictError, match="deletes no other"):
        held.proxy.call(FileMobilityMixin.remove_original, Original(str(ferry.source), 7, "", 0.0, 0.0))
    gate.open()
    assert held.wait(wait_timeout=30).status is TaskStatus.COMPLETED


@pytest.mark.parametrize("held", ["saving", "published", "noted"], indirect=True)
def test_a_paglet_that_ends_on_the_way_leaves_a_whole_file_and_nothing_half(ferry: Ferry, held: Client) -> None:
    held.proxy.dispose()
    assert ferry.source.read_text() == TEXT
    assert set(ferry.saved().items()) <= {("file.txt", TEXT)}
    with pytest.raises(InvalidAgentError):
        held.status()


@pytest.mark.parametrize("held", ["saving"], indirect=True)
def test_a_paglet_that_is_put_to_sleep_goes_on_when_it_wakes(ferry: Ferry, held: Client) -> None:
    held.proxy.deactivate()
    assert ferry.saved() == {}
    held.proxy.activate()
    assert held.wait(wait_timeout=30).status is TaskStatus.COMPLETED
    assert ferry.saved() == {"file.txt": TEXT}
    assert not ferry.source.exists()


@pytest.mark.parametrize("held", ["saving"], indirect=True)
def test_a_paglet_that_is_called_back_has_failed(ferry: Ferry, held: Client) -> None:
    back = ferry.alpha.retract(ferry.beta.address, held.proxy.agent_id)
    snapshot = TaskClient.for_paglet(back, Carrier).status()
    assert (snapshot.status, snapshot.error) == (TaskStatus.FAILED, "taken from beta to alpha before it was done")
    assert (ferry.source.read_text(), ferry.saved()) == (TEXT, {})


@pytest.mark.parametrize("held", ["saving"], indirect=True)
def test_a_paglet_that_is_started_again_on_its_host_goes_on(ferry: Ferry, held: Client) -> None:
    held.proxy.dispatch(ferry.beta.address)
    assert held.wait(wait_timeout=30).status is TaskStatus.COMPLETED
    assert ferry.saved() == {"file.txt": TEXT}


# --- without a host ---------------------------------------------------------------------------------------------------


def test_the_steps_that_need_no_host(tmp_path: Path) -> None:
    paglet = SingleFileTransferPaglet()
    assert issubclass(SingleFileTransferPaglet, FileMobilityMixin)
    assert paglet.require_transfer_target(FileTransferRequest("a", target_host=" beta ")) == "beta"
    with pytest.raises(ValueError, match="target_host is required"):
        paglet.require_transfer_target(FileTransferRequest("a"))
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    source = paglet.stat_transfer_source(path)
    status = path.stat()
    assert (source.path, source.file_name, source.size_bytes) == (path, "a.txt", 7)
    assert (source.created_at, source.modified_at) == (status.st_ctime, status.st_mtime)
    assert paglet.atomic_copy_file(path, tmp_path / "new" / "b", overwrite=False) == tmp_path / "new" / "b"
    assert (tmp_path / "new" / "b").read_text() == TEXT
    assert paglet.plan_destination_path("out/", "a.txt") == "out/a.txt"
    assert paglet.resolve_destination_path(str(tmp_path), "a.txt") == path
    assert paglet.resolve_destination_path(str(tmp_path), "a.txt", check_existing_dir=False) == tmp_path
    assert paglet.current_transfer_arrival() is None
    assert paglet.notify_transfer_info("title", "text") is paglet.notify_transfer_error("title", "text") is False
    paglet.mark_waiting_for_arrival()
    assert (paglet.state.status, paglet.state.done) == (TaskStatus.WAITING_FOR_ARRIVAL, False)
    assert paglet.task_is_under_way()
    assert (paglet.registered_file_name, paglet.notification_title) == ("file", "File transfer")


def test_a_result_follows_from_the_state() -> None:
    state = FileTransferState(
        transfer_id="t", mode=MOVE, source_host_name="alpha", source_path="/a", file_name="a", size_bytes=1536
    )
    result = SingleFileTransferPaglet(state).build_transfer_result(destination_path="/b", dry_run=True)
    assert dataclass_to_wire(result) == {
        "transfer_id": "t",
        "mode": "move",
        "dry_run": True,
        "source": {"host_name": "alpha", "host_url": "", "path": "/a", "created_at": 0.0, "modified_at": 0.0},
        "destination": {"host_name": "", "host_url": "", "path": "/b", "created_at": 0.0, "modified_at": 0.0},
        "file_name": "a",
        "size_bytes": 1536,
        "size": "1.5 KB",
    }
