"""Paglets on one host: created, asked, cloned, stored, crashed and disposed of."""

from __future__ import annotations

import os
import threading
from typing import Any

import psutil
import pytest

from paglets.core.agent import ACTIVE, INACTIVE, Paglet, PagletState
from paglets.core.context import PagletContext
from paglets.core.errors import (
    ConflictError,
    HostError,
    InvalidAgentError,
    LifecycleError,
    NotHandledError,
    PagletCrashedError,
    SerializationError,
    TransferError,
)
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.actor import Actor, ActorState, Needy, NeedyState, Picky, Quiet
from tests.support import (
    Gate,
    HostFactory,
    await_event,
    events_of,
    eventually,
    leftovers,
    processes_of,
    where,
)


def state_of(host: Host, proxy: PagletProxy) -> ActorState:
    return host.get_state(proxy.agent_id, ActorState)


def planned(**plan: str) -> ActorState:
    return ActorState(plan={hook: [steps] for hook, steps in plan.items()})


# --- creation ----------------------------------------------------------------------------------------------------


def test_a_created_paglet_ran_its_hooks_in_order_and_answers(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, init={"who": "me"})
    assert proxy.send(Message("add", {"by": 2})) == 2
    state = state_of(host, proxy)
    assert (state.log, state.count) == (["creation", "run"], 2)
    created = state.events[0]
    assert created["init"] == {"who": "me"}
    assert (created["agent_id"], created["host_name"], created["host_address"]) == (
        proxy.agent_id,
        "alpha",
        host.address,
    )
    assert proxy.host_url == host.address


def test_an_unhandled_message_is_declined_to_its_sender(hosts: HostFactory) -> None:
    host = hosts()
    actor, picky = host.create(Actor), host.create(Picky)
    for proxy in (actor, picky):
        for client in (proxy.client, HostClient()):
            with pytest.raises(NotHandledError, match="nonsense"):
                PagletProxy(proxy.host_url, proxy.agent_id, client).send(Message("nonsense"))
    assert picky.send(Message("none")) is None
    assert picky.send(Message("echo", {"a": b"\x00\xff"}, arg=[1, 2])) == {
        "args": {"a": b"\x00\xff"},
        "arg": [1, 2],
        "sender": None,
    }


def test_a_given_state_is_copied_and_the_caller_keeps_its_own(hosts: HostFactory) -> None:
    host = hosts()
    mine = ActorState(count=40)
    proxy = host.create(Actor, mine)
    proxy.send(Message("add", {"by": 2}))
    assert (mine.count, mine.log) == (40, [])
    assert state_of(host, proxy).count == 42


def test_a_paglet_may_need_a_state_that_has_no_defaults(hosts: HostFactory) -> None:
    host = hosts()
    assert host.create(Needy, NeedyState("n")).call(Needy.name) == "n"
    with pytest.raises(TypeError):
        host.create(Needy)


def test_an_id_can_be_chosen_and_is_taken_once(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, agent_id="the-one")
    assert proxy.agent_id == "the-one"
    pid = proxy.send(Message("look"))["pid"]
    with pytest.raises(ConflictError, match="the-one"):
        host.create(Actor, agent_id="the-one")
    assert proxy.send(Message("look"))["pid"] == pid
    proxy.deactivate()
    with pytest.raises(ConflictError, match="the-one"):
        host.create(Actor, agent_id="the-one")
    proxy.dispose()
    assert host.create(Actor, agent_id="the-one").call(Actor.add) == 1


@pytest.mark.parametrize("agent_id", ["../x", "a/b", ".hidden", "x" * 200, "a b", "ü"])
def test_an_id_that_is_no_file_name_is_refused(hosts: HostFactory, agent_id: str) -> None:
    host = hosts()
    with pytest.raises(HostError):
        host.create(Actor, agent_id=agent_id)
    assert host.list_agents(inactive=True) == []


