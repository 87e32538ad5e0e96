"""The frames of a link as bytes: a message of the connection below holds whole frames, one after the other.

A frame is its kind (1 byte), its stream (8), the length of what follows (4), and that. Heads are msgpack, bodies are as
they are.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import msgspec

from paglets.core.text import without_controls
from paglets.protocol.link.model import Headers, Hello, LinkError, LinkLimits, ResetCode

_HEAD: Final = struct.Struct(">BQI")
HEAD_BYTES: Final = _HEAD.size
_CREDIT: Final = struct.Struct(">I")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_METHOD: Final = re.compile(r"[A-Z]{1,32}")
_TARGET: Final = re.compile(r"/[\x21-\x7e]*")
_LINE: Final = re.compile(rb"[^\r\n\0]*")
MAX_REASON: Final = 1024


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    OPEN = 2
    HEAD = 3
    DATA = 4
    END = 5
    RESET = 6
    CREDIT = 7
    PING = 8
    PONG = 9


class OpenHead(msgspec.Struct, array_like=True, frozen=True):
    """The content of `OPEN`."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]


class AnswerHead(msgspec.Struct, array_like=True, frozen=True):
    """The content of `HEAD`."""

    status: int
    headers: list[tuple[bytes, bytes]]


_KINDS: Final = {kind.value: kind for kind in Kind}
_encode: Final = msgspec.msgpack.Encoder().encode
_decode_open: Final = msgspec.msgpack.Decoder(OpenHead).decode
_decode_answer: Final = msgspec.msgpack.Decoder(AnswerHead).decode
_decode_hello: Final = msgspec.msgpack.Decoder(Hello).decode


def split(message: bytes, limits: LinkLimits) -> Iterator[tuple[Kind, int, memoryview]]:
    """Yield the frames of a message as kind, stream and content.

    :raises LinkError: the message does not consist of frames; those before the fault were yielded.
    """
    view = memoryview(message)
    at, end = 0, len(view)
    while at < end:
        if end - at < HEAD_BYTES:
            raise LinkError("a frame is cut off in its head")
        number, stream, length = _HEAD.unpack_from(view, at)
        kind = _KINDS.get(number)
        if kind is None:
            raise LinkError(f"frame of unknown kind {number}")
        at += HEAD_BYTES
        if length > limits.most_bytes(kind is Kind.DATA):
            raise LinkError(f"a frame {kind.name} of {length} bytes is larger than allowed")
        if end - at < length:
            raise LinkError(f"a frame {kind.name} is cut off")
        yield kind, stream, view[at : at + length]
        at += length


def head(kind: Kind, stream: int, length: int = 0) -> bytes:
    """Return the bytes before the content of a frame."""
    return _HEAD.pack(kind, stream, length)


def frame(kind: Kind, stream: int = 0, content: bytes = b"") -> bytes:
    """Return a whole frame."""
    return _HEAD.pack(kind, stream, len(content)) + content


def hello_frame(hello: Hello) -> bytes:
    """Return the frame that opens a link."""
    return frame(Kind.HELLO, 0, _encode(hello))


def read_hello(content: memoryview) -> Hello:
    """Return what the other end says of itself; raise `LinkError` if it is malformed."""
    try:
        return _decode_hello(content)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise LinkError(f"malformed HELLO: {exc}") from None


def open_frame(stream: int, method: str, target: str, headers: Headers) -> bytes:
    """Return the frame that begins a request.

    :raises ValueError: it is none that could be sent.
    """
    if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(target):
        raise ValueError(f"a link cannot carry a request {method[:40]!r} for {target[:200]!r}")
    _check_headers(headers, ValueError)
    return frame(Kind.OPEN, stream, _encode(OpenHead(method, target, headers)))


def read_open(content: memoryview) -> OpenHead:
    """Return the head of a request; raise `LinkError` if it is malformed."""
    try:
        opened = _decode_open(content)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise LinkError(f"malformed OPEN: {exc}") from None
    if not _METHOD.fullmatch(opened.method) or not _TARGET.fullmatch(opened.target):
        raise LinkError("malformed OPEN: no method and path")
    _check_headers(opened.headers, LinkError)
    return opened


def answer_frame(stream: int, status: int, headers: Headers) -> bytes:
    """Return the frame that begins an answer.

    :raises ValueError: it is none that could be sent.
    """
    if not 200 <= status <= 599:
        raise ValueError(f"{status} is not the status of an answer")
    _check_headers(headers, ValueError)
    return frame(Kind.HEAD, stream, _encode(AnswerHead(status, headers)))


def read_answer(content: memoryview) -> AnswerHead:
    """Return the head of an answer; raise `LinkError` if it is malformed."""
    try:
        answer = _decode_answer(content)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise LinkError(f"malformed HEAD: {exc}") from None
    if not 200 <= answer.status <= 599:
        raise LinkError("malformed HEAD: no status of an answer")
    _check_headers(answer.headers, LinkError)
    return answer


def reset_frame(stream: int, code: ResetCode, reason: str) -> bytes:
    """Return the frame that gives a stream up; a long reason is cut."""
    return frame(Kind.RESET, stream, bytes((code,)) + reason.encode(errors="replace")[:MAX_REASON])


def read_reset(content: memoryview) -> tuple[ResetCode, str]:
    """Return why a stream was given up; raise `LinkError` if it is malformed."""
    if not 1 <= len(content) <= MAX_REASON + 1:
        raise LinkError("malformed RESET")
    try:
        code = ResetCode(content[0])
    except ValueError:
        raise LinkError(f"malformed RESET: unknown code {content[0]}") from None
    return code, without_controls(bytes(content[1:]).decode(errors="replace"))


def credit_frame(stream: int, nbytes: int) -> bytes:
    """Return the frame that lets the other end send so many more bytes."""
    return frame(Kind.CREDIT, stream, _CREDIT.pack(nbytes))


def read_credit(content: memoryview) -> int:
    """Return how many more bytes may be sent; raise `LinkError` if it is malformed."""
    if len(content) != _CREDIT.size:
        raise LinkError("malformed CREDIT")
    nbytes: int = _CREDIT.unpack(content)[0]
    return nbytes


def _check_headers(headers: Headers, error: type[Exception]) -> None:
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _LINE.fullmatch(value):
            raise error(f"malformed header {name[:40]!r}")
