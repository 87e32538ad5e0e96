"""Both clients follow paglets over real connections: hosts move them, vanish, come back, and break connections."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paglets.core import errors
from paglets.core.messages import FUTURE, FutureReply, Message
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.remote.pursuit import NotConnectedError
from tests.remote.scripted import Received, ScriptedHost, reply, response
from tests.support import eventually

BAD_GATEWAY = response(b"<html>gone</html>", "502 Bad Gateway")
OnMessage = Callable[[dict[str, Any]], bytes | None]


def refusal(kind: str, text: str = "no", status: str = "400 Bad Request") -> bytes:
    return reply({"error_type": kind, "error": text}, status)


UNKNOWN = refusal("InvalidAgentError", "no such paglet", "404 Not Found")


class Place(ScriptedHost):
    """A host with one paglet, `p`: what it does with messages, and what it says of where the paglet is."""

    def __init__(self, on_message: OnMessage | bytes | None = None) -> None:
        super().__init__(self._route)
        self.on_message = on_message
        self.other: dict[str, Callable[[], bytes | None]] = {}
        self.messages: list[dict[str, Any]] = []

    def _route(self, request: Received, _connection: socket.socket) -> bytes | None:
        path = request.target.removeprefix("/agents/p")
        if path == "/messages":
            self.messages.append(request.json)
            return self.on_message(request.json) if callable(self.on_message) else self.on_message
        act = self.other.get(path)
        if act is not None:
            return act()
        return UNKNOWN if path == "/location" else refusal("NotFoundError", "no such route", "404 Not Found")

    def says(self, **whereabouts: Any) -> None:
        """Say where the paglet is when asked."""
        answer = {"agent_id": "p", "host_url": None, "epoch": 1, "home": None, "here": False, "ended": False}
        self.other["/location"] = lambda: reply(answer | whereabouts)

    @property
    def attempts(self) -> list[int]:
        return [body.get("attempt", 1) for body in self.messages]


def result(value: Any = "done", **more: Any) -> bytes:
    return reply({"result": value, **more})


def one_after_another(*answers: bytes | None) -> OnMessage:
    """Return what gives these answers, the last one for ever; None breaks the connection."""
    left = list(answers)
    return lambda _body: left.pop(0) if len(left) > 1 else left[0]


def nobody() -> str:
    """Return the URL of a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class Client:
    """The synchronous client, or the asynchronous one behind the same methods."""

    def __init__(self, made: HostClient | AsyncHostClient) -> None:
        self.made = made
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.made, name)

        def call(*arguments: Any, **options: Any) -> Any:
            value = method(*arguments, **options)
            return self._runner.run(self._turn(value)) if asyncio.iscoroutine(value) else value

        return call if callable(method) else method

    @staticmethod
    async def _turn(coroutine: Any) -> Any:
        """Let the loop, which stands still between calls, hear of the connections that ended meanwhile."""
        for _ in range(3):
            await asyncio.sleep(0)
        return await coroutine

    def send(self, url: str, *, timeout: float = 10.0, **options: Any) -> Any:
        return self.deliver(url, "p", Message("x", message_id="m1"), timeout=timeout, **options)

    def close(self) -> None:
        if isinstance(self.made, AsyncHostClient):
            self._runner.run(self.made.aclose())
        else:
            self.made.close()
        self._runner.close()


