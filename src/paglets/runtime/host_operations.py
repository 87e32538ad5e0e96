"""What any thread may ask of a running host: each method puts its work on the host's event loop and waits for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from paglets.artifacts import PagletFileRef, registered_name, registered_path
from paglets.artifacts.streams import existing_path
from paglets.core.agent import Paglet, PagletState
from paglets.core.allowance import Allowance, AllowanceBalance, AllowanceGrant
from paglets.core.context import ACTIVE, INACTIVE
from paglets.core.errors import HostError
from paglets.core.messages import FutureReply, Message, ReplySet
from paglets.core.policies import DeactivationRequest
from paglets.core.runtime_values import ServiceScope
from paglets.core.terms import FIRST_ATTEMPT, DeliveryTerms
from paglets.persistence.storage import ManagedStorage
from paglets.remote.client import HostClient
from paglets.remote.mesh import MeshRegistry
from paglets.remote.proxy import PagletProxy
from paglets.remote.transfer import TransferTicket
from paglets.runtime.assembly import Assembly
from paglets.runtime.at_rest import stored_summaries
from paglets.runtime.creation import blueprint
from paglets.runtime.node import Node
from paglets.runtime.posting import Posting
from paglets.runtime.remote_resources import RemoteResources
from paglets.runtime.submission import deliver, deliver_later
from paglets.runtime.views import mailbox_counts
from paglets.runtime.worker.host import multicast_copy
from paglets.serialization.codec import dataclass_from_wire
from paglets.services.consumer import ServiceConsumer
from paglets.services.contracts import ServiceRecord

S = TypeVar("S")
T = TypeVar("T")


class HostOperations(ServiceConsumer, ABC):
    """The operations of a host that concern its paglets and services, as synchronous methods."""

    name: str
    client: HostClient
    mesh: MeshRegistry
    persistence_dir: Path
    _assembly: Assembly | None

    @property
    @abstractmethod
    def address(self) -> str:
        """Base URL for others, without a trailing slash."""

    def _running(self) -> Assembly:
        assembly = self._assembly
        if assembly is None:
            raise HostError(f"host {self.name} is not started")
        return assembly

    @property
    def _node(self) -> Node:
        return self._running().node

    def _wait(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self._running().run(work())

    # --- information --------------------------------------------------------------------------------------------------

    def list_agents(
        self, *, active: bool = True, inactive: bool = False, include_state: bool = False
    ) -> list[dict[str, Any]]:
        """Return summaries of paglets, the active ones in order of creation, then the inactive ones.

        A host that is not started lists what is stored in its directory.
        """
        if self._assembly is None:
            return self._stored_summaries() if inactive else []
        node = self._node
        return self._wait(lambda: node.views.list_agents(active=active, inactive=inactive, include_state=include_state))

    def _stored_summaries(self) -> list[dict[str, Any]]:
        return stored_summaries(self.persistence_dir, self.name, self.address)

    def agent_summary(self, agent_id: str) -> dict[str, Any]:
        """Return the summary of one paglet.

        :raises InvalidAgentError: it is unknown here.
        """
        node = self._node
        return self._running().call(lambda: node.views.summary(agent_id))

    def get_state(self, agent_id: str, state_cls: type[S]) -> S:
        """Return a snapshot of an active paglet's state.

        :raises InvalidAgentError: it is inactive or unknown.
        :raises PagletCrashedError: its process ended.
        """
        node = self._node

        async def blob() -> dict[str, Any]:
            entry = node.kernel.agents.require(agent_id)
            entry.live_place()
            payload: dict[str, Any] = (await node.views.state_payload(agent_id))["state"]
            return payload

        state: S = dataclass_from_wire(state_cls, self._wait(blob))
        return state

    # --- proxies ------------------------------------------------------------------------------------------------------

    def proxy_for(self, host_url: str, agent_id: str) -> PagletProxy:
        """Return a proxy without checking that the paglet exists."""
        return PagletProxy(host_url, agent_id, self.client)

    def _proxy(self, wire: dict[str, str]) -> PagletProxy:
        return PagletProxy.from_wire(wire, self.client)

    def get_proxy(self, agent_id: str, *, include_inactive: bool = False) -> PagletProxy | None:
        """Return a proxy of an active paglet, or of an inactive one too; None if it is not here."""
        assembly = self._assembly
        if assembly is None:
            return None
        wanted = ACTIVE | INACTIVE if include_inactive else ACTIVE
        return self.proxy_for(self.address, agent_id) if agent_id in self._ids(wanted) else None

    def get_proxies(self, state: int = ACTIVE) -> list[PagletProxy]:
        """Return proxies of the paglets in the states of the mask ``ACTIVE | INACTIVE``."""
        return [self.proxy_for(self.address, agent_id) for agent_id in self._ids(state)]

    def _ids(self, mask: int) -> list[str]:
        if self._assembly is None:
            return [row["agent_id"] for row in self._stored_summaries()] if mask & INACTIVE else []
        node = self._node
        return self._running().call(lambda: node.kernel.agent_ids(mask, node.dormitory.agent_ids))

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
        """Create a paglet here.

        :param allowance: what it may use up; by default what its class says.
        :raises AllowanceExceededError: its state is larger than that.
        :raises ConflictError: the id is taken.
        :raises PagletError: the class or state is unusable, or a hook or an early ``run`` failed; nothing is left then.
        """
        agent_name, state_name, blob = blueprint(agent_cls, state)
        node = self._node
        return self._proxy(
            self._wait(
                lambda: node.create(
                    agent_name,
                    state_name,
                    blob,
                    init=init,
                    agent_id=agent_id,
                    trusted=True,
                    allowance=allowance,
                )
            )
        )

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
        """Create a paglet on the host at ``target``, a URL or the name of a mesh host.

        :param allowance: what it may use up, as far as that host lets it; by default what its class says.
        """
        agent_name, state_name, blob = blueprint(agent_cls, state)
        payload: dict[str, Any] = {
            "agent_class_name": agent_name,
            "state_class_name": state_name,
            "state_blob": blob.bytes(),
            "init": init,
            "agent_id": agent_id,
        }
        if allowance is not None:
            payload["allowance"] = allowance.to_wire()
        reply = self.client.post_pickle(f"{self.mesh.resolve_url(target)}/agents", payload)
        return self._proxy(reply["proxy"])

    def dispatch(self, agent_id: str, target: str | TransferTicket) -> PagletProxy:
        """Move a paglet to another host.

        :raises TransferError: it did not move and goes on here.
        :raises InvalidAgentError: no such active paglet.
        """
        node, ticket = self._node, TransferTicket.from_target(target)
        return self._proxy(self._wait(lambda: node.dispatch(agent_id, ticket)))

    def clone(self, agent_id: str, *, target: str | TransferTicket | None = None) -> PagletProxy:
        """Copy a paglet under a new id, here or to ``target``."""
        node = self._node
        ticket = None if target is None else TransferTicket.from_target(target)
        return self._proxy(self._wait(lambda: node.clone(agent_id, ticket)))

    def retract(self, remote_host_url: str, agent_id: str) -> PagletProxy:
        """Pull a paglet from another host to this one."""
        node = self._node
        return self._proxy(self._wait(lambda: node.retract_from(remote_host_url, agent_id)))

    def drain(self, to: Sequence[str] | None = None, *, timeout: float = 30.0) -> dict[str, Any]:
        """Begin to move every paglet to other hosts, or to put it to sleep, and take nothing new in.

        :param to: names or URLs of the hosts that take them; None for all others that are online, nobody to move none.
        :param timeout: seconds that one paglet may take for each step.
        :return: how far it is, as `drain_status` does; it goes on in the background.
        :raises ConflictError: a drain is under way.
        """
        node = self._node
        return self._wait(lambda: _on_loop(lambda: node.drain.begin(to, timeout)))

    def undrain(self) -> dict[str, Any]:
        """Take paglets in again, and see to the messages and timers that have waited."""
        node = self._node
        return self._wait(node.drain.undo)

    def drain_status(self) -> dict[str, Any]:
        """Return ``draining``, ``running``, ``total``, and in ``moved``, ``asleep``, ``stayed`` what became of whom."""
        node = self._node
        return self._wait(lambda: _on_loop(node.drain.status))

    def deactivate(self, agent_id: str, request: DeactivationRequest | None = None) -> PagletProxy:
        """Store a paglet on disk and end its process."""
        node = self._node
        return self._proxy(self._wait(lambda: node.deactivate(agent_id, request)))

    def activate(self, agent_id: str) -> PagletProxy:
        """Bring an inactive paglet back."""
        node = self._node
        return self._proxy(self._wait(lambda: node.activate(agent_id)))

    def dispose(self, agent_id: str) -> None:
        """End a paglet for good, be it active, inactive or crashed."""
        node = self._node
        self._wait(lambda: node.dispose(agent_id))

    def operate(self, agent_id: str, operation: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Perform a lifecycle operation given as its HTTP route would be."""
        node = self._node
        return self._wait(lambda: node.operate(agent_id, operation, payload))

    def checkpoint(self, agent_id: str) -> None:
        """Have the present state of an active paglet on disk when this returns.

        :raises LifecycleError: its class keeps none.
        """
        node = self._node
        self._wait(lambda: node.checkpoint(agent_id))

    def allowance(self, agent_id: str) -> AllowanceBalance:
        """Return what a paglet here has used of its allowance, and what is left.

        :raises InvalidAgentError: it is unknown here.
        """
        node = self._node
        return self._running().call(lambda: node.allowances.balance(agent_id))

    def grant_allowance(self, agent_id: str, grant: AllowanceGrant) -> AllowanceBalance:
        """Change what a paglet here has left, on disk when this returns, and return that.

        :raises InvalidAgentError: it is unknown here.
        :raises ConflictError: it is being created, or arrives.
        """
        node = self._node
        return self._wait(lambda: node.allowances.grant(agent_id, grant))

    def remind(
        self,
        agent_id: str,
        name: str,
        *,
        after: float | None = None,
        every: float | None = None,
        at: float | None = None,
        args: dict[str, Any] | None = None,
    ) -> None:
        """Set a durable timer of a paglet here; see `paglets.core.agent.Paglet.remind`."""
        node = self._node
        chosen = args or {}
        self._wait(lambda: node.remind(agent_id, name, after=after, every=every, at=at, args=chosen))

    def forget(self, agent_id: str, name: str) -> bool:
        """Remove a timer of a paglet here; return whether there was one."""
        node = self._node
        return self._wait(lambda: node.timers.forget(agent_id, name))

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
        """Deliver a message to a paglet here and return the reply, None for a one-way message."""
        return self.deliver_within(
            None,
            agent_id,
            message,
            oneway=oneway,
            activate_if_inactive=activate_if_inactive,
            no_delay=no_delay,
        )

    def deliver_within(
        self,
        timeout: float | None,
        agent_id: str,
        message: Message,
        *,
        oneway: bool = False,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        terms: DeliveryTerms = FIRST_ATTEMPT,
        found: dict[str, str] | None = None,
    ) -> Any:
        """Deliver a message and wait at most ``timeout`` seconds for the reply.

        :param found: gets ``location`` and ``home`` of a paglet that turns out to be on another host.
        :raises TimeoutError: no reply in time; the message may still be handled.
        """
        posting = Posting.of(
            message,
            oneway=oneway,
            activate_if_inactive=activate_if_inactive,
            no_delay=no_delay,
            terms=terms,
            found=found,
        )
        assembly = self._running()
        return deliver(assembly.loop, assembly.node.post, agent_id, posting, timeout)

    def multicast_message(
        self, kind: str | Message, args: dict[str, Any] | None = None, *, exclude: set[str] | None = None
    ) -> ReplySet:
        """Send a message to every active paglet here but those in ``exclude``."""
        replies = ReplySet()
        for agent_id in self._ids(ACTIVE):
            if agent_id not in (exclude or ()):
                replies.add_future_reply(self._future_reply(agent_id, multicast_copy(kind, args)))
        return replies

    def _future_reply(self, agent_id: str, message: Message) -> FutureReply:
        assembly = self._running()
        return deliver_later(
            assembly.loop,
            assembly.node.post,
            agent_id,
            message,
            lambda: self.client.withdraw(self.address, agent_id, message.message_id),
        )

    def wait_message(self, agent_id: str, *, timeout: float | None = None) -> bool:
        """Wait for a notification of a paglet here; return whether one came in time."""
        node = self._node
        return self._wait(lambda: node.wait_message(agent_id, timeout))

    def notify_message(self, agent_id: str) -> None:
        """Wake one who waits for a notification of a paglet."""
        node = self._node
        self._running().call(lambda: node.notify(agent_id, everyone=False))

    def notify_all_messages(self, agent_id: str) -> None:
        """Wake everyone who waits for a notification of a paglet."""
        node = self._node
        self._running().call(lambda: node.notify(agent_id, everyone=True))

    def mailbox_status(self, agent_id: str) -> dict[str, int]:
        """Return the four counters of a paglet's mailbox."""
        node = self._node
        return self._running().call(lambda: mailbox_counts(node.kernel.agents.require(agent_id)))

    # --- resources, storage, files ------------------------------------------------------------------------------------

    def resources_for(self, agent_id: str) -> Any:
        """Return a view of the resources inside a paglet's process: ``status()``, ``remove(name)``,
        ``cleanup(reason=)``."""
        assembly = self._running()
        return RemoteResources(assembly.run, assembly.call(lambda: assembly.node.kernel.agents.require(agent_id)))

    def work_dir_for(self, agent_id: str, *, create: bool = True) -> Path:
        """Return an active paglet's scratch directory."""
        node = self._node
        return Path(self._wait(lambda: node.work_dir(agent_id, create=create)))

    def persistent_storage_for(self, agent_id: str, *, quota_bytes: int | None = None) -> ManagedStorage:
        """Return the storage that all paglets of this one's class share."""
        node = self._node
        place = self._running().call(lambda: node.storage(agent_id))
        return ManagedStorage(place["root"], quota_bytes=place["quota_bytes"] if quota_bytes is None else quota_bytes)

    def register_file_for(
        self, agent_id: str, path: str | Path, *, name: str | None = None, mode: str = "copy"
    ) -> PagletFileRef:
        """Have a file or directory travel with a paglet."""
        node = self._node
        resolved = existing_path(path)
        return self._wait(lambda: node.register_file(agent_id, resolved, name=name, mode=mode))

    def registered_files_for(self, agent_id: str) -> list[PagletFileRef]:
        """Return the files that travel with a paglet."""
        node = self._node
        return self._running().call(lambda: node.registered_files(agent_id))

    def unregister_file_for(self, agent_id: str, name_or_ref: str | PagletFileRef) -> None:
        """Leave a file behind from now on."""
        node = self._node
        name = registered_name(name_or_ref)
        self._wait(lambda: node.unregister_file(agent_id, name))

    def registered_file_path_for(self, agent_id: str, name_or_ref: str | PagletFileRef) -> Path:
        """Return where a registered file lies.

        :raises HostError: no file is registered under this name.
        """
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
        """Make a paglet findable under a service name; ``ttl`` in seconds."""
        node = self._node
        chosen = list(capabilities or ())
        return self._running().call(
            lambda: node.services.advertise(
                agent_id, name, capabilities=chosen, metadata=metadata, scope=scope, ttl=ttl
            )
        )

    def unadvertise_service(self, name: str, *, agent_id: str | None = None) -> list[ServiceRecord]:
        """Withdraw the records of a service, of one paglet or of all, and return them."""
        node = self._node
        return self._running().call(lambda: node.services.unadvertise(name, agent_id))

    def lookup_services(
        self, name: str | None = None, *, capability: str | None = None, scope: ServiceScope = ServiceScope.LOCAL
    ) -> list[ServiceRecord]:
        """Return matching records of this host, or of the mesh."""
        node = self._node
        return self._wait(lambda: node.services.lookup_services(name, capability=capability, scope=scope))

    def _take_lease(self, provider: ServiceRecord, ttl: float) -> dict[str, Any]:
        node = self._node
        return self._wait(lambda: node.leases.take(provider, ttl))

    def acquire_resident_service_lease(self, agent_id: str, service_name: str, *, ttl: float) -> dict[str, Any]:
        """Have a managed resident service of this host up for ``ttl`` seconds; return ``lease_id`` and ``expires_at``.

        :raises HostError: ``ttl`` is not above 0, or more than a week.
        :raises ServiceNotFoundError: there is no managed service of that name and id.
        """
        node = self._node
        return self._wait(lambda: node.leases.give(agent_id, service_name, ttl))

    def release_resident_service_lease(self, lease_id: str) -> dict[str, bool]:
        """Give a lease back; ``released`` tells whether there was one."""
        node = self._node
        return {"released": self._running().call(lambda: node.leases.release(lease_id))}

    def resident_services(self) -> list[dict[str, Any]]:
        """Return how the managed resident services of this host are, in the order of their declaration."""
        node = self._node
        return self._running().call(node.residents.overview)


async def _on_loop(call: Callable[[], T]) -> T:
    return call()
