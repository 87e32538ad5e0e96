"""Inactive paglets: storing them, waking them, and what a host does with them when it starts and stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from paglets.artifacts import PagletFileRef
from paglets.core.errors import InvalidAgentError, PagletCrashedError, PagletError, PagletInactiveError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.records import RecordStore, RecordSummary, StoredRecord
from paglets.runtime.agents import AgentEntry, Delivery
from paglets.runtime.attachment import Attachment
from paglets.runtime.files import FileDesk
from paglets.runtime.frames import Op
from paglets.runtime.kernel import Kernel, StartOrder
from paglets.runtime.place import packed
from paglets.serialization.values import unpack

#: How long one paglet may take to prepare for the host's shutdown.
SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS = 0.5
QUEUED_MESSAGES = 10_000
QUEUED_BYTES = 64 * 1024 * 1024
STARTUP_CONCURRENCY = 8
_CLOCK_CHECK_SECONDS = 1.0


class Dormitory:
    """Keep the inactive paglets of one host.

    :param store: where they are on disk.
    """

    def __init__(self, kernel: Kernel, store: RecordStore, files: FileDesk) -> None:
        self._kernel = kernel
        self._store = store
        self._files = files
        self._sleepers: dict[str, RecordSummary] = {summary.agent_id: summary for summary in store.summaries()}
        self._waking: dict[str, asyncio.Task[dict[str, str]]] = {}
        self._changed = asyncio.Event()
        # Set by the post office: delivers a message that waited in a mailbox when its paglet was stored.
        self.redeliver: Callable[[str, Delivery], None]
        kernel.is_stored = self.__contains__

    def __contains__(self, agent_id: object) -> bool:
        return agent_id in self._sleepers

    @property
    def agent_ids(self) -> list[str]:
        """Ids of the inactive paglets, in the order in which they were stored."""
        return list(self._sleepers)

    def summary(self, agent_id: str) -> RecordSummary | None:
        """Return what is known of an inactive paglet without reading its state."""
        return self._sleepers.get(agent_id)

    def summaries(self) -> list[RecordSummary]:
        """Return what is known of every inactive paglet."""
        return list(self._sleepers.values())

    async def record(self, agent_id: str) -> StoredRecord:
        """Read one record.

        :raises InvalidAgentError: there is none.
        """
        record = await self._kernel.on_disk(self._store.get, agent_id)
        if record is None:
            raise InvalidAgentError(f"no inactive paglet {agent_id} on {self._kernel.config.name}")
        return record

    # --- going to sleep -----------------------------------------------------------------------------------------------

    async def deactivate(
        self,
        entry: AgentEntry,
        request: DeactivationRequest | None,
        *,
        parent: int = 0,
        in_handler: bool = False,
        timeout: float | None = None,
    ) -> dict[str, str]:
        """Store a paglet and end its process.

        :raises PagletError: its policy, hook or a cleanup failed, or it could not be stored; it goes on then.
        """
        request = request or DeactivationRequest()
        kernel = self._kernel
        async with kernel.operation(entry, parent=parent, in_handler=in_handler, timeout=timeout) as place:
            event = kernel.event_fields(entry.agent_id, reason=request.reason, request=request.to_wire())
            answer, blob = await kernel.hook(
                place, "on_deactivating", event, cleanup="deactivate", snapshot=True, parent=parent
            )
            policy = DeactivationPolicy.from_wire(answer["policy"])
            await self._put(entry, blob, policy, request)
            location = kernel.proxy_wire(entry.agent_id)
            waiting = kernel.leave(entry, location, farewell=bool(parent))
        kernel.emit("deactivate", entry, data={"reason": request.reason})
        for delivery in waiting:
            self.redeliver(entry.agent_id, delivery)
        return location

    async def _put(
        self, entry: AgentEntry, blob: Attachment, policy: DeactivationPolicy, request: DeactivationRequest
    ) -> None:
        await self.store(
            StoredRecord(
                agent_id=entry.agent_id,
                agent_class_name=entry.class_name,
                state_class_name=entry.state_class_name,
                state_blob=blob.bytes(),
                policy=policy,
                request=request,
                deactivated_at=time.time(),
                metadata={
                    "epoch": entry.epoch,
                    "registered_files": [ref.to_wire() for ref in entry.files.values()],
                },
            )
        )

    async def store(self, record: StoredRecord) -> None:
        """Keep a record on disk.

        :raises HostError: the disk does not take it.
        """
        await self._kernel.on_disk(self._store.put, record)
        self._sleepers[record.agent_id] = RecordSummary(
            agent_id=record.agent_id,
            agent_class_name=record.agent_class_name,
            state_class_name=record.state_class_name,
            policy=record.policy,
            deactivated_at=record.deactivated_at,
            queued_message_count=0,
        )
        self._changed.set()

    async def enqueue(self, agent_id: str, message: Message, *, oneway: bool) -> None:
        """Store a message that waits until its paglet wakes.

        :raises OverloadedError: too many wait already.
        """
        append = partial(self._store.append_message, max_count=QUEUED_MESSAGES, max_bytes=QUEUED_BYTES)
        await self._kernel.on_disk(append, agent_id, QueuedMessage(message, oneway=oneway))

    async def queued_count(self, agent_id: str) -> int:
        """Return how many messages wait for an inactive paglet."""
        return len(await self._kernel.on_disk(self._store.queued, agent_id))

    async def dispose(self, agent_id: str) -> None:
        """Delete an inactive paglet with its work directory; no hook runs.

        :raises InvalidAgentError: there is none.
        """
        summary = self._sleepers.get(agent_id)
        if summary is None or agent_id in self._waking:
            raise InvalidAgentError(f"no inactive paglet {agent_id} on {self._kernel.config.name}")
        del self._sleepers[agent_id]  # first, so that nobody wakes it meanwhile
        try:
            await self._kernel.on_disk(self._store.delete, agent_id)
        except BaseException:
            self._sleepers[agent_id] = summary
            raise
        await self._kernel.on_disk(self._files.remove_work_dir, agent_id)
        self._kernel.emit("dispose", agent_id=agent_id, class_name=summary.agent_class_name, data={"active": False})

    # --- waking up ----------------------------------------------------------------------------------------------------

    async def activate(self, agent_id: str) -> dict[str, str]:
        """Bring an inactive paglet back; callers that ask at the same time share one awakening.

        :raises InvalidAgentError: there is none.
        :raises PagletError: it did not start; it stays inactive.
        """
        task = self._waking.get(agent_id)
        if task is None:
            if agent_id not in self._sleepers:
                raise InvalidAgentError(f"no inactive paglet {agent_id} on {self._kernel.config.name}")
            task = self._kernel.loop.create_task(self._wake(agent_id))
            self._waking[agent_id] = task
            task.add_done_callback(lambda _: self._waking.pop(agent_id, None))
        return await asyncio.shield(task)

    async def _wake(self, agent_id: str) -> dict[str, str]:
        kernel = self._kernel
        record = await self.record(agent_id)
        entry = kernel.reserve(
            agent_id,
            record.agent_class_name,
            record.state_class_name,
            epoch=int(record.metadata.get("epoch", 1)),
            from_store=True,
        )
        entry.files = {
            ref.name: ref for ref in map(PagletFileRef.from_wire, record.metadata.get("registered_files", []))
        }
        event = kernel.event_fields(
            agent_id, reason="activate", request=record.request.to_wire(), policy=record.policy.to_wire()
        )
        blob = Attachment.of([record.state_blob])
        try:
            await kernel.start(entry, StartOrder(blob, "on_activation", event))
        except BaseException:
            kernel.abandon(entry)
            raise
        queued = await kernel.on_disk(self._store.queued, agent_id)
        handled = [self._push_queued(entry, waiting) for waiting in queued]
        del self._sleepers[agent_id]
        kernel.activate(entry)
        kernel.emit("activate", entry, data={"queued_message_count": len(queued)})
        location = await kernel.begin(entry)
        if handled:
            everything: list[asyncio.Future[Any]] = [asyncio.gather(*handled), entry.gone]
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        # Only now, and only this one: it may have gone to sleep again meanwhile.
        await kernel.on_disk(partial(self._store.delete, deactivated_at=record.deactivated_at), agent_id)
        return location or (entry.gone.result() if entry.gone.done() else None) or kernel.proxy_wire(agent_id)

    def _push_queued(self, entry: AgentEntry, waiting: QueuedMessage) -> asyncio.Future[bool]:
        handled: asyncio.Future[bool] = self._kernel.loop.create_future()

        def done(reply: Attachment | None, error: Exception | None) -> None:
            if reply is not None:
                reply.close()
            if not isinstance(error, PagletCrashedError):
                self._kernel.background(
                    self._kernel.on_disk(self._store.remove_message, entry.agent_id, message.message_id)
                )
            if not handled.done():
                handled.set_result(error is None)

        message = waiting.message
        delivery = Delivery(
            packed(message.to_wire()), message.kind, message.priority, message.message_id, oneway=False, done=done
        )
        self._kernel.messages.deliver(entry, delivery)
        return handled

    # --- the host's own life ------------------------------------------------------------------------------------------

    async def wake_for_startup(self) -> None:
        """Wake the paglets whose policy asks for it; one that fails stays inactive."""
        ids = await self._kernel.on_disk(self._store.startup_ids)
        limit = asyncio.Semaphore(STARTUP_CONCURRENCY)

        async def wake(agent_id: str) -> None:
            async with limit:
                try:
                    await self.activate(agent_id)
                except PagletError as exc:
                    self._kernel.emit("activation-failed", agent_id=agent_id, error=str(exc))

        await asyncio.gather(*map(wake, ids))

    async def keep_time(self) -> None:
        """Wake paglets when their time has come, for ever.

        The wall clock is looked at every second whatever it said before, so that a clock that jumps is noticed.
        """
        while True:
            due = [
                summary.agent_id
                for summary in self._sleepers.values()
                if summary.policy.activate_at is not None and summary.policy.activate_at <= time.time()
            ]
            for agent_id in due:
                self._kernel.background(self._wake_on_time(agent_id))
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_next()):
                    await self._changed.wait()

    def _until_next(self) -> float:
        times = [s.policy.activate_at for s in self._sleepers.values() if s.policy.activate_at is not None]
        if not times:
            return _CLOCK_CHECK_SECONDS
        return min(_CLOCK_CHECK_SECONDS, max(0.05, min(times) - time.time()))

    async def _wake_on_time(self, agent_id: str) -> None:
        if agent_id not in self._sleepers or agent_id in self._waking:
            return
        try:
            await self.activate(agent_id)
        except PagletError as exc:
            self._kernel.emit("activation-failed", agent_id=agent_id, error=str(exc))

    async def put_everyone_to_sleep(self) -> None:
        """Store every active paglet for the next start of the host, each within a short time."""
        await asyncio.gather(*(self._put_to_sleep(entry) for entry in self._kernel.agents if entry.active))

    async def _put_to_sleep(self, entry: AgentEntry) -> None:
        request = DeactivationRequest(
            reason="shutdown", source="host", policy=DeactivationPolicy(activate_on_startup=True)
        )
        try:
            async with asyncio.timeout(SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS):
                await self.deactivate(entry, request, timeout=SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS / 2)
        except (PagletError, TimeoutError) as exc:
            await self._store_as_is(entry, request, exc)

    async def _store_as_is(self, entry: AgentEntry, request: DeactivationRequest, why: Exception) -> None:
        """Store a paglet that cannot prepare (its handler does not end, a hook fails) as its state is now."""
        place = entry.place
        if not entry.active or place is None:
            return
        try:
            frame = await place.request(Op.STATE, timeout=SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS)
            entry.resources = unpack(frame.payload)
            entry.remember_state(frame.attachment)
        except (PagletError, TimeoutError):
            if entry.last_state is None:
                return
        if entry.last_state is not None:
            await self._put(entry, entry.last_state, request.policy or DeactivationPolicy(), request)
            self._kernel.emit("deactivate", entry, data={"reason": request.reason, "prepared": False}, error=str(why))

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def not_awake(agent_id: str) -> PagletInactiveError:
    """Return the error of a message that may not wake or wait for an inactive paglet."""
    return PagletInactiveError(f"paglet {agent_id} is inactive, and this message may neither wake it nor wait for it")
