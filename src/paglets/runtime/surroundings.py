"""What a host takes from the machine it runs on: a loop in a thread, sockets, a journal, a way to other hosts.

The testing mesh gives hosts other ones; everything else of a host is the same there.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from paglets.persistence.journal import Journal
from paglets.remote.aio import AsyncHostClient
from paglets.runtime.http.guards import Application
from paglets.runtime.http.server import HttpServer, bind
from paglets.runtime.launch import default_launcher
from paglets.runtime.launch.base import Launcher
from paglets.runtime.loop import LoopThread

if TYPE_CHECKING:
    import ssl


class Server(Protocol):
    """Serve an application until stopped."""

    async def start(self) -> None:
        """Begin to serve."""

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on further sockets too."""

    def leave(self, sockets: Sequence[socket.socket]) -> None:
        """Take nobody in on some sockets any more, and close them; who is there already is served."""

    async def stop(self) -> None:
        """Serve no more, and close the sockets."""


class Surroundings:
    """The machine as it is."""

    def launcher(self) -> Launcher:
        """Return what starts paglet processes."""
        return default_launcher()

    def loop_thread(self, name: str) -> LoopThread:
        """Start an event loop in a thread of its own."""
        return LoopThread(name)

    def bind(self, hosts: Sequence[str], port: int) -> list[socket.socket]:
        """Bind a listening socket for each host; see :func:`paglets.runtime.http.server.bind`."""
        return bind(hosts, port)

    def server(self, application: Application, sockets: list[socket.socket], *, tls: ssl.SSLContext | None) -> Server:
        """Return what serves an application on those sockets."""
        return HttpServer(application, sockets, tls=tls)

    def journal(self, path: Path) -> Journal:
        """Open a journal."""
        return Journal(path)

    def words(self, **options: Any) -> AsyncHostClient:
        """Return the client by which the host's loop talks to other hosts."""
        return AsyncHostClient(**options)
