"""State blobs: the state of a paglet as one self-contained byte string.

    offset 0    magic b"PGLB", format version u8, flags u8, two zero bytes
    offset 8    state version i64 (with flag 1, else 0), body length u64, number of buffers u32, four zero bytes
    offset 32   the length u64 of every buffer
    then        the msgpack body, and the buffers, each at the next multiple of 64 bytes

All numbers are little-endian. The body is the wire form of the state, with binary data of 32 KB and more taken out into
the buffers. Each buffer is referred to at most once, so what a blob decodes to is bounded by its size. Decoding a blob
imports nothing and runs no code but that of the state class it is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar, cast

import msgspec

from paglets.core.errors import SerializationError
from paglets.core.wire import WirePayload
from paglets.serialization import codec, hints
from paglets.serialization.encode import encoder_of
from paglets.serialization.kinds import MisfitError, type_name
from paglets.serialization.packing import (
    EXT_BUFFER,
    KIND_BYTEARRAY,
    KIND_BYTES,
    KIND_RAW,
    Encoder,
    Sink,
    pack_wire,
    read_body,
    unpack_extension,
)

StateT = TypeVar("StateT")
Readable: TypeAlias = bytes | bytearray | memoryview | mmap.mmap

MAGIC = b"PGLB"
FORMAT_VERSION = 1
ALIGNMENT = 64

_HEAD = struct.Struct("<4sBBHqQII")
_LENGTH = struct.Struct("<Q")
_HAS_VERSION = 1
_IOV_MAX = 1024 if not hasattr(os, "sysconf") or os.sysconf("SC_IOV_MAX") < 1 else os.sysconf("SC_IOV_MAX")
_PADDING = bytes(ALIGNMENT)

_ENCODER = msgspec.msgpack.Encoder()
# What msgspec raises for a value that only the thorough way can write, or refuse with its path.
_UNWRITABLE = (TypeError, ValueError, OverflowError, AttributeError, msgspec.MsgspecError)


# --- writing ---------------------------------------------------------------------------------------------------------


class Blob:
    """A state blob as the segments it consists of.

    Large segments are views of the state's own buffers: nothing was copied, so write the blob before the state changes.
    A `bytearray` cannot change its size until the blob is gone or released.
    """

    __slots__ = ("nbytes", "segments")

    def __init__(self, segments: list[bytes | memoryview]) -> None:
        self.segments = segments
        self.nbytes = sum(map(_nbytes, segments))
        """The size of the whole blob in bytes."""

    def tobytes(self) -> bytes:
        """Return the whole blob as one byte string."""
        return b"".join(self.segments)

    def write_to(self, fd: int) -> None:
        """Write the whole blob to a blocking file descriptor, at its present position.

        :raises OSError: what writing raised; part of the blob may have been written.
        """
        pending = [memoryview(segment) for segment in self.segments]
        pending.reverse()
        while pending:
            batch = pending[: -_IOV_MAX - 1 : -1]
            written = os.writev(fd, batch) if hasattr(os, "writev") else os.write(fd, batch[0])
            while pending and written >= pending[-1].nbytes:
                written -= pending.pop().nbytes
            if written:
                pending[-1] = pending[-1][written:]

    def release(self) -> None:
        """Let go of the state's buffers; the blob is empty afterwards."""
        for segment in self.segments:
            if isinstance(segment, memoryview):
                segment.release()
        self.segments = []
        self.nbytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


def encode_blob(instance: Any) -> Blob:
    """Return the state of a dataclass instance as a blob, without copying its large buffers.

    :raises SerializationError: no dataclass instance, or a value that cannot travel; the text has its path.
    """
    cls = type(instance)
    plan = _plans.get(cls) or _plan_of(cls)
    try:
        if plan.encode is None:
            return _assemble(_ENCODER.encode(instance), [], plan.version)
        sink = Sink()
        return _assemble(_ENCODER.encode(plan.encode(instance, sink)), sink.buffers, plan.version)
    except MisfitError as misfit:
        raise SerializationError(misfit.at("state")) from misfit.__cause__
    except RecursionError:
        raise SerializationError("state: nested too deeply") from None
    except _UNWRITABLE:
        return blob_from_wire(codec.dataclass_to_wire(instance), plan.version)


