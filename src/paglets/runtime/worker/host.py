"""The host as a paglet sees it from inside its own process: the same methods, each a call over the paglet's channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from paglets.artifacts import PagletFileRef, registered_name, registered_path
from paglets.artifacts.streams import existing_path
from paglets.core.allowance import Allowance, AllowanceBalance
from paglets.core.context import ACTIVE
from paglets.core.errors import InvalidAgentError, LifecycleError
from paglets.core.messages import Message, ReplySet
from paglets.core.policies import DeactivationRequest
from paglets.core.runtime_values import Durability, ServiceScope
from paglets.persistence.storage import ManagedStorage
from paglets.remote.mesh import HostRef
from paglets.remote.proxy import PagletProxy
from paglets.remote.transfer import TransferTicket
from paglets.runtime.attachment import Attachment
from paglets.runtime.worker.client import WorkerClient
from paglets.runtime.worker.endpoint import Endpoint
from paglets.runtime.worker.exchange import Exchange
from paglets.serialization.blob import encode_blob
from paglets.serialization.names import qualified_name
from paglets.services.consumer import ServiceConsumer
from paglets.services.contracts import ServiceRecord

if TYPE_CHECKING:
    from paglets.core.agent import Paglet, PagletState
    from paglets.core.resources import ResourceRegistry


class WorkerMesh:
    """The hosts that this paglet's host knows."""

    def __init__(self, client: WorkerClient) -> None:
        self._client = client

    @property
    def code_version(self) -> str:
        """Version of the code that hosts must share to form a mesh."""
        return str(self._client.call("code_version"))

    def hosts(self, *, online_only: bool = False, include_self: bool = True) -> list[HostRef]:
        """Return the known hosts, sorted by name and URL."""
        wires = self._client.call("list_hosts", online_only=online_only, include_self=include_self)
        return [HostRef.from_wire(wire) for wire in wires]

    def lookup(self, name_or_url: str) -> HostRef | None:
        """Return the host with exactly this name or URL, or None."""
        wire = self._client.call("lookup_host", name_or_url=name_or_url)
        return None if wire is None else HostRef.from_wire(wire)

    def is_online(self, name_or_url: str) -> bool:
        """Tell whether a host is known and online."""
        return bool(self._client.call("is_host_online", name_or_url=name_or_url))

    def wait_for_host(self, name_or_url: str, *, timeout: float = 10.0, interval: float = 0.25) -> HostRef:
        """Wait up to ``timeout`` seconds for a host to be online; HostError if it is not."""
        wire = self._client.call("wait_for_host", name_or_url=name_or_url, timeout=timeout, interval=interval)
        return HostRef.from_wire(wire)

    def resolve_url(self, name_or_url: str) -> str:
        """Return the URL of a known host, or the normalised input."""
        return str(self._client.call("resolve_url", name_or_url=name_or_url))


class Snapshot(Protocol):
    """Take the state of the paglet of this process."""

    def __call__(self) -> tuple[int, Attachment | None]:
        """Return the state blob with a number that is higher for a newer one."""


