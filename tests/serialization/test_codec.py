"""The codec: what travels in which form, and what is refused with which text."""

from __future__ import annotations

import collections
import datetime as dt
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from paglets.core.errors import SerializationError
from paglets.serialization.blob import blob_from_wire, decode_blob, encode_blob
from paglets.serialization.codec import (
    dataclass_from_wire,
    dataclass_to_wire,
    from_wire,
    qualified_name,
    resolve_qualified_name,
    to_wire,
)
from tests.serialization.states import (
    Anything,
    Binary,
    Box,
    Boxes,
    BrokenHook,
    Circle,
    Color,
    ComplexState,
    Constructed,
    Corner,
    Cube,
    DateBox,
    Fussy,
    Job,
    Level,
    NativeState,
    NativeTree,
    NestedNative,
    NewerWithoutHook,
    Odds,
    Opaque,
    Point,
    Ref,
    Rights,
    Scalars,
    Shapes,
    Square,
    Tree,
    Versioned,
)


def round_trip(instance: Any) -> Any:
    return dataclass_from_wire(type(instance), dataclass_to_wire(instance))


def complex_state() -> ComplexState:
    return ComplexState(
        jobs=[Job(3), Job(4, "x", True)],
        tags={"b", "a"},
        path=Path("/tmp/x"),
        frozen=frozenset({2, 1}),
        mapping={5: Color.GREEN},
        pair=(1, "one"),
        many=(1.0, 2.5),
        level=Level.HIGH,
        ref=Ref("http://a:1", "id"),
        anything={"deep": [1, {"b": b"x"}]},
    )


class TestWireForm:
    def test_has_plain_types_only(self) -> None:
        assert dataclass_to_wire(complex_state()) == {
            "jobs": [{"size": 3, "name": "job", "done": False}, {"size": 4, "name": "x", "done": True}],
            "tags": ["a", "b"],
            "path": "/tmp/x",
            "note": None,
            "frozen": [1, 2],
            "mapping": {"5": "green"},
            "pair": [1, "one"],
            "many": [1.0, 2.5],
            "level": 2,
            "ref": {"host_url": "http://a:1", "agent_id": "id"},
            "anything": {"deep": [1, {"b": b"x"}]},
        }

    def test_comes_back_equal(self) -> None:
        assert round_trip(complex_state()) == complex_state()

    def test_shares_nothing_with_the_instance(self) -> None:
        state = complex_state()
        wire = dataclass_to_wire(state)
        wire["jobs"].append(None)
        wire["anything"]["deep"].append(None)
        assert state == complex_state()

    def test_binary_stays_what_it_is(self) -> None:
        state = Binary(b"a", bytearray(b"b"), [b"c", bytearray(b"d")], memoryview(b"e"), [b"f"])
        wire = dataclass_to_wire(state)
        assert wire == {"raw": b"a", "growing": b"b", "anything": [b"c", b"d"], "view": b"e", "parts": [b"f"]}
        assert [type(wire["raw"]), type(wire["growing"]), type(wire["anything"][1])] == [bytes, bytearray, bytearray]
        back = round_trip(state)
        assert back == state
        assert [type(back.raw), type(back.growing), type(back.view)] == [bytes, bytearray, memoryview]

    def test_tagged_json_form_of_binary_is_accepted(self) -> None:
        tag = {"__paglets_binary__": "bytes", "base64": "AAE="}
        grown = {"__paglets_binary__": "bytearray", "base64": "AAE="}
        state = dataclass_from_wire(
            Binary, {"raw": tag, "growing": grown, "anything": {"x": [tag, grown]}, "view": tag, "parts": [grown]}
        )
        assert state == Binary(
            b"\0\1", bytearray(b"\0\1"), {"x": [b"\0\1", bytearray(b"\0\1")]}, memoryview(b"\0\1"), [b"\0\1"]
        )
        assert type(state.anything["x"][1]) is bytearray

    def test_a_set_that_cannot_be_sorted_is_a_list(self) -> None:
        assert sorted(to_wire({1, "a"}), key=str) == [1, "a"]

    def test_the_text_of_dict_keys(self) -> None:
        table = {1: "a", Color.RED: "b", dt.date(2020, 1, 2): "c", None: "d", 1.5: "e", True and "t": "f"}
        assert to_wire(table) == {"1": "a", "red": "b", "2020-01-02": "c", "None": "d", "1.5": "e", "t": "f"}

    def test_two_keys_of_the_same_text_are_refused(self) -> None:
        with pytest.raises(SerializationError, match="same text"):
            to_wire({1: "a", "1": "b"})

    def test_the_attributes_outside_the_fields_stay_behind(self) -> None:
        state = NativeState(1)
        state.extra = 5  # type: ignore[attr-defined]
        assert "extra" not in dataclass_to_wire(state)

    def test_a_derived_dataclass_keeps_its_own_fields(self) -> None:
        assert to_wire(DateBox(dt.date(2020, 1, 1), [], "x"), Box[dt.date]) == {
            "item": "2020-01-01",
            "others": [],
            "label": "x",
        }


