"""Send the one-way messages that handlers of durable paglets left in their outbox, until each has been accepted.

Messages to one receiver leave one after the other, in the order in which they were sent, so a sender's order is kept.
A receiver whose host is away holds up its own messages only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from paglets.core.errors import ConnectionLostError, PagletCrashedError, PagletError, RemoteTimeoutError
from paglets.core.messages import Message
from paglets.core.terms import FIRST_ATTEMPT, DeliveryTerms
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import OutboxRow
from paglets.persistence.tables import dead_letters, outbox
from paglets.protocol.delivery import routing
from paglets.runtime import faults
from paglets.runtime.kernel import Kernel
from paglets.runtime.pauses import rest
from paglets.runtime.post import PostOffice, permanent
from paglets.runtime.posting import Posting
from paglets.runtime.units import dead_letter
from paglets.serialization.values import unpack

FIRST_PAUSE_SECONDS = 0.05
#: After so long without success a message is a dead letter.
GIVE_UP_SECONDS = 24 * 3600.0
#: So often in a row a receiver may crash before it takes a message. Its process may be killed while it wakes, for want
#: of memory for example: it sleeps on then, and the next try wakes it.
MOST_CRASHES = 4
#: While so many messages, or so many bytes, wait, handlers of durable paglets can send nothing one-way.
MOST_MESSAGES = 100_000
MOST_BYTES = 256 * 1024 * 1024


class Outbox:
    """Empty the outbox of one host; runs on the host's loop."""

    def __init__(self, kernel: Kernel, post: PostOffice) -> None:
        self._kernel = kernel
        self._post = post
        self._waiting: dict[str, deque[OutboxRow]] = {}
        self._crashes: dict[str, int] = {}
        """How often in a row receivers crashed before they took a message."""
        self._messages = 0
        self._bytes = 0

    async def start(self) -> None:
        """Send what an earlier life of this host left: it may have been sent already."""
        position = 0
        while True:
            rows: list[OutboxRow] = await self._kernel.on_disk(
                self._kernel.journal.read, partial(outbox.pending, after=position)
            )
            for row in rows:
                row.attempts = max(1, row.attempts)
            self.send(rows)
            if not rows:
                return
            position = rows[-1].position

    def send(self, rows: Sequence[OutboxRow]) -> None:
        """Send messages that are on disk."""
        for row in rows:
            self._count(1, len(row.body))
            queue = self._waiting.get(row.agent_id)
            if queue is None:
                self._waiting[row.agent_id] = deque((row,))
                self._kernel.background(self._empty(row.agent_id))
            else:
                queue.append(row)

    def _count(self, messages: int, nbytes: int) -> None:
        self._messages += messages
        self._bytes += nbytes
        # A handler that runs may still send what one handler may; so the bounds are passed by a little.
        self._kernel.messages.outbox_full = self._messages >= MOST_MESSAGES or self._bytes >= MOST_BYTES

    async def _empty(self, agent_id: str) -> None:
        queue = self._waiting[agent_id]
        try:
            while queue:
                await self._see_to(queue[0])
                row = queue.popleft()
                self._count(-1, -len(row.body))
        finally:
            del self._waiting[agent_id]
            self._crashes.pop(agent_id, None)

    async def _see_to(self, row: OutboxRow) -> None:
        """Send a message until it is accepted, or known to be refused for good, and have that on disk."""
        delivery: dict[str, Any] = unpack(row.body)
        refusal = await self._send_until_accepted(row, delivery)
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                if refusal is None:
                    await self._kernel.journal.write(lambda connection: outbox.done(connection, row.position))
                else:
                    await self._bury(row, delivery, str(refusal))
            except PagletError as exc:
                self._kernel.emit("journal-failed", agent_id=row.agent_id, error=str(exc))
                pause = await rest(pause)
            else:
                return

    async def _send_until_accepted(self, row: OutboxRow, delivery: dict[str, Any]) -> PagletError | None:
        """Return why a message never will be accepted, None when it was."""
        began, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._send(row, delivery)
            except PagletError as exc:
                crashed = isinstance(exc, PagletCrashedError) and self._may_crash_again(row.agent_id)
                if not crashed and (permanent(exc) or time.monotonic() - began > GIVE_UP_SECONDS):
                    return exc
                if isinstance(exc, ConnectionLostError | RemoteTimeoutError):
                    row.attempts += 1  # it may have arrived
            else:
                if faults.ARMED:
                    faults.reached("outbox.sent")
                self._crashes.pop(row.agent_id, None)
                return None
            pause = await rest(pause)

    def _may_crash_again(self, agent_id: str) -> bool:
        """Count that a receiver crashed; return whether the next try may find it awake."""
        self._crashes[agent_id] = self._crashes.get(agent_id, 0) + 1
        return self._crashes[agent_id] <= MOST_CRASHES

    async def _send(self, row: OutboxRow, delivery: dict[str, Any]) -> None:
        terms = DeliveryTerms(attempt=row.attempts + 1) if row.attempts else FIRST_ATTEMPT
        posting = Posting.sent(delivery, terms, oneway=True)
        if self._kernel.address.is_own(row.host_url):
            await self._post.send(row.agent_id, posting)
        else:
            await self._post.forwarder.forward(row.agent_id, posting, routing.Forward(row.host_url, 0))

    async def _bury(self, row: OutboxRow, delivery: dict[str, Any], reason: str) -> None:
        message = Message.from_wire(unpack(delivery["message"]))
        letter = dead_letter(row.agent_id, row.host_url, QueuedMessage(message, oneway=True), reason)

        def unit(connection: Any) -> None:
            outbox.done(connection, row.position)
            dead_letters.add(connection, letter)

        await self._kernel.journal.write(unit)
        self._kernel.emit("message-failed", agent_id=row.agent_id, message_id=letter.message_id, error=reason)