class WorkerHost(ServiceConsumer):
    """Implement :class:`paglets.core.host_port.HostPort` for one paglet."""

    def __init__(
        self,
        endpoint: Endpoint,
        paglet: Paglet[Any],
        *,
        name: str,
        address: str,
        in_handler: Callable[[], bool],
        exchange: Callable[[], Exchange | None],
        snapshot: Snapshot,
        handlers_rest: Callable[[], bool | None],
    ) -> None:
        self._endpoint = endpoint
        self._paglet = paglet
        self._snapshot = snapshot
        self._handlers_rest = handlers_rest
        self.name = name
        self.address = address
        self._in_handler = in_handler
        self._exchange = exchange

    # Made when they are first asked for: every function that an idle paglet never runs saves it some 40 KB of private
    # memory.

    @cached_property
    def client(self) -> WorkerClient:
        """The client for calls to this and other hosts."""
        return WorkerClient(self._endpoint, exchange=self._exchange)

    @cached_property
    def mesh(self) -> WorkerMesh:
        """The hosts that this host knows."""
        return WorkerMesh(self.client)

    def _call(self, method_name: str, /, **arguments: Any) -> Any:
        return self.client.call(method_name, **arguments)

    def _own(self, agent_id: str) -> None:
        if agent_id != self._paglet.agent_id:
            raise InvalidAgentError(
                f"a paglet manages only itself through its context; use a proxy for {agent_id} (own id is "
                f"{self._paglet.agent_id})"
            )

    # --- proxies and information --------------------------------------------------------------------------------------

    def proxy_for(self, host_url: str, agent_id: str) -> PagletProxy:
        """Return a proxy without checking that the paglet exists."""
        return PagletProxy(host_url, agent_id, self.client)

    def _proxy(self, wire: dict[str, str]) -> PagletProxy:
        return PagletProxy.from_wire(wire, self.client)

    def get_proxy(self, agent_id: str, *, include_inactive: bool = False) -> PagletProxy | None:
        """Return a proxy of a local paglet, None if it is not here."""
        known = self._call("has_agent", agent_id=agent_id, include_inactive=include_inactive)
        return self.proxy_for(self.address, agent_id) if known else None

    def get_proxies(self, state: int = ACTIVE) -> list[PagletProxy]:
        """Return proxies of the local paglets in the given states."""
        return [self.proxy_for(self.address, agent_id) for agent_id in self._call("agent_ids", state=state)]

    def list_agents(
        self, *, active: bool = True, inactive: bool = False, include_state: bool = False
    ) -> list[dict[str, Any]]:
        """Return summaries of the paglets on this host."""
        answer: list[dict[str, Any]] = self._call(
            "list_agents", active=active, inactive=inactive, include_state=include_state
        )
        return answer

    def list_hosts(self, *, online_only: bool = False, include_self: bool = True) -> list[HostRef]:
        """Return the known hosts."""
        return self.mesh.hosts(online_only=online_only, include_self=include_self)

    def health(self) -> dict[str, Any]:
        """Return the host's health."""
        answer: dict[str, Any] = self._call("health")
        return answer

    def get_property(self, key: str, default: Any = None) -> Any:
        """Return a property of the host."""
        return self._call("get_property", key=key, default=default)

    def set_property(self, key: str, value: Any) -> None:
        """Set a property of the host; its value must be encodable."""
        self._call("set_property", key=key, value=value)

    # --- lifecycle ----------------------------------------------------------------------------------------------------

    def create(
        self,
        agent_cls: type[Paglet[Any]],
        state: PagletState | None = None,
        *,
        init: Any = None,
        agent_id: str | None = None,
        allowance: Allowance | None = None,
    ) -> PagletProxy:
        """Create a paglet on this host."""
        return self.create_remote("", agent_cls, state, init=init, agent_id=agent_id, allowance=allowance)

    def create_remote(
        self,
        target: str,
        agent_cls: type[Paglet[Any]],
        state: PagletState | None = None,
        *,
        init: Any = None,
        agent_id: str | None = None,
        allowance: Allowance | None = None,
    ) -> PagletProxy:
        """Create a paglet on the host at ``target``; it gets no more than this one has left."""
        state_value = agent_cls.state_class()() if state is None else state
        return self._proxy(
            self._call(
                "create",
                target=target,
                agent_class_name=qualified_name(agent_cls),
                state_class_name=qualified_name(state_value),
                state=encode_blob(state_value).tobytes(),
                init=init,
                agent_id=agent_id,
                allowance=None if allowance is None else allowance.to_wire(),
                own=type(self._paglet).ALLOWANCE.to_wire(),
            )
        )

    def dispatch(self, agent_id: str, target: str | TransferTicket) -> PagletProxy:
        """Move this paglet."""
        self._own(agent_id)
        return self._proxy(self._lifecycle("dispatch", ticket=TransferTicket.from_target(target).to_wire()))

    def clone(self, agent_id: str, *, target: str | TransferTicket | None = None) -> PagletProxy:
        """Copy this paglet."""
        self._own(agent_id)
        ticket = None if target is None else TransferTicket.from_target(target).to_wire()
        return self._proxy(self._lifecycle("clone", ticket=ticket))

    def deactivate(self, agent_id: str, request: DeactivationRequest | None = None) -> PagletProxy:
        """Store this paglet and end its process."""
        self._own(agent_id)
        return self._proxy(self._lifecycle("deactivate", request=None if request is None else request.to_wire()))

    def dispose(self, agent_id: str) -> None:
        """End this paglet for good."""
        self._own(agent_id)
        self._lifecycle("dispose")

    def checkpoint(self, agent_id: str) -> None:
        """Have the present state of this paglet on disk when this returns."""
        self._own(agent_id)
        exchange = self._exchange()
        if exchange is not None and exchange.durable:
            return  # the end of this handler is the checkpoint; half of its work must not be one
        if type(self._paglet).DURABILITY is Durability.MESSAGE:
            match self._handlers_rest():
                case None:
                    raise LifecycleError(
                        "this checkpoint would wait for a handler that may wait for this coroutine; "
                        "say await asyncio.to_thread(self.checkpoint)"
                    )
                case False:
                    self._call("checkpoint_between_handlers")
                    return
        number, state = self._snapshot()
        if state is not None:
            self._endpoint.call(f"checkpoint:{number}", state)

    def allowance(self, agent_id: str) -> AllowanceBalance:
        """Return what this paglet has left of its allowance."""
        self._own(agent_id)
        # While it is created the host does not know its class yet.
        return AllowanceBalance.from_wire(self._call("allowance", own=type(self._paglet).ALLOWANCE.to_wire()))

    def remind(
        self,
        agent_id: str,
        name: str,
        *,
        after: float | None,
        every: float | None,
        at: float | None,
        args: dict[str, Any] | None,
    ) -> None:
        """Set a timer of this paglet."""
        self._own(agent_id)
        self._call("remind", name=name, after=after, every=every, at=at, args=args or {})

    def forget(self, agent_id: str, name: str) -> bool:
        """Remove a timer of this paglet."""
        self._own(agent_id)
        return bool(self._call("forget", name=name))

    def _lifecycle(self, operation: str, **arguments: Any) -> Any:
        # A handler that asks is not waited for; `run` and other threads wait until the running handler has ended.
        return self._call(operation, in_handler=self._in_handler(), **arguments)

    # --- messages -----------------------------------------------------------------------------------------------------

    def deliver_message(
        self,
        agent_id: str,
        message: Message,
        *,
        oneway: bool = False,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
    ) -> Any:
        """Deliver a message to a paglet on this host."""
        return self.client.deliver(
            self.address,
            agent_id,
            message,
            oneway=oneway,
            activate_if_inactive=activate_if_inactive,
            no_delay=no_delay,
        )

    def multicast_message(
        self, kind: str | Message, args: dict[str, Any] | None = None, *, exclude: set[str] | None = None
    ) -> ReplySet:
        """Send a message to every active paglet on this host but those in ``exclude``."""
        replies = ReplySet()
        for proxy in self.get_proxies():
            if proxy.agent_id not in (exclude or ()):
                replies.add_future_reply(proxy.send_future(multicast_copy(kind, args)))
        return replies

    def wait_message(self, agent_id: str, *, timeout: float | None = None) -> bool:
        """Wait for a notification of this paglet."""
        self._own(agent_id)
        return bool(self._call("wait_message", timeout=timeout))

    def notify_message(self, agent_id: str) -> None:
        """Wake one waiter of this paglet."""
        self._own(agent_id)
        self._call("notify_message", everyone=False)

    def notify_all_messages(self, agent_id: str) -> None:
        """Wake every waiter of this paglet."""
        self._own(agent_id)
        self._call("notify_message", everyone=True)

    def mailbox_status(self, agent_id: str) -> dict[str, int]:
        """Return the four counters of a local paglet's mailbox."""
        answer: dict[str, int] = self._call("mailbox_status", agent_id=agent_id)
        return answer

    # --- resources, storage, files ------------------------------------------------------------------------------------

    def resources_for(self, agent_id: str) -> ResourceRegistry:
        """Return this paglet's resources."""
        self._own(agent_id)
        return self._paglet.resources

    def work_dir_for(self, agent_id: str, *, create: bool = True) -> Path:
        """Return this paglet's scratch directory."""
        self._own(agent_id)
        return Path(self._call("work_dir", create=create))

    def persistent_storage_for(self, agent_id: str, *, quota_bytes: int | None = None) -> ManagedStorage:
        """Return the storage of this paglet's class; it is used directly, guarded by its own lock."""
        self._own(agent_id)
        place = self._call("storage")
        quota = place["quota_bytes"] if quota_bytes is None else quota_bytes
        return ManagedStorage(place["root"], quota_bytes=quota)

    def register_file_for(
        self, agent_id: str, path: str | Path, *, name: str | None = None, mode: str = "copy"
    ) -> PagletFileRef:
        """Have a file or directory travel with this paglet; its host reads it, once, and remembers its checksum."""
        self._own(agent_id)
        # Here, because the host has another working directory.
        resolved = existing_path(path)
        return PagletFileRef.from_wire(self._call("register_file", path=str(resolved), name=name, mode=mode))

    def registered_files_for(self, agent_id: str) -> list[PagletFileRef]:
        """Return the files that travel with this paglet."""
        self._own(agent_id)
        return [PagletFileRef.from_wire(wire) for wire in self._call("registered_files")]

    def unregister_file_for(self, agent_id: str, name_or_ref: str | PagletFileRef) -> None:
        """Leave a file behind from now on."""
        self._own(agent_id)
        self._call("unregister_file", name=registered_name(name_or_ref))

    def registered_file_path_for(self, agent_id: str, name_or_ref: str | PagletFileRef) -> Path:
        """Return where a registered file lies on this host."""
        return registered_path(self.registered_files_for(agent_id), name_or_ref)

    # --- services -----------------------------------------------------------------------------------------------------

    def advertise_service(
        self,
        agent_id: str,
        name: str,
        *,
        capabilities: Sequence[str] | None = None,
        metadata: dict[str, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
        ttl: float | None = None,
    ) -> ServiceRecord:
        """Make this paglet findable under a service name."""
        self._own(agent_id)
        wire = self._call(
            "advertise_service",
            name=name,
            capabilities=list(capabilities or ()),
            metadata=metadata,
            scope=scope_text(scope),
            ttl=ttl,
        )
        return ServiceRecord.from_wire(wire)

    def unadvertise_service(self, name: str, *, agent_id: str | None = None) -> list[ServiceRecord]:
        """Withdraw this paglet's record of a service."""
        if agent_id is not None:
            self._own(agent_id)
        return [ServiceRecord.from_wire(wire) for wire in self._call("unadvertise_service", name=name)]

    def lookup_services(
        self, name: str | None = None, *, capability: str | None = None, scope: ServiceScope = ServiceScope.LOCAL
    ) -> list[ServiceRecord]:
        """Return the matching records of this host, or of the mesh."""
        wires = self._call("lookup_services", name=name, capability=capability, scope=scope_text(scope))
        return [ServiceRecord.from_wire(wire) for wire in wires]

    def _take_lease(self, provider: ServiceRecord, ttl: float) -> dict[str, Any]:
        wire: dict[str, Any] = self._call("lease_service", record=provider.to_wire(), ttl=ttl)
        return wire


def multicast_copy(kind: str | Message, args: dict[str, Any] | None) -> Message:
    """Return a message of its own for one receiver of a multicast."""
    if isinstance(kind, Message):
        wire = kind.to_wire()
        wire.pop("message_id")
        return Message.from_wire(wire)
    return Message(kind, dict(args or {}))


def scope_text(scope: ServiceScope) -> str:
    """Return a scope as sent; anything but a member is a TypeError."""
    if not isinstance(scope, ServiceScope):
        raise TypeError("scope must be a ServiceScope")
    return scope.value
