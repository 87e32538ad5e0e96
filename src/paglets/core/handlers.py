"""Mark methods as message handlers, find them in a class, and call the one a message is for.

The decorator leaves the method as it is: it can be called directly, tested directly, and a type checker sees its own
signature, which is also what `PagletProxy.call` checks a remote call against.

Decoding arguments needs `paglets.serialization`, which is above this package. It is imported inside one function,
`_binding`, the single place where the core reaches up: a paglet handles messages without a host, in a unit test for
example, so nobody else could hand the decoder in.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar, overload

from paglets.core.errors import NotHandledError
from paglets.core.messages import Message

__all__ = ["HandlerParameter", "HandlerSpec", "dispatch_message", "handler", "handler_spec", "handlers_of"]

_KIND: Final = "__paglet_kind__"
_SPEC: Final = "__paglet_handler__"
_HANDLERS: Final = "__paglet_handlers__"

_F = TypeVar("_F", bound=Callable[..., Any])


@overload
def handler(method: _F, /) -> _F: ...


@overload
def handler(kind: str, /) -> Callable[[_F], _F]: ...


@overload
def handler(*, kind: str) -> Callable[[_F], _F]: ...


def handler(method: Any = None, /, *, kind: str | None = None) -> Any:
    """Mark a method, plain or `async def`, as the handler of a kind of message; the kind is its name unless given.

    Use it as `@handler`, `@handler("kind")` or `@handler(kind="kind")`. The arguments of a message are decoded under
    the annotations of the parameters; a parameter annotated `Message` receives the message itself. An override in a
    subclass keeps the kind without being marked again. Raises `TypeError` for anything but a function.
    """
    if isinstance(method, str):
        kind, method = method, None
    if method is not None:
        return _mark(method, method.__name__ if inspect.isfunction(method) else "")
    if not isinstance(kind, str) or not kind:
        raise TypeError("the kind of a handler must be a non-empty string")
    return lambda function: _mark(function, kind)


def _mark(function: Any, kind: str) -> Any:
    if not inspect.isfunction(function):
        raise TypeError(f"@handler marks methods written with def, not {type(function).__name__}")
    setattr(function, _KIND, kind)
    return function


@dataclass(frozen=True, slots=True)
class HandlerParameter:
    """Describe one parameter of a handler."""

    name: str
    hint: Any
    """The resolved annotation, `Any` without one."""
    default: Any
    """The default value, `inspect.Parameter.empty` without one."""
    positional_only: bool = False
    keyword_only: bool = False
    takes_message: bool = False
    """The parameter receives the `Message` itself and is no argument of the call."""


@dataclass(frozen=True)
class HandlerSpec:
    """Describe one handler: the kind it answers, the attribute it lives under, and its function.

    What follows from the annotations is worked out at first use, since they may name classes defined later.
    """

    kind: str
    name: str
    function: Callable[..., Any]

    @cached_property
    def parameters(self) -> tuple[HandlerParameter, ...]:
        """Return the parameters without `self` and without `**kwargs`. Raises `TypeError` for annotations that fail."""
        return tuple(
            self._describe(parameter)
            for parameter in self._signature
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        )

    @cached_property
    def rest(self) -> HandlerParameter | None:
        """Return the `**kwargs` parameter, or None."""
        rest = next((item for item in self._signature if item.kind is inspect.Parameter.VAR_KEYWORD), None)
        return None if rest is None else self._describe(rest)

    @cached_property
    def reply_hint(self) -> Any:
        """Return the resolved return annotation, `Any` without one; for `async def` it is what awaiting gives."""
        return self._hint("return")

    def bind(self, message: Message) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Decode a message into the arguments of the handler.

        `message.arg` stands for the only parameter of a handler if `message.args` is empty. Raises `SerializationError`
        naming kind and field for a missing, unknown or wrong argument.
        """
        return _binding().bind_message(self, message)

    def encode_reply(self, value: Any) -> Any:
        """Turn what the handler returned into wire form. Raises `SerializationError` naming the kind."""
        return _binding().encode_reply(self, value)

    @cached_property
    def _signature(self) -> tuple[inspect.Parameter, ...]:
        return _parameters_after_self(self.function)

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        try:
            return typing.get_type_hints(self.function, include_extras=True)
        except Exception as exc:
            # Annotations are an author's expressions and can raise anything.
            raise TypeError(f"annotations of handler {self.function.__qualname__}: {exc}") from exc

    def _hint(self, name: str) -> Any:
        hint = self._hints.get(name, Any)
        # A type variable of a generic base says no more than its bound.
        return (hint.__bound__ or Any) if isinstance(hint, TypeVar) else hint

    def _describe(self, parameter: inspect.Parameter) -> HandlerParameter:
        hint = self._hint(parameter.name)
        return HandlerParameter(
            name=parameter.name,
            hint=hint,
            default=parameter.default,
            positional_only=parameter.kind is inspect.Parameter.POSITIONAL_ONLY,
            keyword_only=parameter.kind is inspect.Parameter.KEYWORD_ONLY,
            takes_message=_is_message(hint),
        )


