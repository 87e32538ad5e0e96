"""Values on HTTP: binary data in JSON, and the data-only encoding of movements.

The function and class names that speak of pickle are kept for the programs that call them. What they write is a framed
state blob (`paglets.serialization.blob`): data alone, which runs no code when it is read.
"""

from __future__ import annotations

import http.client
import struct
from collections.abc import Mapping
from typing import Any, Protocol

from paglets.core.errors import HostError, SerializationError
from paglets.serialization.blob import blob_from_wire, decode_blob_plain
from paglets.serialization.codec import to_wire
from paglets.serialization.kinds import MisfitError, binary_tag, is_binary_tag, type_name, untag_binary

PICKLE_CONTENT_TYPE = "application/x-paglets-pickle"
"""The content type of an encoding that runs code when it is read; requests with it are refused."""
MOVEMENT_CONTENT_TYPE = "application/x-paglets-movement"
"""The content type of the data-only encoding."""
LOCAL_PICKLE_CHUNK_BYTES = 1024 * 1024
"""How much is written or read at once."""
LOCAL_PICKLE_SEGMENT_BYTES = 64 * 1024 * 1024

_FRAME = struct.Struct("<4sQ")
_FRAME_MAGIC = b"PGLF"
_COALESCE_BYTES = 64 * 1024
_MAX_LINE_BYTES = 8 * 1024
_MAX_TRAILERS = 64


class Readable(Protocol):
    """What values are read from: a file, a socket file or a reader of this module."""

    def read(self, size: int = -1, /) -> bytes: ...

    def readline(self, size: int = -1, /) -> bytes: ...


# --- JSON -----------------------------------------------------------------------------------------------------------


def json_safe(value: Any) -> Any:
    """Return a value with everything in it that JSON lacks made into something it has.

    Binary data becomes a tagged dict, tuples and sets become lists, dict keys text; other values stay as they are.
    """
    if isinstance(value, (bytes, bytearray)):
        return binary_tag(value)
    if isinstance(value, dict):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    if isinstance(value, (set, frozenset)):
        items = [json_safe(item) for item in value]
        try:
            return sorted(items)
        except TypeError:  # not comparable: any order will do
            return items
    return value


def restore_binary_tag(value: Any) -> Any:
    """Return the binary data of a dict with exactly the two keys of a known tag, anything else unchanged.

    :raises SerializationError: the base64 text is malformed.
    """
    if not is_binary_tag(value):
        return value
    try:
        return untag_binary(value)
    except MisfitError as misfit:
        raise SerializationError(misfit.at("")) from None


def restore_json_safe(value: Any) -> Any:
    """Return a value from JSON with all tagged binary data in its lists and dicts restored.

    :raises SerializationError: a base64 text is malformed, or the value is nested too deeply.
    """
    try:
        return _restored(value)
    except RecursionError:
        raise SerializationError("nested too deeply") from None


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if isinstance(value, dict):
        if is_binary_tag(value):
            return restore_binary_tag(value)
        return {key: _restored(item) for key, item in value.items()}
    return value


# --- the data-only encoding -----------------------------------------------------------------------------------------


def dump_pickle(value: Any, target: Any) -> None:
    """Write any value that can travel to a file-like object, in pieces of `LOCAL_PICKLE_CHUNK_BYTES` at most.

    :raises SerializationError: something in the value cannot travel; nothing was written then.
    """
    with blob_from_wire({"value": to_wire(value, path="value")}) as blob:
        target.write(_FRAME.pack(_FRAME_MAGIC, blob.nbytes))
        for segment in blob.segments:
            view = memoryview(segment)
            for start in range(0, view.nbytes, LOCAL_PICKLE_CHUNK_BYTES):
                target.write(view[start : start + LOCAL_PICKLE_CHUNK_BYTES])


def load_pickle(source: Any) -> Any:
    """Read one value that `dump_pickle` wrote from a file-like object, as wire values.

    Memory grows with the bytes that arrive, not with the length that is announced.

    :raises EOFError: the source ends before the value does.
    :raises SerializationError: the bytes are malformed.
    """
    magic, size = _FRAME.unpack(_read_exactly(source, _FRAME.size))
    if magic != _FRAME_MAGIC:
        raise SerializationError("malformed data: it is not in the data-only encoding of movements")
    payload = decode_blob_plain(_read_exactly(source, size))
    if "value" not in payload:
        raise SerializationError("malformed data: no value in it")
    return payload["value"]


def dump_http_chunked_pickle(connection: http.client.HTTPConnection, value: Any) -> None:
    """Send any value that can travel as the chunked body of a request whose headers are sent.

    :raises SerializationError: something in the value cannot travel; nothing was sent then.
    """
    writer = ChunkedRequestWriter(connection)
    dump_pickle(value, writer)
    writer.close()


def load_http_pickle_payload(headers: Any, source: Any) -> dict[str, Any]:
    """Read the dict that is the body of a request in the data-only encoding.

    :param headers: the headers of the request, a mapping or a message.
    :param source: the file-like body, chunked or of the announced length.
    :raises HostError: another content type, no usable length, or no dict in the body.
    :raises EOFError: the body ends early.
    :raises SerializationError: the body is malformed.
    """
    content_type = _header(headers, "Content-Type").partition(";")[0].strip().lower()
    if content_type != MOVEMENT_CONTENT_TYPE:
        raise HostError(f"unsupported content type {content_type[:80]!r}, send {MOVEMENT_CONTENT_TYPE}")
    reader: ChunkedRequestReader | LimitedRequestReader
    if _header(headers, "Transfer-Encoding").strip().lower() == "chunked":
        reader = ChunkedRequestReader(source)
    else:
        length = _header(headers, "Content-Length").strip()
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise HostError("a request body is chunked or has a Content-Length")
        reader = LimitedRequestReader(source, int(length))
    payload = load_pickle(reader)
    # The end of the body is read too: whoever closes the connection now would cut off a sender that still writes it,
    # and on one that is kept the next request would begin with it.
    if reader.read(1):
        raise SerializationError("malformed data: the body goes on after its value")
    if not isinstance(payload, dict):
        raise HostError(f"a request body holds a dict, not {type_name(payload)}")
    return payload


