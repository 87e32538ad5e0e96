"""State blobs: layout, copies, versions, and what damaged ones do."""

from __future__ import annotations

import array
import contextlib
import datetime as dt
import mmap
import os
import struct
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.core.errors import SerializationError
from paglets.serialization.blob import (
    Blob,
    blob_from_wire,
    blob_state_version,
    decode_blob,
    decode_blob_plain,
    encode_blob,
)
from paglets.serialization.codec import dataclass_to_wire
from tests.effort import thorough
from tests.serialization.states import (
    Anything,
    Arrays,
    Binary,
    Job,
    NativeState,
    NestedNative,
    NewerWithoutHook,
    Opaque,
    Scalars,
    Tree,
    Versioned,
    VersionedOld,
)

KB = 1024
MB = 1024 * KB


def large_state() -> Binary:
    return Binary(
        raw=bytes(range(256)) * 256,
        growing=bytearray(b"g" * 40_000),
        anything={"big": bytearray(b"a" * 50_001), "small": bytearray(b"s"), "array": np.arange(10_000.0)},
        view=memoryview(b"v" * 33_000),
        parts=[b"x" * 32 * KB, b"y"],
    )


def assert_same(left: Binary, right: Binary) -> None:
    np.testing.assert_array_equal(left.anything["array"], right.anything["array"])
    assert {**left.anything, "array": None} == {**right.anything, "array": None}
    assert (left.raw, left.growing, left.view, left.parts) == (right.raw, right.growing, right.view, right.parts)


class TestRoundTrip:
    @pytest.mark.parametrize(
        "state",
        [
            NativeState(5, "x", 1.5, True, [1, 2, 3]),
            NativeState(2**80, "\ud800", float("inf"), False, [-(2**70)]),
            NativeState(None, None, None, None, None),  # type: ignore[arg-type]
            NestedNative([Job(1)], {"a": Job(2), "\udcff": Job(3)}),
            NestedNative(by_name={5: Job(2)}),  # type: ignore[dict-item]
            Scalars(),
            Anything({"when": dt.datetime(2020, 1, 1), "big": 2**90, "b": bytearray(b"x")}),
            Tree("a", [Tree("b")], b"z" * 100_000),
            Binary(),
        ],
    )
    def test_gives_back_the_state(self, state: Any) -> None:
        blob = encode_blob(state).tobytes()
        back = decode_blob(type(state), blob)
        if state == NestedNative(by_name={5: Job(2)}):  # type: ignore[dict-item]
            state = NestedNative(by_name={"5": Job(2)})
        assert back == state
        assert decode_blob_plain(blob) == dataclass_to_wire(state)

    def test_large_buffers_are_out_of_line_and_aligned(self) -> None:
        state = large_state()
        blob = encode_blob(state)
        data = blob.tobytes()
        assert len(data) == blob.nbytes
        for content in (state.raw, b"g" * 40_000, b"a" * 50_001, b"v" * 33_000, b"x" * 32 * KB):
            assert data.count(content) == 1
            assert data.index(content) % 64 == 0
        assert_same(decode_blob(Binary, data), state)
        assert decode_blob_plain(data)["raw"] == state.raw

    def test_the_wire_form_makes_the_same_blob_content(self) -> None:
        wire = dataclass_to_wire(large_state())
        blob = blob_from_wire(wire, 1).tobytes()
        assert decode_blob_plain(blob) == wire
        assert_same(decode_blob(Binary, blob), large_state())

    def test_arrays_are_writable_and_own_their_memory(self) -> None:
        state = Arrays(
            np.arange(50_000.0).reshape(100, 500), array.array("d", range(9000)), np.zeros((3, 4), order="F")
        )
        back = decode_blob(Arrays, encode_blob(state).tobytes())
        for array_ in (back.data, back.anything):
            assert array_.flags.writeable
            assert array_.flags.owndata
        assert back.anything.flags.f_contiguous
        np.testing.assert_array_equal(back.data, state.data)
        assert back.numbers == state.numbers
        assert type(back.scalar) is np.float32

    def test_a_memory_map_can_be_closed_afterwards(self, tmp_path: Path) -> None:
        path = tmp_path / "blob"
        path.write_bytes(encode_blob(large_state()).tobytes())
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            back = decode_blob(Binary, mapped)
            plain = decode_blob_plain(mapped)
            with pytest.raises(SerializationError) as caught:
                decode_blob(NativeState, mapped[:-1])
            with pytest.raises(SerializationError):
                decode_blob(Job, mapped)
            assert blob_state_version(mapped) == 1
        assert caught.value is not None
        assert_same(back, large_state())
        assert plain["raw"] == back.raw

    @pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
    def test_reads_every_kind_of_buffer(self, wrap: Any) -> None:
        assert_same(decode_blob(Binary, wrap(encode_blob(large_state()).tobytes())), large_state())


