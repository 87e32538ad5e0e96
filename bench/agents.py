"""The paglets that are measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.messages import Message
from paglets.core.runtime_values import Durability
from paglets.remote.references import PagletProxyRef


@dataclass
class EchoState(PagletState):
    """A small state, with room for a large one."""

    count: int = 0
    content: bytes = b""


class Echo(Paglet[EchoState]):
    """Answer with what was sent."""

    State = EchoState

    def handle_message(self, message: Message) -> Any:
        """Return the arguments."""
        return message.args


class Caller(Paglet[EchoState]):
    """Call another paglet and say how long it took."""

    State = EchoState

    @handler
    def measure(self, target: PagletProxyRef, rounds: int) -> list[float]:
        """Return the seconds of each of ``rounds`` calls."""
        proxy = target.resolve(self.context)
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            proxy.send(Message("echo", {"a": 1}))
            seconds.append(time.perf_counter() - start)
        return seconds


class Recorded(Paglet[EchoState]):
    """Count, with every message on disk."""

    State = EchoState
    DURABILITY = Durability.MESSAGE

    @handler
    def add(self) -> int:
        """Count one more."""
        self.state.count += 1
        return self.state.count


class Spinner(Paglet[EchoState]):
    """Use a core for a while."""

    State = EchoState

    @handler
    def spin(self, seconds: float) -> int:
        """Compute until the time is over."""
        end = time.monotonic() + seconds
        rounds = 0
        while time.monotonic() < end:
            rounds += sum(range(1000)) > 0
        return rounds
