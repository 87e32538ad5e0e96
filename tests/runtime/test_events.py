"""The events of a host, and those who listen to them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from paglets.core.context_events import ContextEvent
from paglets.core.errors import HostError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from tests.agents.actor import Actor, ActorState
from tests.support import HostFactory, await_event, events_of, eventually


def lifecycle(host: Any) -> list[str]:
    return [event.kind for event in events_of(host) if not event.kind.startswith("message")]


def test_listeners_added_before_the_start_hear_of_it(hosts: HostFactory) -> None:
    host = hosts.new()
    heard: list[ContextEvent] = []
    started = threading.Event()

    def listen(event: ContextEvent) -> None:
        heard.append(event)
        started.set()

    host.add_listener(listen)
    host.add_listener(listen)
    host.start_background()
    assert started.wait(10)
    assert heard[0].kind == "context-start"
    assert (heard[0].host_name, heard[0].host_address) == ("alpha", host.address)
    host.create(Actor)
    assert host.list_events()  # waits until the listeners have been told
    assert [event.event_id for event in heard] == [1, 2]
    host.remove_listener(listen)
    host.create(Actor)
    host.list_events()
    assert len(heard) == 2


def test_a_listener_that_fails_is_an_event_and_harms_nobody(hosts: HostFactory) -> None:
    host = hosts()
    heard: list[str] = []

    def bad(_: ContextEvent) -> None:
        raise RuntimeError("listener is broken")

    host.add_listener(bad)
    host.add_listener(lambda event: heard.append(event.kind))
    host.create(Actor)
    failed = await_event(host, "event-listener-failed")
    (created,) = events_of(host, "create")
    assert failed.error == "listener is broken"
    assert failed.data["event_id"] == created.event_id
    assert "bad" in failed.data["listener"]
    eventually(lambda: heard == ["create", "event-listener-failed"], "the other listener to hear of both")


def test_a_slow_listener_does_not_hold_up_the_host(hosts: HostFactory) -> None:
    host = hosts()
    release, entered = threading.Event(), threading.Event()

    def slow(_: ContextEvent) -> None:
        entered.set()
        release.wait(20)

    host.add_listener(slow)
    try:
        proxy = host.create(Actor)
        assert entered.wait(10)
        assert proxy.send(Message("add")) == 1
    finally:
        release.set()


def test_events_are_numbered_from_one_and_read_in_pieces(hosts: HostFactory) -> None:
    host = hosts()
    for _ in range(3):
        host.create(Actor)
    client = HostClient()
    first = client.get_json(f"{host.address}/events?since=0&limit=2")["events"]
    assert [event["event_id"] for event in first] == [1, 2]
    assert [event["kind"] for event in first] == ["context-start", "create"]
    rest = client.get_json(f"{host.address}/events?since=2")["events"]
    assert [event["event_id"] for event in rest] == [3, 4]
    assert [event.to_wire() for event in host.list_events()] == first + rest
    assert host.list_events(limit=0) == []
    assert set(first[0]) == {
        "event_id",
        "kind",
        "host_name",
        "host_address",
        "timestamp",
        "agent_id",
        "class_name",
        "message_id",
        "service_name",
        "data",
        "error",
    }


def test_a_life_is_told_in_events(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Actor)
    copy = proxy.clone()
    proxy.deactivate(reason="pause")
    proxy.activate()
    away = proxy.dispatch(beta.address)
    alpha.retract(beta.address, away.agent_id)
    proxy.dispose()
    copy.deactivate()
    copy.dispose()
    alpha.stop()
    assert lifecycle(beta) == ["context-start", "arrival", "retract"]
    told = [event for event in events_of(alpha) if not event.kind.startswith("message")]
    assert [event.kind for event in told if event.kind != "clone"] == [
        "context-start",
        "create",
        "deactivate",
        "activate",
        "dispatch",
        "arrival",
        "dispose",
        "deactivate",
        "dispose",
        "context-shutdown",
    ]
    assert len(events_of(alpha, "clone")) == 2
    assert [event.data for event in events_of(alpha, "deactivate")] == [{"reason": "pause"}, {"reason": "deactivate"}]
    assert [event.data for event in events_of(alpha, "dispose")] == [{"active": True}, {"active": False}]
    assert {event.class_name for event in told if event.agent_id} == {"tests.agents.actor:Actor"}


def test_what_fails_leaves_no_event_of_success(hosts: HostFactory) -> None:
    host = hosts()
    with pytest.raises(HostError):
        host.create(Actor, ActorState(plan={"creation": ["fail no"]}))
    proxy = host.create(
        Actor, ActorState(plan={hook: ["fail no"] for hook in ("deactivating", "disposing", "cloning")})
    )
    for operation in ("deactivate", "dispose", "clone"):
        with pytest.raises(HostError):
            getattr(proxy, operation)()
    assert lifecycle(host) == ["context-start", "create"]
