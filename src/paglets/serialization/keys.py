"""Dict keys, which are text on the wire.

The text of a scalar is what `str` gives, of an enum that of its value. A key with parts, such as a tuple, is JSON text.
"""

from __future__ import annotations

import contextlib
import enum
import json
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from paglets.serialization import hints
from paglets.serialization.kinds import BINARY_TAG, Decoder, MisfitError, key_text, untag_binary
from paglets.serialization.restore import restore


def key_decoder(hint: Any, decoder_of: Callable[[Any], Decoder]) -> Decoder | None:
    """Return what makes a key of a key's text, or None when the text is the key."""
    hint = hints.simplify(hint)
    if hint is str:
        return key_text
    if hint is Any or hint is object:
        return None
    if hints.is_structured_key(hint):
        return _structured_key_decoder(decoder_of(hint))
    if hints.is_union(hint):
        return _union_key_decoder(hint, decoder_of)
    if hint in _KEY_DECODERS:
        return _typed_key(hint, _KEY_DECODERS[hint])
    options = get_args(hint) if get_origin(hint) is Literal else tuple(hint) if _is_enum(hint) else None
    if options is not None:
        return _choice_key_decoder(hint, options)
    decode = decoder_of(hint)
    return None if decode is restore else decode


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def _typed_key(cls: Any, parse: Callable[[str], Any]) -> Decoder:
    def decode(key: Any) -> Any:
        if type(key) is cls:
            return key
        try:
            return parse(key_text(key))
        except (ValueError, KeyError, OverflowError):
            raise MisfitError(f"the key is no {cls.__name__}") from None

    return decode


def _key_bytes(text: str) -> bytes:
    return bytes(untag_binary({BINARY_TAG: "bytes", "base64": text}))


_KEY_DECODERS: dict[Any, Callable[[str], Any]] = {
    int: int,
    float: float,
    bool: {"True": True, "true": True, "False": False, "false": False}.__getitem__,
    bytes: _key_bytes,
    type(None): {"None": None, "null": None}.__getitem__,
}


def _choice_key_decoder(hint: Any, options: tuple[Any, ...]) -> Decoder:
    by_text = {key_text(option): option for option in reversed(options)}
    by_text.update(
        {option.name: option for option in options if isinstance(option, enum.Enum) and option.name not in by_text}
    )

    def decode(key: Any) -> Any:
        text = key_text(key)
        if text not in by_text:
            raise MisfitError(f"the key is not one of: {', '.join(by_text)}")
        return by_text[text]

    return decode


def _union_key_decoder(hint: Any, decoder_of: Callable[[Any], Decoder]) -> Decoder | None:
    decoders: list[Decoder] = []
    for member in hints.union_members(hint):
        decode_member = key_decoder(member, decoder_of)
        if member is str or decode_member is None:
            return None
        decoders.append(decode_member)

    def decode(key: Any) -> Any:
        for decode_member in decoders:
            with contextlib.suppress(MisfitError):
                return decode_member(key)
        raise MisfitError(f"the key is no {hints.describe(hint)}")

    return decode


def _structured_key_decoder(decode_key: Decoder) -> Decoder:
    def decode(key: Any) -> Any:
        if type(key) is not str:
            return decode_key(key)
        try:
            wire = json.loads(key)
        except ValueError:
            raise MisfitError("the key is no JSON text") from None
        value = decode_key(wire)
        try:
            hash(value)
        except TypeError as error:
            raise MisfitError(f"cannot be a key: {error}") from None
        return value

    return decode