def blob_from_wire(payload: WirePayload, state_version: int | None = None) -> Blob:
    """Return wire values, as `dataclass_to_wire` returns them, as a blob.

    :param state_version: the version of the state class they were written with, None when it is not known.
    :raises SerializationError: the payload is no dict, or holds something that is no wire value.
    """
    if not isinstance(payload, dict):
        raise SerializationError(f"expected a dict of wire values, got {type_name(payload)}")
    sink = Sink()
    body = pack_wire(payload, sink, "state")
    return _assemble(body, sink.buffers, state_version)


def _assemble(body: bytes, buffers: list[bytes | memoryview], version: int | None) -> Blob:
    flags = 0 if version is None else _HAS_VERSION
    head = _HEAD.pack(MAGIC, FORMAT_VERSION, flags, 0, version or 0, len(body), len(buffers), 0)
    if not buffers:
        return Blob([head + body])
    lengths = [_nbytes(buffer) for buffer in buffers]
    first = b"".join((head, *map(_LENGTH.pack, lengths), body))
    segments: list[bytes | memoryview] = [first]
    end = len(first)
    for buffer, length in zip(buffers, lengths, strict=True):
        padding = -end % ALIGNMENT
        if padding:
            segments.append(_PADDING[:padding])
        segments.append(buffer)
        end += padding + length
    return Blob(segments)


def _nbytes(segment: bytes | memoryview) -> int:
    return segment.nbytes if isinstance(segment, memoryview) else len(segment)


# --- reading ---------------------------------------------------------------------------------------------------------


def decode_blob(cls: type[StateT], buffer: Readable) -> StateT:
    """Return the instance of a state class that a blob holds; it shares no memory with the blob.

    :param buffer: a whole blob, and nothing else; a memory map can be closed afterwards.
    :raises SerializationError: the blob is damaged, does not fit the class, or is newer than the class understands.
    """
    plan = _plans.get(cls) or _plan_of(cls)
    with _Layout(buffer) as layout:
        known_version = layout.version is None or layout.version == plan.version
        if plan.decode is not None and known_version and not layout.buffers:
            try:
                return cast("StateT", plan.decode(layout.body))
            except Exception as error:
                # Read again by the thorough way, which accepts more or says what is wrong; except that it needs more.
                if isinstance(error, MemoryError):
                    raise
        # Array data is copied once, into the array; an upgrade hook may keep what it is given.
        wire = layout.read(copy_arrays=not known_version)
        return cast("StateT", codec.dataclass_from_wire(cls, wire, layout.version))


def decode_blob_plain(buffer: Readable) -> WirePayload:
    """Return the wire values of a blob, for a view of the state that does not need its class.

    :raises SerializationError: the blob is damaged.
    """
    with _Layout(buffer) as layout:
        wire = layout.read(copy_arrays=True)
    if not isinstance(wire, dict):
        raise SerializationError(f"damaged state blob: holds {type_name(wire)} instead of the fields of a state")
    return wire


def blob_state_version(buffer: Readable) -> int | None:
    """Return the version of the state class that wrote a blob, None when it was not known.

    :raises SerializationError: the blob is damaged.
    """
    with _Layout(buffer) as layout:
        return layout.version


