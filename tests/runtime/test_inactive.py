"""Paglets that sleep on disk: how they get there, what wakes them, and what waits for them meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paglets.core.agent import ACTIVE, INACTIVE
from paglets.core.errors import HostError, HostUnreachableError, InvalidAgentError, PagletInactiveError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.remote.aio import AsyncHostClient
from paglets.remote.calls import CallOptions
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.runtime.wakeups import MOST_AWAKENINGS
from tests.agents.actor import Actor, ActorState, Stubborn
from tests.support import Gate, HostFactory, await_event, events_of, eventually, processes_of

SILENT = DeactivationPolicy(activate_on_message=False)


def state_of(host: Host, proxy: PagletProxy) -> ActorState:
    return host.get_state(proxy.agent_id, ActorState)


def stored(host: Host) -> list[str]:
    return [summary["agent_id"] for summary in host.list_agents(active=False, inactive=True)]


def test_a_stored_paglet_survives_its_host_and_wakes_with_its_state(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, ActorState(blob=b"\x00\xff"))
    proxy.send(Message("add", {"by": 4}))
    same = host.deactivate(proxy.agent_id, DeactivationRequest(reason="lunch", metadata={"a": 1}))
    assert same.to_wire() == proxy.to_wire()
    assert host.get_proxy(proxy.agent_id) is None
    assert stored(host) == [proxy.agent_id]
    assert host.health()["inactive_count"] == 1
    assert host.health()["active_count"] == 0
    with pytest.raises(InvalidAgentError):
        host.get_state(proxy.agent_id, ActorState)
    eventually(lambda: not processes_of("alpha"), "the process to end")
    host.stop()

    unstarted = hosts.new()
    assert stored(unstarted) == [proxy.agent_id]
    assert unstarted.health()["inactive_count"] == 1
    again = hosts()
    assert stored(again) == [proxy.agent_id]
    woken = again.activate(proxy.agent_id)
    assert woken.to_wire() == {"host_url": again.address, "agent_id": proxy.agent_id}
    assert stored(again) == []
    state = state_of(again, woken)
    assert (state.count, state.blob) == (4, b"\x00\xff")
    assert state.log == ["creation", "run", "deactivating", "activation", "run"]
    asleep, awake = state.events[1:]
    assert (asleep["reason"], asleep["request"]["reason"], asleep["request"]["source"]) == (
        "lunch",
        "lunch",
        "external",
    )
    assert asleep["request"]["metadata"] == awake["request"]["metadata"] == {"a": 1}
    assert (awake["reason"], awake["policy"]) == ("activate", DeactivationPolicy().to_wire())
    again.stop()
    assert stored(again) == []


def test_the_state_of_a_stored_paglet_can_be_looked_at(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, ActorState(count=3))
    proxy.deactivate(policy=SILENT)
    proxy.send(Message("add"))
    for name in ("inactive", "all"):
        (summary,) = HostClient().get_json(f"{host.address}/agents?state={name}&include_state=true")["agents"]
        assert (summary["active"], summary["state"]["count"]) == (False, 3)
    payload = HostClient().get_json(f"{host.address}/agents/{proxy.agent_id}/state")
    assert payload["state"]["count"] == 3
    assert payload["deactivation_policy"] == SILENT.to_wire()
    assert payload["queued_message_count"] == 1


def test_a_paglet_decides_itself_when_it_wakes(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, ActorState(policy=SILENT.to_wire()))
    proxy.deactivate(policy=DeactivationPolicy())
    assert proxy.send(Message("add"))["queued"] is True
    proxy.activate()
    assert state_of(host, proxy).events[-1]["policy"] == SILENT.to_wire()


def test_a_paglet_that_refuses_to_sleep_goes_on(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, ActorState(plan={"deactivating": ["count 2; fail not tired"]}))
    with pytest.raises(HostError, match="not tired"):
        proxy.deactivate()
    with pytest.raises(HostError, match="DeactivationPolicy"):
        bad = host.create(Stubborn)
        bad.deactivate()
    assert proxy.send(Message("add")) == 3
    assert stored(host) == []


def test_a_message_wakes_its_receiver_and_is_answered(hosts: HostFactory) -> None:
    host = hosts()
    for way in ("near", "far", "one-way"):
        proxy = host.create(Actor)
        proxy.deactivate()
        sender = PagletProxy(proxy.host_url, proxy.agent_id, HostClient()) if way == "far" else proxy
        if way == "one-way":
            sender.send_oneway(Message("add"))
            eventually(lambda proxy=proxy: proxy.is_active(), "the paglet to wake")
        else:
            assert sender.send(Message("add")) == 1
        # The message comes before `run`, so its answer may as well.
        eventually(lambda proxy=proxy: len(state_of(host, proxy).log) == 5, "all turns of its life")
        assert state_of(host, proxy).log == ["creation", "run", "deactivating", "activation", "run"]


def test_many_messages_at_once_wake_their_receiver_once(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    proxy.deactivate()
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: proxy.send(Message("add")), range(8)))
    assert sorted(replies) == list(range(1, 9))
    assert len(events_of(host, "activate")) == 1
    assert state_of(host, proxy).log.count("activation") == 1


def test_a_message_that_may_not_wake_waits_and_is_handled_before_activation_returns(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    proxy.deactivate(policy=SILENT)
    for number in range(3):
        answer = proxy.send(Message("hear", {"what": number}, message_id=f"m{number}"))
        assert answer == {"queued": True, "message_id": f"m{number}"}
    assert proxy.send_oneway(Message("hear", {"what": "one-way"})) is None
    with pytest.raises(PagletInactiveError):
        proxy.send(Message("hear", {"what": "now"}), no_delay=True)
    assert proxy.is_state(INACTIVE)
    proxy.activate()
    assert state_of(host, proxy).heard == [0, 1, 2, "one-way"]
    (event,) = events_of(host, "activate")
    assert event.data == {"queued_message_count": 4}


def test_waiting_messages_survive_the_host(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    proxy.deactivate(policy=SILENT)
    proxy.send(Message("hear", {"what": b"\x00"}))
    proxy.send(Message("do", {"steps": "fail in between"}))
    proxy.send(Message("hear", {"what": "second"}, priority=10))
    host.stop()
    again = hosts()
    again.activate(proxy.agent_id)
    assert state_of(again, proxy).heard == ["second", b"\x00"]
    assert "in between" in await_event(again, "message-failed").error
    again.deactivate(proxy.agent_id, DeactivationRequest(policy=SILENT))
    again.activate(proxy.agent_id)
    assert state_of(again, proxy).heard == ["second", b"\x00"]


def test_a_policy_can_refuse_to_keep_messages(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    proxy.deactivate(policy=DeactivationPolicy(activate_on_message=False, queue_messages_when_inactive=False))
    for way in (proxy, PagletProxy(proxy.host_url, proxy.agent_id, HostClient())):
        with pytest.raises(PagletInactiveError):
            way.send(Message("add"))
        with pytest.raises(PagletInactiveError):
            way.send_oneway(Message("add"))
    proxy.activate()
    assert proxy.send(Message("add")) == 1


def test_a_sender_can_refuse_to_wake_its_receiver(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    proxy.deactivate()
    assert proxy.send(Message("add"), activate_if_inactive=False)["queued"] is True
    with pytest.raises(PagletInactiveError):
        proxy.send(Message("add"), activate_if_inactive=False, no_delay=True)
    assert proxy.is_state(INACTIVE)
    assert proxy.send(Message("add")) == 2


def test_a_call_is_not_stored_for_when_nobody_waits_for_its_reply(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    far = PagletProxy(proxy.host_url, proxy.agent_id, HostClient())

    async def ask(options: CallOptions) -> int:
        async with AsyncHostClient() as client:
            return await proxy.aio(client).with_options(options).call(Actor.add)

    for policy, options in ((None, CallOptions(activate_if_inactive=False)), (SILENT, CallOptions())):
        proxy.deactivate(policy=policy)
        for way in (proxy, far):
            with pytest.raises(PagletInactiveError, match="inactive"):
                way.with_options(options).call(Actor.add)
            with pytest.raises(PagletInactiveError):
                way.with_options(options).call(Actor.look)  # which returns a dict, as a receipt is one
        with pytest.raises(PagletInactiveError):
            asyncio.run(ask(options))
        assert proxy.is_state(INACTIVE)
        proxy.activate()
    far.client.close()
    assert state_of(host, proxy).count == 0


def test_a_call_that_waits_when_its_receiver_goes_to_sleep_is_refused(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(Actor, ActorState(policy=SILENT.to_wire()))
    proxy.send_oneway(Message("do", {"steps": f"gate {gate}; deactivate nap"}))
    gate.await_entered()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(proxy.call, Actor.add)
        eventually(lambda: host.mailbox_status(proxy.agent_id)["queued_count"] == 1, "the call to wait")
        gate.open()
        with pytest.raises(PagletInactiveError):
            waiting.result(20)
    assert proxy.is_state(INACTIVE)
    proxy.activate()
    assert state_of(host, proxy).count == 0


def test_a_paglet_wakes_when_its_time_has_come(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    started = time.time()
    proxy.deactivate(policy=DeactivationPolicy.after(0.15))
    assert proxy.is_state(INACTIVE) or time.time() - started >= 0.15
    eventually(lambda: proxy.is_state(ACTIVE), "the time to come")
    assert time.time() - started >= 0.15
    eventually(lambda: state_of(host, proxy).log[-1] == "run", "the paglet to run")


def test_a_time_that_came_while_the_host_was_off_is_made_up_for(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    proxy.deactivate(policy=DeactivationPolicy.after(0.01))
    host.stop()
    again = hosts()
    eventually(lambda: again.get_proxy(proxy.agent_id), "the paglet to wake")


def test_a_host_that_has_ended_its_processes_starts_none(hosts: HostFactory) -> None:
    """A paglet may be about to wake when its host stops."""
    host = hosts()
    proxy = host.create(Actor)
    kernel = host._running().kernel
    entry = kernel.agents.get(proxy.agent_id)
    assert entry is not None
    host.stop()
    with pytest.raises(HostUnreachableError, match="is shutting down"):
        kernel.starter.open_place(entry)
    assert not processes_of("alpha")


def test_a_shutdown_stores_what_runs_and_the_next_start_wakes_it(hosts: HostFactory) -> None:
    host = hosts()
    one, two = host.create(Actor), host.create(Actor, ActorState(policy=SILENT.to_wire()))
    one.send(Message("add", {"by": 6}))
    host.shutdown()
    assert sorted(stored(host)) == sorted([one.agent_id, two.agent_id])
    again = hosts()
    assert again.get_proxy(one.agent_id) is not None
    assert again.get_proxy(two.agent_id) is None
    state = state_of(again, one)
    assert (state.count, state.log) == (6, ["creation", "run", "deactivating", "activation", "run"])
    assert (state.events[1]["reason"], state.events[1]["request"]["source"]) == ("shutdown", "host")
    again.dispose(two.agent_id)
    again.shutdown()
    assert stored(again) == [one.agent_id]


STOPS_AT_EXIT = """
import atexit, sys
from paglets.runtime.host import Host
from tests.agents.actor import Actor

