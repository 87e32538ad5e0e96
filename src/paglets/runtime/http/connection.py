"""One connection to a host, with bounds on the size and the duration of everything that a client sends.

uvicorn bounds neither the head of a request, nor how long a client takes for it or for the body, nor what a client can
make the parser collect between the pieces of a body, nor how long it takes for its answer. Everything here happens
before and beside the application, so that a request whose body is there at once costs no timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools
import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from paglets.runtime.http.extensions import ExtendedHttpProtocol, StreamLimits
from paglets.runtime.http.peers import PEER, Crowd, Peer

logger = logging.getLogger("paglets.http.connection")
# What strangers send is no news.
logger.setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class ServerLimits(StreamLimits):
    """What one client may take of a server."""

    max_connections: int = 4096
    """Connections at a time; further ones are answered 503 and closed."""
    max_connections_per_address: int = 2048
    """Connections of one address at a time."""
    max_head_bytes: int = 64 * 1024
    """A request's line and headers together, and what may come between two pieces of a body."""
    max_headers: int = 128
    head_seconds: float = 20.0
    """For a request's line and headers, from the first byte or from the opening of the connection."""
    write_pause_seconds: float = 30.0
    """Longest time in which a client takes nothing of its answer."""
    keep_alive_seconds: float = 75.0
    """How long a connection may be idle between two requests."""
    graceful_seconds: float = 1.0
    """How long the end of the server waits for requests in progress."""


class _RefusedError(Exception):
    """Makes the parser stop; the connection has been answered and closed."""


