"""Messages: arguments, priorities and wire form."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core import messages
from paglets.core.errors import SerializationError
from paglets.core.messages import Message

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.builds(
    Message,
    kind=st.text(),
    args=st.dictionaries(st.text(), PLAIN, max_size=4),
    arg=PLAIN,
    sender=st.none() | st.text(),
    reply_to=st.none() | st.text(),
    priority=st.integers(),
    message_type=st.sampled_from([messages.SYNCHRONOUS, messages.FUTURE, messages.ONEWAY]),
    timestamp=st.floats(allow_nan=False),
    message_id=st.text(min_size=1),
)


@given(MESSAGES)
def test_wire_form_round_trips(message: Message) -> None:
    assert Message.from_wire(message.to_wire()) == message


def test_wire_form_has_exactly_the_documented_keys() -> None:
    assert list(Message("hello").to_wire()) == [
        "kind",
        "args",
        "arg",
        "sender",
        "reply_to",
        "priority",
        "message_type",
        "timestamp",
        "message_id",
    ]


def test_wire_form_shares_no_args_with_the_message() -> None:
    message = Message("hello", {"a": 1})
    wire = message.to_wire()
    wire["args"]["a"] = 2
    restored = Message.from_wire(wire)
    restored.set_arg("a", 3)
    assert (message.args, wire["args"], restored.args) == ({"a": 1}, {"a": 2}, {"a": 3})


@pytest.mark.parametrize("empty", [{}, {"args": None, "message_id": None, "timestamp": None}, {"message_id": ""}])
def test_from_wire_needs_only_the_kind(empty: dict[str, Any]) -> None:
    before = time.time()
    message = Message.from_wire({"kind": "hello", **empty})
    assert (message.kind, message.args, message.arg) == ("hello", {}, None)
    assert (message.priority, message.message_type) == (messages.NORMAL_PRIORITY, messages.SYNCHRONOUS)
    assert before <= message.timestamp <= time.time()
    assert len(message.message_id) == 32
    assert message.message_id != Message.from_wire({"kind": "hello", **empty}).message_id


def test_from_wire_coerces_numbers() -> None:
    message = Message.from_wire({"kind": "k", "priority": "7", "message_type": 2.0, "timestamp": "1.5"})
    assert (message.priority, message.message_type, message.timestamp) == (7, 2, 1.5)
    assert (type(message.message_type), type(message.timestamp)) == (int, float)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({}, "message has no 'kind'"),
        (["kind"], "message must be an object, not list"),
        ({"kind": 3}, "'kind' must be a string, not int"),
        ({"kind": "k", "args": [1]}, "'args' must be an object, not list"),
        ({"kind": "k", "args": {1: 2}}, "'args' must be an object with string keys"),
        ({"kind": "k", "sender": 5}, "'sender' must be a string"),
        ({"kind": "k", "priority": "high"}, "'priority' must be a whole number"),
        ({"kind": "k", "priority": True}, "'priority' must be a whole number"),
        ({"kind": "k", "priority": float("inf")}, "'priority' must be a whole number"),
        ({"kind": "k", "timestamp": float("nan")}, "'timestamp' must be a number"),
        ({"kind": "k", "timestamp": {}}, "'timestamp' must be a number"),
        ({"kind": "k", "timestamp": True}, "'timestamp' must be a number"),
    ],
)
def test_from_wire_names_the_wrong_field(payload: Any, text: str) -> None:
    with pytest.raises(SerializationError, match=text):
        Message.from_wire(payload)


def test_positional_order_is_the_field_order() -> None:
    message = Message("kind", {"a": 1}, "arg", "me", "back", 9, messages.FUTURE, 2.0, "id")
    assert list(message.to_wire().values()) == ["kind", {"a": 1}, "arg", "me", "back", 9, messages.FUTURE, 2.0, "id"]


def test_arguments() -> None:
    message = Message("hello", arg="main")
    assert message.set_arg("name", "Ann") is message
    assert message.get_arg() == "main"
    assert message.get_arg("name") == "Ann"
    assert message.get_arg("age", 7) == 7
    assert message.get_arg("age") is None


def test_messages_share_no_default_arguments() -> None:
    Message("one").set_arg("a", 1)
    assert Message("two").args == {}


def test_same_kind() -> None:
    assert Message("hello").same_kind("hello")
    assert Message("hello").same_kind(Message("hello", {"a": 1}))
    assert not Message("hello").same_kind(Message("bye"))


@given(st.integers(min_value=-2, max_value=messages.MAX_PRIORITY + 2))
def test_priority_steps_stay_within_bounds(priority: int) -> None:
    message = Message("k", priority=priority)
    message.increase_priority()
    assert message.priority == (priority + 1 if priority < messages.MAX_PRIORITY else priority)

    message = Message("k", priority=priority)
    message.decrease_priority()
    assert message.priority == (priority - 1 if priority > messages.MIN_PRIORITY else priority)


def test_constants() -> None:
    assert (messages.SYNCHRONOUS, messages.FUTURE, messages.ONEWAY) == (0, 1, 2)
    assert (messages.MIN_PRIORITY, messages.NORMAL_PRIORITY, messages.MAX_PRIORITY) == (1, 5, 10)
    assert messages.REENTRANT_PRIORITY == 4294967295
    assert messages.SYSTEM_PRIORITY == messages.REENTRANT_PRIORITY - 1
    assert messages.REQUEST_PRIORITY == messages.SYSTEM_PRIORITY - 1
    assert messages.UNQUEUED_PRIORITY == 0
    kinds = (messages.CLONE, messages.DISPATCH, messages.DISPOSE, messages.DEACTIVATE, messages.REVERT)
    assert kinds == ("_clone", "_dispatch", "_dispose", "_deactivate", "_revert")
