"""The body of an HTTP request, read from the connection as a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from paglets.artifacts.streams import STREAM_CHUNK_BYTES
from paglets.core.errors import TransferError

_LINE_BYTES: Final = 8 * 1024
_TRAILER_LINES: Final = 100
_SIZE_DIGITS: Final = 16


def body_length(headers: Any) -> int:
    """Return the announced length of a body in bytes; -1 for a chunked one.

    :param headers: anything with `get`, such as a dict or an `email.message.Message`.
    :raises TransferError: there is no length, an invalid one, or one of a chunked body.
    """
    encoding = _header(headers, "Transfer-Encoding").lower()
    length = _header(headers, "Content-Length")
    if encoding:
        if encoding != "chunked" or length:
            raise TransferError("a body is either chunked and nothing else, or has a Content-Length")
        return -1
    if not (length.isascii() and length.isdigit() and len(length) <= _SIZE_DIGITS):
        raise TransferError(f"the request needs a Content-Length or a chunked body, not {length[:40]!r}")
    return int(length)


def body_pieces(source: Any, length: int) -> Iterator[bytes]:
    """Give a body piece by piece, and read nothing behind it.

    :param source: has `read(count)` and, for a chunked body, `readline(limit)`.
    :param length: what `body_length` returned.
    :raises TransferError: while iterating; the body ends early or its chunks are malformed.
    """
    return _exactly(source, length) if length >= 0 else _chunked(source)


def _exactly(source: Any, count: int) -> Iterator[bytes]:
    left = count
    while left:
        piece = source.read(min(left, STREAM_CHUNK_BYTES))
        if not piece:
            raise TransferError(f"the body ended {left:,} bytes before the {count:,} that were announced")
        left -= len(piece)
        yield piece


def _chunked(source: Any) -> Iterator[bytes]:
    while size := _chunk_size(_line(source)):
        yield from _exactly(source, size)
        if _line(source):
            raise TransferError("malformed chunked body: a chunk is longer than it says")
    for _ in range(_TRAILER_LINES):
        if not _line(source):
            return
    raise TransferError("malformed chunked body: too many trailers")


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not 0 < len(digits) <= _SIZE_DIGITS or digits.strip(b"0123456789abcdefABCDEF"):
        raise TransferError(f"malformed chunked body: {line[:40]!r} is no size of a chunk")
    return int(digits, 16)


def _line(source: Any) -> bytes:
    line: bytes = source.readline(_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise TransferError("malformed chunked body: it ended early, or has too long a line")
    return line.rstrip(b"\r\n")


def _header(headers: Any, name: str) -> str:
    value = headers.get(name)
    if value is None:
        value = headers.get(name.lower())
    return "" if value is None else str(value).strip()
