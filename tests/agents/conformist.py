"""A paglet that does what programs do, for comparing the testing mesh with real hosts."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.core.runtime_values import Durability


@dataclass
class ConformistState(PagletState):
    notes: list[str] = field(default_factory=list)
    count: int = 0
    load: Any = None
    slow: bool = False


class Conformist(Paglet[ConformistState]):
    """Do what programs do."""

    State = ConformistState

    def run(self) -> None:
        """Do something beside the handlers where the state says so."""
        if self.state.slow:
            time.sleep(0.4)
            with self.locked_state() as state:
                state.count += 100
            self.notify_all_state_changed()

    @handler
    def call_other(self, url: str, agent_id: str, kind: str) -> Any:
        """Send a message to another paglet and return what it says, or how that failed."""
        try:
            return self.context.proxy_for(url, agent_id).send(Message(kind))
        except PagletError as exc:
            return type(exc).__name__

    @handler
    def call_many(self, url: str, agent_id: str, times: int) -> list[Any]:
        """Send without waiting, and collect the replies."""
        proxy = self.context.proxy_for(url, agent_id)
        return [reply.get_reply(10) for reply in [proxy.send_future(Message("tick")) for _ in range(times)]]

    @handler
    def tick(self) -> int:
        """Count."""
        self.state.count += 1
        return self.state.count

    @handler
    async def tick_slowly(self, seconds: float) -> int:
        """Count after a while, in a coroutine."""
        await asyncio.sleep(seconds)
        other = await asyncio.to_thread(lambda: self.context.name)
        self.state.notes.append(f"slow on {other}")
        return self.tick()

    @handler
    def wait_for_run(self) -> bool:
        """Wait until `run` has counted."""
        return self.wait_state(lambda state: state.count >= 100, timeout=5)

    @handler
    def wait_in_vain(self) -> list[Any]:
        """Wait for what never happens, and return whether it did and whether time passed."""
        began = time.monotonic()
        came = self.wait_state(lambda state: state.count < 0, timeout=0.2)
        return [came, time.monotonic() - began >= 0.2]

    @handler
    def use_threads(self) -> list[int]:
        """Have threads of its own do something."""
        found: list[int] = []
        lock, ready = threading.Lock(), threading.Event()

        def work(number: int) -> None:
            ready.wait(5)
            with lock:
                found.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        ready.set()
        for thread in threads:
            thread.join(5)
        return sorted(found)

    @handler
    def carry(self, what: str) -> None:
        """Put something into the state that cannot travel."""
        self.state.load = {"lock": threading.Lock(), "none": None}[what]

    @handler
    def set_alarm(self, after: float) -> None:
        """Have a timer ring."""
        self.remind("ring", after=after)

    @handler
    def ring(self) -> None:
        """Note that a timer rang."""
        self.state.notes.append(f"rang on {self.context.name}")

    @handler
    def make(self) -> str:
        """Create another one here and return what it counts."""
        made = self.context.create(Conformist, ConformistState(count=7))
        return str(made.send(Message("tick")))

    @handler
    def notes(self) -> list[str]:
        """Return what was noted."""
        return list(self.state.notes)

    @handler
    def advertise(self, name: str) -> None:
        """Offer a service."""
        self.advertise_service(name, capabilities=["tick"])

    @handler
    def find(self, name: str) -> bool:
        """Look for a service."""
        return self.lookup_service(name) is not None


class Careful(Conformist):
    """Keep every message."""

    DURABILITY = Durability.MESSAGE
