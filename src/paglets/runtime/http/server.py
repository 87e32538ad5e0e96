"""The HTTP server of a host: uvicorn on the host's own event loop, with bounds on what comes before a body."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from paglets.core.errors import HostError
from paglets.runtime.http.guards import Application

#: Bound of a request's line and headers together.
MAX_HEAD_BYTES = 64 * 1024
#: How long a client may take for them.
HEAD_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 75
GRACEFUL_SECONDS = 1
BACKLOG = 2048


class BoundedHttpProtocol(HttpToolsProtocol):
    """End connections whose request head is too large or too slow; uvicorn with httptools bounds neither."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        """Start the clock of the first head."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._await_head()
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop the clock."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_clock()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next head; while the connection is idle uvicorn's keep-alive clock runs."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._refuse, b"408 Request Timeout")

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: bytes) -> None:
        self._stop_clock()
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()


def bind(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Bind a listening socket for each host, all on one port.

    :param port: 0 takes a free one.
    :raises HostError: an address cannot be used; the text says why.
    """
    sockets: list[socket.socket] = []
    try:
        for host in hosts:
            sockets.append(_bind_one(host, port))
            port = port or sockets[0].getsockname()[1]
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    return sockets


def _bind_one(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise HostError(f"address {host}:{port} is in use; choose another port, or 0 for a free one") from exc
        raise HostError(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
    except OverflowError as exc:
        sock.close()
        raise HostError(f"cannot listen on {host}:{port}: a port is a number up to 65535") from exc
    return sock


class HttpServer:
    """Serve an application on bound sockets until stopped."""

    def __init__(self, application: Application, sockets: list[socket.socket]) -> None:
        config = uvicorn.Config(
            application,
            http=BoundedHttpProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
        )
        self._server = uvicorn.Server(config)
        self._sockets = sockets
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to accept connections; they are queued by the kernel since the sockets were bound."""
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=self._sockets))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise HostError("the HTTP server ended while it started")
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        """Stop accepting, give requests in progress a moment, and close the sockets."""
        if self._task is not None:
            self._server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for sock in self._sockets:
            sock.close()
