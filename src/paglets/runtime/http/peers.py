"""Who is at the other end of a connection, and how many connections there are from one address."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from paglets.runtime.http.quotas import Seat

#: Extension of a request's scope: the :class:`Peer` of its connection.
PEER: Final = "paglets.peer"


class Peer:
    """The other end of one connection."""

    __slots__ = ("address", "certificate", "on_lost", "seat")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        name = transport.get_extra_info("peername")
        self.address = str(name[0]) if isinstance(name, tuple) and name else ""
        tls = transport.get_extra_info("ssl_object")
        #: What the client proved itself with, verified by TLS; None where it did not.
        self.certificate: Mapping[str, Any] | None = None if tls is None else tls.getpeercert() or None
        self.seat = Seat()
        self.on_lost: Callable[[], None] | None = None


class Crowd:
    """Count connections by address, so that one machine cannot take them all.

    :param most: connections of one address at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: Counter[str] = Counter()

    def join(self, peer: Peer) -> bool:
        """Count a connection; return False when there are too many of its address. :meth:`leave` either way."""
        self._counts[peer.address] += 1
        return self._counts[peer.address] <= self._most

    def leave(self, peer: Peer) -> None:
        """Count a connection as ended."""
        self._counts[peer.address] -= 1
        if not self._counts[peer.address]:
            del self._counts[peer.address]
