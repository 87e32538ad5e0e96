"""Take the body of a request: bounded in size, for one request and for all of them together, and decoded strictly."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any, Final, TypeVar, get_args

import msgspec

from paglets.core.errors import OverloadedError, PayloadTooLargeError, SerializationError
from paglets.core.text import has_lone_surrogates
from paglets.remote.json_text import finite, is_extended
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

    What is for a paglet may hold NaN, infinities and halves of surrogate pairs, as Python writes them; what is for the
    host, such as names and ids, may not.

    :raises SerializationError: it is no JSON, names a key twice, or has a value of the wrong type; the text says where.
    """
    if not body:
        raise SerializationError("a JSON body is missing")
    try:
        value, extended = _value_of(body)
        if _BINARY_MARK in body:
            value = restore_json_safe(value)
        found = msgspec.convert(value, type_)
        if extended and not _holds_anything(type_):
            check_fields(found, "$")
        return found
    except msgspec.ValidationError as exc:
        raise SerializationError(f"wrong value in the body: {exc}") from None
    except UnicodeError as exc:
        raise SerializationError(f"malformed JSON: {exc}") from None
    except RecursionError:
        raise SerializationError("malformed JSON: nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as exc:
        raise SerializationError(f"malformed JSON: {exc}") from None


def _value_of(body: bytes) -> tuple[Any, bool]:
    """Return the value of a body, and whether there is something in it that JSON proper does not have."""
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
        if not is_extended(body):
            raise
        return _EXTENDED.decode(body.decode()), True
    # Equal bytes cannot hide a second value for a key. Most clients write what msgspec writes: no second look.
    if msgspec.json.encode(value) != body:
        _UNIQUE.decode(body.decode())
    return value, False


def check_fields(value: Any, path: str) -> None:
    """Check that nothing which is for the host holds what JSON proper does not have.

    :param path: what error texts call the value.
    :raises SerializationError: there is a number that is not finite, or half of a surrogate pair; the text says where.
    """
    if isinstance(value, msgspec.Struct):
        for name in _own_fields(type(value)):
            check_fields(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, str):
        if has_lone_surrogates(value):
            raise SerializationError(f"wrong value in the body: Expected text without lone surrogates - at `{path}`")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise SerializationError(f"wrong value in the body: Expected a finite number - at `{path}`")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            check_fields(item, f"{path}[{position}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_fields(key, f"{path}[...]")
            check_fields(item, f"{path}[...]")


@lru_cache(maxsize=128)
def _own_fields(type_: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields that are for the host: those whose type says what may be in them."""
    return tuple(field.name for field in msgspec.structs.fields(type_) if not _holds_anything(field.type))


def _holds_anything(hint: Any) -> bool:
    return hint is Any or any(map(_holds_anything, get_args(hint)))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise SerializationError(f"malformed JSON: the key {key[:100]!r} is there more than once")
        seen.add(key)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        _no_duplicates(pairs)
    return found


_UNIQUE: Final = json.JSONDecoder(object_pairs_hook=_no_duplicates)
_EXTENDED: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=finite)
