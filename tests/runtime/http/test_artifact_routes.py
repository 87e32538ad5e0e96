"""Artifacts over HTTP, byte by byte."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from paglets.artifacts.compression import Compressor, encodings
from paglets.runtime.host import Host
from paglets.runtime.http import extensions
from paglets.runtime.http.connection import ServerLimits
from tests.runtime.http.wire import Reply, Served, Wire, ask, get, refused_and_closed, served_again
from tests.support import HostFactory, eventually

OCTETS = {"Content-Type": "application/octet-stream"}
HASTY = ServerLimits(body_pause_seconds=0.2, body_seconds=0.5, min_body_bytes_per_second=1_000_000)
KEY = "0123456789abcdef" * 2
LARGE = 3 * 1024 * 1024 + 5


@pytest.fixture(autouse=True)
def _clean(host: Host) -> Iterator[None]:
    yield
    for ref in host.artifacts.list():
        host.artifacts.delete(ref.artifact_id)
    eventually(lambda: files_of(host) == [], f"nothing in the store: {files_of(host)}")
    assert host.artifacts.used_bytes == 0


def files_of(host: Host) -> list[str]:
    root = host.persistence_dir / "artifacts"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def store(address: str, content: bytes, query: str = "", **headers: str) -> Reply:
    return ask(address, "POST", f"/artifacts{query}", content, {**OCTETS, **headers})


def stored(host: Host, content: bytes, query: str = "") -> str:
    reply = store(host.address, content, query)
    assert reply.status == 200, reply.body
    return str(reply.json()["artifact"]["artifact_id"])


def begun(wire: Wire, length: int, query: str = "", *fields: str) -> Wire:
    lines = "".join(f"{field}\r\n" for field in fields)
    head = f"POST /artifacts{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{lines}\r\n"
    return wire.send(head.encode())


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if end else b"")


CHUNKED = b"POST /artifacts HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


# --- up ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 70_000, LARGE])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_content_is_stored_and_the_connection_goes_on(host: Host, size: int, framing: str) -> None:
    content = os.urandom(size)
    with Wire(host.address) as wire:
        for _ in range(2):
            if framing == "length":
                begun(wire, size).send(content)
            else:
                pieces = [content[start : start + 100_000] for start in range(0, size, 100_000)]
                wire.send(CHUNKED + chunked(*pieces))
            reply = wire.reply()
            assert reply.status == 200, reply.body
            artifact = reply.json()["artifact"]
            assert artifact["size_bytes"] == size
            assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
            assert wire.ask("GET", f"/artifacts/{artifact['artifact_id']}").body == content
            assert wire.ask("GET", "/health").status == 200


def test_everything_said_of_it_is_kept(host: Host) -> None:
    sha256 = hashlib.sha256(b"x").hexdigest()
    query = f"owner_agent_id=me&name=%C3%A4%20b&compression=gz&expires_at=4000000000.5&sha256={sha256.upper()}&size=1"
    artifact = store(host.address, b"x", f"?{query}").json()["artifact"]
    assert artifact == {
        "host_url": host.address,
        "artifact_id": artifact["artifact_id"],
        "name": "ä b",
        "size_bytes": 1,
        "sha256": sha256,
        "compression": "gz",
        "created_at": artifact["created_at"],
        "expires_at": 4000000000.5,
        "owner_agent_id": "me",
    }
    assert get(host, "/artifacts?owner_agent_id=me") == {"artifacts": [artifact]}
    assert get(host, "/artifacts?owner_agent_id=you") == {"artifacts": []}
    assert get(host, f"/artifacts/{artifact['artifact_id']}/metadata") == {"artifact": artifact}


def test_requests_behind_a_body_are_answered_in_order(host: Host) -> None:
    content = os.urandom(LARGE)
    head = b"POST /artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % LARGE
    health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Wire(host.address) as wire:
        wire.send(health + head + content + health + head + content + health)
        assert "capabilities" in wire.reply().json()
        assert wire.reply().json()["artifact"]["size_bytes"] == LARGE
        assert "capabilities" in wire.reply().json()
        assert wire.reply().json()["artifact"]["size_bytes"] == LARGE
        assert "capabilities" in wire.reply().json()


def test_who_waits_to_be_told_to_go_on_is_told(host: Host) -> None:
    with Wire(host.address) as wire:
        begun(wire, LARGE, "", "Expect: 100-continue")
        assert wire.head().status == 100
        assert wire.send(bytes(LARGE)).reply().status == 200


def test_what_is_too_large_is_refused_before_it_is_read(hosts: HostFactory) -> None:
    host = hosts(artifact_max_bytes=1000)
    with Wire(host.address) as wire:
        reply = begun(wire, 10**12).reply()
        refused_and_closed(reply, 413)
        assert reply.error == "TransferError"
        assert wire.ended()
    assert files_of(host) == []


def test_what_the_quota_does_not_take_is_refused_before_it_is_read(hosts: HostFactory) -> None:
    host = hosts(artifact_storage_quota_bytes=1000)
    with Wire(host.address) as wire:
        reply = begun(wire, 1001).reply()
        refused_and_closed(reply, 507)
        assert "quota" in reply.text
    assert files_of(host) == []


def test_the_key_is_asked_for_before_a_body_is_read(hosts: HostFactory) -> None:
    host = hosts(api_key="secret")
    with Wire(host.address) as wire:
        refused_and_closed(begun(wire, 10**12).reply(), 401)
    assert store(host.address, b"x", Authorization="Bearer secret").status == 200


@pytest.mark.parametrize("query", ["size=-1", "size=x", "expires_at=-1", "expires_at=nan", "offset=-1", "upload=xyz",
                                   f"upload={KEY}&offset=5", "offset=5", "sha256=zz", f"sha256={'g' * 64}",
                                   f"name={'x' * 5000}", f"owner_agent_id={'x' * 5000}"])  # fmt: skip
def test_nonsense_is_refused(host: Host, query: str) -> None:
    reply = store(host.address, b"content", f"?{query}")
    assert reply.status in (400, 409), reply.body
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("length", [0, 6, 8])
def test_a_size_that_the_body_does_not_have_is_refused(host: Host, length: int) -> None:
    assert store(host.address, b"x" * length, "?size=7").status == 400
    with Wire(host.address) as wire:
        head = CHUNKED.replace(b"/artifacts", b"/artifacts?size=7")
        reply = wire.send(head + chunked(*([b"x" * length] if length else []))).reply()
        assert (reply.status, reply.error) == (400, "TransferError")


def test_a_wrong_checksum_is_refused(host: Host) -> None:
    reply = store(host.address, bytes(LARGE), f"?sha256={'0' * 64}")
    assert (reply.status, reply.error) == (400, "TransferError")
    assert "checksum" in reply.text


NAMES = ["../x", "/etc/passwd", "..", "C:\\x", "a\x00b", "x" * 300, "NUL", "con.txt", "ａ/．．", "\u202egpj.exe", "\n"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_words_and_nothing_else(host: Host, name: str) -> None:
    before = {path for path in host.persistence_dir.rglob("*") if "journal" not in path.name}
    artifact = store(host.address, b"x", f"?name={quote(name)}&owner_agent_id={quote(name)}").json()["artifact"]
    assert artifact["name"] == artifact["owner_agent_id"] == name
    new = {path for path in host.persistence_dir.rglob("*") if "journal" not in path.name} - before
    root = host.persistence_dir / "artifacts"
    assert all(path.is_relative_to(root) for path in new)
    assert {path.name for path in new if path.is_file()} == {f"{artifact['artifact_id']}.json", artifact["sha256"]}


# --- bodies that do not end as they should ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, LARGE])
def test_an_upload_that_breaks_off_leaves_nothing(host: Host, size: int) -> None:
    with Wire(host.address) as wire:
        begun(wire, size + 1).send(bytes(size))
        eventually(lambda: files_of(host), "the upload to begin")
    eventually(lambda: files_of(host) == [], "nothing left")


def test_chunks_that_break_off_leave_nothing(host: Host) -> None:
    with Wire(host.address) as wire:
        wire.send(CHUNKED + chunked(bytes(LARGE), end=False))
        eventually(lambda: files_of(host), "the upload to begin")
    eventually(lambda: files_of(host) == [], "nothing left")


@pytest.fixture(scope="module")
def hasty(host: Host) -> Iterator[Served]:
    with served_again(host, HASTY) as served:
        yield served


@pytest.mark.parametrize("sent", [0, 10, LARGE])
def test_a_client_that_stops_is_not_waited_for(host: Host, hasty: Served, sent: int) -> None:
    with Wire(hasty.address) as wire:
        reply = begun(wire, 2 * LARGE).send(bytes(sent)).reply()
        refused_and_closed(reply, 408)
        assert wire.ended()
    assert files_of(host) == []


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_client_that_sends_drop_by_drop_is_not_waited_for(host: Host, hasty: Served, framing: str) -> None:
    with Wire(hasty.address) as wire:
        if framing == "length":
            begun(wire, 2 * LARGE)
        else:
            wire.send(CHUNKED)
        wire.sock.settimeout(0.02)
        drop = b"x" if framing == "length" else b"1\r\nx\r\n"
        answer = b""
        end = time.monotonic() + 15
        while not answer and time.monotonic() < end:
            try:
                wire.sock.send(drop)
                answer = wire.sock.recv(65536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")
    eventually(lambda: files_of(host) == [], "nothing left")


def test_an_endless_body_ends_at_the_maximum(hosts: HostFactory) -> None:
    host = hosts(artifact_max_bytes=1_000_000)
    with Wire(host.address) as wire:
        wire.send(CHUNKED)
        piece = chunked(bytes(50_000), end=False)
        sent = 0
        try:
            while sent < 100_000_000:
                wire.send(piece)
                sent += len(piece)
        except OSError:
            pass  # the host has ended it
        assert sent < 50_000_000
    eventually(lambda: files_of(host) == [], "nothing left")
    reply = ask(host.address, "POST", "/artifacts", bytes(1_000_001), OCTETS)
    assert (reply.status, reply.error) == (413, "TransferError")


def test_many_clients_that_stall_keep_nobody_from_being_served(host: Host) -> None:
    wires = [Wire(host.address) for _ in range(12)]
    try:
        for wire in wires:
            begun(wire, 10 * LARGE).send(bytes(LARGE))
        content = os.urandom(LARGE)
        artifact_id = stored(host, content)
        assert ask(host.address, "GET", f"/artifacts/{artifact_id}").body == content
    finally:
        for wire in wires:
            wire.sock.close()
    host.artifacts.delete(artifact_id)


def test_the_stop_of_a_host_ends_uploads_and_downloads(hosts: HostFactory) -> None:
    host = hosts()
    artifact_id = stored(host, bytes(64 * 1024 * 1024))
    with Wire(host.address) as up, Wire(host.address) as down:
        begun(up, 10 * LARGE).send(bytes(LARGE))
        down.send(b"GET /artifacts/%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % artifact_id.encode())
        assert down.head().status == 200
        eventually(lambda: len(files_of(host)) == 3, "the upload to begin")
        host.stop()
        assert up.ended()
        assert down.ended()
    assert len(files_of(host)) == 2


# --- going on ---------------------------------------------------------------------------------------------------------


def offset_of(host: Host, key: str = KEY) -> int:
    return int(get(host, f"/artifacts/uploads/{key}")["offset"])


def test_an_upload_with_a_key_goes_on_after_a_break(host: Host) -> None:
    content = os.urandom(2 * LARGE)
    query = f"?upload={KEY}&size={len(content)}"
    assert offset_of(host) == 0
    with Wire(host.address) as wire:
        begun(wire, len(content), query).send(content[:LARGE])
    eventually(lambda: offset_of(host) == LARGE, "what was sent to be there")
    assert store(host.address, content[5:], f"{query}&offset=5").status == 409
    assert offset_of(host) == LARGE
    reply = store(host.address, content[LARGE:], f"{query}&offset={LARGE}")
    assert reply.status == 200, reply.body
    artifact = reply.json()["artifact"]
    assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
    # Whoever did not get the answer asks how much is there, and sends the rest: nothing.
    assert offset_of(host) == len(content)
    assert store(host.address, b"", f"{query}&offset={len(content)}").json() == {"artifact": artifact}
    assert get(host, "/artifacts") == {"artifacts": [artifact]}
    assert ask(host.address, "GET", f"/artifacts/{artifact['artifact_id']}").body == content
    host.artifacts.delete(artifact["artifact_id"])
    assert offset_of(host) == 0


def test_another_connection_of_the_same_upload_takes_over(host: Host) -> None:
    content = os.urandom(2 * LARGE)
    query = f"?upload={KEY}&size={len(content)}"
    with Wire(host.address) as stale:
        begun(stale, len(content), query).send(content[:LARGE])
        eventually(lambda: offset_of(host) == LARGE, "what was sent to be there")
        assert store(host.address, content[LARGE:], f"{query}&offset={LARGE}").status == 200
        stale.send(content[LARGE:])
        refused_and_closed(stale.reply(), 409)
    assert len(get(host, "/artifacts")["artifacts"]) == 1


def test_an_upload_can_be_given_up(host: Host) -> None:
    with Wire(host.address) as wire:
        begun(wire, 2 * LARGE, f"?upload={KEY}").send(bytes(LARGE))
    eventually(lambda: offset_of(host) == LARGE, "what was sent to be there")
    assert ask(host.address, "DELETE", f"/artifacts/uploads/{KEY}").json() == {"ok": True}
    assert ask(host.address, "DELETE", f"/artifacts/uploads/{KEY}").json() == {"ok": True}
    assert offset_of(host) == 0
    assert files_of(host) == []
    assert host.artifacts.used_bytes == 0


def test_keys_that_are_none(host: Host) -> None:
    for key in ("x", "../../x", "0" * 31, "0" * 65):
        for method in ("GET", "DELETE"):
            assert ask(host.address, method, f"/artifacts/uploads/{quote(key)}").status in (400, 404)


# --- compressed for the way -------------------------------------------------------------------------------------------

zstd = pytest.mark.skipif(not encodings(), reason="needs the extra zstd")


def compressed(content: bytes) -> bytes:
    frame = Compressor()
    return frame.feed(content) + frame.finish()


@zstd
@pytest.mark.parametrize("declared", [True, False])
def test_a_compressed_body_is_stored_as_what_it_stands_for(host: Host, declared: bool) -> None:
    content = b"compressible " * 300_000
    query = f"?size={len(content)}&compression=label" if declared else ""
    body = compressed(content)
    assert len(body) < len(content) / 10
    artifact = store(host.address, body, query, **{"Content-Encoding": "zstd"}).json()["artifact"]
    assert artifact["size_bytes"] == len(content)
    assert artifact["compression"] == ("label" if declared else "")
    assert ask(host.address, "GET", f"/artifacts/{artifact['artifact_id']}").body == content


@zstd
def test_a_compressed_upload_goes_on_after_a_break(host: Host) -> None:
    content = os.urandom(LARGE) * 2
    query = f"?upload={KEY}&size={len(content)}"
    with Wire(host.address) as wire:
        begun(wire, len(content), query).send(content[:LARGE])
    eventually(lambda: offset_of(host) == LARGE, "what was sent to be there")
    reply = store(host.address, compressed(content[LARGE:]), f"{query}&offset={LARGE}", **{"Content-Encoding": "zstd"})
    assert reply.json()["artifact"]["sha256"] == hashlib.sha256(content).hexdigest()


@zstd
@pytest.mark.parametrize(
    ("body", "query", "status"),
    [
        (lambda: compressed(bytes(64 * 1024 * 1024)), "?size=1000", 413),
        (lambda: compressed(bytes(2000)), "", 413),
        (lambda: compressed(b"x" * 999), "?size=1000", 400),
        (lambda: compressed(b"x" * 1000)[:-3], "?size=1000", 400),
        (lambda: compressed(b"x" * 1000) + b"more", "?size=1000", 400),
        (lambda: b"this is no zstd at all", "?size=1000", 400),
        (lambda: b"", "?size=1000", 400),
    ],
    ids=["bomb", "more than the maximum", "short", "cut off", "more behind it", "garbage", "nothing"],
)
def test_a_bomb_and_other_damage_end_with_an_error(hosts: HostFactory, body: Any, query: str, status: int) -> None:
    host = hosts(artifact_max_bytes=1500)
    reply = store(host.address, body(), query, **{"Content-Encoding": "zstd"})
    assert (reply.status, reply.error) == (status, "TransferError"), reply.body
    assert files_of(host) == []


def test_other_codings_are_not_understood(host: Host) -> None:
    for coding in ("gzip", "br", "zstd, gzip", "zstd, zstd"):
        reply = store(host.address, b"x", **{"Content-Encoding": coding})
        assert (reply.status, reply.error) == (415, "UnsupportedMediaError")
    reply = ask(host.address, "POST", "/agents", {"x": 1}, {"Content-Encoding": "zstd"})
    assert reply.status == 415


# --- down -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def content() -> bytes:
    return os.urandom(LARGE)


@pytest.fixture
def path(host: Host, content: bytes) -> str:
    return f"/artifacts/{stored(host, content)}"


def test_content_comes_with_what_verifies_it(host: Host, content: bytes, path: str) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    with Wire(host.address) as wire:
        whole = wire.ask("GET", path)
        assert whole.status == 200
        assert whole.body == content
        assert whole.headers == {
            "content-type": "application/octet-stream",
            "content-length": str(LARGE),
            "accept-ranges": "bytes",
            "etag": f'"{sha256}"',
            "x-paglets-artifact-sha256": sha256,
            "x-content-type-options": "nosniff",
        }
        wire.send(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert wire.head() == Reply(200, whole.headers, b"")
        # Nothing came behind the head.
        assert wire.ask("GET", "/health").status == 200


def test_a_part_is_named(host: Host, content: bytes, path: str) -> None:
    with Wire(host.address) as wire:
        for header, start, end in (("5-9", 5, 10), ("100-", 100, LARGE), ("-7", LARGE - 7, LARGE), ("0-0", 0, 1)):
            part = wire.ask("GET", path, headers={"Range": f"bytes={header}"})
            assert part.status == 206
            assert part.body == content[start:end]
            assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{LARGE}"
            assert part.headers["content-length"] == str(end - start)
        wire.send(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=5-9\r\n\r\n".encode())
        assert wire.head().headers["content-length"] == "5"
        assert wire.ask("GET", path, headers={"Range": "bytes=0-1,4-5"}).body == content


def test_a_part_of_something_else_is_not_given(host: Host, content: bytes, path: str) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    for condition, status in (
        (f'"{sha256}"', 206),
        (f'W/"{sha256}"', 200),
        ('"other"', 200),
        ("Sat, 21 Nov 2026 00:00:00 GMT", 200),
    ):
        reply = ask(host.address, "GET", path, headers={"Range": "bytes=5-9", "If-Range": condition})
        assert reply.status == status
        assert reply.body == (content[5:10] if status == 206 else content)


def test_behind_the_end_there_is_nothing(host: Host, path: str) -> None:
    with Wire(host.address) as wire:
        reply = wire.ask("GET", path, headers={"Range": f"bytes={LARGE}-"})
        assert (reply.status, reply.error) == (416, "TransferError")
        assert reply.headers["content-range"] == f"bytes */{LARGE}"
        assert wire.ask("GET", "/health").status == 200
    empty = stored(host, b"")
    assert ask(host.address, "GET", f"/artifacts/{empty}", headers={"Range": "bytes=0-"}).status == 416
    assert ask(host.address, "GET", f"/artifacts/{empty}").body == b""


@pytest.mark.parametrize(
    ("artifact_id", "status"),
    [("0" * 32, 404), ("f" * 128, 404), ("g" * 32, 400), ("0" * 129, 400), ("..", 400), ("%00", 400), ("é", 400),
     ("a%2Fb", 404), ("%2Fetc%2Fpasswd", 404), ("..%2F..%2Fjournal.db", 404), ("x" * 2000, 400)],
)  # fmt: skip
def test_ids_that_are_not_there(host: Host, artifact_id: str, status: int) -> None:
    quoted = quote(artifact_id, safe="%.")
    for method, path in (("GET", ""), ("GET", "/metadata"), ("DELETE", "")):
        reply = ask(host.address, method, f"/artifacts/{quoted}{path}")
        if method == "DELETE" and status == 404 and "%" not in artifact_id:
            assert reply.json() == {"ok": True}
            continue
        assert reply.status == status, (method, path, reply.body)
        assert reply.error in ("TransferError", "NotFoundError", "SerializationError")


def test_downloads_in_one_go_are_answered_in_order(host: Host, content: bytes, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Wire(host.address) as wire:
        wire.send(request + health + request + request)
        assert wire.reply().body == content
        assert "capabilities" in wire.reply().json()
        assert wire.reply().body == content
        assert wire.reply().body == content


def test_an_older_client_gets_it_too(host: Host, content: bytes, path: str) -> None:
    with Wire(host.address) as wire:
        wire.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        reply = wire.reply()
        assert reply.body == content
        assert reply.headers["connection"] == "close"
        assert wire.ended()


def open_blobs(host: Host) -> list[str]:
    root = str(host.persistence_dir)
    targets = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            targets.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return [target for target in targets if target.startswith(root) and "/artifacts/" in target]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_client_that_leaves_in_the_middle_is_let_go(host: Host) -> None:
    path = f"/artifacts/{stored(host, bytes(64 * 1024 * 1024))}"
    with Wire(host.address) as wire:
        wire.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert wire.head().status == 200
        assert open_blobs(host)
    eventually(lambda: not open_blobs(host), "the blob to be closed")


def test_a_client_that_takes_nothing_is_let_go(host: Host, hasty: Served) -> None:
    path = f"/artifacts/{stored(host, bytes(64 * 1024 * 1024))}"
    with Wire(hasty.address) as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        wire.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert wire.head().status == 200
        eventually(lambda: hasty.connections == 0, "the connection to be ended")


def test_deleting_does_not_disturb_who_is_reading(host: Host) -> None:
    content = os.urandom(16 * 1024 * 1024)
    path = f"/artifacts/{stored(host, content)}"
    with Wire(host.address) as wire:
        head = wire.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()).head()
        assert ask(host.address, "DELETE", path).json() == {"ok": True}
        assert files_of(host) == []
        assert wire.body_of(head).body == content


def test_everybody_is_served_at_once(host: Host) -> None:
    contents = [os.urandom(LARGE) for _ in range(8)]
    failures: list[BaseException] = []

    def exchange(content: bytes) -> None:
        try:
            for _ in range(3):
                assert ask(host.address, "GET", f"/artifacts/{stored(host, content)}").body == content
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=exchange, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert len(host.artifacts.list()) == 24
    assert host.artifacts.used_bytes == 8 * LARGE


# --- without passages -------------------------------------------------------------------------------------------------


@pytest.fixture
def no_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "AVAILABLE", False)


@pytest.mark.parametrize("size", [0, 1, LARGE])
def test_content_goes_through_the_loop_where_there_are_no_passages(host: Host, no_passages: None, size: int) -> None:
    content = os.urandom(size)
    with Wire(host.address) as wire:
        for _ in range(2):
            reply = begun(wire, size).send(content).reply()
            path = f"/artifacts/{reply.json()['artifact']['artifact_id']}"
            assert wire.ask("GET", path).body == content
            if size > 1:
                assert wire.ask("GET", path, headers={"Range": "bytes=1-"}).body == content[1:]


def test_breaks_leave_nothing_where_there_are_no_passages(host: Host, no_passages: None) -> None:
    with Wire(host.address) as wire:
        begun(wire, 2 * LARGE).send(bytes(LARGE))
        eventually(lambda: files_of(host), "the upload to begin")
    eventually(lambda: files_of(host) == [], "nothing left")
    path = f"/artifacts/{stored(host, bytes(64 * 1024 * 1024))}"
    with Wire(host.address) as wire:
        wire.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert wire.head().status == 200
    eventually(lambda: not open_blobs(host), "the blob to be closed")


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunks", "zstd"])
def test_memory_does_not_grow_with_the_content(host: Host, framing: str) -> None:
    size, piece = 48 * 1024 * 1024, bytes(100_000)
    frame = Compressor() if framing == "zstd" and encodings() else None
    if framing == "zstd" and frame is None:
        pytest.skip("needs the extra zstd")
    tracemalloc.start()
    try:
        with Wire(host.address) as wire:
            if framing == "length":
                begun(wire, size)
            else:
                coding = b"Content-Encoding: zstd\r\n" if frame is not None else b""
                wire.send(CHUNKED.replace(b"\r\n\r\n", b"\r\n" + coding + b"\r\n"))
            for start in range(0, size, len(piece)):
                part = piece[: size - start]
                data = part if frame is None else frame.feed(part)
                if data:
                    wire.send(data if framing == "length" else chunked(data, end=False))
            if frame is not None:
                wire.send(chunked(frame.finish(), end=False))
            if framing != "length":
                wire.send(chunked())
            artifact = wire.reply().json()["artifact"]
            assert artifact["size_bytes"] == size
            wire.send(f"GET /artifacts/{artifact['artifact_id']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            left = int(wire.head().headers["content-length"]) - len(wire._rest)
            while left:
                left -= len(wire.sock.recv(65536))
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()