class TestCopies:
    """How much memory a large buffer costs, which is how often it was copied."""

    @staticmethod
    def peak(action: Any) -> tuple[Any, float]:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            result = action()
            return result, (tracemalloc.get_traced_memory()[1] - before) / (8 * MB)
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(
        "state",
        [Binary(b"x" * 8 * MB), Binary(growing=bytearray(8 * MB)), Arrays(np.zeros(MB)), Anything(bytes(8 * MB))],
    )
    def test_none_to_encode_and_one_to_decode(self, state: Any) -> None:
        blob, copies = self.peak(lambda: encode_blob(state))
        assert copies < 0.1
        data = blob.tobytes()
        blob.release()
        _, copies = self.peak(lambda: decode_blob(type(state), data))
        assert copies < 1.1

    def test_writing_copies_nothing(self, tmp_path: Path) -> None:
        blob = encode_blob(Binary(b"x" * 8 * MB))
        with (tmp_path / "blob").open("wb") as file:
            _, copies = self.peak(lambda: blob.write_to(file.fileno()))
        assert copies < 0.1
        assert decode_blob(Binary, (tmp_path / "blob").read_bytes()) == Binary(b"x" * 8 * MB)


class TestWriting:
    def test_through_a_pipe_that_takes_little_at_once(self) -> None:
        blob = encode_blob(Binary(os.urandom(3 * MB), parts=[os.urandom(40_001) for _ in range(1500)]))
        assert len(blob.segments) > 2048
        reader, writer = os.pipe()
        received = bytearray()

        def drain() -> None:
            with os.fdopen(reader, "rb") as file:
                while piece := file.read(70_001):
                    received.extend(piece)

        thread = threading.Thread(target=drain)
        thread.start()
        try:
            blob.write_to(writer)
        finally:
            os.close(writer)
            thread.join()
        assert received == blob.tobytes()

    def test_a_released_blob_lets_bytearrays_grow(self) -> None:
        state = Binary(growing=bytearray(100_000))
        with encode_blob(state) as blob:
            assert blob.nbytes > 100_000
            with pytest.raises(BufferError):
                state.growing.append(1)
        state.growing.append(1)
        assert (blob.nbytes, blob.tobytes()) == (0, b"")

    def test_what_cannot_travel_is_named(self) -> None:
        for state in (Anything(Opaque()), NativeState(numbers=[1, Opaque()]), Binary(parts=[Opaque()])):  # type: ignore[list-item]
            with pytest.raises(
                SerializationError, match=r"^state\.(value|numbers\[1\]|parts\[0\]): .*Opaque cannot travel"
            ):
                encode_blob(state)
        with pytest.raises(SerializationError, match="no dataclass"):
            encode_blob({"a": 1})
        with pytest.raises(SerializationError, match=r"^state\['a'\]\[0\]: .*no wire value"):
            blob_from_wire({"a": [Opaque()]})
        with pytest.raises(SerializationError, match="dict"):
            blob_from_wire([])  # type: ignore[arg-type]

    def test_numpy_numbers_in_plain_fields(self) -> None:
        state = NativeState(np.int64(3), "x", np.float64(1.5), np.bool_(True), [np.uint8(4)])  # type: ignore[arg-type,list-item]
        back = decode_blob(NativeState, encode_blob(state).tobytes())
        assert back == NativeState(3, "x", 1.5, True, [4])
        assert [type(back.count), type(back.ratio), type(back.ready)] == [int, float, bool]


