"""The frames that a host and a paglet process exchange over their two socket pairs.

Every frame is a fixed header, a small *payload* and an optional *attachment*. The attachment follows the payload on the
socket or, when it is large, is a memory file whose descriptor travels with the header. Both ends may ask (`REQUEST`)
and are answered by `REPLY` or `FAILURE` with the same id; `NOTICE` expects no answer.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from enum import IntEnum

from paglets.core.errors import HostError
from paglets.runtime.attachment import EMPTY, Attachment

#: type, flags, operation, id, parent, payload bytes, attachment bytes
HEADER = struct.Struct("<BBHIIIQ")
HEADER_BYTES = HEADER.size

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
#: An attachment inside the stream is always smaller than what goes by descriptor, where descriptors can be passed at
#: all.
MAX_INLINE_BYTES = 1 << 31

BY_DESCRIPTOR = 0x01


class FrameType(IntEnum):
    """What a frame is for."""

    REQUEST = 0
    REPLY = 1
    FAILURE = 2
    NOTICE = 3


class Op(IntEnum):
    """What is asked of the other side."""

    # host -> worker
    START = 1  # attachment: state blob; import, construct, first hook
    RUN = 2  # begin run() on its own thread
    MESSAGE = 3  # attachment: packed message; reply payload: packed result
    HOOK = 4  # a lifecycle hook, then cleanup and snapshot where asked for; reply: what it decided, the state blob
    CLEANUP = 5  # release resources
    STATE = 6  # reply attachment: state blob, taken at once beside a running handler
    RESOURCES = 7  # status or removal of resources, beside a running handler
    EXIT = 8  # notice: end
    STREAM = 10  # attachment: packed message; beside the handlers, answered when there are items or after a while
    ADDRESS = 11  # notice: the host has another base URL, the payload, from now on
    CHECKPOINT = 9  # between handlers; reply attachment: the state blob if it has changed since the host last had it
    # worker -> host
    CALL = 32  # a call of the host's API
    RUN_ENDED = 33  # notice: run() returned or raised


#: Executed by the paglet's main thread, in order. Everything else is answered beside it.
COMMANDS = frozenset({Op.START, Op.RUN, Op.MESSAGE, Op.HOOK, Op.CLEANUP, Op.CHECKPOINT})

#: First byte of a MESSAGE's payload; the packed call chain follows it.
ONEWAY = 0x01
DURABLE = 0x02
#: The outbox of the host holds as much as it may: the handler of a durable paglet can send nothing one-way.
OUTBOX_FULL = 0x04

#: A snapshot that is only taken where the class has the hook, so that the state may have changed.
IF_TOUCHED = "touched"


class Frame:
    """One decoded frame."""

    __slots__ = ("attachment", "id", "is_command", "op", "parent", "payload", "type")

    def __init__(self, type_: int, op: int, id_: int, parent: int, payload: bytes, attachment: Attachment) -> None:
        self.type = type_
        self.op = op
        self.id = id_
        self.parent = parent
        self.payload = payload
        self.attachment = attachment
        self.is_command = False
        """Whether it came on the command socket, where its answer goes too; at either end."""


class FrameError(HostError):
    """The peer sent bytes that are no frame; the connection cannot be used any more."""


class FrameParser:
    """Turn bytes and descriptors, in the order they were received, into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fds: deque[int] = deque()

    def feed(self, data: bytes, fds: list[int]) -> Iterator[Frame]:
        """Yield every frame that is complete now.

        :raises FrameError: a length is out of bounds or a descriptor is missing.
        """
        buffer = self._buffer
        buffer += data
        if fds:
            self._fds.extend(fds)
        offset = 0
        size = len(buffer)
        try:
            while size - offset >= HEADER_BYTES:
                type_, flags, op, id_, parent, payload_len, attached = HEADER.unpack_from(buffer, offset)
                inline = 0 if flags & BY_DESCRIPTOR else attached
                if payload_len > MAX_PAYLOAD_BYTES or inline > MAX_INLINE_BYTES or type_ > FrameType.NOTICE:
                    raise FrameError(
                        f"malformed frame header from a paglet process (type {type_}, {payload_len} bytes)"
                    )
                start = offset + HEADER_BYTES
                end = start + payload_len
                if size < end + inline:
                    break
                payload = bytes(memoryview(buffer)[start:end])
                if flags & BY_DESCRIPTOR:
                    if not self._fds:
                        raise FrameError("a frame announces a memory file but none came with it")
                    attachment = Attachment.received(self._fds.popleft(), attached)
                elif inline:
                    attachment = Attachment(bytes(memoryview(buffer)[end : end + inline]), -1, inline)
                else:
                    attachment = EMPTY
                offset = end + inline
                yield Frame(type_, op, id_, parent, payload, attachment)
        finally:
            if offset:
                del buffer[:offset]

    def close(self) -> None:
        """Close descriptors that arrived without their frame."""
        while self._fds:
            Attachment.received(self._fds.popleft(), 0).close()


def encode(
    type_: int, op: int, id_: int, parent: int, payload: bytes, attachment: Attachment
) -> tuple[list[bytes], tuple[int, ...]]:
    """Return the bytes to write for one frame and the descriptors to send with the first of them.

    :raises FrameError: the payload is larger than a frame may be.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise FrameError(f"payload of {len(payload)} bytes is larger than a frame may be ({MAX_PAYLOAD_BYTES})")
    if attachment.fd >= 0:
        head = HEADER.pack(type_, BY_DESCRIPTOR, op, id_, parent, len(payload), attachment.nbytes)
        return [head + payload], (attachment.fd,)
    head = HEADER.pack(type_, 0, op, id_, parent, len(payload), attachment.nbytes)
    if attachment.nbytes:
        return [head + payload, attachment.bytes()], ()
    return [head + payload], ()
