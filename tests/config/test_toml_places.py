"""Positions of TOML keys, compared with what `tomllib` reads."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.config.toml_places import Keys, Place, nearest_place, places_in
from paglets.config.toml_text import toml_key, toml_value

TEXT = (
    """\
# "not" = a key
[launch]
a = 1
"quoted # key" = "x = 3" # c = 4
'it''s' = 3
""".replace("'it''s'", "'it is'")
    + '''
[[list]]
b.c = { d = [1,
  2 # [[list]]
  , 3], e = 1979-05-27 07:32:32 }
[list.inner]
f = """
[[list]]
g = 3 \\"""""
[[list]]
b = \'\'\'
h = 1\'\'\'
  [[list.deep]]
  x = -inf
[ "list" . "late" ]
y = true'''
)


def leaves(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    if keys:
        yield keys
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*keys, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*keys, number))


def test_every_value_has_its_place() -> None:
    places = places_in(TEXT)
    assert places.keys() == set(leaves(tomllib.loads(TEXT)))
    assert {keys: place.line for keys, place in places.items() if len(keys) < 5} == {
        ("launch",): 2,
        ("launch", "a"): 3,
        ("launch", "quoted # key"): 4,
        ("launch", "it is"): 5,
        ("list",): 7,
        ("list", 0): 7,
        ("list", 0, "b"): 8,
        ("list", 0, "b", "c"): 8,
        ("list", 0, "inner"): 11,
        ("list", 0, "inner", "f"): 12,
        ("list", 1): 15,
        ("list", 1, "b"): 16,
        ("list", 1, "deep"): 18,
        ("list", 1, "deep", 0): 18,
        ("list", 1, "late"): 20,
        ("list", 1, "late", "y"): 21,
    }
    assert places["list", 0, "b", "c", "d", 1] == Place(9, 3)
    assert places["list", 0, "b", "c", "e"] == Place(10, 9)
    assert places["list", 1, "deep", 0, "x"] == Place(19, 3)


def test_what_is_missing_is_near_something() -> None:
    places = places_in("[a]\nb = 1\n")
    assert nearest_place(places, ("a", "c")) == Place(1, 1)
    assert nearest_place(places, ("z",)) is None


def test_line_ends_of_another_system() -> None:
    assert places_in("[a]\r\n\r\nb = 'x'\r\nc = [1,\r\n2]\r\n")["a", "c", 1] == Place(5, 1)


def test_no_toml() -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        places_in("[a")


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
VALUES = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=8) | st.datetimes() | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
TABLES = st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=3), max_size=3)


@given(TABLES, st.lists(st.dictionaries(NAMES, VALUES, max_size=2), max_size=3))
def test_nothing_is_missed_and_nothing_invented(
    tables: dict[str, dict[str, Any]], entries: list[dict[str, Any]]
) -> None:
    lines: list[str] = []
    expected: dict[Keys, int] = {}
    name = "entries" + "x" * 7  # longer than any name of a table
    for header, content, keys in [
        *((f"[{toml_key(table)}]", content, (table,)) for table, content in tables.items()),
        *((f"[[{name}]]", content, (name, number)) for number, content in enumerate(entries)),
    ]:
        lines.append(header)
        expected[keys] = len(lines)
        for key, value in content.items():
            lines.append(f"{toml_key(key)} = {toml_value(value)}")
            expected[(*keys, key)] = len(lines)
    text = "\n".join(lines)
    places = places_in(text)
    assert places.keys() == set(leaves(tomllib.loads(text)))
    assert {keys: places[keys].line for keys in expected} == expected