class TestVersions:
    def test_a_blob_knows_the_version_of_its_class(self) -> None:
        assert blob_state_version(encode_blob(Versioned()).tobytes()) == 3
        assert blob_state_version(encode_blob(Job(1)).tobytes()) == 1
        assert blob_state_version(blob_from_wire({"a": 1}).tobytes()) is None

    def test_an_older_blob_is_upgraded(self) -> None:
        blob = encode_blob(VersionedOld("Ada", "L", b"r" * 100_000)).tobytes()
        assert decode_blob(Versioned, blob) == Versioned("Ada L from 1", b"r" * 100_000)

    def test_a_blob_of_unknown_version_is_taken_as_it_is(self) -> None:
        assert decode_blob(Versioned, blob_from_wire({"full_name": "x"}).tobytes()) == Versioned("x")

    def test_a_newer_blob_without_a_hook_is_refused(self) -> None:
        blob = blob_from_wire({"count": 1}, 10).tobytes()
        with pytest.raises(SerializationError, match=r"version 10.*knows 9"):
            decode_blob(NewerWithoutHook, blob)
        assert decode_blob_plain(blob) == {"count": 1}

    def test_a_newer_format_is_refused(self) -> None:
        blob = bytearray(encode_blob(Job(1)).tobytes())
        blob[4] = 2
        with pytest.raises(SerializationError, match="format 2"):
            decode_blob(Job, blob)


HEAD = struct.Struct("<4sBBHqQII")


def forged(body: Any, *buffers: bytes, lengths: list[int] | None = None, body_length: int | None = None) -> bytes:
    packed = msgspec.msgpack.encode(body)
    sizes = [len(buffer) for buffer in buffers] if lengths is None else lengths
    data = HEAD.pack(b"PGLB", 1, 1, 0, 1, len(packed) if body_length is None else body_length, len(sizes), 0)
    data += b"".join(struct.pack("<Q", size) for size in sizes) + packed
    for buffer in buffers:
        data += bytes(-len(data) % 64) + buffer
    return data


def reference(index: int, kind: int = 0) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(4, index.to_bytes(4, "big") + bytes((kind,)))


class TestDamage:
    @pytest.mark.parametrize(
        "blob",
        [
            b"",
            b"PGLB",
            bytes(32),
            forged({"raw": reference(1)}, b"x"),
            forged({"raw": reference(0), "parts": [reference(0)]}, b"x"),
            forged({"raw": reference(0, 9)}, b"x"),
            forged({"raw": msgspec.msgpack.Ext(4, b"x")}, b"x"),
            forged({"raw": reference(0)}),
            forged({"raw": msgspec.msgpack.Ext(77, b"x")}),
            forged({"raw": msgspec.msgpack.Ext(3, b"\xff")}),
            forged({"raw": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}),
            forged({b"\xff": 1}),
            forged({(1, 2): 1}),
            forged([1]),
            forged({"raw": b""}) + b"trailing",
            forged({"raw": reference(0)}, b"x", lengths=[2**64 - 1]),
            forged({"raw": reference(0)}, b"x", lengths=[2]),
            forged({"raw": reference(0)}, b"x", lengths=[0]),
            forged({"raw": b""}, body_length=2**64 - 1),
            forged({"raw": b""}, body_length=0),
            forged({"raw": b""}, body_length=3),
            HEAD.pack(b"PGLB", 1, 0, 0, 0, 0, 2**32 - 1, 0),
            HEAD.pack(b"PGLB", 1, 0, 0, 7, 1, 0, 0) + b"\x80",
            HEAD.pack(b"PGLB", 1, 2, 0, 0, 1, 0, 0) + b"\x80",
            HEAD.pack(b"PGLB", 1, 1, 0, 1, 5, 0, 0) + b"\xdd\xff\xff\xff\xff",
            HEAD.pack(b"PGLB", 1, 1, 0, 1, 100_000, 0, 0) + b"\x91" * 100_000,
        ],
    )
    def test_is_a_serialization_error(self, blob: bytes) -> None:
        for read in (lambda: decode_blob(Binary, blob), lambda: decode_blob_plain(blob)):
            with pytest.raises(SerializationError):
                read()

    @pytest.mark.parametrize("cls", [NativeState, NestedNative, Binary, Tree, Arrays, Anything])
    def test_every_truncation_is_noticed(self, cls: Any) -> None:
        state = {"name": "x"} if cls is Tree else {}
        blob = blob_from_wire({**state, "raw": b"r" * 33_000}, 1).tobytes()
        for length in (*range(200), *range(200, len(blob), 501)):
            with pytest.raises(SerializationError):
                decode_blob(cls, blob[:length])

    def test_a_strided_view_is_refused(self) -> None:
        with pytest.raises(SerializationError, match="contiguous"):
            decode_blob_plain(memoryview(encode_blob(Job(1)).tobytes())[::2])


