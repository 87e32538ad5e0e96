"""What goes over the simulated network, and the calls that wait for an answer from it.

Hosts and clients send messages in the same way: a `Courier` follows the receiver with the real `Forwarding`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from paglets.protocol.delivery import AskHome, Fail, Finish, Forward, ForwardAction, Forwarding, Knowledge, Send

from .system_disk import Luggage, Msg, Place

if TYPE_CHECKING:
    from paglets.protocol.transfer import TransferPlan

    from .system_world import World

AnswerKind: TypeAlias = Literal["ok", "accepted", "failed", "refused", "unknown", "ended", "unreachable", "uncertain"]


@dataclass(frozen=True, slots=True)
class Request:
    """Bring a message to a host."""

    frm: str
    call: str
    message: Msg
    attempt: int
    hops: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Say what became of a message."""

    call: str
    kind: AnswerKind
    value: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True)
class WhereIs:
    frm: str
    call: str
    agent: str


@dataclass(frozen=True, slots=True)
class ItIs:
    call: str
    knowledge: Knowledge


@dataclass(frozen=True, slots=True)
class Notice:
    frm: str
    agent: str
    place: Place


@dataclass(frozen=True, slots=True)
class NoticeTaken:
    agent: str
    place: Place


@dataclass(frozen=True, slots=True)
class Move:
    """A message of a transfer; the luggage goes with PREPARE."""

    side: Literal["source", "target"]
    plan: TransferPlan
    body: object
    luggage: Luggage | None = None


Body: TypeAlias = Request | Answer | WhereIs | ItIs | Notice | NoticeTaken | Move


@dataclass(frozen=True, slots=True)
class Packet:
    frm: str
    to: str
    body: Body
    born: float


@dataclass(slots=True)
class Call:
    """One message on its way, in the hands of who sends it."""

    state: Forwarding
    message: Msg
    hops: int
    done: Callable[[Answer, Forwarding], None]
    id: str = ""
    """Of the request that is outstanding."""
    asking: bool = False


class Courier:
    """Send messages after their receivers, and hear what became of them."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.calls: dict[str, Call] = {}
        self.ready: deque[Callable[[], None]] = deque()

    def carry(
        self, forward: Forward, message: Msg, attempt: int, hops: int, done: Callable[[Answer, Forwarding], None]
    ) -> None:
        """Begin to send a message; `done` hears the outcome once."""
        state, action = Forwarding.start(forward, attempt)
        self._next(Call(state, message, hops, done), action)

    def _next(self, call: Call, action: ForwardAction) -> None:
        match action:
            case Send(url, attempt):
                self._ask(call, url, Request(self.name, "", call.message, attempt, call.hops))
            case AskHome(url):
                self._ask(call, url, WhereIs(self.name, "", call.message.receiver))
            case Finish(_):
                raise AssertionError("a call that was answered has been told already")
            case Fail(reason, uncertain):
                kind: AnswerKind = "uncertain" if uncertain else "unreachable"
                if reason.final:
                    kind = "ended" if reason.value == "gone" else "unknown"
                call.done(Answer("", kind), call.state)

    def _ask(self, call: Call, url: str, question: Request | WhereIs) -> None:
        call.id = call_id = self.world.fresh("c")
        call.asking = isinstance(question, WhereIs)
        self.calls[call_id] = call
        if not self.world.reachable(self.name, url) and self.world.chance(0.5):
            self.ready.append(lambda: self.unreachable(call_id))
            return
        if isinstance(question, Request):
            question = Request(self.name, call_id, question.message, question.attempt, question.hops)
        else:
            question = WhereIs(self.name, call_id, question.agent)
        self.world.send(self.name, url, question)

    def unreachable(self, call_id: str) -> None:
        call = self.calls.pop(call_id, None)
        if call is not None:
            self._take(call, call.state.home_unreachable() if call.asking else call.state.unreachable())

    def time_out(self, call_id: str) -> None:
        """Give up waiting for an answer that may still be on its way."""
        call = self.calls.pop(call_id)
        self._take(call, call.state.home_unreachable() if call.asking else call.state.broken())

    def answered(self, answer: Answer) -> None:
        call = self.calls.pop(answer.call, None)
        if call is None or call.asking:
            return  # the connection was given up
        match answer.kind:
            case "unknown":
                self._take(call, call.state.unknown())
            case "ended":
                self._take(call, call.state.gone())
            case "unreachable":
                self._take(call, call.state.unreachable())
            case "uncertain":
                self._take(call, call.state.broken())
            case _:
                state, finish = call.state.answered(answer.location)
                assert isinstance(finish, Finish)
                call.done(Answer("", answer.kind, answer.value, finish.location), state)

    def told(self, it_is: ItIs) -> None:
        call = self.calls.pop(it_is.call, None)
        if call is not None and call.asking:
            self._take(call, call.state.home_says(it_is.knowledge))

    def _take(self, call: Call, result: tuple[Forwarding, ForwardAction]) -> None:
        call.state, action = result
        self._next(call, action)
