"""Wire form to values of declared types.

A hint is compiled once into a function that takes a wire value. msgspec converts whole subtrees where it can; when it
refuses one, the functions here convert it again, because they accept more or say exactly where it does not fit.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from typing import Any, get_args, get_origin

import msgspec

from paglets.serialization import hints
from paglets.serialization.keys import key_decoder
from paglets.serialization.kinds import Decoder, MisfitError, key_part, refuse
from paglets.serialization.leaves import leaf_decoder
from paglets.serialization.restore import restore
from paglets.serialization.unions import union_decoder

_MISSING: Any = object()

_by_hint: dict[Any, Decoder] = {}


def decoder_of(hint: Any, *, native: bool = True) -> Decoder:
    """Return the decoder of a hint, compiled on first use; raises MisfitError for annotations that do not resolve.

    :param native: let msgspec convert what it can.
    """
    key = (hints.cache_key(hint), native)
    decode = _by_hint.get(key)
    if decode is not None:
        return decode
    with hints.LOCK:
        decode = _by_hint.get(key)
        if decode is None:
            # A type that refers to itself finds this stand-in while it is being compiled.
            hints.remember(_by_hint, key, _deferred(hint, native=native))
            try:
                decode = _compile(hints.simplify(hint), native)
            except BaseException:
                _by_hint.pop(key, None)
                raise
            hints.remember(_by_hint, key, decode)
    return decode


def _deferred(hint: Any, *, native: bool) -> Decoder:
    compiled: Decoder | None = None

    def decode(value: Any) -> Any:
        nonlocal compiled
        if compiled is None:
            with hints.LOCK:
                compiled = decoder_of(hint, native=native)
        return compiled(value)

    return decode


def _compile(hint: Any, native: bool) -> Decoder:
    leaf = leaf_decoder(hint)
    if leaf is not None:
        return leaf
    if native and (get_args(hint) or hints.is_dataclass_type(hint)) and hints.is_native(hint):
        return _native_decoder(hint)
    return _compile_container(hint, native) or restore


def _native_decoder(hint: Any) -> Decoder:
    convert = msgspec.convert
    thorough: Decoder | None = None

    def decode(value: Any) -> Any:
        nonlocal thorough
        if value is None:
            return None
        try:
            return convert(value, hint)
        except Exception as error:
            # Whatever it is, also from a constructor or a default: the thorough way accepts it or says where it is.
            if isinstance(error, MemoryError):
                raise
            if thorough is None:
                thorough = decoder_of(hint, native=False)
            return thorough(value)

    return decode


# --- containers -----------------------------------------------------------------------------------------------------


def _compile_container(hint: Any, native: bool) -> Decoder | None:
    if hints.is_union(hint):
        return union_decoder(hint, functools.partial(decoder_of, native=native))
    if hints.is_dataclass_type(hint):
        return _dataclass_decoder(hint, native)
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if hints.is_named_tuple(hint):
        cls, fields = hints.class_hints(hint)
        names: tuple[str, ...] = getattr(cls, hints.NAMED_FIELDS)
        return _fixed_decoder(cls, [decoder_of(fields.get(name, Any), native=native) for name in names], named=True)
    if hints.is_typed_dict(hint):
        return _typed_dict_decoder(hint, native)
    if origin is tuple and arguments and Ellipsis not in arguments:
        return _fixed_decoder(tuple, [decoder_of(item, native=native) for item in arguments], named=False)
    if hint == tuple[()]:
        return _fixed_decoder(tuple, [], named=False)
    if origin in hints.LIST_HINTS or origin in hints.SET_HINTS:
        item = decoder_of(arguments[0] if arguments else Any, native=native)
        return _list_decoder(origin, item)
    if origin in hints.DICT_HINTS:
        key_hint = arguments[0] if arguments else Any
        item_hint = arguments[1] if len(arguments) > 1 else int if origin is collections.Counter else Any
        return _dict_decoder(
            _dict_factory(origin, item_hint), key_decoder(key_hint, decoder_of), decoder_of(item_hint, native=native)
        )
    return None


def _list_decoder(origin: Any, decode_item: Decoder) -> Decoder:
    build: Any = {
        list: None,
        tuple: tuple,
        collections.deque: collections.deque,
        frozenset: frozenset,
    }.get(origin, set if origin in hints.SET_HINTS else None)

    def decode(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            raise refuse("a list", value)
        items: list[Any] = []
        try:
            for item in value:
                items.append(decode_item(item))
        except MisfitError as misfit:
            misfit.parts.append(f"[{len(items)}]")
            raise
        if build is None:
            return items
        try:
            return build(items)
        except TypeError as error:
            raise MisfitError(f"cannot be in a set: {error}") from None

    return decode


def _fixed_decoder(cls: Any, decoders: list[Decoder], *, named: bool) -> Decoder:
    def decode(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, (list, tuple)):
            raise refuse("a list", value)
        if len(value) != len(decoders):
            raise MisfitError(f"expected {len(decoders)} items, got {len(value)}")
        items: list[Any] = []
        try:
            for decode_item, item in zip(decoders, value, strict=True):
                items.append(decode_item(item))
        except MisfitError as misfit:
            misfit.parts.append(f"[{len(items)}]")
            raise
        return cls(*items) if named else tuple(items)

    return decode


def _dict_factory(origin: Any, item_hint: Any) -> Callable[[dict[Any, Any]], Any] | None:
    if origin is collections.defaultdict:
        plain = hints.simplify(item_hint)
        factory = get_origin(plain) or plain
        known = factory in (int, float, str, bool, bytes, list, dict, set, collections.deque, collections.Counter)
        return lambda entries: collections.defaultdict(factory if known else None, entries)
    return {collections.OrderedDict: collections.OrderedDict, collections.Counter: collections.Counter}.get(origin)


def _dict_decoder(
    build: Callable[[dict[Any, Any]], Any] | None, decode_key: Decoder | None, decode_item: Decoder
) -> Decoder:
    def decode(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise refuse("a dict", value)
        entries: dict[Any, Any] = {}
        for key, item in value.items():
            try:
                entries[key if decode_key is None else decode_key(key)] = decode_item(item)
            except MisfitError as misfit:
                misfit.parts.append(key_part(key))
                raise
        return entries if build is None else build(entries)

    return decode


def _typed_dict_decoder(hint: Any, native: bool) -> Decoder:
    cls, fields = hints.class_hints(hint)
    required: frozenset[str] = getattr(cls, "__required_keys__", frozenset())
    decoders = {name: decoder_of(item, native=native) for name, item in fields.items()}

    def decode(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise refuse("a dict", value)
        missing = required - value.keys()
        if missing:
            raise MisfitError(f"missing required key {min(missing)!r}")
        entries: dict[str, Any] = {}
        for name, decode_item in decoders.items():
            if name in value:
                try:
                    entries[name] = decode_item(value[name])
                except MisfitError as misfit:
                    misfit.parts.append(key_part(name))
                    raise
        return entries

    return decode


def _dataclass_decoder(hint: Any, native: bool) -> Decoder:
    plan = hints.class_plan(hint)
    cls = plan.cls
    fields = [(field.name, decoder_of(field.hint, native=native), field.required, field.init) for field in plan.fields]

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            if value is None or isinstance(value, cls):
                return value
            raise refuse(f"a dict for {cls.__qualname__}", value)
        arguments: dict[str, Any] = {}
        later: dict[str, Any] = {}
        for name, decode_field, required, init in fields:
            item = value.get(name, _MISSING)
            if item is _MISSING:
                if required and init:
                    raise MisfitError(f"{cls.__qualname__} misses its required field {name!r}")
                continue
            if item is not None:
                try:
                    item = decode_field(item)
                except MisfitError as misfit:
                    misfit.parts.append(f".{name}")
                    raise
            (arguments if init else later)[name] = item
        try:
            instance = cls(**arguments)
        except RecursionError:
            raise
        except Exception as error:
            raise MisfitError(f"cannot construct {cls.__qualname__}: {type(error).__name__}: {error}") from error
        for name, item in later.items():
            object.__setattr__(instance, name, item)
        return instance

    return decode