class TestScalars:
    def test_typed_fields_travel_as_text(self) -> None:
        assert dataclass_to_wire(Scalars()) == {
            "when": "2020-01-02T03:04:05.000006",
            "day": "2020-01-02",
            "clock": "03:04:00",
            "span": "P0DT5S",
            "price": "1.50",
            "key": "00000000-0000-0000-0000-000000000007",
            "z": [1.0, 2.0],
            "where": "/tmp",
        }
        assert round_trip(Scalars()) == Scalars()

    @pytest.mark.parametrize(
        "value",
        [
            dt.datetime(2020, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-3, seconds=7))),
            dt.date.max,
            dt.time(1, 2, 3, 4, tzinfo=dt.UTC),
            dt.timedelta.min,
            dt.timedelta.max,
            dt.timedelta(microseconds=-1),
            Decimal("NaN"),
            Decimal("1E+400"),
            UUID(int=2**128 - 1),
            complex("nan+infj"),
            2**200,
            -(2**200),
            "\ud800",
        ],
    )
    def test_untyped_ones_come_back_as_themselves(self, value: Any) -> None:
        state = round_trip(Anything(value, value, [value], {"k": value}))
        for back in (state.value, state.thing, state.items[0], state.table["k"]):
            assert type(back) is type(value)
            assert repr(back) == repr(value)

    def test_a_tag_that_is_none_is_left_alone(self) -> None:
        lookalikes = [
            {"__paglets_binary__": "text", "base64": "AA=="},
            {"__paglets_binary__": "bytes", "base64": "AA==", "more": 1},
            {"__paglets_value__": "unknown", "value": "x"},
            {"__paglets_value__": ["datetime"], "value": "x"},
            {"__paglets_binary__": ["bytes"], "base64": "AA=="},
        ]
        assert dataclass_from_wire(Anything, {"value": lookalikes}).value == lookalikes

    @pytest.mark.parametrize(
        "tag",
        [
            {"__paglets_binary__": "bytes", "base64": "!"},
            {"__paglets_binary__": "bytes", "base64": 5},
            {"__paglets_binary__": "bytes", "base64": "ä"},
            {"__paglets_value__": "datetime", "value": "yesterday"},
            {"__paglets_value__": "decimal", "value": "x"},
            {"__paglets_value__": "uuid", "value": 3},
            {"__paglets_value__": "complex", "value": [1]},
            {"__paglets_value__": "complex", "value": [10**400, 1]},
            {"__paglets_value__": "timedelta", "value": "P1Y"},
            {"__paglets_array__": {"typecode": "O", "itemsize": 8}, "data": b""},
            {"__paglets_array__": {"typecode": "d", "itemsize": 8, "byteorder": "little"}, "data": b"1234567"},
            {"__paglets_array__": {"typecode": "d", "itemsize": 8}, "data": b"12345678"},
        ],
    )
    def test_a_malformed_tag_is_refused_with_its_path(self, tag: Any) -> None:
        with pytest.raises(SerializationError, match=r"^state\.value\[1\]\['x'\]: "):
            dataclass_from_wire(Anything, {"value": [0, {"x": tag}]})


