from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError, dataclass, field
from enum import Enum
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import ServiceContractError
from paglets.core.messages import Message
from paglets.remote.references import PagletProxyRef
from paglets.services.contracts import (
    CONTRACT_METADATA_KEY,
    EmptyPayload,
    ServiceContract,
    ServiceHandle,
    ServiceOperation,
    ServiceRecord,
    StreamOperation,
)


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Nested:
    value: int = 0


@dataclass(frozen=True)
class Request:
    text: str
    colour: Colour = Colour.RED
    nested: Nested = Nested()
    blob: bytes = b""
    anything: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    total: int = 0
    parts: list[Nested] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """A reply that looks like what a host says of a message that it has stored."""

    queued: bool = False
    message_id: str = ""


PING = ServiceOperation("ping")
WORK = ServiceOperation("work", Request, Reply)
CONTRACT = ServiceContract("tests.worker", (PING, WORK))


def record_of(contract: ServiceContract, **changes: Any) -> ServiceRecord:
    values: dict[str, Any] = {
        "name": contract.name,
        "proxy": PagletProxyRef("http://h:1", "a1"),
        "capabilities": contract.capabilities,
        "metadata": contract.advertise_metadata({"extra": 1}),
    }
    return ServiceRecord(**{**values, **changes})


class FakeProxy:
    def __init__(self, reply: Any = None) -> None:
        self.reply = reply
        self.sent: list[tuple[str, Message, dict[str, Any]]] = []

    def send(self, message: Message, **options: Any) -> Any:
        self.sent.append(("send", message, options))
        return self.reply

    def send_oneway(self, message: Message, **options: Any) -> None:
        self.sent.append(("oneway", message, options))


@dataclass(frozen=True)
class FakeRef:
    proxy: FakeProxy
    host_url: str = "http://h:1"
    agent_id: str = "a1"

    def resolve(self, context_or_client: Any = None) -> FakeProxy:
        assert context_or_client == "client"
        return self.proxy


def handle_with(proxy: FakeProxy) -> ServiceHandle:
    return ServiceHandle(CONTRACT, record_of(CONTRACT, proxy=FakeRef(proxy)), "client")


# operations


def test_schemas_are_qualified_names() -> None:
    assert WORK.request_schema == "tests.services.test_contracts:Request"
    assert PING.reply_schema == "paglets.services.contracts:EmptyPayload"


def test_names_are_stripped() -> None:
    assert ServiceOperation("  ping ") == PING


@pytest.mark.parametrize("name", ["", "   ", None, 3])
def test_an_operation_needs_a_name(name: Any) -> None:
    with pytest.raises(ServiceContractError, match="operation name"):
        ServiceOperation(name)


@pytest.mark.parametrize("payload_type", [int, dict, Request("x"), None, list[int]])
def test_payload_types_must_be_dataclasses(payload_type: Any) -> None:
    with pytest.raises(ServiceContractError, match="request type of operation 'x' must be a dataclass"):
        ServiceOperation("x", payload_type)
    with pytest.raises(ServiceContractError, match="reply type"):
        ServiceOperation("x", EmptyPayload, payload_type)


def test_payload_types_must_be_importable() -> None:
    @dataclass
    class Local:
        pass

    with pytest.raises(ServiceContractError, match="cannot be imported"):
        ServiceOperation("x", Local)

    impostor = dataclass(type("Request", (), {"__module__": __name__}))
    with pytest.raises(ServiceContractError, match="is not what"):
        ServiceOperation("x", impostor)


def test_operations_are_made_with_their_types_named() -> None:
    assert ServiceOperation[Request, Reply]("work", Request, Reply) == WORK
    assert StreamOperation[Request, Reply]("numbers", Request, Reply) == NUMBERS
    for operation in (WORK, NUMBERS):
        with pytest.raises(FrozenInstanceError):
            setattr(operation, "name", "other")  # noqa: B010 - a type checker would refuse it
        with pytest.raises(FrozenInstanceError):
            operation.other = 1  # type: ignore[attr-defined]


def test_to_message_has_plain_arguments() -> None:
    message = WORK.to_message(Request("hi", nested=Nested(3)))
    assert message.kind == "work"
    assert message.args["colour"] == "red"
    assert message.args["nested"] == {"value": 3}


