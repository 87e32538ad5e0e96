"""Start paglets: their processes, their first hooks, and how their ``run`` begins.

Creation, arrival, activation and revival all end here.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from paglets.core.allowance import Allowance, AllowanceBalance
from paglets.core.errors import HostError, LifecycleError, SerializationError
from paglets.core.policies import RestartPolicy
from paglets.core.runtime_values import Durability
from paglets.protocol.delivery.window import DedupWindow
from paglets.runtime.agents import AgentEntry, Phase
from paglets.runtime.attachment import Attachment
from paglets.runtime.frames import Frame, Op
from paglets.runtime.launch.base import Launcher
from paglets.runtime.place import Place
from paglets.serialization.values import pack, unpack

if TYPE_CHECKING:
    from paglets.runtime.kernel import Kernel

#: How long the location of a paglet that has left is waited for.
DEPARTED_SECONDS = 5.0
#: How long a paglet's module, constructor and first hook may take.
START_SECONDS = 120.0
#: A spare process is forked so long after one was used, when what was started has had the processors for itself.
REFILL_SECONDS = 0.005


@dataclass(slots=True)
class StartOrder:
    """Everything that starts a paglet's process."""

    blob: Attachment
    hook: str
    event: dict[str, Any] = field(default_factory=dict)
    declared_state: bool = False
    """Whether the state has to be what the class declares, so that its own name is not used to import anything."""


class Starter:
    """Start the paglets of one host; runs on its loop."""

    def __init__(self, kernel: Kernel, launcher: Launcher) -> None:
        self._kernel = kernel
        self._launcher = launcher
        self.places: set[Place] = set()
        """Every process that has not ended, also those whose paglet has gone or never lived."""

    # --- its process --------------------------------------------------------------------------------------------------

    async def start(self, entry: AgentEntry, order: StartOrder) -> None:
        """Start a process for an entry and run its first hook.

        :raises PagletError: it did not start; the process is gone.
        """
        place = self.open_place(entry)
        entry.place = place
        await self.start_place(entry, place, order)

    def open_place(self, entry: AgentEntry) -> Place:
        """Start a process that will hold ``entry``'s paglet.

        :raises HostUnreachableError: the host has ended its processes already.
        """
        if self._kernel.closed:
            raise self._kernel.closing_error()
        place = Place(
            self._kernel.loop,
            self._launcher,
            on_call=partial(self._called, entry),
            on_run_ended=partial(self._kernel.watch.run_ended, entry),
            on_lost=partial(self._kernel.watch.lost, entry),
        )
        self.places.add(place)
        place.ended.add_done_callback(lambda _: self.places.discard(place))
        return place

    def tell_address(self) -> None:
        """Tell all processes the present address of this host."""
        for place in self.places:
            place.tell_address(self._kernel.address())

    async def start_place(self, entry: AgentEntry, place: Place, order: StartOrder) -> None:
        """Have a process build the paglet and run its first hook; the process is killed when that fails."""
        short_name = entry.class_name.rpartition(":")[2].rpartition(".")[2]
        request = pack(
            {
                "title": f"paglet:{self._kernel.config.name}:{short_name}:{entry.agent_id}",
                "agent_id": entry.agent_id,
                "agent_class_name": entry.class_name,
                "state_class_name": entry.state_class_name,
                "declared_state": order.declared_state,
                "host_name": self._kernel.config.name,
                "host_address": self._kernel.address(),
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
        self._kernel.loop.call_later(REFILL_SECONDS, self._launcher.refill)
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
        place.run_ended = self._kernel.loop.create_future() if answer["has_run"] else None
        entry.remember_state(frame.attachment if frame.attachment.nbytes else order.blob)

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

    def _called(self, entry: AgentEntry, place: Place, frame: Frame) -> None:
        self._kernel.call_handler(entry, place, frame)

    # --- its life -----------------------------------------------------------------------------------------------------

    def activate(self, entry: AgentEntry) -> None:
        """Let an entry be seen as active; its messages wait until :meth:`begin`."""
        entry.phase = Phase.ACTIVE
        if entry.balance.expires_at is not None:
            self._kernel.timers.expire_at(entry.agent_id, entry.balance.expires_at)
        for tell in self._kernel.on_active:
            tell(entry)
        timers, entry.timers = entry.timers, None
        if timers:  # of a thread that went on after the first hook
            self._kernel.background(self._kernel.timers.put_late(entry.agent_id, timers))
        if entry.mail_waits:
            entry.mail_waits = False
            self._kernel.background(self._kernel.collect(entry.agent_id))
        if entry.place is not None and entry.place.ended.done():
            self._kernel.watch.crash(entry, "process ended before the paglet was active")

    def open_mailbox(self, entry: AgentEntry) -> None:
        """Let an entry's messages be delivered, unless an operation on it holds them back."""
        if entry.active and not entry.lock.locked():
            entry.mailbox.resume()
            self._kernel.messages.pump(entry)

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
                await self._kernel.self_call(entry, call)
            except Exception as exc:  # what a hook raised on the way included
                self._kernel.emit("self-call-failed", entry, data={"operation": call.operation}, error=str(exc))
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
            self._kernel.messages.touched(entry)
            if settle:
                await self._settle(entry, place)
        except Exception as exc:  # whatever `run` raised
            if fail_with_run:
                self._kernel.ending.abandon(entry, exc)
                self._kernel.timers.forget_all(entry.agent_id)
                await self._kernel.vault.uncreated(entry.agent_id)
                raise
        finally:
            entry.creating = False
        return entry.gone.result() if entry.gone.done() else None

    async def _settle(self, entry: AgentEntry, place: Place) -> None:
        run_ended = place.run_ended
        if run_ended is None:
            return
        deadline = self._kernel.loop.time() + self._kernel.config.run_settle_seconds
        while not (run_ended.done() or entry.gone.done()):
            leaving = self._kernel.loop.create_task(entry.leaving.wait())
            try:
                await asyncio.wait(
                    (run_ended, entry.gone, leaving),
                    timeout=max(0.0, deadline - self._kernel.loop.time()),
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
            if self._kernel.loop.time() >= deadline:
                break
        if run_ended.done():
            run_ended.result()
