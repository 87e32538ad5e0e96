"""The kernel of a host: the table of its paglets, and what can be done with them. It runs on the host's event loop and
nowhere else.

Longer stories are in modules of their own, which hold a reference to the kernel: creating
(:mod:`paglets.runtime.creation`), starting (:mod:`paglets.runtime.starting`), ending (:mod:`paglets.runtime.ending`),
moving (:mod:`paglets.runtime.departure`, :mod:`paglets.runtime.arrival`), sleeping (:mod:`paglets.runtime.sleep`),
files (:mod:`paglets.runtime.files`), services, and the calls that paglets make.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from paglets.artifacts import PagletFileRef
from paglets.core.allowance import AllowanceExcess
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
)
from paglets.persistence.envelope import PagletEnvelope
from paglets.persistence.journal import Journal
from paglets.persistence.rows import OutboxRow, ReminderRow
from paglets.protocol.transfer.model import TransferPlan
from paglets.runtime.agents import AgentEntry, AgentTable, Phase, SelfCall
from paglets.runtime.attachment import Attachment
from paglets.runtime.ending import Ending
from paglets.runtime.frames import Frame, Op
from paglets.runtime.holdings import Holdings
from paglets.runtime.launch.base import Launcher
from paglets.runtime.ledger import Ledger
from paglets.runtime.own_url import OwnUrl
from paglets.runtime.place import Place
from paglets.runtime.pump import MessagePump
from paglets.runtime.receiving import manifest_of
from paglets.runtime.starting import Starter
from paglets.runtime.supervision import Watch
from paglets.runtime.vault import Vault
from paglets.security.caller import Caller
from paglets.security.policy import Policy
from paglets.serialization.names import validate_qualified_name
from paglets.serialization.values import pack, unpack

T = TypeVar("T")

#: How long replies wait for a ``run()`` to finish or to leave.
RUN_SETTLE_SECONDS = 0.25
#: How long a lifecycle operation waits for the running handler.
HANDLER_WAIT_SECONDS = 10.0
#: How long a hook may take.
HOOK_SECONDS = 60.0
STATE_QUERY_SECONDS = 2.0
#: How old the durable state of a paglet that keeps checkpoints may be.
CHECKPOINT_INTERVAL_SECONDS = 1.0
DISK_THREADS = 4


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


class Kernel:
    """Own every paglet of one host.

    :param address: the host's base URL, and which ones are its own.
    """

    def __init__(
        self,
        config: KernelConfig,
        loop: asyncio.AbstractEventLoop,
        launcher: Launcher,
        events: ContextEventLog,
        address: OwnUrl,
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
        self.starter = Starter(self, launcher)
        self.ending = Ending(self)
        self.properties: dict[str, Any] = {}
        self.closing = False
        self.closed = False
        self.draining = False
        """Whether nothing new is taken in, and sleepers stay asleep."""
        self._disk_closed = False
        self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix=f"paglets-disk-{config.name}")
        self.holdings = Holdings(config.policy, self._is_here)
        self._background: set[asyncio.Task[Any]] = set()
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

    # --- who may come -------------------------------------------------------------------------------------------------

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

    def check_classes(
        self, class_name: str, state_class_name: str, *, trusted: bool = False, by: Caller | None = None
    ) -> bool:
        """Check the classes of a paglet and of its state before anything is imported for them.

        :param state_class_name: empty where whoever created the paglet left it to its class.
        :return: whether its state has to be what its class declares, because no other may be imported here.
        :raises PagletError: as `check_class`.
        """
        self.check_class(class_name, trusted=trusted, by=by)
        if not state_class_name:
            return False
        check_importable(state_class_name)
        return not trusted and not self.config.policy.check_state_class(state_class_name, by)

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
            self.ending.departed(entry, None)
        for task in list(self._background):
            task.cancel()
        places = list(self.starter.places)
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
