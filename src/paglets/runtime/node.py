"""One host on its event loop: the kernel and everything around it, and the operations that every way in shares.

The synchronous :class:`paglets.runtime.host.Host`, the HTTP routes and the calls of the paglets themselves all end
here.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paglets.artifacts import PagletFileRef
from paglets.artifacts.store import ArtifactStore
from paglets.core.allowance import NO_LIMITS, Allowance
from paglets.core.errors import (
    HostError,
    RemoteHostError,
)
from paglets.core.messages import Message
from paglets.core.policies import DeactivationRequest
from paglets.persistence.directory import validate_agent_id
from paglets.persistence.envelope import PagletEnvelope
from paglets.protocol.delivery.routing import Departed, Elsewhere, Forward
from paglets.protocol.transfer.model import TransferKind
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.remote.mesh import MeshRegistry
from paglets.remote.transfer import TransferTicket
from paglets.runtime.activation import Activator
from paglets.runtime.agents import AgentEntry, Delivery, Opening, Phase, SelfCall
from paglets.runtime.allowances import AllowanceDesk
from paglets.runtime.arrival import ArrivalDesk
from paglets.runtime.artifact_desk import ArtifactDesk
from paglets.runtime.attachment import Attachment
from paglets.runtime.carriage import Carriage
from paglets.runtime.checkpoints import Checkpointer
from paglets.runtime.content_threads import ContentThreads
from paglets.runtime.creation import Creator
from paglets.runtime.deactivation import Deactivator
from paglets.runtime.dead_letters import DeadLetterDesk
from paglets.runtime.decisions import Decisions
from paglets.runtime.departure import DepartureDesk
from paglets.runtime.drain import Drain
from paglets.runtime.files import FileDesk
from paglets.runtime.imports import ImportDesk
from paglets.runtime.kernel import Kernel
from paglets.runtime.local_link import LocalTransferLink
from paglets.runtime.outbox import Outbox
from paglets.runtime.post import PostOffice
from paglets.runtime.posting import Posting
from paglets.runtime.recorder import JournalRecorder
from paglets.runtime.resident_services import ResidentServices
from paglets.runtime.residents.leases import LeaseDesk
from paglets.runtime.resumption import Resumption
from paglets.runtime.service_desk import ServiceDesk
from paglets.runtime.sleep import Dormitory
from paglets.runtime.targets import Targets
from paglets.runtime.timekeeper import Timekeeper
from paglets.runtime.transfer_log import TransferLog
from paglets.runtime.transfer_wire import HttpTransferLink, TransferLink
from paglets.runtime.units import queued_message
from paglets.runtime.unloading import UnloadingDesk
from paglets.runtime.views import Views
from paglets.runtime.wakeups import Wakeups
from paglets.runtime.whereabouts import Whereabouts
from paglets.security.caller import Caller
from paglets.serialization.blob import blob_from_wire
from paglets.services.contracts import ServiceRegistry

MOVE_THREADS = 4


@dataclass(frozen=True, slots=True)
class NodePorts:
    """What a node uses of the outside."""

    client: HostClient
    words: AsyncHostClient
    mesh: MeshRegistry
    services: ServiceRegistry
    health: Callable[[], dict[str, Any]]
    git_update: Callable[[dict[str, Any]], dict[str, Any]]
    storage_quota_bytes: int | None
    artifacts: ArtifactStore


class Node:
    """Operate one host; every method runs on its loop."""

    def __init__(self, kernel: Kernel, ports: NodePorts) -> None:
        self.kernel = kernel
        self.ports = ports
        self.artifacts = ports.artifacts
        self.blobs = ports.artifacts.blobs
        self.content = ContentThreads(kernel.config.name)
        self.files = FileDesk(kernel.config.directory, self.blobs, self.content.later)
        self.carriage = Carriage(kernel, self.blobs, self.content)
        self.artifact_desk = ArtifactDesk(ports.artifacts, self.content, ports.words, kernel.address.is_own)
        self.timers = Timekeeper(kernel)
        self.dormitory = Dormitory(kernel, self.files, self.timers)
        self.creator = Creator(kernel)
        self.activator = Activator(kernel, self.dormitory)
        self.wakeups = Wakeups(kernel, self.dormitory, self.activator, self.timers)
        self.deactivator = Deactivator(kernel, self.dormitory, self.wakeups)
        self.allowances = AllowanceDesk(kernel, self.dormitory, self.deactivator, self.wakeups, self.timers)
        self.views = Views(kernel, self.dormitory)
        self.services = ServiceDesk(kernel, ports.services, ports.mesh, ports.words)
        self.residents = ResidentServices(kernel, self.dormitory, self.activator, self.deactivator, self.services, self)
        self.leases = LeaseDesk(kernel, self.residents, ports.words)
        self.post = PostOffice(kernel, self.dormitory, self.activator, self.deactivator, self.wakeups)
        self.whereabouts = Whereabouts(kernel, self.dormitory, ports.words)
        self.post.forwarder = self.whereabouts
        self.post.residents = self.residents
        self.outbox = Outbox(kernel, self.post)
        kernel.post = self.outbox.send
        self.checkpoints = Checkpointer(kernel)
        JournalRecorder(kernel, post=self.outbox.send, orphaned=self._orphaned)
        kernel.messages.buried = self._bury
        self.timers.wake = self.wakeups.wake_on_time
        self.timers.collect = self._collect_and_wake
        kernel.timers = self.timers
        kernel.collect = self.post.collect
        self.ledger = kernel.ledger
        self.letters = DeadLetterDesk(kernel.journal, kernel.on_disk, self._redeliver)
        self._movers = ThreadPoolExecutor(MOVE_THREADS, thread_name_prefix=f"paglets-move-{kernel.config.name}")
        log = TransferLog(kernel.vault, kernel.address)
        self.arrivals = ArrivalDesk(
            kernel,
            self.dormitory,
            self.activator,
            self.files,
            UnloadingDesk(kernel, self.carriage, self.files),
            log,
            self.timers,
            self.whereabouts,
            link_to=self._link_to,
        )
        self.departures = DepartureDesk(
            kernel,
            self.files,
            self.carriage,
            log,
            self.timers,
            self.post,
            self.outbox,
            link_to=self._link_to,
            check_target=Targets(kernel, ports.words, ports.health).check,
        )
        self.resumption = Resumption(self, log)
        self.drain = Drain(
            kernel,
            self,
            targets=self._other_hosts,
            resolve=ports.mesh.resolve_url,
            wake=self.resumption.see_to_waiting,
            belongs_here=self.residents.manages,
        )
        self.decisions = self.post.decisions = Decisions(kernel.config.name, self.arrivals.undecided)
        self._local_link = LocalTransferLink(self.arrivals, self.departures.outcome)
        self._imports = ImportDesk(kernel, self.arrivals, ports.artifacts, self.content)
        kernel.self_call = self.perform_self_call

    def _other_hosts(self) -> list[str]:
        refs = self.ports.mesh.hosts(online_only=True, include_self=False)
        return [ref.url for ref in refs if not self.kernel.address.is_own(ref.url)]

    async def lives_elsewhere(self, agent_id: str) -> bool:
        """Tell whether a paglet that is not here lives on another host, as far as is known.

        Where it is undecided whether it is about to be here, that is waited for.
        """
        arrival = self.arrivals.undecided(agent_id)
        if arrival is not None:
            await arrival.wait()
        return isinstance(await self.whereabouts.knowledge(agent_id), Departed | Elsewhere)

    def _orphaned(self, agent_id: str) -> None:
        """See to a message that was stored for a paglet that sleeps or has left by now."""
        if agent_id in self.dormitory and agent_id not in self.kernel.agents:
            self.wakeups.look_at_mail(agent_id)
        else:
            self.kernel.background(self.post.collect(agent_id))

    async def _collect_and_wake(self, agent_id: str) -> None:
        await self.post.collect(agent_id, wake=True)

    def _bury(self, entry: AgentEntry, delivery: Delivery, reason: str) -> None:
        """Make a message that was accepted a dead letter."""
        if self.kernel.closed:
            return  # it has been seen to, with everything else that the stop of the host ends
        message = queued_message(delivery)
        self.kernel.background(self.kernel.vault.bury(entry.agent_id, self.kernel.address(), message, reason))

    async def _redeliver(self, host_url: str, agent_id: str, message: Message, oneway: bool) -> object:
        """Have a dead letter's message accepted again, here or where its receiver is."""
        del oneway  # whoever waited for the reply of one that is not has been answered with its failure
        posting = Posting.of(message, oneway=True)
        if self.kernel.address.is_own(host_url):
            return await self.post.send(agent_id, posting)
        return await self.whereabouts.forward(agent_id, posting, Forward(host_url, 0))

    async def locate(self, agent_id: str) -> dict[str, Any]:
        """Tell where a paglet is, as far as this host knows.

        :raises InvalidAgentError: it has never heard of it.
        """
        return await self.whereabouts.locate(agent_id)

    async def hear_of(self, agent_id: str, epoch: int, host_url: str | None) -> bool:
        """Take the news of another host about a paglet that was created here."""
        return await self.whereabouts.hear_of(agent_id, epoch, host_url)

    async def cancel_message(self, agent_id: str, message_id: str) -> bool:
        """Withdraw a message whose handler has not begun; return whether it could be."""
        return await self.post.cancel(agent_id, message_id)

    async def close(self) -> None:
        """Call off what is under way, end every process and close files."""
        self.departures.cancel_all("the host is shutting down")
        self.residents.close()
        self.files.close()
        await self.kernel.close()
        self._movers.shutdown(wait=False, cancel_futures=True)

    # --- lifecycle ----------------------------------------------------------------------------------------------------

    async def create(
        self,
        class_name: str,
        state_class_name: str,
        state: dict[str, Any] | Attachment | None,
        *,
        init: Any = None,
        agent_id: str | None = None,
        trusted: bool = False,
        by: Caller | None = None,
        allowance: Allowance | None = None,
        cap: Allowance = NO_LIMITS,
        reserved: Callable[[AgentEntry], None] | None = None,
    ) -> dict[str, str]:
        """Create a paglet; its state is a blob, plain values, or None for the class's defaults.

        :param allowance: what it may use up, by default what its class says.
        :param cap: the most that it gets.
        """
        blob = state if isinstance(state, Attachment) else Attachment.of(blob_from_wire(state or {}).segments)
        agent_id = validate_agent_id(agent_id) if agent_id else new_agent_id()
        try:
            return await self.creator.create(
                class_name,
                state_class_name,
                blob,
                init=init,
                agent_id=agent_id,
                trusted=trusted,
                by=by,
                opening=Opening(allowance, cap),
                reserved=reserved,
            )
        except Exception:
            if agent_id not in self.kernel.agents and agent_id not in self.dormitory:
                await self._remove_work_dir(agent_id)
            raise

    async def import_envelope(self, envelope: PagletEnvelope, by: Caller | None = None) -> dict[str, str]:
        """Take a paglet from an envelope; see `ImportDesk.take`."""
        return await self._imports.take(envelope, by)

    async def _decided(self, agent_id: str) -> None:
        """Where it is undecided whether a paglet is here, wait for that as long as for a handler.

        :raises HostUnreachableError: it is not decided by then.
        """
        if agent_id not in self.kernel.agents and agent_id not in self.dormitory and self.decisions.pending(agent_id):
            seconds = self.kernel.config.handler_wait_seconds
            await self.decisions.made(agent_id, seconds)
            await self.dormitory.awakening(agent_id, seconds)

    async def _settled(self, agent_id: str) -> AgentEntry | None:
        """Return the entry of a paglet, if it has one, as soon as it is decided whether it is here and does not wake.

        :raises HostUnreachableError: it is not decided in time.
        """
        await self._decided(agent_id)
        entry = self.kernel.agents.get(agent_id)
        if entry is not None and entry.phase is Phase.STARTING:
            # One that takes messages by now may be asking for itself: it is not waited for.
            await self.dormitory.awakening(agent_id, self.kernel.config.handler_wait_seconds)
            entry = self.kernel.agents.get(agent_id)
        return entry

    async def _present(self, agent_id: str) -> AgentEntry:
        """Return the entry of a paglet with a process, as soon as it is decided whether it is here and does not wake.

        One that was active when the host died, and whose turn to come back has not come, comes back now.

        :raises HostUnreachableError: it is not decided in time.
        :raises InvalidAgentError: no such paglet has a process here.
        :raises PagletError: it does not come back.
        """
        entry = await self._settled(agent_id)
        if entry is None and self.dormitory.recovering(agent_id):
            await self.activator.activate(agent_id, reason="recovery", settle=False)
        return entry or self.kernel.agents.require(agent_id)

    async def dispatch(
        self, agent_id: str, ticket: TransferTicket, *, parent: int = 0, in_handler: bool = False
    ) -> dict[str, str]:
        """Move a paglet and return where it is afterwards."""
        entry = await self._present(agent_id)
        return await self._move(entry, TransferKind.DISPATCH, ticket, parent=parent, in_handler=in_handler)

    async def retract_to(self, agent_id: str, target: str) -> dict[str, str]:
        """Send a paglet to the host that asked for it."""
        entry = await self._present(agent_id)
        return await self._move(entry, TransferKind.RETRACT, TransferTicket(target))

    async def retract_from(self, remote_url: str, agent_id: str) -> dict[str, str]:
        """Ask another host to send a paglet here."""
        url = self.ports.mesh.resolve_url(remote_url)
        reply = await self.ports.words.operate(url, agent_id, "retract", {"target": self.kernel.address()})
        return proxy_of(reply)

    async def clone(
        self,
        agent_id: str,
        ticket: TransferTicket | None,
        *,
        clone_id: str = "",
        parent: int = 0,
        in_handler: bool = False,
    ) -> dict[str, str]:
        """Copy a paglet under a new id and return where the copy is."""
        entry = await self._present(agent_id)
        ticket = ticket or TransferTicket(self.kernel.address())
        return await self._move(
            entry,
            TransferKind.CLONE,
            ticket,
            clone_id=clone_id or new_agent_id(),
            parent=parent,
            in_handler=in_handler,
        )

    async def _move(
        self,
        entry: AgentEntry,
        kind: TransferKind,
        ticket: TransferTicket,
        *,
        clone_id: str = "",
        parent: int = 0,
        in_handler: bool = False,
    ) -> dict[str, str]:
        destination = self.ports.mesh.resolve_url(ticket.destination)
        if self.kernel.address.is_own(destination):
            destination = self.kernel.address()
            if kind is not TransferKind.CLONE:
                kind = TransferKind.LOCAL
        ticket = TransferTicket.from_wire({**ticket.to_wire(), "destination": destination})
        return await self.departures.depart(
            entry, kind, ticket, clone_id=clone_id, parent=parent, in_handler=in_handler
        )

    async def deactivate(
        self,
        agent_id: str,
        request: DeactivationRequest | None = None,
        *,
        parent: int = 0,
        in_handler: bool = False,
    ) -> dict[str, str]:
        """Store a paglet on disk."""
        entry = await self._present(agent_id)
        return await self.deactivator.deactivate(entry, request, parent=parent, in_handler=in_handler)

    async def activate(self, agent_id: str) -> dict[str, str]:
        """Bring an inactive paglet back."""
        await self._decided(agent_id)
        return await self.activator.activate(agent_id)

    async def dispose(self, agent_id: str, *, parent: int = 0, in_handler: bool = False) -> None:
        """End a paglet for good, active, crashed or inactive."""
        entry = await self._settled(agent_id)
        if entry is None:
            await self.dormitory.dispose(agent_id)
            self.whereabouts.tell(agent_id)
            return
        await self.kernel.ending.dispose(entry, parent=parent, in_handler=in_handler)
        self.timers.forget_all(agent_id)
        self.whereabouts.tell(agent_id, home=entry.home)
        await self._remove_work_dir(agent_id)

    async def _remove_work_dir(self, agent_id: str) -> None:
        if self.files.work_dir(agent_id).exists():
            await self.kernel.on_disk(self.files.remove_work_dir, agent_id)

    async def checkpoint(self, agent_id: str) -> None:
        """Have the present state of an active paglet on disk.

        :raises LifecycleError: its class keeps none.
        """
        await self.checkpoints.take(await self._present(agent_id))

    async def remind(
        self,
        agent_id: str,
        name: str,
        *,
        after: float | None,
        every: float | None,
        at: float | None,
        args: dict[str, Any],
    ) -> None:
        """Set a reminder of a paglet here.

        :raises InvalidAgentError: there is none.
        """
        await self._decided(agent_id)
        if agent_id not in self.dormitory:
            self.kernel.agents.require(agent_id)
        await self.timers.remind(agent_id, name, after=after, every=every, at=at, args=args)

    async def operate(self, agent_id: str, operation: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Perform a lifecycle operation given as its HTTP route would be, and answer as that would.

        :raises HostError: there is no such operation.
        """
        match operation:
            case "dispatch":
                return {"proxy": await self.dispatch(agent_id, ticket_of(payload, required=True))}
            case "clone":
                ticket = ticket_of(payload) if payload.get("ticket") or payload.get("target") else None
                return {"proxy": await self.clone(agent_id, ticket)}
            case "retract":
                return {"proxy": await self.retract_to(agent_id, str(payload["target"]))}
            case "deactivate":
                wire = payload.get("request")
                request = None if wire is None else DeactivationRequest.from_wire(wire)
                return {"proxy": await self.deactivate(agent_id, request), "ok": True}
            case "activate":
                return {"proxy": await self.activate(agent_id)}
            case "dispose":
                await self.dispose(agent_id)
                return {"ok": True}
        raise HostError(f"unknown lifecycle operation {operation!r}")

    async def perform_self_call(
        self, entry: AgentEntry, call: SelfCall, *, parent: int = 0, in_handler: bool = False
    ) -> Any:
        """Do what a paglet asked for itself."""
        arguments = call.arguments
        match call.operation:
            case "dispatch":
                ticket = TransferTicket.from_wire(arguments["ticket"])
                return await self._move(entry, TransferKind.DISPATCH, ticket, parent=parent, in_handler=in_handler)
            case "clone":
                wire = arguments.get("ticket")
                return await self.clone(
                    entry.agent_id,
                    None if wire is None else TransferTicket.from_wire(wire),
                    clone_id=arguments.get("clone_id", ""),
                    parent=parent,
                    in_handler=in_handler,
                )
            case "deactivate":
                request = DeactivationRequest.from_wire(arguments.get("request"))
                return await self.deactivator.deactivate(
                    entry, request, parent=parent, in_handler=in_handler, by_itself=True
                )
            case "dispose":
                return await self.dispose(entry.agent_id, parent=parent, in_handler=in_handler)
        raise HostError(f"unknown lifecycle operation {call.operation!r}")

    # --- moving -------------------------------------------------------------------------------------------------------

    def _link_to(self, url: str) -> TransferLink:
        if self.kernel.address.is_own(url):
            return self._local_link
        return HttpTransferLink(
            url.rstrip("/"),
            loop=self.kernel.loop,
            client=self.ports.client,
            words=self.ports.words,
            movers=self._movers,
        )

    # --- waiting for notifications ------------------------------------------------------------------------------------

    async def wait_message(self, agent_id: str, timeout: float | None) -> bool:
        """Wait for a notification of a paglet; return whether one came."""
        entry = self.kernel.agents.require(agent_id)
        waiter: asyncio.Future[None] = self.kernel.loop.create_future()
        entry.notified.append(waiter)
        done, _ = await asyncio.wait((waiter,), timeout=None if timeout is None else max(0.0, timeout))
        if not done:
            entry.notified.remove(waiter)
        return bool(done)

    def notify(self, agent_id: str, *, everyone: bool) -> None:
        """Wake one or all who wait for a notification of a paglet."""
        entry = self.kernel.agents.require(agent_id)
        chosen = entry.notified if everyone else entry.notified[:1]
        for waiter in chosen:
            if not waiter.done():
                waiter.set_result(None)
        del entry.notified[: len(chosen)]

    # --- files --------------------------------------------------------------------------------------------------------

    async def work_dir(self, agent_id: str, *, create: bool) -> str:
        """Return the work directory of an active paglet."""
        self.kernel.agents.require(agent_id).live_place()
        if create:
            return str(await self.kernel.on_disk(self.files.make_work_dir, agent_id))
        return str(self.files.work_dir(agent_id))

    def storage(self, agent_id: str) -> dict[str, Any]:
        """Return where the storage of a paglet's class is, and its quota."""
        entry = self.kernel.agents.require(agent_id)
        root = self.files.storage_root(entry.class_name)
        return {"root": str(root), "quota_bytes": self.ports.storage_quota_bytes}

    async def register_file(self, agent_id: str, path: Path, *, name: str | None, mode: str) -> PagletFileRef:
        """Have a file or directory travel with a paglet; the same name replaces.

        :raises TransferError: there is neither, or it cannot travel.
        """
        entry = self.kernel.agents.require(agent_id)
        if entry.crashed:
            entry.live_place()
        ref = await self.carriage.describe(path, name=name, mode=mode)
        entry.files[ref.name] = ref
        await self.kernel.vault.files_changed(entry)
        return ref

    def registered_files(self, agent_id: str) -> list[PagletFileRef]:
        """Return the files that travel with a paglet."""
        return list(self.kernel.agents.require(agent_id).files.values())

    async def unregister_file(self, agent_id: str, name: str) -> None:
        """Leave a file behind; an unknown name is no error."""
        entry = self.kernel.agents.require(agent_id)
        if entry.files.pop(name, None) is not None:
            await self.kernel.vault.files_changed(entry)


def ticket_of(payload: dict[str, Any], *, required: bool = False) -> TransferTicket:
    """Return the ticket in a request's payload, or one for its target.

    :raises HostError: there is neither.
    """
    wire = payload.get("ticket")
    if wire is not None:
        return TransferTicket.from_wire(wire)
    target = payload.get("target")
    if not target and required:
        raise HostError("ticket or target is missing")
    return TransferTicket(str(target))


def proxy_of(reply: dict[str, Any]) -> dict[str, str]:
    """Return the proxy in a host's reply.

    :raises RemoteHostError: there is none.
    """
    proxy = reply.get("proxy")
    if not isinstance(proxy, dict):
        raise RemoteHostError("malformed answer: no proxy in it")
    return proxy


def new_agent_id() -> str:
    """Return a fresh id."""
    return uuid.uuid4().hex
