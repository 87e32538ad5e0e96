"""Hosts that keep their artifacts in object storage, asked over HTTP, with a real server behind them."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import HostError, PagletError, StorageUnavailableError
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from tests.artifacts.s3_server import BUCKET, SECRET, S3Server
from tests.support import HostFactory, eventually

pytestmark = pytest.mark.usefixtures("credentials")
MB = 1024 * 1024


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return tmp_path.name


@pytest.fixture
def place(server: S3Server, prefix: str) -> str:
    return f"s3://{BUCKET}/{prefix}?endpoint={server.endpoint}&region=us-east-1"


@pytest.fixture
def client() -> Iterator[HostClient]:
    with HostClient(timeout=30) as made:
        yield made


def written(tmp_path: Path, size: int, seed: int = 1) -> tuple[Path, bytes]:
    content = random.Random(seed).randbytes(size)
    path = tmp_path / f"content-{seed}"
    path.write_bytes(content)
    return path, content


def forget(host: Host) -> None:
    host.artifacts.blobs.make_room(10**12)
    assert host.artifacts.blobs.used_bytes == 0


def asked(host: Host, artifact_id: str, **headers: str) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection(host.public_host, host.port, timeout=60)
    try:
        connection.request("GET", f"/artifacts/{artifact_id}", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def test_an_artifact_goes_to_the_bucket_and_comes_back(
    hosts: HostFactory, server: S3Server, place: str, prefix: str, client: HostClient, tmp_path: Path
) -> None:
    host = hosts(artifact_store=place)
    source, content = written(tmp_path, 3 * MB + 17)
    ref = client.upload_artifact(host.address, source)
    assert list(server.objects(prefix).values()) == [len(content)]

    forget(host)
    target = tmp_path / "target"
    client.download_artifact(ref, target)
    assert target.read_bytes() == content
    assert host.artifacts.blobs.cached_bytes == len(content)

    client.delete_artifact(ref)
    assert server.objects(prefix) == {}


def test_a_range_is_read_without_fetching_everything(
    hosts: HostFactory, place: str, client: HostClient, tmp_path: Path
) -> None:
    host = hosts(artifact_store=place)
    source, content = written(tmp_path, MB)
    ref = client.upload_artifact(host.address, source)
    forget(host)
    status, body, headers = asked(host, ref.artifact_id, Range="bytes=1000-1999")
    assert (status, body) == (206, content[1000:2000])
    assert headers["Content-Range"] == f"bytes 1000-1999/{MB}"
    assert client.read_artifact(ref, start=5, length=7) == content[5:12]
    assert host.artifacts.blobs.used_bytes == 0


def test_artifacts_outlive_the_host_and_its_cache(
    hosts: HostFactory, place: str, client: HostClient, tmp_path: Path
) -> None:
    host = hosts(artifact_store=place)
    source, content = written(tmp_path, 1000)
    ref = client.upload_artifact(host.address, source)
    port = host.port
    host.stop()
    for blob in (host.persistence_dir / "artifacts" / "blobs").rglob("?" * 64):
        blob.unlink()
    again = hosts(artifact_store=place, port=port)
    assert asked(again, ref.artifact_id)[:2] == (200, content)


def test_a_dead_server_refuses_uploads_and_nothing_is_left(
    hosts: HostFactory, mortal: S3Server, place: str, prefix: str, client: HostClient, tmp_path: Path
) -> None:
    host = hosts(artifact_store=place)
    source, _ = written(tmp_path, 100_000)
    ref = client.upload_artifact(host.address, source)
    forget(host)
    mortal.kill()

    other, _ = written(tmp_path, 1000, seed=2)
    with pytest.raises(StorageUnavailableError, match="cannot be reached"):
        client.upload_artifact(host.address, other)
    status, body, _ = asked(host, ref.artifact_id)
    assert (status, json.loads(body)["error_type"]) == (503, "StorageUnavailableError")
    assert [known.artifact_id for known in client.list_artifacts(host.address)] == [ref.artifact_id]
    assert host.artifacts.used_bytes == 100_000

    mortal.start()
    assert len(server_objects := mortal.objects(prefix)) == 1, server_objects
    assert asked(host, ref.artifact_id)[0] == 200
    client.upload_artifact(host.address, other)


def test_who_does_not_wait_for_the_bucket_hears_of_the_same_artifact_later(
    hosts: HostFactory, mortal: S3Server, place: str, client: HostClient
) -> None:
    host = hosts(artifact_store=place)
    content = random.Random(1).randbytes(MB)
    key = "0123456789abcdef" * 2
    answers: list[Any] = []

    def send(offset: int) -> threading.Thread:
        def work() -> None:
            connection = http.client.HTTPConnection(host.public_host, host.port, timeout=60)
            with closing(connection):
                url = f"/artifacts?upload={key}&size={MB}&offset={offset}"
                connection.request("POST", url, body=content[offset:])
                answers.append(json.loads(connection.getresponse().read()))

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    mortal.pause()
    impatient = send(0)
    url = f"{host.address}/artifacts/uploads/{key}"
    eventually(lambda: client.get_json(url)["offset"] == MB, "the upload is all there")
    again = send(MB)
    mortal.resume()
    for thread in (impatient, again):
        thread.join()
    assert answers[0]["artifact"] == answers[1]["artifact"]
    assert len(client.list_artifacts(host.address)) == 1
    assert client.get_json(url)["offset"] == MB


def test_wrong_bytes_in_the_bucket_never_arrive_whole(
    hosts: HostFactory, server: S3Server, place: str, prefix: str, client: HostClient, tmp_path: Path
) -> None:
    host = hosts(artifact_store=place)
    source, content = written(tmp_path, MB)
    ref = client.upload_artifact(host.address, source)
    forget(host)
    (key,) = server.objects(prefix)
    server.client.put_object(Bucket=BUCKET, Key=key, Body=bytes(MB))
    with pytest.raises(PagletError):
        client.download_artifact(ref, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    try:
        status, body, _ = asked(host, ref.artifact_id)
    except http.client.IncompleteRead:
        status, body = 0, b""  # it showed when most of it was on its way
    assert status != 200, len(body)
    assert host.artifacts.blobs.used_bytes == 0

    server.client.put_object(Bucket=BUCKET, Key=key, Body=content[: MB // 2])
    status, body, _ = asked(host, ref.artifact_id)
    assert (status, json.loads(body)["error_type"]) == (400, "TransferError")


def test_wrong_credentials_are_told_without_them(
    hosts: HostFactory, place: str, client: HostClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-secret")
    host = hosts(artifact_store=place)
    source, _ = written(tmp_path, 1000)
    with pytest.raises(StorageUnavailableError, match="refuses the credentials") as caught:
        client.upload_artifact(host.address, source)
    assert "wrong-and-secret" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert client.list_artifacts(host.address) == []


def test_artifacts_in_another_directory_belong_to_one_host(
    hosts: HostFactory, client: HostClient, tmp_path: Path
) -> None:
    place = tmp_path / "elsewhere"
    host = hosts(artifact_store=str(place))
    source, content = written(tmp_path, 1000)
    ref = client.upload_artifact(host.address, source)
    assert len(list((place / "blobs").rglob("?" * 64))) == 1
    assert not (host.persistence_dir / "artifacts").exists()
    other = hosts.new("beta", artifact_store=place)
    with pytest.raises(HostError, match="in use"):
        other.start_background()
    host.stop()
    other.start_background()
    assert asked(other, ref.artifact_id)[:2] == (200, content)


@pytest.mark.parametrize("place", ["s3://key:secret@bucket", "ftp://host/x", ""])
def test_a_place_that_is_none_is_refused_at_once(hosts: HostFactory, place: str) -> None:
    with pytest.raises(ValueError, match=r"object storage|directory") as caught:
        hosts.new(artifact_store=place)
    assert "secret@" not in str(caught.value)