VALID = [
    encode_blob(state).tobytes()
    for state in (
        NativeState(5, "x", 1.5, True, [1, 2, 3]),
        NestedNative([Job(1)], {"a": Job(2)}),
        Scalars(),
        Anything({"when": dt.datetime(2020, 1, 1), "big": 2**90, "b": bytearray(b"x"), "a": np.zeros((2, 3), ">i4")}),
        Arrays(),
        large_state(),
        Tree("a", [Tree("b", payload={1: b"x"})]),
    )
]
CLASSES = (NativeState, NestedNative, Scalars, Anything, Arrays, Binary, Tree, Versioned)


def read_or_refuse(blob: bytes) -> None:
    for cls in CLASSES:
        with contextlib.suppress(SerializationError):
            decode_blob(cls, blob)
    with contextlib.suppress(SerializationError):
        decode_blob_plain(blob)


@settings(max_examples=thorough(50, 150), deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    read_or_refuse(data)
    read_or_refuse(HEAD.pack(b"PGLB", 1, 1, 0, 1, len(data), 0, 0) + data)


@settings(max_examples=thorough(83, 250), deadline=None)
@given(st.data())
def test_mutated_blobs_raise_nothing_else(data: st.DataObject) -> None:
    blob = bytearray(data.draw(st.sampled_from(VALID)))
    interesting = min(len(blob), 600)
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, interesting - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                blob[position] = data.draw(st.integers(0, 255))
            case 1:
                del blob[position : position + data.draw(st.integers(1, 9))]
            case 2:
                blob[position:position] = data.draw(st.binary(min_size=1, max_size=9))
            case _:
                blob[position] ^= 1 << data.draw(st.integers(0, 7))
        interesting = max(1, min(len(blob), 600))
    read_or_refuse(bytes(blob))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=4000))
def test_what_is_allocated_is_bounded_by_the_input(data: bytes) -> None:
    blob = HEAD.pack(b"PGLB", 1, 1, 0, 1, len(data), 0, 0) + data
    tracemalloc.start()
    try:
        read_or_refuse(blob)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 300 * len(blob) + 300_000


def test_a_buffer_referred_to_a_thousand_times_is_not_multiplied() -> None:
    blob = forged({"parts": [reference(0)] * 1000}, bytes(MB))
    tracemalloc.start()
    try:
        with pytest.raises(SerializationError):
            decode_blob_plain(blob)
        assert tracemalloc.get_traced_memory()[1] < 3 * MB
    finally:
        tracemalloc.stop()


def test_empty_blob_object() -> None:
    assert Blob([]).tobytes() == b""
    assert sys.getsizeof(Blob([])) < 200