class TestStrictness:
    @pytest.mark.parametrize(
        ("hint", "value"),
        [
            (int, "5"),
            (int, 3.5),
            (int, b"5"),
            (bool, "false"),
            (bool, 1),
            (str, 5),
            (float, "1.5"),
            (float, True),
            (float, 10**400),
            (bytes, "text"),
            (bytes, 5),
            (bytearray, [1]),
            (list[int], "12"),
            (list[int], {"a": 1}),
            (tuple[int, str], [1]),
            (tuple[int, str], ["a", 1]),
            (tuple[()], [1]),
            (set[int], [[1]]),
            (set[Any], [[1]]),
            (dict[str, int], [1]),
            (dict[int, int], {"x": 1}),
            (dict[tuple[int, int], int], {"[1]": 1}),
            (dict[tuple[int, int], int], {"x": 1}),
            (Color, "blue"),
            (Color, ["red"]),
            (Level, "1"),
            (Path, 5),
            (dt.datetime, "x"),
            (dt.date, 5),
            (UUID, "x"),
            (Decimal, "x"),
            (complex, "1+2j"),
            (type(None), 0),
            (Job, [1]),
            (Job, {"name": "no size"}),
            (Point, [1, 2.0, 3]),
            (int | bytes, "text"),
            (memoryview, "text"),
        ],
    )
    def test_wrong_types_are_refused(self, hint: Any, value: Any) -> None:
        with pytest.raises(SerializationError, match=r"^state"):
            from_wire(hint, value)

    @pytest.mark.parametrize(
        ("hint", "value", "expected"),
        [
            (float, 3, 3.0),
            (int, 3.0, 3),
            (int, True, 1),
            (Path, Path("x"), Path("x")),
            (dt.date, dt.date(2020, 1, 1), dt.date(2020, 1, 1)),
            (list[int], (1, 2), [1, 2]),
            (dict[str, int], {5: 1}, {"5": 1}),
            (complex, 2, 2 + 0j),
            (Job, Job(1), Job(1)),
            (tuple, [1], (1,)),
            (set, [1], {1}),
            (frozenset, [1], frozenset({1})),
            (collections.abc.Sequence[int], [1], [1]),
            (collections.abc.Mapping[str, int], {"a": 1}, {"a": 1}),
        ],
    )
    def test_what_loses_nothing_is_accepted(self, hint: Any, value: Any, expected: Any) -> None:
        result = from_wire(hint, value)
        assert result == expected
        assert type(result) is type(expected)

    @pytest.mark.parametrize(
        "hint", [int, str, bytes, list[int], Job, Color, Path, dt.date, int | str, Point, set[int]]
    )
    def test_none_stays_none(self, hint: Any) -> None:
        assert from_wire(hint, None) is None
        assert to_wire(None, hint) is None

    def test_none_in_a_field_that_does_not_name_it(self) -> None:
        state = NativeState(None, numbers=None)  # type: ignore[arg-type]
        assert round_trip(state) == state

    def test_the_path_of_a_wrong_field(self) -> None:
        wire = dataclass_to_wire(NestedNative([Job(1), Job(2), Job(3), Job(4)], {"a": Job(5)}))
        wire["jobs"][3]["size"] = "big"
        with pytest.raises(SerializationError) as caught:
            dataclass_from_wire(NestedNative, wire)
        assert str(caught.value) == "state.jobs[3].size: expected int, got str"

    def test_the_path_of_a_wrong_dict_entry(self) -> None:
        with pytest.raises(SerializationError, match=r"^state\.by_name\['a'\]\.size: "):
            dataclass_from_wire(NestedNative, {"by_name": {"a": {"size": []}}})

    def test_the_path_of_a_value_that_cannot_travel(self) -> None:
        with pytest.raises(
            SerializationError, match=r"^state\.value\['a'\]\[1\]: tests.*\.Opaque cannot travel; allowed are"
        ):
            dataclass_to_wire(Anything({"a": [1, Opaque()]}))

    def test_the_path_can_be_named(self) -> None:
        with pytest.raises(SerializationError, match=r"^resize\.width: expected int"):
            from_wire(int, "x", "resize.width")

    @pytest.mark.parametrize("value", [{"a": 1}, None, 5, Job])
    def test_only_a_dataclass_instance_has_a_wire_form(self, value: Any) -> None:
        with pytest.raises(SerializationError, match="dataclass instance"):
            dataclass_to_wire(value)

    def test_only_a_dict_makes_a_dataclass(self) -> None:
        with pytest.raises(SerializationError, match="dict"):
            dataclass_from_wire(Job, [1])  # type: ignore[arg-type]
        with pytest.raises(SerializationError, match="no dataclass"):
            dataclass_from_wire(Opaque, {})

    def test_unknown_fields_are_ignored_and_missing_ones_defaulted(self) -> None:
        assert dataclass_from_wire(Job, {"size": 1, "colour": "red"}) == Job(1)
        assert dataclass_from_wire(Binary, {"colour": "red"}) == Binary()

    def test_a_missing_required_field_is_named(self) -> None:
        with pytest.raises(SerializationError, match=r"^state\.jobs\[0\]: Job misses its required field 'size'"):
            dataclass_from_wire(NestedNative, {"jobs": [{}]})
        with pytest.raises(SerializationError, match=r"^request\.jobs\[0\]: Job misses"):
            dataclass_from_wire(NestedNative, {"jobs": [{}]}, path="request")


