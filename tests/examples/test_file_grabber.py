"""The file grabber: its paglet, its transfers seen from outside, and `paglets-file-grabber`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paglets.cli.launcher import INTERRUPTED_EXIT
from paglets.core.agent import ACTIVE, INACTIVE
from paglets.core.errors import HostError, InvalidAgentError, RemoteHostError
from paglets.examples.file_grabber import (
    FileGrabberPaglet,
    FileGrabberState,
    FileGrabMode,
    FileGrabRequest,
    FileGrabResult,
    TaskStatus,
    agent,
    format_bytes,
    transfer,
)
from paglets.examples.file_grabber.cli import DEFAULT_REQUEST_TIMEOUT_SECONDS, main, run_transfer
from paglets.patterns import (
    FileMobilityMixin,
    FileTransferMode,
    FileTransferRequest,
    FileTransferResult,
    FileTransferState,
    SingleFileTransferPaglet,
    TaskClient,
    TaskPaglet,
    TaskSnapshot,
)
from paglets.remote.admin import ServerRef
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from tests.support import HostFactory, eventually

Main = Callable[..., tuple[int, str, str]]


@dataclass
class Grab:
    """Two hosts of a mesh, a file for both, and a directory."""

    alpha: Host
    beta: Host
    source: Path
    out: Path

    @property
    def servers(self) -> tuple[ServerRef, ServerRef]:
        return ServerRef("alpha", self.alpha.address), ServerRef("beta", self.beta.address)

    def transfer(self, direction: str, **options: Any) -> TaskSnapshot[FileTransferResult]:
        given = {"source": str(self.source), "dest": str(self.out / "file.txt"), "request_timeout": 30.0} | options
        with HostClient() as client:
            return run_transfer(*self.servers, Namespace(direction=direction, **given), client=client)

    def paglets(self) -> list[str]:
        return [proxy.agent_id for host in (self.alpha, self.beta) for proxy in host.get_proxies(ACTIVE | INACTIVE)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    factory = HostFactory(tmp_path_factory.mktemp("pair"))
    try:
        alpha = factory("alpha", mesh=True)
        beta = factory("beta", mesh=True, peers=[alpha.address])
        alpha.mesh.wait_for_host("beta")
        yield alpha, beta
    finally:
        factory.close()


@pytest.fixture
def grab(pair: tuple[Host, Host], tmp_path: Path) -> Grab:
    source = tmp_path / "source" / "file.txt"
    source.parent.mkdir()
    source.write_text("content")
    return Grab(*pair, source, tmp_path / "out")


@pytest.fixture
def grabber(pair: tuple[Host, Host], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Main:
    """Give what runs the program in this process and returns exit code, output and errors."""
    for variable in ("PAGLETS_API_KEY", "PAGLETS_ENTRY"):
        monkeypatch.delenv(variable, raising=False)

    def run(*arguments: str, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["--entry", pair[0].address, *before, *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# --- the paglet -------------------------------------------------------------------------------------------------------


def test_the_paglet_is_put_together_from_the_patterns() -> None:
    assert issubclass(FileGrabberPaglet, FileMobilityMixin)
    assert issubclass(FileGrabberPaglet, TaskPaglet)
    assert not issubclass(FileGrabberPaglet, SingleFileTransferPaglet)
    assert {"run_task", "on_arrival"} <= vars(FileGrabberPaglet).keys()
    assert (FileGrabMode, FileGrabRequest) == (FileTransferMode, FileTransferRequest)
    assert FileGrabResult is FileTransferResult
    assert FileGrabberState() == FileGrabberState(**vars(FileTransferState()))
    assert FileGrabberPaglet.registered_file_name == "grabbed-file"
    assert FileGrabberPaglet.notification_title == "File grabber"
    assert agent.format_bytes is format_bytes
    assert (format_bytes(7), format_bytes(1536)) == ("7 B", "1.5 KB")


def test_a_dry_run_stays(grab: Grab) -> None:
    client = TaskClient.for_paglet(grab.alpha.create(FileGrabberPaglet), FileGrabberPaglet)
    snapshot = client.start(FileGrabRequest(str(grab.source), "x/", grab.beta.address, dry_run=True))
    assert (snapshot.status, client.proxy.host_url) == (TaskStatus.COMPLETED, grab.alpha.address)
    assert snapshot.result is not None
    assert (snapshot.result.size, snapshot.result.source.path) == ("7 B", str(grab.source.resolve()))
    assert snapshot.result.destination.path == "x/file.txt"
    client.proxy.dispose()


def test_a_copy_moves_the_paglet_and_not_the_file(grab: Grab) -> None:
    client = TaskClient.for_paglet(grab.alpha.create(FileGrabberPaglet), FileGrabberPaglet)
    snapshot = client.start(FileGrabRequest(str(grab.source), str(grab.out / "a"), grab.beta.address))
    assert (snapshot.status, client.proxy.host_url) == (TaskStatus.COMPLETED, grab.beta.address)
    assert (grab.out / "a").read_text() == grab.source.read_text() == "content"
    assert grab.alpha.get_proxies() == []
    client.proxy.dispose()


# --- transfers seen from outside --------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["push", "pull"])
@pytest.mark.parametrize("mode", ["copy", FileGrabMode.MOVE])
def test_a_file_is_pushed_and_pulled(grab: Grab, direction: str, mode: Any) -> None:
    snapshot = grab.transfer(direction, mode=mode)
    assert (snapshot.status, snapshot.error) == (TaskStatus.COMPLETED, "")
    assert snapshot.result is not None
    names = (snapshot.result.source.host_name, snapshot.result.destination.host_name)
    assert names == (("alpha", "beta") if direction == "push" else ("beta", "alpha"))
    assert (grab.out / "file.txt").read_text() == "content"
    assert grab.source.exists() == (mode == "copy")
    assert grab.paglets() == []


@pytest.mark.parametrize("mode", list(FileGrabMode))
def test_a_failure_keeps_both_files(grab: Grab, mode: FileGrabMode) -> None:
    grab.out.mkdir()
    (grab.out / "file.txt").write_text("old")
    snapshot = grab.transfer("push", mode=mode)
    assert snapshot.status is TaskStatus.FAILED
    assert "destination already exists" in snapshot.error
    assert ((grab.out / "file.txt").read_text(), grab.source.read_text()) == ("old", "content")
    assert grab.paglets() == []
    assert grab.transfer("push", mode=mode, overwrite=True).status is TaskStatus.COMPLETED


def test_a_direction_must_be_given(grab: Grab) -> None:
    with pytest.raises(ValueError, match="pushed or pulled"):
        grab.transfer("")
    assert grab.paglets() == []


class Asking(HostClient):
    """Remembers what it was asked for."""

    def get_json(self, url: str, *, timeout: float | None = None) -> Any:
        asked.append(url)
        return super().get_json(url, timeout=timeout)


asked: list[str] = []


def test_hosts_are_asked_whether_they_are_there_while_a_transfer_takes_long(
    grab: Grab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, first = transfer.wait, iter([Namespace(done=set())])
    monkeypatch.setattr(transfer, "wait", lambda futures, timeout: next(first, None) or real(futures, timeout))
    asked.clear()
    with Asking() as client:
        order = Namespace(direction="push", source=str(grab.source), dest=f"{grab.out}/")
        assert run_transfer(*grab.servers, order, client=client).status is TaskStatus.COMPLETED
    health = [url for url in asked if url.endswith("/health")]
    assert health == [f"{grab.alpha.address}/health", f"{grab.beta.address}/health"]


def test_a_host_that_is_gone_ends_the_watch_and_the_paglet(grab: Grab, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> Any:
        raise RemoteHostError("gone")

    monkeypatch.setattr(transfer, "_watched", gone)
    with pytest.raises(RemoteHostError, match="gone"):
        grab.transfer("push")
    assert grab.paglets() == []


def test_a_paglet_that_cannot_be_ended_is_named(grab: Grab, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise RemoteHostError("unreachable")

    with monkeypatch.context() as patch:
        patch.setattr(HostClient, "operate", unreachable)
        with pytest.raises(transfer.StillThereError, match=r"may be left at alpha \(unreachable\), beta \(unreachable"):
            grab.transfer("push")
    (left,) = grab.paglets()
    grab.beta.dispose(left)


def test_a_transfer_that_its_paglet_has_forgotten_is_an_error(grab: Grab, monkeypatch: pytest.MonkeyPatch) -> None:
    new: Any = TaskSnapshot(TaskStatus.NEW, False, host_name="alpha")
    monkeypatch.setattr(TaskClient, "start", lambda *_, **__: new)
    with pytest.raises(HostError, match="has forgotten the transfer"):
        grab.transfer("push")
    assert grab.paglets() == []


def test_paths_mean_the_present_directory_on_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here, there = ServerRef("here", "http://127.0.0.1:1"), ServerRef("there", "http://192.0.2.7:1")
    assert transfer.path_for(here, "a/b") == str(tmp_path / "a" / "b")
    assert transfer.path_for(here, "a/") == f"{tmp_path}/a/"
    assert transfer.path_for(here, "") == transfer.path_for(here, ".") == f"{tmp_path}/"
    for path in ("/a/b", "~/a"):
        assert transfer.path_for(here, path) == path
    for path in ("a", "", "a/"):
        assert transfer.path_for(there, path) == path
    assert transfer.path_for(ServerRef("", "http://localhost:1"), "a") == str(tmp_path / "a")
    assert transfer.path_for(ServerRef("", "http://example.invalid"), "a") == "a"


# --- the program ------------------------------------------------------------------------------------------------------


def test_the_program_pushes_and_says_so(grab: Grab, grabber: Main) -> None:
    code, out, err = grabber("push", str(grab.source), "--remote", "beta", "--dest", f"{grab.out}/")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"COMPLETED: alpha:{grab.source} (7 B) -> beta:{grab.out / 'file.txt'}",
        "saved with mode=copy",
    ]
    assert (grab.out / "file.txt").read_text() == "content"
    assert grab.paglets() == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the name of a file is always text")
def test_a_file_whose_name_is_no_text_is_pushed(grab: Grab, grabber: Main) -> None:
    odd = grab.source.with_name("caf\udce9.txt")
    grab.source.rename(odd)
    code, out, err = grabber("push", str(odd), "--remote", "beta", "--dest", f"{grab.out}/")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].endswith(f"-> beta:{grab.out}/caf\\udce9.txt")
    assert (grab.out / "caf\udce9.txt").read_text() == "content"


def test_the_program_pulls_and_says_so_as_json(grab: Grab, grabber: Main) -> None:
    arguments = ["--remote", grab.beta.address, "--dest", str(grab.out / "x"), "--mode", "move", "--json"]
    code, out, err = grabber("pull", str(grab.source), *arguments)
    assert (code, err) == (0, "")
    wire = json.loads(out)
    assert (wire["status"], wire["done"], wire["host_name"]) == ("COMPLETED", True, "alpha")
    assert (wire["result"]["mode"], wire["result"]["source"]["host_name"]) == ("move", "beta")
    assert ((grab.out / "x").read_text(), grab.source.exists()) == ("content", False)


def test_the_program_says_what_it_would_do(grab: Grab, grabber: Main) -> None:
    code, out, _ = grabber("push", str(grab.source), "--remote", "beta", "--dest", "x/", "--dry", "--mode", "move")
    assert code == 0
    assert out.splitlines() == [f"DRY_RUN: alpha:{grab.source} (7 B) -> beta:x/file.txt", "would save with mode=move"]
    assert grab.source.exists()
    assert grab.paglets() == []


def test_the_program_says_what_failed(grab: Grab, grabber: Main) -> None:
    code, out, err = grabber("push", str(grab.out / "missing"), "--remote", "beta")
    assert (code, out, err) == (1, f"FAILED: source is not a file: {grab.out / 'missing'}\n", "")
    code, out, _ = grabber("push", str(grab.out / "missing"), "--remote", "beta", "--json")
    assert (code, json.loads(out)["status"]) == (1, "FAILED")
    assert grab.paglets() == []


def test_relative_paths_are_those_of_whoever_runs_the_program(
    grab: Grab, grabber: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(grab.source.parent)
    assert grabber("push", "file.txt", "--remote", "beta", "--dest", f"{grab.out}/")[0] == 0
    grab.source.unlink()
    assert grabber("pull", str(grab.out / "file.txt"), "--remote", "beta")[0] == 0
    assert grab.source.read_text() == "content"


@pytest.mark.parametrize(
    ("remote", "words"),
    [
        ("gamma", "remote host 'gamma' was not found from entry host 'alpha'"),
        ("http://127.0.0.1:2", "Could not reach"),  # a port below 1024 that nothing listens on here
        ("127.0.0.1:1", "Could not reach http://127.0.0.1:1"),
    ],
)
def test_a_remote_host_that_is_not_there(grab: Grab, grabber: Main, remote: str, words: str) -> None:
    code, out, err = grabber("push", str(grab.source), "--remote", remote, before=("--request-timeout", "5"))
    assert (code, out) == (2, "")
    assert err.startswith("paglets-file-grabber: ")
    assert words in err


def test_a_remote_host_that_is_offline(hosts: HostFactory, grab: Grab, grabber: Main) -> None:
    delta = hosts("delta", mesh=True, peers=[grab.alpha.address])
    grab.alpha.mesh.wait_for_host("delta")
    delta.stop()
    eventually(lambda: not grab.alpha.mesh.is_online("delta"), "delta to be offline", 60)
    code, _, err = grabber("push", str(grab.source), "--remote", "delta")
    assert (code, err) == (2, "paglets-file-grabber: remote host 'delta' is known but offline\n")


def test_an_entry_host_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--entry", "http://127.0.0.1:1", "push", "x", "--remote", "beta"]) == 2
    assert capsys.readouterr().err.startswith("paglets-file-grabber: No paglets host answered")


@pytest.mark.parametrize(
    "arguments", [[], ["push"], ["push", "x"], ["fetch", "x"], ["push", "x", "--remote", "y", "--mode", "lend"]]
)
def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_an_interruption_ends_the_paglet(grab: Grab, grabber: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[list[str]] = []

    def interrupted(*_: Any, **__: Any) -> Any:
        created.append(grab.paglets())
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer, "wait", interrupted)
    code, out, err = grabber("push", str(grab.source), "--remote", "beta", "--dest", f"{grab.out}/")
    assert (code, out, err) == (INTERRUPTED_EXIT, "", "")
    assert len(created[0]) == 1
    assert grab.paglets() == []
    assert grab.source.read_text() == "content"


def test_an_interruption_that_leaves_the_paglet_says_so(
    grab: Grab, grabber: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    def unreachable(*_: Any, **__: Any) -> Any:
        raise RemoteHostError("unreachable")

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_watched", interrupted)
        patch.setattr(HostClient, "operate", unreachable)
        code, _, err = grabber("push", str(grab.source), "--remote", "beta")
    assert code == INTERRUPTED_EXIT
    (left,) = grab.paglets()
    assert f"paglet {left} may be left at alpha (unreachable)" in err
    grab.alpha.dispose(left)
    with pytest.raises(InvalidAgentError):
        grab.alpha.dispose(left)


def test_the_default_patience() -> None:
    assert DEFAULT_REQUEST_TIMEOUT_SECONDS == 60.0
