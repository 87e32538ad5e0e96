"""What a request can ask of its connection beyond ASGI: an answer in one piece, and bodies past parser and loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from paglets.runtime.http.passage import AVAILABLE, Passage

#: The extension of a request's scope that sends a whole answer at once: ``await answer(status, headers, body)``. In one
#: write, head and body take one system call and wake the client once.
ANSWER = "paglets.answer"
#: A function that has further pieces of the request's body handed over as they are parsed. Twice as fast for large
#: bodies as gathering them, because nothing is copied, paused and woken for each piece.
DIRECT_BODY = "paglets.direct_body"
#: A function that returns a passage for the rest of the body, with what came before it, or None where there is none.
#: Who has received all of it calls `BODY_TAKEN`; otherwise the connection must end with the answer.
INLET = "paglets.inlet"
BODY_TAKEN = "paglets.body_taken"
#: A function of status and headers that returns a passage for the answer, with its head, or None where there is none.
#: Who has sent the head and the whole body calls `ANSWER_SENT` with True, otherwise with False.
OUTLET = "paglets.outlet"
ANSWER_SENT = "paglets.answer_sent"


#: For how long, and how many bytes, a client is heard out that was answered before the end of its body.
LINGER_SECONDS = 1.0
LINGER_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How slow a client may be with a body."""

    body_pause_seconds: float = 30.0
    """Longest pause while a body is being sent."""
    body_seconds: float = 120.0
    """For a whole body, plus what :attr:`min_body_bytes_per_second` grants it for its size."""
    min_body_bytes_per_second: int = 16 * 1024


class ExtendedHttpProtocol(HttpToolsProtocol):
    """Speak HTTP/1.1 as uvicorn does, and more where a request asks for it."""

    def __init__(self, config: uvicorn.Config, state: ServerState, limits: StreamLimits) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self._stream_limits = limits
        self._direct: tuple[RequestResponseCycle, Callable[[bytes], bool]] | None = None
        self._passage: Passage | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._lingered = 0

    def extensions_of(self, cycle: RequestResponseCycle) -> Any:
        """Return what belongs into the scope of a request."""
        return {
            ANSWER: partial(self._answer, cycle),
            DIRECT_BODY: partial(self._give_directly, cycle),
            INLET: partial(self._open_inlet, cycle),
            BODY_TAKEN: partial(self._body_taken, cycle),
            OUTLET: partial(self._open_outlet, cycle),
            ANSWER_SENT: partial(self._answer_sent, cycle),
        }

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever uses the socket."""
        if self._passage is not None:
            self._passage.cut()
        if self._lingering is not None:
            self._lingering.cancel()
        super().connection_lost(exc)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        if self._lingering is not None:
            self._lingered += len(body)
            if self._lingered > LINGER_BYTES:
                self.transport.close()
            return
        direct = self._direct
        if direct is None or direct[0] is not self.cycle or self.cycle.response_complete:
            super().on_body(body)
        elif not direct[1](body):
            self._direct = None
            self.cycle.message_event.set()  # whoever refused it waits for the next message

    def body_begins_elsewhere(self) -> None:
        """Know that the parser sees no more of a body."""

    def body_ended_elsewhere(self) -> None:
        """Know that a body is complete which the parser did not see to its end."""

    async def _answer(
        self, cycle: RequestResponseCycle, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if self.transport.is_closing():
            cycle.disconnected = True  # before the loop gets to say so
        if cycle.disconnected or cycle.response_started:
            return
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        head = _head(cycle, status, headers, len(body))
        self.transport.write(head if cycle.scope["method"] == "HEAD" else head + body)
        self._end_answer(cycle)

    def _end_answer(self, cycle: RequestResponseCycle) -> None:
        cycle.message_event.set()
        if cycle.keep_alive or self.transport.is_closing():
            cycle.on_response()
        elif cycle.more_body and self.transport.can_write_eof():
            cycle.on_response()
            self._linger()
        else:
            self.transport.close()
            cycle.on_response()

    def _linger(self) -> None:
        """Let a client find the answer that is still sending: closing now would make the system throw it away."""
        try:
            self.transport.write_eof()
        except OSError:
            self.transport.close()  # it has gone already
        else:
            self._lingering = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _give_directly(self, cycle: RequestResponseCycle, take: Callable[[bytes], bool]) -> bytes:
        """Hand every further piece of a body to ``take`` as it is parsed, instead of gathering it for the application.

        :param take: returns False when it wants no more.
        :return: what was gathered until now.
        """
        gathered = bytes(cycle.body)
        cycle.body = bytearray()
        self._direct = (cycle, take)
        self.flow.resume_reading()
        return gathered

    def _open_passage(self, cycle: RequestResponseCycle) -> Passage | None:
        sock = self.transport.get_extra_info("socket")
        if not AVAILABLE or self.scheme != "http" or sock is None or cycle.disconnected or self.transport.is_closing():
            return None
        limits = self._stream_limits
        self._passage = Passage(
            sock.dup(),
            pause_seconds=limits.body_pause_seconds,
            whole_seconds=limits.body_seconds,
            bytes_per_second=limits.min_body_bytes_per_second,
        )
        return self._passage

    def _open_inlet(self, cycle: RequestResponseCycle) -> tuple[Passage, bytes] | None:
        if not cycle.more_body or cycle is not self.cycle or self._direct is not None:
            return None
        passage = self._open_passage(cycle)
        if passage is None:
            return None
        # From here the loop takes nothing from the socket: what was gathered is all before the passage.
        self.flow.pause_reading()
        self.body_begins_elsewhere()
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        gathered = bytes(cycle.body)
        cycle.body = bytearray()
        return passage, gathered

    def _body_taken(self, cycle: RequestResponseCycle) -> None:
        self._passage = None
        self.body_ended_elsewhere()
        # The parser still waits for the body; a new one waits for the next request.
        self.parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(AttributeError):  # as in the base class
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        cycle.more_body = False
        self.flow.resume_reading()

    def _open_outlet(
        self, cycle: RequestResponseCycle, status: int, headers: list[tuple[bytes, bytes]]
    ) -> tuple[Passage, bytes] | None:
        # Behind what is not written yet of an earlier answer, this one has to wait in line.
        if cycle.response_started or self.transport.get_write_buffer_size():
            return None
        passage = self._open_passage(cycle)
        if passage is None:
            return None
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        return passage, _head(cycle, status, headers)

    def _answer_sent(self, cycle: RequestResponseCycle, whole: bool) -> None:
        self._passage = None
        cycle.response_complete = True
        if not whole:
            cycle.keep_alive = False
            self.transport.abort()
        self._end_answer(cycle)


def _head(
    cycle: RequestResponseCycle, status: int, headers: list[tuple[bytes, bytes]], length: int | None = None
) -> bytes:
    """Return the head of an answer, and know whether the connection ends with it.

    :param length: of the body, where no header has it.
    """
    lines = [STATUS_LINE[status], *(b"%s: %s\r\n" % field for field in headers)]
    if any(line.find(b"\n", 0, -1) >= 0 for line in lines):
        raise ValueError("a header of the answer has more than one line")
    if length is not None and status not in (204, 304) and not any(name == b"content-length" for name, _ in headers):
        lines.append(b"content-length: %d\r\n" % length)
    if (b"connection", b"close") in headers:
        cycle.keep_alive = False
    elif not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
