"""Bring paglets back from their rows: sleepers, and those whose process or host has died."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from paglets.core.errors import (
    AllowanceExceededError,
    ConflictError,
    HostUnreachableError,
    InsufficientStorageError,
    InvalidAgentError,
    OverloadedError,
    PagletCrashedError,
    PagletError,
)
from paglets.core.runtime_values import Durability
from paglets.persistence.envelope import DECLARED_STATE
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import Status, StoredRecord
from paglets.protocol.mailbox import Queued
from paglets.runtime import faults
from paglets.runtime.agents import HELD_MESSAGES, AgentEntry, Delivery, HeldPosting, Phase, SelfCall
from paglets.runtime.attachment import Attachment
from paglets.runtime.kernel import Kernel
from paglets.runtime.place import packed
from paglets.runtime.pump import UNQUEUED_RANK
from paglets.runtime.sleep import Dormitory
from paglets.runtime.starting import StartOrder
from paglets.runtime.units import files_of
from paglets.runtime.vault import Awakened


class Activator:
    """Start the inactive and crashed paglets of one host again."""

    def __init__(self, kernel: Kernel, dormitory: Dormitory) -> None:
        self._kernel = kernel
        self._vault = kernel.vault
        self._dormitory = dormitory
        self._callers: dict[str, list[HeldPosting]] = {}
        """Messages that woke sleepers, to be posted again as soon as these take messages."""
        self._settling: dict[str, asyncio.Task[dict[str, str]]] = {}
        """Awakenings of those who are awake, and may sleep or crash again before they have settled."""
        kernel.revive = self._revive

    async def activate(
        self, agent_id: str, *, reason: str = "activate", settle: bool = True, calls: Sequence[SelfCall] = ()
    ) -> dict[str, str]:
        """Bring an inactive or crashed paglet back; callers that ask at the same time share one awakening.

        :param reason: of the activation event: ``activate``, or ``recovery``, ``restart``, ``revive`` after a crash.
        :param calls: lifecycle calls on itself that it has left undone.
        :raises AllowanceExceededError: it may not wake before it is granted more.
        :raises InvalidAgentError: there is none.
        :raises PagletError: it did not start; it stays as it was.
        """
        task = self._dormitory.waking.get(agent_id)
        if task is None:
            entry = self._kernel.agents.get(agent_id)
            crashed = entry is not None and entry.crashed
            if agent_id not in self._dormitory and not crashed:
                if agent_id in self._settling:
                    return await asyncio.shield(self._settling[agent_id])
                raise self._dormitory.not_asleep(agent_id)
            excess = (
                entry.balance.held(time.time()) if crashed and entry is not None else self._dormitory.held(agent_id)
            )
            if excess is not None:
                raise excess.error(agent_id)
            if crashed and reason == "activate":
                reason = "revive"
            task = self._kernel.loop.create_task(self._wake(agent_id, reason, settle=settle, calls=calls))
            self._dormitory.waking[agent_id] = task
            task.add_done_callback(partial(self._ended, agent_id))
        return await asyncio.shield(task)

    def _ended(self, agent_id: str, task: asyncio.Task[dict[str, str]]) -> None:
        if not task.cancelled():
            task.exception()  # at the end of the host nobody may be left who waits for it
        for tasks in (self._dormitory.waking, self._settling):
            if tasks.get(agent_id) is task:
                del tasks[agent_id]

    def wake_for(self, agent_id: str, posting: HeldPosting) -> None:
        """Bring a paglet back for a message, which is posted again as soon as it is awake.

        :raises OverloadedError: too many messages wait for that.
        """
        callers = self._callers.setdefault(agent_id, [])
        if len(callers) >= HELD_MESSAGES:
            raise OverloadedError(
                f"{len(callers)} messages wait for paglet {agent_id} to wake; send this one again later"
            )
        callers.append(posting)
        if len(callers) == 1:
            self._kernel.background(self._wake_for_callers(agent_id))

    async def _wake_for_callers(self, agent_id: str) -> None:
        try:
            # What was active when the host died comes back whatever its policy says.
            reason = "recovery" if self._dormitory.recovering(agent_id) else "activate"
            if agent_id not in self._kernel.agents or agent_id in self._dormitory.waking:
                # Those who wait are released as soon as it is awake. It may sleep again when this returns, and others
                # wait by then; to release these now would put them behind who comes later.
                await self.activate(agent_id, reason=reason, settle=False)
            else:
                self._release_callers(agent_id)
        except BaseException as exc:
            entry = self._kernel.agents.get(agent_id)
            if isinstance(exc, PagletError) and entry is not None and entry.restarting:
                self._release_callers(agent_id)  # they wait for the next try
                return
            error = exc if isinstance(exc, PagletError) else HostUnreachableError(f"paglet {agent_id} was not woken")
            for posting in self._callers.pop(agent_id, ()):
                posting.done(None, error)
            if not isinstance(exc, PagletError):
                raise

    def _release_callers(self, agent_id: str) -> None:
        for posting in self._callers.pop(agent_id, ()):
            posting.again()

    async def _revive(self, entry: AgentEntry, reason: str) -> None:
        """Start a crashed paglet again from its row; it stays crashed if that fails."""
        await self._kernel.messages.recorded(entry)
        self._kernel.journal.release(entry.agent_id)
        if not entry.crashed:
            return
        try:
            await self.activate(entry.agent_id, reason=reason, settle=False)
        except AllowanceExceededError as exc:
            self._kernel.watch.show_crashed(entry, str(exc))
        except PagletError as exc:
            self._kernel.emit("activation-failed", entry, error=str(exc))

    async def _wake(self, agent_id: str, reason: str, *, settle: bool, calls: Sequence[SelfCall]) -> dict[str, str]:
        kernel = self._kernel
        entry = kernel.agents.get(agent_id)
        if entry is None:
            entry, handled = await self._wake_sleeper(agent_id, reason, calls)
        else:
            # Its process may have died in the middle of a move: that decides first whose the paglet is.
            async with entry.lock:
                if entry.phase is Phase.GONE:
                    raise InvalidAgentError(f"paglet {agent_id} has left {kernel.config.name}")
                if not entry.crashed:
                    return kernel.proxy_wire(agent_id)  # it goes on already
                handled = await self._start_crashed(entry, reason, calls)
        location = await kernel.starter.begin(entry, settle=settle)
        if handled and settle:
            everything: list[asyncio.Future[Any]] = [asyncio.gather(*handled), entry.gone]
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        return location or (entry.gone.result() if entry.gone.done() else None) or kernel.proxy_wire(agent_id)

    async def _wake_sleeper(
        self, agent_id: str, reason: str, calls: Sequence[SelfCall]
    ) -> tuple[AgentEntry, list[asyncio.Future[None]]]:
        began = self._kernel.loop.time()
        await self._dormitory.may_wake(agent_id)
        summary = self._dormitory.summary(agent_id)
        if summary is None:
            raise self._dormitory.not_asleep(agent_id)
        # Before the row is read: messages that come from now on are held.
        entry = self._kernel.reserve(
            agent_id, summary.agent_class_name, summary.state_class_name, epoch=summary.epoch, from_store=True
        )
        entry.held = []  # until its window and what waits on disk are in place
        entry.window_lost_at = began if reason == "recovery" else None
        try:
            found = await self._dormitory.record(agent_id)
        except BaseException as exc:
            self._failed_to_wake(entry, summary.status, exc)
            raise
        return entry, await self._start_from_row(entry, found, reason, calls)

    async def _start_crashed(
        self, entry: AgentEntry, reason: str, calls: Sequence[SelfCall]
    ) -> list[asyncio.Future[None]]:
        """Start a crashed entry again as it is: its mailbox and its window are still true."""
        await self._kernel.messages.recorded(entry)  # what it had handled is in the row then
        entry.place = None
        entry.held = []
        entry.phase = Phase.STARTING
        was_restarting, entry.restarting = entry.restarting, True
        try:
            # What it died of may be on its way to the dead letters, and must not be taken for a message that waits.
            await self._vault.settled()
            found = await self._dormitory.record(entry.agent_id)
        except BaseException as exc:
            entry.restarting = was_restarting
            self._kernel.watch.show_crashed(entry, str(exc))
            entry.release_held()
            if isinstance(exc, InvalidAgentError):
                raise ConflictError(
                    f"crashed paglet {entry.agent_id} keeps no state to start from (its DURABILITY is "
                    f"{entry.durability.value!r}); it can only be disposed"
                ) from None
            raise
        return await self._start_from_row(entry, found, reason, calls)

    async def _start_from_row(
        self, entry: AgentEntry, found: Awakened, reason: str, calls: Sequence[SelfCall]
    ) -> list[asyncio.Future[None]]:
        """Start a process from what is on disk; return what is resolved when each stored message was handled."""
        kernel, agent_id = self._kernel, entry.agent_id
        began = kernel.loop.time()
        record = found.record
        entry.home = kernel.address.of(record.home)
        entry.balance, entry.holder = record.balance, record.holder
        if record.durability is not None:
            entry.durability = record.durability
        entry.files = files_of(record.metadata)
        event = kernel.event_fields(
            agent_id, reason=reason, request=record.request.to_wire(), policy=record.policy.to_wire()
        )
        declared_state = bool(record.metadata.get(DECLARED_STATE))
        order = StartOrder(found.state, "on_activation", event, declared_state)
        try:
            await kernel.starter.start(entry, order)
            if faults.ARMED:
                faults.reached("wake.started")
            await self._note_awake(entry, record, found, reason, kernel.loop.time() - began)
            if faults.ARMED:
                faults.reached("wake.activated")
        except BaseException as exc:
            died = reason == "recovery" and isinstance(exc, PagletCrashedError)
            if died and kernel.watch.recover_again(entry, str(exc)):
                self._dormitory.rise(agent_id)
                entry.release_held()
            elif entry.restarting and reason != "revive":
                kernel.watch.failed_to_restart(entry, str(exc) or type(exc).__name__)
            else:
                self._failed_to_wake(entry, record.status, exc)
            raise
        if not entry.window:
            self._dormitory.recall_window(entry, found)
        entry.restarting = False
        entry.recoveries = 0
        entry.error = None
        entry.exitcode = None
        if reason == "revive":
            entry.deaths = entry.deaths.revived()
        handled = self.take_in(entry, found.waiting)
        self._dormitory.rise(agent_id)
        self._settling[agent_id] = self._dormitory.waking.pop(agent_id)
        entry.deferred[:0] = calls
        kernel.starter.activate(entry)
        # Who woke it comes before who found it waking.
        entry.release_held(before=self._callers.pop(agent_id, ()))
        if entry.checkpoint_failed:
            kernel.messages.touched(entry)
        data: dict[str, Any] = {"queued_message_count": len(found.waiting)}
        if reason != "activate":
            data["reason"] = reason
        kernel.emit("activate", entry, data=data)
        return handled

    async def _note_awake(
        self, entry: AgentEntry, record: StoredRecord, found: Awakened, reason: str, seconds: float
    ) -> None:
        touched = entry.last_state if entry.last_state is not found.state else None
        if touched is not None:
            self._kernel.starter.check_size(entry, touched)
        ledger = self._kernel.ledger
        if reason == "activate":
            row = ledger.woke(entry.agent_id, entry.class_name, entry.epoch, cause=reason, seconds=seconds)
        else:
            row = ledger.recovered(entry.agent_id, entry.class_name, entry.epoch, cause=reason)
        try:
            await self._vault.woke(entry, touched, row)
        except InsufficientStorageError as exc:
            if record.status is not Status.ACTIVE:
                raise
            # The row says so already, and a full disk must not keep what is safe from running. What the hook changed is
            # in the next checkpoint.
            entry.checkpoint_failed = True
            self._kernel.emit("checkpoint-failed", entry, error=str(exc))

    def _failed_to_wake(self, entry: AgentEntry, status: Status, error: BaseException) -> None:
        """Leave a paglet that did not start where it was: asleep, or crashed."""
        kernel = self._kernel
        if status is Status.INACTIVE and not entry.restarting:
            kernel.ending.abandon(entry, error if isinstance(error, PagletError) else None)
            entry.fail_held(error)
            return
        if entry.place is not None:
            entry.place.kill()
        self._dormitory.rise(entry.agent_id)
        kernel.watch.show_crashed(entry, str(error) or type(error).__name__)
        entry.release_held()
        kernel.background(self._vault.crashed(entry.agent_id, entry.class_name, entry.epoch, str(error)))

    # --- accepted messages --------------------------------------------------------------------------------------------

    async def collect_mail(self, entry: AgentEntry) -> None:
        """Take in the messages that were stored for an active paglet and are not in its mailbox."""
        # Read in order with what is written: a message that was handled meanwhile must not be taken for one that waits.
        waiting = await self._vault.mail(entry.agent_id)
        if entry.active:
            self.take_in(entry, waiting)
            self._kernel.messages.pump(entry)

    def take_in(
        self, entry: AgentEntry, waiting: Sequence[QueuedMessage], *, stored: bool = True
    ) -> list[asyncio.Future[None]]:
        """Put accepted messages ahead of those that came while the paglet started.

        :param stored: whether they are on disk; each is removed there when it is handled then.
        :return: resolved when each has been handled.
        """
        handled: list[asyncio.Future[None]] = []
        deliveries: list[Queued[Delivery]] = []
        for item in waiting:
            message = item.message
            if message.message_id in entry.pending or message.message_id in entry.removing:
                continue  # it waits in the mailbox already, or was handled and is about to be removed here
            if entry.durability is Durability.MESSAGE and entry.window.seen(message.message_id):
                self._kernel.background(self._vault.dequeue(entry.agent_id, message.message_id))
                continue  # a repetition of what it has handled
            future: asyncio.Future[None] = self._kernel.loop.create_future()
            delivery = Delivery(
                packed(message.to_wire()),
                message.kind,
                message.priority,
                message.message_id,
                oneway=True,
                done=_nobody,
                stored=stored,
                joined=[partial(_handled, future)],
            )
            handled.append(future)
            entry.pending[message.message_id] = delivery
            deliveries.append(Queued(delivery, message.priority or UNQUEUED_RANK, delivery.packed.nbytes))
        entry.mailbox.restore(deliveries)
        return handled


def _nobody(reply: Attachment | None, error: Exception | None) -> None:
    """Take the outcome of a message whose sender was answered long ago."""
    if reply is not None:
        reply.close()


def _handled(future: asyncio.Future[None], reply: Attachment | None, error: Exception | None) -> None:
    _nobody(reply, error)
    if not future.done():
        future.set_result(None)
