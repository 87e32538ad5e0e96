"""The body of a movement: a header of plain values, then parts (a state blob, files) streamed one after the other.

Layout: magic ``PGLF``, length of the header (u64), the header as a state blob, then the parts without anything between them. The header's
``parts`` lists their sizes. A body without parts is what :func:`paglets.remote.transport.dump_pickle` writes. Nothing in it is code.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from paglets.core.errors import PayloadTooLargeError, SerializationError, TransferError
from paglets.serialization.blob import blob_from_wire, decode_blob_plain

FRAME = struct.Struct("<4sQ")
MAGIC = b"PGLF"
CHUNK_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 256 * 1024 * 1024
MAX_PARTS = 100_000

Piece = bytes | memoryview


class Part(Protocol):
    """Bytes of known length that follow the header."""

    @property
    def nbytes(self) -> int:
        """How many bytes :meth:`pieces` gives in total."""

    def pieces(self) -> Iterator[Piece]:
        """Give the bytes piece by piece."""


@dataclass(frozen=True, slots=True)
class BufferPart:
    """Bytes in memory."""

    view: memoryview

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.view.nbytes

    def pieces(self) -> Iterator[Piece]:
        """Give the bytes without copying them."""
        for start in range(0, self.view.nbytes, CHUNK_BYTES):
            yield self.view[start : start + CHUNK_BYTES]


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file, read while it is sent.

    :raises TransferError: while iterating, when the file is no longer what it was when it was listed.
    """

    path: Path
    nbytes: int

    def pieces(self) -> Iterator[Piece]:
        """Read the file."""
        left = self.nbytes
        try:
            with self.path.open("rb", buffering=0) as stream:
                while left:
                    piece = stream.read(min(left, CHUNK_BYTES))
                    if not piece:
                        break
                    left -= len(piece)
                    yield piece
                grown = not left and bool(stream.read(1))
        except OSError as exc:
            raise TransferError(f"file {self.path} cannot be read: {exc}") from exc
        if left or grown:
            raise TransferError(f"file {self.path} changed while it was sent")


def movement_pieces(payload: dict[str, Any], parts: Sequence[Part] = ()) -> Iterator[Piece]:
    """Give the body of a movement piece by piece; the header is encoded at once, the parts as they are sent.

    :raises SerializationError: the payload holds a value that cannot travel; nothing was given then.
    """
    header = {**payload, "parts": [part.nbytes for part in parts]} if parts else payload
    blob = blob_from_wire({"value": header})
    return _pieces(blob.segments, blob.nbytes, parts)


def _pieces(segments: Sequence[bytes | memoryview], nbytes: int, parts: Sequence[Part]) -> Iterator[Piece]:
    yield FRAME.pack(MAGIC, nbytes)
    for segment in segments:
        view = memoryview(segment)
        for start in range(0, view.nbytes, CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]
    for part in parts:
        yield from part.pieces()


class Sink(Protocol):
    """What a part is written to as it arrives."""

    def write(self, piece: memoryview, /) -> object:
        """Take the next bytes."""

    def finish(self) -> None:
        """Hear that the part is complete."""


class MovementReader:
    """Read the body of a movement as it arrives, in pieces of any size.

    :param open_sinks: called once with the header when that is complete; returns a sink for each announced part.
    :param max_header_bytes: a larger header is refused before it is read.
    """

    def __init__(
        self, open_sinks: Callable[[dict[str, Any]], Sequence[Sink]], *, max_header_bytes: int = MAX_HEADER_BYTES
    ) -> None:
        self._open_sinks = open_sinks
        self._max_header_bytes = max_header_bytes
        self._buffer = bytearray()
        self._header_bytes: int | None = None
        self._pending: list[tuple[int, Sink]] = []
        self.header: dict[str, Any] | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        :raises SerializationError: they are malformed.
        :raises PayloadTooLargeError: the header is larger than allowed.
        """
        if self.header is not None:
            self._feed_parts(memoryview(data))
            return
        self._buffer += data
        if self._header_bytes is None:
            if len(self._buffer) < FRAME.size:
                return
            magic, self._header_bytes = FRAME.unpack_from(self._buffer)
            if magic != MAGIC:
                raise SerializationError("malformed data: it is not in the data-only encoding of movements")
            if self._header_bytes > self._max_header_bytes:
                raise PayloadTooLargeError(
                    f"header of {self._header_bytes} bytes is larger than the {self._max_header_bytes} allowed"
                )
        end = FRAME.size + self._header_bytes
        if len(self._buffer) < end:
            return
        self._begin(decode_blob_plain(memoryview(self._buffer)[FRAME.size : end]))
        rest = bytes(memoryview(self._buffer)[end:])
        self._buffer = bytearray()
        self._feed_parts(memoryview(rest))

    def finish(self) -> dict[str, Any]:
        """Return the header after the last byte was fed.

        :raises SerializationError: the body ended early.
        """
        if self.header is None or self._pending:
            raise SerializationError("the body ends before the movement does")
        return self.header

    def _begin(self, decoded: dict[str, Any]) -> None:
        header = decoded.get("value")
        if not isinstance(header, dict):
            raise SerializationError("malformed data: the header of a movement is a dict")
        sizes = header.get("parts", [])
        if not isinstance(sizes, list) or len(sizes) > MAX_PARTS:
            raise SerializationError(f"a movement has a list of at most {MAX_PARTS} parts")
        if not all(type(size) is int and 0 <= size < 1 << 60 for size in sizes):
            raise SerializationError("malformed data: a part has no size")
        self.header = header
        sinks = self._open_sinks(header)
        if len(sinks) != len(sizes):
            raise SerializationError(f"a movement of this kind has {len(sinks)} parts, not {len(sizes)}")
        self._pending = list(zip(sizes, sinks, strict=True))[::-1]
        self._skip_complete()

    def _feed_parts(self, view: memoryview) -> None:
        while view:
            if not self._pending:
                raise SerializationError("the body goes on after the movement has ended")
            left, sink = self._pending[-1]
            piece = view[:left]
            sink.write(piece)
            view = view[len(piece) :]
            self._pending[-1] = (left - len(piece), sink)
            self._skip_complete()

    def _skip_complete(self) -> None:
        while self._pending and not self._pending[-1][0]:
            self._pending.pop()[1].finish()
