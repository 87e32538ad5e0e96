"""Send the one-way messages that handlers of durable paglets left in their outbox, until each has been accepted.

Messages to one receiver leave one after the other, in the order in which they were sent, so a sender's order is kept.
A receiver whose host is away holds up its own messages only.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from paglets.core.context import same_url
from paglets.core.errors import PagletError
from paglets.core.terms import FIRST_ATTEMPT, DeliveryTerms
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import OutboxRow
from paglets.persistence.tables import dead_letters, outbox
from paglets.protocol.delivery import routing
from paglets.runtime import faults
from paglets.runtime.kernel import Kernel
from paglets.runtime.post import Posting, PostOffice, permanent
from paglets.runtime.vault import dead_letter
from paglets.serialization.values import unpack

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 30.0
#: After so long without success a message is a dead letter.
GIVE_UP_SECONDS = 24 * 3600.0


class Outbox:
    """Empty the outbox of one host; runs on the host's loop."""

    def __init__(self, kernel: Kernel, post: PostOffice) -> None:
        self._kernel = kernel
        self._post = post
        self._waiting: dict[str, deque[OutboxRow]] = {}

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
            queue = self._waiting.get(row.agent_id)
            if queue is None:
                self._waiting[row.agent_id] = deque((row,))
                self._kernel.background(self._empty(row.agent_id))
            else:
                queue.append(row)

    async def _empty(self, agent_id: str) -> None:
        queue = self._waiting[agent_id]
        try:
            while queue:
                await self._send_until_accepted(queue[0])
                queue.popleft()
        finally:
            del self._waiting[agent_id]

    async def _send_until_accepted(self, row: OutboxRow) -> None:
        delivery: dict[str, Any] = unpack(row.body)
        began, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._send(row, delivery)
            except PagletError as exc:
                if permanent(exc) or time.monotonic() - began > GIVE_UP_SECONDS:
                    await self._bury(row, delivery, str(exc))
                    return
            else:
                if faults.ARMED:
                    faults.reached("outbox.sent")
                await self._kernel.journal.write(lambda connection: outbox.done(connection, row.position))
                return
            row.attempts += 1
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads retries
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)

    async def _send(self, row: OutboxRow, delivery: dict[str, Any]) -> None:
        posting = Posting(
            delivery["message"],
            delivery["kind"],
            delivery["priority"],
            delivery["message_id"],
            True,
            delivery["activate_if_inactive"],
            delivery["no_delay"],
            DeliveryTerms(attempt=row.attempts + 1) if row.attempts else FIRST_ATTEMPT,
        )
        if same_url(row.host_url, self._kernel.address()):
            await self._post.send(row.agent_id, posting)
        else:
            await self._post.forwarder.forward(row.agent_id, posting, routing.Forward(row.host_url, 0))

    async def _bury(self, row: OutboxRow, delivery: dict[str, Any], reason: str) -> None:
        message = Posting(delivery["message"], delivery["kind"], delivery["priority"], delivery["message_id"]).message()
        letter = dead_letter(row.agent_id, row.host_url, QueuedMessage(message, oneway=True), reason)

        def unit(connection: Any) -> None:
            outbox.done(connection, row.position)
            dead_letters.add(connection, letter)

        await self._kernel.journal.write(unit)
        self._kernel.emit("message-failed", agent_id=row.agent_id, message_id=letter.message_id, error=reason)
