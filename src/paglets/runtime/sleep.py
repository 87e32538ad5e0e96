"""Inactive paglets: storing them, bringing them back, and what a host does with them when it starts and stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from paglets.core.allowance import AllowanceExcess
from paglets.core.errors import (
    AllowanceExceededError,
    ConflictError,
    HostUnreachableError,
    InsufficientStorageError,
    InvalidAgentError,
    LifecycleError,
    OverloadedError,
    PagletError,
    PagletInactiveError,
)
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.runtime_values import Durability
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import RecordSummary, Status, StoredRecord
from paglets.protocol.delivery.routing import AMBIGUOUS_SECONDS
from paglets.protocol.delivery.shelf import WindowShelf
from paglets.protocol.delivery.window import Outcome
from paglets.protocol.mailbox import Queued
from paglets.protocol.reminders import is_firing
from paglets.runtime import faults
from paglets.runtime.agents import HELD_MESSAGES, AgentEntry, Delivery, HeldPosting, Phase, SelfCall
from paglets.runtime.attachment import Attachment
from paglets.runtime.files import FileDesk
from paglets.runtime.frames import Op
from paglets.runtime.kernel import Kernel, StartOrder
from paglets.runtime.place import packed
from paglets.runtime.pump import UNQUEUED_RANK
from paglets.runtime.vault import Aftermath, Awakened, files_of

#: How long one paglet may take to prepare for the host's shutdown.
SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS = 0.5
STARTUP_CONCURRENCY = 16
#: How often messages wake a paglet that goes back to sleep before it has handled one of them.
MOST_AWAKENINGS = 8
#: How long a paglet that was to be woken sleeps on where the host has no room for it.
WAKE_AGAIN_SECONDS = 2.0
#: Sleepers of which it is counted how often.
MOST_IDLED = 4_096


class Timers(Protocol):
    """Wake paglets when their time has come."""

    def wake_at(self, agent_id: str, due: float | None) -> None:
        """Wake a paglet at a Unix time, None not to."""

    def forget_all(self, agent_id: str) -> None:
        """Drop every timer of a paglet that has ended."""

    def expire_at(self, agent_id: str, due: float | None) -> None:
        """Tell when the time of a paglet is over, None that it has no end."""


class Dormitory:
    """Keep the inactive paglets of one host, and bring paglets back from their rows.

    :param timers: is told when a paglet wants to be woken.
    """

    def __init__(self, kernel: Kernel, files: FileDesk, timers: Timers) -> None:
        self._kernel = kernel
        self._vault = kernel.vault
        self._files = files
        self._timers = timers
        self._sleepers: dict[str, RecordSummary] = {}
        self._recovering: set[str] = set()
        """Those of them that were active when the host died, and are not back yet."""
        self._windows = WindowShelf()
        """What the newest sleepers remembered, of those that have no such thing on disk."""
        self._idled: dict[str, int] = {}
        """How often sleepers woke for messages and handled none of them."""
        self._put_off: dict[str, str] = {}
        """Those who would have been woken while the host was draining, and why."""
        self._staying: dict[str, asyncio.Event] = {}
        """Sleepers that may not be woken for a moment, because something is written of them."""
        self._waking: dict[str, asyncio.Task[dict[str, str]]] = {}
        self._callers: dict[str, list[HeldPosting]] = {}
        """Messages that woke sleepers, to be posted again as soon as these take messages."""
        # Set by the post office: delivers a message that waited in a mailbox when its paglet was stored.
        self.redeliver: Callable[[str, Delivery], None]
        self.wakes_on_startup: Callable[[str], bool] = lambda _: True
        """Tells whether a paglet that is active when the host stops is to be active when it starts."""
        kernel.is_stored = self.__contains__
        kernel.revive = self._revive

    def __contains__(self, agent_id: object) -> bool:
        return agent_id in self._sleepers

    def __len__(self) -> int:
        return len(self._sleepers) - len(self._recovering)

    @property
    def agent_ids(self) -> list[str]:
        """Ids of the inactive paglets, in the order in which they were stored."""
        return [agent_id for agent_id in self._sleepers if agent_id not in self._recovering]

    def summary(self, agent_id: str) -> RecordSummary | None:
        """Return what is known of an inactive paglet without reading its state."""
        return self._sleepers.get(agent_id)

    async def record(self, agent_id: str) -> Awakened:
        """Read everything that is stored of a paglet.

        :raises InvalidAgentError: there is nothing.
        """
        found = await self._kernel.on_disk(self._vault.awaken, agent_id)
        if found is None:
            raise InvalidAgentError(f"no inactive paglet {agent_id} on {self._kernel.config.name}")
        return found

    # --- going to sleep -----------------------------------------------------------------------------------------------

    async def deactivate(
        self,
        entry: AgentEntry,
        request: DeactivationRequest | None,
        *,
        parent: int = 0,
        in_handler: bool = False,
        by_itself: bool = False,
        timeout: float | None = None,
        unless: Callable[[], bool] = lambda: False,
    ) -> dict[str, str]:
        """Store a paglet and end its process.

        :param by_itself: the paglet asked, in a handler or elsewhere.
        :param unless: tells, when its turn has come, whether there is no reason any more.
        :raises AllowanceExceededError: its state is larger than its allowance; it sleeps soon as it was stored last.

        :raises PagletError: its policy, hook or a cleanup failed, or it could not be stored; it goes on then.
        """
        request = request or DeactivationRequest()
        kernel = self._kernel
        async with kernel.operation(entry, parent=parent, in_handler=in_handler, timeout=timeout) as place:
            if unless():
                return kernel.proxy_wire(entry.agent_id)
            delivery = entry.current if in_handler else None
            event = kernel.event_fields(entry.agent_id, reason=request.reason, request=request.to_wire())
            answer, state = await kernel.hook(
                place, "on_deactivating", event, cleanup="deactivate", snapshot=True, parent=parent
            )
            excess = entry.balance.too_large(state.nbytes)
            if excess is not None:
                state.close()
                kernel.exceeded(entry, excess)
                raise excess.error(entry.agent_id)
            policy = DeactivationPolicy.from_wire(answer["policy"])
            location = kernel.proxy_wire(entry.agent_id)
            aftermath = Aftermath.of(delivery, answer, location)
            # What is accepted now is on disk before the paglet sleeps, so that who wakes it finds it there.
            entry.held = []
            try:
                await kernel.messages.recorded(entry)
                stored = [queued.item for queued in entry.mailbox.waiting() if queued.item.oneway]
                rows = await self._vault.slept(entry, state, policy, request, stored, aftermath)
            except BaseException:
                entry.release_held()
                raise
            if faults.ARMED:
                faults.reached("sleep.stored")
            for delivery in stored:
                delivery.stored = True
            idled = by_itself and not in_handler and not entry.mailbox.handled
            waiting = kernel.leave(entry, location, farewell=bool(parent))
            self._lay_down(entry, policy)
            self._keep_window(entry)
        kernel.post(rows)
        kernel.emit("deactivate", entry, data={"reason": request.reason})
        for delivery in waiting:
            if delivery.stored:
                delivery.packed.close()
            else:
                delivery.wakes = delivery.wakes if idled else 0
                self.redeliver(entry.agent_id, delivery)
        entry.release_held()
        if any(delivery.stored for delivery in waiting) and self._is_worth_waking(entry.agent_id, idled=idled):
            self.look_at_mail(entry.agent_id)
        return location

    async def lay_down_as_stored(
        self,
        entry: AgentEntry,
        request: DeactivationRequest,
        error: PagletError,
        *,
        unless: Callable[[], bool],
    ) -> None:
        """Let a paglet sleep as it was stored last, and end its process with whatever it has done since.

        Accepted messages that were not handled by then wait on disk. Who waits for a reply gets `error`.

        :param unless: tells, when its turn has come, whether there is no reason any more.
        :raises PagletError: it is not active any more, or was never stored, or the disk does not take it.
        """
        kernel = self._kernel
        async with kernel.hold(entry) as place:
            if unless():
                kernel.resume_deliveries(entry)
                return
            entry.mailbox.pause()
            with suppress(LifecycleError):
                # Who caused it has the error, and gets an answer; one that does not end is cut off.
                await kernel.messages.idle(entry, kernel.config.handler_wait_seconds)
            entry.held = []
            await kernel.messages.recorded(entry)
            waiting = [queued.item for queued in entry.mailbox.waiting() if queued.item.oneway]
            policy = DeactivationPolicy()
            try:
                if entry.durable:
                    await self._vault.slept_at_checkpoint(entry, policy, request, waiting)
                elif entry.last_state is not None:
                    await self._vault.slept(entry, entry.last_state, policy, request, waiting, Aftermath())
                else:
                    raise LifecycleError(f"nothing is stored of paglet {entry.agent_id}")
            except BaseException:
                entry.release_held()
                kernel.resume_deliveries(entry)
                raise
            for delivery in waiting:
                delivery.stored = True
            place.failure = error
            rest = kernel.leave(entry, kernel.proxy_wire(entry.agent_id), farewell=False)
            place.kill()
            self._lay_down(entry, policy)
            self._keep_window(entry)
        kernel.journal.release(entry.agent_id)
        kernel.emit("deactivate", entry, data={"reason": request.reason, "prepared": False})
        for delivery in rest:
            kernel.messages.refuse(entry, delivery, error)
        entry.release_held()

    async def hold(self, agent_id: str, excess: AllowanceExcess, request: DeactivationRequest) -> bool:
        """Let a paglet that does not run sleep until it is granted more; return False where it wakes or has gone."""
        async with self.staying(agent_id):
            summary = self._sleepers.get(agent_id)
            if summary is None or agent_id in self._kernel.agents or summary.balance.held(time.time()) is None:
                return False  # it wakes, has gone, or was granted more meanwhile
            balance = replace(summary.balance, exceeded=excess.which)
            held = await self._vault.hold(agent_id, summary.agent_class_name, summary.epoch, balance, request)
            if held:
                summary.status, summary.balance = Status.INACTIVE, balance
                self._recovering.discard(agent_id)
        return held

    def held(self, agent_id: str) -> AllowanceExcess | None:
        """Return why a sleeper may not wake, None where it may."""
        summary = self._sleepers.get(agent_id)
        return None if summary is None else summary.balance.held(time.time())

    async def awakening(self, agent_id: str) -> bool:
        """Wait until a paglet that is about to wake has, or has not; return whether one was."""
        task = self._waking.get(agent_id)
        if task is not None:
            await asyncio.wait((task,))
        return task is not None

    @asynccontextmanager
    async def staying(self, agent_id: str) -> AsyncIterator[None]:
        """Keep a sleeper from being woken; who would wake it waits."""
        while agent_id in self._staying:
            await self._staying[agent_id].wait()
        over = self._staying[agent_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._staying[agent_id]
            over.set()

    def look_again(self, agent_id: str) -> None:
        """See to everything that may have waited for a sleeper that may wake again."""
        summary = self._sleepers.get(agent_id)
        if summary is None or summary.balance.held(time.time()) is not None:
            return
        if summary.policy.activate_at is not None:
            self._timers.wake_at(agent_id, summary.policy.activate_at)
        self._kernel.background(self._look_again(agent_id))

    async def _look_again(self, agent_id: str) -> None:
        if await self._kernel.on_disk(self._vault.count_waiting, agent_id):
            self.look_at_mail(agent_id)

    def _is_worth_waking(self, agent_id: str, *, idled: bool) -> bool:
        """Tell whether messages should wake a paglet that has just gone to sleep.

        :param idled: it did so by itself and handled none of them since it woke. One that does that again and again is
            left alone.
        """
        times = self._idled.pop(agent_id, 0) + 1 if idled else 0
        if times:
            self._idled[agent_id] = times
            if len(self._idled) > MOST_IDLED:
                del self._idled[next(iter(self._idled))]
        return times < MOST_AWAKENINGS

    def recovering(self, agent_id: str) -> bool:
        """Tell whether a paglet was active when the host died, and is not back yet."""
        return agent_id in self._recovering

    async def collect_mail(self, entry: AgentEntry) -> None:
        """Take in the messages that were stored for an active paglet and are not in its mailbox."""
        # Read in order with what is written: a message that was handled meanwhile must not be taken for one that waits.
        waiting = await self._vault.mail(entry.agent_id)
        if entry.active:
            self.take_in(entry, waiting)
            self._kernel.messages.pump(entry)

    def look_at_mail(self, agent_id: str) -> None:
        """Wake a paglet for which messages are stored, if its policy lets messages wake it."""
        summary = self._sleepers.get(agent_id)
        if summary is None or self._kernel.closing:
            return
        if summary.policy.activate_on_message:
            self._kernel.background(self._wake_unasked(agent_id, "message"))
        else:
            self._kernel.background(self.wake_if_timer_rang(agent_id))

    async def wake_if_timer_rang(self, agent_id: str) -> None:
        """Wake a paglet if one of the messages that are stored for it is from a timer, whatever its policy says."""
        waiting = await self._kernel.on_disk(self._vault.waiting, agent_id)
        if any(is_firing(item.message, agent_id) for item in waiting):
            await self._wake_unasked(agent_id, "message")

    def _keep_window(self, entry: AgentEntry) -> None:
        if entry.durability is not Durability.MESSAGE:
            self._windows.put(entry.agent_id, entry.window)

    def _recall_window(self, entry: AgentEntry, found: Awakened) -> None:
        """Have a paglet that comes back know which messages it has handled, as far as that is known."""
        if entry.durability is Durability.MESSAGE:
            entry.window.restore(found.window)
            entry.window_lost_at = None
            return
        window = self._windows.take(entry.agent_id)
        if window is not None:
            entry.window = window
        elif time.time() - found.record.deactivated_at < AMBIGUOUS_SECONDS:
            entry.window_lost_at = self._kernel.loop.time()

    def _lay_down(self, entry: AgentEntry, policy: DeactivationPolicy) -> None:
        self.lay_down(
            RecordSummary(
                agent_id=entry.agent_id,
                agent_class_name=entry.class_name,
                state_class_name=entry.state_class_name,
                deactivated_at=time.time(),
                status=Status.INACTIVE,
                epoch=entry.epoch,
                policy=policy,
                queued_message_count=0,
                balance=entry.balance,
                holder=entry.holder,
            )
        )

    def lay_down(self, summary: RecordSummary) -> None:
        """Know of a paglet that is stored."""
        self._sleepers[summary.agent_id] = summary
        if summary.status is Status.ACTIVE:
            self._recovering.add(summary.agent_id)
        if summary.policy.activate_at is not None and summary.status is Status.INACTIVE:
            self._timers.wake_at(summary.agent_id, summary.policy.activate_at)
        if summary.balance.expires_at is not None:
            self._timers.expire_at(summary.agent_id, summary.balance.expires_at)

    def rise(self, agent_id: str) -> None:
        """Know of a paglet that is not stored any more, or is active."""
        self._recovering.discard(agent_id)
        if self._sleepers.pop(agent_id, None) is not None:
            self._timers.wake_at(agent_id, None)

    async def enqueue(self, agent_id: str, message: Message, *, oneway: bool) -> None:
        """Store a message that waits until its paglet wakes.

        :raises OverloadedError: too many wait already.
        """
        await self._vault.enqueue(agent_id, QueuedMessage(message, oneway=oneway))

    async def recall(self, agent_id: str, message_id: str, *, repeated: bool) -> tuple[bool, Outcome | None]:
        """Tell whether a sleeper has handled a message, and what came of it.

        :param repeated: its sender says that it may have. Of a `MESSAGE` paglet that is known anyway.
        """
        window = self._windows.find(agent_id)
        if window is not None:
            return repeated and window.seen(message_id), window.outcome(message_id)
        return await self._kernel.on_disk(self._vault.recall, agent_id, message_id, repeated)

    async def dispose(self, agent_id: str) -> None:
        """Delete an inactive paglet with its work directory; no hook runs.

        :raises InvalidAgentError: there is none.
        """
        summary = self._sleepers.get(agent_id)
        if summary is None or agent_id in self._waking:
            raise InvalidAgentError(f"no inactive paglet {agent_id} on {self._kernel.config.name}")
        self.rise(agent_id)  # first, so that nobody wakes it meanwhile
        try:
            await self._vault.disposed_asleep(summary)
        except BaseException:
            self.lay_down(summary)
            raise
        self._windows.take(agent_id)
        self._idled.pop(agent_id, None)
        self._timers.forget_all(agent_id)
        await self._kernel.on_disk(self._files.remove_work_dir, agent_id)
        self._kernel.emit("dispose", agent_id=agent_id, class_name=summary.agent_class_name, data={"active": False})

    # --- waking up ----------------------------------------------------------------------------------------------------

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
        task = self._waking.get(agent_id)
        if task is None:
            entry = self._kernel.agents.get(agent_id)
            crashed = entry is not None and entry.crashed
            if agent_id not in self._sleepers and not crashed:
                raise InvalidAgentError(f"no inactive paglet {agent_id} on {self._kernel.config.name}")
            excess = entry.balance.held(time.time()) if crashed and entry is not None else self.held(agent_id)
            if excess is not None:
                raise excess.error(agent_id)
            if crashed and reason == "activate":
                reason = "revive"
            task = self._kernel.loop.create_task(self._wake(agent_id, reason, settle=settle, calls=calls))
            self._waking[agent_id] = task
            task.add_done_callback(lambda _: self._waking.pop(agent_id, None))
        return await asyncio.shield(task)

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
            reason = "recovery" if self.recovering(agent_id) else "activate"
            if agent_id not in self._kernel.agents or agent_id in self._waking:
                # Those who wait are released as soon as it is awake. It may sleep again when this returns, and others
                # wait by then; to release these now would put them behind who comes later.
                await self.activate(agent_id, reason=reason, settle=False)
            else:
                self._release_callers(agent_id)
        except BaseException as exc:
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
        location = await kernel.begin(entry, settle=settle)
        if handled and settle:
            everything: list[asyncio.Future[Any]] = [asyncio.gather(*handled), entry.gone]
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        return location or (entry.gone.result() if entry.gone.done() else None) or kernel.proxy_wire(agent_id)

    async def _wake_sleeper(
        self, agent_id: str, reason: str, calls: Sequence[SelfCall]
    ) -> tuple[AgentEntry, list[asyncio.Future[None]]]:
        began = self._kernel.loop.time()
        while agent_id in self._staying:
            await self._staying[agent_id].wait()
        summary = self._sleepers.get(agent_id)
        if summary is None:
            raise InvalidAgentError(f"no inactive paglet {agent_id} on {self._kernel.config.name}")
        # Before the row is read: messages that come from now on are held.
        entry = self._kernel.reserve(
            agent_id, summary.agent_class_name, summary.state_class_name, epoch=summary.epoch, from_store=True
        )
        entry.held = []  # until its window and what waits on disk are in place
        entry.window_lost_at = began if reason == "recovery" else None
        try:
            found = await self.record(agent_id)
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
            found = await self.record(entry.agent_id)
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
        entry.home = record.home
        entry.balance, entry.holder = record.balance, record.holder
        if record.durability is not None:
            entry.durability = record.durability
        entry.files = files_of(record.metadata)
        event = kernel.event_fields(
            agent_id, reason=reason, request=record.request.to_wire(), policy=record.policy.to_wire()
        )
        try:
            await kernel.start(entry, StartOrder(found.state, "on_activation", event))
            if faults.ARMED:
                faults.reached("wake.started")
            await self._note_awake(entry, record, found, reason, kernel.loop.time() - began)
            if faults.ARMED:
                faults.reached("wake.activated")
        except BaseException as exc:
            if entry.restarting and reason != "revive":
                kernel.watch.failed_to_restart(entry, str(exc) or type(exc).__name__)
            else:
                self._failed_to_wake(entry, record.status, exc)
            raise
        if not entry.window:
            self._recall_window(entry, found)
        entry.restarting = False
        entry.error = None
        entry.exitcode = None
        if reason == "revive":
            entry.deaths = entry.deaths.revived()
        handled = self.take_in(entry, found.waiting)
        self.rise(agent_id)
        entry.deferred[:0] = calls
        kernel.activate(entry)
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
            self._kernel.check_size(entry, touched)
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
            kernel.abandon(entry, error if isinstance(error, PagletError) else None)
            entry.fail_held(error)
            return
        if entry.place is not None:
            entry.place.kill()
        self.rise(entry.agent_id)
        kernel.watch.show_crashed(entry, str(error) or type(error).__name__)
        entry.release_held()
        kernel.background(self._vault.crashed(entry.agent_id, entry.class_name, entry.epoch, str(error)))

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

    # --- the host's own life ------------------------------------------------------------------------------------------

    def load(self, summaries: Iterable[RecordSummary], errors: Mapping[str, str]) -> list[RecordSummary]:
        """Know of everything that is stored; return the paglets that a starting host brings back.

        :param errors: why the crashed ones did.
        """
        wanted: list[RecordSummary] = []
        for summary in summaries:
            if summary.status is Status.CRASHED:
                entry = self._kernel.reserve(
                    summary.agent_id,
                    summary.agent_class_name,
                    summary.state_class_name,
                    epoch=summary.epoch,
                    from_store=True,
                )
                entry.window_lost_at = self._kernel.loop.time()
                entry.balance, entry.holder = summary.balance, summary.holder
                error = errors.get(summary.agent_id) or "its process died in an earlier run of this host"
                self._kernel.watch.show_crashed(entry, error)
            elif summary.status is not Status.DEPARTING:
                self.lay_down(summary)
                if summary.status is Status.ACTIVE or summary.policy.activate_on_startup:
                    wanted.append(summary)
        return wanted

    async def wake_for_startup(self, wanted: Sequence[RecordSummary]) -> None:
        """Start what was active when the host died, and what is to be woken by its start.

        One that fails stays as it was: asleep, or crashed.
        """
        limit = asyncio.Semaphore(STARTUP_CONCURRENCY)

        async def wake(summary: RecordSummary) -> None:
            async with limit:
                recover = summary.status is Status.ACTIVE
                if summary.agent_id in self._sleepers:
                    await self._wake_unasked(summary.agent_id, "recovery" if recover else "activate")

        await asyncio.gather(*map(wake, wanted))

    async def wake_on_time(self, agent_id: str) -> None:
        """Wake a paglet whose time has come."""
        await self._wake_unasked(agent_id, "activate")

    async def _wake_unasked(self, agent_id: str, reason: str) -> None:
        if agent_id not in self._sleepers or self.held(agent_id) is not None:
            return
        if self._kernel.draining:
            self._put_off[agent_id] = reason
            return
        try:
            await self.activate(agent_id, reason="activate" if reason == "message" else reason, settle=False)
        except PagletError as exc:
            self._kernel.emit("activation-failed", agent_id=agent_id, error=str(exc))
            if isinstance(exc, InsufficientStorageError | OverloadedError) and agent_id in self._sleepers:
                self._timers.wake_at(agent_id, time.time() + WAKE_AGAIN_SECONDS)

    async def wake_put_off(self) -> None:
        """Wake those whose time came while the host was draining."""
        put_off, self._put_off = self._put_off, {}
        for agent_id, reason in put_off.items():
            await self._wake_unasked(agent_id, reason)

    async def put_everyone_to_sleep(self) -> None:
        """Store every active paglet for the next start of the host, each within a short time."""
        entries = list(self._kernel.agents)
        sleep = [self._put_to_sleep(entry) for entry in entries if entry.active]
        keep = [self._keep_for_recovery(entry) for entry in entries if entry.crashed and entry.restarting]
        await asyncio.gather(*sleep, *keep)

    async def _keep_for_recovery(self, entry: AgentEntry) -> None:
        """Leave a paglet that was about to be started again to the next start of the host."""
        waiting = [queued.item for queued in entry.mailbox.waiting() if queued.item.oneway]
        await self._vault.keep_waiting(entry, waiting)
        entry.restarting = False

    async def _put_to_sleep(self, entry: AgentEntry) -> None:
        policy = DeactivationPolicy(activate_on_startup=self.wakes_on_startup(entry.agent_id))
        request = DeactivationRequest(reason="shutdown", source="host", policy=policy)
        try:
            async with asyncio.timeout(SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS):
                await self.deactivate(entry, request, timeout=SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS / 2)
        except (PagletError, TimeoutError) as exc:
            await self._store_as_is(entry, request, exc)

    async def _store_as_is(self, entry: AgentEntry, request: DeactivationRequest, why: Exception) -> None:
        """Let a paglet that cannot prepare (its handler does not end, a hook fails) sleep as its checkpoint is.

        One that keeps no checkpoint is stored as it is now.
        """
        place = entry.place
        policy = request.policy or DeactivationPolicy()
        if not entry.active or place is None:
            return
        entry.mailbox.pause()
        try:
            # Between two handlers; one that goes on for longer sleeps as its last checkpoint is.
            frame = await place.request(Op.CHECKPOINT, b"\x01", timeout=SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS)
            present = entry.balance.too_large(frame.attachment.nbytes) is None
            if present:
                entry.remember_state(frame.attachment)
            else:
                frame.attachment.close()
        except (PagletError, TimeoutError):
            present = False
        # What a handler does from now on will not be on disk, so nobody must be told that it was done.
        entry.phase = Phase.GONE
        await self._kernel.messages.recorded(entry)
        waiting = [queued.item for queued in entry.mailbox.waiting() if queued.item.oneway]
        if not present and entry.durable:
            await self._vault.slept_at_checkpoint(entry, policy, request, waiting)
        elif entry.last_state is not None:
            await self._vault.slept(entry, entry.last_state, policy, request, waiting, Aftermath())
            for delivery in waiting:
                delivery.stored = True
        self._kernel.emit("deactivate", entry, data={"reason": request.reason, "prepared": False}, error=str(why))


def _nobody(reply: Attachment | None, error: Exception | None) -> None:
    """Take the outcome of a message whose sender was answered long ago."""
    if reply is not None:
        reply.close()


def _handled(future: asyncio.Future[None], reply: Attachment | None, error: Exception | None) -> None:
    _nobody(reply, error)
    if not future.done():
        future.set_result(None)


def not_awake(agent_id: str) -> PagletInactiveError:
    """Return the error of a message that may not wake or wait for an inactive paglet."""
    return PagletInactiveError(f"paglet {agent_id} is inactive, and this message may neither wake it nor wait for it")
