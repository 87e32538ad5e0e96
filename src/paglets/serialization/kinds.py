"""Which kinds of values travel, how the tagged ones look, and how a misfit finds its path.

A *wire value* is None, bool, int, float, str, bytes, bytearray, or a list or str-keyed dict of wire values. Everything
else is mapped to one of these. Where the declared type does not say what to make of a wire value again (`Any`, unions),
the value travels as a *tagged* dict of exactly two keys.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, TypeAlias

import msgspec

BINARY_TAG = "__paglets_binary__"
VALUE_TAG = "__paglets_value__"
MEMBER_TAG = "__paglets_member__"
NDARRAY_TAG = "__paglets_ndarray__"
ARRAY_TAG = "__paglets_array__"

INT64_MIN = -(2**63)
UINT64_MAX = 2**64 - 1

PLAIN_SCALARS = frozenset({type(None), bool, int, float, str})
LEAVES = frozenset({type(None), bool, int, float, str, bytes, bytearray})

ALLOWED_KINDS = (
    "None, bool, int, float, str, bytes, bytearray, memoryview, complex, Decimal, UUID, datetime, date, time, "
    "timedelta, Enum, PurePath, array.array, numpy arrays and scalars, dataclasses, and list, tuple, deque, set, "
    "frozenset or dict of these"
)


class MisfitError(Exception):
    """A value that does not fit, on its way up to the caller; containers add the path from the inside out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.parts: list[str] = []

    def at(self, root: str) -> str:
        """Return the text with the full path in front."""
        path = (root + "".join(reversed(self.parts))).removeprefix(".")
        return f"{path}: {self.text}" if path else self.text


Decoder: TypeAlias = Callable[[Any], Any]


def type_name(value: object) -> str:
    """Return the name of a value's type for an error text."""
    cls = type(value)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def refuse(expected: str, value: Any) -> MisfitError:
    """Return the error for a value of the wrong kind."""
    return MisfitError(f"expected {expected}, got {type_name(value)}")


def key_part(key: object) -> str:
    """Return the path element of a dict key, shortened when a stranger made it long."""
    text = repr(key)
    return f"[{text}]" if len(text) <= 80 else f"[{text[:76]}...]"


def binary_tag(value: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Return the tagged JSON form of binary data."""
    kind = "bytearray" if isinstance(value, bytearray) else "bytes"
    return {BINARY_TAG: kind, "base64": base64.b64encode(value).decode("ascii")}


def is_binary_tag(value: object) -> bool:
    """Return whether a value is a dict of exactly the two keys of tagged binary data, of a known kind."""
    if not isinstance(value, dict) or len(value) != 2 or "base64" not in value:
        return False
    kind = value.get(BINARY_TAG)
    return isinstance(kind, str) and kind in ("bytes", "bytearray")


def untag_binary(value: dict[str, Any]) -> bytes | bytearray:
    """Return the bytes of a dict for which `is_binary_tag` holds; raises MisfitError for bad base64."""
    text = value["base64"]
    if not isinstance(text, str):
        raise MisfitError(f"base64 data is text, not {type_name(text)}")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MisfitError(f"invalid base64 data: {error}") from None
    return bytearray(data) if value[BINARY_TAG] == "bytearray" else data


def buffer_of(value: Any) -> bytes | bytearray | memoryview:
    """Return the binary data of a wire value, raw or tagged; raises MisfitError when it is something else."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value
    if is_binary_tag(value):
        return untag_binary(value)
    raise MisfitError(f"expected binary data, got {type_name(value)}")


# --- scalars that travel as text ------------------------------------------------------------------------------------


def timedelta_text(value: dt.timedelta) -> str:
    """Return an ISO 8601 duration, exact to the microsecond."""
    sign = "-" if value.days < 0 else ""
    value = -value if sign and value != dt.timedelta.min else value
    if sign and value.days < 0:  # the one duration whose negative does not exist
        return f"-P{-value.days}D"
    text = f"{sign}P{value.days}DT{value.seconds}"
    return f"{text}.{value.microseconds:06}S" if value.microseconds else f"{text}S"


def timedelta_from_text(text: str) -> dt.timedelta:
    """Return the duration of an ISO 8601 text; raises MisfitError when it is none."""
    try:
        return msgspec.convert(text, dt.timedelta)
    except (msgspec.ValidationError, ValueError, OverflowError):
        raise MisfitError("expected an ISO 8601 duration") from None


def _from_iso(cls: Any) -> Decoder:
    def decode(text: str) -> Any:
        try:
            return cls.fromisoformat(text)
        except (ValueError, OverflowError):
            raise MisfitError(f"expected an ISO 8601 {cls.__name__}") from None

    return decode


def _decimal_from_text(text: str) -> decimal.Decimal:
    try:
        return decimal.Decimal(text)
    except (decimal.InvalidOperation, ValueError):
        raise MisfitError("expected the text of a decimal number") from None


def _uuid_from_text(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise MisfitError("expected the text of a UUID") from None


# datetime before date: every datetime is a date.
TEXT_SCALARS: tuple[tuple[type, str, Callable[[Any], str], Decoder], ...] = (
    (dt.datetime, "datetime", dt.datetime.isoformat, _from_iso(dt.datetime)),
    (dt.date, "date", dt.date.isoformat, _from_iso(dt.date)),
    (dt.time, "time", dt.time.isoformat, _from_iso(dt.time)),
    (dt.timedelta, "timedelta", timedelta_text, timedelta_from_text),
    (decimal.Decimal, "decimal", str, _decimal_from_text),
    (uuid.UUID, "uuid", str, _uuid_from_text),
)


def complex_from_wire(value: Any) -> complex:
    """Return the complex number of a `[real, imaginary]` pair."""
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(part) in (int, float) for part in value):
        try:
            return complex(*value)
        except OverflowError:
            raise MisfitError("a part of the complex number is too large") from None
    raise MisfitError("expected [real, imaginary]")


TAGGED_DECODERS: dict[str, Decoder] = {name: decode for _, name, _, decode in TEXT_SCALARS}


def untag_value(kind: str, value: Any) -> Any:
    """Return what a tagged scalar of a known kind stands for; raises MisfitError when its value does not fit."""
    if kind == "complex":
        return complex_from_wire(value)
    if not isinstance(value, str):
        raise MisfitError(f"the value of a tagged {kind} is text, not {type_name(value)}")
    return TAGGED_DECODERS[kind](value)


def is_value_tag(value: dict[Any, Any]) -> bool:
    """Return whether a dict is a tagged scalar of a known kind."""
    if len(value) != 2 or "value" not in value:
        return False
    kind = value.get(VALUE_TAG)
    return isinstance(kind, str) and (kind == "complex" or kind in TAGGED_DECODERS)


def key_text(key: Any) -> str:
    """Return the text under which a dict key travels."""
    if isinstance(key, enum.Enum):
        return key_text(key.value)
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, PurePath):
        return str(key)
    for cls, _, encode, _ in TEXT_SCALARS:
        if isinstance(key, cls):
            return encode(key)
    if isinstance(key, (bytes, bytearray)):
        return base64.b64encode(key).decode("ascii")
    try:
        return str(key)
    except ValueError as error:  # an int with more digits than the interpreter converts
        raise MisfitError(f"dict key cannot travel: {error}") from None
