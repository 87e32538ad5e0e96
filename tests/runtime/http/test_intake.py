"""How bodies in JSON are decoded."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import SerializationError
from paglets.remote.json_text import encode_json
from paglets.runtime.http.bodies import CreateBody, DeliverBody, JoinBody, LeaseBody, MoveBody, ServiceBody
from paglets.runtime.http.intake import check_fields, decode_body
from tests.remote.test_json_text import VALUES

ODD = {"numbers": [math.nan, math.inf, -math.inf], "caf\udce9": "\ud800", "data": b"\xff", "big": 2**80}


@given(VALUES)
def test_arguments_are_what_was_sent(value: Any) -> None:
    body = encode_json({"message": {"kind": "k", "args": {"value": value}, "arg": value}})
    message = decode_body(body, DeliverBody).message
    assert repr((message.args, message.arg)) == repr(({"value": value}, value))


def test_what_is_for_a_paglet_may_be_anything() -> None:
    create = decode_body(encode_json({"state": ODD, "init": ODD, "envelope": {"state": ODD}}), CreateBody)
    assert repr((create.state, create.init, create.envelope)) == repr((ODD, ODD, {"state": ODD}))
    service = decode_body(encode_json({"name": "n", "metadata": ODD}), ServiceBody)
    assert repr(service.metadata) == repr(ODD)


@pytest.mark.parametrize(
    ("type_", "value", "place"),
    [
        (DeliverBody, {"message": {"kind": "a\udce9"}}, "$.message.kind"),
        (DeliverBody, {"message": {"kind": "k", "sender": "\ud800"}}, "$.message.sender"),
        (DeliverBody, {"message": {"kind": "k", "timestamp": math.nan}}, "$.message.timestamp"),
        (DeliverBody, {"message": {"kind": "k"}, "timeout": math.inf}, "$.timeout"),
        (DeliverBody, {"message": {"kind": "k"}, "chain": ["a", "\ud800"]}, "$.chain[1]"),
        (CreateBody, {"agent_id": "\ud800"}, "$.agent_id"),
        (CreateBody, {"allowance": {"lifetime": math.nan}}, "$.allowance.lifetime"),
        (MoveBody, {"ticket": {"destination": "\ud800"}}, "$.ticket.destination"),
        (MoveBody | None, {"target": "\ud800"}, "$.target"),
        (ServiceBody, {"name": "n", "ttl": math.nan}, "$.ttl"),
        (ServiceBody, {"name": "n", "ttl": math.inf}, "$.ttl"),
        (LeaseBody, {"agent_id": "a", "service_name": "s", "ttl": math.nan}, "$.ttl"),
        (JoinBody, {"name": "n", "code_version": "1", "last_seen": math.inf}, "$.last_seen"),
        (JoinBody, {"name": "n", "code_version": "1", "properties": {"\ud800": "x"}}, "$.properties"),
        (JoinBody, {"name": "n", "code_version": "1", "properties": {"x": "\ud800"}}, "$.properties"),
        (JoinBody, {"name": "n", "code_version": "1", "gossip": {"beats": [["u", math.nan]]}}, "$.gossip.beats[0][1]"),
    ],
)
def test_what_is_for_the_host_may_not(type_: Any, value: Any, place: str) -> None:
    with pytest.raises(SerializationError) as caught:
        decode_body(encode_json(value), type_)
    assert f"at `{place}" in str(caught.value)


def test_a_pair_of_halves_is_one_character() -> None:
    body = b'{"message": {"kind": "\\ud83d\\ude00", "arg": NaN}}'
    assert decode_body(body, DeliverBody).message.kind == "\U0001f600"


@pytest.mark.parametrize("value", ["\ue000\ud7ff", 0.0, 2**80, True, None, b"\xff", {"a": ["b", 1.5]}])
def test_ordinary_values_pass_the_check(value: Any) -> None:
    check_fields(value, "value")


TOKENS = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "a",
    '"a":',
    '"b":',
    "1",
    "-",
    "1.5",
    "1e999",
    "NaN",
    "Infinity",
    "-Infinity",
    "null",
]
TOKENS += [" ", "\\ud800", "\\udc00", "\\uD8", '"\\ud800"', "\\u00e9", "\\", "\n"]


@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
def test_bodies_mean_what_python_reads_in_them(text: str) -> None:
    body = text.encode()
    try:
        expected = json.loads(body, object_pairs_hook=once, parse_float=in_range)
    except ValueError:
        with pytest.raises(SerializationError):
            decode_body(body, Any)
    else:
        assert repr(decode_body(body, Any)) == repr(expected)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def in_range(text: str) -> float:
    if math.isinf(float(text)):
        raise ValueError("out of range")
    return float(text)
