"""Take the body of a request: bounded in size, for one request and for all of them together, and decoded strictly."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from paglets.core.errors import OverloadedError, PayloadTooLargeError, SerializationError
from paglets.remote.transport import restore_json_safe
from paglets.runtime.http.errors import ClientGoneError
from paglets.runtime.http.guards import Receive

T = TypeVar("T")

#: Larger bodies are decoded beside the event loop.
DECODE_ON_LOOP_BYTES = 256 * 1024
_BINARY_MARK = b'"__paglets_binary__"'


class Intake:
    """Read bodies, and know how much of memory they take at present."""

    def __init__(self) -> None:
        self.buffered = 0
        """Bytes that are taken and not released yet."""

    async def read(self, receive: Receive, *, limit: int, total: int) -> bytes:
        """Read a whole body; :meth:`release` it when the request has ended.

        :param limit: its largest size.
        :param total: what all bodies may take together.
        :raises PayloadTooLargeError: it is larger; the rest is not read.
        :raises OverloadedError: too much is being read at present.
        :raises ClientGoneError: the client left.
        """
        body = b""
        pieces: list[bytes] = []
        taken = 0
        try:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                body = message.get("body", b"")
                more = message.get("more_body", False)
                if taken + len(body) > limit:
                    raise PayloadTooLargeError(f"a body of more than {limit} bytes is not allowed")
                self.take(len(body), total)
                taken += len(body)
                pieces.append(body)
        except BaseException:
            self.release(taken)
            raise
        return body if len(pieces) == 1 else b"".join(pieces)

    def take(self, nbytes: int, total: int) -> None:
        """Account for bytes that are held in memory.

        :raises OverloadedError: there are too many.
        """
        if self.buffered + nbytes > total:
            raise OverloadedError(f"the requests under way hold {self.buffered} bytes; send this one again later")
        self.buffered += nbytes

    def release(self, nbytes: int) -> None:
        """Account for bytes that are let go."""
        self.buffered -= nbytes


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a way to receive a body that was read already; afterwards it waits for the client to leave."""
    given = False

    async def again() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def decode_body(body: bytes, type_: type[T]) -> T:
    """Return what a JSON body says, as the declared type and with tagged binary values restored.

    :raises SerializationError: it is no JSON, names a key twice, or has a value of the wrong type; the text says where.
    """
    if not body:
        raise SerializationError("a JSON body is missing")
    try:
        value = msgspec.json.decode(body)
        # Equal bytes cannot hide a second value for a key. Most clients write what msgspec writes: no second look.
        if msgspec.json.encode(value) != body:
            _UNIQUE.decode(body.decode())
        if _BINARY_MARK in body:
            value = restore_json_safe(value)
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as exc:
        raise SerializationError(f"wrong value in the body: {exc}") from None
    except UnicodeError as exc:
        raise SerializationError(f"malformed JSON: {exc}") from None
    except RecursionError:
        raise SerializationError("malformed JSON: nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as exc:
        raise SerializationError(f"malformed JSON: {exc}") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise SerializationError(f"malformed JSON: the key {key[:100]!r} is there more than once")
        seen.add(key)


_UNIQUE = json.JSONDecoder(object_pairs_hook=_no_duplicates)
