"""Round trips of generated states, on every way a state can take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.core.errors import SerializationError
from paglets.remote.transport import json_safe
from paglets.serialization.blob import blob_from_wire, decode_blob, decode_blob_plain, encode_blob
from paglets.serialization.codec import dataclass_from_wire, dataclass_to_wire, from_wire, to_wire
from tests.effort import thorough
from tests.serialization.states import (
    Anything,
    Binary,
    Box,
    Circle,
    Color,
    ComplexState,
    Cube,
    Job,
    Level,
    NativeState,
    NestedNative,
    Ref,
    Scalars,
    Shapes,
    Square,
    Tree,
)

texts = st.text(st.characters(exclude_categories=()), max_size=12)
integers = st.integers(-(2**70), 2**70)
numbers = st.floats(allow_nan=False)
paths = st.text("abc/. é", min_size=1, max_size=10)
scalars = st.builds(
    Scalars,
    when=st.datetimes(timezones=st.none() | st.timezones().map(lambda _: None)),
    day=st.dates(),
    clock=st.times(),
    span=st.timedeltas(),
    price=st.decimals(allow_nan=False),
    key=st.uuids(),
    z=st.complex_numbers(allow_nan=False),
)
untagged = st.none() | st.booleans() | integers | numbers | texts | st.binary(max_size=40)
anything = st.recursive(
    untagged
    | st.binary(max_size=40).map(bytearray)
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
jobs = st.builds(Job, integers, texts, st.booleans())
refs = st.builds(Ref, texts, texts)
natives = st.builds(NativeState, integers, texts, numbers, st.booleans(), st.lists(integers))
nested = st.builds(
    NestedNative,
    st.lists(jobs, max_size=3),
    st.dictionaries(texts, jobs, max_size=3),
    st.sampled_from(Color),
    st.tuples(integers, texts),
    st.none() | integers,
    integers | texts,
)
complexes = st.builds(
    ComplexState,
    st.lists(jobs, max_size=3),
    st.sets(texts, max_size=3),
    st.builds(Path, paths),
    st.none() | texts,
    st.frozensets(integers, max_size=3),
    st.dictionaries(integers, st.sampled_from(Color), max_size=3),
    st.tuples(integers, texts),
    st.lists(numbers, max_size=3).map(tuple),
    st.sampled_from(Level),
    st.none() | refs,
    anything,
)
binaries = st.builds(
    Binary,
    st.binary() | st.binary(min_size=1, max_size=4).map(lambda seed: seed * 40_000),
    st.binary().map(bytearray),
    anything,
    st.none() | st.binary().map(memoryview),
    st.lists(st.binary(max_size=5), max_size=3),
)
trees = st.recursive(
    st.builds(Tree, texts, payload=anything),
    lambda inner: st.builds(Tree, texts, st.lists(inner, max_size=3)),
    max_leaves=8,
)
shapes = st.builds(
    Shapes,
    st.builds(Circle, numbers) | st.builds(Square, numbers) | st.builds(Cube, numbers),
    texts | st.builds(Path, paths),
    texts | st.sampled_from(Color) | st.just("red"),
    integers | st.datetimes() | st.dates(),
    st.none() | integers | numbers | texts | st.booleans(),
    st.lists(integers, max_size=3) | st.sets(integers, max_size=3) | st.lists(integers, max_size=3).map(tuple),
    st.builds(Circle, numbers) | st.dictionaries(texts | st.just("radius"), numbers, max_size=2),
    st.binary(max_size=5) | texts,
)
states = st.one_of(
    natives, nested, scalars, complexes, binaries, trees, shapes, st.builds(Anything, anything, anything)
)


def kinds(value: Any) -> Any:
    """Return the types all through a value, because `==` takes 1 for True and 1.0."""
    if isinstance(value, (list, tuple)):
        return [type(value), *map(kinds, value)]
    if isinstance(value, (set, frozenset)):
        return type(value), {repr(kinds(item)) for item in value}
    if isinstance(value, dict):
        return [type(value), *((key, kinds(item)) for key, item in value.items())]
    if hasattr(value, "__dataclass_fields__"):
        return [type(value), *(kinds(getattr(value, name)) for name in value.__dataclass_fields__)]
    return type(value)


@settings(max_examples=thorough(100, 300), deadline=None)
@given(states)
def test_every_way_gives_back_the_state(state: Any) -> None:
    cls = type(state)
    wire = dataclass_to_wire(state)
    blob = encode_blob(state).tobytes()
    ways = {
        "wire": dataclass_from_wire(cls, wire),
        "JSON": dataclass_from_wire(cls, json.loads(json.dumps(json_safe(wire)))),
        "blob": decode_blob(cls, blob),
        "blob of the wire form": decode_blob(cls, blob_from_wire(wire, 1).tobytes()),
    }
    for way, back in ways.items():
        assert back == state, way
        assert kinds(back) == kinds(state), way
    plain = decode_blob_plain(blob)
    assert dataclass_from_wire(cls, plain) == state


@settings(max_examples=100, deadline=None)
@given(states)
def test_the_wire_form_holds_plain_values_only(state: Any) -> None:
    allowed = {type(None), bool, int, float, str, bytes, bytearray}

    def check(value: Any) -> None:
        if type(value) is list:
            for item in value:
                check(item)
        elif type(value) is dict:
            assert set(map(type, value)) <= {str}
            for item in value.values():
                check(item)
        else:
            assert type(value) in allowed

    check(dataclass_to_wire(state))


CLASSES = (NativeState, NestedNative, Scalars, ComplexState, Binary, Tree, Shapes, Anything)


@settings(max_examples=thorough(100, 300), deadline=None)
@given(st.sampled_from(CLASSES), states, st.data())
def test_a_wrong_payload_is_refused_and_nothing_else(cls: type, other: Any, data: st.DataObject) -> None:
    payload = dataclass_to_wire(other)
    for name in data.draw(st.lists(st.sampled_from([*payload, "value", "jobs"]), max_size=3)):
        payload[name] = data.draw(anything)
    try:
        result = dataclass_from_wire(cls, payload)
    except SerializationError as error:
        assert str(error).startswith("state")
        return
    assert isinstance(result, cls)


@given(st.lists(jobs, max_size=3), jobs)
def test_generic_boxes(others: list[Job], item: Job) -> None:
    box = Box(item, others)
    assert from_wire(Box[Job], to_wire(box, Box[Job])) == box


@pytest.mark.parametrize("state", [NativeState(), Binary()])
def test_encoding_leaves_the_state_alone(state: Any) -> None:
    before = dataclass_to_wire(state)
    encode_blob(state)
    assert dataclass_to_wire(state) == before
