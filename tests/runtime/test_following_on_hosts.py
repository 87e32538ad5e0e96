"""Proxies made long ago, against hosts that paglets have left, that died, and that came back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from paglets.core.errors import HostUnreachableError, InvalidAgentError, MessageCancelledError
from paglets.core.messages import Message
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from tests.agents.actor import Actor, ActorState
from tests.support import Gate, HostFactory, eventually


def far(proxy: PagletProxy, client: HostClient) -> PagletProxy:
    """Return the proxy as another program has it."""
    return PagletProxy(proxy.host_url, proxy.agent_id, client)


@pytest.mark.parametrize("near", [True, False], ids=["local client", "http client"])
def test_a_proxy_follows_its_paglet_and_then_goes_there_directly(hosts: HostFactory, near: bool) -> None:
    alpha, beta, gamma = hosts("alpha"), hosts("beta"), hosts("gamma")
    made = alpha.create(Actor, ActorState(count=1))
    with HostClient() as client:
        proxy = made if near else far(made, client)
        assert proxy.send(Message("add")) == 2
        alpha.dispatch(made.agent_id, beta.address)
        assert proxy.send(Message("add")) == 3
        route = proxy.client.routes.find(made.agent_id, alpha.address)
        assert route is not None
        assert route.url == beta.address
        beta.dispatch(made.agent_id, gamma.address)
        assert proxy.send(Message("add")) == 4
        assert proxy.client.routes.best(made.agent_id, alpha.address)[0] == gamma.address
        assert proxy.host_url == alpha.address


def test_operations_and_looks_follow_too(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    made = alpha.create(Actor, ActorState(count=1))
    alpha.dispatch(made.agent_id, beta.address)
    with HostClient() as client:
        proxy = far(made, client)
        assert proxy.is_active()
        assert proxy.deactivate().host_url == beta.address
        assert not proxy.is_active()
        assert proxy.activate().host_url == beta.address
        assert proxy.dispatch(alpha.address).host_url == alpha.address
        assert proxy.send(Message("add")) == 2
        proxy.dispose()
        with pytest.raises(InvalidAgentError):
            proxy.send(Message("add"))


def test_a_coroutine_follows_its_paglet(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    made = alpha.create(Actor, ActorState(count=1))

    async def main() -> None:
        async with AsyncHostClient() as client:
            proxy = made.aio(client)
            assert await proxy.send(Message("add")) == 2
            await asyncio.to_thread(alpha.dispatch, made.agent_id, beta.address)
            assert await proxy.send(Message("add")) == 3
            assert client.routes.best(made.agent_id, alpha.address)[0] == beta.address

    asyncio.run(main())


def test_the_home_knows_the_way_when_the_host_in_between_is_gone(hosts: HostFactory) -> None:
    alpha, beta, gamma = hosts("alpha"), hosts("beta"), hosts("gamma")
    made = alpha.create(Actor, ActorState(count=1))
    with HostClient() as client:
        proxy = far(made, client)
        alpha.dispatch(made.agent_id, beta.address)
        assert proxy.send(Message("add")) == 2
        beta.dispatch(made.agent_id, gamma.address)
        eventually(
            lambda: client.locate(alpha.address, made.agent_id)["host_url"] == gamma.address, "news of the move at home"
        )
        beta.stop()
        assert proxy.send(Message("add")) == 3
        assert client.routes.best(made.agent_id, alpha.address)[0] == gamma.address


def test_a_message_to_a_host_that_restarts_is_not_lost(hosts: HostFactory) -> None:
    alpha = hosts("alpha")
    port = alpha.port
    made = alpha.create(Actor, ActorState(count=1))
    with HostClient(timeout=30.0) as client:
        proxy = far(made, client)
        assert proxy.send(Message("add")) == 2
        alpha.shutdown()
        future = proxy.send_future(Message("add"))
        hosts("alpha", port=port)
        assert future.get_reply(30) == 3


def test_a_stopped_host_of_this_program_is_not_waited_for(hosts: HostFactory) -> None:
    alpha = hosts("alpha")
    proxy = alpha.create(Actor, ActorState())
    proxy.send(Message("add"))
    alpha.stop()
    alpha.client.timeout = 86_400.0
    with pytest.raises(HostUnreachableError):
        proxy.send(Message("add"))


@pytest.mark.parametrize("near", [True, False], ids=["local client", "http client"])
def test_a_message_is_withdrawn_from_the_mailbox(hosts: HostFactory, gate: Gate, near: bool) -> None:
    alpha = hosts("alpha")
    made = alpha.create(Actor, ActorState(count=1))
    with HostClient() as client:
        proxy = made if near else far(made, client)
        busy = proxy.send_future(Message("do", {"steps": f"gate {gate}"}))
        gate.await_entered()
        waiting = proxy.send_future(Message("add"))
        eventually(lambda: alpha.mailbox_status(made.agent_id)["queued_count"] == 1, "the message waits")
        assert not busy.cancel()
        assert waiting.cancel()
        with pytest.raises(MessageCancelledError):
            waiting.get_reply(10)
        gate.open()
        busy.get_reply(10)
        assert proxy.send(Message("add")) == 2


def test_a_cancelled_task_withdraws_its_message(hosts: HostFactory, gate: Gate) -> None:
    alpha = hosts("alpha")
    made = alpha.create(Actor, ActorState(count=1))

    async def main() -> None:
        async with AsyncHostClient() as client:
            proxy = made.aio(client)
            busy = proxy.send_future(Message("do", {"steps": f"gate {gate}"}))
            await asyncio.to_thread(gate.await_entered)
            waiting = proxy.send_future(Message("add"))
            await until(lambda: alpha.mailbox_status(made.agent_id)["queued_count"] == 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: alpha.mailbox_status(made.agent_id)["queued_count"] == 0)
            gate.open()
            await busy
            assert await proxy.send(Message("add")) == 2

    async def until(look: Callable[[], Any]) -> None:
        await asyncio.to_thread(eventually, look, "the mailbox")

    asyncio.run(main())
