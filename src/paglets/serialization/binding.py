"""Turn the arguments and the reply of a handler into wire form and back, under the annotations of its method."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final

from paglets.core.agent import NOT_HANDLED
from paglets.core.errors import SerializationError
from paglets.core.handlers import HandlerParameter, HandlerSpec
from paglets.core.messages import Message
from paglets.serialization.codec import from_wire, to_wire

__all__ = ["bind_message", "decode_reply", "encode_call", "encode_reply"]

# Values of these types are their own wire form, so the common call does not meet the codec at all.
_PLAIN: Final = frozenset({bool, int, float, str, bytes, type(None)})
_MISSING: Final = inspect.Parameter.empty


def bind_message(spec: HandlerSpec, message: Message) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Decode a message into positional and keyword arguments of a handler.

    Raises `SerializationError` naming kind and field: a missing or unknown argument, or one of the wrong type.
    """
    given = dict(_arguments(spec, message))
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter in spec.parameters:
        name = parameter.name
        if parameter.takes_message:
            value: Any = message
        elif name in given:
            value = _decode(parameter.hint, given.pop(name), f"{spec.kind}.{name}")
        elif parameter.default is _MISSING:
            raise SerializationError(f"{spec.kind}: missing argument {name!r}")
        elif parameter.positional_only:
            value = parameter.default
        else:
            continue
        if parameter.positional_only:
            args.append(value)
        else:
            kwargs[name] = value
    if given:
        if spec.rest is None:
            raise SerializationError(f"{spec.kind}: unknown argument {', '.join(map(repr, given))}")
        for name, value in given.items():
            if name in kwargs or not isinstance(name, str):
                raise SerializationError(f"{spec.kind}: unknown argument {name!r}")
            kwargs[name] = _decode(spec.rest.hint, value, f"{spec.kind}.{name}")
    return tuple(args), kwargs


def _arguments(spec: HandlerSpec, message: Message) -> Mapping[str, Any]:
    if not message.args and message.arg is not None:
        data = [parameter for parameter in spec.parameters if not parameter.takes_message]
        if len(data) == 1:
            return {data[0].name: message.arg}
    return message.args


def encode_call(spec: HandlerSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Message:
    """Turn the arguments of a call into a message.

    A `Message` given for a parameter that takes one is the envelope: its sender, priority and reply address are used,
    its kind and arguments are not. Raises `TypeError` like a local call for arguments that the method does not take,
    and `SerializationError` naming kind and field for a value that does not fit its annotation.
    """
    envelope: Message | None = None
    encoded: dict[str, Any] = {}
    for parameter, name, value in _pair(spec, args, dict(kwargs)):
        if not parameter.takes_message:
            encoded[name] = _encode(parameter.hint, value, f"{spec.kind}.{name}")
        elif isinstance(value, Message):
            envelope = value
    if envelope is None:
        return Message(spec.kind, encoded)
    return dataclasses.replace(envelope, kind=spec.kind, args=encoded, arg=None)


def _pair(
    spec: HandlerSpec, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[HandlerParameter, str, Any]]:
    """Yield parameter, argument name and value for what was given, refusing what a local call would refuse."""
    positional = [parameter for parameter in spec.parameters if not parameter.keyword_only]
    if len(args) > len(positional):
        raise TypeError(f"{spec.name}() takes {len(positional)} positional arguments but {len(args)} were given")
    for parameter, value in zip(positional, args, strict=False):
        if parameter.name in kwargs:
            raise TypeError(f"{spec.name}() got multiple values for argument {parameter.name!r}")
        yield parameter, parameter.name, value
    passed = {parameter.name for parameter in positional[: len(args)]}
    for parameter in spec.parameters:
        if parameter.name in passed:
            continue
        if parameter.name in kwargs and not parameter.positional_only:
            yield parameter, parameter.name, kwargs.pop(parameter.name)
        elif parameter.default is _MISSING and not parameter.takes_message:
            raise TypeError(f"{spec.name}() missing argument {parameter.name!r}")
    for name, value in kwargs.items():
        if spec.rest is None:
            raise TypeError(f"{spec.name}() got an unexpected keyword argument {name!r}")
        yield spec.rest, name, value


def encode_reply(spec: HandlerSpec, value: Any) -> Any:
    """Turn what a handler returned into wire form. Raises `SerializationError` naming the kind."""
    if value is NOT_HANDLED or spec.reply_hint is Any:
        return value
    return _encode(spec.reply_hint, value, f"reply of {spec.kind}")


def decode_reply(spec: HandlerSpec, value: Any) -> Any:
    """Restore what a handler returned. Raises `SerializationError` naming the kind."""
    return value if spec.reply_hint is Any else _decode(spec.reply_hint, value, f"reply of {spec.kind}")


def _decode(hint: Any, value: Any, path: str) -> Any:
    if hint is Any or (type(value) is hint and hint in _PLAIN):
        return value
    _refuse_none(hint, value, path)
    return from_wire(hint, value, path=path)


def _encode(hint: Any, value: Any, path: str) -> Any:
    if hint is Any or (type(value) is hint and hint in _PLAIN):
        return value
    _refuse_none(hint, value, path)
    return to_wire(value, hint, path=path)


def _refuse_none(hint: Any, value: Any, path: str) -> None:
    # The codec lets None pass for a field of a state whatever its type; the signature of a method means what it says.
    if value is None and not _takes_none(hint):
        raise SerializationError(f"{path}: expected {getattr(hint, '__name__', hint)}, got None")


def _takes_none(hint: Any) -> bool:
    if hint in (Any, None, object, type(None)):
        return True
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _takes_none(hint.__origin__)
    if origin in (typing.Union, types.UnionType):
        return any(map(_takes_none, typing.get_args(hint)))
    if origin is typing.Literal:
        return None in typing.get_args(hint)
    # A NewType and an alias made by a type statement stand for another type.
    meant = getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)
    return meant is not None and _takes_none(meant)
