"""numpy arrays and array.array: every dtype, shape and layout, and descriptions that lie."""

from __future__ import annotations

import array
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from paglets.core.errors import SerializationError
from paglets.remote.transport import json_safe
from paglets.serialization.blob import decode_blob, encode_blob
from paglets.serialization.codec import dataclass_from_wire, dataclass_to_wire, from_wire, to_wire
from tests.serialization.states import Anything, Arrays

STRUCTURED = np.dtype([("id", ">u2"), ("pos", "<f4", (2, 2)), ("name", "U3"), ("inner", [("a", "i1"), ("b", "c16")])])
ALIGNED = np.dtype([("a", "i1"), ("b", "f8")], align=True)
OFFSETS = np.dtype({"names": ["x", "y"], "formats": ["<i4", "<i2"], "offsets": [8, 0], "itemsize": 16})


def assert_identical(back: Any, value: np.ndarray[Any, Any]) -> None:
    assert type(back) is np.ndarray
    assert back.dtype == value.dtype
    assert back.shape == value.shape
    assert back.flags.writeable
    assert back.flags.owndata
    assert back.tobytes() == np.asarray(value).tobytes()


def through_everything(value: np.ndarray[Any, Any]) -> list[Any]:
    state = Arrays(data=value, anything=[value])
    wire = dataclass_to_wire(state)
    results = [dataclass_from_wire(Arrays, wire), decode_blob(Arrays, encode_blob(state).tobytes())]
    results.append(dataclass_from_wire(Arrays, json.loads(json.dumps(json_safe(wire)))))
    return [array_ for result in results for array_ in (result.data, result.anything[0])]


@pytest.mark.parametrize(
    "value",
    [
        np.array(5),
        np.array(np.datetime64("2020-01-01", "ns")),
        np.empty((0,)),
        np.empty((3, 0, 2), ">i4"),
        np.arange(24.0).reshape(2, 3, 4)[:, ::2, ::-1],
        np.arange(12).reshape(3, 4).T,
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.broadcast_to(np.arange(3), (4, 3)),
        np.arange(5, dtype=">f8"),
        np.array(["a", "bcd"]),
        np.array([b"a", b"bcd"]),
        np.array([True, False]),
        np.array([1 + 2j], "complex64"),
        np.array([1.5], "float16"),
        np.array([1.5], "longdouble"),
        np.array(["2020", "NaT"], "datetime64[D]"),
        np.array([5], "timedelta64[25us]"),
        np.zeros(3, STRUCTURED),
        np.zeros((2, 2), ALIGNED),
        np.zeros(2, OFFSETS),
        np.zeros((), "V7"),
        np.zeros(2, "V0"),
        np.zeros((4, 4), ALIGNED)[::2, ::-1],
        np.zeros(2, [(("title", "name"), "i4"), ("plain", "i2")]),
        np.zeros(40_000, STRUCTURED),
    ],
    ids=lambda value: f"{value.dtype.str}{value.shape}",
)
def test_round_trip(value: np.ndarray[Any, Any]) -> None:
    for back in through_everything(value):
        assert_identical(back, value)


dtypes = st.one_of(
    hnp.scalar_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.nested_dtypes(),
)


@settings(max_examples=50, deadline=None)
@given(dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))))
def test_any_array_survives(value: np.ndarray[Any, Any]) -> None:
    for view in (value, value.T, value[..., ::-1] if value.ndim else value):
        for back in through_everything(view):
            assert_identical(back, view)


def test_the_wire_form_is_plain() -> None:
    assert to_wire(np.arange(3, dtype=">i2")) == {
        "__paglets_ndarray__": {"dtype": ">i2", "shape": [3]},
        "data": b"\0\0\0\1\0\2",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.array([object()]), "arrays of objects"),
        (np.zeros(2, [("a", "O")]), "arrays of objects"),
        (np.ma.masked_array([1, 2], [True, False]), "masked"),
        (np.datetime64("2020"), "datetime64 cannot travel"),
    ],
)
def test_what_cannot_travel(value: Any, text: str) -> None:
    with pytest.raises(SerializationError, match=rf"^state\.value: .*{text}"):
        dataclass_to_wire(Anything(value))


def test_padding_of_a_strided_array_is_not_what_memory_held_before() -> None:
    np.full(1 << 16, 0xAB, "u1")  # leaves its content behind in freed memory
    wire = to_wire(np.zeros(8192, ALIGNED)[::2])
    assert wire["data"] == bytes(4096 * ALIGNED.itemsize)


def test_subclasses_travel_as_plain_arrays() -> None:
    assert type(from_wire(Any, to_wire(np.arange(3).view(np.recarray)))) is np.ndarray


def test_numpy_scalars_become_plain_numbers() -> None:
    wire = to_wire([np.int64(1), np.float32(1.5), np.bool_(True), np.str_("x"), np.bytes_(b"y")])
    assert wire == [1, 1.5, True, "x", b"y"]
    assert [type(item) for item in wire] == [int, float, bool, str, bytes]
    for scalar in (np.float32(2.5), np.int8(-3), np.complex64(1 + 2j), np.bool_(False)):
        back = from_wire(type(scalar), to_wire(scalar, type(scalar)))
        assert (type(back), back) == (type(scalar), scalar)


GOOD: dict[str, Any] = {"dtype": "<f8", "shape": [2]}


