"""Values to wire form.

A hint is compiled once into a function `(value, sink) -> wire`. Without a sink the result is a fresh tree of wire
values. With one it is meant for msgpack at once: subtrees that msgspec writes by itself are passed through as they are,
and large binary data goes to the sink.

Another thread may change a state while it is encoded. Containers are therefore copied before Python code walks through
them; such a copy is one step of the interpreter.
"""

from __future__ import annotations

import array
import contextlib
import enum
import json
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Any, get_args, get_origin

from paglets.serialization import hints
from paglets.serialization.arrays import (
    encode_array,
    encode_ndarray,
    encode_numpy_scalar,
    is_ndarray_type,
    is_numpy_scalar_type,
)
from paglets.serialization.kinds import (
    ALLOWED_KINDS,
    PLAIN_SCALARS,
    TEXT_SCALARS,
    VALUE_TAG,
    MisfitError,
    binary_tag,
    key_part,
    key_text,
    type_name,
)
from paglets.serialization.packing import KIND_BYTEARRAY, KIND_BYTES, Encoder, Sink, pack_integer
from paglets.serialization.unions import union_encoder

LIST_TYPES = (list, tuple, deque)
SET_TYPES = (set, frozenset)
_TEXT = frozenset({str})

_by_hint: dict[Any, Encoder] = {}
_by_type: dict[type, Encoder] = {}


# --- by the value alone ---------------------------------------------------------------------------------------------


def encode_any(value: Any, sink: Sink | None) -> Any:
    """Return the wire form of a value of whatever kind; scalars that JSON lacks are tagged."""
    kind = type(value)
    if kind in PLAIN_SCALARS:
        return value if kind is not int or sink is None else pack_integer(value)
    encode = _by_type.get(kind)
    if encode is None:
        encode = _encoder_of_type(kind)
        hints.remember(_by_type, kind, encode)
    return encode(value, sink)


def _encoder_of_type(kind: type) -> Encoder:
    if issubclass(kind, enum.Enum):
        return _encode_enum
    if hints.is_dataclass_type(kind):
        return encoder_of(kind)
    for base, encode in _FAMILIES:
        if issubclass(kind, base):
            return encode
    if is_ndarray_type(kind):
        return encode_ndarray
    if is_numpy_scalar_type(kind):
        return _encode_tagged_numpy_scalar
    return _refuse


def _refuse(value: Any, sink: Sink | None) -> Any:
    raise MisfitError(f"{type_name(value)} cannot travel; allowed are {ALLOWED_KINDS}")


def _encode_enum(value: enum.Enum, sink: Sink | None) -> Any:
    return encode_any(value.value, sink)


def _encode_str(value: str, sink: Sink | None) -> str:
    return str.__str__(value)


def _encode_int(value: int, sink: Sink | None) -> Any:
    plain = int.__int__(value)
    return plain if sink is None else pack_integer(plain)


def _encode_float(value: float, sink: Sink | None) -> float:
    return float.__float__(value)


def _encode_bytes(value: bytes, sink: Sink | None) -> Any:
    plain = value if type(value) is bytes else bytes(value)
    return plain if sink is None else sink.add(plain, KIND_BYTES)


def _encode_bytearray(value: bytearray, sink: Sink | None) -> Any:
    return bytearray(value) if sink is None else sink.add(value, KIND_BYTEARRAY)


def _encode_memoryview(value: memoryview, sink: Sink | None) -> Any:
    if sink is None or not value.c_contiguous:
        return _encode_bytes(value.tobytes(), sink)
    return sink.add(value.cast("B") if value.nbytes else memoryview(b""), KIND_BYTES)


def _encode_path(value: PurePath, sink: Sink | None) -> str:
    return str(value)


def _encode_list(value: Iterable[Any], sink: Sink | None) -> list[Any]:
    if set(map(type, value)) <= PLAIN_SCALARS:
        return list(value)  # with a sink, an integer too large for msgpack is found when it is written
    items: list[Any] = []
    try:
        for item in value:
            items.append(encode_any(item, sink))
    except MisfitError as misfit:
        misfit.parts.append(f"[{len(items)}]")
        raise
    return items


def _encode_set(value: Iterable[Any], sink: Sink | None) -> list[Any]:
    return _sorted(_encode_list(list(value), sink))


def _sorted(items: list[Any]) -> list[Any]:
    with contextlib.suppress(TypeError):  # not comparable: any order will do
        items.sort()
    return items


