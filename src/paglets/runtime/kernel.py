"""The kernel of a host: the table of its paglets, and what can be done with them. It runs on the host's event loop and
nowhere else.

Longer stories are in modules of their own, which hold a reference to the kernel: moving (:mod:`paglets.runtime.mover`),
sleeping (:mod:`paglets.runtime.sleep`), files (:mod:`paglets.runtime.files`), services, and the calls that paglets
make.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from paglets.artifacts import PagletFileRef
from paglets.core.allowance import Allowance, AllowanceBalance, AllowanceExcess
from paglets.core.context import ACTIVE, INACTIVE
from paglets.core.context_events import ContextEventLog
from paglets.core.errors import (
    ConflictError,
    HostError,
    HostUnreachableError,
    InvalidAgentError,
    LifecycleError,
    OverloadedError,
    PagletError,
    SerializationError,
)
from paglets.core.policies import RestartPolicy
from paglets.core.runtime_values import Durability
from paglets.persistence.directory import validate_agent_id
from paglets.persistence.envelope import PagletEnvelope
from paglets.persistence.journal import Journal
from paglets.persistence.rows import OutboxRow, ReminderRow
from paglets.protocol.delivery.window import DedupWindow
from paglets.protocol.transfer.model import TransferPlan
from paglets.runtime import faults
from paglets.runtime.agents import AgentEntry, AgentTable, Delivery, Opening, Phase, SelfCall
from paglets.runtime.attachment import Attachment
from paglets.runtime.frames import Frame, Op
from paglets.runtime.holdings import Holdings
from paglets.runtime.launch.base import Launcher
from paglets.runtime.ledger import Ledger
from paglets.runtime.place import Place
from paglets.runtime.pump import MessagePump
from paglets.runtime.receiving import manifest_of
from paglets.runtime.supervision import Watch
from paglets.runtime.vault import Aftermath, Vault
from paglets.security.caller import Caller
from paglets.security.policy import Policy
from paglets.serialization.names import validate_qualified_name
from paglets.serialization.values import pack, unpack

T = TypeVar("T")

#: How long replies wait for a ``run()`` to finish or to leave.
RUN_SETTLE_SECONDS = 0.25
#: How long the location of a paglet that has left is waited for.
DEPARTED_SECONDS = 5.0
#: How long a lifecycle operation waits for the running handler.
HANDLER_WAIT_SECONDS = 10.0
#: How long a paglet's module, constructor and first hook may take.
START_SECONDS = 120.0
#: How long a hook may take.
HOOK_SECONDS = 60.0
#: How long a paglet that left may still run the statements after the call.
FAREWELL_SECONDS = 2.0
STATE_QUERY_SECONDS = 2.0
#: How old the durable state of a paglet that keeps checkpoints may be.
CHECKPOINT_INTERVAL_SECONDS = 1.0
DISK_THREADS = 4
#: A spare process is forked so long after one was used, when what was started has had the processors for itself.
REFILL_SECONDS = 0.005


@dataclass(slots=True)
class KernelConfig:
    """What the kernel needs to know of its host."""

    name: str
    directory: Path
    policy: Policy = field(default_factory=Policy)
    run_settle_seconds: float = RUN_SETTLE_SECONDS
    handler_wait_seconds: float = HANDLER_WAIT_SECONDS
    max_paglets: int = 10_000
    checkpoint_interval: float = CHECKPOINT_INTERVAL_SECONDS


class Timers(Protocol):
    """Keep the timers of the paglets of a host."""

    def adopt(self, agent_id: str, rows: Sequence[ReminderRow]) -> None:
        """Know of timers whose rows are on disk."""

    async def put_late(self, agent_id: str, timers: Mapping[str, ReminderRow | None]) -> None:
        """Store timers, or forget those that are None."""

    def forget_all(self, agent_id: str) -> None:
        """Drop every timer of a paglet that has ended."""

    def expire_at(self, agent_id: str, due: float | None) -> None:
        """Tell when the time of a paglet is over, None that it has no end."""


@dataclass(slots=True)
class StartOrder:
    """Everything that starts a paglet's process."""

    blob: Attachment
    hook: str
    event: dict[str, Any] = field(default_factory=dict)


