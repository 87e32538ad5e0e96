"""Paglets that go from host to host, in both senses of going well."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paglets.core.agent import ACTIVE, INACTIVE
from paglets.core.errors import (
    HostError,
    LifecycleError,
    PagletCrashedError,
    PagletError,
    TransferError,
)
from paglets.core.messages import Message
from paglets.core.runtime_values import ArrivalMode
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.remote.transfer import TransferTicket
from paglets.runtime.host import Host
from tests.agents.actor import Actor, ActorState, Quiet
from tests.remote.scripted import Received, ScriptedHost, reply, response
from tests.support import (
    Gate,
    HostFactory,
    await_event,
    events_of,
    eventually,
    free_port,
    leftovers,
    processes_of,
    where,
)

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024


def state_of(host: Host, proxy: PagletProxy) -> ActorState:
    return host.get_state(proxy.agent_id, ActorState)


def planned(**plan: str) -> ActorState:
    return ActorState(plan={hook: [steps] for hook, steps in plan.items()})


@contextmanager
def other_process(tmp_path: Path, name: str, *allow: str, importable: bool = True) -> Iterator[str]:
    """Run a host in another process and give its address."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), *([str(ROOT)] if importable else [])])
    script = Path(__file__).with_name("other_host.py")
    process = subprocess.Popen(
        [sys.executable, "-P", str(script), name, str(tmp_path / f"process-{name}"), *allow],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.stdout.close()
        assert process.wait(15) == 0


# --- moves that go well ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["host", "proxy", "far proxy", "handler"])
def test_a_moved_paglet_is_where_it_went_and_nowhere_else(hosts: HostFactory, by: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, ActorState(count=1))
    move: dict[str, Callable[[], Any]] = {
        "host": lambda: alpha.dispatch(proxy.agent_id, beta.address + "/").to_wire(),
        "proxy": lambda: proxy.dispatch(beta.address).to_wire(),
        "far proxy": lambda: PagletProxy(*proxy.to_wire().values(), HostClient()).dispatch(beta.address).to_wire(),
        "handler": lambda: proxy.send(Message("do", {"steps": f"dispatch {beta.address}"})),
    }
    moved = PagletProxy.from_wire(move[by](), alpha.client)
    assert moved.to_wire() == {"host_url": beta.address, "agent_id": proxy.agent_id}
    state = state_of(beta, moved)
    assert state.log == ["creation", "run", "dispatching", "arrival", "run"]
    assert state.places == ["alpha", "alpha", "alpha", "beta", "beta"]
    for event, here in ((state.events[1], alpha), (state.events[2], beta)):
        assert event["reason"] == "dispatch"
        assert (event["source_host_name"], event["source_host_address"]) == ("alpha", alpha.address)
        assert (event["target_host_name"], event["target_host_address"]) == ("beta", beta.address)
        assert (event["host_name"], event["agent_id"]) == (here.name, proxy.agent_id)
    assert where(moved, alpha, beta) == ["beta"]
    assert alpha.get_proxy(proxy.agent_id) is None
    assert proxy.send(Message("add")) == 2  # the old proxy follows
    assert moved.send(Message("add")) == 3
    eventually(lambda: not processes_of("alpha"), "the old process to end")
    assert [event.kind for event in events_of(alpha, agent_id=proxy.agent_id) if "message" not in event.kind] == [
        "create",
        "dispatch",
    ]
    (left,) = events_of(alpha, "dispatch")
    assert (left.data["target"]["name"], left.data["target"]["address"]) == ("beta", beta.address)
    (arrived,) = events_of(beta, "arrival")
    assert (arrived.agent_id, arrived.data["kind"]) == (proxy.agent_id, "dispatch")


def test_a_retracted_paglet_comes_home(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    away = alpha.create(Actor).dispatch(beta.address)
    home = alpha.retract(beta.address, away.agent_id)
    assert home.to_wire() == {"host_url": alpha.address, "agent_id": away.agent_id}
    state = state_of(alpha, home)
    assert state.log[-3:] == ["reverting", "arrival", "run"]
    assert state.places[-3:] == ["beta", "alpha", "alpha"]
    assert [event["reason"] for event in state.events[-2:]] == ["retract", "retract"]
    assert where(home, alpha, beta) == ["alpha"]
    assert [event.data["kind"] for event in events_of(alpha, "arrival")] == ["retract"]
    assert len(events_of(beta, "retract")) == 1


def test_a_clone_on_another_host_is_a_paglet_of_its_own(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    original = alpha.create(Actor, ActorState(count=1))
    copy = original.clone(beta.address)
    assert copy.host_url == beta.address
    assert copy.agent_id != original.agent_id
    assert original.send(Message("add", {"by": 5})) == 6
    assert copy.send(Message("add", {"by": 1})) == 2
    assert state_of(beta, copy).places == ["alpha", "alpha", "alpha", "beta", "beta"]
    assert state_of(alpha, original).log == ["creation", "run", "cloning", "cloned"]
    (source,) = events_of(alpha, "clone")
    assert source.data["clone_agent_id"] == copy.agent_id
    (target,) = events_of(beta, "clone")
    assert target.data["source_agent_id"] == original.agent_id


def test_a_move_to_the_same_host_starts_the_paglet_again_without_the_network(
    hosts: HostFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = hosts()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(host.client, "post_pickle", forbidden)
    proxy = host.create(Actor)
    first = proxy.send(Message("look"))["pid"]
    same = host.dispatch(proxy.agent_id, host.address)
    assert same.to_wire() == proxy.to_wire()
    look = proxy.send(Message("look"))
    assert look["pid"] != first
    assert look["log"] == ["creation", "run", "dispatching", "arrival", "run"]
    assert proxy.send(Message("do", {"steps": f"dispatch {host.address}"})) == proxy.to_wire()
    assert state_of(host, proxy).log[-3:] == ["dispatching", "arrival", "run"]
    assert host.clone(proxy.agent_id, target=host.address).is_active()
    assert host.retract(host.address, proxy.agent_id).to_wire() == proxy.to_wire()
    assert proxy.clone().is_active()
    assert host.health()["active_count"] == 3
    assert leftovers(host) == []
    eventually(lambda: len(processes_of("alpha")) == 3, "the earlier processes to end")


def test_moves_between_hosts_go_through_the_client_of_the_source(
    hosts: HostFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    urls: list[str] = []
    send = alpha.client.post_pickle

    def listening(url: str, *args: Any, **kwargs: Any) -> Any:
        urls.append(url)
        return send(url, *args, **kwargs)

    monkeypatch.setattr(alpha.client, "post_pickle", listening)
    proxy = alpha.create(Actor)
    alpha.clone(proxy.agent_id, target=beta.address)
    alpha.dispatch(proxy.agent_id, beta.address)
    alpha.create_remote(beta.address, Actor)
    assert urls == [f"{beta.address}/agents"] * 3


def test_a_large_state_survives_everything(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    blob = os.urandom(1024) * (16 * 1024)
    proxy = alpha.create(Actor, ActorState(blob=blob))
    copy = proxy.clone()
    far_copy = proxy.clone(beta.address)
    proxy = proxy.dispatch(beta.address)
    proxy.deactivate()
    proxy.activate()
    for host, held in ((alpha, copy), (beta, far_copy), (beta, proxy)):
        assert held.send(Message("look"))["size"] == 16 * MIB
        assert state_of(host, held).blob == blob
        held.dispose()


def test_a_large_state_can_be_created_elsewhere_through_a_client(hosts: HostFactory) -> None:
    from paglets.serialization.codec import dataclass_to_wire, qualified_name

    host = hosts()
    state = ActorState(blob=os.urandom(MIB))
    reply_ = HostClient().post_pickle(
        f"{host.address}/agents",
        {
            "agent_class_name": qualified_name(Actor),
            "state_class_name": qualified_name(ActorState),
            "state": dataclass_to_wire(state),
            "init": None,
            "agent_id": "large",
        },
    )
    assert reply_["proxy"] == {"host_url": host.address, "agent_id": "large"}
    assert host.get_state("large", ActorState).blob == state.blob
    shown = HostClient().get_json(f"{host.address}/agents/large/state")["state"]
    assert shown["blob"] == state.blob


# --- paglets that move themselves --------------------------------------------------------------------------------


def test_a_run_that_goes_on_over_three_hosts_ends_where_it_should(hosts: HostFactory) -> None:
    alpha, beta, gamma = hosts("alpha"), hosts("beta"), hosts("gamma")
    route = [beta, gamma, beta, alpha, gamma]
    state = ActorState(plan={"run": [f"dispatch {host.address}" for host in route]})
    proxy = alpha.create(Actor, state)
    assert proxy.host_url == gamma.address
    found = state_of(gamma, proxy)
    assert found.log == ["creation", "run", *["dispatching", "arrival", "run"] * 5]
    assert found.places[1::3] == ["alpha", "beta", "gamma", "beta", "alpha", "gamma"]
    assert where(proxy, alpha, beta, gamma) == ["gamma"]
    assert proxy.send(Message("add")) == 1
    for host in (alpha, beta):
        eventually(lambda host=host: not processes_of(host.name), f"the processes of {host.name} to end")


@pytest.mark.parametrize("start", ["message", "dispatch", "retract"])
def test_a_chain_of_moves_answers_with_its_last_host(hosts: HostFactory, start: str) -> None:
    alpha, beta, gamma = hosts("alpha"), hosts("beta"), hosts("gamma")
    hops = [f"dispatch {gamma.address}", f"dispatch {alpha.address}", f"dispatch {gamma.address}"]
    state = ActorState(plan={"run": ["", *hops]})
    proxy = (beta if start == "retract" else alpha).create(Actor, state)
    match start:
        case "message":
            wire = proxy.send(Message("do", {"steps": f"dispatch {beta.address}"}))
        case "dispatch":
            wire = proxy.dispatch(beta.address).to_wire()
        case _:
            wire = alpha.retract(beta.address, proxy.agent_id).to_wire()
    assert wire == {"host_url": gamma.address, "agent_id": proxy.agent_id}
    last = PagletProxy.from_wire(wire)
    assert last.is_active()
    assert state_of(gamma, last).log[-1] == "run"
    assert where(last, alpha, beta, gamma) == ["gamma"]


def test_a_paglet_that_leaves_while_it_is_created_is_reachable_through_what_create_gave(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, planned(creation=f"dispatch {beta.address}"))
    assert proxy.to_wire() == {"host_url": beta.address, "agent_id": proxy.agent_id}
    assert proxy.send(Message("add")) == 1
    assert state_of(beta, proxy).log == ["creation", "dispatching", "arrival", "run"]
    assert where(proxy, alpha, beta) == ["beta"]


@pytest.mark.parametrize("hook", ["arrival", "run"])
@pytest.mark.parametrize("step", ["dispose", "deactivate", "clone", "dispatch"])
def test_what_an_arriving_paglet_asks_for_itself_happens_after_the_move(
    hosts: HostFactory, hook: str, step: str
) -> None:
    alpha, beta, gamma = hosts("alpha"), hosts("beta"), hosts("gamma")
    steps = f"dispatch {gamma.address}" if step == "dispatch" else step
    plan = {"arrival": [steps]} if hook == "arrival" else {"run": ["", steps]}
    proxy = alpha.create(Actor, ActorState(plan=plan))
    moved = proxy.dispatch(beta.address)
    assert moved.agent_id == proxy.agent_id
    match step:
        case "dispose":
            eventually(lambda: not where(moved, alpha, beta, gamma), "the paglet to end")
            assert len(events_of(beta, "dispose")) == 1
        case "deactivate":
            eventually(lambda: moved.is_state(INACTIVE), "the paglet to sleep")
            assert moved.host_url == beta.address
            assert moved.send(Message("add")) == 1
        case "clone":
            eventually(lambda: len(beta.get_proxies()) == 2, "the copy")
            assert moved.send(Message("add")) == 1
        case _:
            eventually(lambda: where(moved, alpha, beta, gamma) == ["gamma"], "the second move")
            assert moved.host_url == gamma.address
            assert moved.send(Message("add")) == 1
    assert len(events_of(beta, "arrival")) == 1
    assert not events_of(alpha, "background-failure") + events_of(beta, "background-failure")


def test_an_arriving_paglet_may_sleep_for_a_reason_that_is_no_text(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    moved = alpha.create(Actor, ActorState(plan={"arrival": ["deactivate caf\udce9"]})).dispatch(beta.address)
    eventually(lambda: moved.is_state(INACTIVE), "the paglet to sleep")
    (event,) = events_of(beta, "deactivate")
    assert event.data["reason"] == "caf\udce9"
    assert moved.send(Message("add")) == 1


@pytest.mark.parametrize("hook", ["clone", "run"])
@pytest.mark.parametrize("step", ["dispose", "deactivate"])
def test_what_a_fresh_clone_asks_for_itself_happens_to_the_clone(hosts: HostFactory, hook: str, step: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, ActorState(plan={"clone": [step]} if hook == "clone" else {"run": ["", step]}))
    copy = proxy.clone(beta.address)
    if step == "dispose":
        eventually(lambda: not copy.is_valid(), "the copy to end")
    else:
        eventually(lambda: copy.is_state(INACTIVE), "the copy to sleep")
    assert proxy.send(Message("add")) == 1


def test_a_paglet_waits_for_its_handler_before_a_move_from_outside(hosts: HostFactory, gate: Gate) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor)
    answer = proxy.send_future(Message("do", {"steps": f"gate {gate}; count 7"}))
    gate.await_entered()
    with pytest.raises((TransferError, LifecycleError), match="handling a message"):
        proxy.dispatch(TransferTicket(beta.address, timeout=0.1))
    assert proxy.is_active()
    gate.open()
    assert answer.get_reply(10) == 7
    moved = proxy.dispatch(beta.address)
    assert moved.send(Message("add")) == 8
    assert state_of(beta, moved).log.count("dispatching") == 1


def test_messages_that_wait_while_a_paglet_moves_are_answered_from_where_it_went(
    hosts: HostFactory, gate: Gate
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, planned(dispatching=f"gate {gate}"))
    moving = proxy.send_future(Message("do", {"steps": f"dispatch {beta.address}"}))
    gate.await_entered()
    replies = [proxy.send_future(Message("hear", {"what": number})) for number in range(5)]
    proxy.send_oneway(Message("hear", {"what": "one-way"}))
    eventually(lambda: alpha.mailbox_status(proxy.agent_id)["queued_count"] == 6, "six waiting messages")
    gate.open()
    assert moving.get_reply(10) == {"host_url": beta.address, "agent_id": proxy.agent_id}
    assert sorted(reply.get_reply(10) for reply in replies) == sorted(
        set(range(1, 7)) - {state_of(beta, proxy).heard.index("one-way") + 1}
        if "one-way" in state_of(beta, proxy).heard
        else range(1, 6)
    )
    eventually(lambda: len(state_of(beta, proxy).heard) == 6, "all six messages")
    assert set(map(str, state_of(beta, proxy).heard)) == {"0", "1", "2", "3", "4", "one-way"}


@pytest.mark.parametrize("by", ["handler", "host"])
@pytest.mark.parametrize("agent_cls", [Actor, Quiet])
def test_messages_that_wait_while_a_paglet_moves_on_its_host_are_answered(
    hosts: HostFactory, gate: Gate, agent_cls: type[Any], by: str
) -> None:
    host = hosts()
    steps = f"gate {gate}" if agent_cls is Actor else str(gate)
    proxy = host.create(agent_cls, ActorState(plan={"dispatching": [steps]}))
    leave = Message("do", {"steps": f"dispatch {host.address}"})
    with ThreadPoolExecutor(1) as pool:
        if by == "host":
            moving = pool.submit(host.dispatch, proxy.agent_id, host.address)
        else:
            message = leave if agent_cls is Actor else Message("go", {"to": host.address})
            moving = pool.submit(proxy.send, message)
        gate.await_entered()
        replies = [proxy.send_future(Message("add")) for _ in range(3)]
        eventually(lambda: host.mailbox_status(proxy.agent_id)["queued_count"] == 3, "three waiting messages")
        gate.open()
        moving.result(10)
    assert sorted(reply.get_reply(10) for reply in replies) == [1, 2, 3]
    handled = 3 + (by == "handler")
    assert host.mailbox_status(proxy.agent_id) == {
        "queued_count": 0,
        "in_flight_count": 0,
        "delivered_count": handled,
        "failed_count": 0,
    }
    eventually(lambda: len(processes_of("alpha")) == 1, "the old process to end")


def test_a_run_that_starts_again_on_its_host_goes_on_at_once(hosts: HostFactory) -> None:
    # Longer than the message: none of the runs may be waited for as if it went on.
    host, beta = hosts(run_settle_seconds=60.0), hosts("beta")
    hops = [f"dispatch {host.address}"] * 4 + [f"dispatch {beta.address}"]
    proxy = host.create(Actor, ActorState(plan={"run": ["", *hops]}))
    wire = proxy.send(Message("do", {"steps": f"dispatch {host.address}"}), timeout=30)
    assert wire == {"host_url": beta.address, "agent_id": proxy.agent_id}
    assert state_of(beta, proxy).log.count("run") == 7
    assert events_of(host, "paglet-crashed", "background-failure", "transfer-fault") == []


@pytest.mark.parametrize("hook", ["creation", "arrival", "activation", "clone"])
def test_a_hook_that_starts_its_paglet_again_on_its_host_leads_to_one_run(hosts: HostFactory, hook: str) -> None:
    host, beta = hosts(), hosts("beta")
    plan = {"arrival": ["", f"dispatch {host.address}"] if hook == "arrival" else []}
    proxy = host.create(Actor, ActorState(plan={**plan, hook: plan.get(hook) or [f"dispatch {host.address}"]}))
    match hook:
        case "arrival":
            proxy = proxy.dispatch(beta.address).dispatch(host.address)
        case "activation":
            proxy.deactivate()
            proxy.activate()
        case "clone":
            proxy = proxy.clone()
    assert proxy.host_url == host.address
    log = eventually(lambda: (log := state_of(host, proxy).log)[-1] == "run" and log, "the paglet to run")
    assert log[-3:] == ["dispatching", "arrival", "run"]
    assert log.count("run") == {"creation": 1, "arrival": 3, "activation": 2, "clone": 2}[hook]
    assert proxy.send(Message("add")) == 1
    assert events_of(host, "paglet-crashed", "background-failure", "transfer-fault", "self-call-failed") == []


def test_an_order_of_waiting_messages_survives_the_move(hosts: HostFactory, gate: Gate) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, planned(dispatching=f"gate {gate}"))
    moving = proxy.send_future(Message("do", {"steps": f"dispatch {beta.address}"}))
    gate.await_entered()
    for number in range(20):
        proxy.send_oneway(Message("hear", {"what": number}))
    gate.open()
    moving.get_reply(10)
    eventually(lambda: len(state_of(beta, proxy).heard) == 20, "all messages")
    assert state_of(beta, proxy).heard == list(range(20))


def test_two_callers_that_move_a_paglet_at_once_leave_one_paglet(hosts: HostFactory, gate: Gate) -> None:
    alpha, beta, gamma = hosts("alpha"), hosts("beta"), hosts("gamma")
    proxy = alpha.create(Actor, planned(dispatching=f"gate {gate}"))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(proxy.dispatch, beta.address)
        gate.await_entered()
        second = pool.submit(proxy.dispatch, gamma.address)
        gate.open()
        assert first.result(10).host_url == beta.address
        assert second.result(10).host_url == gamma.address  # one after the other: the second finds it at beta
    assert where(proxy, alpha, beta, gamma) == ["gamma"]


def test_a_paglet_can_be_sent_to_sleep_at_its_target(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor)
    moved = proxy.dispatch(TransferTicket(beta.address, arrival_mode=ArrivalMode.INACTIVE))
    assert moved.host_url == beta.address
    assert moved.info()["active"] is False
    assert moved.is_state(INACTIVE) and not moved.is_state(ACTIVE)
    assert where(moved, alpha, beta) == ["beta"]
    (event,) = events_of(beta, "arrival")
    assert event.data == {"active": False, "kind": "dispatch"}
    assert not processes_of("beta")
    moved.activate()
    state = state_of(beta, moved)
    assert state.log == ["creation", "run", "dispatching", "activation", "run"]
    assert state.events[-1]["request"]["reason"] == "dispatch-arrival"
    assert state.events[-1]["request"]["source"] == "transfer"
    copy = moved.clone(TransferTicket(alpha.address, arrival_mode=ArrivalMode.INACTIVE))
    assert copy.is_state(INACTIVE)
    assert copy.send(Message("add")) == 1


# --- moves that fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["host", "proxy", "handler"])
def test_a_paglet_that_refuses_to_leave_stays_as_it_is(hosts: HostFactory, by: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, planned(dispatching="count 5; fail I stay"))
    move: dict[str, Callable[[], Any]] = {
        "host": lambda: alpha.dispatch(proxy.agent_id, beta.address),
        "proxy": lambda: PagletProxy(*proxy.to_wire().values(), HostClient()).dispatch(beta.address),
        "handler": lambda: proxy.send(Message("do", {"steps": f"dispatch {beta.address}"})),
    }
    with pytest.raises(HostError, match="I stay"):
        move[by]()
    assert where(proxy, alpha, beta) == ["alpha"]
    assert state_of(alpha, proxy).log == ["creation", "run", "dispatching"]
    assert proxy.send(Message("add")) == 6
    assert proxy.dispatch(beta.address).send(Message("add")) == 7


def test_a_paglet_that_refuses_to_be_pulled_back_stays_away(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    away = beta.create(Actor, planned(reverting="fail not home"))
    with pytest.raises(HostError, match="not home"):
        alpha.retract(beta.address, away.agent_id)
    assert where(away, alpha, beta) == ["beta"]
    assert away.send(Message("add")) == 1


@pytest.mark.parametrize("by", ["host", "far proxy", "handler", "run"])
@pytest.mark.parametrize("trouble", ["fail arrival boom", "kill 3"])
def test_a_paglet_that_cannot_arrive_goes_on_where_it_was(hosts: HostFactory, by: str, trouble: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    plan = {"arrival": [trouble], "dispatching": ["count 5"]}
    if by == "run":
        plan["run"] = [f"trydispatch {beta.address}"]
    proxy = alpha.create(Actor, ActorState(plan=plan))
    move: dict[str, Callable[[], Any]] = {
        "host": lambda: alpha.dispatch(proxy.agent_id, beta.address),
        "far proxy": lambda: PagletProxy(*proxy.to_wire().values(), HostClient()).dispatch(beta.address),
        "handler": lambda: proxy.send(Message("do", {"steps": f"dispatch {beta.address}"})),
    }
    text = "arrival boom" if "boom" in trouble else "exited with code 3"
    if by == "run":
        heard = eventually(lambda: state_of(alpha, proxy).heard, "the run to see its failure")
        assert heard[0].startswith("TransferError")
        assert text in heard[0]
    else:
        with pytest.raises(TransferError, match=text) as caught:
            move[by]()
        assert beta.address in str(caught.value)
    assert where(proxy, alpha, beta) == ["alpha"]
    assert proxy.send(Message("add")) == 6
    assert state_of(alpha, proxy).log == ["creation", "run", "dispatching"]
    assert beta.list_agents(inactive=True) == []
    assert beta.health()["active_count"] == 0
    assert leftovers(beta) == []
    eventually(lambda: not processes_of("beta"), "the half-arrived process to end")
    (event,) = events_of(alpha, "transfer-failed")
    assert text in event.error
    assert (event.data["stage"], event.data["attempt"], event.data["attempts"]) == ("post", 1, 1)
    assert event.data["destination"] == beta.address
    assert events_of(beta, "arrival") == []


def test_a_clone_that_cannot_start_elsewhere_leaves_nothing_there(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, planned(clone="fail copy boom"))
    with pytest.raises(TransferError, match="copy boom"):
        proxy.clone(beta.address)
    assert proxy.send(Message("add")) == 1
    assert state_of(alpha, proxy).log == ["creation", "run", "cloning"]
    assert beta.list_agents(inactive=True) == []
    eventually(lambda: not processes_of("beta"), "the half-arrived process to end")


def test_a_move_to_the_same_host_that_cannot_arrive_keeps_the_old_process(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, planned(arrival="fail arrival boom", dispatching="count 5"))
    pid = proxy.send(Message("look"))["pid"]
    with pytest.raises(TransferError, match="arrival boom"):
        proxy.dispatch(host.address)
    look = proxy.send(Message("look"))
    assert (look["pid"], look["count"], look["log"]) == (pid, 5, ["creation", "run", "dispatching"])
    eventually(lambda: len(processes_of("alpha")) == 1, "the second process to end")


def test_a_process_that_dies_on_its_way_out_is_a_crash_and_not_a_move(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    for steps in ("host", "handler"):
        proxy = alpha.create(Actor, planned(dispatching="kill 3"))
        with pytest.raises(PagletCrashedError):
            if steps == "host":
                proxy.dispatch(beta.address)
            else:
                proxy.send(Message("do", {"steps": f"dispatch {beta.address}"}))
        eventually(lambda proxy=proxy: proxy.info()["crashed"], "the crash to be seen")
        proxy.dispose()
    assert beta.list_agents(inactive=True) == []


def test_a_process_that_dies_after_its_snapshot_has_moved_all_the_same(hosts: HostFactory, gate: Gate) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, planned(arrival=f"gate {gate}"))
    pid = proxy.info()["pid"]
    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(proxy.dispatch, beta.address)
        gate.await_entered()
        os.kill(pid, 9)
        await_event(alpha, "paglet-crashed")
        gate.open()
        moved = moving.result(10)
    assert moved.send(Message("add")) == 1
    assert where(moved, alpha, beta) == ["beta"]


def test_an_arrival_that_takes_too_long_is_called_off(hosts: HostFactory, gate: Gate) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, planned(arrival=f"gate {gate}"))
    with pytest.raises(TransferError):
        proxy.dispatch(TransferTicket(beta.address, timeout=1.0))
    assert proxy.send(Message("add")) == 1
    assert where(proxy, alpha, beta) == ["alpha"]
    gate.await_entered()
    gate.open()
    eventually(lambda: not processes_of("beta"), "the late copy to end")
    assert beta.list_agents(inactive=True) == []
    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(proxy.dispatch, beta.address)
        gate.await_entered()
        gate.open()
        assert moving.result(10).send(Message("add")) == 2


def test_an_original_that_fails_after_its_clone_lives_keeps_both(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, planned(cloned="fail too late"))
    copy = proxy.clone(beta.address)
    assert (proxy.send(Message("add")), copy.send(Message("add"))) == (1, 1)
    assert "too late" in await_event(alpha, "transfer-fault").error


@pytest.mark.parametrize("step", ["dispose", "deactivate", "clone", "dispatch http://127.0.0.1:1"])
def test_a_paglet_on_its_way_out_cannot_ask_for_something_else(hosts: HostFactory, step: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    for by in ("host", "handler"):
        proxy = alpha.create(Actor, planned(dispatching=step))
        with pytest.raises(PagletError, match="another lifecycle operation"):
            if by == "host":
                proxy.dispatch(beta.address)
            else:
                proxy.send(Message("do", {"steps": f"dispatch {beta.address}"}))
        assert where(proxy, alpha, beta) == ["alpha"]
        assert proxy.dispatch(beta.address).send(Message("add")) == 1


def test_failed_attempts_are_repeated_and_counted(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    state = ActorState(plan={"arrival": ["fail arrival boom"]})
    proxy = alpha.create(Actor, state)
    ticket = TransferTicket(beta.address, retries=2, retry_interval=0.02)
    with ScriptedHost(b"") as broken:
        target = ScriptedTarget(broken, beta.client.get_json(f"{beta.address}/health"))
        ticket = TransferTicket(target.url, retries=2, retry_interval=0.02)
        with pytest.raises(TransferError, match="3 attempts"):
            proxy.dispatch(ticket)
        assert target.posts == 3
    failures = events_of(alpha, "transfer-failed")
    assert [(event.data["attempt"], event.data["attempts"]) for event in failures] == [(1, 3), (2, 3), (3, 3)]
    assert {event.data["stage"] for event in failures} == {"post"}
    assert proxy.send(Message("add")) == 1
    assert state_of(alpha, proxy).log.count("dispatching") == 1


class ScriptedTarget:
    """A host that is well but takes no paglet."""

    def __init__(self, scripted: ScriptedHost, health: dict[str, Any], *, body: bytes | None = None) -> None:
        self.url = scripted.url
        self.posts = 0
        self._health = health
        self._body = body
        scripted._answer = self._respond

    def _respond(self, request: Received, _: Any) -> bytes:
        if request.method == "GET" and request.target == "/health":
            return reply({**self._health, "address": self.url})
        if request.method == "POST" and request.target == "/agents":
            self.posts += 1
            if self._body is None:
                return reply({"error_type": "OverloadedError", "error": "no room"}, "429 Too Many Requests")
            return response(self._body)
        return reply({"ok": True})


def test_an_attempt_after_a_refused_one_succeeds(hosts: HostFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor)
    send, attempts = alpha.client.post_pickle, []

    def losing(url: str, *args: Any, **kwargs: Any) -> Any:
        attempts.append(url)
        answer = send(url, *args, **kwargs)
        if len(attempts) == 1:
            raise ConnectionResetError("the answer was lost")
        return answer

    monkeypatch.setattr(alpha.client, "post_pickle", losing)
    moved = proxy.dispatch(TransferTicket(beta.address, retries=1, retry_interval=0.01))
    assert len(attempts) == 2
    assert moved.send(Message("look"))["log"] == ["creation", "run", "dispatching", "arrival", "run"]
    assert where(moved, alpha, beta) == ["beta"]
    assert len(events_of(alpha, "transfer-failed")) == 1


def test_an_answer_that_is_lost_for_good_leaves_one_paglet_at_its_source(
    hosts: HostFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor)
    send = alpha.client.post_pickle

    def losing(url: str, *args: Any, **kwargs: Any) -> Any:
        send(url, *args, **kwargs)
        raise ConnectionResetError("the answer was lost")

    monkeypatch.setattr(alpha.client, "post_pickle", losing)
    with pytest.raises(TransferError, match="the answer was lost"):
        proxy.dispatch(beta.address)
    assert proxy.send(Message("add")) == 1
    eventually(lambda: not processes_of("beta"), "the copy that was not committed to end")
    assert beta.list_agents(inactive=True) == []


@pytest.mark.parametrize(
    "garbage",
    [b"", b"null", b"[]", b"not json", b"{}", b'{"vote": null}', b'{"refused": 3}', b'{"proxy": {}}', b'{"acked": 0}'],
)
def test_a_target_that_answers_nonsense_gets_no_paglet(hosts: HostFactory, garbage: bytes) -> None:
    alpha = hosts()
    proxy = alpha.create(Actor)
    with ScriptedHost(b"") as scripted:
        target = ScriptedTarget(scripted, alpha.health(), body=garbage)
        with pytest.raises(TransferError):
            proxy.dispatch(TransferTicket(target.url, timeout=5))
    assert proxy.send(Message("add")) == 1


@pytest.mark.parametrize("garbage", [b"", b"null", b"[1]", b"<html>", b'{"name": 3}'])
def test_a_target_whose_health_is_nonsense_is_found_out_before_any_hook(hosts: HostFactory, garbage: bytes) -> None:
    alpha = hosts()
    proxy = alpha.create(Actor)
    with ScriptedHost(response(garbage)) as scripted, pytest.raises(TransferError):
        proxy.dispatch(TransferTicket(scripted.url, timeout=5, required_capabilities=("agents:create",)))
    assert state_of(alpha, proxy).log == ["creation", "run"]
    assert [event.data["stage"] for event in events_of(alpha, "transfer-failed")] == ["preflight"]


@pytest.mark.parametrize("operation", ["dispatch", "clone", "handler"])
def test_a_target_that_cannot_be_reached_is_found_out_before_any_hook(hosts: HostFactory, operation: str) -> None:
    alpha = hosts()
    proxy = alpha.create(Actor)
    nowhere = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(TransferError, match=nowhere):
        if operation == "handler":
            proxy.send(Message("do", {"steps": f"dispatch {nowhere}"}))
        else:
            getattr(proxy, operation)(nowhere)
    assert state_of(alpha, proxy).log == ["creation", "run"]
    (event,) = events_of(alpha, "transfer-failed")
    assert (event.data["stage"], event.data["destination"]) == ("preflight", nowhere)
    assert proxy.send(Message("add")) == 1


@pytest.mark.parametrize("same_host", [False, True])
def test_a_ticket_can_ask_more_of_its_target_than_that_has(hosts: HostFactory, same_host: bool) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    target = alpha if same_host else beta
    proxy = alpha.create(Actor)
    for client in (proxy.client, HostClient()):
        far = PagletProxy(proxy.host_url, proxy.agent_id, client)
        with pytest.raises(TransferError, match="missing capabilities: agents:teleport"):
            far.dispatch(TransferTicket(target.address, required_capabilities=("agents:create", "agents:teleport")))
        with pytest.raises(TransferError, match="version 'test-version', not 'other'"):
            far.clone(TransferTicket(target.address, expected_code_version="other"))
    assert state_of(alpha, proxy).log == ["creation", "run"]
    good = TransferTicket(
        target.address, required_capabilities=("agents:create",), expected_code_version="test-version"
    )
    assert proxy.dispatch(good).host_url == target.address


def test_a_class_that_its_target_does_not_allow_is_refused_there(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta", allow=["something.else"])
    proxy = alpha.create(Actor)
    with pytest.raises(TransferError, match=r"tests\.agents\.actor"):
        proxy.dispatch(TransferTicket(beta.address, retries=3, retry_interval=0.01))
    assert len(events_of(alpha, "transfer-failed")) == 1
    assert proxy.send(Message("add")) == 1
    assert not processes_of("beta")


def test_an_id_that_is_taken_at_the_target_is_a_conflict_and_both_live(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    mine, other = alpha.create(Actor, agent_id="same"), beta.create(Actor, ActorState(count=10), agent_id="same")
    with pytest.raises(TransferError, match="same"):
        mine.dispatch(beta.address)
    assert (mine.send(Message("add")), other.send(Message("add"))) == (1, 11)
    other.deactivate()
    with pytest.raises(TransferError, match="same"):
        mine.dispatch(beta.address)
    assert (mine.send(Message("add")), other.send(Message("add"))) == (2, 12)


def test_a_move_during_the_shutdown_of_its_source_loses_nothing(hosts: HostFactory, gate: Gate) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, planned(arrival=f"gate {gate}"))
    moving = proxy.send_future(Message("do", {"steps": f"dispatch {beta.address}"}))
    gate.await_entered()
    alpha.shutdown()
    gate.open()
    with pytest.raises(PagletError):
        moving.get_reply(10)
    eventually(lambda: not processes_of("beta"), "the copy that was not committed to end")
    there = [summary["agent_id"] for summary in beta.list_agents(inactive=True)]
    here = [summary["agent_id"] for summary in alpha.list_agents(inactive=True)]
    assert sorted(there + here) == [proxy.agent_id]


# --- hosts in other processes ------------------------------------------------------------------------------------


def test_paglets_move_to_a_host_in_another_process_and_back(hosts: HostFactory, tmp_path: Path) -> None:
    alpha = hosts("alpha")
    with other_process(tmp_path, "far") as far:
        proxy = alpha.create(Actor)
        moved = proxy.dispatch(far)
        assert moved.host_url == far
        look = moved.send(Message("look"))
        assert look["host"] == "far"
        assert moved.send(Message("do", {"steps": f"dispatch {alpha.address}"})) == proxy.to_wire()
        assert proxy.send(Message("look"))["log"][-3:] == ["dispatching", "arrival", "run"]
        there = alpha.create_remote(far, Actor)
        assert alpha.retract(far, there.agent_id).host_url == alpha.address
        assert proxy.clone(far).send(Message("add")) == 1
    assert where(proxy, alpha) == ["alpha"]


def test_a_class_that_cannot_be_imported_at_the_target_stays_where_it_is(hosts: HostFactory, tmp_path: Path) -> None:
    alpha = hosts("alpha")
    with other_process(tmp_path, "bare", importable=False) as bare:
        proxy = alpha.create(Actor)
        with pytest.raises(TransferError, match="tests"):
            proxy.dispatch(bare)
        with pytest.raises(PagletError, match="tests"):
            alpha.create_remote(bare, Actor)
        assert HostClient().get_json(f"{bare}/agents?state=all")["agents"] == []
        assert proxy.send(Message("add")) == 1
    assert state_of(alpha, proxy).log == ["creation", "run", "dispatching"]
