"""Content compressed for the way: zstd where it is installed, and nothing where it would not pay.

The library is that of Python 3.14 (`compression.zstd`) and its backport for earlier ones, the extra `paglets[zstd]`. It
is imported when it is first needed. What is said here of lengths is enforced while bytes arrive; nothing that the
compressed content claims about itself is believed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from paglets.artifacts.errors import TooLargeError
from paglets.core.errors import TransferError

__all__ = ["SAMPLE_BYTES", "Compressor", "Decompressor", "encodings", "sample_of", "worth_compressing"]

SAMPLE_BYTES: Final = 256 * 1024
# Under this, headers and calls cost as much as is saved.
_LEAST_BYTES: Final = 1024
_PIECE_BYTES: Final = 256 * 1024
# 8 MB, the most that an HTTP content coding may ask for (RFC 9659). Level 3 uses 2 MB.
_WINDOW_LOG: Final = 23
# What blocks and headers may add. Without it a frame of empty blocks is an endless body without content.
_OVERHEAD_BYTES: Final = 64 * 1024


def encodings() -> list[str]:
    """Return the content codings that this process can read and write: `["zstd"]`, or none without the library."""
    return [] if _library() is None else ["zstd"]


def sample_of(path: Path, size: int) -> bytes:
    """Return up to 256 KB from the beginning, the middle and the end of a file.

    :param size: how long the file is; one that has become shorter gives a shorter sample.
    :raises TransferError: the file cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as stream:
            if size <= SAMPLE_BYTES:
                return stream.read(SAMPLE_BYTES)
            third = SAMPLE_BYTES // 3
            parts = []
            for start in (0, (size - third) // 2, size - third):
                stream.seek(start)
                parts.append(stream.read(third))
            return b"".join(parts)
    except OSError as exc:
        raise TransferError(f"Could not read {path}: {exc}") from exc


def worth_compressing(sample: bytes) -> bool:
    """Return whether a sample shrinks by at least a third; False without the library.

    It takes about a millisecond: 256 KB at most, at the quickest level.
    """
    zstd = _library()
    if zstd is None or len(sample) < _LEAST_BYTES:
        return False
    content = sample[:SAMPLE_BYTES]
    return 3 * len(zstd.compress(content, level=1)) <= 2 * len(content)


class Compressor:
    """Compress one content, piece by piece.

    :raises TransferError: the library is not installed.
    """

    def __init__(self, level: int = 3) -> None:
        self._frame = _required().ZstdCompressor(level=level)

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take the next piece and return what is ready to be sent, which may be nothing."""
        ready: bytes = self._frame.compress(data)
        return ready

    def finish(self) -> bytes:
        """Return the end of the compressed content."""
        rest: bytes = self._frame.flush()
        return rest


class Decompressor:
    """Restore one content, piece by piece, to no more than a given number of bytes.

    The input is exactly one frame. Memory is bounded by its window of at most 8 MB and by one piece of output.

    :param limit: the most bytes that the content may have.
    :raises TransferError: the library is not installed.
    """

    def __init__(self, limit: int) -> None:
        zstd = _required()
        self._error: type[Exception] = zstd.ZstdError
        parameter: Any = zstd.DecompressionParameter.window_log_max
        self._frame = zstd.ZstdDecompressor(options={parameter: _WINDOW_LOG})
        self._limit = limit
        self._most_input = limit + limit // 16 + _OVERHEAD_BYTES
        self._taken = 0
        self._made = 0

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Take the next piece and give what it stands for, in pieces of at most 256 KB; take them all before the next.

        :raises TooLargeError: while iterating; the content is longer than the limit.
        :raises TransferError: while iterating; it is damaged, needs a larger window than 8 MB, or is followed by
            something else.
        """
        if not data:
            return
        if self._frame.eof:
            raise TransferError("the compressed content is followed by further bytes")
        self._taken += len(data)
        if self._taken > self._most_input:
            raise TooLargeError(f"the compressed content is larger than its declared {self._limit} bytes can need")
        while True:
            # One byte more than is allowed tells a content that is too long from one that is just complete.
            room = min(_PIECE_BYTES, self._limit - self._made + 1)
            try:
                piece: bytes = self._frame.decompress(data, room)
            except self._error as exc:
                raise TransferError(f"the compressed content cannot be read: {exc}") from exc
            self._made += len(piece)
            if self._made > self._limit:
                raise TooLargeError(f"the content decompresses to more than its declared {self._limit} bytes")
            if piece:
                yield piece
            if self._frame.eof:
                if self._frame.unused_data:
                    raise TransferError("the compressed content is followed by further bytes")
                return
            if self._frame.needs_input:
                return
            data = b""

    def finish(self) -> int:
        """Return how many bytes the content has, now that all of it was fed.

        :raises TransferError: the compressed content is not complete.
        """
        if not self._frame.eof:
            raise TransferError(f"the compressed content ends early, after {self._made} bytes of what it stands for")
        return self._made


@cache
def _library() -> ModuleType | None:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        return None
    return zstd


def _required() -> ModuleType:
    zstd = _library()
    if zstd is None:
        raise TransferError("zstd is not installed here: install paglets[zstd], or send the content as it is")
    return zstd
