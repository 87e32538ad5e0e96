"""The services that the paglets of one host offer, and those of the mesh."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

from paglets.core.errors import PagletError
from paglets.core.runtime_values import ServiceScope
from paglets.remote.aio import AsyncHostClient
from paglets.remote.mesh import MeshRegistry
from paglets.remote.references import PagletProxyRef
from paglets.runtime.agents import AgentEntry
from paglets.runtime.kernel import Kernel
from paglets.services.contracts import ServiceRecord, ServiceRegistry

MESH_LOOKUP_SECONDS = 1.0


class ServiceDesk:
    """Advertise and look up services; runs on the host's loop."""

    def __init__(self, kernel: Kernel, registry: ServiceRegistry, mesh: MeshRegistry, words: AsyncHostClient) -> None:
        self._kernel = kernel
        self._registry = registry
        self._mesh = mesh
        self._words = words
        kernel.on_departed.append(self._withdraw_services)

    def advertise(
        self,
        agent_id: str,
        name: str,
        *,
        capabilities: list[str] | tuple[str, ...] | None,
        metadata: dict[str, Any] | None,
        scope: ServiceScope,
        ttl: float | None,
    ) -> ServiceRecord:
        """Make a paglet findable under a service name."""
        entry = self._kernel.agents.require(agent_id)
        record = self._registry.advertise(
            host_name=self._kernel.config.name,
            host_url=self._kernel.address(),
            name=name,
            proxy=PagletProxyRef(self._kernel.address(), agent_id),
            capabilities=capabilities,
            metadata=metadata,
            scope=scope,
            ttl=ttl,
        )
        self._kernel.emit("service-advertise", entry, service_name=name, data=record.to_wire())
        return record

    def unadvertise(self, name: str, agent_id: str | None) -> list[ServiceRecord]:
        """Withdraw service records and return them."""
        removed = self._registry.unadvertise(name, agent_id)
        self._report_removed(removed)
        return removed

    def _withdraw_services(self, entry: AgentEntry) -> None:
        self._report_removed(self._registry.remove_agent(entry.agent_id))

    def _report_removed(self, removed: list[ServiceRecord]) -> None:
        for record in removed:
            self._kernel.emit("service-remove", agent_id=record.proxy.agent_id, service_name=record.name)

    async def lookup_services(
        self, name: str | None, *, capability: str | None, scope: ServiceScope
    ) -> list[ServiceRecord]:
        """Return matching records of this host and, for mesh scope, those that online peers offer to the mesh."""
        if not isinstance(scope, ServiceScope):
            raise TypeError("scope must be a ServiceScope")
        found = self._registry.lookup_all(name, capability)
        if scope is ServiceScope.MESH:
            peers = [ref.url for ref in self._mesh.hosts(online_only=True, include_self=False)]
            answers = await asyncio.gather(*(self._ask_peer(url, name, capability) for url in peers))
            found += [record for answer in answers for record in answer]
        return found

    async def _ask_peer(self, url: str, name: str | None, capability: str | None) -> list[ServiceRecord]:
        query = {key: text for key, text in (("name", name), ("capability", capability)) if text}
        query["scope"] = ServiceScope.MESH.value
        try:
            reply = await self._words.get_json(f"{url}/services?{urlencode(query)}", timeout=MESH_LOOKUP_SECONDS)
            return [ServiceRecord.from_wire(wire) for wire in reply["services"]]
        except (PagletError, OSError, LookupError, TypeError, ValueError):
            return []  # a peer that cannot be asked offers nothing now
