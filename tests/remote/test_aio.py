"""The asynchronous client and proxy: the same requests and the same errors as their synchronous twins."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import io
import socket
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.core import errors
from paglets.core.agent import ACTIVE, INACTIVE
from paglets.core.messages import FUTURE, ONEWAY, SYNCHRONOUS, Message
from paglets.core.policies import DeactivationPolicy
from paglets.remote.aio import AsyncHostClient, AsyncPagletProxy
from paglets.remote.client import HostClient
from paglets.remote.proxy import CallOptions, PagletProxy
from paglets.remote.references import PagletProxyRef
from paglets.remote.requests import decode_json, encode_json
from paglets.remote.transfer import TransferTicket
from paglets.remote.transport import MOVEMENT_CONTENT_TYPE, load_http_pickle_payload
from tests.remote.artifact_host import MemoryHost
from tests.remote.handlers import Counter, Point, handle
from tests.remote.scripted import Received, ScriptedHost, reply, response


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 30))


@pytest.fixture
def host() -> Iterator[MemoryHost]:
    with MemoryHost() as made:
        yield made


# --- the same surface -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plain", "asynchronous"), [(HostClient, AsyncHostClient), (PagletProxy, AsyncPagletProxy)], ids=["client", "proxy"]
)
def test_both_kinds_have_the_same_methods_with_the_same_parameters(plain: type, asynchronous: type) -> None:
    expected = {name for name, _ in inspect.getmembers(plain, inspect.isfunction) if not name.startswith("_")}
    expected -= {"close", "aio", "from_wire"}
    for name in expected:
        theirs = inspect.signature(getattr(plain, name)).parameters.values()
        ours = inspect.signature(getattr(asynchronous, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs], name


# --- client -----------------------------------------------------------------------------------------------------------


def test_json_goes_both_ways_over_one_connection() -> None:
    async def main(url: str) -> None:
        async with AsyncHostClient(api_key="secret") as client:
            assert await client.post_json(url + "/x", {"data": b"\x00", "t": (1, 2)}) == {"data": b"\x00", "t": [1, 2]}
            assert await client.get_json(url + "/a%2Fb?x=1") is None

    with ScriptedHost(lambda request, _connection: response(request.body)) as host:
        run(main(host.url))
        assert [item.target for item in host.requests] == ["/x", "/a%2Fb?x=1"]
        assert host.requests[0].headers["authorization"] == "Bearer secret"
        assert host.requests[0].headers["content-type"] == "application/json"
        assert host.requests[1].headers["accept"] == "application/json"
        assert host.connections == 1


def test_post_pickle_streams_the_movement_encoding() -> None:
    payload = {"state": b"x" * 3_000_000}

    async def main(url: str) -> Any:
        async with AsyncHostClient() as client:
            return await client.post_pickle(url, payload)

    with ScriptedHost(reply(1)) as host:
        assert run(main(host.url)) == 1
        request = host.requests[0]
    assert request.headers["transfer-encoding"] == "chunked"
    headers = {"Content-Type": MOVEMENT_CONTENT_TYPE, "Content-Length": str(len(request.body))}
    assert load_http_pickle_payload(headers, io.BytesIO(request.body)) == payload


def get(url: str, **options: Any) -> Any:
    async def main() -> Any:
        async with AsyncHostClient(**options) as client:
            return await client.get_json(url)

    return run(main())


@pytest.mark.parametrize(
    ("answer", "expected", "text"),
    [
        (reply({"error_type": "TransferError", "error": "why"}, "400 Bad"), errors.TransferError, "why"),
        (reply({"error_type": "Odd", "error": "why"}, "500 Error"), errors.RemoteHostError, "why"),
        (response(b"<html>", "502 Bad Gateway"), errors.ConnectionLostError, "502"),
        (response(b"{nope"), errors.RemoteHostError, "not JSON"),
        (response(b"", "302 Found", location="/"), errors.RemoteHostError, "redirects are not followed"),
        (response(b"", "401 Unauthorized"), errors.AuthenticationError, "set PAGLETS_API_KEY"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", errors.RemoteHostError, "Could not read the answer"),
        (response(b"abc", connection="close", content_length="100"), errors.ConnectionLostError, "Lost"),
    ],
)
def test_errors_are_those_of_the_synchronous_client(answer: bytes, expected: type[Exception], text: str) -> None:
    with ScriptedHost(answer) as host, pytest.raises(errors.PagletError, match=text) as caught:
        get(host.url)
    assert type(caught.value) is expected


@pytest.mark.parametrize("body", ["x" * 1000, "y" * 5_000_000])
def test_an_answer_above_the_limit_is_a_remote_host_error(body: str) -> None:
    with ScriptedHost(reply(body)) as host, pytest.raises(errors.RemoteHostError, match="more than 500 bytes"):
        get(host.url, max_response_bytes=500)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "127.0.0.1:8765", "http://127.0.0.1:99999/", "http://u:p@h/"])
def test_a_url_that_cannot_be_called_is_a_remote_host_error(url: str) -> None:
    with pytest.raises(errors.RemoteHostError, match="Could not reach"):
        get(url)


def test_a_closed_port_is_a_remote_host_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/health"
    with pytest.raises(errors.RemoteHostError, match=f"Could not reach {url}: "):
        get(url)


@pytest.mark.parametrize("dripping", [False, True])
def test_no_answer_in_time_is_both_kinds_of_error(dripping: bool) -> None:
    release = threading.Event()

    def answer(_request: Received, connection: socket.socket) -> bytes | None:
        if dripping:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not release.wait(0.01):
            if dripping:
                connection.sendall(b"x")
        return None

    with ScriptedHost(answer) as host:
        try:
            with pytest.raises(errors.RemoteTimeoutError, match=r"0\.2 s") as caught:
                get(host.url, timeout=0.2)
        finally:
            release.set()
    assert isinstance(caught.value, TimeoutError)


def test_calls_run_beside_each_other() -> None:
    everyone = threading.Barrier(8, timeout=10)

    def answer(_request: Received, _connection: socket.socket) -> bytes:
        everyone.wait()
        return reply(1)

    async def main(url: str) -> list[Any]:
        async with AsyncHostClient() as client:
            return await asyncio.gather(*(client.get_json(url) for _ in range(8)))

    with ScriptedHost(answer) as host:
        assert run(main(host.url)) == [1] * 8


def test_a_client_serves_one_loop_at_a_time() -> None:
    client = AsyncHostClient()

    async def use(url: str) -> Any:
        try:
            return await client.get_json(url)
        finally:
            await client.aclose()

    async def keep(url: str) -> None:
        await client.get_json(url)
        with pytest.raises(RuntimeError, match="event loop"):
            await asyncio.to_thread(asyncio.run, client.get_json(url))
        await client.aclose()

    with ScriptedHost(reply(1)) as host:
        assert run(use(host.url)) == 1
        assert run(use(host.url)) == 1
        run(keep(host.url))


def test_a_cancelled_call_leaves_the_client_usable() -> None:
    asked = threading.Event()
    release = threading.Event()

    def answer(request: Received, _connection: socket.socket) -> bytes:
        if request.target == "/slow":
            asked.set()
            release.wait(10)
        return reply(1)

    async def main(url: str) -> Any:
        async with AsyncHostClient() as client:
            slow = asyncio.create_task(client.get_json(url + "/slow"))
            await asyncio.to_thread(asked.wait, 10)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            return await client.get_json(url + "/fast")

    with ScriptedHost(answer) as host:
        try:
            assert run(main(host.url)) == 1
        finally:
            release.set()


# --- artifacts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(b"content" * 100_000)
    return path


def test_an_artifact_goes_up_and_comes_down(host: MemoryHost, source: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncHostClient() as client:
            ref = await client.upload_artifact(host.url, source, owner_agent_id="me", compression="zstd")
            assert (ref.name, ref.size_bytes, ref.compression) == ("source.bin", 700_000, "zstd")
            assert await client.list_artifacts(host.url, owner_agent_id="me") == [ref]
            assert await client.artifact_metadata(host.url, ref.artifact_id) == ref
            assert await client.download_artifact(ref, tmp_path / "new" / "copy.bin") == ref
            again = await client.download_artifact(host.url, tmp_path / "again.bin", ref.artifact_id, move=True)
            assert again == ref
            await client.delete_artifact(ref)
            with pytest.raises(ValueError, match="artifact_id"):
                await client.delete_artifact(host.url)

    run(main())
    assert (tmp_path / "new" / "copy.bin").read_bytes() == source.read_bytes()
    assert (tmp_path / "again.bin").read_bytes() == source.read_bytes()
    assert host.requests[0].headers["content-length"] == "700000"
    assert not host.refs


def test_a_failed_transfer_leaves_nothing_behind(host: MemoryHost, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "target.bin"

    async def main() -> None:
        async with AsyncHostClient() as client:
            ref = await client.upload_artifact(host.url, source)
            host.blobs[ref.artifact_id] = b"X" + host.blobs[ref.artifact_id][1:]
            with pytest.raises(errors.TransferError, match="checksum"):
                await client.download_artifact(ref, target)
            host.tamper = lambda content: content[:-1]
            with pytest.raises(errors.TransferError):
                await client.upload_artifact(host.url, source)
            with pytest.raises(errors.TransferError, match="Not a file"):
                await client.upload_artifact(host.url, tmp_path / "missing")

    run(main())
    assert not list(target.parent.iterdir())
    assert len(host.refs) == 1


# --- proxy ------------------------------------------------------------------------------------------------------------


class LocalClient(AsyncHostClient):
    """Answer from a paglet in this process; values pass through JSON as they would on a wire."""

    def __init__(self) -> None:
        super().__init__()
        self.paglet = Counter()
        self.deliveries: list[tuple[Message, dict[str, Any]]] = []
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.info: dict[str, Any] | None = {"active": True, "class_name": "m:C"}

    async def deliver(self, host_url: str, agent_id: str, message: Message, **options: Any) -> Any:
        self.deliveries.append((message, options))
        received = Message.from_wire(decode_json(encode_json(message.to_wire())))
        reply = decode_json(encode_json(await handle(self.paglet, received)))
        return None if options.get("oneway") else reply

    async def operate(
        self, host_url: str, agent_id: str, operation: str, payload: dict[str, Any], **options: Any
    ) -> dict[str, Any]:
        self.operations.append((operation, payload))
        return {"proxy": {"host_url": "http://other:2", "agent_id": "b"}, "ok": True}

    async def agent_info(self, host_url: str, agent_id: str) -> dict[str, Any]:
        if self.info is None:
            raise errors.InvalidAgentError("gone")
        return self.info


def test_a_proxy_is_a_value_and_turns_into_the_other_kind() -> None:
    client = LocalClient()
    proxy = AsyncPagletProxy("http://host:1", "a", client)
    with pytest.raises(dataclasses.FrozenInstanceError):
        proxy.agent_id = "b"  # type: ignore[misc]
    assert proxy.to_wire() == {"host_url": "http://host:1", "agent_id": "a"}
    assert AsyncPagletProxy.from_wire(proxy.to_wire(), client) == proxy
    assert proxy.ref() == PagletProxyRef("http://host:1", "a")
    assert proxy.is_remote()
    assert not proxy.is_remote("http://host:1/")
    client.api_key, client.timeout = "secret", 3.0
    plain = proxy.sync()
    assert (plain.host_url, plain.agent_id, plain.client.api_key, plain.client.timeout) == (
        *("http://host:1", "a", "secret", 3.0),
    )
    assert plain.aio(client) == proxy
    with HostClient() as other:
        assert proxy.sync(other).client is other


def test_the_condition_of_a_paglet() -> None:
    client = LocalClient()
    proxy = AsyncPagletProxy("http://host:1", "a", client)

    async def main() -> None:
        assert (await proxy.is_valid(), await proxy.is_active()) == (True, True)
        assert [await proxy.is_state(state) for state in (ACTIVE, INACTIVE, True, False)] == [True, False, True, False]
        assert await proxy.get_agent_class_name() == "m:C"
        assert await proxy.info() == client.info
        client.info = None
        assert (await proxy.is_valid(), await proxy.is_active(), await proxy.is_state(False)) == (False,) * 3

    run(main())


def test_messages() -> None:
    client = LocalClient()
    proxy = AsyncPagletProxy("http://host:1", "a", client)
    message = Message("increment", {"by": 2}, message_type=ONEWAY)
    before = dataclasses.replace(message)

    async def main() -> None:
        assert await proxy.send(message, no_delay=True, timeout=3.0) == 2
        await proxy.send_oneway(message, activate_if_inactive=False)
        task = proxy.send_future(message)
        assert isinstance(task, asyncio.Task)
        assert await task == 6
        with pytest.raises(errors.NotHandledError):
            await proxy.send(Message("unknown"))

    run(main())
    assert message == before
    assert [delivered.message_type for delivered, _ in client.deliveries[:3]] == [SYNCHRONOUS, ONEWAY, FUTURE]
    assert client.deliveries[0][1] == {"activate_if_inactive": True, "no_delay": True, "timeout": 3.0}
    assert client.deliveries[1][1]["oneway"] is True


def test_typed_calls() -> None:
    client = LocalClient()
    proxy = AsyncPagletProxy("http://host:1", "a", client)

    async def main() -> None:
        assert await proxy.call(Counter.increment, by=2) == 2
        assert await proxy.call(Counter.move_point, Point(1, 2), dx=3) == Point(4, 2)
        assert await proxy.call(Counter.echo, b"\x00") == b"\x00"
        assert await proxy.with_options(CallOptions(timeout=5.0)).call(Counter.increment) == 3
        await proxy.call_oneway(Counter.increment, by=4)
        await proxy.with_options(CallOptions(no_delay=True)).call_oneway(Counter.increment)
        assert client.paglet.state.count == 8
        unchecked: Any = proxy
        with pytest.raises(TypeError, match="unexpected keyword"):
            await unchecked.call(Counter.increment, buy=2)

    run(main())
    assert [options["timeout"] for _, options in client.deliveries[3:5]] == [5.0, None]
    assert [options["no_delay"] for _, options in client.deliveries[:5]] == [True, True, True, True, False]
    assert client.deliveries[-1][1]["no_delay"] is True


def test_life() -> None:
    client = LocalClient()
    proxy = AsyncPagletProxy("http://host:1", "a", client)
    there = AsyncPagletProxy("http://other:2", "b", client)
    ticket = TransferTicket("beta")

    async def main() -> None:
        assert await proxy.dispatch("beta") == there
        assert await proxy.clone(ticket) == there
        assert await proxy.activate() == there
        assert await proxy.deactivate(reason="rest", policy=DeactivationPolicy(), metadata={"k": 1}) == there
        await proxy.dispose()

    run(main())
    assert [operation for operation, _ in client.operations] == [
        "dispatch",
        "clone",
        "activate",
        "deactivate",
        "dispose",
    ]
    assert client.operations[1][1] == {"ticket": ticket.to_wire()}
    assert client.operations[3][1]["request"]["source"] == "external"


@pytest.mark.parametrize("declined", [False, True])
def test_send_artifact(host: MemoryHost, source: Path, declined: bool) -> None:
    if declined:
        host.answer("POST", "/agents/a/messages", {"error_type": "NotHandledError", "error": "no"}, "422 No")
    else:
        host.answer("POST", "/agents/a/messages", {"result": "thanks"})

    async def main() -> Any:
        async with AsyncHostClient() as client:
            proxy = AsyncPagletProxy(host.url, "a", client)
            return await proxy.send_artifact(Message("take"), source, move=True)

    if declined:
        with pytest.raises(errors.NotHandledError):
            run(main())
    else:
        assert run(main()) == "thanks"
    assert source.exists() is declined
    assert len(host.refs) == (0 if declined else 1)
