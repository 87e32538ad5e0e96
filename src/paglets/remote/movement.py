"""The body of a movement: a header of plain values, then parts (a state blob, files) streamed one after the other.

Layout: magic ``PGLF``, length of the header (u64), the header as a state blob, then the parts without anything between
them. The header's ``parts`` lists their sizes. A body without parts is what
:func:`paglets.remote.transport.dump_pickle` writes. Nothing in it is code.
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

    Whoever reads on an event loop uses the steps: :meth:`feed_header` until it says that the header is there, then
    :meth:`decode_header`, :meth:`open_parts` and :meth:`feed_parts`. Decoding and feeding parts may be done in another
    thread, one step at a time.

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
            self.feed_parts(memoryview(data))
        elif self.feed_header(data):
            self.feed_parts(self.open_parts(self.decode_header()))

    def feed_header(self, data: bytes) -> bool:
        """Take the next bytes while the header is not complete, and return whether it is now.

        :raises SerializationError: they do not begin a movement.
        :raises PayloadTooLargeError: the header is larger than allowed.
        """
        self._buffer += data
        if self._header_bytes is None:
            if len(self._buffer) < FRAME.size:
                return False
            magic, self._header_bytes = FRAME.unpack_from(self._buffer)
            if magic != MAGIC:
                raise SerializationError("malformed data: it is not in the data-only encoding of movements")
            if self._header_bytes > self._max_header_bytes:
                raise PayloadTooLargeError(
                    f"header of {self._header_bytes} bytes is larger than the {self._max_header_bytes} allowed"
                )
        return len(self._buffer) >= FRAME.size + self._header_bytes

    def decode_header(self) -> dict[str, Any]:
        """Return the complete header, checked.

        :raises SerializationError: it is malformed, or has too many parts.
        """
        decoded = decode_blob_plain(memoryview(self._buffer)[FRAME.size : self._end_of_header])
        header = decoded.get("value")
        if not isinstance(header, dict):
            raise SerializationError("malformed data: the header of a movement is a dict")
        sizes = header.get("parts", [])
        if not isinstance(sizes, list) or len(sizes) > MAX_PARTS:
            raise SerializationError(f"a movement has a list of at most {MAX_PARTS} parts")
        if not all(type(size) is int and 0 <= size < 1 << 60 for size in sizes):
            raise SerializationError("malformed data: a part has no size")
        return header

    def open_parts(self, header: dict[str, Any]) -> memoryview:
        """Ask for the sinks, and return the bytes of parts that came with the end of the header.

        :raises SerializationError: the header announces other parts than a movement of its kind has.
        """
        self.header = header
        rest = memoryview(bytes(memoryview(self._buffer)[self._end_of_header :]))
        self._buffer = bytearray()
        sizes = header.get("parts", [])
        sinks = self._open_sinks(header)
        if len(sinks) != len(sizes):
            raise SerializationError(f"a movement of this kind has {len(sinks)} parts, not {len(sizes)}")
        self._pending = list(zip(sizes, sinks, strict=True))[::-1]
        return rest

    def feed_parts(self, view: memoryview) -> None:
        """Take the next bytes after the header.

        :raises SerializationError: there are more than announced.
        """
        self._skip_complete()
        while view:
            if not self._pending:
                raise SerializationError("the body goes on after the movement has ended")
            left, sink = self._pending[-1]
            piece = view[:left]
            sink.write(piece)
            view = view[len(piece) :]
            self._pending[-1] = (left - len(piece), sink)
            self._skip_complete()

    def finish(self) -> dict[str, Any]:
        """Return the header after the last byte was fed.

        :raises SerializationError: the body ended early.
        """
        if self.header is None or self._pending:
            raise SerializationError("the body ends before the movement does")
        return self.header

    @property
    def only_memory(self) -> bool:
        """Whether every part that is still to come is held in memory, so that taking it waits for no disk."""
        return all(getattr(sink, "in_memory", False) for _, sink in self._pending)

    @property
    def _end_of_header(self) -> int:
        return FRAME.size + (self._header_bytes or 0)

    def _skip_complete(self) -> None:
        while self._pending and not self._pending[-1][0]:
            self._pending.pop()[1].finish()
