"""Parts of units of work: rows made of what the runtime has in hand, and steps that several units take."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from paglets.artifacts import PagletFileRef
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.runtime_values import Durability
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import (
    DeadLetter,
    HandledMessage,
    HomeRow,
    NoticeRow,
    OutboxRow,
    ReminderRow,
    Status,
    StoredRecord,
)
from paglets.persistence.tables import handled, outbox, places, queued, reminders
from paglets.protocol.delivery.window import Outcome
from paglets.runtime.agents import AgentEntry, Delivery
from paglets.serialization.values import pack, unpack

QUEUED_MESSAGES = 10_000
QUEUED_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Aftermath:
    """What is to be on disk of the message whose handler moves, stores or ends its own paglet."""

    message_id: str = ""
    outcome: Outcome = field(default_factory=Outcome)
    stored: bool = False
    outbox: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, delivery: Delivery | None, answer: dict[str, Any], location: dict[str, str] | None) -> Aftermath:
        """Return what is to be known of the message whose handler asks, an empty one where none does.

        :param delivery: taken before the hook ran: when the process dies afterwards, its message is none in hand any
            more, and yet the snapshot has what its handler did.
        :param answer: what the process said with its snapshot.
        :param location: what the message is answered with.
        """
        if delivery is None:
            return cls()
        outcome = Outcome() if delivery.oneway else Outcome(pack(location))
        return cls(delivery.message_id, outcome, delivery.stored, answer.get("outbox") or [])

    def write(self, connection: sqlite3.Connection, entry: AgentEntry) -> list[OutboxRow]:
        """Add it to a unit of work; return what is to be sent afterwards."""
        if not self.message_id:
            return []
        if entry.durability is Durability.MESSAGE:
            handled.remember(connection, entry.agent_id, handled_row(self.message_id, self.outcome))
        if self.stored:
            queued.dequeue(connection, entry.agent_id, self.message_id)
        return post_outbox(connection, entry.agent_id, self.outbox)


def record_of(
    entry: AgentEntry,
    status: Status,
    *,
    policy: DeactivationPolicy | None = None,
    request: DeactivationRequest | None = None,
) -> StoredRecord:
    """Return a paglet's row, without its state."""
    return StoredRecord(
        agent_id=entry.agent_id,
        agent_class_name=entry.class_name,
        state_class_name=entry.state_class_name,
        state_blob=b"",
        policy=policy or DeactivationPolicy(),
        request=request or DeactivationRequest(),
        deactivated_at=time.time(),
        metadata=metadata_of(entry),
        status=status,
        epoch=entry.epoch,
        home=entry.home,
        durability=entry.durability,
        balance=entry.balance,
        holder=entry.holder,
    )


def metadata_of(entry: AgentEntry) -> dict[str, Any]:
    """Return what a row says beside its columns."""
    return {"registered_files": [ref.to_wire() for ref in entry.files.values()]}


def files_of(metadata: dict[str, Any]) -> dict[str, PagletFileRef]:
    """Return the registered files that a row names."""
    return {ref.name: ref for ref in map(PagletFileRef.from_wire, metadata.get("registered_files", ()))}


def set_timers(connection: sqlite3.Connection, agent_id: str, timers: Mapping[str, ReminderRow | None]) -> None:
    """Store timers, or forget those that are None.

    :raises OverloadedError: the paglet has as many as it may.
    """
    for name, row in timers.items():
        if row is None:
            reminders.forget(connection, agent_id, name)
        else:
            reminders.put(connection, row)


def enqueue(connection: sqlite3.Connection, agent_id: str, message: QueuedMessage) -> int:
    """Store a message that waits.

    :raises OverloadedError: too many wait already.
    """
    return queued.enqueue(connection, agent_id, message, max_count=QUEUED_MESSAGES, max_bytes=QUEUED_BYTES)


def keep_queued(connection: sqlite3.Connection, agent_id: str, messages: Iterable[QueuedMessage]) -> None:
    """Store messages that were accepted before, which are never turned away."""
    for message in messages:
        queued.enqueue(connection, agent_id, message, max_count=sys.maxsize, max_bytes=sys.maxsize)


def queued_message(delivery: Delivery) -> QueuedMessage:
    """Return a message that waits in a mailbox as it is stored."""
    return QueuedMessage(Message.from_wire(unpack(delivery.packed.view())), oneway=delivery.oneway)


def handled_row(message_id: str, outcome: Outcome) -> HandledMessage:
    """Return what is kept of a handled message."""
    return HandledMessage(message_id, time.time(), outcome.reply, outcome.error)


def post_outbox(
    connection: sqlite3.Connection, sender_id: str, deliveries: Iterable[dict[str, Any]]
) -> list[OutboxRow]:
    """Store the one-way messages of a handler; return their rows."""
    rows = []
    for delivery in deliveries:
        host_url, agent_id, body = delivery["host_url"], delivery["agent_id"], pack(delivery)
        position = outbox.add(connection, sender_id, host_url, agent_id, body)
        rows.append(OutboxRow(position, sender_id, host_url, agent_id, body, 0))
    return rows


def dead_letter(agent_id: str, host_url: str, message: QueuedMessage, reason: str) -> DeadLetter:
    """Return a message that cannot be delivered."""
    return DeadLetter(
        letter_id=0,  # given by the table
        died_at=time.time(),
        agent_id=agent_id,
        host_url=host_url,
        message_id=message.message.message_id,
        kind=message.message.kind,
        reason=reason,
        body=pack(message.to_wire()),
    )


def tell_home(
    connection: sqlite3.Connection, agent_id: str, home: str, here: str, epoch: int, host_url: str | None
) -> None:
    """Have the home host of a paglet learn where it is, None for nowhere."""
    if not home:
        return
    if home != here:
        places.notice_put(connection, NoticeRow(agent_id, home, epoch, host_url))
    elif host_url not in (None, here) or places.home_get(connection, agent_id) is not None:
        # Of a paglet that has never left there is nothing to remember.
        places.home_put(connection, HomeRow(agent_id, epoch, host_url, time.time()))
