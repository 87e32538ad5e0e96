"""Typed tasks: started, watched, failed, moved, and what their client makes of the answers."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from paglets.core.agent import NOT_HANDLED
from paglets.core.errors import (
    ConflictError,
    HostError,
    NotHandledError,
    PagletInactiveError,
    RemoteTimeoutError,
    SerializationError,
    ServiceContractError,
)
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy
from paglets.patterns.tasks import (
    TASK_START,
    TASK_STATUS,
    TASK_WAIT,
    TaskClient,
    TaskPaglet,
    TaskSnapshot,
    TaskStartRequest,
    TaskState,
    TaskStatus,
    TaskStatusReply,
    TaskWaitRequest,
)
from paglets.remote.references import PagletProxyRef
from paglets.runtime.host import Host
from paglets.services.contracts import EmptyPayload
from tests.agents.adder import Adder, AddRequest, AddResult
from tests.agents.awaiting import AwaitingAdder
from tests.support import Gate

Pair = tuple[Host, Host]


def client_of(proxy: Any) -> TaskClient[AddRequest, AddResult]:
    return TaskClient.for_paglet(proxy, Adder)


def started(paglet: Adder, **request: Any) -> dict[str, Any]:
    reply = paglet.handle_message(Message("start", {"request": request}))
    assert isinstance(reply, dict)
    return reply


# --- without a host ---------------------------------------------------------------------------------------------------


def test_the_operations_have_their_names_and_types() -> None:
    assert [(each.name, each.request_type, each.reply_type) for each in (TASK_START, TASK_STATUS, TASK_WAIT)] == [
        ("start", TaskStartRequest, TaskStatusReply),
        ("status", EmptyPayload, TaskStatusReply),
        ("wait", TaskWaitRequest, TaskStatusReply),
    ]
    assert [status.value for status in TaskStatus] == [status.name for status in TaskStatus]
    assert [each.name for each in TaskStatus] == ["NEW", "RUNNING", "WAITING_FOR_ARRIVAL", "COMPLETED", "FAILED"]


def test_a_task_completes_with_what_it_returns() -> None:
    paglet = Adder(agent_id="adder")
    assert paglet.handle_message(TASK_STATUS.to_message())["status"] == "NEW"
    reply = started(paglet, numbers=[1, 2])
    assert reply == {
        "status": "COMPLETED",
        "done": True,
        "request": {"numbers": [1, 2]},
        "result": {"total": 3, "host": "nowhere"},
        "error": "",
        "started_at": paglet.state.started_at,
        "completed_at": paglet.state.completed_at,
        "agent_id": "adder",
        "host_name": "",
        "host_url": "",
    }
    assert 0 < paglet.state.started_at <= paglet.state.completed_at
    assert paglet.handle_message(TASK_STATUS.to_message()) == reply
    assert paglet.handle_message(TASK_WAIT.to_message(TaskWaitRequest(60))) == reply


@pytest.mark.parametrize(
    ("how", "error"),
    [("fail no luck", "no luck"), ("fail", "ValueError"), ("odd", "must be a dataclass, not int")],
)
def test_a_task_fails_with_the_text_of_what_it_raises(how: str, error: str) -> None:
    reply = started(Adder(), numbers=[1], how=how)
    assert (reply["status"], reply["done"], reply["result"]) == ("FAILED", True, {})
    assert error in reply["error"]


def test_a_new_start_clears_the_old_outcome() -> None:
    paglet = Adder()
    started(paglet, how="fail no luck")
    assert started(paglet, numbers=[4])["error"] == ""
    reply = started(paglet, how="quiet")
    assert (reply["status"], reply["done"], reply["result"], reply["completed_at"]) == ("RUNNING", False, {}, 0.0)
    assert paglet.handle_message(TASK_WAIT.to_message(TaskWaitRequest(0.01)))["done"] is False
    assert paglet.handle_message(TASK_WAIT.to_message(TaskWaitRequest(-1)))["done"] is False
    paglet.set_task_status(TaskStatus.FAILED, done=True)
    assert paglet.handle_message(TASK_WAIT.to_message(TaskWaitRequest(60)))["status"] == "FAILED"


def test_a_request_that_does_not_fit_changes_nothing() -> None:
    paglet = Adder()
    with pytest.raises(SerializationError, match=r"^request\.numbers: "):
        started(paglet, numbers="many")
    with pytest.raises(ServiceContractError, match="start"):
        paglet.handle_message(Message("start", {"request": 3}))
    assert paglet.state == TaskState()


def test_a_task_on_its_way_is_not_started_again() -> None:
    paglet = Adder(TaskState(request={"numbers": [1]}))
    paglet.set_task_status(TaskStatus.WAITING_FOR_ARRIVAL)
    assert paglet.state.done is False
    assert started(paglet, numbers=[1])["status"] == "WAITING_FOR_ARRIVAL"
    with pytest.raises(ConflictError, match="under way"):
        started(paglet, numbers=[2])
    assert paglet.state.request == {"numbers": [1]}
    paglet.fail_task(TimeoutError())
    assert (paglet.state.error, paglet.state.done) == ("TimeoutError", True)
    assert started(paglet, numbers=[2])["result"]["total"] == 2


def test_a_task_may_be_a_coroutine() -> None:
    paglet = AwaitingAdder()
    for request, status, error in [
        ({"numbers": [1, 2]}, "COMPLETED", ""),
        ({"how": "fail no luck"}, "FAILED", "no luck"),
        ({"how": "odd"}, "FAILED", "the result of AwaitingAdder must be a dataclass, not int"),
        ({"how": "cancel"}, "FAILED", "CancelledError"),
        ({"how": "quiet"}, "RUNNING", ""),
    ]:
        reply = asyncio.run(paglet.handle_message(Message("start", {"request": request})))
        assert (reply["status"], reply["error"], reply["done"]) == (status, error, status != "RUNNING")
        assert paglet.handle_message(TASK_STATUS.to_message()) == reply


def test_the_hook_for_other_messages_may_be_a_coroutine() -> None:
    paglet = AwaitingAdder()
    replies = [
        asyncio.run(paglet.handle_message(message))
        for message in (
            Message("where"),
            Message("marked", {"number": 2}),
            Message("awaited", {"number": 2}),
            Message("unknown"),
        )
    ]
    assert replies[:3] == [{"asked": "where"}, 3, 4]
    assert replies[3] is NOT_HANDLED


def test_other_messages_go_to_the_hook_then_to_marked_methods() -> None:
    paglet = Adder()
    with pytest.raises(HostError, match="not attached"):  # so the hook was asked
        paglet.handle_message(Message("where"))
    assert paglet.handle_message(Message("marked", {"number": 2})) == 3
    assert paglet.handle_message(Message("unknown")) is NOT_HANDLED


def test_a_task_must_name_its_classes() -> None:
    class Nameless(TaskPaglet[AddRequest, AddResult, TaskState]):
        Request = int

    with pytest.raises(HostError, match="must set Request to a dataclass"):
        Nameless.request_class()
    with pytest.raises(HostError, match="must set Result to a dataclass"):
        Nameless.result_class()
    assert (Adder.request_class(), Adder.result_class()) == (AddRequest, AddResult)
    assert started_without_a_body()["error"] == "Bodiless does not implement run_task"


def started_without_a_body() -> dict[str, Any]:
    class Bodiless(TaskPaglet[AddRequest, AddResult, TaskState]):
        Request = AddRequest
        Result = AddResult

    reply = Bodiless().handle_message(Message("start"))
    assert isinstance(reply, dict)
    return reply


def test_a_result_must_be_a_dataclass() -> None:
    paglet = Adder()
    for wrong in (AddResult, {"total": 3}, None):
        with pytest.raises(HostError, match="must be a dataclass"):
            paglet.complete_task(wrong)  # type: ignore[arg-type]
    assert paglet.state.done is False
    paglet.complete_task(AddResult(3, ""), status=TaskStatus.RUNNING)
    assert (paglet.state.status, paglet.state.done) == (TaskStatus.RUNNING, True)


def test_a_snapshot_as_plain_values() -> None:
    snapshot = TaskSnapshot(TaskStatus.COMPLETED, True, AddResult(3, "alpha"), agent_id="a")
    assert snapshot.to_wire() == {
        "status": "COMPLETED",
        "done": True,
        "result": {"total": 3, "host": "alpha"},
        "error": "",
        "started_at": 0.0,
        "completed_at": 0.0,
        "agent_id": "a",
        "host_name": "",
        "host_url": "",
    }
    assert TaskSnapshot(TaskStatus.NEW, False).to_wire()["result"] == {}


# --- with hosts -------------------------------------------------------------------------------------------------------


def test_a_client_starts_a_task_and_hears_of_it(pair: Pair) -> None:
    alpha, _ = pair
    proxy = alpha.create(Adder)
    client = client_of(proxy)
    assert client.status() == TaskSnapshot(
        TaskStatus.NEW, False, agent_id=proxy.agent_id, host_name="alpha", host_url=alpha.address
    )
    snapshot = client.start(AddRequest([1, 2, 3]))
    assert (snapshot.status, snapshot.done, snapshot.result) == (TaskStatus.COMPLETED, True, AddResult(6, "alpha"))
    assert client.status() == client.wait(wait_timeout=10) == snapshot
    failed = client.start_and_wait(AddRequest(how="fail no luck"))
    assert (failed.status, failed.result, failed.error) == (TaskStatus.FAILED, None, "no luck")
    assert client.status() == failed
    assert proxy.send(Message("where")) == {"host": "alpha"}
    assert proxy.call(Adder.marked, 2) == 3
    with pytest.raises(NotHandledError):
        proxy.send(Message("unknown"))


def test_tasks_that_are_coroutines_are_awaited_by_the_host(pair: Pair) -> None:
    alpha, beta = pair
    proxy = alpha.create(AwaitingAdder)
    client = TaskClient.for_paglet(proxy, AwaitingAdder)
    assert client.start(AddRequest([1, 2])).result == AddResult(3, "alpha")
    failed = client.start(AddRequest(how="fail no luck"))
    assert (failed.status, failed.error) == (TaskStatus.FAILED, "no luck")
    assert proxy.send(Message("where")) == {"asked": "where"}
    assert (proxy.call(Adder.marked, 2), proxy.call(AwaitingAdder.awaited, 2)) == (3, 4)
    with pytest.raises(NotHandledError):
        proxy.send(Message("unknown"))
    moved = client.start(AddRequest([5], f"leave {beta.address}"))
    assert (moved.status, moved.result) == (TaskStatus.COMPLETED, AddResult(5, "beta"))
    assert client.proxy.host_url == beta.address


def test_a_client_waits_for_a_task_that_goes_on_beside_its_handlers(pair: Pair, gate: Gate) -> None:
    client = client_of(pair[0].create(Adder))
    running = client.start_and_wait(AddRequest([2], f"later {gate}"), wait_timeout=0.01)
    assert (running.status, running.done, running.result) == (TaskStatus.RUNNING, False, None)
    gate.await_entered()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait, wait_timeout=30)
        gate.open()
        assert waiting.result(30).result == AddResult(2, "alpha")


def test_an_answer_that_takes_longer_than_the_caller_allows(pair: Pair) -> None:
    client = client_of(pair[0].create(Adder))
    with pytest.raises(RemoteTimeoutError):
        client.wait(wait_timeout=1, timeout=0.05)


@pytest.mark.parametrize("end", ["", " "], ids=["finished-on-arrival", "finished-by-somebody-later"])
def test_a_client_follows_a_task_that_moves(pair: Pair, end: str) -> None:
    alpha, beta = pair
    proxy = alpha.create(Adder)
    client = client_of(proxy)
    if end:
        snapshot = client.start(AddRequest([5], f"leave {beta.address}{end}"), timeout=2.0)
        assert (snapshot.status, snapshot.done) == (TaskStatus.WAITING_FOR_ARRIVAL, False)
    else:
        snapshot = client.start(AddRequest([5], f"leave {beta.address}"))
        assert (snapshot.status, snapshot.result) == (TaskStatus.COMPLETED, AddResult(5, "beta"))
    assert (client.proxy.host_url, client.proxy.agent_id) == (beta.address, proxy.agent_id)
    assert (snapshot.host_name, snapshot.host_url) == ("beta", beta.address)
    assert alpha.get_proxy(proxy.agent_id, include_inactive=True) is None


def test_a_move_that_fails_is_the_failure_of_the_task(pair: Pair) -> None:
    alpha, _ = pair
    client = client_of(alpha.create(Adder))
    snapshot = client.start(AddRequest([5], "leave http://127.0.0.1:1"))
    assert (snapshot.status, snapshot.host_name) == (TaskStatus.FAILED, "alpha")
    assert "could not move" in snapshot.error
    assert client.start(AddRequest([5])).result == AddResult(5, "alpha")


def test_a_task_that_sleeps_and_is_not_woken_is_an_error_and_not_started_later(pair: tuple[Host, Host]) -> None:
    proxy = pair[0].create(Adder)
    client = client_of(proxy)
    proxy.deactivate(policy=DeactivationPolicy(activate_on_message=False))
    for ask in (client.status, client.wait, lambda: client.start(AddRequest([5]))):
        with pytest.raises(PagletInactiveError):
            ask()
    proxy.activate()
    assert client.status().status is TaskStatus.NEW


def test_a_snapshot_is_made_with_its_type_named() -> None:
    made = TaskSnapshot[AddResult](TaskStatus.COMPLETED, True, AddResult(3, "alpha"))
    assert made == TaskSnapshot(TaskStatus.COMPLETED, True, AddResult(3, "alpha"))
    with pytest.raises(FrozenInstanceError):
        made.other = 1  # type: ignore[attr-defined]


# --- answers that make no sense ---------------------------------------------------------------------------------------


@dataclass
class Scripted:
    """Stands for a proxy that gives one answer."""

    answer: Any
    client: Any = None

    def send(self, message: Message, *, no_delay: bool = False, timeout: float | None = None) -> Any:
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        None,
        3,
        {"status": "ODD"},
        {"status": "COMPLETED", "done": True, "result": {"total": "many", "host": ""}},
        {"status": "COMPLETED", "done": True, "result": {"other": 1}},
    ],
)
def test_an_answer_that_does_not_fit_is_refused(answer: Any) -> None:
    client = client_of(Scripted(answer))
    for ask in (client.status, client.wait, lambda: client.start(AddRequest())):
        with pytest.raises(ServiceContractError):
            ask()


def test_a_result_that_does_not_fit_is_named_so() -> None:
    client = client_of(Scripted({"status": "COMPLETED", "done": True, "result": {"total": "many", "host": ""}}))
    with pytest.raises(ServiceContractError, match=r"does not fit AddResult: result\.total: "):
        client.status()


def test_a_request_of_another_class_is_not_sent() -> None:
    client = client_of(Scripted(None))
    with pytest.raises(ServiceContractError, match="must be a AddRequest, not AddResult"):
        client.start(AddResult(1, ""))  # type: ignore[arg-type]
    with pytest.raises(ServiceContractError):
        client.start({"numbers": []})  # type: ignore[arg-type]


def test_a_task_may_answer_with_a_reference() -> None:
    class Referring(Adder):
        def run_task(self, request: AddRequest) -> Any:
            return PagletProxyRef("http://elsewhere", "other")

    paglet = Referring()
    assert started(paglet) == {"host_url": "http://elsewhere", "agent_id": "other"}
    assert paglet.state.status is TaskStatus.RUNNING
