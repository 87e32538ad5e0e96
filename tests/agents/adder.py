"""Paglets that do a typed task, and that answer typed operations."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import PagletState, handler
from paglets.core.events import MobilityEvent
from paglets.core.messages import Message
from paglets.patterns.operations import OperationPaglet
from paglets.patterns.tasks import TaskPaglet, TaskState, TaskStatus
from paglets.services.contracts import EmptyPayload, ServiceOperation, StreamOperation


@dataclass(frozen=True, slots=True)
class AddRequest:
    numbers: list[int] = field(default_factory=list)
    how: str = ""
    """What else the task does, with an argument behind a blank."""


@dataclass(frozen=True, slots=True)
class AddResult:
    total: int
    host: str


class Adder(TaskPaglet[AddRequest, AddResult, TaskState]):
    Request = AddRequest
    Result = AddResult
    State = TaskState

    def total(self, request: AddRequest) -> AddResult:
        return AddResult(sum(request.numbers), self.context.name if self._context else "nowhere")

    def run_task(self, request: AddRequest) -> Any:
        verb, _, argument = request.how.partition(" ")
        match verb:
            case "fail":
                raise ValueError(argument)
            case "later":
                threading.Thread(target=self.finish_later, args=[request, argument], daemon=True).start()
                return None
            case "leave":
                self.set_task_status(TaskStatus.WAITING_FOR_ARRIVAL)
                return self.dispatch(argument)
            case "odd":
                return 3
            case "quiet":
                return None
        return self.total(request)

    def finish_later(self, request: AddRequest, gate: str) -> None:
        Path(gate).read_bytes()
        self.complete_task(self.total(request))

    def on_arrival(self, event: MobilityEvent) -> None:
        request = AddRequest(**self.state.request)
        if not request.how.endswith(" "):  # otherwise it is left to somebody else
            self.complete_task(self.total(request))

    def handle_task_message(self, message: Message) -> Any | None:
        return {"host": self.context.name} if message.kind == "where" else None

    @handler
    def marked(self, number: int) -> int:
        return number + 1


@dataclass(frozen=True, slots=True)
class Term:
    value: int = 0


@dataclass
class SumState(PagletState):
    total: int = 0


ADD = ServiceOperation("add", Term, Term)
CLEAR = ServiceOperation("clear", EmptyPayload, EmptyPayload)
UNSAID = ServiceOperation("unsaid", EmptyPayload, Term)
UNUSED = ServiceOperation("unused", EmptyPayload, Term)
COUNTING = StreamOperation("counting", Term, Term, window=4)
FLOWING = StreamOperation("flowing", Term, Term, window=4)
SILENT = StreamOperation("silent", Term, Term)


class Summer(OperationPaglet[SumState]):
    State = SumState
    Operations = (ADD, CLEAR, UNUSED)
    Streams = (COUNTING, SILENT)

    def operation_handlers(self) -> Mapping[ServiceOperation[Any, Any], Callable[[Any], Any]]:
        return {ADD: self.add, CLEAR: self.clear, UNSAID: self.unsaid}

    def stream_handlers(self) -> Mapping[StreamOperation[Any, Any], Callable[[Any], Any]]:
        return {COUNTING: self.counting, FLOWING: self.flowing}

    def counting(self, term: Term) -> Iterator[Term]:
        for number in range(term.value):
            self.state.total += number
            yield Term(number)

    async def flowing(self, term: Term) -> AsyncIterator[Term]:
        for number in range(term.value):
            yield Term(number)

    def add(self, term: Term) -> Term:
        self.state.total += term.value
        return Term(self.state.total)

    def clear(self, _: EmptyPayload) -> EmptyPayload:
        self.state.total = 0
        return EmptyPayload()

    def unsaid(self, _: EmptyPayload) -> Term:
        return Term(-1)

    def handle_operation_message(self, message: Message) -> Any | None:
        return {"echo": message.args} if message.kind == "echo" else None

    @handler
    def marked(self, number: int) -> int:
        return number + 1
