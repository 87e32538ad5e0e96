"""Handlers: how they are found, what a message is decoded into, and what is refused."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import weakref
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar

import pytest

from paglets.core.agent import NOT_HANDLED, Paglet, PagletState, state_locked
from paglets.core.errors import NotHandledError, SerializationError
from paglets.core.handlers import dispatch_message, handler, handler_spec, handlers_of
from paglets.core.messages import Message
from paglets.serialization.binding import decode_reply, encode_call


class Colour(StrEnum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class CounterState(PagletState):
    count: int = 0


class Counter(Paglet[CounterState]):
    State = CounterState

    @handler
    def increment(self, by: int = 1) -> int:
        self.state.count += by
        return self.state.count

    @handler("paint")
    def give_colour(self, colour: Colour, *, at: Point | None = None) -> Point:
        return at or Point(len(colour))

    @handler(kind="later")
    async def increment_later(self, by: int, /) -> tuple[int, bytes]:
        await asyncio.sleep(0)
        return self.increment(by), b"x"

    @handler
    def sender_of(self, message: Message, suffix: str = "") -> str:
        return f"{message.sender}{suffix}"

    @handler
    def maybe(self, text: str, message: Message | None = None) -> bool:
        return message is not None and bool(text)

    @handler
    def everything(self, first: int, **rest: float) -> dict[str, float]:
        return {"first": first, **rest}

    @handler
    def untyped(self, value, extra=None):  # type: ignore[no-untyped-def]
        return [value, extra]

    @handler
    @state_locked
    def locked_inside(self, by: int) -> int:
        return self.increment(by)

    @state_locked
    @handler
    def locked_outside(self, by: int) -> int:
        return self.increment(by)

    @handler
    def nothing(self) -> None:
        self.state.count = -1

    def not_a_handler(self, by: int) -> int:
        return by


def bind(kind: str, args: dict[str, Any] | None = None, arg: Any = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return handlers_of(Counter)[kind].bind(Message(kind, args or {}, arg))


# --- finding ----------------------------------------------------------------------------------------------------------


def test_every_marked_method_is_found_under_its_kind() -> None:
    found = {kind: spec.name for kind, spec in handlers_of(Counter).items()}
    assert found == {
        "increment": "increment",
        "paint": "give_colour",
        "later": "increment_later",
        "sender_of": "sender_of",
        "maybe": "maybe",
        "everything": "everything",
        "untyped": "untyped",
        "locked_inside": "locked_inside",
        "locked_outside": "locked_outside",
        "nothing": "nothing",
    }
    assert handlers_of(Counter) is handlers_of(Counter)


def test_the_table_of_a_class_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        handlers_of(Counter)["x"] = handlers_of(Counter)["increment"]  # type: ignore[index]


def test_a_marked_method_is_still_that_function() -> None:
    def method(self: Any, by: int) -> int:
        return by

    assert handler(method) is method
    assert handler("kind")(method) is method


def test_a_subclass_overrides_adds_renames_and_removes() -> None:
    class Base(Counter):
        pass

    class Sub(Base):
        def increment(self, by: int = 1) -> int:
            return -by

        @handler("shine")
        def give_colour(self, colour: Colour, *, at: Point | None = None) -> Point:
            return Point(0)

        @handler
        def extra(self) -> int:
            return 5

    # As a class body can say it, which a type checker does not like.
    setattr(Sub, "untyped", None)  # noqa: B010
    table = handlers_of(Sub)
    assert {"increment", "shine", "extra"} <= table.keys()
    assert not {"paint", "untyped"} & table.keys()
    assert dispatch_message(Sub(), Message("increment", {"by": 2})) == -2
    assert dispatch_message(Base(), Message("increment", {"by": 2})) == 2
    assert "paint" in handlers_of(Counter)


def test_mixins_contribute_in_method_resolution_order() -> None:
    class Left:
        @handler
        def ping(self) -> str:
            return "left"

    class Right:
        @handler("ping")
        def ping(self) -> str:
            return "right"

    class Both(Left, Right):
        pass

    assert dispatch_message(Both(), Message("ping")) == "left"


def test_two_methods_for_one_kind_are_refused() -> None:
    class Twice:
        @handler("x")
        def one(self) -> None: ...

        @handler("x")
        def two(self) -> None: ...

    with pytest.raises(TypeError, match="'x' twice: one and two"):
        handlers_of(Twice)


def test_star_args_are_refused() -> None:
    class Star:
        @handler
        def all(self, *values: int) -> None: ...

    with pytest.raises(TypeError, match=r"\*args"):
        handlers_of(Star)


def test_a_handler_without_self_is_refused() -> None:
    class Selfless:
        @handler
        def lost() -> None:  # type: ignore[misc]
            ...

    with pytest.raises(TypeError, match="self"):
        handlers_of(Selfless)


@pytest.mark.parametrize("wrong", [5, staticmethod(len), property(lambda self: 1), len, functools.partial(len)])
def test_only_functions_can_be_marked(wrong: Any) -> None:
    with pytest.raises(TypeError):
        handler(wrong)


@pytest.mark.parametrize("kind", ["", None])
def test_a_kind_is_a_text(kind: Any) -> None:
    with pytest.raises(TypeError, match="kind"):
        handler(kind=kind)


def test_annotations_that_fail_name_the_handler() -> None:
    class Broken:
        @handler
        def method(self, value: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
            ...

    spec = handlers_of(Broken)["method"]
    with pytest.raises(TypeError, match=r"Broken\.method: name 'Missing' is not defined"):
        spec.bind(Message("method", {"value": 1}))


def test_classes_with_handlers_can_go_away() -> None:
    def make() -> weakref.ref[type]:
        class Short(Counter):
            @handler
            def extra(self) -> int:
                return 1

        dispatch_message(Short(), Message("extra"))
        return weakref.ref(Short)

    gone = make()
    gc.collect()
    assert gone() is None


# --- binding ----------------------------------------------------------------------------------------------------------


def test_arguments_are_decoded_under_the_annotations() -> None:
    assert bind("increment", {"by": 2}) == ((), {"by": 2})
    assert bind("increment") == ((), {})
    assert bind("paint", {"colour": "red", "at": {"x": 1}}) == ((), {"colour": Colour.RED, "at": Point(1)})
    assert bind("later", {"by": 3}) == ((3,), {})
    assert bind("untyped", {"value": {"a": [1]}}) == ((), {"value": {"a": [1]}})
    assert bind("everything", {"first": 1, "a": 2.5}) == ((), {"first": 1, "a": 2.5})


def test_a_message_parameter_receives_the_message() -> None:
    message = Message("sender_of", {"suffix": "!"}, sender="me")
    assert dispatch_message(Counter(), message) == "me!"
    assert dispatch_message(Counter(), Message("maybe", {"text": "x"})) is True


def test_the_arg_of_a_message_stands_for_the_only_parameter() -> None:
    assert bind("increment", arg=4) == ((), {"by": 4})
    assert bind("increment", {"by": 2}, arg=4) == ((), {"by": 2})
    assert bind("sender_of", arg="!")[1]["suffix"] == "!"
    with pytest.raises(SerializationError, match="paint: missing argument 'colour'"):
        bind("paint", arg="red")
    assert bind("nothing", arg=1) == ((), {})


@pytest.mark.parametrize(
    ("kind", "args", "text"),
    [
        ("increment", {"by": "2"}, "increment.by: "),
        ("increment", {"by": None}, "increment.by: "),
        ("increment", {"by": 2.5}, "increment.by: "),
        ("increment", {"buy": 2}, "increment: unknown argument 'buy'"),
        ("increment", {"self": 2}, "increment: unknown argument 'self'"),
        ("later", {}, "later: missing argument 'by'"),
        ("paint", {"colour": "blue"}, "paint.colour"),
        ("paint", {"colour": "red", "at": {"x": "1"}}, "paint.at.x"),
        ("everything", {"first": 1, "a": "b"}, "everything.a"),
        ("sender_of", {"message": {}}, "sender_of: unknown argument 'message'"),
    ],
)
def test_what_does_not_fit_is_named(kind: str, args: dict[str, Any], text: str) -> None:
    with pytest.raises(SerializationError) as caught:
        bind(kind, args)
    assert text in str(caught.value)


def test_none_passes_only_where_it_is_declared() -> None:
    assert bind("paint", {"colour": "red", "at": None}) == ((), {"colour": Colour.RED, "at": None})
    with pytest.raises(SerializationError, match="reply of increment: expected int, got None"):
        decode_reply(handlers_of(Counter)["increment"], None)


@pytest.mark.parametrize(
    ("hint", "taken"),
    [
        (int, False),
        (int | None, True),
        (list[int | None], False),
        (Annotated[int | None, "x"], True),
        (Annotated[int, "x"], False),
        (Literal["a", None], True),
        (NewType("Id", str), False),
        (object, True),
    ],
)
def test_none_is_refused_by_the_annotation(hint: Any, taken: bool) -> None:
    class Taking:
        @handler
        def take(self, value: Any) -> None: ...

    Taking.take.__annotations__["value"] = hint
    spec = handlers_of(Taking)["take"]
    if taken:
        assert spec.bind(Message("take", {"value": None})) == ((), {"value": None})
    else:
        with pytest.raises(SerializationError):
            spec.bind(Message("take", {"value": None}))


def test_the_text_says_what_was_expected() -> None:
    with pytest.raises(SerializationError, match=r"increment\.by: expected int, got str"):
        bind("increment", {"by": "2"})


def test_type_variables_take_their_bound() -> None:
    item = TypeVar("item", bound=int)
    anything = TypeVar("anything")

    class Box(Generic[item, anything]):
        @handler
        def put(self, value: Any, other: Any) -> None: ...

    Box.put.__annotations__.update(value=item, other=anything)
    spec = handlers_of(Box)["put"]
    assert [parameter.hint for parameter in spec.parameters] == [int, Any]


# --- calling ----------------------------------------------------------------------------------------------------------


def test_dispatch_calls_the_handler_of_the_kind() -> None:
    counter = Counter()
    assert counter.handle_message(Message("increment", {"by": 2})) == 2
    assert dispatch_message(counter, Message("locked_inside", {"by": 1})) == 3
    assert dispatch_message(counter, Message("locked_outside", {"by": 1})) == 4


def test_an_async_handler_gives_a_coroutine() -> None:
    coroutine = dispatch_message(Counter(), Message("later", {"by": 2}))
    assert inspect.iscoroutine(coroutine)
    assert asyncio.run(coroutine) == (2, b"x")


def test_an_unknown_kind_is_not_handled() -> None:
    for kind in ("not_a_handler", "handle_message", "__init__", "give_colour"):
        with pytest.raises(NotHandledError, match=f"Counter.*{kind}"):
            dispatch_message(Counter(), Message(kind))


def test_a_method_replaced_on_the_instance_is_called() -> None:
    counter = Counter()
    counter.increment = lambda by=1: by * 10  # type: ignore[method-assign]
    assert dispatch_message(counter, Message("increment", {"by": 2})) == 20


# --- replies and calls ------------------------------------------------------------------------------------------------


def test_replies_are_encoded_and_decoded_under_the_annotation() -> None:
    paint = handlers_of(Counter)["paint"]
    assert paint.encode_reply(Point(1, 2)) == {"x": 1, "y": 2}
    assert decode_reply(paint, {"x": 1, "y": 2}) == Point(1, 2)
    later = handlers_of(Counter)["later"]
    assert decode_reply(later, later.encode_reply((1, b"x"))) == (1, b"x")
    assert handlers_of(Counter)["nothing"].encode_reply(None) is None
    assert handlers_of(Counter)["untyped"].encode_reply([1]) == [1]
    assert paint.encode_reply(NOT_HANDLED) is NOT_HANDLED


def test_a_reply_of_the_wrong_type_names_the_kind() -> None:
    with pytest.raises(SerializationError, match="reply of paint"):
        decode_reply(handlers_of(Counter)["paint"], 5)
    with pytest.raises(SerializationError, match="reply of paint"):
        handlers_of(Counter)["paint"].encode_reply(object())


def test_a_call_becomes_the_message_that_binds_to_it() -> None:
    message = encode_call(handler_spec(Counter.give_colour), (Colour.RED,), {"at": Point(1, 2)})
    assert (message.kind, message.args) == ("paint", {"colour": "red", "at": {"x": 1, "y": 2}})
    assert handlers_of(Counter)["paint"].bind(message) == ((), {"colour": Colour.RED, "at": Point(1, 2)})
    assert encode_call(handler_spec(Counter.increment_later), (3,), {}).args == {"by": 3}
    assert encode_call(handler_spec(Counter.everything), (), {"first": 1, "z": 2.0}).args == {"first": 1, "z": 2.0}


def test_a_message_given_in_a_call_is_its_envelope() -> None:
    envelope = Message("other", {"a": 1}, sender="me", priority=9)
    message = encode_call(handler_spec(Counter.sender_of), (envelope, "!"), {})
    assert (message.kind, message.args, message.sender, message.priority) == ("sender_of", {"suffix": "!"}, "me", 9)
    assert envelope.kind == "other"


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "text"),
    [
        (Counter.increment, (1, 2), {}, "takes 1 positional"),
        (Counter.increment, (1,), {"by": 2}, "multiple values"),
        (Counter.increment, (), {"buy": 2}, "unexpected keyword argument 'buy'"),
        (Counter.increment_later, (), {}, "missing argument 'by'"),
        (Counter.increment_later, (), {"by": 1}, "missing argument 'by'"),
        (Counter.give_colour, ("red", Point(1)), {}, "takes 1 positional"),
    ],
)
def test_a_call_that_would_fail_here_fails_here(method: Any, args: Any, kwargs: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        encode_call(handler_spec(method), args, kwargs)


class Overriding(Counter):
    def increment(self, by: int = 1) -> int:
        return by


def test_the_spec_of_a_method_is_that_of_its_class() -> None:
    assert handler_spec(Counter.give_colour).kind == "paint"
    assert handler_spec(Counter().give_colour).kind == "paint"
    assert handler_spec(Overriding.increment).kind == "increment"
    assert handler_spec(Counter.locked_inside).kind == "locked_inside"
    assert handler_spec(Counter.increment) is handler_spec(Counter.increment)


@pytest.mark.parametrize("wrong", [Counter.not_a_handler, len, "increment", lambda self: None])
def test_only_handlers_can_be_called(wrong: Any) -> None:
    with pytest.raises(TypeError, match="not a handler"):
        handler_spec(wrong)