def _encode_dict(value: dict[Any, Any], sink: Sink | None) -> dict[str, Any]:
    copy = dict(value)
    if set(map(type, copy)) <= _TEXT and set(map(type, copy.values())) <= PLAIN_SCALARS:
        return copy  # as for lists
    return _encode_entries(copy, encode_any, key_text, sink)


def _encode_entries(
    copy: dict[Any, Any], encode_item: Encoder, encode_key: Callable[[Any], str], sink: Sink | None
) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, item in copy.items():
        try:
            entries[key if type(key) is str else encode_key(key)] = encode_item(item, sink)
        except MisfitError as misfit:
            misfit.parts.append(key_part(key))
            raise
    if len(entries) != len(copy):
        raise MisfitError("two keys of the dict are the same text")
    return entries


def _encode_tagged_complex(value: complex, sink: Sink | None) -> dict[str, Any]:
    return {VALUE_TAG: "complex", "value": [value.real, value.imag]}


def _encode_tagged_numpy_scalar(value: Any, sink: Sink | None) -> Any:
    return encode_any(value.item(), sink) if value.dtype.kind in "biufcSU" else encode_numpy_scalar(value, sink)


def _tagged(kind: str, encode: Callable[[Any], str]) -> Encoder:
    def encode_tagged(value: Any, sink: Sink | None) -> dict[str, Any]:
        return {VALUE_TAG: kind, "value": encode(value)}

    return encode_tagged


# The first base that fits decides, so derived types stand before their bases.
_FAMILIES: tuple[tuple[type, Encoder], ...] = (
    (str, _encode_str),
    (int, _encode_int),
    (float, _encode_float),
    (bytes, _encode_bytes),
    (bytearray, _encode_bytearray),
    (memoryview, _encode_memoryview),
    (list, _encode_list),
    (tuple, _encode_list),
    (deque, _encode_list),
    (set, _encode_set),
    (frozenset, _encode_set),
    (dict, _encode_dict),
    (PurePath, _encode_path),
    (complex, _encode_tagged_complex),
    *((cls, _tagged(kind, encode)) for cls, kind, encode, _ in TEXT_SCALARS),
    (array.array, encode_array),
)


# --- by the declared type -------------------------------------------------------------------------------------------


def encoder_of(hint: Any) -> Encoder:
    """Return the encoder of a hint, compiled on first use; raises MisfitError for annotations that do not resolve."""
    key = hints.cache_key(hint)
    encode = _by_hint.get(key)
    if encode is not None:
        return encode
    with hints.LOCK:
        encode = _by_hint.get(key)
        if encode is None:
            # A type that refers to itself finds this stand-in while it is being compiled.
            hints.remember(_by_hint, key, _deferred(hint))
            try:
                encode = _compile(hints.simplify(hint))
            except BaseException:
                _by_hint.pop(key, None)
                raise
            hints.remember(_by_hint, key, encode)
    return encode


def _deferred(hint: Any) -> Encoder:
    compiled: Encoder | None = None

    def encode(value: Any, sink: Sink | None) -> Any:
        nonlocal compiled
        if compiled is None:
            with hints.LOCK:
                compiled = encoder_of(hint)
        return compiled(value, sink)

    return encode


def _compile(hint: Any) -> Encoder:
    if hint in hints.NATIVE_SCALARS:
        return encode_any
    encode = _compile_container(hint) or _compile_scalar(hint)
    if encode is None:
        return encode_any
    return _pass_through(hint, encode) if hints.is_native(hint) else encode


def _pass_through(hint: Any, encode: Encoder) -> Encoder:
    expected = get_origin(hint) or hint

    def encode_native(value: Any, sink: Sink | None) -> Any:
        if sink is not None and type(value) is expected:
            return value
        return encode(value, sink)

    return encode_native


def _compile_scalar(hint: Any) -> Encoder | None:
    if not isinstance(hint, type):
        return None
    for cls, _, encode_text, _ in TEXT_SCALARS:
        if hint is cls:
            return _untagged(cls, encode_text)
    if hint is complex:
        return _encode_complex
    if is_numpy_scalar_type(hint):
        return _encode_typed_numpy_scalar
    return None


def _untagged(cls: type, encode_text: Callable[[Any], str]) -> Encoder:
    def encode(value: Any, sink: Sink | None) -> Any:
        # A datetime in a date field keeps its tag, or its time of day would be lost.
        return encode_text(value) if type(value) is cls else encode_any(value, sink)

    return encode


def _encode_complex(value: Any, sink: Sink | None) -> Any:
    return [value.real, value.imag] if isinstance(value, complex) else encode_any(value, sink)


