"""What a link consists of: its limits, its events, and the error that ends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

import msgspec

VERSION: Final = 1
"""Of the frames; both ends must speak the same."""

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""Header fields in order, names in lower case."""


class LinkError(Exception):
    """The other end does not speak as it should, or not at all: the link is over."""


class LinkFullError(Exception):
    """As many streams as allowed are open; nothing was sent."""


class ResetCode(IntEnum):
    """What a given up stream means for the request that it carried."""

    CANCELLED = 1
    """Whoever asked does not want the answer any more."""
    REFUSED = 2
    """The request was not looked at; it may be sent again."""
    FAILED = 3
    """The answer cannot be completed; the request may have been carried out."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What an end says of itself first."""

    version: int = VERSION
    name: str
    """Of the host."""
    instance: str = ""
    """Differs between two runs of a host."""
    health: dict[str, Any] = {}
    hosts: list[dict[str, Any]] = []
    """The hosts that it knows."""


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """What one end of a link grants the other. The first three must be the same at both ends."""

    data_bytes: int = 64 * 1024
    """Largest piece of a body."""
    head_bytes: int = 256 * 1024
    """Largest content of any other frame."""
    first_window: int = 64 * 1024
    """What may be sent on a new stream without more credit."""
    largest_window: int = 1024 * 1024
    """What a stream's window may grow to while its reader keeps up."""
    window_budget: int = 64 * 1024 * 1024
    """What all windows together may have grown by."""
    streams: int = 1024
    """Streams that each end may have open."""
    message_bytes: int = 256 * 1024
    """What is put into one message, a little more at most."""
    pending_bytes: int = 4 * 1024 * 1024
    """What may wait for an other end that takes nothing."""
    ping_after: float = 10.0
    """Seconds of silence after which the other end is asked whether it lives."""
    dead_after: float = 30.0
    """Seconds of silence after which it is taken for dead."""

    def most_bytes(self, data: bool) -> int:
        """Return the largest content of a frame."""
        return self.data_bytes if data else self.head_bytes


@dataclass(frozen=True, slots=True)
class Greeted:
    """The other end said who it is; the first event of a link."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Opened:
    """The other end asks something."""

    stream: int
    method: str
    target: str
    headers: Headers


@dataclass(frozen=True, slots=True)
class Headed:
    """The answer to what this end asked begins."""

    stream: int
    status: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class Received:
    """A piece of a body came. It counts against the window until it is `consumed`."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The body of the other end is complete."""

    stream: int


@dataclass(frozen=True, slots=True)
class WasReset:
    """The other end gave a stream up; it is gone."""

    stream: int
    code: ResetCode
    reason: str


@dataclass(frozen=True, slots=True)
class Credited:
    """More may be sent on a stream."""

    stream: int


LinkEvent: TypeAlias = Greeted | Opened | Headed | Received | Ended | WasReset | Credited


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """How busy a link is."""

    asked: int
    """Streams that this end opened."""
    serving: int
    """Streams that the other end opened."""
    unread: int
    """Bytes that came and are not consumed."""
    pending: int
    """Bytes that wait to be taken."""
    granted: int
    """What the windows have grown by."""