def _header(headers: Any, name: str) -> str:
    value = headers.get(name)
    if value is None and isinstance(headers, Mapping):
        value = next((item for key, item in headers.items() if str(key).lower() == name.lower()), None)
    return "" if value is None else str(value)


def _read_exactly(source: Any, size: int) -> bytearray:
    data = bytearray()
    while len(data) < size:
        piece = source.read(min(size - len(data), LOCAL_PICKLE_CHUNK_BYTES))
        if not piece:
            raise EOFError(f"the data ends after {len(data)} of {size} bytes")
        data += piece
    return data


# --- bodies of requests ---------------------------------------------------------------------------------------------


class ChunkedRequestWriter:
    """A file-like object whose bytes go out as chunks of a request body; small writes are gathered."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection
        self._gathered = bytearray()
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send the data, now or with the data that follows, and return its size.

        :raises ValueError: the writer is closed.
        """
        if self._closed:
            raise ValueError("write to a closed request body")
        view = memoryview(data).cast("B")
        if view.nbytes < _COALESCE_BYTES:
            self._gathered += view
            if len(self._gathered) >= _COALESCE_BYTES:
                self.flush()
        else:
            self.flush()
            self._send(view)
        return view.nbytes

    def flush(self) -> None:
        """Send what was gathered."""
        if self._gathered:
            gathered, self._gathered = self._gathered, bytearray()
            self._send(memoryview(gathered))

    def close(self) -> None:
        """Send what was gathered and the end of the body; closing again does nothing."""
        if self._closed:
            return
        self.flush()
        self._closed = True
        self.connection.send(b"0\r\n\r\n")

    def _send(self, view: memoryview) -> None:
        self.connection.send(b"%x\r\n" % view.nbytes)
        self.connection.send(view)
        self.connection.send(b"\r\n")


class _RequestReader:
    """What the two readers have in common: everything in terms of reading a piece or a line of the present part."""

    source: Readable

    def _available(self) -> int:
        """Return how many bytes may be read from the source before asking again, 0 at the end."""
        raise NotImplementedError

    def _took(self, count: int) -> None:
        raise NotImplementedError

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, less only at the end of the body; all of it for a negative size.

        :raises EOFError: the source ends before the body does.
        """
        wanted = -1 if size is None else size
        pieces: list[bytes] = []
        while wanted and (available := self._available()):
            pieces.append(self._piece(available if wanted < 0 else min(wanted, available)))
            wanted -= len(pieces[-1]) if wanted > 0 else 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size: int | None = -1) -> bytes:
        """Return the bytes up to and with the next line feed, at most `size` unless that is negative.

        :raises EOFError: the source ends before the body does.
        """
        wanted = -1 if size is None else size
        line = bytearray()
        while wanted and not line.endswith(b"\n") and (available := self._available()):
            piece = self.source.readline(available if wanted < 0 else min(wanted, available))
            if not piece:
                raise EOFError("the request body ends early")
            self._took(len(piece))
            line += piece
            wanted -= len(piece) if wanted > 0 else 0
        return bytes(line)

    def _piece(self, size: int) -> bytes:
        piece = self.source.read(min(size, LOCAL_PICKLE_CHUNK_BYTES))
        if not piece:
            raise EOFError("the request body ends early")
        self._took(len(piece))
        return piece


class LimitedRequestReader(_RequestReader):
    """A file-like object that reads a body of known length and not a byte of what follows it."""

    def __init__(self, source: Readable, remaining: int) -> None:
        self.source = source
        self.remaining = remaining

    def _available(self) -> int:
        return self.remaining

    def _took(self, count: int) -> None:
        self.remaining -= count


class ChunkedRequestReader(_RequestReader):
    """A file-like object that reads a chunked body; chunk extensions and trailers are skipped."""

    def __init__(self, source: Readable) -> None:
        self.source = source
        self._left = 0
        self._started = False
        self._ended = False

    def _available(self) -> int:
        if not self._left and not self._ended:
            if self._started and self._line() != b"":
                raise HostError("malformed chunked body: a chunk is longer than it says")
            self._started = True
            self._left = self._chunk_size()
            if not self._left:
                self._skip_trailers()
                self._ended = True
        return self._left

    def _took(self, count: int) -> None:
        self._left -= count

    def _chunk_size(self) -> int:
        digits = self._line().partition(b";")[0].strip()
        if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
            raise HostError("malformed chunked body: no chunk size where one is due")
        return int(digits, 16)

    def _skip_trailers(self) -> None:
        for _ in range(_MAX_TRAILERS):
            if self._line() == b"":
                return
        raise HostError("malformed chunked body: too many trailers")

    def _line(self) -> bytes:
        line = self.source.readline(_MAX_LINE_BYTES + 1)
        if not line.endswith(b"\n"):
            if len(line) > _MAX_LINE_BYTES:
                raise HostError("malformed chunked body: a line is too long")
            raise EOFError("the request body ends early")
        return line.rstrip(b"\r\n")
