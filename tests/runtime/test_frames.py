"""Frames between host and paglet process: nothing is lost, and nothing a peer sends does harm."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.runtime import platform
from paglets.runtime.attachment import DESCRIPTOR_THRESHOLD_BYTES, EMPTY, Attachment, AttachmentWriter
from paglets.runtime.frames import HEADER, HEADER_BYTES, Frame, FrameError, FrameParser, encode

frames = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 65535),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=200),
        st.binary(max_size=300),
    ),
    max_size=8,
)


def wire(frame: tuple[int, int, int, int, bytes, bytes]) -> bytes:
    type_, op, id_, parent, payload, attached = frame
    attachment = Attachment.of([attached]) if attached else EMPTY
    chunks, fds = encode(type_, op, id_, parent, payload, attachment)
    assert fds == ()
    return b"".join(chunks)


def unwire(frame: Frame) -> tuple[int, int, int, int, bytes, bytes]:
    return frame.type, frame.op, frame.id, frame.parent, frame.payload, frame.attachment.bytes()


@given(frames, st.lists(st.integers(1, 400), max_size=40))
def test_frames_survive_any_way_of_cutting_the_stream(
    sent: list[tuple[int, int, int, int, bytes, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(map(wire, sent))
    parser = FrameParser()
    received = []
    for cut in [*cuts, len(stream)]:
        received += [unwire(frame) for frame in parser.feed(stream[:cut], [])]
        stream = stream[cut:]
    assert received == sent


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_frames_or_refused(data: bytes) -> None:
    parser = FrameParser()
    taken = 0
    with contextlib.suppress(FrameError):
        for frame in parser.feed(data, []):
            taken += HEADER_BYTES + len(frame.payload) + frame.attachment.nbytes
    assert taken <= len(data)


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(9, 0, 1, 1, 0, 0, 0),
        HEADER.pack(0, 0, 1, 1, 0, 2**31, 0),
        HEADER.pack(0, 0, 1, 1, 0, 0, 2**63),
        HEADER.pack(0, 1, 1, 1, 0, 0, 10),
    ],
    ids=["unknown type", "huge payload", "huge attachment", "descriptor that did not come"],
)
def test_a_header_out_of_bounds_is_refused(header: bytes) -> None:
    assert len(header) == HEADER_BYTES
    with pytest.raises(FrameError):
        list(FrameParser().feed(header, []))


def test_a_large_attachment_travels_by_descriptor_and_can_be_read_many_times() -> None:
    content = os.urandom(DESCRIPTOR_THRESHOLD_BYTES)
    attachment = Attachment.of([content[:10], content[10:]])
    chunks, fds = encode(0, 1, 1, 0, b"head", attachment)
    assert len(fds) == 1
    assert sum(map(len, chunks)) < 100
    (frame,) = FrameParser().feed(b"".join(chunks), [os.dup(fds[0])])
    assert frame.attachment.bytes() == content
    assert frame.attachment.view() == content
    frame.attachment.close()
    attachment.close()


def test_a_memory_file_cannot_be_changed_by_whoever_sent_it() -> None:
    fd = platform.memory_file("test", [b"x" * 4096])
    try:
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(fd, 10)
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(fd, b"y", 0)
        with pytest.raises(OSError, match="less than the announced"):
            platform.map_file(fd, 5000)
    finally:
        os.close(fd)


def test_a_file_that_could_shrink_is_copied_instead_of_mapped() -> None:
    fd = platform.open_memory_file("test")
    try:
        os.write(fd, b"x" * 4096)
        view = platform.map_file(fd, 4096)
        os.ftruncate(fd, 0)
        assert bytes(view) == b"x" * 4096
    finally:
        os.close(fd)


@given(st.lists(st.binary(max_size=100_000), max_size=6))
def test_a_writer_holds_what_was_written(pieces: list[bytes]) -> None:
    writer = AttachmentWriter()
    for piece in pieces:
        writer.write(piece)
    attachment = writer.finish()
    assert attachment.bytes() == b"".join(pieces)
    assert attachment.nbytes == len(b"".join(pieces))
    attachment.close()