@given(st.text(), st.integers(), st.binary())
def test_requests_survive_encoding(text: str, number: int, blob: bytes) -> None:
    request = Request(text, nested=Nested(number), blob=blob, anything={"deep": [blob, number]})
    assert WORK.decode_request(WORK.to_message(request)) == request
    assert WORK.decode_request(WORK.encode_request(request)) == request


def test_empty_payloads() -> None:
    assert PING.encode_request() == {}
    assert PING.decode_request({}) == EmptyPayload()
    assert PING.decode_reply(None) == EmptyPayload()
    assert PING.decode_reply({}) == EmptyPayload()


def test_none_makes_a_payload_where_that_needs_no_arguments() -> None:
    assert WORK.encode_reply() == {"total": 0, "parts": []}
    with pytest.raises(ServiceContractError, match="request of operation 'work' needs a Request"):
        WORK.encode_request()


def test_payloads_of_another_type_are_refused() -> None:
    with pytest.raises(ServiceContractError, match="must be a Request, not Reply"):
        WORK.encode_request(cast("Any", Reply()))
    with pytest.raises(ServiceContractError, match="must be a Reply, not dict"):
        WORK.encode_reply(cast("Any", {"total": 1}))


def test_a_wrong_payload_names_the_field() -> None:
    with pytest.raises(ServiceContractError, match=r"request\.nested"):
        WORK.decode_request({"text": "x", "nested": 7})
    with pytest.raises(ServiceContractError, match="text"):
        WORK.decode_request(Message("work"))
    with pytest.raises(ServiceContractError, match=r"reply\.parts\[1\]"):
        WORK.decode_reply({"parts": [{"value": 1}, "two"]})


@pytest.mark.parametrize("payload", [None, [], "text", 3, {"total": "many"}])
def test_a_service_that_answers_nonsense(payload: Any) -> None:
    with pytest.raises(ServiceContractError, match="reply of operation 'work'"):
        WORK.decode_reply(payload)


def test_a_reply_that_is_decoded_already_is_returned_as_it_is() -> None:
    reply = Reply(3)
    assert WORK.decode_reply(reply) is reply


# contracts


def test_capabilities_and_lookup() -> None:
    assert CONTRACT.capabilities == ("ping", "work")
    assert CONTRACT.operation_for("work") is WORK
    assert CONTRACT.operation_for("other") is None
    assert CONTRACT.require_operation(ServiceOperation("work", Request, Reply)) == WORK


