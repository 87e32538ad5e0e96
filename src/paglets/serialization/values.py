"""Untyped values as bytes, for what crosses between processes and hosts without a declared type.

What is packed comes back as wire values: bytes and bytearrays as what they were, integers of any size, tuples and sets
as lists, dataclasses as dicts, dates and their like as tagged dicts, which `restored` turns back.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.msgpack import Encoder

from paglets.core.errors import SerializationError
from paglets.serialization.codec import from_wire, to_wire
from paglets.serialization.encode import encode_any
from paglets.serialization.kinds import MisfitError
from paglets.serialization.packing import TOO_DEEP, Sink, pack_wire, read_body

_ENCODER = Encoder()


def pack(value: Any) -> bytes:
    """Return the bytes of any value that can travel, with or without a declared type.

    :raises SerializationError: something in it cannot travel; the text has its type and its path.
    """
    try:
        return _ENCODER.encode(encode_any(value, Sink(threshold=None)))
    except MisfitError as misfit:
        raise SerializationError(misfit.at("value")) from misfit.__cause__
    except RecursionError:
        raise SerializationError(f"value: {TOO_DEEP}") from None
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        # What msgspec alone cannot write: the thorough way writes it, or says where it is.
        return pack_wire(to_wire(value, path="value"), Sink(threshold=None), "value")


def unpack(buffer: bytes | bytearray | memoryview) -> Any:
    """Return the wire value that `pack` made bytes of.

    :raises SerializationError: the bytes are malformed; nothing else is raised for whatever bytes.
    """
    return read_body(buffer)


def restored(value: Any) -> Any:
    """Return a wire value with everything that is tagged in it turned back into what it was.

    :raises SerializationError: a tagged part is malformed.
    """
    return from_wire(Any, value, "value")
