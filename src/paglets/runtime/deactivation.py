"""Put paglets to sleep: when somebody asks, when an allowance is used up, and when the host stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from paglets.core.errors import LifecycleError, PagletError
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.runtime import faults
from paglets.runtime.agents import AgentEntry, Delivery, Phase
from paglets.runtime.frames import Op
from paglets.runtime.kernel import Kernel
from paglets.runtime.sleep import Dormitory
from paglets.runtime.units import Aftermath
from paglets.runtime.wakeups import Wakeups

#: How long one paglet may take to prepare for the host's shutdown.
SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS = 0.5


class Deactivator:
    """Store the active paglets of one host and end their processes."""

    def __init__(self, kernel: Kernel, dormitory: Dormitory, wakeups: Wakeups) -> None:
        self._kernel = kernel
        self._vault = kernel.vault
        self._dormitory = dormitory
        self._wakeups = wakeups
        # Set by the post office: delivers a message that waited in a mailbox when its paglet was stored.
        self.redeliver: Callable[[str, Delivery], None]
        self.wakes_on_startup: Callable[[str], bool] = lambda _: True
        """Tells whether a paglet that is active when the host stops is to be active when it starts."""

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
            waiting = kernel.ending.leave(entry, location, farewell=bool(parent))
            self._dormitory.fell_asleep(entry, policy)
        kernel.post(rows)
        kernel.emit("deactivate", entry, data={"reason": request.reason})
        for delivery in waiting:
            if delivery.stored:
                delivery.packed.close()
            else:
                delivery.wakes = delivery.wakes if idled else 0
                self.redeliver(entry.agent_id, delivery)
        entry.release_held()
        if any(delivery.stored for delivery in waiting):
            self._wakeups.look_at_mail_left(entry.agent_id, idled=idled)
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
            rest = kernel.ending.leave(entry, kernel.proxy_wire(entry.agent_id), farewell=False)
            place.kill()
            self._dormitory.fell_asleep(entry, policy)
        kernel.journal.release(entry.agent_id)
        kernel.emit("deactivate", entry, data={"reason": request.reason, "prepared": False})
        for delivery in rest:
            kernel.messages.refuse(entry, delivery, error)
        entry.release_held()

    # --- when the host stops ------------------------------------------------------------------------------------------

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