class _Layout:
    """The parts of a blob, every length checked against the size of the whole; a context that releases its views."""

    __slots__ = ("_views", "body", "buffers", "version")

    def __init__(self, buffer: Readable) -> None:
        view = memoryview(buffer)
        self._views = [view]
        try:
            self._parse(view)
        except BaseException:
            self._release()
            raise

    def _parse(self, view: memoryview) -> None:
        if view.ndim != 1 or view.itemsize != 1 or not view.c_contiguous:
            raise SerializationError("a state blob is read from contiguous bytes")
        size = view.nbytes
        if size < _HEAD.size:
            raise _damaged(f"{size} bytes are less than its head")
        magic, form, flags, zero, version, body_length, count, zero_too = _HEAD.unpack_from(view)
        if magic != MAGIC:
            raise _damaged("it does not begin like one")
        if form != FORMAT_VERSION:
            raise SerializationError(f"state blob of format {form}, this process knows {FORMAT_VERSION}; update it")
        if flags & ~_HAS_VERSION or zero or zero_too or (not flags and version):
            raise _damaged("unknown flags")
        start = _HEAD.size + _LENGTH.size * count
        end = start + body_length
        if end > size:
            raise _damaged(f"it ends after {size} bytes, its body after {end}")
        self.version: int | None = version if flags else None
        self.body = self._slice(view, start, end)
        self.buffers: list[memoryview] = []
        for (length,) in _LENGTH.iter_unpack(view[_HEAD.size : start]) if count else ():
            start = end + -end % ALIGNMENT
            end = start + length
            if end > size:
                raise _damaged(f"it ends after {size} bytes, a buffer of it after {end}")
            self.buffers.append(self._slice(view, start, end))
        if end != size:
            raise _damaged(f"{size - end} bytes follow its end")

    def _slice(self, view: memoryview, start: int, end: int) -> memoryview:
        part = view[start:end]
        self._views.append(part)
        return part

    def read(self, *, copy_arrays: bool) -> Any:
        """Return the wire value of the body; without `copy_arrays` array data in it is a view of the blob."""
        try:
            return read_body(self.body, self._extensions(copy_arrays) if self.buffers else unpack_extension)
        except SerializationError as error:
            raise _damaged(str(error)) from None

    def _extensions(self, copy_arrays: bool) -> Callable[[int, memoryview], Any]:
        unused: list[memoryview | None] = [*self.buffers]

        def read_extension(code: int, data: memoryview) -> Any:
            if code != EXT_BUFFER:
                return unpack_extension(code, data)
            index = int.from_bytes(data[:4], "big")
            view = unused[index] if len(data) == 5 and index < len(unused) else None
            if view is None:
                raise MisfitError("a reference to no buffer, or to one that was referred to before")
            unused[index] = None
            kind = data[4]
            if kind == KIND_RAW:
                return bytes(view) if copy_arrays else view
            if kind == KIND_BYTES:
                return bytes(view)
            if kind == KIND_BYTEARRAY:
                return bytearray(view)
            raise MisfitError("a reference to an unknown kind of buffer")

        return read_extension

    def _release(self) -> None:
        while self._views:
            # A view that somebody still looks at, such as a traceback, goes with its last user.
            with contextlib.suppress(BufferError):
                self._views.pop().release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._release()


def _damaged(reason: str) -> SerializationError:
    return SerializationError(f"damaged state blob: {reason}")


# --- what is known of a state class ----------------------------------------------------------------------------------


class _Plan(NamedTuple):
    version: int
    encode: Encoder | None
    """None when msgspec writes an instance by itself."""
    decode: Callable[[memoryview], Any] | None
    """Reads a body into an instance; None when msgspec cannot do it by itself."""


_plans: dict[type, _Plan] = {}


def _plan_of(cls: type) -> _Plan:
    if not dataclasses.is_dataclass(cls):
        raise SerializationError(f"{getattr(cls, '__qualname__', cls)} is no dataclass; a state has to be one")
    version = codec.state_version(cls)
    try:
        encode = None if hints.is_native(cls) else encoder_of(cls)
    except MisfitError as misfit:
        raise SerializationError(misfit.at("state")) from misfit.__cause__
    plan = _Plan(version, encode, None if encode is not None else msgspec.msgpack.Decoder(cls).decode)
    hints.remember(_plans, cls, plan)
    return plan
