"""What a host does for those who call services: it finds them, and hands out handles, pools and leases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from paglets.core.runtime_values import ServiceScope
from paglets.services.contracts import ServiceContract, ServiceHandle, ServiceRecord
from paglets.services.leases import host_of
from paglets.services.pool import HostFinder, LookupHost, RetryPolicy, ServicePool, pool_of, routed_handle
from paglets.services.resident import DEFAULT_SERVICE_LEASE_TTL_SECONDS, ServiceLease

if TYPE_CHECKING:
    from paglets.remote.client import HostClient


class _Host(LookupHost, Protocol):
    @property
    def address(self) -> str: ...

    @property
    def client(self) -> HostClient: ...

    def _take_lease(self, provider: ServiceRecord, ttl: float) -> dict[str, Any]:
        """Return ``lease_id`` and ``expires_at`` of a new lease."""


class ServiceConsumer:
    """A host, or its facade inside a paglet: both look services up in their own way, and call them in the same one."""

    def lookup_service(
        self: _Host, name: str, *, capability: str | None = None, scope: ServiceScope = ServiceScope.LOCAL
    ) -> ServiceRecord | None:
        """Return the first matching record, or None."""
        return next(iter(self.lookup_services(name, capability=capability, scope=scope)), None)

    def service_handle(
        self: _Host, contract: ServiceContract, record: ServiceRecord, *, scope: ServiceScope | None = None
    ) -> ServiceHandle:
        """Return a handle that calls a record's provider.

        :param scope: where the handle looks for the provider again, or for another one, when it is lost; None for
            nowhere.
        """
        if scope is None:
            return ServiceHandle(contract, record, self.client)
        return routed_handle(contract, record, self.client, HostFinder(self, contract.name, scope), own=self.address)

    def service_pool(
        self: _Host,
        contract: ServiceContract,
        *,
        scope: ServiceScope = ServiceScope.LOCAL,
        policy: RetryPolicy | None = None,
    ) -> ServicePool:
        """Return what spreads calls over all providers of a contract; nothing is looked up yet."""
        finder = HostFinder(self, contract.name, scope)
        return pool_of(contract, self.client, finder, own=self.address, policy=policy)

    def lease_service_handle(
        self: _Host, handle: ServiceHandle, *, ttl: float = DEFAULT_SERVICE_LEASE_TTL_SECONDS
    ) -> ServiceLease:
        """Have a managed resident service up, here or on another host, and keep it so for ``ttl`` seconds.

        :raises HostError: ``ttl`` is not above 0, or more than a week.
        :raises ServiceNotFoundError: the provider is not one that its host manages.
        :raises PagletError: the service did not start, or its host cannot be asked.
        """
        provider = handle.provider
        wire = self._take_lease(provider, ttl)
        return ServiceLease(handle, wire["lease_id"], host_of(provider), wire["expires_at"], self.client)
