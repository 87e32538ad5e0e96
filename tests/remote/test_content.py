"""The content of artifacts on its way out of and into files."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from paglets.artifacts import ArtifactRef
from paglets.artifacts.compression import Decompressor, encodings
from paglets.core.errors import TransferError
from paglets.remote.content import (
    PIECE_BYTES,
    CompressedBody,
    ContentSink,
    ContentSource,
    FileBody,
    open_source,
)
from paglets.remote.sockets import Connection, Deadline, Stop

TARGET = Path("target")
SIZES = [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * 1024 * 1024]
SECONDS = 10.0


def hashing_threads() -> int:
    return sum(thread.name.startswith("paglets-hash") for thread in threading.enumerate())


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    near, far = socket.socketpair()
    connection = Connection(near)
    yield connection, far
    connection.close()
    far.close()


class Reader:
    """Read all that comes over a socket, on a thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.data = bytearray()
        self._sock = sock
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while piece := self._sock.recv(1 << 20):
            self.data += piece

    def all(self) -> bytes:
        self._thread.join()
        return bytes(self.data)


@pytest.mark.parametrize("size", SIZES)
def test_a_source_knows_size_and_checksum(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := os.urandom(size))
    with open_source(path) as stream:
        with ContentSource(stream, path, hashing=True) as source:
            assert source.size == size
            assert source.sha256 == hashlib.sha256(content).hexdigest()
            source.check_unchanged()
        with ContentSource(stream, path, hashing=False) as source:
            assert (source.size, source.sha256) == (size, "")
    assert not hashing_threads()


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_a_body_from_any_offset(tmp_path: Path, size: int, pair: tuple[Connection, socket.socket]) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := os.urandom(size))
    near, far = pair
    reader = Reader(far)
    told: list[tuple[int, int]] = []
    with open_source(path) as stream:
        for offset in (0, size // 3):
            body = FileBody(stream, path, offset, size - offset, lambda *step: told.append(step))
            assert body.write_to(near, Deadline(SECONDS)) is False
            if size:
                assert told[-1] == (size, size)
                assert [done for done, _ in told] == sorted(done for done, _ in told)
                told.clear()
    near.shut()
    assert reader.all() == content + content[size // 3 :]


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "same bytes again"])
def test_a_file_that_changed_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := b"x" * 1000)
    with open_source(path) as stream, ContentSource(stream, path, hashing=True) as source:
        # Clocks of files are coarse: the change must not fall on the tick in which the file was made.
        status = path.stat()
        contents = {"longer": content + b"x", "shorter": content[1:], "other": b"y" * 1000, "same bytes again": content}
        path.write_bytes(contents[change])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        with pytest.raises(TransferError, match="changed"):
            source.check_unchanged()


def test_a_file_that_became_shorter_is_not_sent_to_its_end(
    tmp_path: Path, pair: tuple[Connection, socket.socket]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    with open_source(path) as stream:
        os.truncate(path, 400)
        with pytest.raises(TransferError, match="changed"):
            FileBody(stream, path, 0, 1000).write_to(pair[0], Deadline(SECONDS))


def test_a_file_that_was_replaced_is_not_hashed_for_the_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"first")
    with open_source(path) as stream:
        (tmp_path / "other").write_bytes(b"other")
        (tmp_path / "other").replace(path)
        with pytest.raises(TransferError, match="changed"):
            ContentSource(stream, path, hashing=True)


def test_an_abandoned_source_ends_its_thread(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * 1024 * 1024))
    with open_source(path) as stream, ContentSource(stream, path, hashing=True):
        assert hashing_threads() == 1
    assert not hashing_threads()


@pytest.mark.skipif(not encodings(), reason="needs the extra zstd")
@pytest.mark.parametrize("size", SIZES)
def test_a_file_can_be_compressed_from_any_offset(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := (b"compressible " * (size // 13 + 1))[:size])
    for offset in (0, size // 3):
        told: list[tuple[int, int]] = []
        with open_source(path) as stream:
            pieces = list(CompressedBody(stream, path, offset, size - offset, lambda *step: told.append(step)))  # noqa: B023
        frame = Decompressor(size)
        assert b"".join(part for piece in pieces for part in frame.feed(piece)) == content[offset:]
        assert frame.finish() == size - offset
        assert told[-1:] == ([(size, size)] if size else [])


@pytest.mark.skipif(not encodings(), reason="needs the extra zstd")
def test_a_file_that_became_shorter_is_not_compressed_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    with open_source(path) as stream:
        os.truncate(path, 400)
        with pytest.raises(TransferError, match="changed"):
            list(CompressedBody(stream, path, 0, 1000))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("announced", [None, "right", "wrong"])
def test_a_sink_tells_whether_the_content_is_right(size: int, announced: str | None) -> None:
    content = os.urandom(size)
    sha256 = hashlib.sha256(content).hexdigest()
    stream = io.BytesIO()
    with ContentSink(ArtifactRef("", "1", size_bytes=size, sha256=sha256.upper()), stream, TARGET) as sink:
        for start in range(0, size, PIECE_BYTES):
            sink.write(content[start : start + PIECE_BYTES])
    if announced == "wrong":
        with pytest.raises(TransferError, match="checksum"):
            sink.check("0" * 64)
    else:
        sink.check(None if announced is None else sha256)
    assert stream.getvalue() == content
    assert not hashing_threads()


@pytest.mark.parametrize("size", SIZES[1:])
def test_a_sink_can_begin_again(size: int) -> None:
    content = os.urandom(size)
    stream = io.BytesIO()
    with ContentSink(
        ArtifactRef("", "1", size_bytes=size, sha256=hashlib.sha256(content).hexdigest()), stream, TARGET
    ) as sink:
        sink.write(b"x")
        sink.restart()
        assert sink.size == 0
        sink.write(content)
    sink.check(None)
    assert stream.getvalue() == content
    assert not hashing_threads()


def test_a_sink_stops_at_the_first_byte_too_many() -> None:
    stream = io.BytesIO()
    with ContentSink(ArtifactRef("", "1", size_bytes=3, sha256="x"), stream, TARGET) as sink:
        with pytest.raises(TransferError, match="more than its 3 bytes"):
            sink.write(b"abcd")
        with pytest.raises(TransferError, match="0 of 3"):
            sink.check(None)
    assert stream.getvalue() == b""


def test_a_stop_wakes_whoever_waits_and_stays(pair: tuple[Connection, socket.socket]) -> None:
    near, _far = pair
    stop = Stop()
    stop.attach(near)
    ended = threading.Event()

    def wait() -> None:
        assert near.receive(10, Deadline(SECONDS)) == b""
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    stop.now()
    thread.join()
    assert ended.is_set()
    assert stop.wanted and stop.wait(0)
    with pytest.raises(OSError, match="called off"):
        stop.attach(near)


def test_a_stop_leaves_a_connection_alone_that_it_was_detached_from(pair: tuple[Connection, socket.socket]) -> None:
    near, far = pair
    stop = Stop()
    stop.attach(near)
    stop.detach()
    stop.now()
    near.send(b"still open", Deadline(SECONDS))
    assert far.recv(100) == b"still open"
