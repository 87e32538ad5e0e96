"""Uses of the patterns that a type checker must refuse. Each marked line has exactly one error, of the named code."""

from __future__ import annotations

from paglets.core.agent import Paglet
from paglets.patterns import (
    FileTransferRequest,
    NotificationSeverity,
    OperationClient,
    SingleFileTransferPaglet,
    TaskClient,
    TaskPaglet,
)
from paglets.remote.proxy import PagletProxy
from tests.typing.right_patterns import ASK, PING, Answer, Fan, Oracle, OracleState, Question, Unrelated


def tasks(proxy: PagletProxy) -> None:
    client = TaskClient.for_paglet(proxy, Oracle)
    client.start(Answer(1))  # error: arg-type
    client.start("x")  # error: arg-type
    client.start()  # error: call-arg
    client.start_and_wait(FileTransferRequest("a"))  # error: arg-type
    client.start(Question("x"), 1.0)  # error: call-arg
    client.wait(wait_timeout="1")  # error: arg-type
    number: int = client.start(Question("x")).result  # error: assignment
    none: int = client.status().result.number  # error: union-attr
    TaskClient.for_paglet(proxy, SingleFileTransferPaglet).start(Question("x"))  # error: arg-type
    TaskClient.for_paglet(proxy, Paglet)  # error: arg-type
    print(number, none)


class Wrong(TaskPaglet[Question, Answer, OracleState]):
    def run_task(self, request: Answer) -> Answer:  # error: override
        self.complete_task(Question("x"))  # error: arg-type
        return request


class WrongState(TaskPaglet[Question, Answer, Unrelated]):  # error: type-var
    pass


def operations(proxy: PagletProxy) -> None:
    client = OperationClient(proxy)
    client.call(ASK, Answer(1))  # error: misc
    client.call("ask", Question("x"))  # error: arg-type
    client.send_oneway(ASK, Answer(1))  # error: misc
    answer: Question = client.call(ASK, Question("x"))  # error: assignment
    client.call(PING, Question("x"))  # error: misc
    print(answer)


def fans(fan: Fan) -> None:
    fan.clone_to(3)  # error: arg-type
    fan.fanout_select_hosts("alpha")  # error: arg-type
    fan.notify_user_info("info", "a", "b")  # error: arg-type
    fan.notify_user_info(NotificationSeverity.INFO, "a")  # error: call-arg
