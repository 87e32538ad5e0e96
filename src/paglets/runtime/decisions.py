"""Wait until it is decided whether a paglet is here of which an earlier life of this host took a copy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from paglets.core.errors import HostUnreachableError, OverloadedError

#: How long a caller who does not say waits for the decision.
DECISION_SECONDS = 60.0
#: How many wait at a time, for all paglets together.
MOST_WAITING = 10_000


class Decisions:
    """Let messages and lifecycle operations wait for paglets whose arrival is undecided; runs on the loop of a host.

    Nothing is accepted meanwhile: it would be lost if the paglet turned out to be elsewhere.

    :param undecided: returns what is set when the arrival of a paglet is decided, None where none is undecided.
    """

    def __init__(self, host_name: str, undecided: Callable[[str], asyncio.Event | None]) -> None:
        self._host_name = host_name
        self._undecided = undecided
        self._waiting = 0

    def __len__(self) -> int:
        """Count those who wait."""
        return self._waiting

    def pending(self, agent_id: str) -> bool:
        """Tell whether it is undecided whether a paglet is here."""
        return self._undecided(agent_id) is not None

    async def made(self, agent_id: str, timeout: float | None = None) -> None:
        """Wait until it is decided whether a paglet is here; return at once where it is.

        :param timeout: seconds that the caller has; `DECISION_SECONDS` is the most.
        :raises HostUnreachableError: it is not decided by then, because the host that knows does not answer.
        :raises OverloadedError: too many wait already.
        """
        arrival = self._undecided(agent_id)
        if arrival is None:
            return
        if self._waiting >= MOST_WAITING:
            raise OverloadedError(f"too many wait for paglets that are on their way to {self._host_name}")
        self._waiting += 1
        try:
            async with asyncio.timeout(DECISION_SECONDS if timeout is None else min(timeout, DECISION_SECONDS)):
                await arrival.wait()
        except TimeoutError:
            raise HostUnreachableError(
                f"whether paglet {agent_id} is on {self._host_name} depends on a host that does not answer"
            ) from None
        finally:
            self._waiting -= 1
