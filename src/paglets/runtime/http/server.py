"""The HTTP server of a host: uvicorn's protocol on the host's own event loop, with bounds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.server import ServerState

from paglets.core.errors import HostError
from paglets.runtime.http.connection import BoundedHttpProtocol, ServerLimits
from paglets.runtime.http.guards import Application, Receive, Scope, Send
from paglets.runtime.http.peers import Crowd

if TYPE_CHECKING:
    import ssl

BACKLOG = 2048


def bind(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Bind a listening socket for each host, all on one port.

    :param port: 0 takes a free one.
    :raises HostError: an address cannot be used; the text says why.
    """
    sockets: list[socket.socket] = []
    # Otherwise the wildcard of the newer protocol takes the older one's port too, and binding both fails.
    only_v6 = any(":" not in host for host in hosts)
    try:
        for host in hosts:
            sockets.append(_bind_one(host, port, only_v6=only_v6))
            port = port or sockets[0].getsockname()[1]
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    return sockets


def _bind_one(host: str, port: int, *, only_v6: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and only_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
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
    except UnicodeError as exc:
        sock.close()
        raise HostError(f"cannot listen on {host!r}: it is no name of a host") from exc
    return sock


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """How busy a server is."""

    connections: int
    """Open connections, idle ones included."""
    requests: int
    """Requests that are being answered."""


class HttpServer:
    """Serve an application on bound sockets until stopped.

    :param sockets: what :func:`bind` returned; they are closed by :meth:`stop`.
    :param tls: speak TLS with everybody.
    """

    def __init__(
        self,
        application: Application,
        sockets: list[socket.socket],
        limits: ServerLimits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits or ServerLimits()
        self._tls = tls
        self._crowd = Crowd(self.limits.max_connections_per_address)
        self._config = uvicorn.Config(
            _until_cancelled(application),
            http=BoundedHttpProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        self._config.load()
        self._state = ServerState()
        self._sockets = list(sockets)
        self._servers: dict[socket.socket, asyncio.Server] = {}
        self._quiet = asyncio.Event()

    def statistics(self) -> ServerStatistics:
        """Return how many connections are open and how many requests are being answered."""
        return ServerStatistics(len(self._state.connections), len(self._state.tasks))

    async def start(self) -> None:
        """Begin to accept connections; they are queued by the kernel since the sockets were bound."""
        for sock in self._sockets:
            await self._accept(sock)

    async def _accept(self, sock: socket.socket) -> None:
        self._servers[sock] = await asyncio.get_running_loop().create_server(
            self._connection,
            sock=sock,
            backlog=BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else self.limits.head_seconds,
        )

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on further sockets too, which belong to the server from now on."""
        self._sockets += sockets
        try:
            for sock in sockets:
                await self._accept(sock)
        except BaseException:
            self.leave(sockets)
            raise

    def leave(self, sockets: Sequence[socket.socket]) -> None:
        """Accept no more connections on some sockets, and close them; connections that were accepted go on."""
        for sock in sockets:
            server = self._servers.pop(sock, None)
            if server is not None:
                server.close()
            self._sockets.remove(sock)
            sock.close()

    def _connection(self) -> BoundedHttpProtocol:
        return BoundedHttpProtocol(self._config, self._state, self.limits, on_lost=self._lost, crowd=self._crowd)

    def _lost(self) -> None:
        if not self._state.connections:
            self._quiet.set()

    async def stop(self) -> None:
        """Stop accepting, give requests in progress a moment, and close every connection and socket."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=self.limits.graceful_seconds)
        # First, so that a request which is called off has nobody left who could be answered.
        for connection in list(self._state.connections):
            connection.transport.abort()
        self._quiet.clear()
        if self._state.connections:
            await self._quiet.wait()
        unfinished = list(self._state.tasks)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        for sock in self._sockets:
            sock.close()


def _until_cancelled(application: Application) -> Application:
    """Return an application that just ends when it is called off, which the protocol would take for a failure."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await application(scope, receive, send)
        finally:
            # They lead back to the request, which would keep its memory until the garbage collector comes by.
            scope.pop("extensions", None)

    return serve
