"""Transfers that survive broken connections, silent hosts and dead ones."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from paglets.artifacts import ArtifactRef
from paglets.core.errors import ConnectionLostError, RemoteHostError, RemoteTimeoutError, TransferError
from paglets.remote import content_calls, uploads
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from tests.cli.processes import Program
from tests.remote.cutting import Cutter
from tests.remote.scripted import Received, ScriptedHost, reply, response
from tests.support import HostFactory, eventually, free_port

SIZE = 6 * 1024 * 1024 + 11
SOME = 1_500_000


@pytest.fixture
def client() -> Iterator[HostClient]:
    with HostClient() as made:
        yield made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small uploads resumed too."""
    monkeypatch.setattr(uploads, "RESUMABLE_BYTES", 1_000_000)


def parts_of(host: Host) -> list[str]:
    return [path.name for path in (host.persistence_dir / "artifacts" / "tmp").iterdir()]


def check_stored(host: Host, ref: ArtifactRef, source: Path) -> None:
    assert ref.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert host.artifacts.list() == [ref]
    assert host.artifacts.blob_path(ref.artifact_id).read_bytes() == source.read_bytes()
    assert parts_of(host) == []
    assert host.artifacts.used_bytes == SIZE


# --- up ---------------------------------------------------------------------------------------------------------------


def test_a_large_upload_goes_on_after_breaks(hosts: HostFactory, client: HostClient, source: Path, early: None) -> None:
    host = hosts()
    told: list[int] = []
    with Cutter(host.address, [SOME, 400, 400, SOME], upwards=True) as way:
        ref = client.upload_artifact(way.url, source, progress=lambda done, _total: told.append(done))
        assert way.cut >= 3
    assert told[-1] == SIZE
    check_stored(host, ref, source)


def test_a_large_upload_goes_on_from_coroutines_too(hosts: HostFactory, source: Path, early: None) -> None:
    host = hosts()

    async def go(url: str) -> ArtifactRef:
        async with AsyncHostClient() as client:
            return await client.upload_artifact(url, source)

    with Cutter(host.address, [SOME, SOME], upwards=True) as way:
        check_stored(host, asyncio.run(go(way.url)), source)


def test_an_answer_that_got_lost_does_not_make_another_artifact(
    hosts: HostFactory, client: HostClient, source: Path, early: None
) -> None:
    host = hosts()
    with Cutter(host.address, [10], upwards=False) as way:
        ref = client.upload_artifact(way.url, source)
        assert way.cut == 1
    check_stored(host, ref, source)


def test_a_small_upload_is_not_tried_again(hosts: HostFactory, client: HostClient, source: Path) -> None:
    host = hosts()
    with Cutter(host.address, [SOME], upwards=True) as way, pytest.raises(ConnectionLostError):
        client.upload_artifact(way.url, source)
    eventually(lambda: parts_of(host) == [], "nothing left")


def test_an_upload_gives_up_in_the_end_and_leaves_nothing(
    hosts: HostFactory, client: HostClient, source: Path, early: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_calls, "_FIRST_PAUSE_SECONDS", 0.001)
    host = hosts()
    with Cutter(host.address, [SOME] + [300] * 100, upwards=True) as way:
        with pytest.raises(ConnectionLostError):
            client.upload_artifact(way.url, source)
        assert way.connections < 30
    eventually(lambda: host.artifacts.list() == [], "no artifact")


def test_a_host_that_keeps_nothing_of_what_breaks_off_is_not_asked_twice(
    client: HostClient, source: Path, early: None
) -> None:
    def answer(request: Received, _connection: object) -> bytes | None:
        if request.method == "POST":
            return None
        return reply({"error_type": "NotFoundError", "error": "no route"}, "404 Not Found")

    with ScriptedHost(answer) as host:
        with pytest.raises(ConnectionLostError):
            client.upload_artifact(host.url, source)
        assert [request.method for request in host.requests] == ["POST", "GET", "DELETE"]


