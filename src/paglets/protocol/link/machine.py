"""One end of a link, without input and output: requests and messages in, messages and events out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from paglets.protocol.link import frames
from paglets.protocol.link.frames import Kind
from paglets.protocol.link.model import (
    VERSION,
    Credited,
    Ended,
    Greeted,
    Headed,
    Headers,
    Hello,
    LinkError,
    LinkEvent,
    LinkFullError,
    LinkLimits,
    LinkStatistics,
    Opened,
    Received,
    ResetCode,
    WasReset,
)

_MAX_CREDIT: Final = 2**31


@dataclass(slots=True)
class _Stream:
    """What one end knows of a stream."""

    asked: bool
    """Whether this end opened it."""
    credit: int
    """Bytes that may be sent."""
    window: int
    """Bytes that the other end may have sent beyond what is consumed."""
    allowed: int
    """Bytes that it may still send."""
    unread: int = 0
    consumed: int = 0
    """Bytes that were consumed and not given back as credit yet."""
    headed: bool = False
    """Whether the answer has begun."""
    said: bool = False
    """Whether the own body is complete."""
    heard: bool = False
    """Whether the other one's body is complete."""


class Link:
    """Multiplex requests and their answers over one connection that carries messages in order.

    What to send is fetched with `take` whenever something was done or received; it says at once who this end is.
    Neither end can make the other hold more than `LinkLimits` says: a stream's bytes are bounded by its window, and
    whoever does not take what is sent to it loses the link.

    :param first: whether this end opened the connection; its streams have the odd numbers.
    :param now: monotonic seconds.
    """

    def __init__(self, hello: Hello, *, first: bool, now: float, limits: LinkLimits | None = None) -> None:
        self.limits = limits or LinkLimits()
        self.other: Hello | None = None
        """What the other end said of itself."""
        self._next = 1 if first else 2
        self._newest_heard = 0
        self._streams: dict[int, _Stream] = {}
        self._asked = self._serving = 0
        self._out: list[bytes | memoryview] = [frames.hello_frame(hello)]
        self._pending = len(self._out[0])
        self._out_marks: list[int] = [1]
        self._pong: bytes | None = None
        self._grown = 0
        self.heard_at = now
        """When the other end was heard last."""
        self._pinged = False
        self._ticked_at = now
        self._readers: dict[Kind, Callable[[int, memoryview, list[LinkEvent]], None]] = {
            Kind.OPEN: self._opened,
            Kind.HEAD: self._headed,
            Kind.DATA: self._received,
            Kind.END: self._ended,
            Kind.RESET: self._was_reset,
            Kind.CREDIT: self._credited,
        }

    def statistics(self) -> LinkStatistics:
        """Return how many streams are open, and what they hold."""
        unread = sum(stream.unread for stream in self._streams.values())
        return LinkStatistics(self._asked, self._serving, unread, self._pending, self._grown)

    def is_open(self, number: int) -> bool:
        """Tell whether a stream is neither complete nor given up."""
        return number in self._streams

    # --- saying -------------------------------------------------------------------------------------------------------

    def ask(self, method: str, target: str, headers: Headers) -> int:
        """Begin a request and return its stream; its body follows.

        :raises LinkFullError: too many are under way.
        :raises ValueError: the request cannot be carried.
        """
        if self._asked >= self.limits.streams:
            raise LinkFullError(f"{self._asked} requests are under way")
        number = self._next
        opening = frames.open_frame(number, method, target, headers)
        self._check_head(opening)
        self._next += 2
        self._asked += 1
        self._streams[number] = self._new_stream(asked=True)
        self._put(opening)
        return number

    def answer(self, number: int, status: int, headers: Headers) -> None:
        """Begin the answer to a request of the other end; a stream that is gone takes none.

        :raises ValueError: the answer cannot be carried, or has begun.
        """
        stream = self._streams.get(number)
        if stream is None:
            return
        if stream.asked or stream.headed:
            raise ValueError("a request of the other end is answered once")
        beginning = frames.answer_frame(number, status, headers)
        self._check_head(beginning)
        stream.headed = True
        self._put(beginning)

    def room(self, number: int) -> int:
        """Return how many bytes may be sent on a stream now, at most one piece; 0 where it is gone."""
        stream = self._streams.get(number)
        if stream is None or stream.said or self._pending > self.limits.message_bytes:
            return 0
        return min(stream.credit, self.limits.data_bytes)

    def send(self, number: int, data: bytes | memoryview) -> None:
        """Send a piece of the body of this end; it must not change before it is taken.

        :raises ValueError: there is no room for it.
        """
        if len(data) > self.room(number):
            raise ValueError("there is no room for so many bytes")
        if data:
            self._streams[number].credit -= len(data)
            self._put(frames.head(Kind.DATA, number, len(data)), data)

    def end(self, number: int) -> None:
        """Say that the body of this end is complete; an answer must have begun. A stream that is gone ends by itself.

        :raises ValueError: an answer without a head cannot end.
        """
        stream = self._streams.get(number)
        if stream is None or stream.said:
            return
        if not stream.asked and not stream.headed:
            raise ValueError("an answer needs a head")
        stream.said = True
        self._put(frames.frame(Kind.END, number))
        if stream.heard:
            self._drop(number)

    def consumed(self, number: int, nbytes: int) -> None:
        """Know that received bytes are out of memory; the other end may send more. A stream that is gone has none."""
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.unread -= nbytes
        stream.consumed += nbytes
        if stream.heard or stream.consumed * 2 < stream.window:
            return
        given = stream.consumed
        if not stream.unread:
            # The reader waits for the network: let more be on its way.
            grown = min(stream.window, self.limits.largest_window - stream.window)
            grown = max(0, min(grown, self.limits.window_budget - self._grown))
            self._grown += grown
            stream.window += grown
            given += grown
        stream.consumed = 0
        stream.allowed += given
        self._put(frames.credit_frame(number, given))

    def reset(self, number: int, code: ResetCode, reason: str) -> None:
        """Give a stream up and tell the other end; one that is gone stays so."""
        if number in self._streams:
            self._drop(number)
            self._put(frames.reset_frame(number, code, reason))

    def tick(self, now: float) -> None:
        """See that the other end lives; to be called every few seconds.

        :raises LinkError: nothing was heard of it for too long.
        """
        limits = self.limits
        if now - self._ticked_at > max(limits.ping_after, limits.dead_after / 2):
            # This end slept itself. What the other one said meanwhile may not have been read yet.
            self.heard_at, self._pinged = now, False
        self._ticked_at = now
        silent = now - self.heard_at
        if silent >= limits.dead_after:
            raise LinkError(f"nothing was heard of the other end for {silent:.0f} s")
        if silent >= limits.ping_after and not self._pinged:
            self._pinged = True
            self._put(frames.frame(Kind.PING))

    def take(self) -> list[bytes | memoryview]:
        """Return the pieces of the next message to send, none when there is nothing to say.

        A message has whole frames only, and `LinkLimits.message_bytes` or one frame more.
        """
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self._put(pong)
        if self._pending <= self.limits.message_bytes:
            taken, self._out, self._out_marks, self._pending = self._out, [], [], 0
            return taken
        size = start = 0
        for at, mark in enumerate(self._out_marks):
            size += sum(len(piece) for piece in self._out[start:mark])
            start = mark
            if size >= self.limits.message_bytes:
                taken, self._out = self._out[:mark], self._out[mark:]
                self._out_marks = [later - mark for later in self._out_marks[at + 1 :]]
                self._pending -= size
                return taken
        raise AssertionError("more was pending than is there")

    # --- hearing ------------------------------------------------------------------------------------------------------

    def receive(self, message: bytes, now: float) -> list[LinkEvent]:
        """Take a message of the other end and return what it means, in order.

        :raises LinkError: it speaks nonsense, or takes nothing of what is sent to it; nothing more may be received.
        """
        self.heard_at, self._pinged = now, False
        events: list[LinkEvent] = []
        for kind, number, content in frames.split(message, self.limits):
            reader = self._readers.get(kind)
            if self.other is None:
                self._greeted(kind, content, events)
            elif reader is not None:
                reader(number, content, events)
            elif kind is Kind.PING:
                # One at most, however often it is asked.
                self._pong = frames.frame(Kind.PONG)
            elif kind is Kind.HELLO:
                raise LinkError("a second HELLO")
        if self._pending > self.limits.pending_bytes:
            raise LinkError("the other end does not take what is sent to it")
        return events

    def _greeted(self, kind: Kind, content: memoryview, events: list[LinkEvent]) -> None:
        if kind is not Kind.HELLO:
            raise LinkError(f"{kind.name} before HELLO")
        hello = frames.read_hello(content)
        if hello.version != VERSION:
            raise LinkError(f"the other end speaks version {hello.version} of links, this one {VERSION}")
        self.other = hello
        events.append(Greeted(hello))

    def _opened(self, number: int, content: memoryview, events: list[LinkEvent]) -> None:
        if number % 2 == self._next % 2 or number <= self._newest_heard:
            raise LinkError(f"stream {number} cannot be opened")
        self._newest_heard = number
        opened = frames.read_open(content)
        if self._serving >= self.limits.streams:
            self._put(frames.reset_frame(number, ResetCode.REFUSED, "too many requests are under way"))
            return
        self._serving += 1
        self._streams[number] = self._new_stream(asked=False)
        events.append(Opened(number, opened.method, opened.target, opened.headers))

    def _headed(self, number: int, content: memoryview, events: list[LinkEvent]) -> None:
        answer = frames.read_answer(content)
        stream = self._find(number)
        if stream is None:
            return
        if not stream.asked or stream.headed:
            raise LinkError(f"stream {number} takes no answer")
        stream.headed = True
        events.append(Headed(number, answer.status, answer.headers))

    def _received(self, number: int, content: memoryview, events: list[LinkEvent]) -> None:
        stream = self._find(number)
        if stream is None:
            return
        if stream.heard or (stream.asked and not stream.headed):
            raise LinkError(f"DATA on stream {number} out of turn")
        if len(content) > stream.allowed:
            raise LinkError(f"more DATA on stream {number} than there was credit for")
        stream.allowed -= len(content)
        stream.unread += len(content)
        events.append(Received(number, bytes(content)))

    def _ended(self, number: int, content: memoryview, events: list[LinkEvent]) -> None:
        if content:
            raise LinkError("malformed END")
        stream = self._find(number)
        if stream is None:
            return
        if stream.heard or (stream.asked and not stream.headed):
            raise LinkError(f"END on stream {number} out of turn")
        stream.heard = True
        events.append(Ended(number))
        if stream.said:
            self._drop(number)

    def _was_reset(self, number: int, content: memoryview, events: list[LinkEvent]) -> None:
        code, reason = frames.read_reset(content)
        if self._find(number) is not None:
            self._drop(number)
            events.append(WasReset(number, code, reason))

    def _credited(self, number: int, content: memoryview, events: list[LinkEvent]) -> None:
        more = frames.read_credit(content)
        stream = self._find(number)
        if stream is None:
            return
        stream.credit += more
        if stream.credit > _MAX_CREDIT:
            raise LinkError(f"absurd credit on stream {number}")
        events.append(Credited(number))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _find(self, number: int) -> _Stream | None:
        """Return a stream, None for one that this end has let go already."""
        stream = self._streams.get(number)
        if stream is None:
            mine = number % 2 == self._next % 2
            if number == 0 or (number >= self._next if mine else number > self._newest_heard):
                raise LinkError(f"stream {number} was never opened")
        return stream

    def _new_stream(self, *, asked: bool) -> _Stream:
        window = self.limits.first_window
        return _Stream(asked, credit=window, window=window, allowed=window)

    def _drop(self, number: int) -> None:
        stream = self._streams.pop(number)
        self._grown -= stream.window - self.limits.first_window
        if stream.asked:
            self._asked -= 1
        else:
            self._serving -= 1

    def _check_head(self, frame: bytes) -> None:
        if len(frame) - frames.HEAD_BYTES > self.limits.head_bytes:
            raise ValueError(f"a head of more than {self.limits.head_bytes} bytes")

    def _put(self, *pieces: bytes | memoryview) -> None:
        self._out.extend(pieces)
        self._out_marks.append(len(self._out))
        self._pending += sum(len(piece) for piece in pieces)
