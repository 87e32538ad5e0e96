"""JSON as clients and hosts write and read it: what Python's `json` module does, as fast as `msgspec` where that can.

JSON proper has no NaN and no infinities, and leaves open what half of a surrogate pair is (`os.listdir` returns names
with these). Python writes and reads `NaN`, `Infinity`, `-Infinity`, and escapes such as `\\udce9`, and programs count
on that; RFC 8259 lets parsers accept extensions (section 9) and strings hold such escapes (section 8.2). Only a text
with one of them in it is written or read by the slower module.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import msgspec

from paglets.core.errors import SerializationError
from paglets.remote.transport import json_safe, restore_json_safe

__all__ = ["decode_json", "encode_json", "finite", "is_extended"]

_PLAIN: Final = frozenset({str, int, bool, type(None)})
_BINARY_MARK: Final = b'"__paglets_binary__"'


def encode_json(value: Any, *, strict: bool = False) -> bytes:
    """Encode a value as JSON, with binary values in their tagged form.

    :param strict: refuse what JSON proper cannot express, for a reader that may know another encoding.
    :raises SerializationError: it cannot be expressed, because of the type of something in it or because it is nested
        too deeply.
    """
    try:
        if _is_plain(value):
            try:
                return msgspec.json.encode(value)
            except UnicodeEncodeError:
                if strict:
                    raise
        return _encode_special(value, strict)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise SerializationError(f"cannot be sent as JSON: {exc}") from exc


def _is_plain(value: Any) -> bool:
    """Tell whether msgspec's JSON is what `json_safe` would lead to; it writes bytes, for one, without their tag."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is dict:
        return all(type(key) is str and (type(item) in _PLAIN or _is_plain(item)) for key, item in value.items())
    if kind is list:
        return all(type(item) in _PLAIN or _is_plain(item) for item in value)
    return kind is float and math.isfinite(value)


def _encode_special(value: Any, strict: bool) -> bytes:
    # The standard encoder, since it knows what is not finite where msgspec would write null.
    safe = json_safe(value)
    try:
        return json.dumps(safe, allow_nan=not strict, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        if strict:
            raise
        return json.dumps(safe, separators=(",", ":")).encode("ascii")


def decode_json(data: bytes) -> Any:
    """Decode JSON and restore tagged binary values; no bytes give None.

    :raises ValueError: it is not JSON, or nested too deeply.
    :raises SerializationError: a tagged value is malformed.
    """
    if not data:
        return None
    try:
        try:
            value = msgspec.json.decode(data)
        except msgspec.DecodeError:
            if not is_extended(data):
                raise
            value = _EXTENDED.decode(data.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return restore_json_safe(value) if _BINARY_MARK in data else value


def is_extended(data: bytes) -> bool:
    """Tell whether there may be something in a text that only Python's module reads.

    For texts that msgspec refused. Searching takes next to nothing, so malformed ones stay cheap to refuse.
    """
    return b"NaN" in data or b"Infinity" in data or b"\\ud" in data or b"\\uD" in data


def finite(text: str) -> float:
    """Return a number written in digits; raise `ValueError` for one that no float can be, which msgspec refuses too."""
    number = float(text)
    if math.isinf(number):
        raise ValueError("Number out of range")
    return number


_EXTENDED: Final = json.JSONDecoder(parse_float=finite)
