"""Untyped values as bytes."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.core.errors import SerializationError
from paglets.serialization.values import pack, restored, unpack
from tests.effort import thorough
from tests.serialization.states import Color, Job, Opaque, Point, Ref

wire_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None, exclude_categories=()))
    | st.binary()
    | st.binary().map(bytearray),
    lambda children: st.lists(children) | st.dictionaries(st.text(st.characters(exclude_categories=())), children),
    max_leaves=30,
)


def same(left: Any, right: Any) -> bool:
    """Equality that keeps apart what `==` does not: True and 1, bytes and bytearray."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(item, right[key]) for key, item in left.items())
    return bool(left == right)


@settings(max_examples=thorough(100, 300), deadline=None)
@given(wire_values)
def test_wire_values_come_back_as_they_were(value: Any) -> None:
    assert same(unpack(pack(value)), value)


def test_what_handlers_return_is_converted() -> None:
    value = {
        "tuple": (1, 2),
        "set": {2, 1},
        "color": Color.RED,
        "path": Path("/x"),
        "job": Job(1),
        "ref": Ref("u", "i"),
        "point": Point(1, 2.0),
        3: bytearray(b"x"),
    }
    assert unpack(pack(value)) == {
        "tuple": [1, 2],
        "set": [1, 2],
        "color": "red",
        "path": "/x",
        "job": {"size": 1, "name": "job", "done": False},
        "ref": {"host_url": "u", "agent_id": "i"},
        "point": [1, 2.0],
        "3": bytearray(b"x"),
    }


def test_dates_and_arrays_are_tagged_and_can_be_restored() -> None:
    value = {"day": dt.date(2020, 1, 1), "array": np.arange(100_000), "z": [1j]}
    wire = unpack(pack(value))
    assert wire["day"] == {"__paglets_value__": "date", "value": "2020-01-01"}
    back = restored(wire)
    assert (back["day"], back["z"]) == (dt.date(2020, 1, 1), [1j])
    np.testing.assert_array_equal(back["array"], value["array"])


def test_not_a_number() -> None:
    assert math.isnan(unpack(pack(math.nan)))


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Opaque(), "value"),
        ({"a": [1, Opaque()]}, r"value\['a'\]\[1\]"),
        ({"a": (lambda: 1,)}, r"value\['a'\]\[0\]"),
        ([Job(1), Job(Opaque())], r"value\[1\]\.size"),  # type: ignore[arg-type]
        (Opaque, "value"),
        (iter([]), "value"),
    ],
)
def test_anything_else_is_named_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(SerializationError, match=rf"^{path}: .* cannot travel; allowed are"):
        pack(value)


def test_bottomless_values_are_refused() -> None:
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    with pytest.raises(SerializationError, match="nested too deeply"):
        pack(deep)
    with pytest.raises(SerializationError):
        unpack(b"\x91" * 100_000)


@settings(max_examples=thorough(100, 300), deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        value = unpack(data)
    except SerializationError:
        return
    assert unpack(pack(value)) == value or value != value or "nan" in repr(value)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_reads_every_kind_of_buffer(wrap: Any) -> None:
    assert unpack(wrap(pack({"a": bytearray(b"x")}))) == {"a": bytearray(b"x")}
