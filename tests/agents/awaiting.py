"""Paglets that do their tasks, and answer operations and other messages, in coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from paglets.core.agent import PagletState, handler
from paglets.core.messages import Message
from paglets.patterns.operations import OperationPaglet
from paglets.patterns.tasks import TaskStatus
from paglets.services.contracts import EmptyPayload, ServiceOperation
from tests.agents.adder import ADD, CLEAR, Adder, AddRequest, SumState, Term


class AwaitingAdder(Adder):
    async def run_task(self, request: AddRequest) -> Any:
        await asyncio.sleep(0)
        verb, _, argument = request.how.partition(" ")
        match verb:
            case "cancel":
                raise asyncio.CancelledError
            case "leave":
                self.set_task_status(TaskStatus.WAITING_FOR_ARRIVAL)
                return await asyncio.to_thread(self.dispatch, argument)
        return super().run_task(request)

    async def handle_task_message(self, message: Message) -> Any | None:
        await asyncio.sleep(0)
        return {"asked": message.kind} if message.kind == "where" else None

    @handler
    async def awaited(self, number: int) -> int:
        await asyncio.sleep(0)
        return number + 2


class AwaitingSummer(OperationPaglet[SumState]):
    State = SumState
    Operations = (ADD, CLEAR)

    def operation_handlers(self) -> Mapping[ServiceOperation[Any, Any], Callable[[Any], Any]]:
        return {ADD: self.add, CLEAR: self.clear}

    async def add(self, term: Term) -> Term:
        await asyncio.sleep(0)
        self.state.total += term.value
        return Term(self.state.total)

    async def clear(self, _: EmptyPayload) -> PagletState:
        return self.state  # which is no reply to this

    async def handle_operation_message(self, message: Message) -> Any | None:
        await asyncio.sleep(0)
        return {"echo": message.args} if message.kind == "echo" else None

    @handler
    def marked(self, number: int) -> int:
        return number + 1