def test_operations_may_come_as_a_list() -> None:
    assert ServiceContract(" c ", cast("Any", [PING]), " 2 ") == ServiceContract("c", (PING,), "2")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("", (PING,)), "contract name"),
        (("c", (PING,), " "), "version of contract 'c'"),
        (("c", ()), "no operations"),
        (("c", ("ping",)), "operations must be ServiceOperation objects, not str"),
        (("c", PING), r"Contract 'c': operations must be a tuple .*, not a single one; .* \(OPERATION,\)"),
        (("c", None), "Contract 'c': operations must be a tuple of ServiceOperation objects, not NoneType"),
        (("c", 3), "not int"),
        (("c", "ping"), "not str"),
        (("c", (PING,), "1", None), "Contract 'c': streams must be a tuple of StreamOperation objects, not NoneType"),
        (("c", (), "1", StreamOperation("s")), r"streams must be a tuple .*, not a single one; .* \(OPERATION,\)"),
        (("c", (PING, ServiceOperation("ping", Request))), "two operations named 'ping'"),
    ],
)
def test_invalid_contracts(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(ServiceContractError, match=text):
        ServiceContract(*arguments)


def test_a_foreign_operation_is_refused() -> None:
    with pytest.raises(ServiceContractError, match=r"no part of contract 'tests\.worker'"):
        CONTRACT.require_operation(ServiceOperation("work", Request))


def test_metadata() -> None:
    assert CONTRACT.metadata() == {
        "name": "tests.worker",
        "version": "1",
        "operations": [
            {"name": "ping", "request_type": PING.request_schema, "reply_type": PING.reply_schema},
            {"name": "work", "request_type": WORK.request_schema, "reply_type": WORK.reply_schema},
        ],
    }
    assert CONTRACT.advertise_metadata({"a": 1}) == {"a": 1, CONTRACT_METADATA_KEY: CONTRACT.metadata()}
    with pytest.raises(ServiceContractError, match="reserved"):
        CONTRACT.advertise_metadata({CONTRACT_METADATA_KEY: {}})


def test_matches_record() -> None:
    assert CONTRACT.matches_record(record_of(CONTRACT))
    newer = ServiceContract(CONTRACT.name, CONTRACT.operations, "2")
    assert not CONTRACT.matches_record(record_of(newer))
    assert not CONTRACT.matches_record(record_of(CONTRACT, name="other"))
    assert not CONTRACT.matches_record(record_of(CONTRACT, capabilities=("work", "ping")))
    assert not CONTRACT.matches_record(record_of(CONTRACT, metadata={}))


# routing


def test_route_decodes_calls_and_encodes() -> None:
    def work(request: Request) -> Reply:
        return Reply(len(request.text))

    assert CONTRACT.route(WORK.to_message(Request("four")), {WORK: work}) == {"total": 4, "parts": []}


def test_route_of_an_unknown_kind() -> None:
    assert CONTRACT.route(Message("other"), {}, default=None) is None
    with pytest.raises(ServiceContractError, match="no operation 'other'"):
        CONTRACT.route(Message("other"), {})


def test_route_without_handler_is_an_error_even_with_a_default() -> None:
    with pytest.raises(ServiceContractError, match="no handler for operation 'ping'"):
        CONTRACT.route(PING.to_message(), {}, default="default")


def test_route_checks_the_reply_and_lets_errors_through() -> None:
    with pytest.raises(ServiceContractError, match="must be a Reply"):
        CONTRACT.route(WORK.to_message(Request("x")), {WORK: lambda request: "text"})
    with pytest.raises(ZeroDivisionError):
        CONTRACT.route(PING.to_message(), {PING: lambda request: 1 / 0})


def test_a_coroutine_answers_later() -> None:
    async def work(request: Request) -> Reply:
        return Reply(len(request.text))

    async def wrong(request: Request) -> str:
        return request.text

    answer = CONTRACT.route(WORK.to_message(Request("four")), {WORK: work})
    assert asyncio.run(answer) == {"total": 4, "parts": []}
    with pytest.raises(ServiceContractError, match="must be a Reply"):
        asyncio.run(CONTRACT.route(WORK.to_message(Request("four")), {WORK: wrong}))


# streams


NUMBERS = StreamOperation("numbers", Request, Reply)
WITH_STREAM = ServiceContract("tests.worker", (PING, WORK), streams=(NUMBERS,))


def test_a_contract_with_streams_is_another_contract() -> None:
    assert WITH_STREAM.capabilities == ("ping", "work", "numbers")
    assert WITH_STREAM.metadata() == CONTRACT.metadata() | {
        "streams": [{"name": "numbers", "request_type": WORK.request_schema, "item_type": WORK.reply_schema}]
    }
    assert not CONTRACT.matches_record(record_of(WITH_STREAM))
    assert not WITH_STREAM.matches_record(record_of(CONTRACT))
    assert WITH_STREAM.operation_for("numbers") is None
    assert WITH_STREAM.stream_for("numbers") is NUMBERS
    assert WITH_STREAM.require_stream(StreamOperation("numbers", Request, Reply, window=3)) == NUMBERS
    with pytest.raises(ServiceContractError, match="Stream 'numbers' is no part"):
        CONTRACT.require_stream(NUMBERS)
    assert ServiceContract("only", (), streams=(NUMBERS,)).capabilities == ("numbers",)


def test_what_a_caller_alone_declares_is_no_part_of_an_operation() -> None:
    assert ServiceOperation("work", Request, Reply, idempotent=True) == WORK
    assert hash(ServiceOperation("work", Request, Reply, idempotent=True)) == hash(WORK)
    declared = ServiceContract(CONTRACT.name, (PING, ServiceOperation("work", Request, Reply, idempotent=True)))
    assert declared.metadata() == CONTRACT.metadata()
    assert CONTRACT.require_operation(declared.operations[1]).name == "work"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": " "}, "stream name"),
        ({"request_type": int}, "request type of stream 's'"),
        ({"item_type": int}, "item type of stream 's'"),
        ({"window": 0}, "window of stream 's'"),
        ({"window": 10**6}, "window of stream 's'"),
        ({"idle_timeout": 0}, "idle_timeout of stream 's'"),
        ({"idle_timeout": float("inf")}, "idle_timeout of stream 's'"),
    ],
)
def test_invalid_streams(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ServiceContractError, match=text):
        StreamOperation(**{"name": "s", **arguments})


