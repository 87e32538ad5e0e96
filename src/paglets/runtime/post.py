"""Deliver messages: to the paglets of this host, awake or asleep, and on to where a paglet went.

What to do with a message is decided by :func:`paglets.protocol.delivery.routing.route`; here it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, Protocol

from paglets.core.errors import (
    ConnectionLostError,
    HostError,
    HostUnreachableError,
    InsufficientStorageError,
    InvalidAgentError,
    OverloadedError,
    PagletCrashedError,
    PagletError,
    RemoteTimeoutError,
)
from paglets.core.messages import DEACTIVATE, STREAM_PULL
from paglets.core.policies import DeactivationRequest
from paglets.core.runtime_values import Durability
from paglets.core.terms import FIRST_ATTEMPT, DeliveryTerms
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.tables import queued
from paglets.protocol.delivery import routing
from paglets.protocol.delivery.window import Outcome
from paglets.runtime.activation import Activator
from paglets.runtime.agents import AgentEntry, Delivery, DeliveryDone, HeldPosting, Phase
from paglets.runtime.attachment import Attachment
from paglets.runtime.deactivation import Deactivator
from paglets.runtime.decisions import Decisions
from paglets.runtime.kernel import Kernel
from paglets.runtime.place import packed
from paglets.runtime.posting import Posting
from paglets.runtime.pump import delivery_future, outcome_as_answer, withdrawn
from paglets.runtime.sleep import Dormitory, not_awake
from paglets.runtime.wakeups import MOST_AWAKENINGS, Wakeups


class Residents(Protocol):
    """Keep services available that nobody has started yet."""

    def manages(self, agent_id: str) -> bool:
        """Tell whether this is the id of a managed service."""

    async def bring(self, agent_id: str) -> bool:
        """See to it that a managed service takes messages; return whether it does, here.

        :raises PagletError: it did not start.
        """


class Forwarder(Protocol):
    """Know what left this host, and send messages after it."""

    def knowledge(self, agent_id: str) -> Awaitable[routing.Knowledge]:
        """Return what is known of a paglet that is not here."""

    def forward(self, agent_id: str, posting: Posting, way: routing.Forward) -> Awaitable[Attachment | None]:
        """Deliver a message elsewhere and return the packed reply.

        :raises PagletError: what the delivery or the handler ended in.
        """


class PostOffice:
    """Find the receiver of a message and hand it over."""

    def __init__(
        self, kernel: Kernel, dormitory: Dormitory, activator: Activator, deactivator: Deactivator, wakeups: Wakeups
    ) -> None:
        self._kernel = kernel
        self._dormitory = dormitory
        self._activator = activator
        self._deactivator = deactivator
        self._wakeups = wakeups
        deactivator.redeliver = self.redeliver
        # Set by the node.
        self.forwarder: Forwarder
        self.residents: Residents
        self.decisions: Decisions

    async def send(self, agent_id: str, posting: Posting) -> Attachment | None:
        """Deliver a message and wait for the packed reply, None for a one-way message.

        :raises InvalidAgentError: no such paglet is here, or was.
        :raises PagletInactiveError: it is inactive and the message may neither wake it nor wait.
        :raises PagletError: what the handler raised, or why there is no reply.
        """
        future, done = delivery_future(self._kernel.loop)
        self.post(agent_id, posting, done)
        return await future

    def post(self, agent_id: str, posting: Posting, done: DeliveryDone) -> None:
        """Deliver a message; ``done`` gets the packed reply or the error. Never raises."""
        entry = self._kernel.agents.get(agent_id)
        if entry is None or posting.kind == DEACTIVATE:
            self._kernel.background(self._post_slowly(agent_id, posting, done))
        elif posting.kind == STREAM_PULL:
            self._kernel.messages.pull(entry, posting.packed, done, oneway=posting.oneway)
        elif (
            posting.terms.attempt == 1
            and not posting.terms.chain
            and entry.phase is Phase.ACTIVE
            and entry.held is None
            and entry.durability is not Durability.MESSAGE
            and not entry.repeated
        ):
            self._hand_over(entry, posting, done)
        else:
            self._post_carefully(entry, posting, done)

    def _post_carefully(self, entry: AgentEntry, posting: Posting, done: DeliveryDone) -> None:
        """Decide about a message to a paglet that is here.

        To a `MESSAGE` paglet a message id says which message it is. To any other the same message may be sent twice and
        be meant so, as long as nobody says that it is a repetition; once somebody has, the first attempt may come late.
        """
        if entry.crashed and not entry.restarting and posting.activate_if_inactive and self._brings(entry.agent_id):
            self._kernel.background(self._post_to_revived(entry.agent_id, posting, done))
            return
        lost = entry.window_lost_at
        message_id = posting.message_id
        if posting.terms.attempt > 1:
            entry.remember_repeated(message_id)
        looked_up = entry.durability is Durability.MESSAGE or message_id in entry.repeated
        decision = routing.route(
            entry.agent_id,
            knowledge_of(entry),
            posting.terms,
            message_id,
            window=entry.window if looked_up else None,
            in_flight=entry.pending if looked_up else (),
            window_lost_for=None if lost is None else self._kernel.loop.time() - lost,
        )
        match decision:
            case routing.Deliver():
                self._hand_over(entry, posting, done)
            case routing.Hold():
                self._hold(entry, posting, done)
            case routing.Join():
                self._join(entry, posting, done)
            case routing.Repeat(outcome):
                if posting.oneway:
                    done(None, None)
                elif outcome is None:
                    done(None, routing.lost_reply_error(entry.agent_id))
                else:
                    done(*outcome_as_answer(outcome))
            case routing.Refuse():
                self._refuse(entry, posting, done, decision)
            case _:
                done(None, InvalidAgentError(f"no paglet {entry.agent_id} on {self._kernel.config.name}"))

    def _brings(self, agent_id: str) -> bool:
        return self.residents.manages(agent_id) and not self._kernel.closing

    async def _post_to_revived(self, agent_id: str, posting: Posting, done: DeliveryDone) -> None:
        """Deliver a message to a managed service whose process has died for good."""
        began = self._kernel.loop.time()
        try:
            await self.residents.bring(agent_id)
        except Exception as exc:
            done(None, exc)
            return
        self.post(agent_id, self._aged(posting, began), done)

    def _hold(self, entry: AgentEntry, posting: Posting, done: DeliveryDone) -> None:
        try:
            entry.hold_back(self._to_be_posted_again(entry.agent_id, posting, done))
        except PagletError as exc:
            done(None, exc)

    def _wake_for(self, agent_id: str, posting: Posting, done: DeliveryDone) -> None:
        again = replace(posting, wakes=posting.wakes + 1)
        self._activator.wake_for(agent_id, self._to_be_posted_again(agent_id, again, done))

    def _to_be_posted_again(self, agent_id: str, posting: Posting, done: DeliveryDone) -> HeldPosting:
        since = self._kernel.loop.time()
        return HeldPosting(
            lambda: self.post(agent_id, self._aged(posting, since), done),
            done,
            posting.message_id,
            len(posting.packed),
        )

    def _join(self, entry: AgentEntry, posting: Posting, done: DeliveryDone) -> None:
        """Let the sender of a message that waits or runs here already have what becomes of it."""
        known = entry.pending[posting.message_id]
        if not posting.oneway:
            known.joined = [*(known.joined or ()), done]
        elif known.oneway and not known.stored and entry.durability is Durability.MESSAGE:
            known.accepted = [*(known.accepted or ()), done]
        else:
            done(None, None)  # it was accepted

    def _aged(self, posting: Posting, since: float) -> Posting:
        """Return a message that has waited since some loop time: so much less of its sender's time is left."""
        timeout = posting.terms.timeout
        if timeout is None:
            return posting
        left = max(0.0, timeout - (self._kernel.loop.time() - since))
        return replace(posting, terms=replace(posting.terms, timeout=left))

    def _refuse(self, entry: AgentEntry, posting: Posting, done: DeliveryDone, refusal: routing.Refuse) -> None:
        error = routing.refusal_error(entry.agent_id, self._kernel.config.name, refusal)
        if isinstance(error, PagletCrashedError):
            # An earlier attempt may be what the process died of.
            error.refused = posting.terms.attempt == 1
        self._kernel.emit("message-failed", entry, message_id=posting.message_id, error=str(error))
        done(None, error)

    def _hand_over(self, entry: AgentEntry, posting: Posting, done: DeliveryDone) -> None:
        try:
            self._kernel.messages.deliver(entry, self._delivery(posting, done))
        except PagletError as exc:
            if isinstance(exc, OverloadedError):
                exc.refused = posting.terms.attempt == 1
            self._kernel.emit("message-failed", entry, message_id=posting.message_id, error=str(exc))
            done(None, exc)

    def _delivery(self, posting: Posting, done: DeliveryDone) -> Delivery:
        terms = posting.terms
        attachment = Attachment.of([posting.packed])
        # A one-way message that has been accepted is stored where its paglet goes to sleep first.
        no_delay = posting.no_delay and not posting.oneway
        if terms is FIRST_ATTEMPT and not posting.wakes and not no_delay:
            return Delivery(attachment, posting.kind, posting.priority, posting.message_id, posting.oneway, done)
        deadline = None if terms.timeout is None else self._kernel.loop.time() + terms.timeout
        return Delivery(
            attachment,
            posting.kind,
            posting.priority,
            posting.message_id,
            posting.oneway,
            done,
            terms,
            deadline,
            wakes=posting.wakes,
            no_delay=no_delay,
        )

    async def _post_slowly(self, agent_id: str, posting: Posting, done: DeliveryDone) -> None:
        reply: Attachment | None
        try:
            if posting.kind == DEACTIVATE:
                reply = packed(await self._deactivate(agent_id, posting))
            else:
                found = await self._wake_queue_or_forward(agent_id, posting, done)
                if found is None:
                    return
                (reply,) = found
        except asyncio.CancelledError:
            # The host ends. Whether it was passed on and handled elsewhere, nobody here will know.
            done(None, ConnectionLostError(f"host {self._kernel.config.name} is shutting down"))
            raise
        except Exception as exc:
            done(None, exc)
            return
        if posting.oneway and reply is not None:
            reply.close()
            reply = None
        done(reply, None)

    async def _deactivate(self, agent_id: str, posting: Posting) -> dict[str, Any]:
        wire = posting.message().args.get("request")
        request = DeactivationRequest.from_wire(wire) if isinstance(wire, dict) else None
        location = await self._deactivator.deactivate(self._kernel.agents.require(agent_id), request)
        return {"deactivated": True, "proxy": location}

    async def _wake_queue_or_forward(
        self, agent_id: str, posting: Posting, done: DeliveryDone
    ) -> tuple[Attachment | None] | None:
        """Deliver a message to a paglet that does not run here; return its reply unless ``done`` will get it."""
        kernel, began = self._kernel, self._kernel.loop.time()
        while True:
            if agent_id in kernel.agents:
                self.post(agent_id, self._aged(posting, began), done)
                return None
            summary = self._dormitory.summary(agent_id)
            if summary is None:
                if self.decisions.pending(agent_id):
                    await self.decisions.made(agent_id, self._aged(posting, began).terms.timeout)
                    continue
                if posting.activate_if_inactive and await self.residents.bring(agent_id):
                    continue
                knowledge = await self.forwarder.knowledge(agent_id)
                if self._has_come(agent_id):
                    continue
                return (await self._forward(agent_id, self._aged(posting, began), knowledge),)
            # What was active when the host died comes back whatever its policy says.
            recovering = self._dormitory.recovering(agent_id)
            managed = posting.activate_if_inactive and self.residents.manages(agent_id)
            if managed and kernel.draining and not posting.oneway:
                # What it is asked for is wanted now; elsewhere it may be had.
                raise HostError(
                    f"host {kernel.config.name} is draining: service {agent_id} sleeps until that is undone"
                )
            by_policy = posting.activate_if_inactive and summary.policy.activate_on_message
            wakes = recovering or ((managed or by_policy) and not kernel.draining)
            if not wakes or posting.wakes >= (1 if posting.oneway else MOST_AWAKENINGS):
                break  # it waits for the next time
            excess = self._dormitory.held(agent_id)
            if excess is not None:
                if posting.oneway and not posting.no_delay:
                    break  # until it is granted more
                raise excess.error(agent_id)
            if kernel.closing:
                raise kernel.closing_error()
            self._wake_for(agent_id, self._aged(posting, began), done)
            return None
        # Before it is refused: whoever repeats a message takes a refusal to mean that nobody has handled it.
        handled, outcome = await self._dormitory.recall(
            agent_id, posting.message_id, repeated=posting.terms.attempt > 1
        )
        if handled:
            return (None if posting.oneway else self._reply_of(agent_id, outcome),)
        if posting.no_delay or not summary.policy.queue_messages_when_inactive:
            raise not_awake(agent_id)
        await self._dormitory.enqueue(agent_id, posting.message(), oneway=posting.oneway)
        await self.collect(agent_id)
        return (packed({"queued": True, "message_id": posting.message_id}),)

    def _reply_of(self, agent_id: str, outcome: Outcome | None) -> Attachment | None:
        """Return the recorded reply, or raise the recorded error."""
        if outcome is None:
            raise routing.lost_reply_error(agent_id)
        reply, error = outcome_as_answer(outcome)
        if error is not None:
            raise error
        return reply

    def _has_come(self, agent_id: str) -> bool:
        """Tell whether a paglet is here after all; that can change whenever something is awaited."""
        return agent_id in self._kernel.agents or agent_id in self._dormitory or self.decisions.pending(agent_id)

    async def _forward(self, agent_id: str, posting: Posting, knowledge: routing.Knowledge) -> Attachment | None:
        decision = routing.route(agent_id, knowledge, posting.terms, posting.message_id)
        if not isinstance(decision, routing.Forward):
            refusal = decision if isinstance(decision, routing.Refuse) else routing.Refuse(routing.RefuseReason.UNKNOWN)
            raise routing.refusal_error(agent_id, self._kernel.config.name, refusal)
        return await self.forwarder.forward(agent_id, posting, decision)

    # --- what waits on disk -------------------------------------------------------------------------------------------

    async def collect(self, agent_id: str, *, wake: bool = False) -> None:
        """See to the messages that are stored for a paglet, wherever that is by now.

        :param wake: wake it whatever its policy says.
        """
        entry = self._kernel.agents.get(agent_id)
        if entry is not None:
            if entry.phase is Phase.ACTIVE:
                await self._activator.collect_mail(entry)
            else:
                entry.mail_waits = True  # until it has started
        elif agent_id not in self._dormitory:
            await self._send_after(agent_id)
        elif wake:
            await self._wakeups.wake_on_time(agent_id)

    async def _send_after(self, agent_id: str) -> None:
        """Forward what is stored for a paglet that has left; what cannot be is a dead letter."""
        vault, kernel = self._kernel.vault, self._kernel
        if kernel.journal.glance(lambda connection: queued.count(connection, agent_id)) == (0,):
            return
        for message in await kernel.on_disk(vault.waiting, agent_id):
            if agent_id in kernel.agents or agent_id in self._dormitory:
                return  # it is back
            # It may have gone out before this host, or the one that has it, died.
            posting = Posting.of(message.message, oneway=True, terms=DeliveryTerms(attempt=2))
            try:
                await self._forward(agent_id, posting, await self.forwarder.knowledge(agent_id))
            except PagletError as exc:
                if not permanent(exc):
                    kernel.loop.call_later(SEND_AFTER_SECONDS, self._collect_soon, agent_id)
                    return
                await vault.bury(agent_id, kernel.address(), message, str(exc))
                kernel.emit("message-failed", agent_id=agent_id, message_id=message.message.message_id, error=str(exc))
            else:
                await vault.dequeue(agent_id, message.message.message_id)

    def _collect_soon(self, agent_id: str) -> None:
        if not self._kernel.closing:
            self._kernel.background(self.collect(agent_id))

    def redeliver(self, agent_id: str, delivery: Delivery) -> None:
        """Post a message again that waited in the mailbox of a paglet that is not active any more."""
        posting = self._posting_of(delivery)

        def done(reply: Attachment | None, error: Exception | None) -> None:
            if error is not None and delivery.oneway:
                # Its sender was told that it was accepted.
                message = QueuedMessage(posting.message(), oneway=True)
                self._kernel.background(self._kernel.vault.bury(agent_id, self._kernel.address(), message, str(error)))
            delivery.answer(reply, error)

        self.post(agent_id, posting, done)

    def _posting_of(self, delivery: Delivery) -> Posting:
        terms = delivery.terms
        if delivery.deadline is not None:
            terms = replace(terms, timeout=max(0.0, delivery.deadline - self._kernel.loop.time()))
        posting = Posting(
            delivery.packed.bytes(),
            delivery.kind,
            delivery.priority,
            delivery.message_id,
            oneway=delivery.oneway,
            no_delay=delivery.no_delay,
            terms=terms,
            wakes=delivery.wakes,
        )
        delivery.packed.close()
        return posting

    async def send_on(self, agent_id: str, delivery: Delivery) -> None:
        """Deliver a message that waited in the mailbox of a paglet that has left, and wait for the outcome."""
        loop = self._kernel.loop
        answered: asyncio.Future[None] = loop.create_future()

        def done(reply: Attachment | None, error: Exception | None) -> None:
            delivery.answer(reply, error)
            if not answered.done():
                answered.set_result(None)

        self.post(agent_id, self._posting_of(delivery), done)
        await answered

    async def cancel(self, agent_id: str, message_id: str) -> bool:
        """Withdraw a message whose handler has not begun; return whether it could be.

        :raises InvalidAgentError: no such paglet is here.
        """
        entry = self._kernel.agents.get(agent_id)
        if entry is not None:
            held = entry.take_held(message_id)
            if held is not None:
                held(None, withdrawn(message_id))
                return True
            return self._kernel.messages.cancel(entry, message_id)
        if agent_id in self._dormitory:
            return await self._kernel.vault.dequeue(agent_id, message_id)
        raise InvalidAgentError(f"no paglet {agent_id} on {self._kernel.config.name}")


#: How long what is stored for a paglet that left waits for another try when its new host does not answer.
SEND_AFTER_SECONDS = 1.0


def permanent(error: Exception) -> bool:
    """Tell whether trying again later is pointless: the receiver said no, or there is none."""
    return isinstance(error, PagletError) and not isinstance(error, _TRANSIENT)


def knowledge_of(entry: AgentEntry) -> routing.Knowledge:
    """Return what this host knows of a paglet in its table."""
    remembers = entry.durability is Durability.MESSAGE
    if entry.held is not None:
        return _DEPARTING
    match entry.phase:
        case Phase.CRASHED if not entry.restarting:
            return routing.Crashed(entry.error or "", remembers)
        case Phase.GONE:
            return routing.UNKNOWN
    return _REMEMBERS if remembers else _LIVE


_TRANSIENT = (
    ConnectionLostError,
    HostUnreachableError,
    InsufficientStorageError,
    OverloadedError,
    RemoteTimeoutError,
)
_LIVE = routing.Live()
_REMEMBERS = routing.Live(remembers=True)
_DEPARTING = routing.Departing()
