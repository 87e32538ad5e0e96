"""The resources of a paglet, as seen from outside its process."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from paglets.runtime.agents import AgentEntry
from paglets.runtime.frames import Op
from paglets.serialization.values import pack, unpack

QUERY_SECONDS = 2.0


class RemoteResources:
    """Look at a paglet's resources, forget one, or clean all up."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], entry: AgentEntry) -> None:
        self._run = run
        self._entry = entry

    def status(self) -> dict[str, bool]:
        """Return name and suppress flag of every resource."""
        return self._ask(Op.RESOURCES, None)

    def remove(self, name: str) -> None:
        """Forget a resource without cleaning it up."""
        self._ask(Op.RESOURCES, name)

    def cleanup(self, *, reason: str = "lifecycle") -> None:
        """Clean every resource up, the youngest first.

        :raises LifecycleError: a cleanup failed.
        """
        self._ask(Op.CLEANUP, reason)

    def _ask(self, op: Op, argument: str | None) -> dict[str, bool]:
        async def ask() -> dict[str, bool]:
            timeout = QUERY_SECONDS if op is Op.RESOURCES else None
            frame = await self._entry.live_place().request(op, pack(argument), timeout=timeout)
            status: dict[str, bool] = unpack(frame.payload)
            self._entry.resources = status
            return status

        answer: dict[str, bool] = self._run(ask())
        return answer