class BoundedHttpProtocol(ExtendedHttpProtocol):
    """Speak HTTP/1.1 with one client.

    :param on_lost: called when the connection has ended.
    :param crowd: counts the connections of each address.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        limits: ServerLimits,
        *,
        on_lost: Callable[[], None],
        crowd: Crowd | None = None,
    ) -> None:
        super().__init__(config, state, limits)
        self.logger = logger
        self.timeout_keep_alive = limits.keep_alive_seconds  # type: ignore[assignment]  # uvicorn hands it to call_later
        self._limits = limits
        self._on_lost = on_lost
        self._crowd = Crowd(limits.max_connections_per_address) if crowd is None else crowd
        self._peer: Peer | None = None
        self._in_head = True
        self._receiving = False
        self._head_bytes = 0
        self._unyielding = 0
        self._body_bytes = 0
        self._began = 0.0
        self._heard = 0.0
        self._clock: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._running: RequestResponseCycle | None = None
        self._write_clock: asyncio.TimerHandle | None = None

    # --- transport ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        self._peer = Peer(transport)
        crowded = not self._crowd.join(self._peer)
        if crowded or len(self.connections) > self._limits.max_connections:
            self._refuse(b"503 Service Unavailable", "OverloadedError", "too many connections")
        else:
            self._start_clock(self._limits.head_seconds)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see that it does not go on for ever."""
        if self.handed_over():
            super().data_received(data)
            return
        self._unyielding += len(data)
        super().data_received(data)
        if not self._receiving or self.transport.is_closing():
            return
        if self._unyielding > self._limits.max_head_bytes:
            self._too_large()
            return
        self._heard = self.loop.time()
        if self._clock is None:
            self._began = self._heard
            self._start_clock(self._limits.head_seconds if self._in_head else self._limits.body_pause_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every clock."""
        self._stop_clock()
        if self._write_clock is not None:
            self._write_clock.cancel()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            # The base class tells only the newest of several requests.
            self._running.disconnected = True
            self._running.message_event.set()
        self._unset_keepalive_if_required()
        if self._peer is not None:
            self._crowd.leave(self._peer)
            if self._peer.on_lost is not None:
                self._peer.on_lost()
        self._on_lost()

    def pause_writing(self) -> None:
        """Begin to watch whether the client takes its answer."""
        super().pause_writing()
        if not self.handed_over():
            self._watch_writing()

    def on_response_complete(self) -> None:
        """Go on with the next request, or see that a closing connection closes."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection."""
        self._close()

    # --- parser ------------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Expect a head."""
        self._in_head = self._receiving = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count what belongs to the head."""
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count what belongs to the head; fields behind a chunked body are dropped, nothing here reads them."""
        if self._in_head:
            self._head_bytes += len(name) + len(value) + 4
            if len(self.headers) < self._limits.max_headers + 1:
                super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request, unless its head is too large."""
        if self._head_bytes > self._limits.max_head_bytes or len(self.headers) > self._limits.max_headers:
            self._too_large()
            raise _RefusedError
        if not self.url.startswith(b"/"):
            self._take_authority()
        super().on_headers_complete()
        extensions = self.extensions_of(self.cycle)
        extensions[PEER] = self._peer
        self.scope["extensions"] = extensions
        # Not earlier: until here a target that is no URL is refused as part of the head.
        self._in_head = False
        self._unyielding = self._body_bytes = 0
        self._stop_clock()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._unyielding = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def body_begins_elsewhere(self) -> None:
        """Watch the client no more; whoever receives the body does."""
        self._stop_clock()

    def body_ended_elsewhere(self) -> None:
        """Expect nothing, or the next request."""
        self._receiving = False
        self._unyielding = 0

    def on_message_complete(self) -> None:
        """Expect nothing, or the next request; while nothing comes uvicorn's keep-alive clock runs."""
        self._receiving = False
        self._unyielding = 0
        self._stop_clock()
        super().on_message_complete()

    def _take_authority(self) -> None:
        """Let the authority of a target like ``http://name/path`` stand for the Host header, as the standard asks."""
        target: Any = httptools.parse_url(self.url)  # its host is None where the target is only a path
        if target.host:
            authority = target.host if target.port is None else b"%s:%d" % (target.host, target.port)
            self.headers[:] = [field for field in self.headers if field[0] != b"host"]
            self.headers.append((b"host", authority))

    # --- clocks ------------------------------------------------------------------------------------------------------

    def _start_clock(self, seconds: float) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(seconds, self._too_late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_late(self) -> None:
        self._clock = None
        limits, now = self._limits, self.loop.time()
        if self.flow.read_paused or (self._in_head and self._answering()):
            # Not the client is slow but the host: nothing is read at present.
            self._began += limits.body_pause_seconds
            self._heard = now
            self._start_clock(limits.body_pause_seconds)
            return
        if not self._in_head:
            allowed = limits.body_seconds + self._body_bytes / limits.min_body_bytes_per_second
            left = min(self._heard + limits.body_pause_seconds, self._began + allowed) - now
            if left > 0.001:
                self._start_clock(left)
                return
        part = "head" if self._in_head else "body"
        self._refuse(b"408 Request Timeout", "HostError", f"the {part} of the request did not come in time")

    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _watch_writing(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        if self._unsent and self._write_clock is None:
            self._write_clock = self.loop.call_later(self._limits.write_pause_seconds, self._written_too_late)

    def _written_too_late(self) -> None:
        self._write_clock = None
        before = self._unsent
        if before and self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._watch_writing()

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _too_large(self) -> None:
        text = f"a request may have {self._limits.max_head_bytes} bytes of headers in {self._limits.max_headers} lines"
        self._refuse(b"431 Request Header Fields Too Large", "PayloadTooLargeError", text)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        if not self.transport.is_closing():
            self._refuse(b"400 Bad Request", "HostError", msg)

    def _unsupported_upgrade_warning(self) -> None:
        """Go on without the protocol that a client would like better."""

    def _refuse(self, status: bytes, error_type: str, text: str) -> None:
        self._stop_clock()
        if self.transport.is_closing():
            return
        if self._may_answer():
            body = msgspec.json.encode({"error_type": error_type, "error": text})
            head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self._close()

    def _may_answer(self) -> bool:
        """Tell whether a refusal would be taken for what it is: no answer has begun or is due to an earlier one."""
        if self._in_head:
            return not self._answering()
        return not self.cycle.response_started and not self.pipeline

    def _close(self) -> None:
        self.transport.close()
        self._watch_writing()
