"""The services that the paglets of one host offer, and those of the mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from paglets.core.errors import PagletError, ServiceContractError
from paglets.core.runtime_values import ServiceScope
from paglets.remote.aio import AsyncHostClient
from paglets.remote.mesh import MeshRegistry
from paglets.remote.references import PagletProxyRef
from paglets.runtime.agents import AgentEntry
from paglets.runtime.kernel import Kernel
from paglets.services.contracts import ServiceContract, ServiceRecord, ServiceRegistry
from paglets.services.registry import moved
from paglets.services.resident import RESIDENT_SERVICE_METADATA_KEY

MESH_SERVICE_LOOKUP_TIMEOUT_SECONDS = 1.0


class ServiceDesk:
    """Advertise and look up services; runs on the host's loop."""

    def __init__(self, kernel: Kernel, registry: ServiceRegistry, mesh: MeshRegistry, words: AsyncHostClient) -> None:
        self._kernel = kernel
        self._registry = registry
        self._mesh = mesh
        self._words = words
        self._declared: dict[tuple[str, str], ServiceRecord] = {}
        """The records of managed services as their declaration made them, by service name and paglet."""
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
        """Make a paglet findable under a service name; a managed service stays known for what it is, without an end.

        :raises InvalidAgentError: there is no such active paglet.
        :raises ServiceContractError: the metadata claim that this is a managed service.
        """
        entry = self._kernel.agents.require(agent_id)
        chosen = dict(metadata or {})
        declared = self._declared.get((name, agent_id))
        if declared is not None:
            chosen[RESIDENT_SERVICE_METADATA_KEY] = declared.metadata[RESIDENT_SERVICE_METADATA_KEY]
            ttl = None
        elif RESIDENT_SERVICE_METADATA_KEY in chosen:
            raise ServiceContractError(
                f"Metadata key {RESIDENT_SERVICE_METADATA_KEY!r} is reserved for services that the host manages"
            )
        record = self._advertise(agent_id, name, capabilities, chosen, scope, ttl)
        self._kernel.emit("service-advertise", entry, service_name=name, data=record.to_wire())
        return record

    def declare(
        self, agent_id: str, contract: ServiceContract, metadata: Mapping[str, Any], scope: ServiceScope
    ) -> ServiceRecord:
        """Make a managed service findable, whether its paglet runs or not, until the host ends.

        :param metadata: what is said of it under the key of managed services.
        """
        record = self._advertise(
            agent_id,
            contract.name,
            contract.capabilities,
            contract.advertise_metadata({RESIDENT_SERVICE_METADATA_KEY: dict(metadata)}),
            scope,
            None,
        )
        self._declared[contract.name, agent_id] = record
        for kind in ("resident-service-declare", "service-advertise"):
            self._kernel.emit(kind, agent_id=agent_id, service_name=record.name, data=record.to_wire())
        return record

    def _advertise(
        self,
        agent_id: str,
        name: str,
        capabilities: list[str] | tuple[str, ...] | None,
        metadata: dict[str, Any],
        scope: ServiceScope,
        ttl: float | None,
    ) -> ServiceRecord:
        return self._registry.advertise(
            host_name=self._kernel.config.name,
            host_url=self._kernel.address(),
            name=name,
            proxy=PagletProxyRef(self._kernel.address(), agent_id),
            capabilities=capabilities,
            metadata=metadata,
            scope=scope,
            ttl=ttl,
        )

    def move(self, former_url: str) -> None:
        """Have everything that is advertised here name the present address of this host."""
        here = self._kernel.address()
        self._registry.move(former_url, here)
        self._declared = {key: moved(record, former_url, here) for key, record in self._declared.items()}

    def unadvertise(self, name: str, agent_id: str | None) -> list[ServiceRecord]:
        """Withdraw service records and return them; of a managed service the declaration takes their place."""
        removed = self._registry.unadvertise(name, agent_id)
        self._report_removed(removed)
        for record in removed:
            declared = self._declared.get((record.name, record.proxy.agent_id))
            if declared is not None:
                self._advertise(
                    record.proxy.agent_id,
                    declared.name,
                    declared.capabilities,
                    declared.metadata,
                    declared.scope,
                    None,
                )
        return removed

    def _withdraw_services(self, entry: AgentEntry) -> None:
        self._report_removed(self._registry.remove_agent(entry.agent_id, keep=self._is_declared))

    def _is_declared(self, record: ServiceRecord) -> bool:
        return (record.name, record.proxy.agent_id) in self._declared

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
            reply = await self._words.get_json(
                f"{url}/services?{urlencode(query)}", timeout=MESH_SERVICE_LOOKUP_TIMEOUT_SECONDS
            )
            return [ServiceRecord.from_wire(wire) for wire in reply["services"]]
        except (PagletError, OSError, LookupError, TypeError, ValueError):
            return []  # a peer that cannot be asked offers nothing now
