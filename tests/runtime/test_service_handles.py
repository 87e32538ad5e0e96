"""Handles and pools of services when providers move, sleep, end, or are killed with their host."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paglets.core.context import PagletContext
from paglets.core.errors import (
    ConnectionLostError,
    InvalidAgentError,
    OutcomeUnknownError,
    PagletCrashedError,
    PagletInactiveError,
    RemoteTimeoutError,
    ServiceContractError,
    ServiceNotFoundError,
)
from paglets.core.policies import DeactivationPolicy
from paglets.core.runtime_values import ServiceScope
from paglets.protocol.membership import HostRef
from paglets.remote.aio import AsyncHostClient
from paglets.remote.calls import CallOptions
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.services.contracts import ServiceContract, ServiceHandle, ServiceOperation, StreamOperation
from paglets.services.directory import ServiceDirectory
from paglets.services.pool import RetryPolicy
from tests.agents.feeds import AGAIN, FEED, FLOW, ONCE, WHO, Count, Feed, FeedState, Reader, Work
from tests.support import Gate, HostFactory, await_event


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
        for summary in host.list_agents(active=True, inactive=True):
            host.proxy_for(host.address, summary["agent_id"]).dispose()


@pytest.fixture
def far(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Give the address of a host in a process of its own, and the process."""
    command = [sys.executable, "-m", "tests.runtime.other_host", "far", str(tmp_path / "far")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def handle_on(host: Host, scope: ServiceScope = ServiceScope.MESH) -> ServiceHandle:
    return PagletContext(host).require_contract(FEED, scope=scope)


def kill(host: Host, proxy: PagletProxy) -> None:
    os.kill(host.agent_summary(proxy.agent_id)["pid"], signal.SIGKILL)
    await_event(host, "paglet-crashed", agent_id=proxy.agent_id)


def test_the_first_record_is_the_first_one_found(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    feeds = [alpha.create(Feed), alpha.create(Feed), beta.create(Feed)]
    handles = PagletContext(alpha).lookup_contracts(FEED, scope=ServiceScope.MESH)
    assert [handle.record.proxy.agent_id for handle in handles] == [feed.agent_id for feed in feeds]
    assert [handle.call(WHO).agent_id for handle in handles] == [feed.agent_id for feed in feeds]
    assert handles[0] == ServiceHandle(FEED, handles[0].record, alpha.client)


def test_a_handle_stays_with_its_provider_when_that_moves_or_sleeps(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    feed = alpha.create(Feed)
    beta.create(Feed)
    handle = handle_on(alpha)
    feed = feed.dispatch(beta.address)
    assert (handle.call(WHO).host, handle.call(WHO).agent_id) == ("beta", feed.agent_id)
    feed.deactivate()
    assert handle.call(WHO).agent_id == feed.agent_id


def test_when_the_provider_has_ended_another_one_is_called(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    feed, other = alpha.create(Feed), beta.create(Feed)
    handle = handle_on(alpha)
    feed.dispose()
    assert handle.call(WHO).agent_id == other.agent_id
    assert handle.provider.proxy.agent_id == other.agent_id
    assert handle.record.proxy.agent_id == feed.agent_id
    handle.send_oneway(WHO)
    assert handle.call(WHO).calls == 3
    other.dispose()
    with pytest.raises(InvalidAgentError):
        handle.call(WHO)
    third = beta.create(Feed)
    assert handle.call(WHO).agent_id == third.agent_id


def test_one_that_sleeps_and_may_not_be_woken_is_passed_over(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    feed, other = alpha.create(Feed), beta.create(Feed)
    handle = handle_on(alpha)
    feed.deactivate()
    assert handle.call(WHO, activate_if_inactive=False).agent_id == other.agent_id


def test_a_call_of_one_that_sleeps_is_an_error_and_not_made_later(two: tuple[Host, Host]) -> None:
    alpha, _ = two
    feed = alpha.create(Feed)
    looked_up = handle_on(alpha, ServiceScope.LOCAL)
    by_hand = ServiceHandle(FEED, looked_up.record, alpha.client)

    async def ask_elsewhere() -> None:
        async with AsyncHostClient() as client:
            handle = replace(by_hand, context_or_client=client)
            with pytest.raises(PagletInactiveError):
                await handle.acall(WHO)
            with pytest.raises(PagletInactiveError):
                await anext(handle.astream(FLOW, Count(3)))

    feed.deactivate()
    for handle in (looked_up, by_hand):
        with pytest.raises(PagletInactiveError, match="neither wake it nor wait"):
            handle.call(WHO, activate_if_inactive=False)
        with pytest.raises(PagletInactiveError):
            asyncio.run(handle.acall(WHO, activate_if_inactive=False))
    feed.activate()
    feed.deactivate(policy=DeactivationPolicy(activate_on_message=False))
    for handle in (looked_up, by_hand):
        with pytest.raises(PagletInactiveError):
            handle.call(WHO)
        with pytest.raises(PagletInactiveError):
            next(handle.stream(FLOW, Count(3)))
    asyncio.run(ask_elsewhere())
    by_hand.send_oneway(WHO)
    feed.activate()
    assert by_hand.call(WHO).calls == 2
    assert feed.call(Feed.counts) == [0, 0]


def test_a_handle_made_by_hand_calls_its_provider_and_no_other(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    feed = alpha.create(Feed)
    beta.create(Feed)
    by_hand = ServiceHandle(FEED, handle_on(alpha).record, alpha.client)
    assert asyncio.run(by_hand.acall(WHO)).agent_id == feed.agent_id
    feed.dispose()
    with pytest.raises(InvalidAgentError):
        by_hand.call(WHO)
    with pytest.raises(InvalidAgentError):
        asyncio.run(by_hand.acall(WHO))
    with pytest.raises(InvalidAgentError):
        next(by_hand.stream(FLOW, Count(3)))


def test_a_provider_that_had_crashed_is_passed_over(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    feed, other = alpha.create(Feed), beta.create(Feed)
    handle = handle_on(alpha)
    with HostClient() as client:
        outside = ServiceDirectory(alpha.address, client).require_contract(FEED, scope=ServiceScope.MESH)
        kill(alpha, feed)
        assert handle.call(ONCE).agent_id == other.agent_id
        assert outside.call(ONCE).agent_id == other.agent_id
    with pytest.raises(PagletCrashedError) as caught:
        feed.call(Feed.counts)
    assert caught.value.refused


@pytest.mark.parametrize("where", ["alpha", "beta"])
def test_a_provider_killed_in_the_middle_of_a_call(two: tuple[Host, Host], where: str, tmp_path: Path) -> None:
    alpha, beta = two
    feed = (alpha if where == "alpha" else beta).create(Feed)
    handle = handle_on(alpha)
    other = beta.create(Feed)
    with pytest.raises(OutcomeUnknownError, match="may have been carried out"):
        handle.call(ONCE, Work(kill=True, marker=str(tmp_path / "once")))
    assert feed.agent_id == handle.record.proxy.agent_id
    assert handle.call(ONCE).agent_id == other.agent_id


def test_an_idempotent_operation_is_repeated_elsewhere(two: tuple[Host, Host], tmp_path: Path) -> None:
    alpha, beta = two
    alpha.create(Feed)
    handle = handle_on(alpha)
    other = beta.create(Feed)
    assert handle.call(AGAIN, Work(kill=True, marker=str(tmp_path / "again"))).agent_id == other.agent_id
    alpha.create(Feed)
    handle = handle_on(alpha)
    work = Work(kill=True, marker=str(tmp_path / "async"))
    assert asyncio.run(handle.acall(AGAIN, work)).agent_id == other.agent_id


def test_a_paglet_is_told_the_same(two: tuple[Host, Host], tmp_path: Path) -> None:
    alpha, beta = two
    reader = beta.create(Reader)
    alpha.create(Feed)
    caught = reader.call(Reader.risk, False, str(tmp_path / "once"))
    assert caught == "nobody knows"
    survivor = alpha.create(Feed)
    beta.create(Feed)  # the nearest, and the first to be found
    assert reader.call(Reader.risk, True, str(tmp_path / "again")) == survivor.agent_id


def test_a_host_that_is_killed(two: tuple[Host, Host], far: tuple[str, subprocess.Popen[str]]) -> None:
    alpha, _ = two
    address, process = far
    remote = alpha.create_remote(address, Feed)
    with HostClient(timeout=20.0) as client:
        handle = ServiceDirectory(address, client).require_contract(FEED)
        assert handle.call(WHO).agent_id == remote.agent_id
        items = handle.stream(FLOW, Count(1000))
        assert next(items).number == 0
        alpha.mesh.register(HostRef.from_wire(client.get_json(f"{address}/health")))
        known = ServiceDirectory(alpha.address, client).require_contract(FEED, scope=ServiceScope.MESH)
        assert known.record.host_name == "far"
        local = alpha.create(Feed)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        with pytest.raises(Exception, match="lost its provider after 8 items"):
            list(items)
        # Nobody can have had this one: it goes on at the other.
        assert known.call(ONCE).agent_id == local.agent_id
        alpha.mesh.mark_offline(address, "killed")


@pytest.mark.parametrize("caller", ["outside", "paglet"])
def test_a_call_that_is_under_way_when_its_host_is_killed_ends_long_before_its_time(
    two: tuple[Host, Host], far: tuple[str, subprocess.Popen[str]], tmp_path: Path, caller: str
) -> None:
    alpha, _ = two
    address, process = far
    alpha.create_remote(address, Feed)
    gate = Gate(tmp_path)
    reader = alpha.create(Reader)
    with HostClient(timeout=600.0) as client, ThreadPoolExecutor(1) as pool:
        handle = ServiceDirectory(address, client).require_contract(FEED)
        work = Work(marker=str(gate), wait=True)
        if caller == "outside":
            answer: Future[Any] = pool.submit(lambda: handle.call(ONCE, work))
        else:
            ask = reader.with_options(CallOptions(timeout=600.0)).call
            answer = pool.submit(lambda: ask(Reader.wait_for, handle.record.to_wire(), str(gate)))
        gate.await_entered()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        gate.open()
        # The calls have ten minutes; the test has not.
        if caller == "outside":
            with pytest.raises(OutcomeUnknownError, match="may have been carried out") as caught:
                answer.result(60)
            assert isinstance(caught.value, ConnectionLostError)
        else:
            assert answer.result(60) == "lost"


def test_a_handle_with_another_client_calls_over_that(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    feed, other = alpha.create(Feed), beta.create(Feed)
    with HostClient(timeout=5.0) as first, HostClient(timeout=6.0) as second:
        handle = ServiceDirectory(alpha.address, first).require_contract(FEED, scope=ServiceScope.MESH)
        feed.dispose()
        assert handle.call(WHO).agent_id == other.agent_id
        changed = replace(handle, context_or_client=second)
        assert changed.provider == handle.provider
        first.close()
        assert changed.call(WHO).agent_id == other.agent_id
        third = beta.create(Feed)
        other.dispose()
        assert changed.call(WHO).agent_id == third.agent_id  # it is found over the second client as well
        back = replace(changed, record=handle.record)
        assert back.provider == changed.provider
        assert replace(changed, record=changed.provider).provider == changed.provider

        async def call() -> str:
            async with AsyncHostClient() as client:
                own = replace(changed, context_or_client=client)
                third.dispose()
                alpha.create(Feed)
                return (await own.acall(WHO)).host

        assert asyncio.run(call()) == "alpha"


def test_a_contract_is_asked_for_by_one_of_its_streams(two: tuple[Host, Host]) -> None:
    alpha, _ = two
    alpha.create(Feed)
    context = PagletContext(alpha)
    handle = context.require_contract(FEED, operation=FLOW)
    assert [item.number for item in handle.stream(FLOW, Count(2))] == [0, 1]
    with pytest.raises(ServiceContractError, match="Stream 'other' is no part of contract"):
        context.require_contract(FEED, operation=StreamOperation("other"))
    with pytest.raises(ServiceContractError, match="Operation 'other' is no part of contract"):
        context.lookup_contract(FEED, operation=ServiceOperation("other"))


def test_a_pool_asks_the_nearest_and_spreads_among_those(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    far = [beta.create(Feed).agent_id for _ in range(2)]
    pool = PagletContext(alpha).service(FEED, scope=ServiceScope.MESH)
    assert set(Counter(pool.call(WHO).agent_id for _ in range(30))) == set(far)
    near = [alpha.create(Feed).agent_id for _ in range(2)]
    pool.refresh()
    assert {record.proxy.agent_id for record in pool.providers} == {*near, *far}
    assert set(Counter(pool.call(WHO).agent_id for _ in range(30))) == set(near)
    assert {item.number for item in pool.stream(FLOW, Count(5))} == set(range(5))
    assert asyncio.run(pool.acall(WHO)).host == "alpha"


def test_a_pool_goes_around_those_that_fail(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    feeds = [alpha.create(Feed) for _ in range(2)]
    other = beta.create(Feed)
    pool = PagletContext(alpha).service(FEED, scope=ServiceScope.MESH, policy=RetryPolicy(attempts=5))
    pool.call(WHO)
    for feed in feeds:
        kill(alpha, feed)
    assert {pool.call(ONCE).agent_id for _ in range(10)} == {other.agent_id}


def test_a_pool_in_a_paglet(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    near = {beta.create(Feed).agent_id for _ in range(3)}
    alpha.create(Feed)
    assert set(beta.create(Reader).call(Reader.spread, 40)) == near


def test_a_pool_that_nobody_serves(two: tuple[Host, Host]) -> None:
    alpha, beta = two
    beta.create(Feed, FeedState(scope="local"))
    with pytest.raises(ServiceNotFoundError, match=r"no provider of contract 'tests\.feed' version 1 found"):
        PagletContext(alpha).service(FEED, scope=ServiceScope.MESH).call(WHO)
    newer = ServiceContract(FEED.name, (*FEED.operations, ServiceOperation("more")), streams=FEED.streams)
    with HostClient() as client:
        directory = ServiceDirectory(beta.address, client)
        assert directory.require_contract(FEED).call(WHO).host == "beta"
        assert directory.service(FEED).call(WHO).host == "beta"
        with pytest.raises(ServiceNotFoundError):
            directory.require_contract(newer)


def test_time_that_is_over_is_told_as_that(two: tuple[Host, Host], tmp_path: Path) -> None:
    alpha, _ = two
    alpha.create(Feed)
    os.mkfifo(tmp_path / "gate")
    handle = handle_on(alpha)
    with handle.stream(FLOW, Count(3)) as items:
        assert next(items).number == 0
    with pytest.raises(RemoteTimeoutError):
        handle.call(ONCE, Work(marker=str(tmp_path / "gate"), wait=True), timeout=1.0)
    (tmp_path / "gate").write_bytes(b"")
