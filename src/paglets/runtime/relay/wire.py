"""The connection below a link: WebSocket messages over a transport of the event loop, the same at both ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final, Protocol, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.frames import Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from paglets.core.errors import HostError

logger = logging.getLogger("paglets.relay.wire")
# What strangers send is no news.
logger.setLevel(logging.ERROR)

MESSAGE_BYTES: Final = 1024 * 1024
"""Largest message that is taken."""
#: How long the other end may take to agree to the end of a connection.
FAREWELL_SECONDS: Final = 1.0
_HIGH_WATER: Final = 256 * 1024
#: What may wait in the transport although it is full: answers to pings, which nobody holds back.
_MOST_UNSENT: Final = 4 * 1024 * 1024
_NORMAL: Final = 1000
_UNWANTED: Final = 1003


class WireUser(Protocol):
    """What a wire works for; called on the loop."""

    def wire_opened(self) -> None:
        """Messages can be sent from now on."""

    def wire_received(self, message: bytes) -> None:
        """Take a message."""

    def wire_writable(self) -> None:
        """More may be sent, after it was `paused`."""

    def wire_closed(self, reason: str) -> None:
        """It is over; called once."""


class RefusedError(HostError):
    """The other end answered the request for a connection with something else.

    :param status: of its answer.
    :param body: the start of its answer.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"it answered HTTP {status}")
        self.status = status
        self.body = body


class Wire(asyncio.Protocol):
    """One WebSocket connection.

    Made by `client` with the request, or by `server` with the answer to one that was let in.
    """

    def __init__(self, websocket: ClientProtocol | ServerProtocol, user: WireUser) -> None:
        self._websocket = websocket
        self._user = user
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._closed = False
        self._gone = asyncio.Event()
        self._reason = ""
        self.paused = False
        """Whether more than enough waits to be sent."""
        self.refusal: RefusedError | None = None
        """What the other end answered instead of opening it."""

    @classmethod
    def client(cls, url: str, headers: Iterable[tuple[str, str]], user: WireUser) -> Wire:
        """Return the calling end for a ``ws`` or ``wss`` URL.

        :raises HostError: it is no such URL.
        """
        try:
            websocket = ClientProtocol(parse_uri(url), max_size=MESSAGE_BYTES, logger=logger)
        except (InvalidURI, ValueError) as exc:
            raise HostError(f"{url} cannot be linked to: {exc}") from exc
        request = websocket.connect()
        for name, value in headers:
            request.headers[name] = value
        websocket.send_request(request)
        return cls(websocket, user)

    @classmethod
    def server(cls, head: bytes, user: WireUser) -> Wire:
        """Return the called end for a request that was let in.

        :param head: the head of the request, as HTTP/1.1 writes it.
        :raises HostError: it does not ask for a WebSocket.
        """
        websocket = ServerProtocol(max_size=MESSAGE_BYTES, logger=logger)
        websocket.receive_data(head)
        requests = [event for event in websocket.events_received() if isinstance(event, Request)]
        response = websocket.accept(requests[0]) if requests else None
        if response is None or response.status_code != 101:
            raise HostError("a link is opened by a WebSocket handshake, version 13")
        websocket.send_response(response)
        return cls(websocket, user)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, pieces: list[bytes | memoryview]) -> None:
        """Send one message; a closed wire takes it and drops it."""
        if self._websocket.state is State.OPEN:
            self._websocket.send_binary(b"".join(pieces))
            self._write()

    def close(self, reason: str) -> None:
        """End the connection after what was sent, and tell the other end why."""
        if self._transport is None or self._closed:
            return
        self._reason = self._reason or reason
        if self._websocket.state is State.OPEN:
            self._websocket.send_close(_NORMAL, reason.encode(errors="replace")[:120].decode(errors="ignore"))
            self._write()
        self._transport.close()

    def abort(self, reason: str) -> None:
        """End the connection now."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    async def ended(self) -> None:
        """Wait for the end of a connection that was closed; with TLS, the other end has a moment to agree to it."""
        if self._transport is None:
            return
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._gone.wait()
        except TimeoutError:
            self._transport.abort()
            await self._gone.wait()

    def _write(self) -> None:
        transport = self._transport
        data = b"".join(self._websocket.data_to_send())
        if transport is None or transport.is_closing():
            return
        if data:
            transport.write(data)
        if transport.get_write_buffer_size() > _MOST_UNSENT:
            self.abort("the other end takes nothing")

    # --- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._write()
        if self._websocket.state is State.OPEN:
            self._user.wire_opened()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._closed:
            return
        self._websocket.receive_data(data)
        self._see()

    def eof_received(self) -> None:
        """Let the connection end."""
        if not self._closed:
            self._websocket.receive_eof()
            self._see()

    def pause_writing(self) -> None:
        """Enough waits to be sent."""
        self.paused = True

    def resume_writing(self) -> None:
        """Little waits to be sent."""
        self.paused = False
        self._user.wire_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the user, once."""
        if self._closed:
            return
        self._closed = True
        self._gone.set()
        said = self._websocket.close_rcvd
        told = said.reason if said is not None and said.reason else ""
        self._user.wire_closed(told or self._reason or (str(exc) if exc else "") or "the connection was closed")

    def _see(self) -> None:
        websocket = self._websocket
        for event in websocket.events_received():
            if isinstance(event, Response):
                if websocket.state is State.OPEN:
                    self._user.wire_opened()
            elif not isinstance(event, Request):
                if event.opcode in (Opcode.BINARY, Opcode.CONT):
                    self._gather(bytes(event.data), event.fin)
                elif event.opcode is Opcode.TEXT:
                    websocket.fail(_UNWANTED, "a link is binary")
        self._write()
        failure = websocket.handshake_exc
        if failure is not None:
            if isinstance(failure, InvalidStatus):
                body = bytes(failure.response.body or b"")
                self.refusal = RefusedError(failure.response.status_code, body[:4096])
            self.abort(str(failure))
        elif websocket.state in (State.CLOSING, State.CLOSED):
            if websocket.parser_exc is not None:
                self._reason = self._reason or str(websocket.parser_exc)
            if self._transport is not None:
                self._transport.close()

    def _gather(self, data: bytes, whole: bool) -> None:
        # Proxies may cut messages.
        if self._parts or not whole:
            self._parts.append(data)
            if not whole:
                return
            data = b"".join(self._parts)
            self._parts = []
        self._user.wire_received(data)
