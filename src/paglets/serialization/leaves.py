"""Decoders of values that have no declared parts: scalars, arrays, paths, enums, literals."""

from __future__ import annotations

import array
import contextlib
import enum
from pathlib import PurePath
from typing import Any, Literal, get_args, get_origin

from paglets.serialization.arrays import decode_array, decode_ndarray, is_ndarray_type, is_numpy_scalar_type
from paglets.serialization.encode import encode_any
from paglets.serialization.kinds import (
    TEXT_SCALARS,
    Decoder,
    MisfitError,
    buffer_of,
    complex_from_wire,
    is_binary_tag,
    is_value_tag,
    refuse,
    untag_binary,
)
from paglets.serialization.restore import restore, restore_dict


def leaf_decoder(hint: Any) -> Decoder | None:
    """Return the decoder of a hint whose values have no parts with hints of their own, None for any other hint."""
    if hint is Any or hint is object:
        return restore
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin = get_origin(hint) or hint
    if origin is Literal:
        return _literal_decoder(hint)
    if origin is array.array:
        return _decode_array
    if is_ndarray_type(origin):
        return _decode_ndarray
    if not isinstance(hint, type):
        return None
    if issubclass(hint, enum.Enum):
        return _enum_decoder(hint)
    if issubclass(hint, PurePath):
        return _constructed(hint, str)
    if is_numpy_scalar_type(hint):
        return _constructed(hint, (bool, int, float, str, bytes, list))
    return None


# --- scalars --------------------------------------------------------------------------------------------------------


def _decode_str(value: Any) -> Any:
    if type(value) is str or value is None:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise refuse("str", value)


def _decode_bool(value: Any) -> Any:
    if type(value) is bool or value is None:
        return value
    raise refuse("bool", value)


def _decode_int(value: Any) -> Any:
    if type(value) is int or value is None:
        return value
    if isinstance(value, int) or (type(value) is float and value.is_integer()):
        return int(value)
    raise refuse("int", value)


def _decode_float(value: Any) -> Any:
    if type(value) is float or value is None:
        return value
    if isinstance(value, (int, float)) and type(value) is not bool:
        try:
            return float(value)
        except OverflowError:
            raise MisfitError("the number is too large for a float") from None
    raise refuse("float", value)


def _decode_bytes(value: Any) -> Any:
    return value if type(value) is bytes or value is None else bytes(buffer_of(value))


def _decode_bytearray(value: Any) -> Any:
    return value if type(value) is bytearray or value is None else bytearray(buffer_of(value))


def _decode_memoryview(value: Any) -> Any:
    if value is None:
        return None
    data = buffer_of(value)
    return memoryview(bytes(data) if isinstance(data, memoryview) else data)


def _decode_none(value: Any) -> None:
    if value is not None:
        raise refuse("None", value)


def _decode_complex(value: Any) -> Any:
    if value is None or isinstance(value, complex):
        return value
    if isinstance(value, (int, float)) and type(value) is not bool:
        return complex(_decode_float(value))
    return complex_from_wire(value["value"] if isinstance(value, dict) and is_value_tag(value) else value)


def _decode_ndarray(value: Any) -> Any:
    return None if value is None else decode_ndarray(value)


def _decode_array(value: Any) -> Any:
    return None if value is None else decode_array(value)


def _text_decoder(cls: type, decode_text: Decoder) -> Decoder:
    def decode(value: Any) -> Any:
        if type(value) is str:
            return decode_text(value)
        if isinstance(value, dict) and is_value_tag(value):
            value = restore_dict(value)
        if isinstance(value, cls) or value is None:
            return value
        raise refuse(cls.__name__, value)

    return decode


_SCALARS: dict[Any, Decoder] = {
    str: _decode_str,
    bool: _decode_bool,
    int: _decode_int,
    float: _decode_float,
    bytes: _decode_bytes,
    bytearray: _decode_bytearray,
    memoryview: _decode_memoryview,
    complex: _decode_complex,
    type(None): _decode_none,
    array.array: _decode_array,
    **{cls: _text_decoder(cls, decode_text) for cls, _, _, decode_text in TEXT_SCALARS},
}


# --- classes and literals -------------------------------------------------------------------------------------------


def _constructed(cls: Any, accepted: Any) -> Decoder:
    def decode(value: Any) -> Any:
        if isinstance(value, cls) or value is None:
            return value
        if not isinstance(value, accepted):
            raise refuse(cls.__name__, value)
        try:
            return cls(complex(*value)) if type(value) is list else cls(value)
        except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
            raise MisfitError(f"expected {cls.__name__}: {error}") from None

    return decode


def _enum_decoder(cls: type[enum.Enum]) -> Decoder:
    def decode(value: Any) -> Any:
        if isinstance(value, cls) or value is None:
            return value
        plain = restore(value)
        try:
            return cls(plain)
        except Exception as error:
            member = _member_with_wire(cls, value)
            if member is None:
                choices = ", ".join(repr(member.value) for member in list(cls)[:20])
                raise MisfitError(f"expected {cls.__name__}, one of: {choices}") from error
            return member

    return decode


def _member_with_wire(cls: type[enum.Enum], wire: Any) -> enum.Enum | None:
    """Return the member whose value, a tuple or an object, has this wire form."""
    for member in cls:
        with contextlib.suppress(MisfitError):
            if encode_any(member.value, None) == wire:
                return member
    return None


def _literal_decoder(hint: Any) -> Decoder:
    options = get_args(hint)

    def decode(value: Any) -> Any:
        if value is None:
            return None
        plain = untag_binary(value) if is_binary_tag(value) else value
        for option in options:
            if type(option) is type(plain) and option == plain:
                return option
        for option in options:
            if isinstance(option, enum.Enum) and type(option.value) is type(plain) and option.value == plain:
                return option
        raise MisfitError(f"expected one of: {', '.join(map(repr, options))}")

    return decode
