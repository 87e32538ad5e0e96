"""Emptying a host: what moves, what sleeps, what stays and why, and that it can be undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import ConflictError, HostError, PagletError, TransferError
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.runtime.host import Host
from tests.agents.actor import Actor, ActorState
from tests.agents.hardy import Hardy, HardyState, do
from tests.agents.unruly import Unruly
from tests.runtime.test_mesh_hosts import QUIET, acquaint
from tests.support import Gate, HostFactory, events_of, eventually


def drained(host: Host, **options: Any) -> dict[str, Any]:
    host.drain(**options)
    eventually(lambda: not host.drain_status()["running"], "everyone to be seen to")
    return host.drain_status()


def ids(entries: list[dict[str, str]]) -> set[str]:
    return {entry["agent_id"] for entry in entries}


def test_everything_moves_to_the_other_hosts_of_the_mesh(hosts: HostFactory) -> None:
    alpha, beta, gamma = hosts("alpha", **QUIET), hosts("beta", **QUIET), hosts("gamma", **QUIET)
    acquaint(alpha, beta, gamma)
    proxies = [alpha.create(Hardy) for _ in range(6)]
    report = drained(alpha)
    assert (report["draining"], report["total"], report["asleep"], report["stayed"]) == (True, 6, [], [])
    assert ids(report["moved"]) == {proxy.agent_id for proxy in proxies}
    assert {entry["host_url"] for entry in report["moved"]} == {beta.address, gamma.address}
    assert [beta.agent_counts()[0], gamma.agent_counts()[0]] == [3, 3]
    assert [proxy.send(do("count 1")) for proxy in proxies] == [1] * 6
    assert alpha.health()["draining"] is True
    assert [event.kind for event in events_of(alpha, "drain-start", "drain-end")] == ["drain-start", "drain-end"]


def test_a_draining_host_takes_nothing_in_until_that_is_undone(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    traveller = beta.create(Hardy)
    drained(alpha, to=[])
    with pytest.raises(HostError, match="draining"):
        alpha.create(Hardy)
    with pytest.raises(PagletError, match="draining"):
        beta.create_remote(alpha.address, Hardy)
    with pytest.raises(TransferError, match="draining"):
        traveller.dispatch(alpha.address)
    assert traveller.send(do("count 1")) == 1
    assert alpha.undrain()["draining"] is False
    assert "draining" not in alpha.health()
    assert traveller.dispatch(alpha.address).send(do("count 1")) == 2
    assert alpha.create(Hardy).is_active()


def test_what_no_host_takes_sleeps_and_says_why(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    drained(beta, to=[])
    proxy = alpha.create(Hardy)
    report = drained(alpha, to=[beta.address])
    (entry,) = report["asleep"]
    assert entry["agent_id"] == proxy.agent_id
    assert "draining" in entry["reason"]
    assert alpha.agent_counts() == (0, 1)


def test_who_sleeps_is_not_woken_before_the_end_of_the_drain(hosts: HostFactory) -> None:
    host = hosts("alpha")
    proxy = host.create(Hardy)
    timed = host.create(Actor)
    drained(host, to=[])
    proxy.send_oneway(do("count 7"))
    assert proxy.send(do("count 1"))["queued"] is True
    request = DeactivationRequest(policy=DeactivationPolicy.after(0.05))
    host.activate(timed.agent_id)  # whoever asks for it by hand gets it
    timed.deactivate(policy=request.policy)
    eventually(lambda: timed.agent_id in host._node.wakeups._put_off, "its time to come")
    assert host.agent_counts() == (0, 2)
    host.undrain()
    eventually(
        lambda: proxy.is_active() and host.get_state(proxy.agent_id, HardyState).count == 8, "the messages that waited"
    )
    eventually(lambda: timed.is_active(), "the one whose time had come")


def test_what_can_go_nowhere_stays_and_is_named(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts("alpha")
    refuses = host.create(Actor, ActorState(plan={"deactivating": ["fail no"]}))
    busy, hold = host.create(Hardy), Gate(tmp_path, "hold")
    reply = busy.send_future(do(f"gate {hold}", "count 1"))
    hold.await_entered()
    crashed = host.create(Unruly)
    with pytest.raises(PagletError):
        crashed.call(Unruly.drop_dead, 3)
    report = drained(host, to=[], timeout=1.5)
    reasons = {entry["agent_id"]: entry["reason"] for entry in report["stayed"]}
    assert reasons.keys() == {refuses.agent_id, busy.agent_id, crashed.agent_id}
    assert "no" in reasons[refuses.agent_id]
    assert "crashed" in reasons[crashed.agent_id]
    hold.open()
    assert reply.get_reply(10) == 1
    report = drained(host, to=[])  # what stayed is tried again
    assert ids(report["asleep"]) == {busy.agent_id, refuses.agent_id}


def test_one_drain_at_a_time_and_not_to_itself(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts("alpha")
    proxy, hold = host.create(Hardy), Gate(tmp_path, "hold")
    reply = proxy.send_future(do(f"gate {hold}"))
    hold.await_entered()
    with pytest.raises(HostError, match="itself"):
        host.drain([host.address])
    assert host.drain_status()["draining"] is False
    host.drain([])
    with pytest.raises(ConflictError, match="already"):
        host.drain([])
    host.undrain()  # in the middle of it
    hold.open()
    reply.get_reply(10)
    assert host.drain_status()["draining"] is False
    assert proxy.send(do("count 1")) == 1
