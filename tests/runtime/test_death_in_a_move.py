"""The process of a paglet dies at its old host while it moves: who decides is the move, not the restart."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from paglets.core.errors import TransferError
from tests.agents.hardy import HardyState, LivelyCareful, RestartedCareful, do
from tests.support import Gate, HostFactory, await_event, eventually, where


@pytest.mark.parametrize("paglet", [RestartedCareful, LivelyCareful])
def test_a_move_goes_on_without_the_process_it_left(
    hosts: HostFactory, gate: Gate, paglet: type[RestartedCareful]
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(paglet, HardyState(plan={"arrival": [f"gate {gate}"]}))
    process = proxy.info()["pid"]
    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(proxy.dispatch, beta.address)
        gate.await_entered()
        os.kill(process, signal.SIGKILL)
        await_event(alpha, "paglet-crashed", agent_id=proxy.agent_id)
        gate.open()
        moved = moving.result(20)
    assert moved.host_url == beta.address
    moved.send(do("count 1"))
    assert where(proxy, alpha, beta) == ["beta"]
    assert [row["agent_id"] for row in alpha.list_agents(active=True, inactive=True)] == []
    alpha.stop()
    again = hosts("alpha", port=alpha.port)
    assert again.list_agents(active=True, inactive=True) == []
    assert beta.get_state(proxy.agent_id, HardyState).count == 1


def test_a_paglet_is_restarted_when_its_move_is_called_off(hosts: HostFactory, gate: Gate) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(RestartedCareful, HardyState(plan={"arrival": [f"gate {gate}", "die 3"]}))
    process = proxy.info()["pid"]
    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(proxy.dispatch, beta.address)
        gate.await_entered()
        os.kill(process, signal.SIGKILL)
        await_event(alpha, "paglet-crashed", agent_id=proxy.agent_id)
        gate.open()
        with pytest.raises(TransferError):
            moving.result(20)
    eventually(lambda: alpha.get_proxy(proxy.agent_id), "the paglet to be started again")
    proxy.send(do("count 1"))
    assert where(proxy, alpha, beta) == ["alpha"]


def test_a_handler_that_moves_its_paglet_within_its_host_is_not_run_again(hosts: HostFactory, gate: Gate) -> None:
    alpha = hosts("alpha")
    proxy = alpha.create(RestartedCareful, HardyState(plan={"arrival": [f"gate {gate}"]}))
    process = proxy.info()["pid"]
    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(proxy.send, do("count 1", f"dispatch {alpha.address}"), timeout=20.0)
        gate.await_entered()
        os.kill(process, signal.SIGKILL)
        await_event(alpha, "paglet-crashed", agent_id=proxy.agent_id)
        gate.open()
        assert moving.result(20) == proxy.to_wire()
    proxy.send(do("count 10"))
    assert alpha.get_state(proxy.agent_id, HardyState).count == 11
