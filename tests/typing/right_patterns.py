"""Uses of the patterns that a type checker must accept, with the types of what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

from paglets.core.agent import Paglet, PagletState
from paglets.core.events import MobilityEvent
from paglets.patterns import (
    CursorDrainMixin,
    FileMobilityMixin,
    FileTransferRequest,
    FileTransferResult,
    FileTransferState,
    MeshFanoutMixin,
    MeshFanoutState,
    NotificationMixin,
    NotificationSeverity,
    OperationClient,
    OperationPaglet,
    SingleFileTransferPaglet,
    TaskClient,
    TaskPaglet,
    TaskSnapshot,
    TaskState,
    TaskStatus,
)
from paglets.protocol.membership import HostRef
from paglets.remote.proxy import PagletProxy
from paglets.services.contracts import EmptyPayload, ServiceOperation


@dataclass(frozen=True)
class Question:
    text: str = ""


@dataclass(frozen=True)
class Answer:
    number: int = 0


ASK = ServiceOperation("ask", Question, Answer)
PING = ServiceOperation("ping")


@dataclass
class OracleState(TaskState):
    asked: int = 0


class Oracle(TaskPaglet[Question, Answer, OracleState]):
    Request = Question
    Result = Answer
    State = OracleState

    def run_task(self, request: Question) -> Answer | PagletProxy | None:
        assert_type(self.state, OracleState)
        if request.text == "elsewhere":
            return self.dispatch("http://elsewhere")
        if request.text == "later":
            self.complete_task(Answer(1), status=TaskStatus.COMPLETED)
            return None
        return Answer(len(request.text))


class PatientOracle(TaskPaglet[Question, Answer, OracleState]):
    Request = Question
    Result = Answer
    State = OracleState

    async def run_task(self, request: Question) -> Answer | None:
        return Answer(len(request.text))


class Desk(OperationPaglet[OracleState]):
    State = OracleState
    Operations = (ASK, PING)

    def operation_handlers(self) -> Mapping[ServiceOperation[Any, Any], Callable[[Any], Any]]:
        return {ASK: self.ask}

    def ask(self, question: Question) -> Answer:
        return Answer(self.state.asked)


@dataclass
class FanState(MeshFanoutState):
    note: str = ""


class Fan(MeshFanoutMixin, CursorDrainMixin, NotificationMixin, Paglet[FanState]):
    State = FanState

    def spread(self) -> None:
        for host in self.fanout_select_hosts(("alpha",)):
            assert_type(host, HostRef)
            assert_type(self.clone_to(host, state_overrides={"note": "x"}), PagletProxy)
        assert_type(self.clone_to("alpha"), PagletProxy)
        assert_type(self.state, FanState)
        assert_type(self.notify_user_info(NotificationSeverity.INFO, "a", "b"), bool)


class Carrier(FileMobilityMixin, TaskPaglet[FileTransferRequest, FileTransferResult, FileTransferState]):
    Request = FileTransferRequest
    Result = FileTransferResult
    State = FileTransferState
    registered_file_name = "mine"

    def run_task(self, request: FileTransferRequest) -> PagletProxy | FileTransferResult | None:
        return self.send_file(request)

    def on_arrival(self, event: MobilityEvent) -> None:
        self.receive_file(event)
        assert_type(self.resolve_destination_path("a", "b"), Path)

    def run(self) -> None:
        self.finish_file()


class Own(SingleFileTransferPaglet):
    notification_title = "Own"


@dataclass
class Unrelated(PagletState):
    pass


def tasks(proxy: PagletProxy) -> None:
    client = TaskClient.for_paglet(proxy, Oracle)
    assert_type(client, TaskClient[Question, Answer])
    assert_type(client.start(Question("x"), timeout=1.0), TaskSnapshot[Answer])
    assert_type(client.start_and_wait(Question("x")).result, Answer | None)
    assert_type(client.wait(wait_timeout=1).status, TaskStatus)
    files = TaskClient.for_paglet(proxy, SingleFileTransferPaglet)
    assert_type(files.start(FileTransferRequest("a")).result, FileTransferResult | None)
    assert_type(TaskClient.for_paglet(proxy, Carrier).status(), TaskSnapshot[FileTransferResult])


def operations(proxy: PagletProxy) -> None:
    client = OperationClient(proxy)
    assert_type(client.call(ASK, Question("x")), Answer)
    assert_type(client.call(PING), EmptyPayload)
    client.send_oneway(ASK, Question("x"), timeout=1)
