"""The two ways in that a host has by itself: its HTTP port, and a link to its hub."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paglets.remote.fabric import Application
from paglets.runtime.surroundings import Server, Surroundings

if TYPE_CHECKING:
    from paglets.runtime.relay.wiring import Relay

__all__ = ["HttpInlet", "LinkInlet"]


class HttpInlet:
    """Be reached by HTTP on listening sockets; implements `paglets.remote.fabric.Inlet`.

    :param sockets: by the address that each listens on.
    :param tls: speak TLS with everybody.
    """

    def __init__(
        self, surroundings: Surroundings, sockets: dict[str, socket.socket], *, tls: ssl.SSLContext | None
    ) -> None:
        self._surroundings = surroundings
        self._sockets = dict(sockets)
        self._tls = tls
        self._server: Server | None = None

    async def open(self, application: Application) -> None:
        """Begin to accept connections."""
        server = self._surroundings.server(application, list(self._sockets.values()), tls=self._tls)
        await server.start()
        self._server = server

    async def settle(self) -> None:
        """Return at once: a listening host can be reached."""

    async def listen(self, hosts: Sequence[str], port: int) -> None:
        """Be reached at these addresses too.

        :raises HostError: one cannot be used, and nothing has changed; the text says why.
        """
        wanted = [host for host in hosts if host not in self._sockets]
        if self._server is None or not wanted:
            return
        sockets = self._surroundings.bind(wanted, port)
        await self._server.listen(sockets)
        self._sockets.update(zip(wanted, sockets, strict=True))

    def keep_only(self, hosts: Sequence[str]) -> None:
        """Take nobody in at other addresses than these any more; who is there already is served."""
        left = [self._sockets.pop(host) for host in list(self._sockets) if host not in hosts]
        if self._server is not None:
            self._server.leave(left)

    async def close(self) -> None:
        """Stop accepting, give requests in progress a moment, and close every connection and socket."""
        if self._server is not None:
            await self._server.stop()


class LinkInlet:
    """Be reached through a hub, over the link that this host opens to it; implements `paglets.remote.fabric.Inlet`."""

    def __init__(self, relay: Relay, graceful_seconds: float) -> None:
        self._relay = relay
        self._graceful_seconds = graceful_seconds

    async def open(self, application: Application) -> None:
        """Begin to connect."""
        self._relay.connect(application)

    async def settle(self) -> None:
        """Wait a moment for the link."""
        await self._relay.settle()

    async def close(self) -> None:
        """End the link; requests in progress get a moment."""
        await self._relay.disconnect(self._graceful_seconds)
