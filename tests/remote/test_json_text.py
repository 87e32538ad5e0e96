"""JSON as Python's module writes and reads it."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paglets.core.errors import SerializationError
from paglets.remote.json_text import decode_json, encode_json

# With halves of surrogate pairs, which are left out by default.
TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
PROPER: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
BEYOND = [
    math.nan,
    math.inf,
    -math.inf,
    "\ud800",
    "caf\udce9",
    "\udfff\ud800",
    {"\udc00": 1},
    [[math.nan]],
    (math.inf,),
]


@given(VALUES)
@example([math.nan, "\ud800", b"\xff", 2**80])
def test_what_is_written_is_read_as_it_was(value: Any) -> None:
    # By their texts, since NaN is equal to nothing.
    assert repr(decode_json(encode_json(value))) == repr(value)


@given(PROPER)
def test_what_json_has_is_written_in_its_shortest_form(value: Any) -> None:
    assert encode_json(value) == encode_json(value, strict=True) == msgspec.json.encode(value)


@given(VALUES.filter(lambda value: b"__paglets" not in encode_json(value)), st.booleans(), st.integers(0, 2))
def test_what_python_writes_is_read_as_python_reads_it(value: Any, escaped: bool, indent: int) -> None:
    try:
        text = json.dumps(value, ensure_ascii=escaped, indent=indent or None).encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent or None).encode()
    assert repr(decode_json(text)) == repr(json.loads(text))


@given(VALUES)
def test_what_is_written_is_what_python_reads(value: Any) -> None:
    tagged = json.loads(encode_json({"value": value}))
    assert json.loads(encode_json(tagged)) == tagged or "nan" in repr(tagged)


@pytest.mark.parametrize("value", BEYOND, ids=ascii)
def test_a_strict_reader_is_not_sent_what_it_may_not_read(value: Any) -> None:
    with pytest.raises(SerializationError, match="cannot be sent as JSON"):
        encode_json(value, strict=True)
    assert encode_json(value).isascii()


@pytest.mark.parametrize(
    "value", [object(), {1: object()}, 10**5000, [math.nan, 10**5000], ["\ud800", print]], ids=type
)
def test_what_json_cannot_express_is_refused(value: Any) -> None:
    for strict in (True, False):
        with pytest.raises(SerializationError, match="cannot be sent as JSON"):
            encode_json(value, strict=strict)


@pytest.mark.parametrize("leaf", [1, math.nan, "\ud800", b"x"])
def test_values_nested_without_end_are_refused(leaf: Any) -> None:
    value = leaf
    for _ in range(20_000):
        value = [value]
    with pytest.raises(SerializationError, match="cannot be sent as JSON"):
        encode_json(value)


@pytest.mark.parametrize(
    "text",
    [
        b"nan",
        b"+Infinity",
        b"-NaN",
        b"[NaN",
        b"[NaN,]",
        b"NaN NaN",
        b"[1e999]",
        b"[NaN, 1e999]",
        b"[-1e999, NaN]",
        b"[NaN, " + b"9" * 5000 + b"]",
        b'"\\ud8"',
        b'"\\ud800',
        b'["\\ud800", "\xff"]',
        b'["\\ud800", "\xed\xa0\x80"]',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbfNaN",
        "NaN".encode("utf-16"),
        b'["NaN", "a\nb"]',
        b"[" * 20_000,
        b"[NaN, " + b"[" * 20_000 + b"]" * 20_000 + b"]",
    ],
)
def test_anything_else_is_not_json(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_json(text)


def test_nothing_is_none() -> None:
    assert decode_json(b"") is None


def test_a_number_and_a_pair_between_extensions_are_what_they_are() -> None:
    text = b'[NaN, 1.5, -0.0, 123456789012345678901234567890, "\\ud83d\\ude00", "\\udce9"]'
    assert repr(decode_json(text)) == repr(
        [math.nan, 1.5, -0.0, 123456789012345678901234567890, "\U0001f600", "\udce9"]
    )