def _encode_typed_numpy_scalar(value: Any, sink: Sink | None) -> Any:
    return encode_numpy_scalar(value, sink) if is_numpy_scalar_type(type(value)) else encode_any(value, sink)


def _compile_container(hint: Any) -> Encoder | None:
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if hints.is_union(hint):
        return union_encoder(hint, encoder_of, encode_any)
    if hints.is_dataclass_type(hint):
        return _dataclass_encoder(hint)
    if hints.is_named_tuple(hint):
        cls, fields = hints.class_hints(hint)
        names: tuple[str, ...] = getattr(cls, hints.NAMED_FIELDS)
        return _fixed_list_encoder(cls, [encoder_of(fields.get(name, Any)) for name in names])
    if hints.is_typed_dict(hint):
        return _typed_dict_encoder({name: encoder_of(item) for name, item in hints.class_hints(hint)[1].items()})
    if not arguments:
        return None
    if origin is tuple and Ellipsis not in arguments:
        return _fixed_list_encoder(tuple, [encoder_of(item) for item in arguments])
    if origin in hints.SET_HINTS:
        return _list_encoder(encoder_of(arguments[0]), SET_TYPES, ordered=False)
    if origin in hints.DICT_HINTS:
        return _dict_encoder(encoder_of(arguments[1] if len(arguments) > 1 else int), key_encoder(arguments[0]))
    if origin in hints.LIST_HINTS:
        return _list_encoder(encoder_of(arguments[0]), LIST_TYPES, ordered=True)
    return None


def _list_encoder(encode_item: Encoder, expected: Any, *, ordered: bool) -> Encoder:
    def encode(value: Any, sink: Sink | None) -> Any:
        if not isinstance(value, expected):
            return encode_any(value, sink)
        if encode_item is encode_any:
            return _encode_list(value, sink) if ordered else _sorted(_encode_list(value, sink))
        items: list[Any] = []
        try:
            for item in list(value):
                items.append(encode_item(item, sink))
        except MisfitError as misfit:
            misfit.parts.append(f"[{len(items)}]")
            raise
        return items if ordered else _sorted(items)

    return encode


def _fixed_list_encoder(cls: Any, encoders: list[Encoder]) -> Encoder:
    def encode(value: Any, sink: Sink | None) -> Any:
        fits = isinstance(value, cls) and len(value) == len(encoders)
        if not fits:
            return encode_any(value, sink)
        values: Any = value
        items: list[Any] = []
        try:
            for encode_item, item in zip(encoders, values, strict=True):
                items.append(encode_item(item, sink))
        except MisfitError as misfit:
            misfit.parts.append(f"[{len(items)}]")
            raise
        return items

    return encode


def _dict_encoder(encode_item: Encoder, encode_key: Callable[[Any], str]) -> Encoder:
    def encode(value: Any, sink: Sink | None) -> Any:
        if not isinstance(value, dict):
            return encode_any(value, sink)
        return _encode_entries(dict(value), encode_item, encode_key, sink)

    return encode


def key_encoder(hint: Any) -> Callable[[Any], str]:
    """Return the function that makes text of the keys of a dict with this key type."""
    if not hints.is_structured_key(hint):
        return key_text
    encode_key = encoder_of(hint)

    def encode(key: Any) -> str:
        return json.dumps(encode_key(key, None), default=binary_tag, separators=(",", ":"))

    return encode


def _typed_dict_encoder(encoders: dict[str, Encoder]) -> Encoder:
    def encode(value: Any, sink: Sink | None) -> Any:
        if not isinstance(value, dict):
            return encode_any(value, sink)
        entries: dict[str, Any] = {}
        for key, item in list(value.items()):
            try:
                entries[key if type(key) is str else key_text(key)] = encoders.get(key, encode_any)(item, sink)
            except MisfitError as misfit:
                misfit.parts.append(key_part(key))
                raise
        return entries

    return encode


def _dataclass_encoder(hint: Any) -> Encoder:
    plan = hints.class_plan(hint)
    cls = plan.cls
    fields = [(field.name, encoder_of(field.hint)) for field in plan.fields]

    def encode(value: Any, sink: Sink | None) -> Any:
        if type(value) is not cls:  # perhaps a derived dataclass, which has more fields
            return encode_any(value, sink)
        entries: dict[str, Any] = {}
        for name, encode_field in fields:
            try:
                entries[name] = encode_field(getattr(value, name), sink)
            except MisfitError as misfit:
                misfit.parts.append(f".{name}")
                raise
            except AttributeError:
                raise MisfitError(f"{type_name(value)} has lost its field {name!r}") from None
        return entries

    return encode
