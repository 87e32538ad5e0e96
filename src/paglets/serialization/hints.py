"""Type hints, brought into one form: what the fields of a dataclass are, and which hints msgspec handles alone."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import operator
import threading
import types
import typing
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NamedTuple, NewType, TypeVar, Union, get_args, get_origin

import msgspec

from paglets.serialization.kinds import MisfitError

_MAX_CACHED = 4096
LIST_HINTS: frozenset[Any] = frozenset(
    {list, tuple, collections.deque, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable}
)
SET_HINTS: frozenset[Any] = frozenset({set, frozenset, abc.Set, abc.MutableSet})
DICT_HINTS: frozenset[Any] = frozenset(
    {dict, collections.defaultdict, collections.OrderedDict, collections.Counter, abc.Mapping, abc.MutableMapping}
)
NATIVE_SCALARS: frozenset[Any] = frozenset({bool, int, float, str})

NAMED_FIELDS = "_fields"
"""The attribute by which a NamedTuple class is known."""

LOCK = threading.RLock()
"""Held while a hint is compiled; looking up what is compiled needs no lock."""


class FieldPlan(NamedTuple):
    """What the codec needs to know of one dataclass field."""

    name: str
    hint: Any
    required: bool
    init: bool


@dataclass(frozen=True)
class ClassPlan:
    """What the codec needs to know of a dataclass, with its type parameters filled in."""

    cls: type
    fields: tuple[FieldPlan, ...]


def cache_key(hint: Any) -> Any:
    """Return a dict key for a hint that keeps apart unions of different order, which compare equal."""
    if isinstance(hint, type) and not get_origin(hint):
        return hint
    try:
        hash(hint)
    except TypeError:  # Annotated with something that has no hash
        return repr(hint)
    return hint, repr(hint)


def remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep a compiled result; a cache that outgrew its bound starts anew."""
    if len(cache) >= _MAX_CACHED:
        cache.clear()
    cache[key] = value


def simplify(hint: Any) -> Any:
    """Return the hint without what does not matter for values: Annotated, NewType, aliases, Optional's None."""
    while True:
        origin = get_origin(hint)
        if hint is None:
            return type(None)
        if origin is Annotated or origin is Final or origin in (typing.Required, typing.NotRequired):
            hint = get_args(hint)[0]
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif isinstance(hint, TypeVar):
            hint = _bound(hint)
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        elif type(origin).__name__ == "TypeAliasType":
            hint = origin.__value__[get_args(hint)]
        elif is_union(hint):
            members = [member for member in get_args(hint) if member is not type(None)]
            if len(members) != 1:
                return hint
            hint = members[0]
        elif isinstance(hint, (str, typing.ForwardRef)):
            raise MisfitError(f"annotation {hint!r} is not resolved")
        else:
            return hint


def is_union(hint: Any) -> bool:
    """Return whether a hint is a union, in either spelling."""
    return get_origin(hint) in (Union, types.UnionType)