def test_a_host_that_was_never_reached_is_not_waited_for(client: HostClient, source: Path, early: None) -> None:
    with pytest.raises(RemoteHostError, match="Could not reach"):
        client.upload_artifact(f"http://127.0.0.1:{free_port()}", source)


def test_a_file_that_changes_between_two_attempts_is_noticed(
    hosts: HostFactory, client: HostClient, source: Path, early: None
) -> None:
    host = hosts()
    changed = threading.Event()

    def change(done: int, _total: int) -> None:
        if done > SOME and not changed.is_set():
            changed.set()
            with source.open("r+b") as stream:
                stream.seek(SIZE - 1)
                stream.write(b"other"[:1])
            os.utime(source, ns=(0, 0))

    with pytest.raises(TransferError, match="changed"):
        client.upload_artifact(host.address, source, progress=change)
    assert host.artifacts.list() == []
    assert parts_of(host) == []


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_survives_the_death_of_its_host(tmp_path: Path, early: None, announced: bool) -> None:
    port = free_port()
    source = tmp_path / "source"
    source.write_bytes(content := os.urandom(24 * 1024 * 1024))
    sha256 = hashlib.sha256(content).hexdigest()
    options = ["--name", "alpha", "--port", str(port), "--persistence-dir", str(tmp_path / "alpha"), "--no-mesh"]
    options += ["--launch-config", str(tmp_path / "launch.toml"), "--no-sync-launch-config", "--json"]
    programs = [Program("host", *options)]
    url = str(programs[0].json_line()["address"])

    def kill(done: int, total: int) -> None:
        if done > total // 3 and len(programs) == 1:
            programs[0].process.send_signal(signal.SIGKILL)
            programs[0].process.wait()
            programs.append(Program("host", *options))
            # Waited for here, since a loaded machine may take longer than a client is patient.
            programs[1].json_line()

    try:
        with HostClient() as client:
            ref = client.upload_artifact(url, source, progress=kill, expected_sha256=sha256 if announced else None)
            assert len(programs) == 2
            assert ref.sha256 == sha256
            assert client.list_artifacts(url) == [ref]
            client.download_artifact(ref, tmp_path / "copy")
    finally:
        for program in programs:
            program.close()
    assert (tmp_path / "copy").read_bytes() == content


# --- down -------------------------------------------------------------------------------------------------------------


def test_a_download_goes_on_after_breaks(hosts: HostFactory, client: HostClient, source: Path, tmp_path: Path) -> None:
    host = hosts()
    stored = host.client.upload_artifact(host.address, source)
    told: list[int] = []
    with Cutter(host.address, [SOME, 300, SOME], upwards=False) as way:
        ref = ArtifactRef.from_wire({**stored.to_wire(), "host_url": way.url})
        client.download_artifact(ref, tmp_path / "copy", progress=lambda done, _total: told.append(done))
        assert way.cut == 3
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert told == sorted(told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "host-alpha", "source"]


def test_a_download_gives_up_in_the_end_and_leaves_nothing(
    hosts: HostFactory, client: HostClient, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_calls, "_FIRST_PAUSE_SECONDS", 0.001)
    host = hosts()
    stored = host.client.upload_artifact(host.address, source)
    with Cutter(host.address, [SOME] + [300] * 100, upwards=False) as way:
        ref = ArtifactRef.from_wire({**stored.to_wire(), "host_url": way.url})
        with pytest.raises(ConnectionLostError):
            client.download_artifact(ref, tmp_path / "copy")
        assert way.connections < 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host-alpha", "source"]


def ranges(content: bytes, honest: str) -> ScriptedHost:
    """Serve some content, the first time only half of it, and the rest in one way or another."""
    sha256 = hashlib.sha256(content).hexdigest()
    half = len(content) // 2

    def answer(request: Received, connection: object) -> bytes | None:
        fields = {"x_paglets_artifact_sha256": sha256, "content_type": "application/octet-stream"}
        if "range" not in request.headers:
            whole = response(content, **fields)
            connection.sendall(whole[: len(whole) - half])  # type: ignore[attr-defined]
            return None
        assert request.headers["if-range"] == f'"{sha256}"'
        start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        assert start == len(content) - half
        if honest == "no ranges":
            return response(content, **fields)
        if honest == "other range":
            start -= 1
        named = f"bytes {start}-{len(content) - 1}/{len(content)}" if honest != "no name" else "x"
        body = content[start:] if honest != "other bytes" else bytes(len(content) - start)
        return response(body, "206 Partial Content", content_range=named, **fields)

    return ScriptedHost(answer)


