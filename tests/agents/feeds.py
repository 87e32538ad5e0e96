"""Services with streams, and paglets that read them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import NOT_HANDLED, Paglet, PagletState, handler
from paglets.core.errors import OutcomeUnknownError
from paglets.core.messages import Message
from paglets.core.runtime_values import Durability, ServiceScope
from paglets.services.contracts import ServiceContract, ServiceOperation, ServiceRecord, StreamOperation


@dataclass(frozen=True)
class Count:
    to: int = 0
    size: int = 0
    fail_at: int = -1
    gate: str = ""
    """A pipe at which the generator waits before the item `gate_at`."""
    gate_at: int = -1
    go: str = ""
    """A host to move to before the item `gate_at`."""
    trace: str = ""
    """A file that gets a line for every item made, and one at the end."""


@dataclass(frozen=True)
class Number:
    number: int
    content: bytes = b""


@dataclass(frozen=True)
class Whoami:
    host: str
    agent_id: str
    calls: int


@dataclass(frozen=True)
class Work:
    kill: bool = False
    """End the process in the middle of it, the first time."""
    marker: str = ""
    """A file that says that there was a first time, or a pipe."""
    wait: bool = False
    """Wait for the other end of the pipe."""


WHO = ServiceOperation("who", reply_type=Whoami)
ONCE = ServiceOperation("once", Work, Whoami)
AGAIN = ServiceOperation("again", Work, Whoami, idempotent=True)
TURNS = StreamOperation("turns", Count, Number, window=8)
FLOW = StreamOperation("flow", Count, Number, window=8)
BRIEF = StreamOperation("brief", Count, Number, window=8, idle_timeout=0.3)
BRIEF_FLOW = StreamOperation("brief_flow", Count, Number, window=8, idle_timeout=0.3)
FEED = ServiceContract("tests.feed", (WHO, ONCE, AGAIN), streams=(TURNS, FLOW, BRIEF, BRIEF_FLOW))


@dataclass
class FeedState(PagletState):
    scope: str = "mesh"
    calls: int = 0
    made: int = 0
    ended: int = 0
    seen: list[str] = field(default_factory=list)


class Feed(Paglet[FeedState]):
    State = FeedState

    def on_creation(self, event: Any) -> None:
        self.advertise_contract(FEED, scope=ServiceScope(self.state.scope))

    def on_arrival(self, event: Any) -> None:
        self.advertise_contract(FEED, scope=ServiceScope(self.state.scope))

    def on_activation(self, event: Any) -> None:
        self.advertise_contract(FEED, scope=ServiceScope(self.state.scope))

    def _who(self, _: Any) -> Whoami:
        self.state.calls += 1
        return Whoami(self.context.name, self.agent_id, self.state.calls)

    def _work(self, work: Work) -> Whoami:
        marker = Path(work.marker)
        if work.wait:
            marker.read_bytes()
        if work.kill and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._who(work)

    def _item(self, count: Count, number: int) -> Number:
        if number == count.fail_at:
            raise ValueError(f"no item {number}")
        self.state.made += 1
        _trace(count, f"item {number}")
        return Number(number, b"x" * count.size)

    def _pass(self, count: Count) -> None:
        if count.go:
            self.dispatch(count.go)
        else:
            _wait(count.gate)

    def _turns(self, count: Count) -> Iterator[Number]:
        try:
            for number in range(count.to):
                if number == count.gate_at:
                    self._pass(count)
                yield self._item(count, number)
        finally:
            self.state.ended += 1
            _trace(count, "end")

    async def _flow(self, count: Count) -> AsyncIterator[Number]:
        try:
            for number in range(count.to):
                if number == count.gate_at:
                    if count.go:
                        self.dispatch(count.go)
                    await asyncio.to_thread(self._pass, count)
                yield self._item(count, number)
        finally:
            with self.locked_state() as state:
                state.ended += 1
            _trace(count, "end")

    def handle_message(self, message: Message) -> Any:
        reply = FEED.route(
            message,
            {WHO: self._who, ONCE: self._work, AGAIN: self._work},
            streams={TURNS: self._turns, FLOW: self._flow, BRIEF: self._turns, BRIEF_FLOW: self._flow},
            default=NOT_HANDLED,
        )
        return super().handle_message(message) if reply is NOT_HANDLED else reply

    @handler
    def counts(self) -> list[int]:
        return [self.state.made, self.state.ended]


class DurableFeed(Feed):
    DURABILITY = Durability.MESSAGE


def _wait(path: str) -> None:
    Path(path).read_bytes()


def _trace(count: Count, line: str) -> None:
    if count.trace:
        with Path(count.trace).open("a") as file:
            file.write(line + "\n")


class Reader(Paglet[PagletState]):
    """Call and read feeds from inside a paglet."""

    @dataclass
    class State(PagletState):
        pass

    @handler
    def read(self, name: str, to: int, stop_after: int | None = None, scope: str = "mesh") -> list[int]:
        handle = self.require_contract(FEED, scope=ServiceScope(scope))
        stream = {"turns": TURNS, "flow": FLOW}[name]
        found = []
        for item in handle.stream(stream, Count(to)):
            found.append(item.number)
            if stop_after is not None and len(found) >= stop_after:
                break
        return found

    @handler
    async def aread(self, name: str, to: int, scope: str = "mesh") -> list[int]:
        handle = self.require_contract(FEED, scope=ServiceScope(scope))
        stream = {"turns": TURNS, "flow": FLOW}[name]
        who = await handle.acall(WHO)
        assert who.calls
        await handle.asend_oneway(WHO)
        return [item.number async for item in handle.astream(stream, Count(to))]

    @handler
    async def both(self, to: int, scope: str = "mesh") -> list[list[int]]:
        handle = self.require_contract(FEED, scope=ServiceScope(scope))

        async def numbers(stream: StreamOperation[Count, Number]) -> list[int]:
            return [item.number async for item in handle.astream(stream, Count(to))]

        return list(await asyncio.gather(numbers(TURNS), numbers(FLOW), numbers(FLOW)))

    @handler
    def spread(self, calls: int, scope: str = "mesh") -> list[str]:
        pool = self.service(FEED, scope=ServiceScope(scope))
        return [pool.call(WHO).agent_id for _ in range(calls)]

    @handler
    def risk(self, again: bool, marker: str) -> str:
        """Call an operation that kills its provider."""
        handle = self.require_contract(FEED, scope=ServiceScope.MESH)
        try:
            return handle.call(AGAIN if again else ONCE, Work(kill=True, marker=marker)).agent_id
        except OutcomeUnknownError:
            return "nobody knows"

    @handler
    def wait_for(self, provider: dict[str, Any], gate: str) -> str:
        """Call a provider that waits in a gate and is lost meanwhile."""
        record = ServiceRecord.from_wire(provider)
        handle = self.context.host.service_handle(FEED, record, scope=ServiceScope.LOCAL)
        try:
            return handle.call(ONCE, Work(marker=gate, wait=True), timeout=600.0).agent_id
        except OutcomeUnknownError:
            return "lost"

    @handler
    def read_for(self, name: str, gate: str, trace: str) -> int:
        """Read until the gate is reached, which holds this handler up."""
        handle = self.require_contract(FEED, scope=ServiceScope.MESH)
        stream = {"turns": BRIEF, "flow": BRIEF_FLOW}[name]
        for item in handle.stream(stream, Count(1000, trace=trace)):
            if item.number == 3:
                _wait(gate)
        return 0
