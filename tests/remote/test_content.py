"""The content of artifacts on its way out of and into files."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from pathlib import Path

import pytest

from paglets.artifacts import ArtifactRef
from paglets.core.errors import TransferError
from paglets.remote.content import PIECE_BYTES, ContentSink, ContentSource, open_source

SIZES = [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * 1024 * 1024]


def hashing_threads() -> int:
    return sum(thread.name == "paglets-hash" for thread in threading.enumerate())


@pytest.mark.parametrize("size", SIZES)
def test_a_source_gives_the_file_and_its_checksum(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := os.urandom(size))
    with open_source(path) as stream:
        source = ContentSource(stream, path, hashing=True)
        assert source.size == size
        for _ in range(2):
            assert b"".join(source) == content
            assert source.sha256 == hashlib.sha256(content).hexdigest()
        plain = ContentSource(stream, path, hashing=False)
        assert (b"".join(plain), plain.sha256) == (content, "")
    assert not hashing_threads()


@pytest.mark.parametrize("size", SIZES[1:])
def test_the_checksum_is_there_with_the_last_piece(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := os.urandom(size))
    with open_source(path) as stream:
        source = ContentSource(stream, path, hashing=True)
        received = 0
        for piece in source:
            received += len(piece)
            if received == size:
                assert source.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_changes_is_not_sent_to_its_end(tmp_path: Path, change: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (PIECE_BYTES * 3))
    with open_source(path) as stream:
        pieces = iter(ContentSource(stream, path, hashing=True))
        sent = len(next(pieces))
        os.truncate(path, PIECE_BYTES * 3 + change)
        with pytest.raises(TransferError, match="changed"):
            sent += sum(map(len, pieces))
    assert sent < PIECE_BYTES * 3
    assert not hashing_threads()


def test_an_abandoned_source_ends_its_thread(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(5 * 1024 * 1024))
    with open_source(path) as stream:
        pieces = iter(ContentSource(stream, path, hashing=True))
        next(pieces)
        assert hashing_threads() == 1
        del pieces
    assert not hashing_threads()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("announced", [None, "right", "wrong"])
def test_a_sink_tells_whether_the_content_is_right(size: int, announced: str | None) -> None:
    content = os.urandom(size)
    sha256 = hashlib.sha256(content).hexdigest()
    stream = io.BytesIO()
    with ContentSink(ArtifactRef("", "1", size_bytes=size, sha256=sha256.upper()), stream) as sink:
        for start in range(0, size, PIECE_BYTES):
            sink.write(content[start : start + PIECE_BYTES])
    if announced == "wrong":
        with pytest.raises(TransferError, match="checksum"):
            sink.check("0" * 64)
    else:
        sink.check(None if announced is None else sha256)
    assert stream.getvalue() == content
    assert not hashing_threads()


def test_a_sink_stops_at_the_first_byte_too_many() -> None:
    stream = io.BytesIO()
    with ContentSink(ArtifactRef("", "1", size_bytes=3, sha256="x"), stream) as sink:
        with pytest.raises(TransferError, match="more than its 3 bytes"):
            sink.write(b"abcd")
        with pytest.raises(TransferError, match="4 of 3"):
            sink.check(None)
    assert stream.getvalue() == b""
