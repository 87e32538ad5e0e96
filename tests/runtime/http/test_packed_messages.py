"""Messages in the encoding that hosts use among themselves, over real connections."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest

from paglets.core.errors import InvalidAgentError, RemoteHostError, SerializationError, UnsupportedMediaError
from paglets.core.messages import Message
from paglets.core.terms import FIRST_ATTEMPT
from paglets.remote.aio import AsyncHostClient
from paglets.remote.packed import MESSAGE_CONTENT_TYPE, decode_answer, encode_delivery, is_packed
from paglets.remote.proxy import PagletProxy
from paglets.remote.requests import Parcel
from paglets.runtime.host import Host
from paglets.runtime.http import guards, hot
from paglets.serialization.values import pack, unpack
from tests.runtime.http.wire import Reply, ask, say, served_again

PACKED = {"Content-Type": MESSAGE_CONTENT_TYPE}


def packed_body(kind: str, args: dict[str, Any], *, oneway: bool = False) -> bytes:
    message = pack(Message(kind, args).to_wire())
    return encode_delivery(message, FIRST_ATTEMPT, oneway=oneway, activate_if_inactive=True, no_delay=False)


def send(host: Host, path: str, body: bytes | Any, **headers: str) -> Reply:
    return ask(host.address, "POST", path, body, {name.replace("_", "-"): text for name, text in headers.items()})


def result_of(reply: Reply) -> Any:
    assert reply.status == 200, reply.text
    assert reply.headers["content-type"] == MESSAGE_CONTENT_TYPE
    return unpack(bytes(decode_answer(reply.body, "here")["result"]))


def test_a_packed_message_is_answered_packed(host: Host, parrot: PagletProxy) -> None:
    path = f"/agents/{parrot.agent_id}/messages"
    args = {"data": b"\x00\xff", "text": "ü\ud800", "big": 2**80, "none": None, "deep": [{"er": [b"", -math.inf]}]}
    heard = result_of(send(host, path, packed_body("anything", args), **PACKED))
    assert heard["args"] == args
    assert result_of(send(host, path, packed_body("anything", args, oneway=True), **PACKED)) is None


def test_who_sends_json_is_answered_packed_only_if_that_is_understood(host: Host, talker: PagletProxy) -> None:
    path = f"/agents/{talker.agent_id}/messages"
    assert send(host, path, say("count", by=2)).json() == {"result": 2}
    assert send(host, path, say("count", by=2), accept="application/json").json() == {"result": 4}
    assert result_of(send(host, path, say("count", by=2), accept=f"{MESSAGE_CONTENT_TYPE}, application/json")) == 6


def test_errors_are_json_in_any_case(host: Host, talker: PagletProxy) -> None:
    missing = send(host, "/agents/nobody/messages", packed_body("count", {}), **PACKED)
    assert (missing.status, missing.error) == (404, InvalidAgentError.__name__)
    refused = send(host, f"/agents/{talker.agent_id}/messages", packed_body("refuse", {}), **PACKED)
    assert refused.status >= 400
    assert refused.error


@pytest.mark.parametrize("body", [b"", b"{}", b"\x98", packed_body("", {}), packed_body("count", {})[:-1]])
def test_a_malformed_one_is_refused(host: Host, talker: PagletProxy, body: bytes) -> None:
    reply = send(host, f"/agents/{talker.agent_id}/messages", body, **PACKED)
    assert (reply.status, reply.error) == (400, "SerializationError")


@pytest.mark.parametrize("path", ["/agents", "/hosts/join", "/agents/a/messages/", "/agents/a/dispatch", "/services"])
def test_nothing_else_is_taken_in_this_encoding(host: Host, path: str) -> None:
    reply = send(host, path, packed_body("count", {}), **PACKED)
    assert (reply.status, reply.error) == (415, "UnsupportedMediaError")


def test_its_size_is_bounded_as_that_of_json(host: Host, talker: PagletProxy) -> None:
    path = f"/agents/{talker.agent_id}/messages"
    with served_again(host, max_json_bytes=1000) as served:
        assert ask(served.address, "POST", path, packed_body("take", {"data": b"x" * 1000}), PACKED).status == 413
    assert result_of(send(host, path, packed_body("take", {"data": b"x" * 300_000}), **PACKED))["size"] == 300_000


# --- the client of a host --------------------------------------------------------------------------------------------


class Types:
    """What a client sends its messages as."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        call = AsyncHostClient._call

        async def watched(client: AsyncHostClient, *args: Any, **options: Any) -> Any:
            self.seen.append(args[3].get("Content-Type", ""))
            return await call(client, *args, **options)

        monkeypatch.setattr(AsyncHostClient, "_call", watched)


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Types:
    return Types(monkeypatch)


