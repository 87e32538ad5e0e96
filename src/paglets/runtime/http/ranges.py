"""Parts of content that a request asks for, as RFC 9110 describes ranges of bytes."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*", re.IGNORECASE)


class Part(NamedTuple):
    """The bytes from `start` up to `end`, which is not one of them."""

    start: int
    end: int


class UnsatisfiableError(Exception):
    """The range begins behind the end of the content."""


def requested_part(header: str | None, size: int) -> Part | None:
    """Return the part that a Range header asks for, None for the whole.

    The whole is also the answer to several ranges, to other units, and to what is no range at all: a server may ignore
    the header.

    :param size: bytes of the whole.
    :raises UnsatisfiableError: there is nothing of the part.
    """
    match = None if header is None else _RANGE.fullmatch(header)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        count = min(int(suffix), size)
        if not count:
            raise UnsatisfiableError
        return Part(size - count, size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise UnsatisfiableError
    return Part(start, min(int(last) + 1, size) if last else size)
