"""Handlers with types, plain and asynchronous."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler, state_locked
from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@dataclass
class TypedState(PagletState):
    points: dict[str, Point] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    colour: Colour = Colour.RED
    log: list[str] = field(default_factory=list)


class Typed(Paglet[TypedState]):
    State = TypedState

    @handler
    def put(self, name: str, point: Point, colour: Colour = Colour.RED) -> Point:
        self.state.points[name] = point
        self.state.colour = colour
        return Point(point.y, point.x)

    @handler
    def all(self) -> dict[str, Point]:
        return self.state.points

    @handler("renamed")
    def with_a_kind(self, values: tuple[int, ...], *, flag: bool = False) -> tuple[int, bool]:
        return sum(values), flag

    @handler
    def whole(self, message: Message, extra: int = 0) -> str:
        return f"{message.kind}:{message.priority}:{extra}"

    @handler
    def data(self, blob: bytes) -> bytes:
        return blob[::-1]

    @handler
    def tag(self, names: set[str]) -> set[str]:
        self.state.tags |= names
        return self.state.tags

    @handler
    def wrong_reply(self) -> int:
        return "no number"  # type: ignore[return-value]

    @handler
    def nothing(self) -> None:
        return None

    @state_locked
    def _count(self) -> int:
        return len(self.state.log)

    @handler
    def counted(self) -> int:
        return self._count()


class Extended(Typed):
    """Override one handler, add another, and leave the rest."""

    def put(self, name: str, point: Point, colour: Colour = Colour.RED) -> Point:
        return super().put(name, Point(point.x * 2, point.y * 2), colour)

    @handler
    def more(self) -> str:
        return "more"


class Asynchronous(Paglet[TypedState]):
    """Do everything in ``async def``."""

    State = TypedState

    async def _log(self, what: str) -> None:
        await asyncio.sleep(0)
        with self.locked_state() as state:
            state.log.append(what)

    async def on_creation(self, event: Any) -> None:
        await self._log("creation")

    async def on_dispatching(self, event: Any) -> None:
        await self._log("dispatching")

    async def on_arrival(self, event: Any) -> None:
        await self._log("arrival")

    async def on_reverting(self, event: Any) -> None:
        await self._log("reverting")

    async def on_cloning(self, event: Any) -> None:
        await self._log("cloning")

    async def on_clone(self, event: Any) -> None:
        await self._log("clone")

    async def on_cloned(self, event: Any) -> None:
        await self._log("cloned")

    async def on_deactivating(self, event: Any) -> None:
        await self._log("deactivating")

    async def on_activation(self, event: Any) -> None:
        await self._log("activation")

    async def on_disposing(self, event: Any) -> None:
        await self._log("disposing")
        if "stay" in self.state.tags:
            self.state.tags.clear()
            raise RuntimeError("stays")

    async def deactivation_policy(self, request: DeactivationRequest) -> DeactivationPolicy:  # type: ignore[override]
        await self._log(f"policy {request.reason}")
        return DeactivationPolicy(activate_on_message=False)

    async def run(self) -> None:
        await self._log("run")
        target = next((tag for tag in self.state.tags if tag.startswith("http")), None)
        if target is not None:
            self.state.tags.remove(target)
            await self._log("leaving")
            self.dispatch(target)

    @handler
    async def add(self, point: Point, delay: float = 0.0) -> Point:
        await asyncio.sleep(delay)
        return Point(point.x + 1, point.y + 1)

    @handler
    async def go(self, to: str) -> dict[str, str]:
        await asyncio.sleep(0)
        with self.locked_state():
            return self.dispatch(to).to_wire()

    @handler
    async def go_in_thread(self, to: str) -> dict[str, str]:
        return (await asyncio.to_thread(self.dispatch, to)).to_wire()

    @handler
    async def ask_self_in_thread(self) -> str:
        try:
            await asyncio.to_thread(self.send, self.agent_id, Message("add", {"point": {"x": 1}}))
        except PagletError as exc:
            return type(exc).__name__
        return "answered"

    @handler
    def hold(self, path: str) -> str:
        """Be busy in a plain handler."""
        Path(path).read_bytes()
        with self.locked_state() as state:
            state.log.append("held")
        return "held"

    @handler
    async def leave_task(self, path: str) -> None:
        """Go on after the handler has answered."""

        async def later() -> None:
            await asyncio.to_thread(Path(path).read_bytes)
            copy = await asyncio.to_thread(self.clone)
            await self._log(f"cloned as {copy.agent_id}")

        self.task = asyncio.get_running_loop().create_task(later())

    @handler
    async def copy(self) -> dict[str, str]:
        return (await asyncio.to_thread(self.clone)).to_wire()

    @handler
    async def sleep_now(self) -> dict[str, str]:
        return self.deactivate(reason="tired").to_wire()

    @handler
    async def end(self) -> str:
        self.context.host.dispose(self.agent_id)
        return "ended"

    @handler
    async def keep(self, tag: str) -> None:
        self.state.tags.add(tag)

    @handler
    async def fails(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("asynchronously")

    @handler
    async def many(self, count: int) -> int:
        """Do things at once within one handler."""
        points = await asyncio.gather(*(self.add(Point(number)) for number in range(count)))
        return sum(point.x for point in points)

    @handler
    async def try_go(self, to: str) -> str:
        try:
            self.dispatch(to)
        except PagletError as exc:
            await self._log("still here")
            return type(exc).__name__
        return "gone"

    @handler
    async def loop_thread(self) -> list[str]:
        """Return the threads that two awaits run on."""
        first = threading.current_thread().name
        await asyncio.sleep(0)
        return [first, threading.current_thread().name]


class AsyncRouter(Paglet[TypedState]):
    """Handle messages in one asynchronous method."""

    State = TypedState

    async def handle_message(self, message: Message) -> Any:
        await asyncio.sleep(0)
        if message.kind == "echo":
            return message.args
        return self.not_handled()