@pytest.mark.parametrize(
    "description",
    [
        {"dtype": "|O", "shape": [2]},
        {"dtype": "O", "shape": [2]},
        {"dtype": "object", "shape": [2]},
        {"dtype": "f8,O", "shape": [2]},
        {"dtype": "<f8", "shape": [3]},
        {"dtype": "<f8", "shape": [-2]},
        {"dtype": "<f8", "shape": [2.0]},
        {"dtype": "<f8", "shape": [True, True]},
        {"dtype": "<f8", "shape": 2},
        {"dtype": "<f8", "shape": [2**61, 8]},
        {"dtype": "<f8", "shape": [2**70]},
        {"dtype": "<f8", "shape": [0, 2**61, 2**61]},
        {"dtype": "<f8", "shape": [1] * 70 + [2]},
        {"dtype": "<f7", "shape": [2]},
        {"dtype": "<U99999999999", "shape": [2]},
        {"dtype": "<M8[parsec]", "shape": [2]},
        {"dtype": "<f8", "shape": [2], "order": "K"},
        {"dtype": None, "shape": [2]},
        {"dtype": {"names": ["a"], "formats": ["|O"], "offsets": [0]}, "shape": [2]},
        {"dtype": {"names": ["a"], "formats": ["<f8"], "offsets": [-8]}, "shape": [2]},
        {"dtype": {"names": ["a", "a"], "formats": ["<f4", "<f4"], "offsets": [0, 4]}, "shape": [2]},
        {"dtype": {"names": [1], "formats": ["<f8"], "offsets": [0]}, "shape": [2]},
        {"dtype": {"names": ["a"], "formats": ["<f8"], "offsets": ["0"], "itemsize": 8}, "shape": [2]},
        {"dtype": {"names": ["a"], "formats": ["<f8"], "offsets": [0], "itemsize": "8"}, "shape": [2]},
        {"dtype": {"names": ["a"], "formats": ["<f8"]}, "shape": [2]},
        {"dtype": {"names": ["a"] * 5000, "formats": ["<f8"] * 5000, "offsets": [0] * 5000}, "shape": [2]},
        {"dtype": {"base": "<f8", "shape": [2**40]}, "shape": [2]},
        {"dtype": {"base": "<f8", "shape": [2**61, 2**61]}, "shape": [2]},
        {"dtype": {"names": ["a"], "formats": ["<f8"], "offsets": [0], "titles": [5]}, "shape": [2]},
        {"dtype": {"names": ["a"], "formats": ["<f8"], "offsets": [0], "titles": ["x", "y"]}, "shape": [2]},
        {"dtype": {"names": ["a"], "formats": ["<f8"], "offsets": [0], "titles": 5}, "shape": [2]},
        {"shape": [2]},
        {"dtype": "<f8"},
        {},
        [],
    ],
)
def test_a_description_that_lies_is_refused(description: Any) -> None:
    with pytest.raises(SerializationError, match=r"^state"):
        from_wire(np.ndarray, {"__paglets_ndarray__": description, "data": bytes(16)})


def test_a_dtype_of_bottomless_depth_is_refused() -> None:
    dtype: Any = "<f8"
    for _ in range(5000):
        dtype = {"base": dtype, "shape": [1]}
    with pytest.raises(SerializationError):
        from_wire(np.ndarray, {"__paglets_ndarray__": {"dtype": dtype, "shape": [1]}, "data": bytes(8)})


@pytest.mark.parametrize("data", [bytes(15), "text", None, 5, [0] * 16, {"__paglets_binary__": "bytes", "base64": "?"}])
def test_data_that_does_not_fit_is_refused(data: Any) -> None:
    for hint in (np.ndarray, Any):
        with pytest.raises(SerializationError):
            from_wire(hint, {"__paglets_ndarray__": GOOD, "data": data})


@pytest.mark.parametrize("value", [1, "x", [1, 2], {"a": 1}, b"x"])
def test_what_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(SerializationError, match="expected a numpy array"):
        from_wire(np.ndarray, value)
    with pytest.raises(SerializationError, match=r"expected an array\.array"):
        from_wire(array.array, value)


@pytest.mark.parametrize("typecode", "bBhHiIlLqQfd")
def test_arrays_of_the_standard_library(typecode: str) -> None:
    value = array.array(typecode, [1, 2, 3])
    for hint in (array.array, Any):
        back = from_wire(hint, to_wire(value, hint))
        assert back == value
        assert type(back) is array.array


def test_an_array_from_a_machine_of_the_other_byte_order() -> None:
    tag = {"__paglets_array__": {"typecode": "H", "itemsize": 2, "byteorder": "big"}, "data": b"\0\1\1\0"}
    assert from_wire(array.array, tag) == array.array("H", [1, 256])


def test_an_array_whose_letter_is_wider_elsewhere() -> None:
    tag = {"__paglets_array__": {"typecode": "l", "itemsize": 4, "byteorder": "little"}, "data": b"\1\0\0\0"}
    back = from_wire(array.array, tag)
    assert (list(back), back.itemsize) == ([1], 4)


def test_an_array_of_characters_is_refused() -> None:
    typecode = "w" if "w" in array.typecodes else "u"
    with pytest.raises(SerializationError, match="use str"):
        to_wire(array.array(typecode, "x"))
