"""What a paglet's context needs of the host it is on.

Two things implement it: the real host, for code beside it, and the facade inside a paglet process, which asks the host
over the paglet's channel. A `paglets.core.context.PagletContext` cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from paglets.artifacts import PagletFileRef
    from paglets.core.agent import Paglet, PagletState
    from paglets.core.allowance import Allowance, AllowanceBalance
    from paglets.core.messages import Message, ReplySet
    from paglets.core.policies import DeactivationRequest
    from paglets.core.resources import ResourceRegistry
    from paglets.core.runtime_values import ServiceScope
    from paglets.persistence.storage import ManagedStorage
    from paglets.remote.client import HostClient
    from paglets.remote.mesh import HostRef
    from paglets.remote.proxy import PagletProxy
    from paglets.remote.transfer import TransferTicket
    from paglets.services.contracts import ServiceContract, ServiceHandle, ServiceRecord
    from paglets.services.pool import RetryPolicy, ServicePool
    from paglets.services.resident import ServiceLease


class MeshPort(Protocol):
    """The hosts that this host knows."""

    @property
    def code_version(self) -> str:
        """Version of the code that hosts must share to form a mesh."""

    def hosts(self, *, online_only: bool = False, include_self: bool = True) -> list[HostRef]:
        """Return the known hosts, sorted by name and URL."""

    def lookup(self, name_or_url: str) -> HostRef | None:
        """Return the host with exactly this name or URL, or None."""

    def is_online(self, name_or_url: str) -> bool:
        """Tell whether a host is known and online."""

    def wait_for_host(self, name_or_url: str, *, timeout: float = 10.0, interval: float = 0.25) -> HostRef:
        """Wait up to ``timeout`` seconds for a host to be online; HostError if it is not."""

    def resolve_url(self, name_or_url: str) -> str:
        """Return the URL of a known host, or the normalised input."""


class HostPort(Protocol):
    """Name, address and operations of a host, as seen by a context on it."""

    @property
    def name(self) -> str:
        """The host's name."""

    @property
    def address(self) -> str:
        """The host's base URL, without a trailing slash."""

    @property
    def client(self) -> HostClient:
        """The client for calls to this and other hosts."""

    @property
    def mesh(self) -> MeshPort:
        """The hosts this host knows."""

    def proxy_for(self, host_url: str, agent_id: str) -> PagletProxy:
        """Return a proxy without checking that the paglet exists."""

    def get_proxy(self, agent_id: str, *, include_inactive: bool = False) -> PagletProxy | None: ...

    def get_proxies(self, state: int = ...) -> list[PagletProxy]: ...

    def list_agents(
        self, *, active: bool = True, inactive: bool = False, include_state: bool = False
    ) -> list[dict[str, Any]]: ...

    def list_hosts(self, *, online_only: bool = False, include_self: bool = True) -> list[HostRef]: ...

    def health(self) -> dict[str, Any]: ...

    def get_property(self, key: str, default: Any = None) -> Any: ...

    def set_property(self, key: str, value: Any) -> None: ...

    def create(
        self,
        agent_cls: type[Paglet[Any]],
        state: PagletState | None = None,
        *,
        init: Any = None,
        agent_id: str | None = None,
        allowance: Allowance | None = None,
    ) -> PagletProxy: ...

    def create_remote(
        self,
        target: str,
        agent_cls: type[Paglet[Any]],
        state: PagletState | None = None,
        *,
        init: Any = None,
        agent_id: str | None = None,
        allowance: Allowance | None = None,
    ) -> PagletProxy: ...

    def dispatch(self, agent_id: str, target: str | TransferTicket) -> PagletProxy: ...

    def clone(self, agent_id: str, *, target: str | TransferTicket | None = None) -> PagletProxy: ...

    def deactivate(self, agent_id: str, request: DeactivationRequest | None = None) -> PagletProxy: ...

    def dispose(self, agent_id: str) -> None: ...

    def checkpoint(self, agent_id: str) -> None: ...

    def allowance(self, agent_id: str) -> AllowanceBalance: ...

    def remind(
        self,
        agent_id: str,
        name: str,
        *,
        after: float | None,
        every: float | None,
        at: float | None,
        args: dict[str, Any] | None,
    ) -> None: ...

    def forget(self, agent_id: str, name: str) -> bool: ...

    def deliver_message(
        self,
        agent_id: str,
        message: Message,
        *,
        oneway: bool = False,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
    ) -> Any: ...

    def multicast_message(
        self, kind: str | Message, args: dict[str, Any] | None = None, *, exclude: set[str] | None = None
    ) -> ReplySet: ...

    def wait_message(self, agent_id: str, *, timeout: float | None = None) -> bool: ...

    def notify_message(self, agent_id: str) -> None: ...

    def notify_all_messages(self, agent_id: str) -> None: ...

    def mailbox_status(self, agent_id: str) -> dict[str, int]: ...

    def resources_for(self, agent_id: str) -> ResourceRegistry: ...

    def work_dir_for(self, agent_id: str, *, create: bool = True) -> Path: ...

    def persistent_storage_for(self, agent_id: str, *, quota_bytes: int | None = None) -> ManagedStorage: ...

    def register_file_for(
        self, agent_id: str, path: str | Path, *, name: str | None = None, mode: str = "copy"
    ) -> PagletFileRef: ...

    def registered_files_for(self, agent_id: str) -> list[PagletFileRef]: ...

    def unregister_file_for(self, agent_id: str, name_or_ref: str | PagletFileRef) -> None: ...

    def registered_file_path_for(self, agent_id: str, name_or_ref: str | PagletFileRef) -> Path: ...

    def advertise_service(
        self,
        agent_id: str,
        name: str,
        *,
        capabilities: Sequence[str] | None = None,
        metadata: dict[str, Any] | None = None,
        scope: ServiceScope = ...,
        ttl: float | None = None,
    ) -> ServiceRecord: ...

    def unadvertise_service(self, name: str, *, agent_id: str | None = None) -> list[ServiceRecord]: ...

    def lookup_service(
        self, name: str, *, capability: str | None = None, scope: ServiceScope = ...
    ) -> ServiceRecord | None: ...

    def lookup_services(
        self, name: str | None = None, *, capability: str | None = None, scope: ServiceScope = ...
    ) -> list[ServiceRecord]: ...

    def service_handle(
        self, contract: ServiceContract, record: ServiceRecord, *, scope: ServiceScope | None = None
    ) -> ServiceHandle:
        """Return a handle that calls the record's provider through this host's client.

        With a scope it looks there for another provider when that one is lost.
        """

    def service_pool(
        self, contract: ServiceContract, *, scope: ServiceScope = ..., policy: RetryPolicy | None = None
    ) -> ServicePool:
        """Return what spreads calls over all providers of a contract."""

    def lease_service_handle(self, handle: ServiceHandle, *, ttl: float = ...) -> ServiceLease: ...