class Kernel:
    """Own every paglet of one host.

    :param address: returns the host's present base URL.
    """

    def __init__(
        self,
        config: KernelConfig,
        loop: asyncio.AbstractEventLoop,
        launcher: Launcher,
        events: ContextEventLog,
        address: Callable[[], str],
        journal: Journal,
    ) -> None:
        self.config = config
        self.loop = loop
        self.events = events
        self.address = address
        self.journal = journal
        self.ledger = Ledger(journal, config.name, address)
        self.vault = Vault(journal, self.ledger, self.on_disk, address)
        self.agents = AgentTable(config.name)
        self.messages = MessagePump(loop, config.name, self.emit)
        self.watch = Watch(self)
        self.properties: dict[str, Any] = {}
        self.closing = False
        self.closed = False
        self.draining = False
        """Whether nothing new is taken in, and sleepers stay asleep."""
        self._disk_closed = False
        self._launcher = launcher
        self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix=f"paglets-disk-{config.name}")
        self.holdings = Holdings(config.policy, self._is_here)
        self._background: set[asyncio.Task[Any]] = set()
        # Every process that has not ended, also those whose paglet has gone or never lived.
        self._places: set[Place] = set()
        self.on_departed: list[Callable[[AgentEntry], None]] = []
        self.on_active: list[Callable[[AgentEntry], None]] = []
        """Are told when a paglet is active, before its first message."""
        # Set by the parts that take these over, before the first paglet starts.
        self.call_handler: Callable[[AgentEntry, Place, Frame], None]
        self.self_call: Callable[[AgentEntry, SelfCall], Awaitable[Any]]
        self.is_stored: Callable[[str], bool] = lambda _: False
        self.check_id: Callable[[str, str], None] = lambda *_: None
        """Raises `ConflictError` where a paglet of some id and class may not live here."""
        self.post: Callable[[Sequence[OutboxRow]], None]
        self.revive: Callable[[AgentEntry, str], Coroutine[Any, Any, None]]
        self.collect: Callable[[str], Coroutine[Any, Any, None]]
        self.timers: Timers
        self.exceeded: Callable[[AgentEntry, AllowanceExcess], None]

    # --- helpers ------------------------------------------------------------------------------------------------------

    async def on_disk(self, work: Callable[..., T], *args: Any) -> T:
        """Run blocking work in the bounded executor.

        :raises HostUnreachableError: the host has stopped; nothing was begun.
        """
        if self._disk_closed:
            raise HostUnreachableError(f"host {self.config.name} is shutting down; nothing was begun")
        return await self.loop.run_in_executor(self._disk, partial(work, *args))

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something to its end without waiting for it; its failure becomes an event."""
        task = self.loop.create_task(self.guarded(work))
        task.add_done_callback(lambda _: work.close())  # a task that is cancelled before it begins never awaits it
        self.keep(task)

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Hold a task until it ends; the host's end cancels it."""
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do some work; a failure becomes an event."""
        try:
            await work
        except Exception as exc:
            self.emit("background-failure", error=f"{type(exc).__name__}: {exc}")

    def emit(self, kind: str, entry: AgentEntry | None = None, **fields: Any) -> None:
        """Record what happened."""
        if entry is not None:
            fields.setdefault("agent_id", entry.agent_id)
            fields.setdefault("class_name", entry.class_name)
        self.events.emit(kind=kind, host_name=self.config.name, host_address=self.address(), **fields)

    def proxy_wire(self, agent_id: str) -> dict[str, str]:
        """Return the wire form of a proxy of a paglet here."""
        return {"host_url": self.address(), "agent_id": agent_id}

    def event_fields(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Return the fields that every lifecycle event of a paglet here has, and more."""
        return {
            "agent_id": agent_id,
            "host_name": self.config.name,
            "host_address": self.address(),
            "timestamp": time.time(),
            **fields,
        }

    # --- creation -----------------------------------------------------------------------------------------------------

    async def create(
        self,
        class_name: str,
        state_class_name: str,
        blob: Attachment,
        *,
        init: Any = None,
        agent_id: str | None = None,
        trusted: bool = False,
        by: Caller | None = None,
        opening: Opening | None = None,
        reserved: Callable[[AgentEntry], None] | None = None,
    ) -> dict[str, str]:
        """Create a paglet and return the wire form of its proxy, wherever its ``run`` has taken it within the settling
        time.

        :param opening: what it is allowed; what its class says where that is left out.
        :param trusted: the class was named by the program that owns this host, so the allow-list is not asked.
        :param by: who asked for it over the network.
        :param reserved: is given its entry before its process is started.
        :raises AllowanceExceededError: its state is larger than its allowance.
        :raises ConflictError: the id is taken.
        :raises ForbiddenError: the class is not on the allow-list.
        :raises OverloadedError: the host, or whoever asked, has as many paglets as allowed.
        :raises PayloadTooLargeError: the state is larger than allowed.
        :raises PagletError: the class is unusable, or a hook or an early ``run`` failed; nothing is left then.
        """
        agent_id = validate_agent_id(agent_id) if agent_id else uuid.uuid4().hex
        self.check_class(class_name, trusted=trusted, by=by)
        if state_class_name:
            self.check_class(state_class_name, trusted=trusted, by=by)
        if by is not None:
            self.config.policy.check_state(blob.nbytes)
        entry = self.reserve(agent_id, class_name, state_class_name, epoch=first_epoch())
        entry.home = self.address()
        entry.timers = {}
        entry.opening = opening or Opening()
        if by is not None:
            entry.holder = by.name
            entry.opening = replace(entry.opening, cap=entry.opening.cap.within(self.config.policy.allowance_of(by)))
        if reserved is not None:
            reserved(entry)
        try:
            if by is not None:
                self.holdings.add(by, agent_id)
            event = self.event_fields(agent_id, init=init)
            await self.start(entry, StartOrder(blob, "on_creation", event))
            if faults.ARMED:
                faults.reached("create.started")
            self.check_size(entry, entry.last_state or blob)
            timers, entry.timers = entry.timers, {}
            await self.vault.created(entry, entry.last_state or blob, timers)
            if faults.ARMED:
                faults.reached("create.stored")
        except BaseException:
            self.abandon(entry)
            if by is not None:
                self.holdings.discard(by, agent_id)
            raise
        self.timers.adopt(agent_id, [row for row in timers.values() if row is not None])
        self.activate(entry)
        self.emit("create", entry)
        return await self.begin(entry, fail_with_run=True) or self.proxy_wire(agent_id)

    def open_balance(self, entry: AgentEntry, own: Any) -> AllowanceBalance:
        """Return what a paglet has left of its allowance; one that is being created gets it now.

        :param own: what its class says of its allowance, as plain values.
        :raises SerializationError: that is malformed.
        """
        if entry.opening is not None:
            entry.balance = entry.opening.balance(Allowance.from_wire(own), time.time())
            entry.opening = None
        return entry.balance

    def check_size(self, entry: AgentEntry, state: Attachment) -> None:
        """Check the state of a paglet that begins to live here.

        :raises AllowanceExceededError: it is larger than its allowance.
        """
        excess = entry.balance.too_large(state.nbytes)
        if excess is not None:
            raise excess.error(entry.agent_id)

    def _is_here(self, agent_id: str) -> bool:
        return agent_id in self.agents or self.is_stored(agent_id)

    def check_class(self, class_name: str, *, trusted: bool = False, by: Caller | None = None) -> None:
        """Check a class name before anything is imported for it.

        :param by: who named it over the network.
        :raises SerializationError: it is malformed.
        :raises HostError: it is in ``__main__``.
        :raises ForbiddenError: it is not on the allow-list.
        """
        check_importable(class_name)
        if not trusted:
            self.config.policy.check_class(class_name, by)

    def check_arrival(self, by: Caller, plan: TransferPlan, state_bytes: int, envelope: PagletEnvelope) -> None:
        """Check a paglet that somebody brings over the network, and count it as one of theirs.

        :raises ForbiddenError: it comes from where none may come, or has moved too often.
        :raises PayloadTooLargeError: its state or a file is larger than allowed.
        :raises OverloadedError: whoever brings it has as many paglets here as allowed.
        """
        policy = self.config.policy
        policy.check_source(plan.source, by)
        policy.check_state(state_bytes)
        for item in manifest_of(envelope):
            ref = PagletFileRef.from_wire(item["file"])
            policy.check_file(ref.name, ref.size_bytes)
        policy.check_hops(plan.carried.hops_used)
        self.holdings.add(by, plan.agent_id)

    def reserve(
        self, agent_id: str, class_name: str, state_class_name: str, *, epoch: int, from_store: bool = False
    ) -> AgentEntry:
        """Add a starting entry for a paglet that comes to this host.

        :raises ConflictError: the id is taken by an active, crashed or inactive paglet.
        :raises OverloadedError: the host holds as many paglets as it may.
        :raises HostError: the host is shutting down or draining.
        """
        if self.closing:
            raise HostError(f"host {self.config.name} is shutting down")
        if self.draining and not from_store:
            raise HostError(f"host {self.config.name} is draining: it takes no paglets until that is undone")
        if len(self.agents) >= self.config.max_paglets:
            raise OverloadedError(f"host {self.config.name} holds {len(self.agents)} paglets, as many as it may")
        if not from_store:
            self.check_id(agent_id, class_name)
        if not from_store and self.is_stored(agent_id):
            raise ConflictError(f"an inactive paglet {agent_id} is stored on {self.config.name}")
        return self.agents.new(agent_id, class_name, state_class_name, epoch=epoch, loop=self.loop)

    async def start(self, entry: AgentEntry, order: StartOrder) -> None:
        """Start a process for an entry and run its first hook.

        :raises PagletError: it did not start; the process is gone.
        """
        place = self.open_place(entry)
        entry.place = place
        await self.start_place(entry, place, order)

    def open_place(self, entry: AgentEntry) -> Place:
        """Start a process that will hold ``entry``'s paglet."""
        place = Place(
            self.loop,
            self._launcher,
            on_call=partial(self._called, entry),
            on_run_ended=partial(self.watch.run_ended, entry),
            on_lost=partial(self.watch.lost, entry),
        )
        self._places.add(place)
        place.ended.add_done_callback(lambda _: self._places.discard(place))
        return place

    async def start_place(self, entry: AgentEntry, place: Place, order: StartOrder) -> None:
        """Have a process build the paglet and run its first hook; the process is killed when that fails."""
        short_name = entry.class_name.rpartition(":")[2].rpartition(".")[2]
        request = pack(
            {
                "title": f"paglet:{self.config.name}:{short_name}:{entry.agent_id}",
                "agent_id": entry.agent_id,
                "agent_class_name": entry.class_name,
                "state_class_name": entry.state_class_name,
                "host_name": self.config.name,
                "host_address": self.address(),
                "hook": order.hook,
                "event": order.event,
            }
        )
        try:
            frame = await place.request(Op.START, request, order.blob, timeout=START_SECONDS)
        except TimeoutError:
            place.kill()
            raise LifecycleError(
                f"paglet {entry.agent_id} took more than {START_SECONDS:g} s to be imported and built"
            ) from None
        except BaseException:
            place.kill()
            raise
        self.loop.call_later(REFILL_SECONDS, self._launcher.refill)
        answer = unpack(frame.payload)
        entry.resources = answer["resources"]
        entry.departure_hooks = frozenset(answer["departure_hooks"])
        try:
            self.open_balance(entry, answer["allowance"])
            if answer["durability"] == Durability.MESSAGE and entry.durability is not Durability.MESSAGE:
                entry.window = DedupWindow()  # with room for as many as are on disk
            entry.durability = Durability(answer["durability"])
            entry.restart = RestartPolicy.from_wire(answer["restart"])
        except (ValueError, SerializationError) as exc:
            place.kill()
            raise HostError(f"{entry.class_name} has an unusable DURABILITY, RESTART or ALLOWANCE: {exc}") from None
        place.started(answer["pid"])
        place.run_ended = self.loop.create_future() if answer["has_run"] else None
        entry.remember_state(frame.attachment if frame.attachment.nbytes else order.blob)

    def abandon(self, entry: AgentEntry, error: Exception | None = None) -> None:
        """Remove a paglet that did not start, or whose creation is called off; ``error`` is what its callers get."""
        entry.phase = Phase.GONE
        self.agents.remove(entry)
        if entry.place is not None:
            entry.place.kill()
        self.messages.release(entry, error or HostError(f"paglet {entry.agent_id} did not start"))
        self.departed(entry, None)

    def activate(self, entry: AgentEntry) -> None:
        """Let an entry be seen as active; its messages wait until :meth:`begin`."""
        entry.phase = Phase.ACTIVE
        if entry.balance.expires_at is not None:
            self.timers.expire_at(entry.agent_id, entry.balance.expires_at)
        for tell in self.on_active:
            tell(entry)
        timers, entry.timers = entry.timers, None
        if timers:  # of a thread that went on after the first hook
            self.background(self.timers.put_late(entry.agent_id, timers))
        if entry.mail_waits:
            entry.mail_waits = False
            self.background(self.collect(entry.agent_id))
        if entry.place is not None and entry.place.ended.done():
            self.watch.crash(entry, "process ended before the paglet was active")

    def open_mailbox(self, entry: AgentEntry) -> None:
        """Let an entry's messages be delivered, unless an operation on it holds them back."""
        if entry.active and not entry.lock.locked():
            entry.mailbox.resume()
            self.messages.pump(entry)

    async def begin(
        self, entry: AgentEntry, *, fail_with_run: bool = False, settle: bool = True
    ) -> dict[str, str] | None:
        """Perform what the paglet asked for while it started, begin ``run``, and wait until that has settled.

        :param settle: False to wait for nothing, because nobody waits for the answer.
        :return: where the paglet is now when it has left within that time, else None.
        :raises PagletError: ``run`` failed within the settling time of a creation; the paglet is gone.
        """
        place = entry.place
        deferred, entry.deferred = entry.deferred, []
        for call in deferred:
            if entry.gone.done() or entry.place is not place:
                break
            try:
                await self.self_call(entry, call)
            except Exception as exc:  # what a hook raised on the way included
                self.emit("self-call-failed", entry, data={"operation": call.operation}, error=str(exc))
        if entry.gone.done():
            return entry.gone.result()
        if entry.place is not place:
            return None  # it started again on this host, and `run` began there
        if place is None or place.run_ended is None:
            self.open_mailbox(entry)
            return None
        entry.creating = fail_with_run
        try:
            await place.request(Op.RUN)
            self.open_mailbox(entry)
            self.messages.touched(entry)
            if settle:
                await self._settle(entry, place)
        except Exception as exc:  # whatever `run` raised
            if fail_with_run:
                self.abandon(entry, exc)
                self.timers.forget_all(entry.agent_id)
                await self.vault.uncreated(entry.agent_id)
                raise
        finally:
            entry.creating = False
        return entry.gone.result() if entry.gone.done() else None

    async def _settle(self, entry: AgentEntry, place: Place) -> None:
        run_ended = place.run_ended
        if run_ended is None:
            return
        deadline = self.loop.time() + self.config.run_settle_seconds
        while not (run_ended.done() or entry.gone.done()):
            leaving = self.loop.create_task(entry.leaving.wait())
            try:
                await asyncio.wait(
                    (run_ended, entry.gone, leaving),
                    timeout=max(0.0, deadline - self.loop.time()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                leaving.cancel()
            if entry.leaving.is_set():
                # The paglet is on its way out: its last location is worth waiting for. Every departure is bounded by
                # itself.
                async with entry.lock:
                    entry.leaving.clear()
            if entry.place is not None and entry.place is not place:
                # It has started again on this host, and may go on from there.
                await self._settle(entry, entry.place)
                return
            if entry.phase is Phase.GONE:
                await asyncio.wait((entry.gone,), timeout=DEPARTED_SECONDS)
                break
            if self.loop.time() >= deadline:
                break
        if run_ended.done():
            run_ended.result()

    # --- lifecycle operations -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def hold(self, entry: AgentEntry, *, parent: int = 0) -> AsyncIterator[Place]:
        """Keep every other lifecycle operation off an active paglet.

        :param parent: id of the paglet's own call when it asked itself.
        :raises ConflictError: the paglet asked while another operation on it is in progress.
        :raises PagletError: the paglet is not active.
        """
        if parent and entry.lock.locked() and entry.held_place is entry.place:
            # Waiting could be for ever: the operation in progress may be waiting for this very handler.
            raise ConflictError(f"another lifecycle operation on paglet {entry.agent_id} is in progress")
        async with entry.lock:
            place = entry.live_place()
            if not entry.active:
                raise InvalidAgentError(f"paglet {entry.agent_id} is not active")
            entry.held_place = place
            if parent:
                entry.leaving.set()
            try:
                yield place
            finally:
                entry.leaving.clear()

    @asynccontextmanager
    async def operation(
        self, entry: AgentEntry, *, parent: int = 0, in_handler: bool = False, timeout: float | None = None
    ) -> AsyncIterator[Place]:
        """Hold a paglet still for a lifecycle operation: no other operation, no delivery, no running handler.

        :param in_handler: the handler itself asked, and is not waited for.
        :raises PagletError: the paglet is not active, or its handler does not end in time.
        """
        async with self.hold(entry, parent=parent) as place:
            entry.mailbox.pause()
            try:
                if not in_handler:
                    await self.messages.idle(entry, self.config.handler_wait_seconds if timeout is None else timeout)
                yield place
            finally:
                self.resume_deliveries(entry)

    def resume_deliveries(self, entry: AgentEntry) -> None:
        """Deliver again what queued while an operation held the paglet still, unless it has gone."""
        if entry.active:
            entry.mailbox.resume()
            self.messages.pump(entry)

    async def hook(
        self,
        place: Place,
        hook: str,
        event: dict[str, Any],
        *,
        cleanup: str = "",
        snapshot: bool | str = False,
        parent: int = 0,
    ) -> tuple[dict[str, Any], Attachment]:
        """Run a lifecycle hook, then clean up resources and take a snapshot where asked for, in one go.

        :param snapshot: `IF_TOUCHED` to take one only where the class has the hook.
        :return: what the hook decided, and the state blob.
        :raises PagletError: the hook or a cleanup failed.
        """
        request = pack({"hook": hook, "event": event, "cleanup": cleanup, "snapshot": snapshot})
        try:
            frame = await place.request(Op.HOOK, request, parent=parent, timeout=HOOK_SECONDS)
        except TimeoutError:
            raise LifecycleError(f"{hook} took more than {HOOK_SECONDS:g} s") from None
        return unpack(frame.payload), frame.attachment

    # --- the end of a paglet here -------------------------------------------------------------------------------------

    def leave(self, entry: AgentEntry, location: dict[str, str] | None, *, farewell: bool) -> list[Delivery]:
        """Take a paglet out of the table because it lives elsewhere now, or nowhere.

        :param farewell: let the process finish what it is doing before it is told to end.
        :return: the messages that still waited; whoever calls this answers them.
        """
        entry.phase = Phase.GONE
        self.agents.remove(entry)
        waiting = [queued.item for queued in entry.mailbox.close()]
        self.departed(entry, location)
        if entry.place is not None:
            entry.place.left_for = location
            self.background(self.farewell(entry.place, wait=farewell))
        return waiting

    async def farewell(self, place: Place, *, wait: bool) -> None:
        """Let a process that is no longer its paglet's home end."""
        if wait and place.alive:
            waiting_for: list[asyncio.Future[Any]] = [place.ended]
            if place.answered is not None:
                waiting_for.append(place.answered)
            elif place.run_ended is not None:
                waiting_for.append(place.run_ended)
            await asyncio.wait(waiting_for, timeout=FAREWELL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        place.leave()

    def departed(self, entry: AgentEntry, location: dict[str, str] | None) -> None:
        """Tell everyone who waits that a paglet has left this host."""
        if not entry.gone.done():
            entry.gone.set_result(location)
        for waiter in entry.notified:
            if not waiter.done():
                waiter.set_result(None)
        entry.notified.clear()
        for tell in self.on_departed:
            tell(entry)
        if entry.last_state is not None:
            entry.last_state.close()

    async def dispose(self, entry: AgentEntry, *, parent: int = 0, in_handler: bool = False) -> None:
        """End a paglet for good; a crashed one is just forgotten.

        :raises PagletError: its ``on_disposing`` or a cleanup failed, its handler does not end, or the disk does not
            take it; it goes on then.
        """
        if entry.crashed:
            async with entry.lock:
                await self.messages.recorded(entry)
                if not entry.crashed:
                    raise ConflictError(f"paglet {entry.agent_id} has been started again meanwhile")
                await self.vault.disposed(entry, (), Aftermath())
                entry.restarting = False
                entry.phase = Phase.GONE
                self.agents.remove(entry)
                self.messages.release(entry, InvalidAgentError(f"paglet {entry.agent_id} was disposed"))
                self.departed(entry, None)
            self.emit("dispose", entry, data={"active": False})
            return
        async with self.operation(entry, parent=parent, in_handler=in_handler) as place:
            delivery = entry.current if in_handler else None
            event = self.event_fields(entry.agent_id, reason="dispose")
            answer, _ = await self.hook(place, "on_disposing", event, cleanup="dispose", parent=parent)
            waiting = [queued.item for queued in entry.mailbox.waiting()]
            aftermath = Aftermath.of(delivery, answer, None)
            rows = await self.vault.disposed(entry, waiting, aftermath)
            for delivery in waiting:
                delivery.stored = True  # as a dead letter
            waiting = self.leave(entry, None, farewell=bool(parent))
        self.post(rows)
        self.emit("dispose", entry, data={"active": True})
        gone = InvalidAgentError(f"paglet {entry.agent_id} was disposed")
        for delivery in waiting:
            self.messages.refuse(entry, delivery, gone)

    def _called(self, entry: AgentEntry, place: Place, frame: Frame) -> None:
        self.call_handler(entry, place, frame)

    # --- state --------------------------------------------------------------------------------------------------------

    async def state_blob(self, entry: AgentEntry) -> Attachment:
        """Return the present state, or the newest known one when the process does not answer in time.

        :raises PagletCrashedError: the paglet crashed.
        """
        place = entry.live_place()
        with suppress(TimeoutError):
            frame = await place.request(Op.STATE, timeout=STATE_QUERY_SECONDS)
            entry.resources = unpack(frame.payload)
            if entry.balance.too_large(frame.attachment.nbytes) is None:  # it may be put to sleep with this
                entry.remember_state(frame.attachment)
            return frame.attachment
        if entry.last_state is None:
            raise HostError(f"paglet {entry.agent_id} does not answer and no state of it is known")
        return entry.last_state

    def agent_ids(self, mask: int, stored: Sequence[str]) -> list[str]:
        """Return ids by state bits: the active ones in order of creation, then the inactive ones."""
        found = [entry.agent_id for entry in self.agents if entry.active] if mask & ACTIVE else []
        if mask & INACTIVE:
            for agent_id in stored:
                entry = self.agents.get(agent_id)
                if entry is None or entry.phase is Phase.STARTING:  # it sleeps until it has woken
                    found.append(agent_id)
        return found

    # --- shutdown -----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End every process and wait until all are gone; active paglets that were not stored end for good."""
        self.closing = True
        await self._end_everyone()
        self.closed = True
        for entry in self.agents:
            entry.phase = Phase.GONE
            self.agents.remove(entry)
            unhandled = self.closing_error()
            self.messages.release(entry, unhandled)
            entry.fail_held(unhandled)
            self.departed(entry, None)
        for task in list(self._background):
            task.cancel()
        places = list(self._places)
        for place in places:
            place.leave()
        if places:
            await asyncio.wait([place.ended for place in places], timeout=5.0)
        await asyncio.gather(*self._background, return_exceptions=True)
        self._disk_closed = True
        self._disk.shutdown(wait=True)

    def closing_error(self) -> HostUnreachableError:
        """Return the error of a message that is not handled because the host ends: it may be sent again."""
        return HostUnreachableError(f"host {self.config.name} is shutting down; the message was not handled")

    async def _end_everyone(self) -> None:
        entries = [entry for entry in self.agents if not entry.crashed or entry.restarting]
        waiting = {entry.agent_id: entry.accepted() for entry in entries}
        try:
            await self.vault.stopped(entries, waiting)
        except PagletError as exc:
            # They come back with the next start, then; better that than not to stop.
            self.emit("journal-failed", error=str(exc))


def check_importable(class_name: str) -> None:
    """Check that another process can import a class.

    :raises SerializationError: its name is malformed.
    :raises HostError: it is in ``__main__``.
    """
    module, _ = validate_qualified_name(class_name)
    if module == "__main__":
        raise HostError(
            f"{class_name} is defined in the program's main module, which other processes cannot import; "
            "move it to a module of its own"
        )


def first_epoch() -> int:
    """Return the epoch of a new paglet: milliseconds of Unix time, so that an id that is used again is never taken
    for its past."""
    return int(time.time() * 1000)