def only_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hosts refuse packed messages, like hosts that do not know the encoding."""
    media_type = guards.media_type

    def changed(headers: dict[bytes, bytes]) -> bytes:
        if headers.get(b"content-type") == guards.MESSAGE_TYPE:
            raise UnsupportedMediaError("not understood")
        return media_type(headers)

    monkeypatch.setattr(guards, "media_type", changed)


def parcel(kind: str, **args: Any) -> Parcel:
    message = Message(kind, args)
    return Parcel(None, packed=pack(message.to_wire()), message_id=message.message_id)


def delivered(proxy: PagletProxy, *parcels: Parcel) -> list[Any]:
    """Return what the parcels are answered with; packed, if they are, and errors as they are."""

    async def deliver() -> list[Any]:
        async with AsyncHostClient() as client:
            answers: list[Any] = []
            for each in parcels:
                try:
                    answers.append((await client.deliver_parcel(proxy.host_url, proxy.agent_id, each))["result"])
                except RemoteHostError as exc:
                    answers.append(type(exc))
            return answers

    return asyncio.run(deliver())


def unpacked(results: list[msgspec.Raw]) -> list[Any]:
    return [unpack(bytes(each)) for each in results]


def test_after_the_first_message_all_are_packed(talker: PagletProxy, types: Types) -> None:
    assert unpacked(delivered(talker, *(parcel("count", by=1) for _ in range(3)))) == [1, 2, 3]
    assert types.seen == ["application/json", MESSAGE_CONTENT_TYPE, MESSAGE_CONTENT_TYPE]


def test_programs_send_json(talker: PagletProxy, types: Types) -> None:
    assert delivered(talker, *(Parcel(Message("count", {"by": 1})) for _ in range(2))) == [1, 2]
    assert types.seen == ["application/json"] * 2


def test_a_host_that_does_not_understand_it_any_more_gets_json(
    talker: PagletProxy, types: Types, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_json(monkeypatch)
    assert unpacked(delivered(talker, parcel("count", by=1), parcel("count", by=1))) == [1, 2]
    assert types.seen == ["application/json", MESSAGE_CONTENT_TYPE, "application/json"]


def test_a_handler_that_raises_what_a_host_refuses_with_is_not_run_again(
    talker: PagletProxy, types: Types, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handled(*_: object, **__: object) -> bytes:
        raise UnsupportedMediaError("no picture")

    assert unpacked(delivered(talker, parcel("count", by=1))) == [1]
    types.seen.clear()
    hot_deliver = hot.deliver
    answers = iter([hot_deliver, handled])
    monkeypatch.setattr(hot, "deliver", lambda *args, **options: next(answers)(*args, **options))
    with pytest.raises(UnsupportedMediaError, match="no picture"):
        delivered(talker, parcel("count", by=1), parcel("count", by=1))
    assert types.seen == ["application/json", MESSAGE_CONTENT_TYPE]


def test_what_json_cannot_express_is_packed_at_once(parrot: PagletProxy, types: Types) -> None:
    args = {"number": math.inf, "text": "\ud800"}
    (answer,) = delivered(parrot, parcel("anything", **args))
    assert unpack(bytes(answer))["args"] == args
    assert types.seen == [MESSAGE_CONTENT_TYPE]


def test_what_json_proper_cannot_express_is_sent_as_python_writes_it_where_nothing_else_is_understood(
    parrot: PagletProxy, types: Types, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_json(monkeypatch)
    args = {"number": math.inf, "text": "\ud800"}
    (answer,) = unpacked(delivered(parrot, parcel("anything", **args)))
    assert answer["args"] == args
    assert types.seen == [MESSAGE_CONTENT_TYPE, "application/json"]


def test_what_json_cannot_express_at_all_is_refused_where_nothing_else_is_understood(
    parrot: PagletProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_json(monkeypatch)
    with pytest.raises(SerializationError, match="JSON"):
        delivered(parrot, parcel("anything", number=10**5000))


@pytest.mark.parametrize("answer", [b"\x81", b"\x80", b"\x81\xa6result", b"\x91\x01"])
def test_an_answer_that_is_none_is_an_error_of_the_host(
    talker: PagletProxy, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr("paglets.runtime.http.hot.encode_answer", lambda *_: answer)
    assert delivered(talker, parcel("count", by=1), parcel("count", by=1)) == [RemoteHostError] * 2


def test_the_first_byte_tells_the_two_apart() -> None:
    assert [is_packed(each) for each in (b"{}", b"[]", b"null", b"", b"\x80", b"\x8f", b"\x90")] == [
        False,
        False,
        False,
        False,
        True,
        True,
        False,
    ]
