"""What a host's relay needs of the host: the port of the hub's side, and the connected side's view of its hub."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from paglets.core.context import same_url
from paglets.core.errors import PagletError
from paglets.persistence.rows import RelayName
from paglets.persistence.tables import relay_names
from paglets.runtime.http.guards import Application
from paglets.runtime.relay.gateway import RelayGateway
from paglets.runtime.relay.hub import Hub
from paglets.runtime.relay.inside import InsideServer
from paglets.security.addresses import key_for
from paglets.security.tls import default_client_context

if TYPE_CHECKING:
    import ssl

    from paglets.runtime.host import Host
    from paglets.runtime.kernel import Kernel
    from paglets.runtime.relay.connector import Connector

#: How long a starting host waits for its hub.
FIRST_LINK_SECONDS = 2.0


class _HostPort:
    """A host as its hub's side sees it."""

    def __init__(self, host: Host, kernel: Kernel) -> None:
        self._host = host
        self._kernel = kernel

    def address(self) -> str:
        return self._host.address

    def health(self) -> dict[str, Any]:
        health = self._host.health()
        # A link is greeted with what the hub is; who else is connected can be asked, and grows with their number.
        health.pop("relay_nodes", None)
        return health

    def hosts(self) -> list[dict[str, Any]]:
        return [ref.to_wire() for ref in self._host.mesh.hosts()]

    def register(self, record: dict[str, Any]) -> None:
        self._host.mesh.register_wire(record)

    def mark_offline(self, url: str, error: str) -> None:
        self._host.mesh.mark_offline(url, error)

    def news_seconds(self) -> float:
        return self._host.mesh.offline_after

    def emit(self, kind: str, **fields: Any) -> None:
        self._kernel.emit(kind, **fields)

    def names(self) -> Sequence[RelayName]:
        return self._kernel.journal.read(relay_names.load)

    async def keep_name(self, row: RelayName, released: Sequence[str]) -> None:
        def unit(connection: sqlite3.Connection) -> None:
            for name in released:
                relay_names.remove(connection, name)
            relay_names.put(connection, row)

        await self._kernel.journal.write(unit)

    async def release_name(self, name: str) -> None:
        await self._kernel.journal.write(lambda connection: relay_names.remove(connection, name))


class Relay:
    """The two sides of relaying at one host; lives on its loop."""

    def __init__(self, host: Host, kernel: Kernel) -> None:
        self._host = host
        self._kernel = kernel
        self.hub = Hub(host.name, _HostPort(host, kernel), host.relay_settings)
        self._connector: Connector | None = None
        self._inside: InsideServer | None = None

    def gateway(self, local: Application) -> Application:
        """Return what serves ``/relay/``."""
        return RelayGateway(self.hub, local)

    def connect(self, application: Application) -> None:
        """Begin to connect to the hub, if the host has one.

        :param application: serves what comes over the link.
        """
        host = self._host
        if host.connect_to is None:
            return
        # Only where there is a link; see the gateway.
        from paglets.runtime.relay.connector import Connector, Upstream

        self._inside = InsideServer(application)
        upstream = Upstream(
            url=host.connect_to,
            name=host.name,
            api_key=key_for(host.shown_key or host.client.api_key, host.connect_to),
            health=host.health,
            tls=self._tls,
            limits=host.relay_settings.limits(),
            learn=self._learn,
            emit=self._kernel.emit,
        )
        self._connector = Connector(upstream, self._inside)
        self._connector.start()

    async def settle(self) -> None:
        """Wait a moment for the link, if there is to be one."""
        if self._connector is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LINK_SECONDS):
                    await self._connector.connected.wait()

    async def disconnect(self, graceful_seconds: float) -> None:
        """End the link to the hub, if there is one; requests in progress get a moment."""
        if self._inside is not None:
            await self._inside.stop(graceful_seconds)
        if self._connector is not None:
            await self._connector.stop()

    def close(self) -> None:
        """End the links of connected hosts."""
        self.hub.close()

    async def ended(self) -> None:
        """Wait for the end of their connections."""
        await self.hub.ended()

    def _learn(self, records: list[dict[str, Any]]) -> None:
        """Know the hosts that the hub knows."""
        own = self._host.address
        for record in records:
            if same_url(str(record.get("url", "")), own):
                continue
            try:
                self._host.mesh.register_wire(record)
            except PagletError as exc:
                self._kernel.emit("relay-client-error", data={"hub": str(self._host.connect_to)}, error=str(exc))

    def _tls(self) -> ssl.SSLContext:
        return self._host.tls_context or self._host.client.connections.ssl_context or default_client_context()
