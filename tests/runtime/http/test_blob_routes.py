"""The large files of a move, brought ahead of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.artifacts.compression import Compressor, encodings
from paglets.core.errors import PagletError, TransferError
from paglets.remote.aio import AsyncHostClient
from paglets.runtime.host import Host
from tests.runtime.http.wire import Reply, Wire, ask, post, refused_and_closed
from tests.support import HostFactory, eventually

LARGE = 3 * 1024 * 1024 + 5
HOLDER = "a transfer"


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def missing(host: Host, *contents: bytes, seconds: float = 60.0) -> list[list[Any]]:
    blobs = [[sha256_of(content), len(content)] for content in contents]
    found: list[list[Any]] = post(host, "/blobs/missing", {"holder": HOLDER, "seconds": seconds, "blobs": blobs})[
        "missing"
    ]
    return found


def bring(host: Host, content: bytes, *, offset: int = 0, body: bytes | None = None, **headers: str) -> Reply:
    query = f"holder={HOLDER.replace(' ', '+')}&size={len(content)}&offset={offset}"
    return ask(
        host.address,
        "PUT",
        f"/blobs/{sha256_of(content)}?{query}",
        content[offset:] if body is None else body,
        {"Content-Type": "application/octet-stream", **headers},
    )


def files_of(host: Host) -> list[str]:
    root = host.persistence_dir / "artifacts"
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def _clean(host: Host) -> Iterator[None]:
    yield
    host.blobs.release(HOLDER)
    host.blobs.make_room(2**60)
    for part in host.blobs.waiting():
        host.blobs.forget(part.key)
    assert files_of(host) == []


@pytest.mark.parametrize("size", [1, 70_000, LARGE])
def test_what_is_missing_is_brought_and_kept(host: Host, size: int) -> None:
    content, other = os.urandom(size), os.urandom(10)
    assert missing(host, content, other) == [[sha256_of(content), 0], [sha256_of(other), 0]]
    assert bring(host, content).json() == {"ok": True}
    assert missing(host, content, other) == [[sha256_of(other), 0]]
    assert host.blobs.path(sha256_of(content)).read_bytes() == content
    assert host.blobs.held_bytes == size
    # Nothing wants it more than once.
    assert bring(host, content, body=b"").json() == {"ok": True}


def test_it_is_kept_for_the_holder_only(host: Host) -> None:
    content = os.urandom(1000)
    assert bring(host, content).status == 200
    assert host.blobs.held_bytes == 1000
    host.blobs.release(HOLDER)
    assert host.blobs.held_bytes == 0


def test_what_broke_off_goes_on_where_it_was(host: Host) -> None:
    content = os.urandom(LARGE)
    half = LARGE // 2
    with Wire(host.address) as wire:
        query = f"holder=h&size={LARGE}"
        head = f"PUT /blobs/{sha256_of(content)}?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LARGE}\r\n\r\n"
        wire.send(head.encode() + content[:half])
        eventually(lambda: missing(host, content) == [[sha256_of(content), half]], "half of it to be there")
    assert bring(host, content, offset=half + 1).status == 409
    assert missing(host, content) == [[sha256_of(content), half]]
    assert bring(host, content, offset=half).status == 200
    assert missing(host, content) == []
    host.blobs.release("h")


@pytest.mark.parametrize("damage", ["other", "short", "long"])
def test_what_is_wrong_is_not_kept(host: Host, damage: str) -> None:
    content = os.urandom(70_000)
    body = {"other": content[::-1], "short": content[1:], "long": content + b"x"}[damage]
    reply = bring(host, content, body=body)
    assert (reply.status, reply.error) == (400, "TransferError")
    assert files_of(host) == []


@pytest.mark.skipif(not encodings(), reason="needs the extra zstd")
def test_it_may_be_compressed_for_the_way(host: Host) -> None:
    content = b"compressible " * 200_000
    frame = Compressor()
    body = frame.feed(content) + frame.finish()
    assert bring(host, content, body=body, **{"Content-Encoding": "zstd"}).status == 200
    assert missing(host, content) == []
    bomb = os.urandom(1000)
    reply = bring(host, bomb, body=body, **{"Content-Encoding": "zstd"})
    assert (reply.status, reply.error) == (413, "TransferError")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"holder": "", "seconds": 1, "blobs": []},
        {"holder": "x" * 257, "seconds": 1, "blobs": []},
        {"holder": "h", "seconds": -1, "blobs": []},
        {"holder": "h", "seconds": 1e9, "blobs": []},
        {"holder": "h", "seconds": 1, "blobs": [["x", 1]]},
        {"holder": "h", "seconds": 1, "blobs": [["../../x", 1]]},
        {"holder": "h", "seconds": 1, "blobs": [["0" * 64]]},
        {"holder": "h", "seconds": 1, "blobs": [["0" * 64, "1"]]},
        {"holder": "h", "seconds": 1, "blobs": [[1, 1]]},
        {"holder": "h", "seconds": 1, "blobs": [["0" * 64, -1]]},
        {"holder": "h", "seconds": 1, "blobs": [["0" * 64, 1]] * 4097},
    ],
)
def test_questions_that_make_no_sense(host: Host, body: Any) -> None:
    assert ask(host.address, "POST", "/blobs/missing", body).status == 400


@pytest.mark.parametrize(
    "path",
    [
        f"/blobs/{'0' * 63}?holder=h&size=1",
        f"/blobs/{'g' * 64}?holder=h&size=1",
        "/blobs/..%2F..%2Fx?holder=h&size=1",
        f"/blobs/{'0' * 64}?holder=h",
        f"/blobs/{'0' * 64}?size=1",
        f"/blobs/{'0' * 64}?holder=h&size=-1",
        f"/blobs/{'0' * 64}?holder=h&size=1&offset=2",
        f"/blobs/{'0' * 64}?holder=h&size=x",
    ],
)
def test_blobs_that_make_no_sense(host: Host, path: str) -> None:
    with Wire(host.address) as wire:
        reply = wire.ask("PUT", path, b"x", {"Content-Type": "application/octet-stream"})
        assert reply.status in (400, 404, 409), reply.body
        assert reply.headers["connection"] == "close"
    host.blobs.release("h")


def test_the_key_is_asked_for(hosts: HostFactory) -> None:
    host = hosts(api_key="secret")
    with Wire(host.address) as wire:
        target = f"/blobs/{'0' * 64}?holder=h&size=9"
        wire.send(f"PUT {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n".encode())
        refused_and_closed(wire.reply(), 401)


# --- the client -------------------------------------------------------------------------------------------------------


def test_a_client_asks_and_brings(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(content := os.urandom(LARGE))
    sha256, half = sha256_of(content), LARGE // 2
    told: list[tuple[int, int]] = []

    async def go() -> None:
        async with AsyncHostClient() as client:
            assert await client.missing_blobs(host.address, HOLDER, [(sha256, LARGE)], seconds=60) == [(sha256, 0)]
            with pytest.raises(TransferError, match="instead of the"):
                await client.put_blob(host.address, sha256, source, LARGE - 1, holder=HOLDER)
            with pytest.raises(PagletError, match="goes on at byte 0"):
                await client.put_blob(host.address, sha256, source, LARGE, offset=half, holder=HOLDER)
            await client.put_blob(
                host.address, sha256, source, LARGE, holder=HOLDER, progress=lambda *step: told.append(step)
            )
            assert await client.missing_blobs(host.address, HOLDER, [(sha256, LARGE)], seconds=60) == []

    asyncio.run(go())
    assert told[-1] == (LARGE, LARGE)
    assert host.blobs.path(sha256).read_bytes() == content


def test_a_call_that_is_cancelled_ends_and_may_go_on(host: Host, tmp_path: Path) -> None:
    size = 256 * 1024 * 1024
    source = tmp_path / "blob"
    with source.open("wb") as stream:
        stream.truncate(size)
        stream.write(b"begin")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()

    async def go() -> None:
        async with AsyncHostClient() as client:

            async def there() -> int:
                missing = await client.missing_blobs(host.address, HOLDER, [(digest, size)], seconds=60)
                return missing[0][1] if missing else size

            begun = asyncio.Event()
            task = asyncio.create_task(
                client.put_blob(host.address, digest, source, size, holder=HOLDER, progress=lambda *_step: begun.set())
            )
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while (offset := await there()) < size:
                try:
                    await client.put_blob(host.address, digest, source, size, offset=offset, holder=HOLDER)
                except TransferError:
                    continue  # what was under way went on arriving meanwhile

    asyncio.run(go())
    assert host.blobs.size(digest) == size
