"""Artifacts between programs, hosts and paglets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paglets.artifacts import ArtifactRef, PagletFileRef
from paglets.core.errors import (
    AuthenticationError,
    HostError,
    NotHandledError,
    RemoteHostError,
    TransferError,
)
from paglets.core.messages import Message
from paglets.remote.aio import AsyncHostClient
from paglets.remote.aio_proxy import AsyncPagletProxy
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.archivist import Archivist, ArchivistState
from tests.support import HostFactory, eventually


@pytest.fixture
def client() -> Iterator[HostClient]:
    with HostClient() as made:
        yield made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(b"artifact " * 1000)
    return path


def files_of(host: Host) -> list[str]:
    """Return what lies in the store of a host, apart from directories."""
    root = host.persistence_dir / "artifacts"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# --- what they are described by ---------------------------------------------------------------------------------------


def test_references_survive_the_wire() -> None:
    ref = ArtifactRef("http://h", "0" * 32, "name", 7, "ab" * 32, "gz", 1.5, 2.5, "owner")
    assert ArtifactRef.from_wire(ref.to_wire()) == ref
    file = PagletFileRef("name", mode="move", source_path="/x", size_bytes=3, last_error="no")
    assert PagletFileRef.from_wire(file.to_wire()) == file


# --- a program and a host ---------------------------------------------------------------------------------------------


def test_up_list_down_delete(hosts: HostFactory, client: HostClient, source: Path, tmp_path: Path) -> None:
    host = hosts()
    before = time.time()
    mine = client.upload_artifact(
        host.address, source, owner_agent_id="me", name="a name", compression="label", expires_at=before + 1000
    )
    assert mine == ArtifactRef(
        host_url=host.address,
        artifact_id=mine.artifact_id,
        name="a name",
        size_bytes=9000,
        sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
        compression="label",
        created_at=mine.created_at,
        expires_at=before + 1000,
        owner_agent_id="me",
    )
    assert before <= mine.created_at <= time.time()
    yours = client.upload_artifact(host.address, source, owner_agent_id="you")
    assert yours.name == "source.bin"
    assert client.list_artifacts(host.address) == sorted([mine, yours], key=lambda ref: ref.artifact_id)
    assert client.list_artifacts(host.address, owner_agent_id="me") == [mine]
    assert client.artifact_metadata(host.address, mine.artifact_id) == mine
    target = tmp_path / "new" / "copy.bin"
    assert client.download_artifact(mine, target) == mine
    assert target.read_bytes() == source.read_bytes()
    assert client.read_artifact(mine, start=9, length=8) == b"artifact"
    assert client.download_artifact(host.address, target, yours.artifact_id, move=True) == yours
    assert client.list_artifacts(host.address) == [mine]
    client.delete_artifact(mine)
    client.delete_artifact(mine)
    assert files_of(host) == []
    assert host.artifacts.used_bytes == 0


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 6 * 1024 * 1024 + 7])
def test_content_of_any_size_comes_back(hosts: HostFactory, client: HostClient, tmp_path: Path, size: int) -> None:
    host = hosts()
    (tmp_path / "content").write_bytes(content := os.urandom(size))
    told: list[tuple[int, int]] = []
    ref = client.upload_artifact(host.address, tmp_path / "content", progress=lambda *step: told.append(step))
    client.download_artifact(ref, tmp_path / "copy", progress=lambda *step: told.append(step))
    assert (tmp_path / "copy").read_bytes() == content
    assert client.read_artifact(ref) == content
    if size:
        assert told.count((size, size)) == 2
    assert host.blobs.has(hashlib.sha256(content).hexdigest())


def test_the_same_from_coroutines(hosts: HostFactory, source: Path, tmp_path: Path) -> None:
    host = hosts()

    async def go() -> None:
        async with AsyncHostClient() as client:
            told: list[tuple[int, int]] = []
            ref = await client.upload_artifact(host.address, source, progress=lambda *step: told.append(step))
            assert await client.read_artifact(ref, start=9, length=8) == b"artifact"
            assert await client.download_artifact(ref, tmp_path / "copy", move=True) == ref
            assert told[-1] == (9000, 9000)
            with pytest.raises(TransferError, match="No artifact"):
                await client.read_artifact(ref)

    asyncio.run(go())
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_a_wrong_checksum_leaves_nothing(hosts: HostFactory, client: HostClient, source: Path) -> None:
    host = hosts()
    with pytest.raises(TransferError, match="checksum"):
        client.upload_artifact(host.address, source, expected_sha256="0" * 64)
    assert files_of(host) == []


@pytest.mark.parametrize("method", ["download_artifact", "delete_artifact", "read_artifact"])
def test_a_url_needs_an_id(hosts: HostFactory, client: HostClient, tmp_path: Path, method: str) -> None:
    arguments = [tmp_path / "x"] if method == "download_artifact" else []
    with pytest.raises(ValueError, match=rf"{method}.*artifact_id"):
        getattr(client, method)("http://127.0.0.1:1", *arguments)


def test_the_key_is_asked_for(hosts: HostFactory, client: HostClient, source: Path, tmp_path: Path) -> None:
    host = hosts(api_key="secret")
    for call in (
        lambda: client.upload_artifact(host.address, source),
        lambda: client.download_artifact(ArtifactRef(host.address, "0" * 32, sha256="0" * 64), tmp_path / "x"),
        lambda: client.read_artifact(host.address, "0" * 32),
    ):
        with pytest.raises(AuthenticationError, match="PAGLETS_API_KEY"):
            call()
    client.api_key = "secret"
    assert client.upload_artifact(host.address, source).size_bytes == 9000


def test_limits_of_a_host(hosts: HostFactory, client: HostClient, tmp_path: Path) -> None:
    host = hosts(artifact_max_bytes=1000, artifact_storage_quota_bytes=2400)
    for name, size in (("large", 1001), ("one", 1000), ("two", 400), ("three", 1000), ("four", 900)):
        (tmp_path / name).write_bytes(os.urandom(size))
    with pytest.raises(TransferError, match="larger than the maximum"):
        client.upload_artifact(host.address, tmp_path / "large")
    one = client.upload_artifact(host.address, tmp_path / "one")
    client.upload_artifact(host.address, tmp_path / "two")
    # The same content takes no room, only while it is received.
    client.upload_artifact(host.address, tmp_path / "one")
    assert host.artifacts.used_bytes == 1400
    client.upload_artifact(host.address, tmp_path / "three")
    with pytest.raises(TransferError, match="quota"):
        client.upload_artifact(host.address, tmp_path / "four")
    assert host.artifacts.used_bytes == 2400
    assert client.artifact_metadata(host.address, one.artifact_id) == one


def test_options_of_a_host(hosts: HostFactory) -> None:
    host = hosts.new(artifact_max_bytes=None, artifact_storage_quota_bytes=-1, artifact_spool_ttl_seconds=0)
    with pytest.raises(HostError, match="not started"):
        _ = host.artifacts
    host.start_background()
    store = host.artifacts
    assert (store.max_artifact_bytes, store.quota_bytes, store.spool_ttl_seconds) == (0, 0, 1.0)
    assert store.root == host.persistence_dir / "artifacts"
    assert store.host_url == host.address
    assert store.blobs is host.blobs
    assert {"artifacts:upload", "artifacts:download", "artifacts:list", "artifacts:delete"} <= set(
        host.health()["capabilities"]
    )


def test_artifacts_outlive_the_host_and_know_its_new_address(
    hosts: HostFactory, client: HostClient, source: Path, tmp_path: Path
) -> None:
    host = hosts("one")
    ref = client.upload_artifact(host.address, source)
    host.stop()
    again = hosts("two", persistence_dir=host.persistence_dir)
    (found,) = client.list_artifacts(again.address)
    assert found.host_url == again.address
    assert found.artifact_id == ref.artifact_id
    client.download_artifact(found, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_what_has_expired_is_gone_at_once_and_removed_soon(
    hosts: HostFactory, client: HostClient, source: Path, tmp_path: Path
) -> None:
    host = hosts(artifact_spool_ttl_seconds=1.0)
    ref = client.upload_artifact(host.address, source, expires_at=time.time() + 0.2)
    eventually(lambda: time.time() > ref.expires_at, "the expiry")
    for call in (
        lambda: client.download_artifact(ref, tmp_path / "x"),
        lambda: client.artifact_metadata(host.address, ref.artifact_id),
        lambda: host.client.artifact_metadata(host.address, ref.artifact_id),
    ):
        with pytest.raises(TransferError, match="No artifact"):
            call()
    eventually(lambda: files_of(host) == [], "the sweep")
    assert client.list_artifacts(host.address) == []


def test_a_host_that_stopped_says_so(hosts: HostFactory, client: HostClient, source: Path) -> None:
    host = hosts()
    host.stop()
    with pytest.raises(RemoteHostError, match="Could not reach"):
        client.upload_artifact(host.address, source)


# --- the program of the host ------------------------------------------------------------------------------------------


def test_the_client_of_a_host_takes_no_network_to_itself(hosts: HostFactory, source: Path, tmp_path: Path) -> None:
    one, two = hosts("one"), hosts("two")
    told: list[tuple[int, int]] = []
    for host in (one, two):
        ref = one.client.upload_artifact(host.address, source, progress=lambda *step: told.append(step))
        assert ref.host_url == host.address
        assert one.client.list_artifacts(host.address) == [ref]
        assert one.client.artifact_metadata(host.address, ref.artifact_id) == ref
        assert one.client.read_artifact(ref, start=9, length=8) == b"artifact"
        assert one.client.read_artifact(ref, start=9000) == b""
        assert one.client.download_artifact(ref, tmp_path / "copy") == ref
        with pytest.raises(TransferError, match="checksum"):
            one.client.upload_artifact(host.address, source, expected_sha256="0" * 64)
        with pytest.raises(TransferError, match="No artifact"):
            one.client.artifact_metadata(host.address, "0" * 32)
        with pytest.raises(TransferError, match="invalid artifact id"):
            one.client.artifact_metadata(host.address, "no-id")
        with pytest.raises(TransferError):
            one.client.upload_artifact(host.address, tmp_path / "missing")
        assert one.client.download_artifact(ref, tmp_path / "moved", move=True) == ref
        one.client.delete_artifact(ref)
        assert files_of(host) == []
        assert told[-1] == (9000, 9000)
        assert (one.client.connections.statistics().opened == 0) is (host is one)


# --- paglets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("api_key", [None, "secret"])
def test_a_paglet_stores_and_fetches(hosts: HostFactory, elsewhere: bool, api_key: str | None) -> None:
    here, there = hosts("here", api_key=api_key), hosts("there", api_key=api_key)
    place = there if elsewhere else here
    paglet = here.create(Archivist)
    wire = paglet.send(Message("store", {"text": "from inside", "host_url": place.address if elsewhere else None}))
    ref = ArtifactRef.from_wire(wire)
    assert ref.host_url == place.address
    assert ref.owner_agent_id == paglet.agent_id
    assert ref.name == "made.txt"
    assert paglet.send(Message("describe", {"artifact": wire})) == [wire, [wire]]
    assert paglet.send(Message("read", {"artifact": wire, "start": 5, "length": 3})) == b"ins"
    assert paglet.send(Message("fetch", {"artifact": wire})) == "from inside"
    assert paglet.send(Message("fetch", {"artifact": wire, "move": True})) == "from inside"
    with pytest.raises(TransferError, match="No artifact"):
        paglet.send(Message("fetch", {"artifact": wire}))
    assert paglet.send(Message("delete", {"artifact": wire})) is None
    assert files_of(place) == []


def test_a_paglet_stores_from_a_coroutine_and_by_a_relative_path(hosts: HostFactory) -> None:
    host = hosts()
    paglet = host.create(Archivist)
    wire = paglet.send(Message("store from a coroutine", {"text": "beside"}))
    assert host.client.read_artifact(ArtifactRef.from_wire(wire)) == b"beside"
    path = os.path.relpath(__file__)
    wire = paglet.send(Message("store relative", {"path": path}))
    assert host.client.read_artifact(ArtifactRef.from_wire(wire)) == Path(__file__).read_bytes()
    with pytest.raises(TransferError, match="Not a file"):
        paglet.send(Message("store relative", {"path": "no such file"}))


def test_an_artifact_sent_to_a_paglet_arrives_as_a_reference(
    hosts: HostFactory, client: HostClient, source: Path
) -> None:
    host = hosts()
    proxy = PagletProxy(host.address, host.create(Archivist).agent_id, client)
    assert proxy.send_artifact(Message("take", {"more": 1}), source, name="sent") == 9000
    (artifact,) = client.list_artifacts(host.address)
    assert artifact.owner_agent_id == proxy.agent_id
    assert artifact.name == "sent"
    assert host.get_state(proxy.agent_id, ArchivistState).received == [artifact.to_wire()]
    assert source.exists()
    assert proxy.send_artifact(Message("take"), source, move=True) == 9000
    assert not source.exists()


def test_an_artifact_that_the_paglet_declines_is_removed(hosts: HostFactory, client: HostClient, source: Path) -> None:
    host = hosts()
    proxy = PagletProxy(host.address, host.create(Archivist).agent_id, client)
    with pytest.raises(NotHandledError):
        proxy.send_artifact(Message("no such message"), source, move=True)
    assert source.exists()
    assert files_of(host) == []


def test_artifacts_sent_from_coroutines(hosts: HostFactory, source: Path) -> None:
    host = hosts()
    agent_id = host.create(Archivist).agent_id

    async def go() -> None:
        async with AsyncHostClient() as client:
            proxy = AsyncPagletProxy(host.address, agent_id, client)
            with pytest.raises(NotHandledError):
                await proxy.send_artifact(Message("no such message"), source, move=True)
            assert files_of(host) == []
            assert await proxy.send_artifact(Message("take"), source, move=True) == 9000

    asyncio.run(go())
    assert not source.exists()
    assert len(host.artifacts.list(owner_agent_id=agent_id)) == 1


def test_a_paglet_sends_an_artifact_to_another(hosts: HostFactory) -> None:
    host = hosts()
    one, two = host.create(Archivist), host.create(Archivist)
    assert one.send(Message("pass on", {"to": two.agent_id})) == [len("passed on"), False]
    (artifact,) = host.artifacts.list(owner_agent_id=two.agent_id)
    assert host.client.read_artifact(artifact) == b"passed on"
