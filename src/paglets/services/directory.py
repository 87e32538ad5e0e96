"""Find services from outside, through one host that a client can reach."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from paglets.core.errors import PagletError, RemoteHostError, ServiceNotFoundError
from paglets.core.runtime_values import ServiceScope, require_enum
from paglets.protocol.membership import HostRef
from paglets.remote import senders
from paglets.remote.aio_following import AsyncFollowing
from paglets.remote.client import HostClient
from paglets.remote.gossip import for_each_at_once
from paglets.services.pool import pool_of, routed_handle
from paglets.services.records import ServiceRecord

if TYPE_CHECKING:
    from paglets.remote.aio import AsyncHostClient
    from paglets.services.attempts import RetryPolicy
    from paglets.services.calling import Finder
    from paglets.services.contracts import ServiceContract
    from paglets.services.handles import ServiceHandle
    from paglets.services.pool import ServicePool

__all__ = ["AsyncServiceDirectory", "ServiceDirectory"]

PEER_SECONDS: Final = 1.0
"""How long a further host of the mesh may take to say what it offers; one that takes longer offers nothing."""

PEER_THREADS: Final = 8


class ServiceDirectory:
    """Find services through one host.

    :param host_url: base URL of the host.
    :param client: what talks to hosts, and makes the calls of the handles; a fresh one by default.
    """

    def __init__(self, host_url: str, client: HostClient | None = None) -> None:
        self.host_url = host_url.rstrip("/")
        self.client = HostClient() if client is None else client

    def lookup_services(
        self, name: str | None = None, *, capability: str | None = None, scope: ServiceScope = ServiceScope.LOCAL
    ) -> list[ServiceRecord]:
        """Return the matching records of the host, or of its mesh.

        :raises TypeError: ``scope`` is not a `ServiceScope` member.
        :raises PagletError: the host cannot be asked.
        """
        return self._look(name, capability, scope)[0]

    def lookup_contracts(
        self, contract: ServiceContract, *, scope: ServiceScope = ServiceScope.LOCAL
    ) -> list[ServiceHandle]:
        """Return handles of the providers that match the contract wholly, in the order in which they were found."""
        finder = _Finder(self, contract.name, scope)
        return [
            routed_handle(contract, record, self.client, finder, own=self.host_url)
            for record in finder.find()
            if contract.matches_record(record)
        ]

    def require_contract(self, contract: ServiceContract, *, scope: ServiceScope = ServiceScope.LOCAL) -> ServiceHandle:
        """Return a handle of the first provider.

        :raises ServiceNotFoundError: nobody provides the contract.
        """
        return _first(self.lookup_contracts(contract, scope=scope), contract)

    def service(
        self, contract: ServiceContract, *, scope: ServiceScope = ServiceScope.LOCAL, policy: RetryPolicy | None = None
    ) -> ServicePool:
        """Return what spreads calls over all providers; nothing is looked up yet."""
        return pool_of(contract, self.client, _Finder(self, contract.name, scope), own=self.host_url, policy=policy)

    def _look(
        self, name: str | None, capability: str | None, scope: ServiceScope
    ) -> tuple[list[ServiceRecord], dict[str, int]]:
        require_enum(scope, ServiceScope, "scope")
        found = _records(self.client.get_json(_services(self.host_url, name, capability)), self.host_url)
        if scope is ServiceScope.LOCAL:
            return found, {}
        peers, loads = _peers(self.client.get_json(f"{self.host_url}/hosts"), self.host_url)
        answers: dict[str, list[ServiceRecord]] = {}

        def ask(url: str) -> None:
            answers[url] = self._ask_peer(url, name, capability)

        for_each_at_once(peers, ask, threads=PEER_THREADS, name="paglets-lookup")
        return found + [record for url in peers for record in answers.get(url, ())], loads

    def _ask_peer(self, url: str, name: str | None, capability: str | None) -> list[ServiceRecord]:
        try:
            return _records(
                self.client.get_json(_services(url, name, capability, mesh=True), timeout=PEER_SECONDS), url
            )
        except PagletError:
            return []  # a host that cannot be asked offers nothing now


class AsyncServiceDirectory:
    """Find services through one host, for coroutines; handles have `acall`, `asend_oneway` and `astream`.

    :param host_url: base URL of the host.
    :param client: what talks to hosts, and makes the calls of the handles.
    """

    def __init__(self, host_url: str, client: AsyncHostClient) -> None:
        self.host_url = host_url.rstrip("/")
        self.client = client

    async def lookup_services(
        self, name: str | None = None, *, capability: str | None = None, scope: ServiceScope = ServiceScope.LOCAL
    ) -> list[ServiceRecord]:
        """Return the matching records of the host, or of its mesh; see `ServiceDirectory.lookup_services`."""
        return (await self._look(name, capability, scope))[0]

    async def lookup_contracts(
        self, contract: ServiceContract, *, scope: ServiceScope = ServiceScope.LOCAL
    ) -> list[ServiceHandle]:
        """Return handles of the providers that match the contract wholly, in the order in which they were found."""
        finder = _AsyncFinder(self, contract.name, scope)
        return [
            routed_handle(contract, record, self.client, finder, own=self.host_url)
            for record in await finder.afind()
            if contract.matches_record(record)
        ]

    async def require_contract(
        self, contract: ServiceContract, *, scope: ServiceScope = ServiceScope.LOCAL
    ) -> ServiceHandle:
        """Return a handle of the first provider; ServiceNotFoundError if there is none."""
        return _first(await self.lookup_contracts(contract, scope=scope), contract)

    def service(
        self, contract: ServiceContract, *, scope: ServiceScope = ServiceScope.LOCAL, policy: RetryPolicy | None = None
    ) -> ServicePool:
        """Return what spreads calls over all providers; nothing is looked up yet."""
        finder = _AsyncFinder(self, contract.name, scope)
        return pool_of(contract, self.client, finder, own=self.host_url, policy=policy)

    async def _look(
        self, name: str | None, capability: str | None, scope: ServiceScope
    ) -> tuple[list[ServiceRecord], dict[str, int]]:
        require_enum(scope, ServiceScope, "scope")
        found = _records(await self.client.get_json(_services(self.host_url, name, capability)), self.host_url)
        if scope is ServiceScope.LOCAL:
            return found, {}
        peers, loads = _peers(await self.client.get_json(f"{self.host_url}/hosts"), self.host_url)
        for answer in await asyncio.gather(*(self._ask_peer(url, name, capability) for url in peers)):
            found += answer
        return found, loads

    async def _ask_peer(self, url: str, name: str | None, capability: str | None) -> list[ServiceRecord]:
        try:
            url_of_all = _services(url, name, capability, mesh=True)
            return _records(await self.client.get_json(url_of_all, timeout=PEER_SECONDS), url)
        except PagletError:
            return []  # a host that cannot be asked offers nothing now


class _Finder:
    def __init__(self, directory: ServiceDirectory, name: str, scope: ServiceScope) -> None:
        self._directory = directory
        self._name = name
        self._scope = require_enum(scope, ServiceScope, "scope")
        self._loads: dict[str, int] = {}

    def find(self) -> list[ServiceRecord]:
        found, self._loads = self._directory._look(self._name, None, self._scope)
        return found

    async def afind(self) -> list[ServiceRecord]:
        return await asyncio.wrap_future(senders.submit(self.find))

    def loads(self) -> Mapping[str, int]:
        return self._loads

    def over(self, client: Any) -> Finder:
        return _finder_over(client, self._directory.host_url, self._name, self._scope) or self


class _AsyncFinder:
    def __init__(self, directory: AsyncServiceDirectory, name: str, scope: ServiceScope) -> None:
        self._directory = directory
        self._name = name
        self._scope = require_enum(scope, ServiceScope, "scope")
        self._loads: dict[str, int] = {}

    def find(self) -> list[ServiceRecord]:
        raise TypeError("an asynchronous client is used in coroutines only")

    async def afind(self) -> list[ServiceRecord]:
        found, self._loads = await self._directory._look(self._name, None, self._scope)
        return found

    def loads(self) -> Mapping[str, int]:
        return self._loads

    def over(self, client: Any) -> Finder:
        return _finder_over(client, self._directory.host_url, self._name, self._scope) or self


def _finder_over(client: Any, host_url: str, name: str, scope: ServiceScope) -> Finder | None:
    if isinstance(client, HostClient):
        return _Finder(ServiceDirectory(host_url, client), name, scope)
    if isinstance(client, AsyncFollowing):
        from paglets.remote.aio import AsyncHostClient

        if isinstance(client, AsyncHostClient):
            return _AsyncFinder(AsyncServiceDirectory(host_url, client), name, scope)
    return None


def _first(handles: list[ServiceHandle], contract: ServiceContract) -> ServiceHandle:
    if not handles:
        raise ServiceNotFoundError(f"no provider of contract {contract.name!r} version {contract.version} found")
    return handles[0]


def _services(url: str, name: str | None, capability: str | None, *, mesh: bool = False) -> str:
    query = {key: text for key, text in (("name", name), ("capability", capability)) if text}
    if mesh:
        query["scope"] = ServiceScope.MESH.value
    return f"{url}/services?{urlencode(query)}"


def _records(answer: Any, url: str) -> list[ServiceRecord]:
    try:
        return [ServiceRecord.from_wire(wire) for wire in answer["services"]]
    except (PagletError, LookupError, TypeError, ValueError) as exc:
        raise RemoteHostError(f"{url} does not list its services like a host: {exc}") from exc


def _peers(answer: Any, own: str) -> tuple[list[str], dict[str, int]]:
    """Return the other hosts that are online, and how many paglets each host has."""
    try:
        refs = [HostRef.from_wire(wire) for wire in answer["hosts"]]
    except (PagletError, LookupError, TypeError, ValueError) as exc:
        raise RemoteHostError(f"{own} does not list its mesh like a host: {exc}") from exc
    online = {ref.url.rstrip("/"): ref.active_count for ref in refs if ref.online}
    return [url for url in online if url != own], online