if __name__ == "__main__":
    host = Host("late", persistence_dir=sys.argv[1], mesh=False, port=0)
    host.start_background()
    atexit.register(getattr(host, sys.argv[2]))
    proxy = host.create(Actor, agent_id="stays")
    host.work_dir_for("stays").joinpath("note").write_text("here")
"""


@pytest.mark.parametrize(("way", "left"), [("shutdown", ["stays"]), ("stop", [])])
def test_a_host_stops_in_order_at_the_end_of_its_program(
    hosts: HostFactory, tmp_path: Path, way: str, left: list[str]
) -> None:
    """By then Python has ended the threads of all executors."""
    program = tmp_path / "program.py"
    program.write_text(STOPS_AT_EXIT)
    ended = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "late"), way],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    again = hosts("late", persistence_dir=tmp_path / "late")
    assert [agent["agent_id"] for agent in again.list_agents(active=True, inactive=True)] == left


def test_a_paglet_that_cannot_prepare_for_shutdown_sleeps_as_its_last_checkpoint_is(
    hosts: HostFactory, gate: Gate
) -> None:
    host = hosts()
    busy, broken = host.create(Actor), host.create(Actor, ActorState(plan={"deactivating": ["fail no"]}))
    broken.send(Message("add", {"by": 8}))
    reply = busy.send_future(Message("do", {"steps": f"count 7; gate {gate}"}))
    gate.await_entered()
    host.shutdown()
    with pytest.raises(Exception):  # noqa: B017 - whichever of the two ends comes first
        reply.get_reply(10)
    again = hosts()
    # Half of a handler's work is no checkpoint.
    assert [state_of(again, proxy).count for proxy in (busy, broken)] == [0, 8]


def test_a_paglet_that_fails_to_wake_stays_asleep_with_its_messages(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, ActorState(plan={"activation": ["fail bad dream"]}))
    proxy.deactivate(policy=SILENT)
    proxy.send(Message("hear", {"what": "kept"}))
    with pytest.raises(HostError, match="bad dream"):
        proxy.activate()
    assert proxy.is_state(INACTIVE)
    eventually(lambda: not processes_of("alpha"), "the failed process to end")
    payload = HostClient().get_json(f"{host.address}/agents/{proxy.agent_id}/state")
    assert payload["queued_message_count"] == 1
    assert payload["state"]["plan"]["activation"] == ["fail bad dream"]
    proxy.dispose()
    assert stored(host) == []


def test_a_paglet_that_fails_to_wake_at_start_does_not_hold_up_its_host(hosts: HostFactory) -> None:
    host = hosts()
    bad = host.create(Actor, ActorState(plan={"activation": ["fail bad dream"]}))
    good = host.create(Actor)
    host.shutdown()
    again = hosts()
    assert again.get_proxy(good.agent_id) is not None
    assert stored(again) == [bad.agent_id]
    assert "bad dream" in await_event(again, "activation-failed").error


def test_a_stored_paglet_can_be_disposed_of_without_its_hooks(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, ActorState(plan={"disposing": ["fail never"]}))
    (host.work_dir_for(proxy.agent_id) / "file").write_text("x")
    proxy.deactivate()
    assert (host.persistence_dir / "work" / proxy.agent_id / "file").exists()
    proxy.dispose()
    assert not proxy.is_valid()
    assert not (host.persistence_dir / "work" / proxy.agent_id).exists()
    with pytest.raises(InvalidAgentError):
        proxy.dispose()
    with pytest.raises(InvalidAgentError):
        proxy.activate()
    with pytest.raises(InvalidAgentError):
        proxy.send(Message("add"))
    host.stop()
    assert stored(hosts()) == []


def test_operations_on_the_wrong_side_of_sleep_are_refused(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    with pytest.raises(InvalidAgentError, match=f"no inactive paglet {proxy.agent_id} on alpha"):
        host.activate(proxy.agent_id)
    for operation in (host.activate, host.dispose):
        with pytest.raises(InvalidAgentError, match=r"^no paglet unknown on alpha"):
            operation("unknown")
    proxy.deactivate()
    for ask in (proxy.deactivate, proxy.clone, lambda: proxy.dispatch(host.address)):
        with pytest.raises(InvalidAgentError):
            ask()
    for ask in (host.work_dir_for, host.mailbox_status, host.resources_for, host.registered_files_for):
        with pytest.raises(InvalidAgentError):
            ask(proxy.agent_id)
    assert proxy.is_state(INACTIVE)


def test_a_message_sent_while_its_receiver_goes_to_sleep_wakes_it(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(Actor, ActorState(plan={"deactivating": [f"gate {gate}"]}))
    with ThreadPoolExecutor(2) as pool:
        sleeping = pool.submit(proxy.deactivate)
        gate.await_entered()
        reply = proxy.send_future(Message("add"))
        proxy.send_oneway(Message("add"))
        eventually(lambda: host.mailbox_status(proxy.agent_id)["queued_count"] == 2, "the messages to wait")
        gate.open()
        sleeping.result(10)
    assert reply.get_reply(10) in (1, 2)
    eventually(lambda: state_of(host, proxy).count == 2, "both messages")
    assert state_of(host, proxy).log == ["creation", "run", "deactivating", "activation", "run"]


@pytest.mark.parametrize("operation", ["dispose", "deactivate", "dispatch"])
def test_an_operation_on_a_paglet_that_wakes_waits_until_it_is_awake(
    hosts: HostFactory, gate: Gate, operation: str
) -> None:
    """It was told that there is none: whoever asked for its end took it for gone, and it lived on."""
    host = hosts()
    proxy = host.create(Actor, ActorState(plan={"activation": [f"gate {gate}"]}))
    host.deactivate(proxy.agent_id)
    operations = {
        "dispose": lambda: host.dispose(proxy.agent_id),
        "deactivate": lambda: host.deactivate(proxy.agent_id),
        "dispatch": lambda: host.dispatch(proxy.agent_id, hosts("beta").address),
    }
    with ThreadPoolExecutor(2) as pool:
        waking = pool.submit(host.activate, proxy.agent_id)
        gate.await_entered()
        asked = pool.submit(operations[operation])
        with pytest.raises(TimeoutError):
            asked.result(0.2)
        gate.open()
        waking.result(20)
        asked.result(20)
    assert host.get_proxy(proxy.agent_id) is None
    assert stored(host) == ([proxy.agent_id] if operation == "deactivate" else [])


def test_a_message_sent_while_its_receiver_wakes_is_answered(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(Actor, ActorState(plan={"activation": [f"gate {gate}"]}))
    proxy.deactivate()
    first = proxy.send_future(Message("add"))
    gate.await_entered()
    second = proxy.send_future(Message("add"))
    gate.open()
    assert sorted([first.get_reply(10), second.get_reply(10)]) == [1, 2]


@pytest.mark.parametrize("hook", ["activation", "run"])
@pytest.mark.parametrize("step", ["dispose", "deactivate", "dispatch"])
def test_what_a_waking_paglet_asks_for_itself_happens_after_it_woke(hosts: HostFactory, hook: str, step: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    steps = f"dispatch {beta.address}" if step == "dispatch" else step
    plan = {"activation": [steps]} if hook == "activation" else {"run": ["", steps]}
    proxy = alpha.create(Actor, ActorState(plan=plan))
    proxy.deactivate()
    woken = proxy.activate()
    match step:
        case "dispose":
            eventually(lambda: not proxy.is_valid(), "the paglet to end")
            assert stored(alpha) == []
        case "deactivate":
            eventually(lambda: proxy.is_state(INACTIVE), "the paglet to sleep again")
            alpha.stop()
            again = hosts("alpha")
            assert stored(again) == [proxy.agent_id]
            assert again.activate(proxy.agent_id).send(Message("add")) == 1
        case _:
            assert woken.host_url == beta.address
            assert woken.send(Message("add")) == 1
            assert stored(alpha) == []


@pytest.mark.parametrize("way", ["near", "far", "one-way"])
def test_a_message_follows_the_paglet_that_it_woke_and_that_left_at_once(hosts: HostFactory, way: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor, ActorState(plan={"run": ["", f"dispatch {beta.address}"]}))
    proxy.deactivate()
    if way == "one-way":
        proxy.send_oneway(Message("add"))
        eventually(lambda: beta.get_proxy(proxy.agent_id) and state_of(beta, proxy).count == 1, "the message")
    else:
        sender = PagletProxy(proxy.host_url, proxy.agent_id, HostClient()) if way == "far" else proxy
        assert sender.send(Message("add")) == 1
        eventually(lambda: beta.get_proxy(proxy.agent_id), "its arrival")
    assert state_of(beta, proxy).count == 1
    assert stored(alpha) == []


@pytest.mark.parametrize("step", ["deactivate", "dispose"])
def test_a_message_to_a_paglet_that_will_not_stay_awake_is_kept_or_refused(hosts: HostFactory, step: str) -> None:
    host = hosts()
    proxy = host.create(Actor, ActorState(plan={"activation": [step] * MOST_AWAKENINGS}))
    proxy.deactivate()
    if step == "dispose":
        with pytest.raises(InvalidAgentError):
            proxy.send(Message("add"))
        assert not proxy.is_valid()
    else:
        assert proxy.send(Message("add"))["queued"] is True
        assert proxy.is_state(INACTIVE)
        proxy.activate()
        assert state_of(host, proxy).count == 1


def test_a_waiting_message_that_moves_its_paglet_does_not_stop_the_ones_behind_it(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor)
    proxy.deactivate(policy=SILENT)
    for message in (
        Message("hear", {"what": "before"}),
        Message("do", {"steps": f"dispatch {beta.address}"}),
        Message("hear", {"what": "after"}),
    ):
        assert proxy.send(message)["queued"] is True
    woken = proxy.activate()
    assert woken.host_url == beta.address
    eventually(lambda: state_of(beta, woken).heard == ["before", "after"], "the message behind the move")
    assert stored(alpha) == []
