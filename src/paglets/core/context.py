"""A paglet's view of the host it is on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paglets.core.errors import HostError, ServiceContractError, ServiceNotFoundError
from paglets.core.messages import Message, ReplySet
from paglets.core.policies import DeactivationRequest
from paglets.core.runtime_values import ServiceScope

if TYPE_CHECKING:
    from paglets.artifacts import ArtifactRef, PagletFileRef
    from paglets.core.agent import Paglet, PagletState
    from paglets.core.allowance import Allowance, AllowanceBalance
    from paglets.core.host_port import HostPort
    from paglets.core.resources import ResourceRegistry
    from paglets.persistence.storage import ManagedStorage
    from paglets.remote.mesh import HostRef
    from paglets.remote.proxy import PagletProxy
    from paglets.remote.references import PagletProxyRef
    from paglets.remote.transfer import TransferTicket
    from paglets.services.contracts import ServiceContract, ServiceHandle, ServiceOperation, ServiceRecord
    from paglets.services.pool import RetryPolicy, ServicePool
    from paglets.services.resident import ServiceLease

ACTIVE = 0x1
"""Bit of a state mask: the paglet runs in a process."""
INACTIVE = 0x2
"""Bit of a state mask: the paglet is stored and not running."""


def same_url(one: str, other: str) -> bool:
    """Tell whether two base URLs are equal, a trailing slash aside."""
    return one.rstrip("/") == other.rstrip("/")


class PagletContext:
    """Offer the operations of a host to one paglet, or to code beside the host when ``agent_id`` is None.

    :param host: the real host, or the facade of it inside a paglet process.
    :param agent_id: the paglet on whose behalf operations without an explicit id are done.
    """

    def __init__(self, host: HostPort, agent_id: str | None = None) -> None:
        self._host = host
        self._agent_id = agent_id

    @property
    def name(self) -> str:
        """Name of the host."""
        return self._host.name

    @property
    def address(self) -> str:
        """Base URL of the host."""
        return self._host.address

    @property
    def host(self) -> HostPort:
        """The host, or its facade inside a paglet process."""
        return self._host

    @property
    def agent_id(self) -> str | None:
        """Id of the paglet this context belongs to, if any."""
        return self._agent_id

    def _own(self, agent_id: str | None = None) -> str:
        chosen = agent_id or self._agent_id
        if not chosen:
            raise HostError("this context belongs to no paglet; give agent_id")
        return chosen

    def _is_local(self, url: str) -> bool:
        return same_url(url, self.address)

    # --- proxies, properties, creation -------------------------------------------------------------------------------

    def get_proxy(self, agent_id: str, host_url: str | None = None) -> PagletProxy | None:
        """Return a proxy for an active or inactive local paglet (None if unknown), or an unchecked one for another
        host."""
        if host_url is None or self._is_local(host_url):
            return self._host.get_proxy(agent_id, include_inactive=True)
        return self._host.proxy_for(host_url, agent_id)

    def get_proxies(self, state: int = ACTIVE) -> list[PagletProxy]:
        """Return proxies of the local paglets whose state is in the mask ``ACTIVE | INACTIVE``."""
        return self._host.get_proxies(state)

    def get_property(self, key: str, default: Any = None) -> Any:
        """Return a property of the host, shared by all paglets on it and kept in memory."""
        return self._host.get_property(key, default)

    def set_property(self, key: str, value: Any) -> None:
        """Set a property of the host; None removes it."""
        self._host.set_property(key, value)

    def create_paglet(
        self,
        agent_cls: type[Paglet[Any]],
        state: PagletState | None = None,
        *,
        init: Any = None,
        host_url: str | None = None,
        allowance: Allowance | None = None,
    ) -> PagletProxy:
        """Create a paglet on this host, or on the one at ``host_url``.

        :param allowance: what it may use up; by default what its class says. What a paglet creates gets no more than
            its creator has left, and is charged to that like a clone.
        :raises PagletError: the class or state is unusable, a hook failed, or the other host refused.
        """
        if host_url is None or self._is_local(host_url):
            return self._host.create(agent_cls, state, init=init, allowance=allowance)
        return self._host.create_remote(host_url, agent_cls, state, init=init, allowance=allowance)

    # --- lifecycle ---------------------------------------------------------------------------------------------------

    def dispatch(self, agent_id: str, target: str | TransferTicket) -> PagletProxy:
        """Move a paglet to a host given by URL, mesh name or ticket.

        :raises TransferError: it could not move and goes on where it is.
        :raises InvalidAgentError: asked by one paglet for another; use a proxy for that.
        """
        return self._host.dispatch(agent_id, target)

    def clone(self, agent_id: str, target: str | TransferTicket | None = None) -> PagletProxy:
        """Copy a paglet under a new id, here or to ``target``."""
        return self._host.clone(agent_id, target=target)

    def deactivate(self, agent_id: str, request: DeactivationRequest | None = None) -> PagletProxy:
        """Store a paglet and end its process."""
        return self._host.deactivate(agent_id, request)

    def dispatch_to(self, agent_id: str, name_or_url: str) -> PagletProxy:
        """Move a paglet to a mesh host given by name or URL."""
        return self.dispatch(agent_id, self._host.mesh.resolve_url(name_or_url))

    def clone_to(self, agent_id: str, name_or_url: str) -> PagletProxy:
        """Copy a paglet to a mesh host given by name or URL."""
        return self.clone(agent_id, self._host.mesh.resolve_url(name_or_url))

    def checkpoint(self, agent_id: str | None = None) -> None:
        """Have the present state of a paglet on disk when this returns.

        :raises LifecycleError: its class keeps none (``Durability.NONE``).
        :raises InsufficientStorageError: the disk is full; the last checkpoint stays.
        """
        self._host.checkpoint(self._own(agent_id))

    def allowance(self, agent_id: str | None = None) -> AllowanceBalance:
        """Return what a paglet has used of its allowance, and what is left.

        :raises InvalidAgentError: it is unknown here, or asked by one paglet for another.
        """
        return self._host.allowance(self._own(agent_id))

    def remind(
        self,
        name: str,
        *,
        after: float | None = None,
        every: float | None = None,
        at: float | None = None,
        args: dict[str, Any] | None = None,
        agent_id: str | None = None,
    ) -> None:
        """Set a durable timer of a paglet; see `paglets.core.agent.Paglet.remind`."""
        self._host.remind(self._own(agent_id), name, after=after, every=every, at=at, args=args)

    def forget(self, name: str, *, agent_id: str | None = None) -> bool:
        """Remove a timer of a paglet; return whether there was one."""
        return self._host.forget(self._own(agent_id), name)

    # --- mesh --------------------------------------------------------------------------------------------------------

    def available_hosts(self, *, online_only: bool = True, include_self: bool = True) -> list[HostRef]:
        """Return the hosts of the mesh."""
        return self._host.mesh.hosts(online_only=online_only, include_self=include_self)

    def host_status(self, name_or_url: str) -> HostRef | None:
        """Return what is known of a host, None if nothing."""
        return self._host.mesh.lookup(name_or_url)

    def is_host_online(self, name_or_url: str) -> bool:
        """Tell whether a host is known and online."""
        return self._host.mesh.is_online(name_or_url)

    def wait_for_host(self, name_or_url: str, *, timeout: float = 10.0, interval: float = 0.25) -> HostRef:
        """Wait up to ``timeout`` seconds for a host to be online.

        :raises HostError: it did not come online in time.
        """
        return self._host.mesh.wait_for_host(name_or_url, timeout=timeout, interval=interval)

    # --- messages ----------------------------------------------------------------------------------------------------

    def send(self, target_agent_id: str, message: Message, *, host_url: str | None = None) -> Any:
        """Send a message to a local paglet, or to one on the host at ``host_url``, and return its reply.

        A managed service counts as local before its paglet has been started.

        :raises HostError: no paglet with this id is here.
        """
        if message.sender is None:
            message.sender = self.address
        proxy = self.get_proxy(target_agent_id, host_url)
        if proxy is None:
            if not any(record.proxy.agent_id == target_agent_id for record in self._host.lookup_services()):
                raise HostError(f"No paglet {target_agent_id} on {self.name}")
            proxy = self._host.proxy_for(self.address, target_agent_id)
        return proxy.send(message)

    def multicast(
        self, kind: str | Message, args: dict[str, Any] | None = None, *, exclude: set[str] | None = None
    ) -> ReplySet:
        """Send a message to every active local paglet but those in ``exclude``."""
        return self._host.multicast_message(kind, args, exclude=exclude)

    # --- services ----------------------------------------------------------------------------------------------------

    def advertise_service(
        self,
        name: str,
        *,
        capabilities: list[str] | tuple[str, ...] | None = None,
        metadata: dict[str, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
        ttl: float | None = None,
        agent_id: str | None = None,
    ) -> ServiceRecord:
        """Make a paglet findable under a service name; ``ttl`` in seconds, None for ever."""
        return self._host.advertise_service(
            self._own(agent_id), name, capabilities=capabilities, metadata=metadata, scope=scope, ttl=ttl
        )

    def unadvertise_service(self, name: str, *, agent_id: str | None = None) -> list[ServiceRecord]:
        """Withdraw a paglet's service record and return what was removed."""
        return self._host.unadvertise_service(name, agent_id=self._own(agent_id))

    def lookup_service(
        self, name: str, *, capability: str | None = None, scope: ServiceScope = ServiceScope.LOCAL
    ) -> PagletProxyRef | None:
        """Return a reference to the first provider of a service, or None."""
        record = self._host.lookup_service(name, capability=capability, scope=scope)
        return None if record is None else record.proxy

    def lookup_services(
        self, name: str | None = None, *, capability: str | None = None, scope: ServiceScope = ServiceScope.LOCAL
    ) -> list[ServiceRecord]:
        """Return the records of matching services."""
        return self._host.lookup_services(name, capability=capability, scope=scope)

    def advertise_contract(
        self,
        contract: ServiceContract,
        *,
        scope: ServiceScope = ServiceScope.LOCAL,
        ttl: float | None = None,
        metadata: dict[str, Any] | None = None,
        agent_id: str | None = None,
    ) -> ServiceRecord:
        """Advertise a typed contract: its name, its operations as capabilities, its schema as metadata."""
        return self.advertise_service(
            contract.name,
            capabilities=contract.capabilities,
            metadata=contract.advertise_metadata(metadata),
            scope=scope,
            ttl=ttl,
            agent_id=agent_id,
        )

    def lookup_contract(
        self,
        contract: ServiceContract,
        *,
        operation: ServiceOperation[Any, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
    ) -> ServiceHandle | None:
        """Return a handle of the first provider that matches the contract wholly, or None."""
        return next(iter(self.lookup_contracts(contract, operation=operation, scope=scope)), None)

    def lookup_contracts(
        self,
        contract: ServiceContract,
        *,
        operation: ServiceOperation[Any, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
    ) -> list[ServiceHandle]:
        """Return handles of the providers that match the contract wholly, in the order in which they were found.

        A handle stays with its provider while that is there; afterwards it finds it again, or another one.

        :raises ServiceContractError: ``operation`` is not part of the contract.
        """
        if operation is not None and contract.require_operation(operation) is None:
            raise ServiceContractError(f"operation {operation.name!r} is not part of contract {contract.name!r}")
        records = self._host.lookup_services(contract.name, scope=scope)
        return [
            self._host.service_handle(contract, record, scope=scope)
            for record in records
            if contract.matches_record(record)
        ]

    def require_contract(
        self,
        contract: ServiceContract,
        *,
        operation: ServiceOperation[Any, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
    ) -> ServiceHandle:
        """Return a handle of a provider.

        :raises ServiceNotFoundError: nobody provides the contract.
        """
        handle = self.lookup_contract(contract, operation=operation, scope=scope)
        if handle is None:
            raise ServiceNotFoundError(f"no provider of contract {contract.name!r} version {contract.version} found")
        return handle

    def service(
        self,
        contract: ServiceContract,
        *,
        scope: ServiceScope = ServiceScope.LOCAL,
        policy: RetryPolicy | None = None,
    ) -> ServicePool:
        """Return what calls all providers of a contract: each call the nearest, and of those the less busy.

        Nothing is looked up before the first call, which raises `ServiceNotFoundError` if nobody provides the contract.

        :param scope: where providers are looked for.
        :param policy: how often and how long providers are tried for one call.
        """
        return self._host.service_pool(contract, scope=scope, policy=policy)

    def lease_contract(
        self,
        contract: ServiceContract,
        *,
        operation: ServiceOperation[Any, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
        ttl: float = 60.0,
    ) -> ServiceLease:
        """Have a managed resident service up and keep it so for ``ttl`` seconds.

        Of a paglet the lease is one of its resources: it is given back when the paglet sleeps, leaves or ends.

        :raises HostError: ``ttl`` is not above 0, or more than a week.
        :raises ServiceNotFoundError: nobody provides the contract as a managed service.
        """
        handle = self.require_contract(contract, operation=operation, scope=scope)
        lease = self._host.lease_service_handle(handle, ttl=ttl)
        if self._agent_id is not None:
            resources, name = self.resources(), f"service-lease:{lease.lease_id}"
            resources.register(name, lease.release, suppress=True)
            lease.when_released(lambda: resources.remove(name))
        return lease

    # --- resources, storage, files -----------------------------------------------------------------------------------

    def resources(self, agent_id: str | None = None) -> ResourceRegistry:
        """Return a paglet's registry of resources to clean up."""
        return self._host.resources_for(self._own(agent_id))

    def work_dir(self, *, create: bool = True, agent_id: str | None = None) -> Path:
        """Return a paglet's private scratch directory on this host."""
        return self._host.work_dir_for(self._own(agent_id), create=create)

    def persistent_storage(self, *, quota_bytes: int | None = None, agent_id: str | None = None) -> ManagedStorage:
        """Return the storage that all paglets of one class share on this host; None takes the host's default quota."""
        return self._host.persistent_storage_for(self._own(agent_id), quota_bytes=quota_bytes)

    def register_file(
        self, path: Path | str, *, name: str | None = None, mode: str = "copy", agent_id: str | None = None
    ) -> PagletFileRef:
        """Have a file travel with a paglet; ``mode="move"`` deletes it here once the paglet has arrived elsewhere."""
        return self._host.register_file_for(self._own(agent_id), path, name=name, mode=mode)

    def registered_files(self, *, agent_id: str | None = None) -> list[PagletFileRef]:
        """Return the files that travel with a paglet, in order of registration."""
        return self._host.registered_files_for(self._own(agent_id))

    def unregister_file(self, name_or_ref: str | PagletFileRef, *, agent_id: str | None = None) -> None:
        """Leave a file behind from now on; the file itself is not touched."""
        self._host.unregister_file_for(self._own(agent_id), name_or_ref)

    def file_path(self, name_or_ref: str | PagletFileRef, *, agent_id: str | None = None) -> Path:
        """Return where a registered file lies on this host.

        :raises HostError: no file is registered under this name.
        """
        return self._host.registered_file_path_for(self._own(agent_id), name_or_ref)

    def upload_artifact(
        self,
        path: Path | str,
        *,
        host_url: str | None = None,
        owner_agent_id: str | None = None,
        name: str | None = None,
        compression: str = "",
        expires_at: float = 0.0,
    ) -> ArtifactRef:
        """Store a file on a host, this one by default; ``expires_at`` in Unix seconds, 0 for never."""
        owner = owner_agent_id if owner_agent_id is not None else (self._agent_id or "")
        return self._host.client.upload_artifact(
            host_url or self.address,
            path,
            owner_agent_id=owner,
            name=name,
            compression=compression,
            expires_at=expires_at,
        )

    def download_artifact(self, artifact: ArtifactRef, target: Path | str, *, move: bool = False) -> ArtifactRef:
        """Fetch a stored file, verified; ``move`` deletes it at its host afterwards."""
        return self._host.client.download_artifact(artifact, target, move=move)

    def read_artifact(self, artifact: ArtifactRef, *, start: int = 0, length: int | None = None) -> bytes:
        """Return a part of a stored file, less where it ends earlier; ``length`` in bytes, None for the rest."""
        return self._host.client.read_artifact(artifact, start=start, length=length)

    def delete_artifact(self, artifact: ArtifactRef) -> None:
        """Delete a stored file; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._host.client.delete_artifact(artifact)
