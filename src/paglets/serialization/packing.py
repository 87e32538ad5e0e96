"""Wire values as msgpack, without losing what msgpack lacks.

`bytearray`, integers beyond 64 bit and texts with lone surrogates (file names can have them) are extension types; such
a text as dict key is binary, because an extension cannot be a key. With a `Sink`, large binary data stays out of the
msgpack body and is only referred to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec.msgpack import Decoder, Ext

from paglets.core.errors import SerializationError
from paglets.serialization.kinds import INT64_MIN, LEAVES, UINT64_MAX, MisfitError, key_part, key_text, type_name

EXT_BYTEARRAY = 1
EXT_INTEGER = 2
EXT_TEXT = 3
EXT_BUFFER = 4

KIND_BYTES = 0
KIND_BYTEARRAY = 1
KIND_RAW = 2
"""Array data: the reader copies it into the array itself."""

OUT_OF_LINE_BYTES = 32 * 1024
TOO_DEEP = "nested too deeply"

_ENCODER = msgspec.msgpack.Encoder()


class Sink:
    """Collects the binary data that stays out of the msgpack body."""

    __slots__ = ("buffers", "threshold")

    def __init__(self, threshold: int | None = OUT_OF_LINE_BYTES) -> None:
        self.buffers: list[bytes | memoryview] = []
        self.threshold = threshold

    def add(self, value: bytes | bytearray | memoryview, kind: int) -> Any:
        """Return what stands for the data in the body: itself, an extension, or a reference to a buffer."""
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        if self.threshold is not None and size >= self.threshold:
            self.buffers.append(value if isinstance(value, bytes) else memoryview(value).cast("B"))
            return Ext(EXT_BUFFER, (len(self.buffers) - 1).to_bytes(4, "big") + bytes((kind,)))
        return Ext(EXT_BYTEARRAY, bytes(value)) if kind == KIND_BYTEARRAY else value


Encoder: TypeAlias = Callable[[Any, Sink | None], Any]


def pack_integer(value: int) -> Any:
    """Return what stands for an integer in the body."""
    if INT64_MIN <= value <= UINT64_MAX:
        return value
    return Ext(EXT_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def to_body(wire: Any, sink: Sink, *, surrogates: bool = False) -> Any:
    """Return a wire value in the form that msgpack can write; raises MisfitError for anything that is no wire value."""
    kind = type(wire)
    if kind is int:
        return pack_integer(wire)
    if kind is str:
        return _pack_text(wire) if surrogates else wire
    if kind is bytes:
        return sink.add(wire, KIND_BYTES)
    if kind is bytearray:
        return sink.add(wire, KIND_BYTEARRAY)
    if kind is float or wire is None or kind is bool:
        return wire
    if kind is list:
        items: list[Any] = []
        try:
            for item in wire:
                items.append(to_body(item, sink, surrogates=surrogates))
        except MisfitError as misfit:
            misfit.parts.append(f"[{len(items)}]")
            raise
        return items
    if kind is dict:
        entries: dict[Any, Any] = {}
        for key, item in wire.items():
            if type(key) is not str:
                raise MisfitError(f"dict key is text, not {type_name(key)}")
            try:
                entries[_pack_key(key) if surrogates else key] = to_body(item, sink, surrogates=surrogates)
            except MisfitError as misfit:
                misfit.parts.append(key_part(key))
                raise
        return entries
    raise MisfitError(f"{type_name(wire)} is no wire value")


def _pack_text(text: str) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:
        return Ext(EXT_TEXT, text.encode("utf-8", "surrogatepass"))
    return text


def _pack_key(key: str) -> str | bytes:
    packed = _pack_text(key)
    return packed if type(packed) is str else packed.data


def pack_wire(wire: Any, sink: Sink, path: str = "") -> bytes:
    """Return the msgpack bytes of a wire value.

    :param path: what error texts call the value.
    :raises SerializationError: something in it is no wire value, or is nested too deeply.
    """
    try:
        try:
            return _ENCODER.encode(to_body(wire, sink))
        except UnicodeEncodeError:
            sink.buffers.clear()
            return _ENCODER.encode(to_body(wire, sink, surrogates=True))
    except MisfitError as misfit:
        raise SerializationError(misfit.at(path)) from None
    except RecursionError:
        raise SerializationError(f"{path}: {TOO_DEEP}" if path else TOO_DEEP) from None


def unpack_extension(code: int, data: memoryview) -> Any:
    """Return the value of an extension type; raises MisfitError for an unknown one."""
    if code == EXT_BYTEARRAY:
        return bytearray(data)
    if code == EXT_INTEGER:
        return int.from_bytes(data, "big", signed=True)
    if code == EXT_TEXT:
        return _unpack_text(data)
    raise MisfitError(f"unknown extension type {code}")


def read_body(
    data: bytes | bytearray | memoryview, ext_hook: Callable[[int, memoryview], Any] = unpack_extension
) -> Any:
    """Return the wire value of msgpack bytes.

    :raises SerializationError: the bytes are malformed, hold a foreign kind of value or are nested too deeply.
    """
    try:
        wire = Decoder(ext_hook=ext_hook).decode(data)
        check_wire(wire)
    except MisfitError as misfit:
        raise SerializationError(misfit.at("")) from None
    except RecursionError:
        raise SerializationError(TOO_DEEP) from None
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError) as error:
        raise SerializationError(f"malformed data: {error}") from None
    return wire


_FLAT = LEAVES | {memoryview}
_KEY_KINDS = frozenset({type(None), bool, int, float, str, bytes})


def check_wire(wire: Any) -> None:
    """Make every dict key text, in place, and raise MisfitError for what is no wire value (such as a timestamp)."""
    kind = type(wire)
    if kind is list:
        children = wire
    elif kind is dict:
        key_kinds = set(map(type, wire))
        if not key_kinds <= {str}:
            if not key_kinds <= _KEY_KINDS:
                raise MisfitError("dict key is no text")
            _restore_keys(wire)
        children = wire.values()
    elif kind in _FLAT:
        return
    else:
        raise MisfitError(f"{type_name(wire)} is no wire value")
    if set(map(type, children)) <= _FLAT:
        return
    for child in children:
        if type(child) not in _FLAT:
            check_wire(child)


def _restore_keys(wire: dict[Any, Any]) -> None:
    entries = list(wire.items())
    wire.clear()
    for key, item in entries:
        wire[_unpack_text(key) if type(key) is bytes else key_text(key)] = item


def _unpack_text(data: bytes | memoryview) -> str:
    try:
        return str(data, "utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise MisfitError("malformed text") from None