@pytest.mark.parametrize("hook", ["creation", "run"])
def test_a_creation_whose_hook_fails_leaves_nothing(hosts: HostFactory, hook: str) -> None:
    host = hosts()
    with pytest.raises(HostError, match="no good"):
        host.create(Actor, planned(**{hook: "fail no good"}), agent_id="still-free")
    assert host.list_agents(inactive=True) == []
    assert host.health()["active_count"] == 0
    eventually(lambda: not processes_of("alpha"), "the process of the failed creation to end")
    assert leftovers(host) == []
    assert host.create(Actor, agent_id="still-free").is_active()


def test_a_run_that_fails_later_crashes_the_paglet_and_not_its_creation(hosts: HostFactory, gate: Gate) -> None:
    host = hosts(run_settle_seconds=0.01)
    proxy = host.create(Actor, planned(run=f"gate {gate}; fail too late"))
    gate.await_entered()
    assert proxy.is_active()
    gate.open()
    event = await_event(host, "paglet-crashed", agent_id=proxy.agent_id)
    assert "too late" in event.error
    assert proxy.is_valid()
    assert not proxy.is_active()
    with pytest.raises(PagletCrashedError):
        proxy.send(Message("add"))
    proxy.dispose()
    assert not proxy.is_valid()


def test_a_long_run_does_not_hold_up_its_creation_or_messages(hosts: HostFactory, gate: Gate) -> None:
    host = hosts(run_settle_seconds=0.01)
    proxy = host.create(Actor, planned(run=f"gate {gate}; count 100"))
    gate.await_entered()
    assert proxy.send(Message("add", {"by": 1})) == 1
    gate.open()
    eventually(lambda: state_of(host, proxy).count == 101, "run to go on")


class Local(Paglet[ActorState]):
    State = ActorState