@pytest.mark.parametrize("honest", ["yes", "no ranges"])
def test_a_host_may_not_know_ranges(client: HostClient, tmp_path: Path, honest: str) -> None:
    content = os.urandom(100_000)
    with ranges(content, honest) as host:
        sha256 = hashlib.sha256(content).hexdigest()
        ref = ArtifactRef(host.url, "1", size_bytes=len(content), sha256=sha256)
        client.download_artifact(ref, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize("honest", ["other range", "no name", "other bytes"])
def test_a_host_that_gives_something_else_is_not_believed(client: HostClient, tmp_path: Path, honest: str) -> None:
    content = os.urandom(100_000)
    with ranges(content, honest) as host:
        sha256 = hashlib.sha256(content).hexdigest()
        ref = ArtifactRef(host.url, "1", size_bytes=len(content), sha256=sha256)
        with pytest.raises((RemoteHostError, TransferError)):
            client.download_artifact(ref, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_goes_silent_is_given_up_soon(client: HostClient, tmp_path: Path) -> None:
    content = os.urandom(100_000)

    def answer(request: Received, connection: object) -> bytes | None:
        whole = response(content)
        if "range" not in request.headers:
            connection.sendall(whole[:50_000])  # type: ignore[attr-defined]
        return b""

    with ScriptedHost(answer) as host:
        ref = ArtifactRef(host.url, "1", size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        with pytest.raises(RemoteTimeoutError):
            client.download_artifact(ref, tmp_path / "copy", timeout=0.2)
        assert len(host.requests) <= 3
    assert list(tmp_path.iterdir()) == []


# --- parts ------------------------------------------------------------------------------------------------------------


def test_parts_of_an_artifact(hosts: HostFactory, client: HostClient, source: Path) -> None:
    host = hosts()
    content = source.read_bytes()
    ref = client.upload_artifact(host.address, source)
    for start, length in ((0, None), (0, 1), (5, 0), (SIZE - 3, 100), (SIZE, None), (SIZE + 5, 7), (10, SIZE)):
        expected = content[start : None if length is None else start + length]
        assert client.read_artifact(ref, start=start, length=length) == expected
        assert client.read_artifact(host.address, ref.artifact_id, start=start, length=length) == expected
    for start, length in ((-1, None), (0, -1)):
        with pytest.raises(ValueError, match="negative"):
            client.read_artifact(ref, start=start, length=length)
        with pytest.raises(ValueError, match="negative"):
            host.client.read_artifact(ref, start=start, length=length)


def test_parts_are_read_within_bounds(hosts: HostFactory, source: Path) -> None:
    host = hosts()
    ref = host.client.upload_artifact(host.address, source)
    with HostClient(max_response_bytes=1_000_000) as small:
        assert len(small.read_artifact(ref, length=1_000_000)) == 1_000_000
        for length in (None, 1_000_001):
            with pytest.raises(TransferError, match="download the file"):
                small.read_artifact(ref, length=length)
    host.client.max_response_bytes = 1_000_000
    with pytest.raises(TransferError, match="download the file"):
        host.client.read_artifact(ref)


def test_a_whole_artifact_is_verified(client: HostClient) -> None:
    with ScriptedHost(lambda _request, _connection: response(b"other bytes")) as host:
        ref = ArtifactRef(host.url, "1", size_bytes=11, sha256="0" * 64)
        with pytest.raises(TransferError, match="checksum"):
            client.read_artifact(ref)
        assert client.read_artifact(host.url, "1", start=2, length=3) == b"her"