def _parameters_after_self(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    parameters = tuple(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind not in _POSITIONAL:
        raise TypeError(f"handler {function.__qualname__} must be a method with self")
    if any(item.kind is inspect.Parameter.VAR_POSITIONAL for item in parameters):
        raise TypeError(f"handler {function.__qualname__} takes *args, but messages have named arguments only")
    return parameters[1:]


_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _is_message(hint: Any) -> bool:
    """Tell whether a hint is `Message`, or `Message | None`: what a caller who has no message can leave out."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set(typing.get_args(hint)) == {Message, type(None)}
    return hint is Message


def handlers_of(cls: type[Any]) -> Mapping[str, HandlerSpec]:
    """Return the handlers of a class by kind, its own and inherited ones.

    A method that overrides a handler keeps the kind of the base unless it is marked itself; any other attribute of that
    name removes the handler. Raises `TypeError` when two methods claim one kind or one takes `*args`.
    """
    # Stored in the class itself: a dictionary beside it would keep every class alive.
    found: Mapping[str, HandlerSpec] | None = cls.__dict__.get(_HANDLERS)
    if found is None:
        found = MappingProxyType(_collect(cls))
        setattr(cls, _HANDLERS, found)
    return found


def _collect(cls: type[Any]) -> dict[str, HandlerSpec]:
    kinds: dict[str, str] = {}
    functions: dict[str, Callable[..., Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if not inspect.isfunction(value):
                kinds.pop(name, None)
            elif name in kinds or hasattr(value, _KIND):
                kinds[name] = getattr(value, _KIND, None) or kinds[name]
                functions[name] = value
    handlers: dict[str, HandlerSpec] = {}
    for name, kind in kinds.items():
        if kind in handlers:
            raise TypeError(f"{cls.__qualname__} handles kind {kind!r} twice: {handlers[kind].name} and {name}")
        _parameters_after_self(functions[name])
        handlers[kind] = HandlerSpec(kind, name, functions[name])
    return handlers


def handler_spec(method: Callable[..., Any]) -> HandlerSpec:
    """Return the description of a handler given as a function, like `Counter.increment`.

    Raises `TypeError` if it is none.
    """
    function = getattr(method, "__func__", method)
    spec = getattr(function, _SPEC, None)
    # A wrapper made by functools.wraps carries a copy of the attributes of what it wraps.
    if isinstance(spec, HandlerSpec) and spec.function is function:
        return spec
    spec = _find(function)
    setattr(function, _SPEC, spec)
    return spec


def _find(function: Any) -> HandlerSpec:
    if not inspect.isfunction(function):
        raise TypeError(f"{function!r} is not a handler: name a method of the class, like Counter.increment")
    kind = getattr(function, _KIND, None)
    if kind is not None:
        return HandlerSpec(kind, function.__name__, function)
    # An override that is not marked itself: only its class knows the kind.
    owner: Any = inspect.getmodule(function)
    for part in function.__qualname__.split(".")[:-1]:
        owner = getattr(owner, part, None)
    if isinstance(owner, type):
        for spec in handlers_of(owner).values():
            if spec.function is function:
                return spec
    raise TypeError(f"{function.__qualname__} is not a handler: mark it with @handler")


def dispatch_message(paglet: Any, message: Message) -> Any:
    """Call the handler of `paglet` for the kind of `message` and return what it returns.

    That is a coroutine for an `async def` handler; the caller awaits it. The result is not encoded. Raises
    `NotHandledError` if the class has no handler of that kind, `SerializationError` if the arguments do not fit.
    """
    spec = handlers_of(type(paglet)).get(message.kind)
    if spec is None:
        raise NotHandledError(f"{type(paglet).__name__} does not handle messages of kind {message.kind!r}")
    args, kwargs = spec.bind(message)
    return getattr(paglet, spec.name)(*args, **kwargs)


class _Binding(Protocol):
    def bind_message(self, spec: HandlerSpec, message: Message, /) -> tuple[tuple[Any, ...], dict[str, Any]]: ...

    def encode_reply(self, spec: HandlerSpec, value: Any, /) -> Any: ...


def _binding() -> _Binding:
    from paglets.serialization import binding

    return binding
