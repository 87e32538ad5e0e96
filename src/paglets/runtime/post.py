"""Deliver messages to the paglets of one host, whether they are awake or asleep."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paglets.core.context import same_url
from paglets.core.errors import InvalidAgentError, PagletError
from paglets.core.messages import DEACTIVATE, Message
from paglets.core.policies import DeactivationRequest
from paglets.runtime.agents import AgentEntry, Delivery, DeliveryDone
from paglets.runtime.attachment import Attachment
from paglets.runtime.kernel import Kernel
from paglets.runtime.place import packed
from paglets.runtime.pump import delivery_future
from paglets.runtime.sleep import Dormitory, not_awake
from paglets.serialization.values import pack, unpack


@dataclass(frozen=True, slots=True)
class Posting:
    """A message as it arrives at a host: packed once, with what delivery needs to know beside it."""

    packed: bytes
    kind: str
    priority: int
    message_id: str
    oneway: bool = False
    activate_if_inactive: bool = True
    no_delay: bool = False

    @classmethod
    def of(
        cls, message: Message, *, oneway: bool = False, activate_if_inactive: bool = True, no_delay: bool = False
    ) -> Posting:
        """Pack a message.

        :raises SerializationError: it holds something that cannot travel.
        """
        return cls(
            pack(message.to_wire()),
            message.kind,
            message.priority,
            message.message_id,
            oneway,
            activate_if_inactive,
            no_delay,
        )

    def message(self) -> Message:
        """Unpack the message."""
        return Message.from_wire(unpack(self.packed))


class PostOffice:
    """Find the receiver of a message and hand it over."""

    def __init__(self, kernel: Kernel, dormitory: Dormitory) -> None:
        self._kernel = kernel
        self._dormitory = dormitory
        dormitory.redeliver = self._redeliver
        # Set by the node: delivers messages to the host their paglet went to.
        self.forward: Callable[[str, str, Sequence[Delivery]], Awaitable[None]]

    async def send(self, agent_id: str, posting: Posting) -> Attachment | None:
        """Deliver a message and wait for the packed reply, None for a one-way message.

        :raises InvalidAgentError: no such paglet is here.
        :raises PagletInactiveError: it is inactive and the message may neither wake it nor wait.
        :raises PagletError: what the handler raised, or why there is no reply.
        """
        future, done = delivery_future(self._kernel.loop)
        self.post(agent_id, posting, done)
        return await future

    def post(self, agent_id: str, posting: Posting, done: DeliveryDone) -> None:
        """Deliver a message; ``done`` gets the packed reply or the error. Never raises."""
        entry = self._kernel.agents.get(agent_id)
        if entry is not None and posting.kind != DEACTIVATE:
            self._hand_over(entry, posting, done)
        else:
            self._kernel.background(self._post_slowly(agent_id, posting, done))

    def _hand_over(self, entry: AgentEntry, posting: Posting, done: DeliveryDone) -> None:
        try:
            self._kernel.messages.deliver(entry, _delivery(posting, done))
        except PagletError as exc:
            self._kernel.emit("message-failed", entry, message_id=posting.message_id, error=str(exc))
            done(None, exc)

    async def _post_slowly(self, agent_id: str, posting: Posting, done: DeliveryDone) -> None:
        try:
            reply: dict[str, Any] | None
            if posting.kind == DEACTIVATE:
                reply = await self._deactivate(agent_id, posting)
            else:
                reply = await self._wake_or_queue(agent_id, posting, done)
        except Exception as exc:
            done(None, exc)
            return
        if reply is not None:
            done(None if posting.oneway else packed(reply), None)

    async def _deactivate(self, agent_id: str, posting: Posting) -> dict[str, Any]:
        wire = posting.message().args.get("request")
        request = DeactivationRequest.from_wire(wire) if isinstance(wire, dict) else None
        location = await self._dormitory.deactivate(self._kernel.agents.require(agent_id), request)
        return {"deactivated": True, "proxy": location}

    async def _wake_or_queue(self, agent_id: str, posting: Posting, done: DeliveryDone) -> dict[str, Any] | None:
        summary = self._dormitory.summary(agent_id)
        if summary is None:
            entry = self._kernel.agents.get(agent_id)
            if entry is None:
                raise InvalidAgentError(f"no paglet {agent_id} on {self._kernel.config.name}")
            self._hand_over(entry, posting, done)
            return None
        policy = summary.policy
        if posting.activate_if_inactive and policy.activate_on_message:
            location = await self._dormitory.activate(agent_id)
            entry = self._kernel.agents.get(agent_id)
            if entry is not None:
                self._hand_over(entry, posting, done)
                return None
            if not same_url(location["host_url"], self._kernel.address()):
                await self._follow(location["host_url"], agent_id, posting, done)
                return None
            if agent_id not in self._dormitory:
                raise InvalidAgentError(f"paglet {agent_id} ended when it woke")
            # It has gone back to sleep at once: the message waits for the next time.
        if posting.no_delay or not policy.queue_messages_when_inactive:
            raise not_awake(agent_id)
        await self._dormitory.enqueue(agent_id, posting.message(), oneway=posting.oneway)
        return {"queued": True, "message_id": posting.message_id}

    async def _follow(self, host_url: str, agent_id: str, posting: Posting, done: DeliveryDone) -> None:
        """Deliver a message to where its receiver went when the message woke it."""
        if posting.oneway:
            done(None, None)
        await self.forward(host_url, agent_id, [_delivery(posting, done)])

    def _redeliver(self, agent_id: str, delivery: Delivery) -> None:
        posting = Posting(
            delivery.packed.bytes(), delivery.kind, delivery.priority, delivery.message_id, oneway=delivery.oneway
        )
        delivery.packed.close()
        self.post(agent_id, posting, _ignore if delivery.oneway else delivery.done)


def _delivery(posting: Posting, done: DeliveryDone) -> Delivery:
    return Delivery(
        Attachment.of([posting.packed]), posting.kind, posting.priority, posting.message_id, posting.oneway, done
    )


def _ignore(reply: Attachment | None, error: Exception | None) -> None:
    if reply is not None:
        reply.close()