def test_classes_that_other_processes_cannot_use_are_refused(
    hosts: HostFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = hosts()

    class Inner(Paglet[ActorState]):
        State = ActorState

    class Stateless(Paglet[Any]):
        pass

    class PlainState(PagletState):
        pass

    with pytest.raises(SerializationError):
        host.create(Inner)
    for wrong in (Stateless, dict, Actor(), "tests.agents.actor:Actor"):
        with pytest.raises(HostError):
            host.create(wrong)  # type: ignore[arg-type]
    with pytest.raises(HostError, match="dataclass"):
        host.create(Actor, PlainState())
    monkeypatch.setattr(Local, "__module__", "__main__")
    with pytest.raises(HostError, match="main module"):
        host.create(Local)
    assert host.list_agents() == []


def test_paglets_are_created_on_another_host_by_its_address(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create_remote(beta.address + "/", Actor, ActorState(count=5), init=7, agent_id="far")
    assert proxy.to_wire() == {"host_url": beta.address, "agent_id": "far"}
    assert proxy.send(Message("add")) == 6
    assert state_of(beta, proxy).events[0]["init"] == 7
    assert where(proxy, alpha, beta) == ["beta"]
    with pytest.raises(HostError, match="not today"):
        alpha.create_remote(beta.address, Actor, planned(creation="fail not today"))
    assert len(beta.list_agents()) == 1


def test_a_class_outside_the_allow_list_is_refused_to_others_and_not_to_the_owner(hosts: HostFactory) -> None:
    from paglets.core.errors import ForbiddenError

    alpha, beta = hosts("alpha"), hosts("beta", allow=["someone.else.*"])
    with pytest.raises(ForbiddenError, match=r"tests\.agents\.actor"):
        alpha.create_remote(beta.address, Actor)
    assert beta.create(Actor).is_active()


# --- information -------------------------------------------------------------------------------------------------


def test_proxies_tell_the_state_of_their_paglet_over_its_life(hosts: HostFactory) -> None:
    host = hosts()
    one, two = host.create(Actor), host.create(Quiet)
    assert one.is_valid() and one.is_active() and one.is_state(ACTIVE) and one.is_state(True)
    assert not one.is_state(INACTIVE) and not one.is_state(False)
    assert [proxy.agent_id for proxy in host.get_proxies(ACTIVE)] == [one.agent_id, two.agent_id]
    one.deactivate()
    assert one.is_valid() and one.is_state(INACTIVE) and one.is_state(False) and one.is_state(ACTIVE | INACTIVE)
    assert not one.is_active() and not one.is_state(ACTIVE)
    assert [proxy.agent_id for proxy in host.get_proxies(ACTIVE)] == [two.agent_id]
    assert [proxy.agent_id for proxy in host.get_proxies(INACTIVE)] == [one.agent_id]
    assert [proxy.agent_id for proxy in host.get_proxies(ACTIVE | INACTIVE)] == [two.agent_id, one.agent_id]
    assert host.get_proxy(one.agent_id) is None
    assert host.get_proxy(one.agent_id, include_inactive=True) is not None
    assert PagletContext(host).get_proxy(one.agent_id) is not None
    one.activate()
    assert one.is_state(ACTIVE)
    one.dispose()
    assert not (one.is_valid() or one.is_active() or one.is_state(True) or one.is_state(ACTIVE | INACTIVE))
    assert not one.is_state(False)
    with pytest.raises(InvalidAgentError):
        one.info()


def test_the_summary_of_a_paglet_counts_its_messages(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    proxy.send(Message("add"))
    with pytest.raises(HostError):
        proxy.send(Message("do", {"steps": "fail on purpose"}))
    expected = {"queued_count": 0, "in_flight_count": 0, "delivered_count": 1, "failed_count": 1}
    info = proxy.info()
    assert info["mailbox"] == host.mailbox_status(proxy.agent_id) == expected
    assert (info["class_name"], info["state_class_name"]) == (
        "tests.agents.actor:Actor",
        "tests.agents.actor:ActorState",
    )
    assert psutil.Process(info["pid"]).cmdline()[0] == f"paglet:alpha:Actor:{proxy.agent_id}"
    assert (info["active"], info["crashed"], info["exitcode"], info["error"], info["resources"]) == (
        True,
        False,
        None,
        None,
        {},
    )
    assert host.list_agents(include_state=True)[0]["state"]["count"] == 1


def test_the_state_is_shown_while_a_handler_runs(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(Actor)
    reply = proxy.send_future(Message("do", {"steps": f"count 3; gate {gate}; count 4"}))
    gate.await_entered()
    assert state_of(host, proxy).count == 3
    assert proxy.info()["mailbox"]["in_flight_count"] == 1
    gate.open()
    assert reply.get_reply(10) == 7


# --- what a paglet asks for itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["creation", "run"])
def test_a_paglet_that_disposes_of_itself_while_it_starts_is_created_and_gone(hosts: HostFactory, hook: str) -> None:
    host = hosts()
    proxy = host.create(Actor, planned(**{hook: "dispose"}))
    assert proxy.host_url == host.address
    assert not proxy.is_valid()
    with pytest.raises(InvalidAgentError):
        proxy.send(Message("add"))
    assert host.list_agents(inactive=True) == []
    assert [event.kind for event in events_of(host, agent_id=proxy.agent_id)] == ["create", "dispose"]


def test_a_handler_that_disposes_of_its_paglet_still_answers(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    assert proxy.send(Message("do", {"steps": "dispose"})) == "disposed"
    assert not proxy.is_valid()
    eventually(lambda: not processes_of("alpha"), "the process to end")


@pytest.mark.parametrize("hook", ["creation", "run"])
def test_a_paglet_that_stores_itself_while_it_starts_wakes_on_a_message(hosts: HostFactory, hook: str) -> None:
    host = hosts()
    proxy = host.create(Actor, planned(**{hook: "deactivate tired"}))
    assert proxy.is_state(INACTIVE)
    assert proxy.send(Message("add")) == 1
    state = state_of(host, proxy)
    before = ["creation"] if hook == "creation" else ["creation", "run"]
    assert state.log == [*before, "deactivating", "activation", "run"]
    assert [event["reason"] for event in state.events[1:]] == ["tired", "activate"]


def test_a_handler_that_stores_its_paglet_answers_with_where_it_is(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    assert proxy.send(Message("do", {"steps": "deactivate"})) == proxy.to_wire()
    assert proxy.is_state(INACTIVE)


@pytest.mark.parametrize("hook", ["creation", "run"])
def test_a_paglet_that_copies_itself_while_it_starts_is_there_twice(hosts: HostFactory, hook: str) -> None:
    host = hosts()
    proxy = host.create(Actor, planned(**{hook: "clone"}))
    both = eventually(lambda: host.get_proxies() if len(host.get_proxies()) == 2 else None, "the copy")
    copy = next(other for other in both if other.agent_id != proxy.agent_id)
    eventually(lambda: "run" in state_of(host, copy).log[-1], "the copy to run")
    assert state_of(host, copy).log[-3:] == ["cloning", "clone", "run"]
    assert "cloned" in state_of(host, proxy).log


def test_what_a_paglet_does_after_it_left_is_lost(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    assert proxy.send(Message("do", {"steps": "deactivate; count 50"})) == 50
    assert proxy.send(Message("add")) == 1


# --- cloning -----------------------------------------------------------------------------------------------------


def test_a_clone_has_what_its_original_had_when_it_was_copied(hosts: HostFactory) -> None:
    host = hosts()
    original = host.create(Actor, ActorState(count=1))
    copy = original.clone()
    assert copy.agent_id != original.agent_id
    assert copy.host_url == host.address
    copy.send(Message("add", {"by": 10}))
    mine, other = state_of(host, original), state_of(host, copy)
    assert mine.log == ["creation", "run", "cloning", "cloned"]
    assert other.log == ["creation", "run", "cloning", "clone", "run"]
    assert (mine.count, other.count) == (1, 11)
    for event in (mine.events[-1], mine.events[-2], other.events[-1]):
        assert (event["source_agent_id"], event["clone_agent_id"]) == (original.agent_id, copy.agent_id)
    assert (mine.events[-1]["agent_id"], other.events[-1]["agent_id"]) == (original.agent_id, copy.agent_id)
    kinds = [(event.kind, event.agent_id) for event in events_of(host, "clone")]
    assert sorted(kinds) == sorted([("clone", copy.agent_id), ("clone", original.agent_id)])


def test_a_clone_that_its_original_refuses_does_not_exist(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, planned(cloning="fail not me"))
    with pytest.raises(HostError, match="not me"):
        proxy.clone()
    assert len(host.list_agents()) == 1
    assert state_of(host, proxy).log == ["creation", "run", "cloning"]
    assert proxy.clone().is_active()


def test_a_clone_that_does_not_start_leaves_its_original_alone(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, planned(clone="fail copy boom"))
    with pytest.raises(TransferError, match="copy boom"):
        host.clone(proxy.agent_id)
    assert len(host.list_agents()) == 1
    assert state_of(host, proxy).log == ["creation", "run", "cloning"]
    assert proxy.send(Message("add")) == 1
    eventually(lambda: len(processes_of("alpha")) == 1, "the process of the failed copy to end")


# --- disposing and resources -------------------------------------------------------------------------------------


def test_a_paglet_that_refuses_to_end_goes_on(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor, planned(disposing="fail not yet"))
    with pytest.raises(HostError, match="not yet"):
        proxy.dispose()
    assert proxy.send(Message("add")) == 1
    assert state_of(host, proxy).events[-1]["reason"] == "dispose"
    proxy.dispose()
    assert host.list_agents(inactive=True) == []
    assert [event.data for event in events_of(host, "dispose")] == [{"active": True}]


def test_messages_that_wait_for_a_paglet_that_ends_are_answered(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(Actor)
    last = proxy.send_future(Message("do", {"steps": f"gate {gate}; dispose"}))
    gate.await_entered()
    late = proxy.send_future(Message("add"))
    eventually(lambda: host.mailbox_status(proxy.agent_id)["queued_count"] == 1, "the message to wait")
    gate.open()
    assert last.get_reply(10) == "disposed"
    with pytest.raises(InvalidAgentError):
        late.get_reply(10)


def test_resources_are_released_youngest_first_and_what_that_changes_is_stored(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    proxy.send(Message("do", {"steps": "resource one; resource two"}))
    assert host.resources_for(proxy.agent_id).status() == {"one": False, "two": False}
    assert proxy.info()["resources"] == {"one": False, "two": False}
    proxy.deactivate()
    proxy.activate()
    log = state_of(host, proxy).log
    assert log[2:] == ["deactivating", "release two", "release one", "activation", "run"]
    assert proxy.info()["resources"] == {}


@pytest.mark.parametrize("operation", ["deactivate", "dispatch", "dispose"])
def test_a_resource_that_cannot_be_released_keeps_the_paglet(hosts: HostFactory, operation: str) -> None:
    host = hosts()
    target = hosts("beta")
    arguments = [target.address] if operation == "dispatch" else []
    proxy = host.create(Actor)
    proxy.send(Message("do", {"steps": "resource fine; resource bad"}))
    for client in (proxy.client, HostClient()):
        with pytest.raises(LifecycleError, match="bad is stuck"):
            getattr(PagletProxy(proxy.host_url, proxy.agent_id, client), operation)(*arguments)
    assert proxy.is_active()
    assert target.list_agents() == []
    assert host.resources_for(proxy.agent_id).status() == {"bad": False}
    host.resources_for(proxy.agent_id).remove("bad")
    proxy.send(Message("do", {"steps": "resource quiet"}))
    getattr(proxy, operation)(*arguments)
    assert where(proxy, host, target) == {"deactivate": ["alpha"], "dispatch": ["beta"], "dispose": []}[operation]


def test_resources_can_be_released_from_outside(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    proxy.send(Message("do", {"steps": "resource one; resource bad"}))
    with pytest.raises(LifecycleError, match="bad is stuck"):
        host.resources_for(proxy.agent_id).cleanup(reason="test")
    assert host.resources_for(proxy.agent_id).status() == {"bad": False}


# --- processes that end by themselves ----------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "code"), [("exit 3", 3), ("kill 7", 7), ("exit 0", 0)])
def test_a_process_that_ends_is_a_crash_of_its_paglet_only(hosts: HostFactory, steps: str, code: int) -> None:
    host = hosts()
    proxy, other = host.create(Actor, agent_id="one"), host.create(Actor)
    with pytest.raises(PagletCrashedError):
        proxy.send(Message("do", {"steps": steps}))
    info = proxy.info()
    assert (info["active"], info["crashed"], info["exitcode"], info["mailbox"]) == (False, True, code, None)
    event = await_event(host, "paglet-crashed", agent_id="one")
    assert event.data == {"pid": info["pid"], "exitcode": code}
    assert event.error == f"process exited with code {code}"
    assert host.health()["active_count"] == 1
    assert other.send(Message("add")) == 1
    with pytest.raises(PagletCrashedError):
        proxy.send(Message("add"))
    with pytest.raises(PagletCrashedError):
        host.get_state("one", ActorState)
    with pytest.raises(ConflictError):
        host.create(Actor, agent_id="one")
    host.dispose("one")
    assert host.create(Actor, agent_id="one").send(Message("add")) == 1


def test_a_killed_process_says_how_it_ended(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    os.kill(proxy.info()["pid"], 9)
    assert "SIGKILL" in await_event(host, "paglet-crashed").error


def test_messages_that_wait_for_a_process_that_ends_fail(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(Actor)
    first = proxy.send_future(Message("do", {"steps": f"gate {gate}; kill 9"}))
    gate.await_entered()
    second = proxy.send_future(Message("add"))
    eventually(lambda: host.mailbox_status(proxy.agent_id)["queued_count"] == 1, "the message to wait")
    gate.open()
    for reply in (first, second):
        with pytest.raises(PagletCrashedError):
            reply.get_reply(10)


def test_a_handler_that_raises_is_an_answer_and_nothing_more(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Actor)
    for client in (proxy.client, HostClient()):
        far = PagletProxy(proxy.host_url, proxy.agent_id, client)
        with pytest.raises(HostError, match="on purpose") as caught:
            far.send(Message("do", {"steps": "fail on purpose"}))
        assert type(caught.value) is HostError
        assert far.send(Message("add")) > 0


@pytest.mark.parametrize("way", ["stop", "shutdown"])
def test_a_host_stops_whatever_its_paglets_do(hosts: HostFactory, gate: Gate, way: str) -> None:
    host = hosts(run_settle_seconds=0.01)
    stuck = host.create(Actor, agent_id="stuck")
    host.create(Actor)
    reply = stuck.send_future(Message("do", {"steps": f"count 5; gate {gate}"}))
    gate.await_entered()
    getattr(host, way)()
    with pytest.raises((HostError, PagletCrashedError)):
        reply.get_reply(10)
    stored = host.list_agents(active=False, inactive=True)
    assert len(stored) == (0 if way == "stop" else 2)
    host.stop()
    host.shutdown()


def test_a_host_that_was_never_started_can_be_stopped_and_asked(hosts: HostFactory) -> None:
    host = hosts.new()
    host.stop()
    host.shutdown()
    assert host.get_proxies(ACTIVE | INACTIVE) == []
    assert host.list_agents(inactive=True) == []
    with pytest.raises(HostError, match="not started"):
        host.create(Actor)


def test_a_host_can_be_stopped_and_started_again(hosts: HostFactory) -> None:
    host = hosts()
    first = host.address
    host.create(Actor)
    host.stop()
    host.start_background()
    assert host.address == first
    assert host.create(Actor).call(Actor.add) == 1


def test_serving_for_ever_ends_with_the_host(hosts: HostFactory) -> None:
    host = hosts.new()
    server = threading.Thread(target=host.serve_forever)
    server.start()
    eventually(lambda: host.running and HostClient().get_json(f"{host.address}/health"), "the host to serve")
    host.stop()
    server.join(10)
    assert not server.is_alive()


def test_two_hosts_do_not_share_a_directory_or_a_port(hosts: HostFactory) -> None:
    alpha = hosts()
    with pytest.raises(HostError, match="in use"):
        hosts.new("beta", persistence_dir=alpha.persistence_dir).start_background()
    with pytest.raises(HostError, match="in use"):
        hosts.new("gamma", port=alpha.port).start_background()


def test_unknown_paglets_are_named_in_every_refusal(hosts: HostFactory) -> None:
    host = hosts()
    for ask in (
        lambda: host.get_state("nobody", ActorState),
        lambda: host.dispatch("nobody", host.address),
        lambda: host.clone("nobody"),
        lambda: host.deactivate("nobody"),
        lambda: host.activate("nobody"),
        lambda: host.dispose("nobody"),
        lambda: host.deliver_message("nobody", Message("x")),
        lambda: host.mailbox_status("nobody"),
        lambda: host.work_dir_for("nobody"),
        lambda: host.persistent_storage_for("nobody"),
        lambda: host.wait_message("nobody", timeout=0),
        lambda: host.notify_message("nobody"),
        lambda: host.resources_for("nobody"),
        lambda: host.registered_files_for("nobody"),
        lambda: host.advertise_service("nobody", "service"),
        lambda: host.retract(host.address, "nobody"),
    ):
        with pytest.raises(InvalidAgentError, match="nobody"):
            ask()


def test_properties_of_a_host_are_shared_in_memory(hosts: HostFactory) -> None:
    host = hosts()
    host.set_property("colour", "red")
    assert host.get_property("colour") == "red"
    host.set_property("colour", None)
    assert host.get_property("colour", "none") == "none"
