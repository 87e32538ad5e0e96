"""Read one HTTP/1.1 response from a connection."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

import httptools

from paglets.remote.sockets import Connection, Deadline

__all__ = ["BodyTooLargeError", "Incoming", "ProtocolError", "Response"]

_MAX_HEAD_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 64 * 1024
_STREAM_READ_BYTES: Final = 256 * 1024


class ProtocolError(Exception):
    """Say that the peer sent something that is not a well-formed HTTP response."""


class BodyTooLargeError(Exception):
    """Say that a response body is larger than the reader allows."""


class Response:
    """Give status, headers (lower-case names) and body of one response; close it when done.

    A completely read response gives its connection back, any other ends it.

    :param give_back: called with a connection that can be used again.
    """

    __slots__ = ("_connection", "_give_back", "_incoming", "deadline")

    def __init__(self, connection: Connection, deadline: Deadline, give_back: Callable[[Connection], None]) -> None:
        self._connection: Connection | None = connection
        self._give_back = give_back
        self._incoming = Incoming()
        self.deadline = deadline
        """How long reading may take."""

    @property
    def status(self) -> int:
        """Return the status code."""
        return self._incoming.status

    @property
    def headers(self) -> dict[str, str]:
        """Return the header fields by lower-case name; repeated ones are joined with commas."""
        return self._incoming.headers

    @property
    def begun(self) -> bool:
        """Tell whether a byte of the response was received."""
        return self._incoming.size > 0

    def read_head(self) -> None:
        """Read up to the end of the head. Raises `OSError`, `TimeoutError` and `ProtocolError`."""
        while not self._incoming.head_complete:
            self._receive(_READ_BYTES)

    def read(self, limit: int) -> bytes:
        """Return the rest of the body; raise `BodyTooLargeError` as soon as it is known to exceed `limit` bytes."""
        announced = self._incoming.left
        if announced is not None and announced > limit:
            raise BodyTooLargeError(f"the answer has more than {limit} bytes")
        pieces: list[bytes] = []
        size = 0
        for piece in self.pieces(_READ_BYTES):
            size += len(piece)
            if size > limit:
                raise BodyTooLargeError(f"the answer has more than {limit} bytes")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def pieces(self, read_bytes: int = _STREAM_READ_BYTES) -> Iterator[bytes]:
        """Yield the body as it arrives. Raises `OSError`, `TimeoutError` and `ProtocolError`."""
        incoming = self._incoming
        while True:
            ready, incoming.body = incoming.body, []
            yield from ready
            if incoming.complete:
                return
            if incoming.left is not None:
                yield from self._announced(incoming.left, read_bytes)
                return
            self._receive(read_bytes)

    def lent_pieces(self, read_bytes: int, rooms: int) -> Iterator[bytes | memoryview]:
        """Yield the body as :meth:`pieces` does, most of it in memory that is used again.

        Fresh memory for each piece is a page fault for every 4 KB, as dear as receiving them.

        :param rooms: a piece stays as it is until so many more, less one, were asked for.
        """
        incoming = self._incoming
        ready, incoming.body = incoming.body, []
        yield from ready
        if incoming.complete:
            return
        if incoming.left is None:
            yield from self.pieces(read_bytes)
            return
        size = min(read_bytes, incoming.left)
        ring = itertools.cycle([memoryview(bytearray(size)) for _ in range(rooms)])
        left = incoming.left
        while left:
            room = next(ring)
            count = self._open_connection().receive_into(room[: min(left, size)], self.deadline)
            left = self._took(count, left)
            yield room[:count]
        incoming.complete = True

    def spoil(self) -> None:
        """Have the connection closed rather than given back."""
        self._incoming.reusable = False

    def close(self) -> None:
        """Give the connection back if the response was read to its end, else close it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._incoming.complete and self._incoming.reusable:
            self._give_back(connection)
        else:
            connection.close()

    def _announced(self, left: int, read_bytes: int) -> Iterator[bytes]:
        """Yield the rest of a body of known length past the parser, which would copy it."""
        while left:
            data = self._open_connection().receive(min(left, read_bytes), self.deadline)
            left = self._took(len(data), left)
            yield data
        self._incoming.complete = True

    def _took(self, count: int, left: int) -> int:
        if not count:
            raise ConnectionResetError("the connection ended before the answer was complete")
        self._incoming.left = left - count
        return left - count

    def _receive(self, limit: int) -> None:
        if data := self._open_connection().receive(limit, self.deadline):
            self._incoming.feed(data)
        else:
            self._incoming.end()

    def _open_connection(self) -> Connection:
        if self._connection is None:
            raise ProtocolError("the response was closed before it was read")
        return self._connection


class Incoming:
    """Collect what the parser reports about one response; reads nothing itself."""

    __slots__ = (
        "body",
        "body_size",
        "complete",
        "head_complete",
        "headers",
        "left",
        "parser",
        "reusable",
        "size",
        "status",
    )

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.head_complete = False
        self.complete = False
        self.reusable = False
        """Whether the connection may carry another request after this response."""
        self.size = 0
        """Bytes received, head and body."""
        self.body_size = 0
        """Bytes of the body that the parser has reported."""
        self.left: int | None = None
        """Bytes of the body that are still to come, None if that was not announced."""

    def on_message_begin(self) -> None:
        if self.complete:
            # A second response that nobody asked for: whatever comes on this connection can't be trusted.
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete:
            key = name.decode("latin-1").lower()
            text = value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        self.status = self.parser.get_status_code()
        # A head of status 1xx is an interim answer: the real one follows.
        self.head_complete = self.status >= 200
        self.reusable = self.head_complete and self.parser.should_keep_alive()
        if self.head_complete and "transfer-encoding" not in self.headers:
            length = self.headers.get("content-length", "")
            self.left = int(length) if length.isascii() and length.isdigit() else None

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.body.append(body)
            self.body_size += len(body)
            if self.left is not None:
                self.left -= len(body)

    def on_message_complete(self) -> None:
        if self.head_complete:
            self.complete = True
        else:
            self.headers.clear()

    def feed(self, data: bytes) -> None:
        """Parse what was received; raise `ProtocolError` where it is no response."""
        self.size += len(data)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            # Garbage behind a complete response spoils the connection, not the response.
            if not self.complete:
                raise ProtocolError(f"not an HTTP response ({exc})") from exc
            self.reusable = False
        if self.size > _MAX_HEAD_BYTES and not self.head_complete:
            raise ProtocolError("the head of the response is too large")

    def end(self) -> None:
        """Take note that the peer sends no more; raise `ConnectionResetError` where the response is not complete."""
        if not self.head_complete or "content-length" in self.headers or "transfer-encoding" in self.headers:
            raise ConnectionResetError("the connection ended before the answer was complete")
        self.complete = True