def union_members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union without None, unions inside it unfolded."""
    members: list[Any] = []
    for member in get_args(hint):
        if member is type(None):
            continue
        plain = simplify(member)
        members.extend(union_members(plain) if is_union(plain) else [plain])
    return tuple(members)


def describe(hint: Any) -> str:
    """Return a hint the way its author wrote it, for an error text."""
    if hint is Any:
        return "Any"
    if isinstance(hint, type) and not get_origin(hint):
        return hint.__qualname__
    if is_union(hint):
        return " | ".join(describe(member) for member in get_args(hint))
    return repr(hint).replace("typing.", "")


def is_dataclass_type(hint: Any) -> bool:
    """Return whether a hint is a dataclass, parametrised or not."""
    origin = get_origin(hint) or hint
    return isinstance(origin, type) and dataclasses.is_dataclass(origin) and not issubclass(origin, enum.Enum)


def is_typed_dict(hint: Any) -> bool:
    """Return whether a hint is a TypedDict class, parametrised or not."""
    return typing.is_typeddict(get_origin(hint) or hint)


def is_named_tuple(hint: Any) -> bool:
    """Return whether a hint is a NamedTuple class, parametrised or not."""
    origin = get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, tuple) and hasattr(origin, NAMED_FIELDS)


def is_structured_key(hint: Any) -> bool:
    """Return whether a dict key type has parts, so that its text is JSON."""
    hint = simplify(hint)
    origin = get_origin(hint) or hint
    return origin in (tuple, frozenset) or is_dataclass_type(hint) or is_named_tuple(hint)


def class_hints(hint: Any) -> tuple[type, dict[str, Any]]:
    """Return the class of a hint and its resolved annotations with the type parameters filled in."""
    cls = get_origin(hint) or hint
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise MisfitError(f"cannot resolve the annotations of {describe(cls)}: {error}") from error
    parameters = _type_arguments(hint)
    return cls, {name: substitute(item, parameters) for name, item in hints.items()}


def class_plan(hint: Any) -> ClassPlan:
    """Return the fields of a dataclass hint."""
    cls, hints = class_hints(hint)
    return ClassPlan(
        cls,
        tuple(
            FieldPlan(
                field.name,
                hints[field.name],
                field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
                field.init,
            )
            for field in dataclasses.fields(cls)
        ),
    )


def substitute(hint: Any, parameters: dict[Any, Any]) -> Any:
    """Return a hint with its type variables replaced."""
    if isinstance(hint, TypeVar):
        return parameters.get(hint, hint)
    open_parameters = () if isinstance(hint, type) and not get_origin(hint) else getattr(hint, "__parameters__", ())
    if not open_parameters or not parameters:
        return hint
    return hint[tuple(parameters.get(parameter, parameter) for parameter in open_parameters)]


def _type_arguments(hint: Any) -> dict[Any, Any]:
    """Return what every type variable stands for in a class and in its generic bases."""
    origin = get_origin(hint)
    found: dict[Any, Any] = {}
    if origin is not None:
        found.update(zip(getattr(origin, "__parameters__", ()), get_args(hint), strict=False))
    for base in vars(origin or hint).get("__orig_bases__", (origin or hint).__bases__):
        if get_origin(base) is typing.Generic or not isinstance(get_origin(base) or base, type):
            continue
        for variable, argument in _type_arguments(base).items():
            found.setdefault(variable, substitute(argument, found))
    return found


def _bound(variable: TypeVar) -> Any:
    if variable.__constraints__:
        return functools.reduce(operator.or_, variable.__constraints__)
    return Any if variable.__bound__ is None else variable.__bound__


# --- what msgspec handles alone -------------------------------------------------------------------------------------

_native: dict[Any, bool] = {}


def is_native(hint: Any) -> bool:
    """Return whether msgspec encodes and decodes a hint exactly as this codec would, values that do not fit aside."""
    key = cache_key(hint)
    known = _native.get(key)
    if known is None:
        with LOCK:
            try:
                known = _native_shape(hint, set()) and _msgspec_agrees(hint)
            except MisfitError:
                known = False
            remember(_native, key, known)
    return known


def _msgspec_agrees(hint: Any) -> bool:
    try:
        msgspec.msgpack.Decoder(hint)
    except (TypeError, NameError, ValueError, AttributeError, RecursionError):
        return False
    return True


def _native_shape(hint: Any, active: set[Any]) -> bool:
    hint = simplify(hint)
    if hint in NATIVE_SCALARS or hint is type(None):
        return True
    origin, arguments = get_origin(hint), get_args(hint)
    if is_union(hint):
        return all(member in NATIVE_SCALARS for member in union_members(hint))
    if origin is Literal:
        return all(type(option) in (str, int) for option in arguments)
    if origin is list:
        return _native_shape(arguments[0], active)
    if origin is dict:
        return arguments[0] is str and _native_shape(arguments[1], active)
    if origin is tuple:
        return bool(arguments) and all(item is Ellipsis or _native_shape(item, active) for item in arguments)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _is_native_enum(hint)
    if is_dataclass_type(hint):
        key = cache_key(hint)
        if key in active:
            return True
        active.add(key)
        return _is_native_class(origin or hint) and all(
            _native_shape(field.hint, active) for field in class_plan(hint).fields
        )
    return False


def _is_native_enum(cls: type[enum.Enum]) -> bool:
    kinds = {type(member.value) for member in cls}
    return not issubclass(cls, enum.Flag) and kinds in ({str}, {int})


def _is_native_class(cls: type) -> bool:
    """Return whether setting the fields one by one is all that constructing an instance does."""
    parameters = vars(cls).get("__dataclass_params__")
    if parameters is None or not parameters.init:
        return False
    if any("__new__" in vars(base) for base in cls.__mro__[:-1]) or not _is_generated(vars(cls).get("__init__")):
        return False
    setters = [vars(base).get("__setattr__") for base in cls.__mro__[:-1]]
    if not all(setter is None or _is_generated(setter) for setter in setters):
        return False
    if any(isinstance(item, dataclasses.InitVar) for item in class_hints(cls)[1].values()):
        return False
    return all(field.init for field in dataclasses.fields(cls))


def _is_generated(function: Callable[..., Any] | None) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename == "<string>"
