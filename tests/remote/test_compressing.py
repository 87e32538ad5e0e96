"""Content that is compressed for the way, and content that is not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from paglets.artifacts.compression import Decompressor, encodings
from paglets.core.errors import TransferError
from paglets.remote import uploads
from paglets.remote.client import HostClient
from paglets.remote.uploads import Compress
from tests.remote.scripted import Received, ScriptedHost, reply
from tests.support import HostFactory

pytestmark = pytest.mark.skipif(not encodings(), reason="needs the extra zstd")

COMPRESSIBLE = b"all the same, " * 20_000
RANDOM = os.urandom(len(COMPRESSIBLE))


class Taker(ScriptedHost):
    """Take artifacts in the codings that it says it takes."""

    def __init__(self, codings: object) -> None:
        super().__init__(self._take)
        self.codings = codings
        self.contents: list[bytes] = []

    def _take(self, request: Received, _connection: object) -> bytes:
        if request.target == "/health":
            return reply({"encodings": self.codings})
        query = parse_qs(urlsplit(request.target).query)
        content = request.body
        if request.headers.get("content-encoding") == "zstd":
            assert "content-length" not in request.headers
            frame = Decompressor(int(query["size"][0]))
            content = b"".join(frame.feed(request.body))
            frame.finish()
        self.contents.append(content)
        wire = {"artifact_id": "1", "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return reply({"artifact": wire})


@pytest.fixture
def client() -> Iterator[HostClient]:
    with HostClient() as made:
        yield made


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all hosts be on other machines."""
    monkeypatch.setattr(uploads, "is_loopback", lambda _url: False)


def sent(client: HostClient, host: Taker, path: Path, compress: Compress) -> str:
    """Upload a file and return how its body was coded."""
    client.upload_artifact(host.url, path, compress=compress)
    assert host.contents[-1] == path.read_bytes()
    return host.requests[-1].headers.get("content-encoding", "identity")


def test_what_pays_is_compressed(client: HostClient, tmp_path: Path, remote: None) -> None:
    (tmp_path / "pays").write_bytes(COMPRESSIBLE)
    (tmp_path / "does not").write_bytes(RANDOM)
    with Taker(["zstd"]) as host:
        assert sent(client, host, tmp_path / "pays", "auto") == "zstd"
        assert sum(map(len, [host.requests[-1].body])) < len(COMPRESSIBLE) / 10
        assert sent(client, host, tmp_path / "does not", "auto") == "identity"
        assert sent(client, host, tmp_path / "does not", "always") == "zstd"
        assert sent(client, host, tmp_path / "pays", "never") == "identity"


def test_nothing_is_compressed_within_a_machine(client: HostClient, tmp_path: Path) -> None:
    (tmp_path / "pays").write_bytes(COMPRESSIBLE)
    with Taker(["zstd"]) as host:
        assert sent(client, host, tmp_path / "pays", "auto") == "identity"
        assert sent(client, host, tmp_path / "pays", "always") == "zstd"


@pytest.mark.parametrize("codings", [[], ["br"], None, "zstd", [1], {"zstd": 1}])
def test_nothing_is_compressed_that_the_host_does_not_take(
    client: HostClient, tmp_path: Path, remote: None, codings: object
) -> None:
    (tmp_path / "pays").write_bytes(COMPRESSIBLE)
    with Taker(codings) as host:
        assert sent(client, host, tmp_path / "pays", "always") == "identity"


def test_a_host_stores_what_it_stands_for(hosts: HostFactory, client: HostClient, tmp_path: Path, remote: None) -> None:
    host = hosts()
    (tmp_path / "pays").write_bytes(COMPRESSIBLE)
    told: list[tuple[int, int]] = []
    ref = client.upload_artifact(
        host.address, tmp_path / "pays", compression="label", progress=lambda *step: told.append(step)
    )
    assert ref.compression == "label"
    assert ref.size_bytes == len(COMPRESSIBLE)
    assert client.read_artifact(ref) == COMPRESSIBLE
    assert told[-1] == (len(COMPRESSIBLE), len(COMPRESSIBLE))
    with pytest.raises(TransferError, match="checksum"):
        client.upload_artifact(host.address, tmp_path / "pays", expected_sha256="0" * 64)
