"""Take checkpoints of active paglets in the background.

A checkpoint is due a short time after something may have changed the state: a handler that ended, or, for as long as
they live, ``run`` and other threads of the paglet. It is taken by the thread that runs the handlers, between two of
them, so half of a handler's work is never a checkpoint; the process sends nothing when the state is what it sent last.
"""

from __future__ import annotations

from paglets.core.errors import AllowanceExceededError, LifecycleError, PagletError
from paglets.core.runtime_values import Durability
from paglets.runtime.agents import AgentEntry
from paglets.runtime.attachment import Attachment
from paglets.runtime.frames import Op
from paglets.runtime.kernel import Kernel
from paglets.runtime.place import Place
from paglets.serialization.values import unpack

#: A paglet whose checkpoint takes long gets one less often: at most this part of its time goes there.
MOST_SHARE = 0.1


class Checkpointer:
    """Keep the rows of the active paglets of one host near to what they are."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._interval = kernel.config.checkpoint_interval
        kernel.messages.touched = self.touch

    def touch(self, entry: AgentEntry) -> None:
        """Have a checkpoint taken soon: the state may have changed."""
        if entry.checkpoint_due is None and entry.durable and entry.active:
            self._plan(entry, self._interval)

    def _plan(self, entry: AgentEntry, seconds: float) -> None:
        entry.checkpoint_due = self._kernel.loop.call_later(seconds, self._due, entry)

    def _due(self, entry: AgentEntry) -> None:
        entry.checkpoint_due = None
        place = entry.place
        if entry.active and place is not None and place.alive and not self._kernel.closing:
            self._kernel.background(self._take(entry, place))

    async def take(self, entry: AgentEntry) -> None:
        """Take a checkpoint of an active paglet now, after the handler that runs.

        :raises LifecycleError: its class keeps none.
        :raises InsufficientStorageError: the disk is full; the last checkpoint stays.
        """
        check_keeps_checkpoints(entry)
        await self._checkpoint(entry, entry.live_place())

    async def _take(self, entry: AgentEntry, place: Place) -> None:
        loop = self._kernel.loop
        began = loop.time()
        goes_on = entry.checkpoint_failed
        try:
            goes_on = await self._checkpoint(entry, place)
        except AllowanceExceededError:
            return  # it goes to sleep as it was stored last
        except PagletError as exc:
            if not place.alive:
                return  # the process has ended, and everybody who needs to know does
            goes_on = True
            self._kernel.emit("checkpoint-failed", entry, error=str(exc))
        if goes_on and entry.checkpoint_due is None and entry.active:
            self._plan(entry, max(self._interval, (loop.time() - began) / MOST_SHARE))

    async def _checkpoint(self, entry: AgentEntry, place: Place) -> bool:
        """Take a checkpoint; return whether something may change the state without a message."""
        # However long the handler takes that runs now: there is nothing to keep before it ends.
        frame = await place.request(Op.CHECKPOINT, b"\x01" if entry.checkpoint_failed else b"")
        answer = unpack(frame.payload)
        if frame.attachment.nbytes and entry.place is place and entry.active:
            await self.keep(entry, place, answer["state"], frame.attachment)
        return bool(answer["goes_on"])

    async def keep(self, entry: AgentEntry, place: Place, number: int, state: Attachment) -> None:
        """Have a state of a paglet on disk, or a newer one.

        :param number: by which its process tells which of two states is newer.
        :raises AllowanceExceededError: it is larger than allowed; the paglet goes to sleep as it was stored last.
        :raises InsufficientStorageError: the disk is full; the last checkpoint stays.
        """
        excess = entry.balance.too_large(state.nbytes)
        if excess is not None:
            state.close()
            self._kernel.exceeded(entry, excess)
            raise excess.error(entry.agent_id)
        vault = self._kernel.vault
        # What a `MESSAGE` paglet's state is made from may still fail to get to the disk, and then this must not get
        # there either.
        key = entry.agent_id if entry.durability is Durability.MESSAGE else ""
        async with entry.checkpointing:
            entry.checkpoint_failed = True
            try:
                ref = await vault.keep(state)
                if number > place.newest_state:
                    await vault.checkpoint(entry, ref, key=key)
                    place.newest_state = max(place.newest_state, number)
                    entry.remember_state(state)
                else:
                    # A newer one is ahead of it; when that is on disk, so is this.
                    await vault.drop(ref)
                    await vault.journal.write(lambda _: None, key=key)
                    state.close()
            except PagletError:
                if key and entry.active:
                    # No message depends on what failed: whatever it changed is part of the next state as well.
                    vault.journal.release(key)
                raise
            entry.checkpoint_failed = False


def check_keeps_checkpoints(entry: AgentEntry) -> None:
    """Refuse a checkpoint of a paglet that keeps none.

    :raises LifecycleError: its ``DURABILITY`` is ``none``.
    """
    if not entry.durable:
        raise LifecycleError(
            f"{entry.class_name} keeps no checkpoints: its DURABILITY is 'none'; say 'checkpoint' or 'message'"
        )
