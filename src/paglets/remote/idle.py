"""Remember which connections are idle, within bounds; takes no locks and opens nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["IdleConnections", "Origin", "PoolOptions"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Name the server at the other end of a connection."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Bound what a pool keeps."""

    max_idle_per_origin: int = 16
    """Connections kept to one server."""
    max_idle: int = 128
    """Connections kept in all."""
    idle_seconds: float = 4.0
    """How long a connection may lie idle. Below the keep-alive time of common servers and proxies (5 s), so that the
    pool ends an idle connection, not the server, and a request seldom races against the close of the server."""


class Idle(Protocol):
    """What can be kept."""

    idle_since: float


ConnectionT = TypeVar("ConnectionT", bound=Idle)


class IdleConnections(Generic[ConnectionT]):
    """Hold idle connections, most recently used first. Every method that removes some returns them, to be closed."""

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self._stacks: dict[Origin, list[ConnectionT]] = {}
        self._next_sweep = 0.0
        self.count = 0

    def take(self, origin: Origin) -> ConnectionT | None:
        """Remove and return the connection to `origin` that was used last."""
        stack = self._stacks.get(origin)
        if not stack:
            return None
        connection = stack.pop()
        self.count -= 1
        if not stack:
            del self._stacks[origin]
        return connection

    def put(self, origin: Origin, connection: ConnectionT, now: float) -> list[ConnectionT]:
        """Keep `connection`; return those that are too old or too many."""
        removed: list[ConnectionT] = []
        if now >= self._next_sweep:
            # Not at every call: a sweep looks at all connections.
            self._next_sweep = now + self._options.idle_seconds
            removed = self.remove_aged(now - self._options.idle_seconds)
        connection.idle_since = now
        stack = self._stacks.setdefault(origin, [])
        stack.append(connection)
        self.count += 1
        if len(stack) > self._options.max_idle_per_origin:
            removed.append(self._remove_bottom(origin))
        elif self.count > self._options.max_idle:
            # The bottom of a stack is its oldest, so the oldest of all is the oldest bottom.
            removed.append(self._remove_bottom(min(self._stacks, key=lambda key: self._stacks[key][0].idle_since)))
        return removed

    def remove(self, origin: Origin) -> list[ConnectionT]:
        """Remove the connections to `origin`."""
        removed = self._stacks.pop(origin, [])
        self.count -= len(removed)
        return removed

    def remove_all(self) -> list[ConnectionT]:
        """Remove every connection."""
        removed = [connection for stack in self._stacks.values() for connection in stack]
        self._stacks.clear()
        self.count = 0
        return removed

    def remove_aged(self, before: float) -> list[ConnectionT]:
        """Remove the connections that are idle since before a time."""
        aged: list[ConnectionT] = []
        for origin, stack in list(self._stacks.items()):
            aged.extend(connection for connection in stack if connection.idle_since < before)
            stack[:] = [connection for connection in stack if connection.idle_since >= before]
            if not stack:
                del self._stacks[origin]
        self.count -= len(aged)
        return aged

    def _remove_bottom(self, origin: Origin) -> ConnectionT:
        stack = self._stacks[origin]
        oldest = stack.pop(0)
        if not stack:
            del self._stacks[origin]
        self.count -= 1
        return oldest