def test_streams_share_the_names_of_operations() -> None:
    with pytest.raises(ServiceContractError, match="two operations named 'work'"):
        ServiceContract("c", (WORK,), streams=(StreamOperation("work"),))
    with pytest.raises(ServiceContractError, match="streams must be StreamOperation objects"):
        ServiceContract("c", (WORK,), streams=cast("Any", (PING,)))


def test_a_stream_needs_a_handler_and_a_host() -> None:
    message = Message("numbers", {"text": "x"}, {"do": "open", "stream": "s", "credit": 1, "first": 0, "wait": 0})
    with pytest.raises(ServiceContractError, match="no handler for stream 'numbers'"):
        WITH_STREAM.route(message, {})
    with pytest.raises(ServiceContractError, match="by a paglet that a host runs"):
        WITH_STREAM.route(message, {}, streams={NUMBERS: lambda request: iter(())})


# handles


def test_a_handle_needs_a_matching_record() -> None:
    with pytest.raises(ServiceContractError, match=r"does not offer contract 'tests\.worker' version 1"):
        ServiceHandle(CONTRACT, record_of(ServiceContract(CONTRACT.name, (PING,))))


def test_call() -> None:
    proxy = FakeProxy({"total": 5})
    reply = handle_with(proxy).call(WORK, Request("x"), no_delay=True, timeout=2.0)

    assert reply == Reply(5)
    ((how, message, options),) = proxy.sent
    assert (how, message.kind, message.args["text"]) == ("send", "work", "x")
    assert options == {"activate_if_inactive": True, "no_delay": True, "timeout": 2.0}


def test_a_reply_may_look_like_the_receipt_for_a_stored_message() -> None:
    queue = ServiceOperation("work", Request, Place)
    contract = ServiceContract(CONTRACT.name, (queue,))
    proxy = FakeProxy({"queued": True, "message_id": "m1"})
    handle = ServiceHandle(contract, record_of(contract, proxy=FakeRef(proxy)), "client")
    assert handle.call(queue, Request("x")) == Place(True, "m1")


@pytest.mark.parametrize("no_delay", [False, True])
def test_a_call_is_never_stored_for_later(no_delay: bool) -> None:
    proxy = FakeProxy({"total": 5})
    handle = handle_with(proxy)
    assert handle.call(WORK, Request("x"), activate_if_inactive=False, no_delay=no_delay) == Reply(5)
    assert asyncio.run(handle.acall(WORK, Request("x"), activate_if_inactive=False, no_delay=no_delay)) == Reply(5)
    assert [options["no_delay"] for _, _, options in proxy.sent] == [True, True]
    assert [options["activate_if_inactive"] for _, _, options in proxy.sent] == [False, False]


def test_send_oneway() -> None:
    proxy = FakeProxy()
    handle_with(proxy).send_oneway(PING, activate_if_inactive=False)
    ((how, message, options),) = proxy.sent
    assert (how, message.kind) == ("oneway", "ping")
    assert options == {"activate_if_inactive": False, "no_delay": False, "timeout": None}


@pytest.mark.parametrize("method", ["call", "send_oneway"])
def test_nothing_is_sent_when_the_question_is_wrong(method: str) -> None:
    proxy = FakeProxy()
    ask = getattr(handle_with(proxy), method)
    with pytest.raises(ServiceContractError, match="no part of contract"):
        ask(ServiceOperation("other"))
    with pytest.raises(ServiceContractError, match="must be a Request"):
        ask(WORK, EmptyPayload())
    assert proxy.sent == []


def test_a_wrong_answer_is_a_contract_error() -> None:
    with pytest.raises(ServiceContractError, match="reply"):
        handle_with(FakeProxy("nonsense")).call(WORK, Request("x"))
