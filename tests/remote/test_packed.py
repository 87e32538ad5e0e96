"""Messages in the encoding that hosts use among themselves."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import RemoteHostError, SerializationError
from paglets.core.messages import Message
from paglets.core.terms import FIRST_ATTEMPT, MAX_CHAIN, MAX_HOPS, DeliveryTerms
from paglets.remote import packed
from paglets.remote.packed import Understood, decode_answer, decode_delivery, encode_answer, encode_delivery, is_packed
from paglets.remote.requests import encode_json
from paglets.serialization.values import pack, unpack

URL = "http://alpha/agents/a/messages"
HOW = {"oneway": False, "activate_if_inactive": True, "no_delay": False}
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TERMS = st.builds(
    DeliveryTerms,
    st.integers(1, 1_000_000),
    st.none() | st.floats(0, 86_400),
    st.lists(st.text(max_size=20), max_size=MAX_CHAIN).map(tuple),
    st.integers(0, MAX_HOPS),
)


def body_of(message: bytes, terms: DeliveryTerms = FIRST_ATTEMPT) -> bytes:
    return encode_delivery(message, terms, **HOW)


def wire(**changes: Any) -> bytes:
    return pack(Message("add").to_wire() | changes)


def foreign(**changes: Any) -> bytes:
    return msgspec.msgpack.encode(Message("add").to_wire() | changes)


@given(st.dictionaries(st.text(), VALUES, max_size=4), VALUES, TERMS, st.tuples(*[st.booleans()] * 3))
def test_a_delivery_arrives_as_it_was_sent(
    args: dict[str, Any], arg: Any, terms: DeliveryTerms, how: tuple[bool, bool, bool]
) -> None:
    sent = Message("add", args, arg, sender="somebody", priority=7)
    flags = dict(zip(HOW, how, strict=True))
    delivery, head = decode_delivery(encode_delivery(pack(sent.to_wire()), terms, **flags))
    assert Message.from_wire(unpack(bytes(delivery.message))) == sent
    assert (head.kind, head.priority, head.message_id) == ("add", 7, sent.message_id)
    assert delivery.terms() == terms
    assert (delivery.oneway, delivery.activate_if_inactive, delivery.no_delay) == how


@given(VALUES, st.none() | st.text(), st.none() | st.text())
def test_an_answer_arrives_as_it_was_sent_and_is_never_taken_for_json(
    result: Any, location: str | None, home: str | None
) -> None:
    found = {key: text for key, text in (("location", location), ("home", home)) if text is not None}
    body = encode_answer(pack(result), found)
    answer = decode_answer(body, URL)
    assert unpack(bytes(answer.pop("result"))) == unpack(pack(result))
    assert answer == found
    assert is_packed(body)
    assert not is_packed(encode_json({"result": None}))


def test_a_one_way_message_is_answered_with_nothing() -> None:
    assert unpack(bytes(decode_answer(encode_answer(None, {}), URL)["result"])) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\x98",
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode({"message": {}}),
        body_of(b""),
        body_of(b"\xc1"),
        body_of(pack(None)),
        body_of(pack({})),
        body_of(wire(kind="")),
        body_of(wire(kind=None)),
        body_of(wire(kind="x" * 1025)),
        body_of(wire(message_id=None)),
        body_of(wire(message_id="")),
        body_of(wire(priority=-1)),
        body_of(wire(priority=2**40)),
        body_of(wire(message_type=3)),
        body_of(wire(timestamp="now")),
        body_of(wire(args=[])),
        body_of(wire(sender=5)),
        body_of(wire() + b"\x00"),
        body_of(wire(), DeliveryTerms(attempt=0)),
        body_of(wire(), DeliveryTerms(timeout=-1.0)),
        body_of(wire(), DeliveryTerms(timeout=float("nan"))),
        body_of(wire(), DeliveryTerms(hops=MAX_HOPS + 1)),
        body_of(wire(), DeliveryTerms(chain=("a",) * (MAX_CHAIN + 1))),
        body_of(msgspec.msgpack.encode(Message("add").to_wire() | {"arg": msgspec.msgpack.Ext(77, b"x")})),
        body_of(
            msgspec.msgpack.encode(Message("add").to_wire() | {"args": {"at": msgspec.msgpack.Ext(-1, b"\0" * 4)}})
        ),
        body_of(wire()[:-1] + b"\x91" * 100_000 + b"\xc0"),
    ],
)
def test_what_is_no_message_that_could_be_handled_is_refused(body: bytes) -> None:
    with pytest.raises(SerializationError):
        decode_delivery(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for body in (data, body_of(data)):
        try:
            delivery, _ = decode_delivery(body)
        except SerializationError:
            continue
        Message.from_wire(unpack(bytes(delivery.message)))
    try:
        decode_answer(data, URL)
    except RemoteHostError:
        return


def test_hosts_that_understand_it_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_MOST_PLACES", 2)
    understood = Understood()
    for place in ("a", "b", "b", "c"):
        understood.add(place)
    assert [place in understood for place in "abc"] == [False, True, True]
    understood.discard("b")
    understood.discard("unknown")
    assert "b" not in understood
