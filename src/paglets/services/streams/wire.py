"""What the two ends of a stream say to each other.

A stream is opened by a message of its operation's kind, whose ``arg`` says so, with the id of the stream, beside the
request in ``args``. The answer may carry the first items already. A pull names the number of the item it wants next, so
that one that is repeated gets the same answer. It goes by the kind of the operation, through the mailbox, where the
answer to the opening says ``turns``, and else by `PULL`, beside the mailbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from paglets.core.errors import ServiceContractError
from paglets.core.messages import STREAM_PULL

PULL: Final = STREAM_PULL
"""Kind of the messages that ask for items of a stream that goes on beside the mailbox, or end it."""
MOST_WAIT_SECONDS: Final = 5.0
"""How long the provider lets a pull wait for the first item before it answers that there is none yet."""
BATCH_BYTES: Final = 256 * 1024
"""Bytes of items after which an answer is full; one item may be larger."""

OPEN: Final = "open"
NEXT: Final = "next"
CLOSE: Final = "close"


@dataclass(frozen=True, slots=True)
class Step:
    """What is asked of the provider."""

    do: str
    stream_id: str
    credit: int = 0
    """How many items the caller takes."""
    first: int = 0
    """The number of the item that the caller wants next, from 0."""
    wait: float = 0.0
    """Seconds that the provider may wait for it."""

    def to_wire(self) -> dict[str, Any]:
        """Return the step as the ``arg`` of a message."""
        return {
            "stream": self.stream_id,
            "do": self.do,
            "credit": self.credit,
            "first": self.first,
            "wait": self.wait,
        }

    @classmethod
    def from_wire(cls, arg: Any, name: str, *, window: int) -> Step:
        """Read the ``arg`` of a message.

        :param window: the most items that a caller may take at a time.
        :raises ServiceContractError: it is none.
        """
        if isinstance(arg, Mapping):
            do, stream_id = arg.get("do"), arg.get("stream")
            credit, first, wait = arg.get("credit"), arg.get("first"), arg.get("wait")
            if (
                do in (OPEN, NEXT, CLOSE)
                and isinstance(stream_id, str)
                and 0 < len(stream_id) <= 64
                and type(credit) is int
                and type(first) is int
                and isinstance(wait, (int, float))
            ):
                bounded = min(max(1, credit), window)
                return cls(do, stream_id, bounded, first, min(max(0.0, float(wait)), MOST_WAIT_SECONDS))
        raise ServiceContractError(f"Stream {name!r} is not called like an operation: use the stream() of a handle")


@dataclass(frozen=True, slots=True)
class Batch:
    """What the provider answers: items, and whether there are more."""

    items: tuple[Any, ...] = ()
    first: int = 0
    """The number of the first of the items."""
    ended: bool = False
    error: dict[str, str] | None = None
    """What the stream ended in, after these items."""
    turns: bool = False
    """Whether the stream goes on in turns of the mailbox, and is pulled through it."""

    def to_wire(self) -> dict[str, Any]:
        """Return the batch as plain values."""
        wire: dict[str, Any] = {"items": list(self.items), "first": self.first, "ended": self.ended}
        if self.error is not None:
            wire["error"] = self.error
        if self.turns:
            wire["turns"] = True
        return wire

    @classmethod
    def from_wire(cls, reply: Any, name: str) -> Batch:
        """Read an answer.

        :raises ServiceContractError: it is none.
        """
        if isinstance(reply, Mapping):
            items, first, ended = reply.get("items"), reply.get("first"), reply.get("ended")
            error = reply.get("error")
            if (
                isinstance(items, list)
                and type(first) is int
                and isinstance(ended, bool)
                and (error is None or isinstance(error, dict))
            ):
                return cls(tuple(items), first, ended, error, reply.get("turns") is True)
        raise ServiceContractError(f"The service did not answer stream {name!r} like a stream")