class TestClasses:
    def test_a_constructor_that_refuses(self) -> None:
        with pytest.raises(SerializationError, match="cannot construct Constructed: ValueError: base is negative"):
            dataclass_from_wire(Constructed, {"base": -1})

    @pytest.mark.parametrize("payload", [{}, {"size": 13}, {"size": 1, "mood": "bad"}])
    def test_code_of_a_state_class_that_raises_what_it_likes(self, payload: dict[str, Any]) -> None:
        with pytest.raises(SerializationError, match=r"^state"):
            dataclass_from_wire(Fussy, payload)
        with pytest.raises(SerializationError, match=r"^state"):
            decode_blob(Fussy, blob_from_wire(payload).tobytes())

    def test_a_state_that_another_thread_changes(self) -> None:
        state = Anything({}, set(), [], {})
        stop = threading.Event()

        def change() -> None:
            count = 0
            while not stop.is_set():
                count += 1
                for table in (state.value, state.table):
                    table[str(count % 50)] = {str(count): Path("x")}
                    table.pop(str((count * 7) % 50), None)
                state.thing.add(Ref("u", str(count % 50)))  # type: ignore[attr-defined]
                state.thing.discard(Ref("u", str(count * 7 % 50)))  # type: ignore[attr-defined]

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(300):
                dataclass_to_wire(state)
                encode_blob(state)
        finally:
            stop.set()
            thread.join()

    def test_a_computed_field_keeps_its_value(self) -> None:
        state = Constructed(2)
        state.doubled = 99
        assert round_trip(state).doubled == 99
        assert dataclass_from_wire(Constructed, {"base": 3}).doubled == 6

    def test_generic_classes(self) -> None:
        state = Boxes(Box(Job(1), [Job(2)]), Box(dt.date(2020, 1, 1)), DateBox(dt.date(2021, 1, 1), [dt.date.min], "x"))
        assert round_trip(state) == state
        assert from_wire(Box[Box[int]], {"item": {"item": 1}}) == Box(Box(1))
        with pytest.raises(SerializationError, match=r"^state\.jobs\.others\[0\]"):
            dataclass_from_wire(Boxes, {**dataclass_to_wire(state), "jobs": {"item": {"size": 1}, "others": [5]}})

    def test_the_odd_kinds(self) -> None:
        state = Odds(
            mode=True,
            point=Point(3, 4.5),
            options={"verbose": True, "when": dt.datetime(2020, 1, 1)},
            corner=Corner.UNIT,
            rights=Rights.READ | Rights.WRITE,
            queue=collections.deque([1, 2]),
            counts=collections.defaultdict(list, {"a": [1]}),
            tally=collections.Counter("abca"),
            ordered=collections.OrderedDict(z=1, a=2),
            cells={(1, 2): "x"},
            by_color={Color.RED: 1},
            by_day={dt.date(2020, 1, 1): 2},
            by_ref={Ref("u", "i"): 3},
            refs={Ref("u", "i"), Ref("v", "j")},
            flags={True: 1.5},
        )
        back = round_trip(state)
        assert back == state
        assert back.mode is True
        assert back.counts["new"] == []
        assert [type(back.queue), type(back.tally), type(back.point)] == [collections.deque, collections.Counter, Point]

    def test_recursive_classes(self) -> None:
        tree = Tree("a", [Tree("b", [Tree("c", payload={1, 2})]), Tree("d")])
        tree.children[0].children[0].payload = [dt.date(2020, 1, 1)]
        assert round_trip(tree) == tree

    def test_deep_nesting_within_reason(self) -> None:
        tree = Tree("leaf")
        chain = NativeTree("leaf")
        value: Any = 1
        for _ in range(100):
            tree, chain, value = Tree("node", [tree]), NativeTree("node", chain), [{"x": value}]
        tree.payload = value
        assert round_trip(tree) == tree
        assert round_trip(chain) == chain

    def test_bottomless_nesting_is_refused(self) -> None:
        wire: Any = {"name": "x"}
        chain: Any = {"name": "x"}
        value: Any = 1
        for _ in range(20_000):
            wire, chain, value = {"name": "x", "children": [wire]}, {"name": "x", "child": chain}, [value]
        for hint, payload in ((Tree, wire), (NativeTree, chain), (Any, value), (int | str, value), (list[Any], value)):
            with pytest.raises(SerializationError):
                from_wire(hint, payload)
        with pytest.raises(SerializationError, match="nested too deeply"):
            to_wire(value)

    def test_a_cycle_is_refused(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(SerializationError, match="nested too deeply"):
            dataclass_to_wire(Anything(loop))


class TestUnions:
    @pytest.mark.parametrize(
        "state",
        [
            Shapes(Circle(1.0)),
            Shapes(Square(2.0)),
            Shapes(Cube(3.0)),
            Shapes(Circle(1.0), Path("x"), Color.RED, dt.datetime(2020, 1, 1), "5"),
            Shapes(Circle(1.0), "x", "red", dt.date(2020, 1, 1), True),
            Shapes(Circle(1.0), "x", "red", 5, 5.0),
            Shapes(Circle(1.0), group={1, 2}, table=Circle(2.0), binary="x"),
            Shapes(Circle(1.0), group=(1, 2), table={"radius": 2.0}, binary=b"x"),
            Shapes(Circle(1.0), group=[1, 2], table={"other": 2.0}),
        ],
    )
    def test_give_back_what_they_were_given(self, state: Shapes) -> None:
        back = round_trip(state)
        assert back == state
        for name in ("shape", "path_or_text", "color_or_text", "when", "mixed", "group", "table", "binary"):
            assert type(getattr(back, name)) is type(getattr(state, name))

    def test_members_that_cannot_be_mistaken_have_no_tag(self) -> None:
        wire = dataclass_to_wire(Shapes(Square(2.0), "x", "red", 5, 5.0, [1], Circle(1.0)))
        assert wire["shape"] == {"side": 2.0}
        assert wire["table"] == {"radius": 1.0}
        assert [wire[name] for name in ("path_or_text", "color_or_text", "when", "group")] == ["x", "red", 5, [1]]

    def test_the_first_member_that_converts(self) -> None:
        assert from_wire(Circle | Square, {"side": 1, "more": 2}) == Square(1.0)
        assert from_wire(Square | Cube, {"side": 1}) == Square(1.0)
        assert from_wire(dt.date | Path, "2020-01-01") == dt.date(2020, 1, 1)
        assert from_wire(dt.date | Path, "elsewhere") == Path("elsewhere")
        assert from_wire(float | str, 3) == 3.0

    @pytest.mark.parametrize(("hint", "value"), [(int | str, "5"), (str | int, 5), (int | float, 5), (float | int, 5)])
    def test_the_exact_type_first(self, hint: Any, value: Any) -> None:
        assert type(from_wire(hint, value)) is type(value)

    @pytest.mark.parametrize(
        ("hint", "value"),
        [
            (Level | float, Level.HIGH),
            (float | Level, Level.HIGH),
            (float | Level, 2.0),
            (int | Level, 2),
            (bytearray | memoryview, memoryview(b"x")),
            (memoryview | bytearray, bytearray(b"x")),
            (memoryview | bytes, b"x"),
            (Color | dt.date | Path | str, "2020-01-01"),
            (str | Path, Path("x")),
            (set[int] | frozenset[int], frozenset({1})),
            (Point | tuple[int, int] | list[int], (1, 2)),
            (Point | tuple[int, int] | list[int], Point(1, 2.0)),
            (list[Job | str], [Job(1), "x"]),
            (Job | None | Ref, Ref("u", "i")),
            (dict[str, int] | list[int] | int, {"a": 1}),
            (complex | list[float], 1j),
            (Decimal | UUID | str, Decimal("1.0")),
        ],
    )
    def test_a_value_comes_back_as_the_member_it_was(self, hint: Any, value: Any) -> None:
        back = from_wire(hint, to_wire(value, hint))
        assert back == value
        assert type(back) is type(value)

    def test_the_order_of_equal_unions_counts(self) -> None:
        assert type(from_wire(Square | Cube, {"side": 1})) is Square
        assert type(from_wire(Cube | Square, {"side": 1})) is Cube
        assert type(from_wire(list[Square | Cube], [{"side": 1}])[0]) is Square
        assert type(from_wire(list[Cube | Square], [{"side": 1}])[0]) is Cube

    def test_the_nearest_member_names_the_path(self) -> None:
        with pytest.raises(SerializationError, match=r"^state\.shape\.radius: expected float, got str"):
            dataclass_from_wire(Shapes, {"shape": {"radius": "wide"}})


class TestVersions:
    def test_the_same_version_needs_no_upgrade(self) -> None:
        assert dataclass_from_wire(Versioned, {"full_name": "a"}, 3) == Versioned("a")
        assert dataclass_from_wire(Versioned, {"full_name": "a"}) == Versioned("a")

    def test_another_version_is_upgraded(self) -> None:
        payload = {"first": "Ada", "last": "L"}
        assert dataclass_from_wire(Versioned, payload, 1) == Versioned("Ada L from 1")
        assert payload == {"first": "Ada", "last": "L"}

    def test_newer_data_without_a_hook_names_both_versions(self) -> None:
        with pytest.raises(SerializationError, match=r"version 12.*knows 9"):
            dataclass_from_wire(NewerWithoutHook, {"count": 1}, 12)

    def test_older_data_without_a_hook_is_read_as_it_is(self) -> None:
        assert dataclass_from_wire(NewerWithoutHook, {"count": 1}, 2) == NewerWithoutHook(1)

    def test_a_hook_that_fails(self) -> None:
        with pytest.raises(SerializationError, match=r"BrokenHook.upgrade_state failed from version 1: KeyError"):
            dataclass_from_wire(BrokenHook, {}, 1)


def test_the_names_are_part_of_the_codec() -> None:
    assert qualified_name(ComplexState) == "tests.serialization.states:ComplexState"
    assert resolve_qualified_name(qualified_name(complex_state())) is ComplexState


def test_numpy_is_not_imported_before_an_array_needs_it() -> None:
    code = (
        "import sys, paglets.serialization.blob as b, paglets.serialization.values as v\n"
        "from dataclasses import make_dataclass\n"
        "S = make_dataclass('S', [('a', int), ('b', bytes)])\n"
        "b.decode_blob(S, b.encode_blob(S(1, b'x')).tobytes()); v.unpack(v.pack({'a': [1.5]}))\n"
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
