"""A link at work: `paglets.protocol.link` with a wire, a clock, and streams that can be awaited."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from paglets.protocol.link import (
    Credited,
    Ended,
    Greeted,
    Headed,
    Headers,
    Hello,
    Link,
    LinkError,
    LinkEvent,
    LinkLimits,
    LinkStatistics,
    Opened,
    Received,
    ResetCode,
    WasReset,
)

if TYPE_CHECKING:
    from paglets.runtime.relay.wire import Wire

_LONGEST_TICK: Final = 5.0


class StreamLostError(Exception):
    """A stream ended before it was complete.

    :param code: what that means for the request.
    """

    def __init__(self, code: ResetCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class LinkStream:
    """One request with its answer, at either end.

    :param opened: the head of the request, at the end that answers it.
    """

    def __init__(self, session: LinkSession, number: int, opened: Opened | None = None) -> None:
        self.number = number
        self.opened = opened
        self.head: tuple[int, Headers] | None = None
        """Status and headers of the answer, at the end that asked."""
        self._session = session
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._lost: StreamLostError | None = None
        self._readers: list[asyncio.Future[None]] = []
        self._writers: list[asyncio.Future[None]] = []

    @property
    def at_end(self) -> bool:
        """Whether everything the other end says was read."""
        return self._ended and not self._pieces

    @property
    def ended(self) -> bool:
        """Whether everything the other end says is here."""
        return self._ended

    # --- saying -------------------------------------------------------------------------------------------------------

    def answer(self, status: int, headers: Headers) -> None:
        """Begin the answer; it leaves with its first piece, its end, or `flush`.

        :raises ValueError: it cannot be carried.
        """
        self._session.link.answer(self.number, status, headers)

    async def write(self, data: bytes, *, end: bool = False) -> None:
        """Send some of the body of this end, as fast as the other one reads.

        :param end: nothing follows.
        :raises StreamLostError: the stream was given up.
        """
        session, at = self._session, 0
        while at < len(data):
            if self._lost is not None:
                raise self._lost
            room = session.room(self.number)
            if not room:
                session.flush()
                if not session.room(self.number):
                    await _news(self._writers)
                continue
            session.link.send(self.number, memoryview(data)[at : at + room])
            at += room
            if at < len(data) or not end:
                session.flush()
        if end:
            session.link.end(self.number)
            session.forget_if_over(self)
            session.flush()

    def flush(self) -> None:
        """Send what was said."""
        self._session.flush()

    def reset(self, code: ResetCode, reason: str) -> None:
        """Give the stream up; a complete one stays so."""
        if self._session.link.is_open(self.number):
            self._session.link.reset(self.number, code, reason)
            self._session.forget(self)
            self.lose(StreamLostError(code, reason))
            self._session.flush()

    # --- hearing ------------------------------------------------------------------------------------------------------

    async def answered(self) -> tuple[int, Headers]:
        """Wait for the answer to begin and return its status and headers.

        :raises StreamLostError: the stream was given up.
        """
        while self.head is None:
            if self._lost is not None:
                raise self._lost
            await _news(self._readers)
        return self.head

    async def read(self) -> bytes:
        """Return a piece of the other end's body, nothing at its end.

        :raises StreamLostError: the stream was given up.
        """
        while not self._pieces:
            if self._ended:
                return b""
            if self._lost is not None:
                raise self._lost
            await _news(self._readers)
        piece = self._pieces.popleft()
        self._session.link.consumed(self.number, len(piece))
        self._session.flush()
        return piece

    async def gone(self) -> None:
        """Return when the stream is given up."""
        while self._lost is None:
            await _news(self._readers)

    # --- for the session ----------------------------------------------------------------------------------------------

    def heard(self, event: Headed | Received | Ended) -> None:
        """Take what the other end said."""
        match event:
            case Headed():
                self.head = (event.status, event.headers)
            case Received():
                self._pieces.append(event.data)
            case Ended():
                self._ended = True
        _wake(self._readers)

    def lose(self, error: StreamLostError) -> None:
        """Know that nothing more comes, unless everything has."""
        if self._lost is None:
            self._lost = error
        _wake(self._readers)
        _wake(self._writers)

    def may_write(self) -> None:
        """Let whoever waits for room look again."""
        _wake(self._writers)


class LinkSession:
    """One end of a link; lives on the loop.

    :param serve: called with every stream that the other end opens.
    :param greeted: called when the other end has said who it is; what it raises as `LinkError` ends the link.
    """

    def __init__(
        self,
        hello: Hello,
        *,
        first: bool,
        limits: LinkLimits,
        serve: Callable[[LinkStream], None],
        greeted: Callable[[Hello], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.link = Link(hello, first=first, now=self._loop.time(), limits=limits)
        self.wire: Wire | None = None
        self._serve = serve
        self._greeted = greeted
        self._streams: dict[int, LinkStream] = {}
        self._tick_seconds = min(_LONGEST_TICK, limits.ping_after / 2, limits.dead_after / 4)
        self._clock: asyncio.TimerHandle | None = None
        self._open = False
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Has the reason when the link is over."""

    @property
    def alive(self) -> bool:
        """Whether the other end is known and can be asked."""
        return self._open and self.link.other is not None and not self.ended.done()

    def statistics(self) -> LinkStatistics:
        """Return how busy the link is."""
        return self.link.statistics()

    def ask(self, method: str, target: str, headers: Headers) -> LinkStream:
        """Begin a request; it leaves with the first piece of its body, its end, or a flush.

        :raises LinkFullError: too many are under way; nothing was sent.
        :raises ValueError: it cannot be carried.
        """
        number = self.link.ask(method, target, headers)
        stream = self._streams[number] = LinkStream(self, number)
        return stream

    def room(self, number: int) -> int:
        """Return how many bytes may be sent on a stream now."""
        return 0 if self.wire is None or self.wire.paused else self.link.room(number)

    def flush(self) -> None:
        """Send what was said, as far as the connection takes it."""
        wire = self.wire
        while self._open and wire is not None and not wire.paused and (pieces := self.link.take()):
            wire.send(pieces)

    def forget(self, stream: LinkStream) -> None:
        """Let go of a stream that nobody waits for."""
        self._streams.pop(stream.number, None)

    def forget_if_over(self, stream: LinkStream) -> None:
        """Let go of a stream on which nothing more is said."""
        if not self.link.is_open(stream.number):
            self.forget(stream)

    def close(self, reason: str) -> None:
        """End the link and say why; streams under way are lost."""
        if self.wire is not None:
            self.flush()
            self.wire.close(reason)
        self._over(reason)

    def _tick(self) -> None:
        self._clock = None
        try:
            self.link.tick(self._loop.time())
        except LinkError as exc:
            self._fail(str(exc))
            return
        self.flush()
        self._clock = self._loop.call_later(self._tick_seconds, self._tick)

    def _fail(self, reason: str) -> None:
        if self.wire is not None:
            self.wire.abort(reason)
        self._over(reason)

    def _over(self, reason: str) -> None:
        if self.ended.done():
            return
        self.ended.set_result(reason)
        self._open = False
        if self._clock is not None:
            self._clock.cancel()
        for stream in self._streams.values():
            stream.lose(StreamLostError(ResetCode.FAILED, reason))
        self._streams.clear()

    # --- of the wire --------------------------------------------------------------------------------------------------

    def wire_opened(self) -> None:
        """Say who this end is."""
        if not self.ended.done():
            self._open = True
            self._tick()

    def wire_writable(self) -> None:
        """Send what waits."""
        self.flush()
        for stream in list(self._streams.values()):
            stream.may_write()

    def wire_closed(self, reason: str) -> None:
        """End the link."""
        self._over(reason)

    def wire_received(self, message: bytes) -> None:
        """Take a message of the other end."""
        if self.ended.done():
            return
        try:
            for event in self.link.receive(message, self._loop.time()):
                self._see(event)
        except LinkError as exc:
            self._fail(str(exc))
            return
        self.flush()

    def _see(self, event: LinkEvent) -> None:
        if isinstance(event, Greeted):
            self._greeted(event.hello)
            return
        if isinstance(event, Opened):
            stream = self._streams[event.stream] = LinkStream(self, event.stream, event)
            self._serve(stream)
            return
        found = self._streams.get(event.stream)
        if found is None:
            return
        match event:
            case Credited():
                found.may_write()
            case WasReset():
                self._streams.pop(event.stream)
                found.lose(StreamLostError(event.code, event.reason))
            case Ended():
                found.heard(event)
                self.forget_if_over(found)
            case _:
                found.heard(event)


async def _news(waiters: list[asyncio.Future[None]]) -> None:
    """Wait until something happened."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiters.append(waiter)
    try:
        await waiter
    finally:
        if waiter in waiters:
            waiters.remove(waiter)


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
