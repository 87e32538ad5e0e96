"""Streams of services: between paglets, from outside, on one host and on two, and what becomes of them when one end
goes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.core.context import PagletContext
from paglets.core.errors import (
    NotHandledError,
    OverloadedError,
    RemoteHostError,
    RemoteTimeoutError,
    ServiceContractError,
    StreamInterruptedError,
)
from paglets.core.messages import Message
from paglets.core.runtime_values import ServiceScope
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from paglets.services.contracts import ServiceContract, ServiceHandle, ServiceOperation, StreamOperation
from paglets.services.directory import AsyncServiceDirectory, ServiceDirectory
from paglets.services.streams.serving import MOST_STREAMS
from tests.agents.feeds import (
    BRIEF,
    BRIEF_FLOW,
    FEED,
    FLOW,
    TURNS,
    WHO,
    Count,
    DurableFeed,
    Feed,
    FeedState,
    Number,
    Reader,
)
from tests.support import Gate, HostFactory, await_event, eventually

BOTH = pytest.mark.parametrize("stream", [TURNS, FLOW], ids=["turns", "flow"])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    """Give two hosts that know each other, the same to all tests of this module."""
    factory = HostFactory(tmp_path_factory.mktemp("two"))
    try:
        options: dict[str, Any] = {"mesh_multicast": False, "mesh_lan_discovery": False, "mesh_offline_after": 600.0}
        alpha, beta = factory("alpha", **options), factory("beta", **options)
        alpha.mesh.register_wire(beta.mesh.refresh_self().to_wire())
        beta.mesh.register_wire(alpha.mesh.refresh_self().to_wire())
        yield alpha, beta
    finally:
        factory.close()


@pytest.fixture(autouse=True)
def _no_feed_stays(two: tuple[Host, Host]) -> Iterator[None]:
    yield
    for host in two:
        for proxy in host.get_proxies(0x3):
            proxy.dispose()


def handle_on(host: Host, scope: ServiceScope = ServiceScope.MESH) -> ServiceHandle:
    return PagletContext(host).require_contract(FEED, scope=scope)


def numbers(items: Any) -> list[int]:
    return [item.number for item in items]


@BOTH
def test_items_come_in_order_near_and_far(two: tuple[Host, Host], stream: StreamOperation[Count, Number]) -> None:
    alpha, beta = two
    feed = alpha.create(Feed)
    assert numbers(handle_on(alpha).stream(stream, Count(20))) == list(range(20))
    assert numbers(handle_on(beta).stream(stream, Count(20), window=3)) == list(range(20))
    assert numbers(handle_on(alpha).stream(stream, Count(0))) == []
    assert feed.call(Feed.counts) == [40, 3]


@pytest.mark.parametrize("name", ["turns", "flow"])
def test_paglets_read_streams_of_paglets(two: tuple[Host, Host], name: str) -> None:
    alpha, beta = two
    alpha.create(Feed)
    for host in (alpha, beta):
        reader = host.create(Reader)
        assert reader.call(Reader.read, name, 20) == list(range(20))
        assert reader.call(Reader.read, name, 1000, stop_after=5) == list(range(5))
        assert reader.call(Reader.aread, name, 20) == list(range(20))


def test_a_paglet_reads_several_streams_at_once(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    alpha.create(Feed)
    assert beta.create(Reader).call(Reader.both, 30) == [list(range(30))] * 3


@BOTH
def test_from_outside(two: tuple[Host, Host], stream: StreamOperation[Count, Number]) -> None:
    alpha, beta = two
    alpha.create(Feed)
    with HostClient() as client:
        handle = ServiceDirectory(beta.address, client).require_contract(FEED, scope=ServiceScope.MESH)
        content = [(item.number, len(item.content)) for item in handle.stream(stream, Count(20, size=1000))]
    assert content == [(number, 1000) for number in range(20)]

    async def main() -> list[int]:
        async with AsyncHostClient() as client:
            directory = AsyncServiceDirectory(beta.address, client)
            found = await directory.require_contract(FEED, scope=ServiceScope.MESH)
            assert (await found.acall(WHO)).host == "alpha"
            await found.asend_oneway(WHO)
            with pytest.raises(TypeError, match="use acall"):
                found.call(WHO)
            got = [item.number async for item in found.astream(stream, Count(20))]
            by_hand = ServiceHandle(FEED, found.record, client)
            assert [item.number async for item in by_hand.astream(stream, Count(20))] == got
            return got

    assert asyncio.run(main()) == list(range(20))


@BOTH
def test_other_messages_are_handled_between_items(
    two: tuple[Host, Host], stream: StreamOperation[Count, Number]
) -> None:
    alpha, _ = two
    feed = alpha.create(Feed)
    handle = handle_on(alpha)
    with handle.stream(stream, Count(100), window=2) as items:
        for number in range(10):
            assert next(items).number == number
            assert handle.call(WHO).calls == number + 1
        made, ended = feed.call(Feed.counts)
        # Not more than two windows: that which is read, and that which is made meanwhile.
        assert made <= 12
        assert ended == 0
    eventually(lambda: feed.call(Feed.counts)[1] == 1, "the generator to end")


def test_a_flow_that_waits_holds_nobody_up(two: tuple[Host, Host], gate: Gate) -> None:
    alpha, _ = two
    feed = alpha.create(Feed)
    handle = handle_on(alpha)
    with handle.stream(FLOW, Count(10, gate=str(gate), gate_at=3)) as items:
        assert [next(items).number for _ in range(3)] == [0, 1, 2]
        gate.await_entered()
        assert feed.call(Feed.counts) == [3, 0]
        gate.open()
        assert numbers(items) == list(range(3, 10))


def test_an_item_that_takes_too_long(two: tuple[Host, Host], gate: Gate) -> None:
    alpha, _ = two
    feed = alpha.create(Feed)
    handle = handle_on(alpha)
    items = handle.stream(FLOW, Count(10, gate=str(gate), gate_at=1), timeout=1.0)
    assert next(items).number == 0
    with pytest.raises(RemoteTimeoutError, match="after 1"):
        next(items)
    gate.open()
    eventually(lambda: feed.call(Feed.counts)[1] == 1, "the generator to end")
    with pytest.raises(StopIteration):
        next(items)


@BOTH
def test_what_the_generator_raises_comes_after_its_items(
    two: tuple[Host, Host], stream: StreamOperation[Count, Number]
) -> None:
    feed = two[0].create(Feed)
    for host in two:
        got = []
        with pytest.raises(RemoteHostError, match="no item 12"):
            for item in handle_on(host).stream(stream, Count(20, fail_at=12)):
                got.append(item.number)
        assert got == list(range(12))
    assert feed.call(Feed.counts)[1] == 2


@BOTH
def test_leaving_early_ends_the_generator(two: tuple[Host, Host], stream: StreamOperation[Count, Number]) -> None:
    alpha, beta = two
    feed = alpha.create(Feed)
    for item in handle_on(beta).stream(stream, Count(1000)):
        if item.number == 3:
            break
    eventually(lambda: feed.call(Feed.counts)[1] == 1, "the generator to end")

    async def main() -> None:
        async with handle_on(beta).astream(stream, Count(1000)) as items:
            async for item in items:
                if item.number == 3:
                    break

    asyncio.run(main())
    eventually(lambda: feed.call(Feed.counts)[1] == 2, "the generator to end")


def test_contract_errors_come_before_anything_is_sent(two: tuple[Host, Host]) -> None:
    alpha, _ = two
    feed = alpha.create(Feed)
    handle = handle_on(alpha)
    with pytest.raises(ServiceContractError, match="no part of contract"):
        handle.stream(StreamOperation("other"))
    with pytest.raises(ServiceContractError, match="must be a Count"):
        handle.stream(TURNS, Number(1))  # type: ignore[misc]  # that is the point
    with pytest.raises(ValueError, match="positive"):
        handle.stream(TURNS, Count(), window=0)
    with pytest.raises(ServiceContractError, match=r"use the stream\(\) of a handle"):
        feed.send(Message("turns", {"to": 3}))
    with pytest.raises(StreamInterruptedError):
        feed.send(Message("_stream", arg={"do": "next", "stream": "s", "credit": 1, "first": 0, "wait": 0}))
    with pytest.raises(NotHandledError):
        feed.send(Message("nothing"))


@pytest.mark.parametrize("stream", [BRIEF, BRIEF_FLOW], ids=["turns", "flow"])
def test_what_nobody_reads_ends(two: tuple[Host, Host], stream: StreamOperation[Count, Number]) -> None:
    alpha, _ = two
    feed = alpha.create(Feed)
    items = handle_on(alpha).stream(stream, Count(1000))
    assert next(items).number == 0
    eventually(lambda: feed.call(Feed.counts)[1] == 1, "the generator to end by itself")
    with pytest.raises(StreamInterruptedError, match=r"idle too long|no such stream"):
        list(items)


@pytest.mark.parametrize("name", ["turns", "flow"])
def test_the_generator_ends_when_its_reader_is_killed(
    two: tuple[Host, Host], name: str, gate: Gate, tmp_path: Path
) -> None:
    alpha, beta = two
    feed = alpha.create(Feed)
    reader = beta.create(Reader)
    trace = tmp_path / "trace"
    reading = reader.send_future(Message("read_for", {"name": name, "gate": str(gate), "trace": str(trace)}))
    gate.await_entered()
    os.kill(beta.agent_summary(reader.agent_id)["pid"], signal.SIGKILL)
    with pytest.raises(Exception, match=r"SIGKILL|killed"):
        reading.get_reply(10)
    eventually(lambda: feed.call(Feed.counts)[1] == 1, "the generator to end")
    assert "end" in trace.read_text()
    gate.open()


@BOTH
def test_a_provider_that_is_killed_interrupts_and_the_next_call_works(
    two: tuple[Host, Host], stream: StreamOperation[Count, Number]
) -> None:
    alpha, beta = two
    feed = alpha.create(Feed)
    handle = handle_on(beta)
    items = handle.stream(stream, Count(1000))
    assert next(items).number == 0
    other = beta.create(Feed)
    os.kill(alpha.agent_summary(feed.agent_id)["pid"], signal.SIGKILL)
    await_event(alpha, "paglet-crashed", agent_id=feed.agent_id)
    with pytest.raises(StreamInterruptedError, match=r"after 8 items|has left its process|has ended its streams"):
        list(items)
    assert handle.call(WHO).agent_id == other.agent_id
    assert numbers(handle.stream(stream, Count(3))) == [0, 1, 2]


@BOTH
@pytest.mark.parametrize("how", ["dispatch", "deactivate", "dispose"])
def test_a_provider_that_leaves_ends_its_streams_first(
    two: tuple[Host, Host], stream: StreamOperation[Count, Number], how: str, tmp_path: Path
) -> None:
    alpha, beta = two
    feed = alpha.create(Feed)
    trace = tmp_path / "trace"
    handle = handle_on(alpha)
    items = handle.stream(stream, Count(1000, trace=str(trace)), window=4)
    assert next(items).number == 0
    if how == "dispatch":
        feed.dispatch(beta.address)
    else:
        getattr(feed, how)()
    assert trace.read_text().endswith("end\n")
    with pytest.raises(StreamInterruptedError):
        list(items)
    if how != "dispose":
        # What the generator changed in its `finally` went along.
        assert feed.call(Feed.counts)[1] == 1
        assert numbers(handle.stream(stream, Count(3))) == [0, 1, 2]


@BOTH
def test_a_generator_that_moves_its_own_paglet(two: tuple[Host, Host], stream: StreamOperation[Count, Number]) -> None:
    alpha, beta = two
    feed = alpha.create(Feed)
    handle = handle_on(alpha)
    got = []
    with pytest.raises(StreamInterruptedError):
        for item in handle.stream(stream, Count(20, gate_at=3, go=beta.address), window=1):
            got.append(item.number)
    # The turn that moves it goes on to its end, like any handler that does, and nothing comes after it.
    assert got == list(range(len(got)))
    assert len(got) <= 4
    assert handle.call(WHO).host == "beta"
    assert feed.call(Feed.counts)[0] == 3


def test_a_clone_leaves_the_streams_alone(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    feed = alpha.create(Feed)
    items = handle_on(alpha).stream(TURNS, Count(20))
    assert next(items).number == 0
    feed.clone(beta.address)
    assert numbers(items) == list(range(1, 20))


def test_a_paglet_serves_so_many_streams_and_no_more(two: tuple[Host, Host]) -> None:
    alpha, _ = two
    alpha.create(Feed)
    handle = handle_on(alpha)
    opened = [handle.stream(TURNS, Count(100)) for _ in range(MOST_STREAMS)]
    assert {next(items).number for items in opened} == {0}
    with pytest.raises(OverloadedError, match="64 streams"):
        next(handle.stream(FLOW, Count(100)))
    opened[0].close()
    eventually(lambda: numbers(handle.stream(FLOW, Count(1))) == [0], "room for another")
    # Those that have ended are no burden.
    for _ in range(2 * MOST_STREAMS):
        assert numbers(handle.stream(FLOW, Count(1))) == [0]
    for items in opened:
        items.close()


@BOTH
def test_a_durable_provider(two: tuple[Host, Host], stream: StreamOperation[Count, Number]) -> None:
    alpha, beta = two
    feed = alpha.create(DurableFeed)
    assert numbers(handle_on(beta).stream(stream, Count(20))) == list(range(20))
    assert feed.call(Feed.counts) == [20, 1]


def test_large_items_come_whole(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    alpha.create(Feed)
    sizes = [len(item.content) for item in handle_on(beta).stream(TURNS, Count(4, size=600_000))]
    assert sizes == [600_000] * 4


def test_an_old_contract_does_not_match_one_with_streams(two: tuple[Host, Host]) -> None:
    alpha, _ = two
    alpha.create(Feed, FeedState(scope="local"))
    assert PagletContext(alpha).lookup_contract(ServiceContract(FEED.name, FEED.operations)) is None
    assert (
        PagletContext(alpha).lookup_contract(FEED, operation=ServiceOperation("who", reply_type=type(_who())))
        is not None
    )


def _who() -> Any:
    from tests.agents.feeds import Whoami

    return Whoami("", "", 0)