@pytest.fixture(params=[HostClient, AsyncHostClient], ids=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    made = Client(request.param())
    yield made
    made.close()


# --- what an error says about the request -----------------------------------------------------------------------------


def test_a_request_that_was_never_sent_is_told_from_one_that_may_have_arrived(client: Client) -> None:
    with pytest.raises(errors.HostUnreachableError, match="Could not reach") as unsent:
        client.post_json(nobody() + "/x", {})
    assert type(unsent.value) is NotConnectedError
    for url in ("http://host.invalid/", "https://127.0.0.1:1/"):
        with pytest.raises(errors.HostUnreachableError):
            client.get_json(url)
    with Place() as host, pytest.raises(errors.ConnectionLostError, match="Lost the connection"):
        client.post_json(host.url + "/agents/p/messages", {"message": {}})
    cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nabc"
    for answer in (cut, BAD_GATEWAY, response(b"", "503 Busy"), response(b"", "504 Late")):
        with ScriptedHost(answer) as host, pytest.raises(errors.ConnectionLostError):
            client.post_json(host.url, {})


def test_an_answer_of_the_host_itself_is_neither(client: Client) -> None:
    for answer, expected in (
        (refusal("OverloadedError", status="503 Service Unavailable"), errors.OverloadedError),
        (refusal("RemoteHostError"), errors.RemoteHostError),
        (response(b"{nope"), errors.RemoteHostError),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", errors.RemoteHostError),
    ):
        with ScriptedHost(answer) as host, pytest.raises(errors.PagletError) as caught:
            client.post_json(host.url, {})
        assert type(caught.value) is expected


def test_an_error_about_another_host_keeps_its_class_but_is_not_the_client_s_own(client: Client) -> None:
    with ScriptedHost(refusal("HostUnreachableError", "cannot pass it on")) as host:
        with pytest.raises(errors.HostUnreachableError) as caught:
            client.post_json(host.url, {})
        assert type(caught.value) is errors.HostUnreachableError


# --- messages ---------------------------------------------------------------------------------------------------------


def test_the_time_that_is_left_travels_along_but_not_with_one_way_messages(client: Client) -> None:
    with Place(result()) as host:
        client.send(host.url, timeout=7.5)
        client.send(host.url, timeout=1e9)
        client.send(host.url, timeout=7.5, oneway=True)
    assert [body.get("timeout") for body in host.messages] == [7.5, 86400.0, None]
    assert not any({"attempt", "chain", "hops"} & body.keys() for body in host.messages)


def test_a_paglet_that_moved_is_asked_at_its_new_place_from_then_on(client: Client) -> None:
    with Place(result("there")) as new, Place(result("moved", location=new.url + "/")) as old:
        assert client.send(old.url) == "moved"
        assert [client.send(old.url), client.send(old.url + "/")] == ["there", "there"]
        assert (len(old.messages), len(new.messages)) == (1, 2)


def test_the_home_is_asked_when_the_host_is_gone(client: Client) -> None:
    with Place(result("home")) as home:
        with Place(result("first", home=home.url)) as host:
            assert client.send(host.url) == "first"
        assert client.send(host.url) == "home"
        assert client.send(host.url) == "home"
    assert home.attempts == [1, 1]
    assert {body["message"]["message_id"] for body in home.messages} == {"m1"}


def test_a_connection_that_breaks_after_the_message_repeats_it(client: Client) -> None:
    with Place(one_after_another(None, BAD_GATEWAY, result())) as host:
        assert client.send(host.url) == "done"
    assert host.attempts == [1, 2, 3]
    assert len({body["message"]["message_id"] for body in host.messages}) == 1
    assert host.messages[0]["timeout"] > host.messages[1]["timeout"] > host.messages[2]["timeout"] > 5


def test_a_kept_connection_that_breaks_repeats_it_too(client: Client) -> None:
    with Place(one_after_another(result(1), None, result(2))) as host:
        assert [client.send(host.url, oneway=True), client.send(host.url, oneway=True)] == [1, 2]
    assert host.attempts == [1, 1, 2]


def test_a_host_that_breaks_every_connection_ends_with_the_time(client: Client) -> None:
    with Place(None) as host, pytest.raises(errors.RemoteTimeoutError):
        client.send(host.url, timeout=1.5)
    assert host.attempts == list(range(1, len(host.attempts) + 1))
    assert len(host.attempts) > 2


def test_a_host_without_the_paglet_says_where_it_went(client: Client) -> None:
    with Place(result("there")) as new, Place(UNKNOWN) as old:
        old.says(host_url=new.url, epoch=4)
        assert client.send(old.url) == "there"
        assert client.send(old.url) == "there"
        assert (len(old.messages), len(new.messages)) == (1, 2)
    assert new.attempts == [2, 1]


def test_a_host_that_forgot_the_paglet_is_passed_over_for_the_home(client: Client) -> None:
    with Place(result("home")) as home, Place(one_after_another(result("first", home=home.url), UNKNOWN)) as host:
        assert [client.send(host.url), client.send(host.url)] == ["first", "home"]
    assert home.attempts == [1], "a host that never heard of it handled nothing"


def test_an_unknown_paglet_is_unknown_at_once(client: Client) -> None:
    with Place(UNKNOWN) as host, pytest.raises(errors.InvalidAgentError, match="no such paglet"):
        client.send(host.url)
    assert len(host.messages) == 1


def test_a_handler_that_speaks_of_another_paglet_is_not_asked_twice(client: Client) -> None:
    with Place(result("home")) as home, Place(one_after_another(result(1, home=home.url), UNKNOWN)) as host:
        host.says(host_url=host.url, here=True)
        client.send(host.url)
        with pytest.raises(errors.InvalidAgentError):
            client.send(host.url)
    assert (len(host.messages), len(home.messages)) == (2, 0)


def test_a_host_that_cannot_pass_a_message_on_is_passed_over(client: Client) -> None:
    with Place(result("direct")) as new, Place(result("via", location=new.url)) as old:
        client.send(old.url)
        new.on_message = refusal("HostUnreachableError", "cannot reach the next one")
        assert client.send(old.url) == "via"


def test_a_definite_error_is_not_repeated(client: Client) -> None:
    with Place(result("home")) as home:
        kinds = ("NotHandledError", "PagletCrashedError", "RemoteHostError", "RemoteTimeoutError", "OverloadedError")
        answers = [refusal(kind) for kind in kinds]
        with Place(one_after_another(result(1, home=home.url), *answers)) as host:
            client.send(host.url)
            for kind in kinds:
                with pytest.raises(getattr(errors, kind)):
                    client.send(host.url)
            assert len(host.messages) == 1 + len(kinds)
        assert not home.messages


def test_two_dead_hosts_are_an_error_that_says_nothing_was_sent(client: Client) -> None:
    with Place() as home, Place(result(1, home=home.url)) as host:
        client.send(host.url)
    with pytest.raises(errors.HostUnreachableError):
        client.send(host.url, timeout=0.4)


def test_a_wrong_url_is_an_error_long_before_the_time_is_over(client: Client) -> None:
    # The limit of the whole test run is shorter than this timeout.
    with pytest.raises(errors.HostUnreachableError, match="Could not reach"):
        client.send(nobody(), timeout=86_400.0)


def test_a_host_that_had_the_paglet_is_waited_for(client: Client) -> None:
    with Place(result("before")) as host:
        client.send(host.url)
    back = Place(result("after"))
    port = int(host.url.rpartition(":")[2])
    returned: list[Any] = []

    def come_back() -> None:
        back._listener.close()
        back._listener = socket.create_server(("127.0.0.1", port))
        returned.append(back.__enter__())

    # Longer than a client looks for a host that it never met.
    timer = threading.Timer(0.8, come_back)
    timer.start()
    try:
        assert client.send(host.url, timeout=30.0) == "after"
    finally:
        timer.join(10)
        for place in returned:
            place.__exit__(None, None, None)
    assert back.attempts == [1]


def test_a_host_that_takes_no_connection_does_not_take_all_of_the_time(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, Place(result("home")) as home:
        address = listener.getsockname()
        url = f"http://{address[0]}:{address[1]}"
        # One connection fills the queue of the listener; the next one gets no answer at all.
        fillers = [socket.socket() for _ in range(3)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            client.made.routes.learn("p", url, url, home.url)
            assert client.send(url, timeout=5.0) == "home"
        finally:
            for filler in fillers:
                filler.close()
        assert home.attempts == [1]


def test_no_answer_in_time_ends_it(client: Client) -> None:
    release = threading.Event()
    with Place(result("home")) as home:

        def silent(_body: dict[str, Any]) -> bytes | None:
            release.wait(10)
            return None

        with Place(result(1, home=home.url)) as host:
            client.send(host.url)
            host.on_message = silent
            try:
                with pytest.raises(errors.RemoteTimeoutError):
                    client.send(host.url, timeout=0.2)
            finally:
                release.set()
        assert not home.messages


def test_namesakes_are_never_mixed_up(client: Client) -> None:
    with Place(result("one")) as one:
        with Place(result("two")) as two:
            assert [client.send(one.url), client.send(two.url), client.send(one.url)] == ["one", "two", "one"]
        with pytest.raises(errors.HostUnreachableError):
            client.send(two.url, timeout=0.3)
    assert len(one.messages) == 2


# --- operations -------------------------------------------------------------------------------------------------------


def test_a_move_teaches_every_proxy_of_the_paglet(client: Client) -> None:
    with Place(result("there")) as new, Place(UNKNOWN) as old:
        old.other["/dispatch"] = lambda: reply({"proxy": {"host_url": new.url, "agent_id": "p"}})
        client.operate(old.url, "p", "dispatch", {"target": new.url})
        assert client.send(old.url) == "there"
        assert not old.messages


def test_an_operation_follows_the_paglet(client: Client) -> None:
    proxy = {"proxy": {"host_url": "http://else:1", "agent_id": "p"}}
    with Place() as new, Place() as old:
        old.says(host_url=new.url, epoch=2)
        old.other["/dispatch"] = old.other[""] = lambda: UNKNOWN
        new.other["/dispatch"] = lambda: reply(proxy)
        new.other[""] = lambda: reply({"active": True})
        assert client.agent_info(old.url, "p") == {"active": True}
        assert client.operate(old.url, "p", "dispatch", {"target": "x"}) == proxy


def test_an_operation_that_may_have_been_carried_out_is_not_repeated(client: Client) -> None:
    with Place() as host:
        for operation in ("dispatch", "clone", "retract", "deactivate", "dispose"):
            host.other[f"/{operation}"] = lambda: None
            with pytest.raises(errors.ConnectionLostError):
                client.operate(host.url, "p", operation, {})
        assert len(host.requests) == 5


def test_an_activation_is_repeated(client: Client) -> None:
    answers = [None, None, reply({"proxy": {"host_url": "http://x:1", "agent_id": "p"}})]
    with Place() as host:
        host.other["/activate"] = lambda: answers.pop(0)
        assert client.operate(host.url, "p", "activate", {})["proxy"]["agent_id"] == "p"
        assert len(host.requests) == 3


def test_looking_at_a_paglet_of_a_dead_host_does_not_wait(client: Client) -> None:
    with Place(result()) as host:
        client.send(host.url)
    with pytest.raises(errors.HostUnreachableError):
        client.agent_info(host.url, "p")
    with pytest.raises(errors.HostUnreachableError):
        client.operate(host.url, "p", "dispose", {}, timeout=86_400.0)


def test_an_ended_paglet_is_forgotten(client: Client) -> None:
    with Place(result("home")) as home, Place(result(1, home=home.url)) as host:
        client.send(host.url)
        host.other["/dispose"] = lambda: reply({"ok": True})
        client.operate(host.url, "p", "dispose", {})
        assert client.made.routes.statistics().routes == 0


def test_a_created_paglet_is_one_that_was_found(client: Client) -> None:
    with ScriptedHost(
        lambda _request, _connection: reply({"proxy": {"host_url": "http://x:1", "agent_id": "q"}})
    ) as host:
        client.post_json(host.url + "/agents", {"agent_class_name": "m:C"})
        client.post_pickle(host.url + "/agents", {"agent_class_name": "m:C"})
    assert client.made.routes.find("q", "http://x:1") is not None


# --- taking messages back ---------------------------------------------------------------------------------------------


class Mailbox(Place):
    """A host whose paglet is busy for as long as nobody withdraws the message, or for ever."""

    def __init__(self, *, withdrawable: bool = True) -> None:
        super().__init__(self._wait)
        self._withdrawable = withdrawable
        self._released = threading.Event()
        self.other["/messages/m1/cancel"] = self._cancel
        self.cancelled: list[bool] = []

    def _wait(self, _body: dict[str, Any]) -> bytes:
        assert self._released.wait(10)
        return refusal("MessageCancelledError", "withdrawn", "409 Conflict") if self._withdrawable else result("late")

    def _cancel(self) -> bytes:
        self.cancelled.append(self._withdrawable)
        self._released.set()
        return reply({"cancelled": self._withdrawable})


def send_future(client: HostClient, url: str) -> FutureReply:
    return PagletProxy(url, "p", client).send_future(Message("x", message_type=FUTURE, message_id="m1"))


def test_a_message_that_waits_for_its_handler_is_withdrawn() -> None:
    with Mailbox() as host, HostClient() as client:
        future = send_future(client, host.url)
        eventually(lambda: host.messages, "the message arrived")
        assert future.cancel()
        with pytest.raises(errors.MessageCancelledError, match="withdrawn"):
            future.get_reply(10)
        assert not future.cancel(), "it has ended"


def test_a_message_that_is_being_handled_is_not_withdrawn() -> None:
    with Mailbox(withdrawable=False) as host, HostClient() as client:
        host.says(host_url=host.url, here=True)
        future = send_future(client, host.url)
        eventually(lambda: host.messages, "the message arrived")
        assert not future.cancel()
        assert future.get_reply(10) == "late"
        assert not future.cancel()


@pytest.mark.parametrize("said", [reply({"cancelled": False}), UNKNOWN])
def test_a_message_is_withdrawn_where_it_was_passed_on_to(said: bytes) -> None:
    with Mailbox() as new, Place(lambda _body: UNKNOWN) as old, HostClient() as client:
        old.says(host_url=new.url, epoch=2)
        old.other["/messages/m1/cancel"] = lambda: said
        future = send_future(client, old.url)
        eventually(lambda: new.messages, "the message arrived")
        assert future.cancel()
        with pytest.raises(errors.MessageCancelledError):
            future.get_reply(10)


def test_a_message_whose_host_is_gone_is_withdrawn_before_it_is_sent() -> None:
    with HostClient(timeout=60.0) as client:
        with Place(result()) as host:
            client.deliver(host.url, "p", Message("x"))
        future = send_future(client, host.url)
        eventually(future.cancel, "the message rests between two attempts")
        with pytest.raises(errors.MessageCancelledError):
            future.get_reply(10)


def test_a_message_that_may_have_arrived_is_not_given_up_as_withdrawn() -> None:
    with HostClient(timeout=0.6) as client:
        with Place(None) as host:
            future = send_future(client, host.url)
            eventually(lambda: len(host.messages) > 1, "the message was repeated")
            assert not future.cancel()
        with pytest.raises(errors.RemoteTimeoutError):
            future.get_reply(10)


def test_cancelling_a_task_withdraws_its_message() -> None:
    async def main(url: str) -> None:
        async with AsyncHostClient() as client:
            task = asyncio.create_task(client.deliver(url, "p", Message("x", message_id="m1")))
            await asyncio.to_thread(eventually, lambda: host.messages, "the message arrived")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # Leaving the block waits for the withdrawal, which is bounded.

    with Mailbox() as host:
        asyncio.run(main(host.url))
        assert host.cancelled == [True]


def test_cancelling_a_one_way_message_leaves_it_where_it_is() -> None:
    release = threading.Event()

    def accept(_body: dict[str, Any]) -> bytes:
        release.wait(10)
        return result(None)

    async def main(url: str) -> None:
        async with AsyncHostClient() as client:
            task = asyncio.create_task(client.deliver(url, "p", Message("x", message_id="m1"), oneway=True))
            await asyncio.to_thread(eventually, lambda: host.messages, "the message arrived")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with Place(accept) as host:
        try:
            asyncio.run(main(host.url))
        finally:
            release.set()
        assert [request.target for request in host.requests] == ["/agents/p/messages"]


def test_hosts_deliver_on_behalf_of_others() -> None:
    from paglets.core.terms import DeliveryTerms
    from paglets.remote.requests import Parcel

    async def main(url: str) -> dict[str, Any]:
        async with AsyncHostClient() as client:
            terms = DeliveryTerms(attempt=3, chain=("a", "b"), hops=2)
            return await client.deliver_parcel(url, "p", Parcel(Message("x")), terms, timeout=5.0)

    with Place(one_after_another(None, result(1, location="http://x:1", home="http://h:1"))) as host:
        assert asyncio.run(main(host.url)) == {"result": 1, "location": "http://x:1", "home": "http://h:1"}
    assert host.attempts == [3, 4]
    assert [(body["chain"], body["hops"]) for body in host.messages] == [(["a", "b"], 2)] * 2
