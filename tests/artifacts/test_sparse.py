"""Files without disk space for what is zero: written, copied, and read back as what they were."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.placing import copy_content
from paglets.artifacts.sparse import HOLE_BYTES, SparseFile, data_ranges

PIECES = st.lists(
    st.one_of(
        st.binary(max_size=50),
        st.integers(0, 3 * HOLE_BYTES).map(bytes),
        st.integers(1, HOLE_BYTES).map(lambda size: bytes(size - 1) + b"x"),
    ),
    max_size=8,
)
posix_only = pytest.mark.skipif(os.name != "posix", reason="what only POSIX file systems have")


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


@settings(deadline=None)
@given(PIECES)
def test_what_is_written_is_there(pieces: list[bytes]) -> None:
    with tempfile.TemporaryFile(buffering=0) as stream:
        file = SparseFile(stream.fileno())
        for piece in pieces:
            file.write(piece)
            file.finish()
            assert os.fstat(stream.fileno()).st_size == file.nbytes
        stream.seek(0)
        assert stream.read() == b"".join(pieces)


@settings(deadline=None)
@given(PIECES)
def test_what_is_copied_is_the_same(pieces: list[bytes]) -> None:
    with tempfile.TemporaryFile(buffering=0) as source, tempfile.TemporaryFile(buffering=0) as target:
        file = SparseFile(source.fileno())
        for piece in pieces:
            file.write(piece)
        file.finish()
        copy_content(source.fileno(), target.fileno(), file.nbytes)
        target.seek(0)
        assert target.read() == b"".join(pieces)
        ranges = list(data_ranges(source.fileno(), file.nbytes))
        assert ranges == sorted(ranges)
        assert all(start < end <= file.nbytes for start, end in ranges)


@posix_only
def test_holes_take_no_room_wherever_they_go(tmp_path: Path) -> None:
    size = 64 * HOLE_BYTES
    content = bytes(size - 10 * HOLE_BYTES) + b"x" * HOLE_BYTES + bytes(9 * HOLE_BYTES)
    store = BlobStore(tmp_path / "store")
    with store.receive() as writer:
        for start in range(0, size, 1024 * 1024):
            writer.write(content[start : start + 1024 * 1024])
        blob = writer.commit()
    assert on_disk(store.path(blob.sha256)) < size / 4
    store.hold("somebody else", [blob.sha256], seconds=60)
    store.put_at(blob.sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert on_disk(tmp_path / "copy") < size / 4


@posix_only
def test_a_resumed_content_goes_on_behind_a_hole(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    key = "a" * 32
    with store.receive(key=key) as writer:
        writer.write(b"begin" + bytes(5 * HOLE_BYTES))
    there = store.received(key)
    assert there == 5 + 5 * HOLE_BYTES
    with store.receive(key=key, offset=there) as writer:
        writer.write(bytes(HOLE_BYTES) + b"end")
        blob = writer.commit()
    assert store.path(blob.sha256).read_bytes() == b"begin" + bytes(6 * HOLE_BYTES) + b"end"


def test_room_is_asked_for_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [OSError(errno.ENOSPC, "full")] * 2
    write = os.write

    def full_at_first(descriptor: int, data: memoryview) -> int:
        if refusals:
            raise refusals.pop()
        return write(descriptor, data)

    asked: list[OSError] = []
    with (tmp_path / "file").open("wb", buffering=0) as stream:
        file = SparseFile(stream.fileno(), is_room=lambda error: asked.append(error) is None)
        monkeypatch.setattr(os, "write", full_at_first)
        file.write(b"content")
        refusals.append(OSError(errno.ENOSPC, "full"))
        with pytest.raises(OSError, match="full"):
            SparseFile(stream.fileno()).write(b"more")
    assert len(asked) == 2
    assert (tmp_path / "file").read_bytes() == b"content"
