"""The home host of a paglet learns where it is, whatever it missed meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from paglets.core.errors import InvalidAgentError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from tests.agents.clerk import Clerk, LightClerk
from tests.faults.cluster import Cluster
from tests.runtime.delivery import await_known, deliver_at, note, where_is
from tests.support import HostFactory, eventually, free_port

CLERK = "tests.agents.clerk:Clerk"

every_class = pytest.mark.parametrize("agent_class", [Clerk, LightClerk], ids=["message", "checkpoint"])


@every_class
def test_the_home_knows_every_move_and_the_end(hosts: HostFactory, agent_class: type[Any]) -> None:
    alpha, beta, gamma = (hosts(name) for name in ("alpha", "beta", "gamma"))
    made = alpha.create(agent_class)
    agent_id = made.agent_id
    with HostClient() as client:
        said = client.locate(alpha.address, agent_id)
        assert (said["here"], said["home"], said["host_url"]) == (True, alpha.address, alpha.address)
        alpha.dispatch(agent_id, beta.address)
        await_known(client, alpha.address, agent_id, beta.address)
        beta.dispatch(agent_id, gamma.address)
        await_known(client, alpha.address, agent_id, gamma.address)
        said = client.locate(alpha.address, agent_id)
        assert (said["here"], said["ended"], said["home"]) == (False, False, alpha.address)
        # Whoever had it knows the home too.
        for host in (beta, gamma):
            assert client.locate(host.address, agent_id)["home"] == alpha.address
        gamma.deactivate(agent_id)
        assert where_is(client, alpha.address, agent_id) == gamma.address
        gamma.activate(agent_id)
        gamma.dispose(agent_id)
        said = eventually(lambda: ended_at(client, alpha.address, agent_id), "the end is known")
        assert (said["here"], said["host_url"]) == (False, None)
        for host in (alpha, beta):
            with pytest.raises(InvalidAgentError, match="has ended"):
                deliver_at(client, host.address, agent_id, note("gone"))


def ended_at(client: HostClient, host_url: str, agent_id: str) -> dict[str, Any] | None:
    said = client.locate(host_url, agent_id)
    return said if said["ended"] else None


def test_a_paglet_that_comes_home_is_here_and_nowhere_else(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    made = alpha.create(LightClerk)
    with HostClient() as client:
        for _ in range(2):
            alpha.dispatch(made.agent_id, beta.address)
            await_known(client, alpha.address, made.agent_id, beta.address)
            beta.dispatch(made.agent_id, alpha.address)
            assert client.locate(alpha.address, made.agent_id)["here"]
            assert where_is(client, beta.address, made.agent_id) == alpha.address
        # It may end by itself, too, and as a sleeper.
        alpha.dispatch(made.agent_id, beta.address)
        beta.deactivate(made.agent_id)
        beta.dispose(made.agent_id)
        eventually(lambda: ended_at(client, alpha.address, made.agent_id), "the end is known")


def test_the_home_of_a_copy_is_where_it_begins(hosts: HostFactory) -> None:
    alpha, beta, gamma = (hosts(name) for name in ("alpha", "beta", "gamma"))
    made = alpha.create(LightClerk)
    copy = made.clone(beta.address)
    with HostClient() as client:
        assert client.locate(beta.address, copy.agent_id)["home"] == beta.address
        beta.dispatch(copy.agent_id, gamma.address)
        await_known(client, beta.address, copy.agent_id, gamma.address)
        with pytest.raises(InvalidAgentError):
            client.locate(alpha.address, copy.agent_id)
        assert client.locate(alpha.address, made.agent_id)["here"]


def test_a_home_that_was_away_hears_what_it_missed(hosts: HostFactory) -> None:
    alpha, beta, gamma = (hosts(name) for name in ("alpha", "beta", "gamma"))
    moved, ended = alpha.create(LightClerk), alpha.create(LightClerk)
    for proxy in (moved, ended):
        alpha.dispatch(proxy.agent_id, beta.address)
    port = alpha.port
    alpha.shutdown()
    for proxy in (moved, ended):
        beta.dispatch(proxy.agent_id, gamma.address)
    gamma.dispose(ended.agent_id)
    alpha = hosts("alpha", port=port)
    with HostClient() as client:
        await_known(client, alpha.address, moved.agent_id, gamma.address)
        eventually(lambda: ended_at(client, alpha.address, ended.agent_id), "the end is known")


def test_a_host_that_comes_back_at_another_address_is_found_through_the_home(hosts: HostFactory) -> None:
    alpha, beta, gamma = (hosts(name) for name in ("alpha", "beta", "gamma"))
    made = alpha.create(Clerk)
    alpha.dispatch(made.agent_id, beta.address)
    beta.dispatch(made.agent_id, gamma.address)
    with HostClient() as client:
        await_known(client, alpha.address, made.agent_id, gamma.address)
        gamma.shutdown()
        gamma = hosts("gamma", port=free_port())
        await_known(client, alpha.address, made.agent_id, gamma.address)
        # By the home itself, and by a host that has nothing but a forwarder to the former address.
        for number, host in enumerate((alpha, beta), start=1):
            assert deliver_at(client, host.address, made.agent_id, note(host.name))["result"] == number


def test_news_for_a_home_outlive_those_who_have_them(cluster: Cluster) -> None:
    alpha, beta, gamma = cluster.start("alpha", "beta", "gamma")
    agent_id = cluster.create(alpha, CLERK)
    client = cluster.client
    client.operate(alpha.url, agent_id, "dispatch", {"target": beta.url})
    alpha.kill()
    client.operate(beta.url, agent_id, "dispatch", {"target": gamma.url})
    gamma.kill()
    cluster.start_all([alpha, gamma])
    await_known(client, alpha.url, agent_id, gamma.url)
    beta.kill()
    assert deliver_at(client, alpha.url, agent_id, note("home"))["result"] == 1
    assert PagletProxy(gamma.url, agent_id, client).send(Message("book")) == ["home"]
