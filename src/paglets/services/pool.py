"""Calls spread over all providers of a contract, and where providers are looked up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from paglets.core.runtime_values import ServiceScope, require_enum
from paglets.services.attempts import RetryPolicy
from paglets.services.calling import Finder, RoutedCaller, in_thread
from paglets.services.calls import ServiceCalls
from paglets.services.handles import ServiceHandle
from paglets.services.providers import Providers
from paglets.services.records import ServiceRecord

if TYPE_CHECKING:
    from paglets.protocol.membership import HostRef
    from paglets.services.calling import Caller
    from paglets.services.contracts import ServiceContract

__all__ = ["HostFinder", "LookupHost", "RetryPolicy", "ServicePool", "routed_handle"]

REFRESH_SECONDS: Final = 5.0
"""How old what a pool knows of its providers gets."""


class ServicePool(ServiceCalls):
    """Call all providers of a contract, each call at the one that suits best.

    That is the nearest (on the same host, then on one that is reached directly, then through a relay), and among
    equally near ones the less busy of two taken at random. A provider that fails is asked after all others for a while.
    Providers that come and go are noticed within some seconds. Thread-safe.
    """

    def __init__(self, contract: ServiceContract, caller: RoutedCaller) -> None:
        self.contract = contract
        self._routed = caller

    def _caller(self) -> Caller:
        return self._routed

    @property
    def providers(self) -> tuple[ServiceRecord, ...]:
        """The providers that are known now, in the order in which they were found."""
        return self._routed.providers.records

    def refresh(self) -> None:
        """Look the providers up now.

        :raises PagletError: the host that is asked does not answer.
        """
        self._routed.refresh()

    async def arefresh(self) -> None:
        """Look the providers up now, from a coroutine."""
        await self._routed.arefresh()


class _Mesh(Protocol):
    def hosts(self, *, online_only: bool = ..., include_self: bool = ...) -> list[HostRef]: ...


class LookupHost(Protocol):
    """What looking up needs of a host, or of its facade inside a paglet."""

    @property
    def mesh(self) -> _Mesh:
        """The hosts it knows."""

    def lookup_services(
        self, name: str | None = None, *, capability: str | None = None, scope: ServiceScope = ...
    ) -> list[ServiceRecord]:
        """Return matching records of the host, or of its mesh."""


class HostFinder:
    """Look providers up through a host."""

    def __init__(self, host: LookupHost, name: str, scope: ServiceScope) -> None:
        self._host = host
        self._name = name
        self._scope = require_enum(scope, ServiceScope, "scope")

    def find(self) -> list[ServiceRecord]:
        """Return the records of the service."""
        return self._host.lookup_services(self._name, scope=self._scope)

    async def afind(self) -> list[ServiceRecord]:
        """Return the same to a coroutine."""
        return await in_thread(self.find)

    def loads(self) -> Mapping[str, int]:
        """Return how many paglets the known hosts have, by base URL."""
        if self._scope is ServiceScope.LOCAL:
            return {}
        return {ref.url.rstrip("/"): ref.active_count for ref in self._host.mesh.hosts(online_only=True)}

    def over(self, client: Any) -> HostFinder:
        """Return itself: the host is asked straight."""
        del client
        return self


def routed_handle(
    contract: ServiceContract,
    record: ServiceRecord,
    client: Any,
    finder: Finder,
    *,
    own: str,
    policy: RetryPolicy | None = None,
) -> ServiceHandle:
    """Return a handle that finds its provider again, or another one.

    :param own: base URL of the host that calls begin at.
    :raises ServiceContractError: the record does not offer exactly this contract.
    """
    chosen = policy or RetryPolicy()
    providers = Providers(contract, (record,), own=own, sticky=True, avoid_seconds=chosen.avoid_seconds)
    return ServiceHandle(contract, record, client, RoutedCaller(providers, finder, client, policy=chosen))


def pool_of(
    contract: ServiceContract,
    client: Any,
    finder: Finder,
    *,
    own: str,
    policy: RetryPolicy | None = None,
) -> ServicePool:
    """Return a pool that has not looked for providers yet.

    :param own: base URL of the host that calls begin at.
    """
    chosen = policy or RetryPolicy()
    providers = Providers(contract, own=own, avoid_seconds=chosen.avoid_seconds)
    caller = RoutedCaller(providers, finder, client, policy=chosen, refresh_seconds=REFRESH_SECONDS)
    return ServicePool(contract, caller)
