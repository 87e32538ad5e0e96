"""Paglets that answer typed operations, and the client that calls them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from paglets.core.agent import NOT_HANDLED
from paglets.core.errors import NotHandledError, PagletInactiveError, ServiceContractError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy
from paglets.patterns.operations import OperationClient
from paglets.runtime.host import Host
from paglets.services.contracts import EmptyPayload, ServiceOperation
from tests.agents.adder import ADD, CLEAR, COUNTING, FLOWING, SILENT, UNSAID, UNUSED, AddResult, Summer, SumState, Term
from tests.agents.awaiting import AwaitingSummer
from tests.support import eventually


def test_a_message_is_routed_without_a_host() -> None:
    paglet = Summer()
    assert paglet.handle_message(ADD.to_message(Term(2))) == {"value": 2}
    assert paglet.handle_message(Message("add", {"value": 3})) == {"value": 5}
    assert paglet.handle_message(CLEAR.to_message()) == {}
    assert paglet.state.total == 0
    assert paglet.handle_message(Message("unsaid")) == {"value": -1}  # named by its handler alone
    assert paglet.handle_message(Message("echo", {"a": 1})) == {"echo": {"a": 1}}
    assert paglet.handle_message(Message("marked", {"number": 2})) == 3
    assert paglet.handle_message(Message("unknown")) is NOT_HANDLED
    assert paglet.operation_for_message(Message("add")) is ADD
    assert paglet.operation_for_message(Message("echo")) is None


def test_an_operation_without_a_handler_and_a_request_that_does_not_fit_are_refused() -> None:
    paglet = Summer()
    with pytest.raises(ServiceContractError, match="No handler registered for operation 'unused'"):
        paglet.handle_message(UNUSED.to_message())
    with pytest.raises(ServiceContractError, match="value"):
        paglet.handle_message(Message("add", {"value": "two"}))
    assert paglet.state == SumState()


def test_a_reply_of_another_class_is_refused() -> None:
    class Confused(Summer):
        def add(self, term: Term) -> Any:
            return term.value

    with pytest.raises(ServiceContractError, match="reply of operation 'add' must be a Term"):
        Confused().handle_message(ADD.to_message(Term(1)))


def test_handlers_and_the_hook_may_be_coroutines(pair: tuple[Host, Host]) -> None:
    paglet = AwaitingSummer()
    assert asyncio.run(paglet.handle_message(ADD.to_message(Term(2)))) == {"value": 2}
    assert asyncio.run(paglet.handle_message(Message("unknown"))) is NOT_HANDLED
    with pytest.raises(ServiceContractError, match="value"):  # before anything is awaited
        paglet.handle_message(Message("add", {"value": "two"}))
    proxy = pair[0].create(AwaitingSummer)
    client = OperationClient(proxy)
    assert (client.call(ADD, Term(2)), client.call(ADD, Term(3))) == (Term(2), Term(5))
    with pytest.raises(ServiceContractError, match="reply of operation 'clear' must be a EmptyPayload"):
        client.call(CLEAR)
    assert proxy.send(Message("echo", {"a": 1})) == {"echo": {"a": 1}}
    assert proxy.call(AwaitingSummer.marked, 2) == 3
    with pytest.raises(NotHandledError):
        proxy.send(Message("unknown"))


def test_the_operations_of_the_class_come_before_those_of_the_handlers() -> None:
    other = ServiceOperation("add", EmptyPayload, Term)

    class Twice(Summer):
        Operations = (other,)

    assert Twice().operation_for_message(Message("add")) is other
    with pytest.raises(ServiceContractError, match="No handler"):
        Twice().handle_message(Message("add"))


def test_a_client_calls_and_sends(pair: tuple[Host, Host]) -> None:
    proxy = pair[0].create(Summer)
    client = OperationClient(proxy)
    assert client.call(ADD, Term(2)) == Term(2)
    assert client.call(CLEAR) == EmptyPayload()
    client.send_oneway(ADD, Term(40))
    client.send_oneway(ADD)
    assert eventually(lambda: client.call(ADD, Term(0)).value, "the one-way message") == 40
    assert client.call(UNSAID, timeout=10) == Term(-1)
    with pytest.raises(NotHandledError):
        client.call(ServiceOperation("unknown", EmptyPayload, Term))
    with pytest.raises(ServiceContractError, match="reply of operation 'echo'"):
        client.call(ServiceOperation("echo", EmptyPayload, AddResult))
    with pytest.raises(ServiceContractError):
        client.call(ADD, EmptyPayload())  # type: ignore[misc]
    with pytest.raises(ServiceContractError):
        client.send_oneway(ADD, EmptyPayload())  # type: ignore[misc]
    assert client.call(ADD, Term(0)) == Term(40)


def test_a_call_of_one_that_sleeps_and_is_not_woken_is_an_error_and_not_made_later(pair: tuple[Host, Host]) -> None:
    proxy = pair[0].create(Summer)
    client = OperationClient(proxy)
    proxy.deactivate(policy=DeactivationPolicy(activate_on_message=False))
    for ask in (
        lambda: client.call(ADD, Term(2)),
        lambda: client.call(ADD, Term(2), activate_if_inactive=False),
        lambda: next(client.stream(COUNTING, Term(3))),
    ):
        with pytest.raises(PagletInactiveError):
            ask()
    client.send_oneway(ADD, Term(40))
    proxy.activate()
    assert client.call(ADD, Term(0)) == Term(40)


def test_streams_are_served_and_read(pair: tuple[Host, Host]) -> None:
    alpha, beta = pair
    client = OperationClient(alpha.create_remote(beta.address, Summer))
    assert [item.value for item in client.stream(COUNTING, Term(10))] == list(range(10))
    assert client.call(ADD, Term(0)) == Term(45)
    with client.stream(FLOWING, Term(10), window=2) as items:
        assert next(items) == Term(0)

    async def read() -> list[int]:
        return [item.value async for item in client.astream(FLOWING, Term(9))]

    assert asyncio.run(read()) == list(range(9))
    with pytest.raises(ServiceContractError, match="No handler registered for stream 'silent'"):
        next(client.stream(SILENT, Term(1)))
    with pytest.raises(ServiceContractError):
        client.stream(COUNTING, EmptyPayload())  # type: ignore[misc]
