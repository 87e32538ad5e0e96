"""Typed handlers and ``async def``, with real processes in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import HostError, NotHandledError, RemoteHostError, SerializationError, TransferError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import CallOptions, PagletProxy
from tests.agents.typed import Asynchronous, AsyncRouter, Colour, Extended, Point, Typed, TypedState
from tests.support import Gate, HostFactory, events_of, eventually, free_port, processes_of, where


def both_ways(proxy: PagletProxy) -> list[PagletProxy]:
    return [proxy, PagletProxy(proxy.host_url, proxy.agent_id, HostClient())]


# --- types -------------------------------------------------------------------------------------------------------


def test_arguments_and_results_are_what_the_annotations_say(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Typed)
    for way in both_ways(proxy):
        assert way.call(Typed.put, "a", Point(1, 2), Colour.BLUE) == Point(2, 1)
        assert way.call(Typed.put, name="b", point=Point(3)) == Point(0, 3)
        assert way.call(Typed.all) == {"a": Point(1, 2), "b": Point(3, 0)}
        assert way.call(Typed.with_a_kind, (1, 2, 3), flag=True) == (6, True)
        assert way.call(Typed.data, b"\x00\xff") == b"\xff\x00"
        assert way.call(Typed.tag, {"x", "y"}) == {"x", "y"}
        assert way.call(Typed.nothing) is None
        assert way.call(Typed.counted) == 0
        assert way.with_options(CallOptions(timeout=5)).call(Typed.data, b"ab") == b"ba"
    state = host.get_state(proxy.agent_id, TypedState)
    assert (state.points["a"], state.tags, state.colour) == (Point(1, 2), {"x", "y"}, Colour.RED)


def test_messages_reach_typed_handlers_too(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Typed)
    assert proxy.send(Message("put", {"name": "a", "point": {"x": 1}, "colour": "blue"})) == {"x": 0, "y": 1}
    assert proxy.send(Message("renamed", {"values": [1, 2]})) == [3, False]
    assert proxy.send(Message("data", arg=b"ab")) == b"ba"
    assert proxy.send(Message("whole", {"extra": 2}, priority=7)) == "whole:7:2"
    with pytest.raises(NotHandledError, match="with_a_kind"):
        proxy.send(Message("with_a_kind", {"values": []}))


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (Message("put", {"name": "a"}), "point"),
        (Message("put", {"name": 3, "point": {"x": 1}}), "name"),
        (Message("put", {"name": "a", "point": {"x": "one"}}), "x"),
        (Message("put", {"name": "a", "point": {"x": 1}, "colour": "green"}), "colour"),
        (Message("put", {"name": "a", "point": {"x": 1}, "size": 1}), "size"),
        (Message("renamed", {"values": "abc"}), "values"),
    ],
)
def test_arguments_that_do_not_fit_are_named_and_the_handler_does_not_run(
    hosts: HostFactory, message: Message, named: str
) -> None:
    host = hosts()
    proxy = host.create(Typed)
    for way in both_ways(proxy):
        with pytest.raises(SerializationError, match=named):
            way.send(message)
    assert host.get_state(proxy.agent_id, TypedState).points == {}


def test_a_call_that_is_wrong_here_does_not_leave(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Typed)
    before = host.mailbox_status(proxy.agent_id)
    with pytest.raises(TypeError):
        proxy.call(Typed.put, "a")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        proxy.call(TypedState)
    assert host.mailbox_status(proxy.agent_id) == before
    with pytest.raises(SerializationError, match="point"):
        proxy.call(Typed.put, "a", "no point")  # type: ignore[arg-type]
    assert host.get_state(proxy.agent_id, TypedState).points == {}
    with pytest.raises(SerializationError):
        proxy.call(Typed.wrong_reply)


def test_an_override_answers_in_place_of_its_base(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Extended)
    assert proxy.call(Typed.put, "a", Point(1, 2)) == Point(4, 2)
    assert proxy.call(Extended.more) == "more"
    with pytest.raises(NotHandledError):
        host.create(Typed).call(Extended.more)


def test_one_way_calls_return_at_once_and_fail_as_events(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Typed)
    proxy.call_oneway(Typed.put, "a", Point(1))
    proxy.send_oneway(Message("put", {"name": "a"}))
    eventually(lambda: events_of(host, "message-failed"), "the failure")
    assert host.get_state(proxy.agent_id, TypedState).points == {"a": Point(1)}


# --- async def ---------------------------------------------------------------------------------------------------


def log_of(host: object, proxy: PagletProxy) -> list[str]:
    return host.get_state(proxy.agent_id, TypedState).log  # type: ignore[attr-defined, no-any-return]


def test_asynchronous_handlers_answer_like_plain_ones(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Asynchronous)
    for way in both_ways(proxy):
        assert way.call(Asynchronous.add, Point(1), 0.01) == Point(2, 1)
        assert way.call(Asynchronous.many, 5) == 15
        with pytest.raises(RemoteHostError, match="asynchronously"):
            way.call(Asynchronous.fails)
    assert proxy.call(Asynchronous.loop_thread) == ["paglet-coroutines"] * 2
    router = host.create(AsyncRouter)
    assert router.send(Message("echo", {"a": 1})) == {"a": 1}
    with pytest.raises(NotHandledError):
        router.send(Message("nonsense"))


def test_asynchronous_handlers_of_one_paglet_do_not_overlap(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Asynchronous)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda number: proxy.call(Asynchronous.add, Point(number), 0.005), range(8)))
    assert [reply.x for reply in replies] == list(range(1, 9))
    assert host.mailbox_status(proxy.agent_id)["in_flight_count"] == 0


def test_asynchronous_hooks_run_in_their_places(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Asynchronous)
    copy = proxy.clone()
    assert log_of(alpha, copy) == ["creation", "run", "cloning", "clone", "run"]
    moved = proxy.dispatch(beta.address)
    home = alpha.retract(beta.address, moved.agent_id)
    home.deactivate(reason="rest")
    assert home.send(Message("keep", {"tag": "t"}))["queued"] is True
    home.activate()
    assert log_of(alpha, home)[2:] == [
        "cloning",
        "cloned",
        "dispatching",
        "arrival",
        "run",
        "reverting",
        "arrival",
        "run",
        "policy rest",
        "deactivating",
        "activation",
        "run",
    ]
    home.call(Asynchronous.keep, "stay")
    with pytest.raises(HostError, match="stays"):
        home.dispose()
    home.dispose()
    assert not home.is_valid()


@pytest.mark.parametrize("way", [Asynchronous.go, Asynchronous.go_in_thread])
@pytest.mark.parametrize("target", ["same host", "other host"])
def test_an_asynchronous_handler_moves_its_paglet(hosts: HostFactory, target: str, way: Any) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    host = alpha if target == "same host" else beta
    proxy = alpha.create(Asynchronous)
    wire = proxy.call(way, host.address)
    assert wire == {"host_url": host.address, "agent_id": proxy.agent_id}
    assert where(proxy, alpha, beta) == [host.name]
    eventually(lambda: log_of(host, proxy)[2:] == ["dispatching", "arrival", "run"], "the hooks")
    eventually(lambda: len(processes_of("alpha")) == (target == "same host"), "the old process to end")


def test_an_asynchronous_handler_asks_everything_for_its_paglet(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Asynchronous)
    assert proxy.call(Asynchronous.ask_self_in_thread) == "CallCycleError"
    copy = PagletProxy.from_wire(proxy.call(Asynchronous.copy), host.client)
    assert log_of(host, copy)[-3:] == ["cloning", "clone", "run"]
    assert proxy.call(Asynchronous.sleep_now) == proxy.to_wire()
    assert proxy.is_state(False)
    proxy.activate()
    assert proxy.call(Asynchronous.try_go, f"http://127.0.0.1:{free_port()}") == "TransferError"
    assert log_of(host, proxy)[-1] == "still here"
    assert proxy.call(Asynchronous.end) == "ended"
    assert not proxy.is_valid()
    with pytest.raises(TransferError):
        copy.dispatch(f"http://127.0.0.1:{free_port()}")


def test_a_task_that_outlives_its_handler_waits_for_the_one_that_runs_then(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts()
    first, second = Gate(tmp_path, "first"), Gate(tmp_path, "second")
    proxy = host.create(Asynchronous)
    proxy.call(Asynchronous.leave_task, str(first))
    first.await_entered()
    reply = proxy.send_future(Message("hold", {"path": str(second)}))
    second.await_entered()
    first.open()
    eventually(lambda: host._node.kernel.agents.require(proxy.agent_id).lock.locked(), "the task to ask for a clone")
    assert len(host.get_proxies()) == 1
    second.open()
    assert reply.get_reply(10) == "held"
    eventually(lambda: len(host.get_proxies()) == 2, "the clone")
    assert "held" in log_of(host, next(other for other in host.get_proxies() if other.agent_id != proxy.agent_id))


def test_an_asynchronous_run_moves_its_paglet(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Asynchronous, TypedState(tags={beta.address}))
    assert proxy.host_url == beta.address
    assert log_of(beta, proxy) == ["creation", "run", "leaving", "dispatching", "arrival", "run"]
