"""Messages between programs and paglets: replies, order, priorities, bounds and what becomes of failures."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from paglets.core.errors import (
    HostError,
    InvalidAgentError,
    LifecycleError,
    NotHandledError,
    OverloadedError,
    PagletError,
    RemoteHostError,
    RemoteTimeoutError,
    SerializationError,
    StorageQuotaError,
)
from paglets.core.messages import FUTURE, MAX_PRIORITY, MIN_PRIORITY, ONEWAY, UNQUEUED_PRIORITY, Message, ReplySet
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.actor import Actor, ActorState
from tests.agents.talk import Chatty, Talker, TalkState
from tests.support import Gate, HostFactory, await_event, events_of, eventually


def heard(host: Host, proxy: PagletProxy) -> list[Any]:
    return host.get_state(proxy.agent_id, TalkState).heard


def hear(what: Any, **options: Any) -> Message:
    return Message("hear", {"what": what}, **options)


def over_http(proxy: PagletProxy) -> PagletProxy:
    return PagletProxy(proxy.host_url, proxy.agent_id, HostClient())


def hold(proxy: PagletProxy, gate: Gate) -> Any:
    """Keep a talker's handler busy and return its coming reply."""
    reply = proxy.send_future(Message("gate", {"path": str(gate)}))
    gate.await_entered()
    return reply


# --- replies -----------------------------------------------------------------------------------------------------


def test_a_future_reply_comes_while_the_sender_does_other_things(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(Talker)
    reply = hold(proxy, gate)
    assert not reply.is_available()
    assert not reply.wait_for_reply(0.01)
    gate.open()
    assert reply.wait_for_reply(10)
    assert reply.get_reply(timeout=1) == "through"
    assert reply.get_string_reply() == "through"


def test_a_reply_set_gives_every_reply(hosts: HostFactory) -> None:
    host = hosts()
    proxies = [host.create(Talker) for _ in range(2)]
    replies = ReplySet([proxy.send_future(hear(number)) for number, proxy in enumerate(proxies)])
    assert replies.wait_for_all_replies(10)
    assert [reply.get_reply() for reply in replies] == [1, 1]
    assert list(replies) == []


def test_a_multicast_reaches_every_active_paglet_of_its_host(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    there = beta.create(Talker)
    one, two, three, asleep = (alpha.create(Talker) for _ in range(4))
    asleep.deactivate()
    replies = alpha.multicast_message("hear", {"what": "all"}, exclude={three.agent_id})
    assert replies.wait_for_all_replies(10)
    assert [reply.get_reply() for reply in replies] == [1, 1]
    template = hear("again")
    replies = alpha.multicast_message(template)
    assert replies.wait_for_all_replies(10)
    assert sorted(reply.get_reply() for reply in replies) == [1, 2, 2]
    assert heard(alpha, one) == heard(alpha, two) == ["all", "again"]
    assert heard(alpha, three) == ["again"]
    assert heard(beta, there) == []
    assert asleep.is_state(False)
    sent = {event.message_id for event in events_of(alpha, "message-queued")}
    assert len(sent) == 5
    assert template.message_id not in sent


def test_a_multicast_delivers_what_raises_as_the_reply_of_that_paglet(hosts: HostFactory) -> None:
    host = hosts()
    host.create(Talker)
    host.create(Actor)
    replies = host.multicast_message("hear", {"what": 1})
    assert replies.wait_for_all_replies(10)
    assert sorted(reply.get_reply() for reply in replies) == [1, 1]
    replies = host.multicast_message("metadata")
    outcomes = []
    while (reply := replies.get_next_future_reply(10)) is not None:
        try:
            outcomes.append(reply.get_reply()["kind"])
        except PagletError as exc:
            outcomes.append(type(exc).__name__)
    assert sorted(outcomes) == ["NotHandledError", "metadata"]


def test_what_a_message_says_of_itself_arrives(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Talker)
    message = Message("metadata", sender="me", reply_to="you", priority=7, message_id="m1", timestamp=12.5)
    for way in (proxy, over_http(proxy)):
        wire = way.send(message)
        assert wire == {**message.to_wire(), "message_type": wire["message_type"]}
        assert way.send_future(message).get_reply(10)["message_type"] == FUTURE
    assert (message.message_type, message.sender) == (0, "me")


def test_binary_values_survive_every_way(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Talker)
    for way in (proxy, over_http(proxy)):
        wire = way.send(Message("metadata", {}, arg=None))
        assert wire["args"] == {}
        way.send(hear({"deep": [b"\x00\xff", bytearray(b"x"), {"t": (1, 2)}]}))
    assert heard(host, proxy) == [{"deep": [b"\x00\xff", b"x", {"t": [1, 2]}]}] * 2


@pytest.mark.parametrize("way", ["near", "far"])
@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        ("ValueError", RemoteHostError),
        ("KeyError", HostError),
        ("TypeError", HostError),
        ("PagletError", HostError),
        ("StorageQuotaError", StorageQuotaError),
    ],
)
def test_an_exception_of_a_handler_reaches_its_sender(
    hosts: HostFactory, way: str, raised: str, caught: type[Exception]
) -> None:
    host = hosts()
    proxy = host.create(Talker)
    sender = proxy if way == "near" else over_http(proxy)
    with pytest.raises(PagletError, match="on purpose") as found:
        sender.send(Message("raises", {"name": raised}))
    assert type(found.value) is caught
    assert sender.send(hear("next")) == 1


def test_a_reply_that_cannot_travel_is_an_error_of_that_message_alone(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Talker)
    for way in (proxy, over_http(proxy)):
        with pytest.raises(SerializationError):
            way.send(Message("unencodable"))
        with pytest.raises(SerializationError):
            way.send(hear(object()))
    assert proxy.send(hear("next")) == 1


def test_a_reply_that_does_not_come_in_time_is_a_timeout(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(Talker)
    held = hold(proxy, gate)
    for way in (proxy, over_http(proxy), proxy):
        with pytest.raises(RemoteTimeoutError) as caught:
            way.send(hear("late" if way is proxy else "too late"), timeout=0.2)
        assert isinstance(caught.value, TimeoutError)
    gate.open()
    assert held.get_reply(10) == "through"
    proxy.send(hear("next"))
    # Who stopped waiting may have sent it again: a message is not begun that nobody waits for any more. The last one's
    # time may be over for its sender and not yet for the host.
    assert heard(host, proxy)[1:] in (["next"], ["late", "next"])


# --- order and bounds --------------------------------------------------------------------------------------------


def test_messages_are_handled_by_priority_and_then_in_order(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(Talker)
    held = hold(proxy, gate)
    for what, priority in [
        ("low 1", MIN_PRIORITY),
        ("normal 1", 5),
        ("high 1", MAX_PRIORITY),
        ("normal 2", 5),
        ("high 2", MAX_PRIORITY),
        ("low 2", MIN_PRIORITY),
        ("at once", UNQUEUED_PRIORITY),
    ]:
        proxy.send_oneway(hear(what, priority=priority))
    gate.open()
    held.get_reply(10)
    eventually(lambda: len(heard(host, proxy)) == 8, "all messages")
    assert heard(host, proxy) == [
        "gate",
        "at once",
        "high 1",
        "high 2",
        "normal 1",
        "normal 2",
        "low 1",
        "low 2",
    ]


def test_messages_of_many_senders_are_handled_one_at_a_time_and_each_sender_in_order(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Talker)

    def talk(sender: int) -> None:
        for number in range(25):
            proxy.send([proxy, over_http(proxy)][sender % 2] and hear([sender, number]))

    threads = [threading.Thread(target=talk, args=(sender,)) for sender in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    state = host.get_state(proxy.agent_id, TalkState)
    assert state.most_running == 1
    assert len(state.heard) == 100
    for sender in range(4):
        assert [number for who, number in state.heard if who == sender] == list(range(25))


def test_a_full_mailbox_answers_at_once_and_loses_nothing_it_took(
    hosts: HostFactory, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paglets.runtime.agents.MAILBOX_MESSAGES", 10)
    monkeypatch.setattr("paglets.runtime.pump.MAILBOX_MESSAGES", 10)
    host = hosts()
    proxy = host.create(Talker)
    held = hold(proxy, gate)
    for number in range(10):
        proxy.send_oneway(hear(number))
    for way in (proxy, over_http(proxy)):
        # One that waited would end with its timeout.
        with pytest.raises(OverloadedError):
            way.send(hear("too much"))
        with pytest.raises(OverloadedError):
            way.send_oneway(hear("too much"))
        with pytest.raises(OverloadedError):
            way.send(hear("too much", priority=UNQUEUED_PRIORITY))
    gate.open()
    held.get_reply(10)
    assert proxy.send(hear("last")) == 12
    assert heard(host, proxy) == ["gate", *range(10), "last"]
    assert events_of(host, "message-failed")[0].error.startswith("mailbox of paglet")


def test_a_mailbox_is_bounded_in_bytes_too(hosts: HostFactory, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paglets.runtime.agents.MAILBOX_BYTES", 1_000_000)
    host = hosts()
    proxy = host.create(Talker)
    held = hold(proxy, gate)
    proxy.send_oneway(hear(b"x" * 600_000))
    with pytest.raises(OverloadedError):
        proxy.send(hear(b"x" * 600_000))
    proxy.send_oneway(hear("small"))
    gate.open()
    held.get_reply(10)
    eventually(lambda: len(heard(host, proxy)) == 3, "what was taken")


# --- one-way messages --------------------------------------------------------------------------------------------


def test_a_one_way_message_is_accepted_and_its_failure_is_an_event(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Talker)
    for way in (proxy, over_http(proxy)):
        assert way.send_oneway(Message("raises", {"name": "KeyError"}, message_id=f"m-{way is proxy}")) is None
    eventually(lambda: len(events_of(host, "message-failed")) == 2, "both failures")
    for event in events_of(host, "message-failed"):
        assert event.agent_id == proxy.agent_id
        assert event.message_id in ("m-True", "m-False")
        assert "on purpose" in event.error
    proxy.send_oneway(Message("nonsense"))
    eventually(lambda: len(events_of(host, "message-failed")) == 3, "the declined message")
    assert proxy.send(Message("metadata", message_type=ONEWAY))["message_type"] == 0
    with pytest.raises(InvalidAgentError):
        PagletProxy(host.address, "nobody", host.client).send_oneway(hear(1))


def test_the_events_of_a_message_tell_its_way(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Talker)
    proxy.send(hear(1, message_id="good"))
    with pytest.raises(NotHandledError):
        proxy.send(Message("bad", message_id="bad"))
    assert [(event.kind, event.message_id) for event in events_of(host) if event.message_id] == [
        ("message-queued", "good"),
        ("message-delivered", "good"),
        ("message-queued", "bad"),
        ("message-failed", "bad"),
    ]


# --- a paglet and itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ask_self", "ask_self_async"])
def test_a_handler_that_waits_for_its_own_reply_fails_at_once(hosts: HostFactory, kind: str) -> None:
    host = hosts()
    proxy = host.create(Talker)
    answer = proxy.send(Message(kind))
    assert answer.startswith("CallCycleError: ")
    assert f"{proxy.agent_id} -> {proxy.agent_id}" in answer
    assert heard(host, proxy) == []


def test_a_handler_may_leave_a_message_for_itself(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Talker)
    assert proxy.send(Message("tell_self")) == "told"
    assert proxy.send(hear("after")) == 2
    assert proxy.send(Message("ask_self_from_thread")) == "pending"
    eventually(lambda: heard(host, proxy) == ["self", "after", "thread"], "the thread's message")


def test_a_run_may_ask_its_own_handlers(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Chatty)
    eventually(lambda: heard(host, proxy) == ["from run"], "the message of run")


# --- waiting in handlers -----------------------------------------------------------------------------------------


def test_a_wait_ends_with_its_time_or_a_notification_from_outside(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Talker)
    assert proxy.send(Message("wait", {"timeout": 0.02})) is False
    reply = proxy.send_future(Message("wait", {"timeout": 10}))
    eventually(lambda: host.notify_message(proxy.agent_id) or reply.is_available(), "the notification to arrive")
    assert reply.get_reply() is True
    reply = proxy.send_future(Message("wait", {"timeout": 10}))
    eventually(lambda: host.notify_all_messages(proxy.agent_id) or reply.is_available(), "the notification")
    assert reply.get_reply() is True
    assert host.wait_message(proxy.agent_id, timeout=0.01) is False


def test_two_waiting_handlers_are_not_woken_by_a_message_behind_them(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Talker)
    waits = [proxy.send_future(Message("wait", {"timeout": 0.1})) for _ in range(2)]
    notification = proxy.send_future(Message("notify"))
    assert host.get_state(proxy.agent_id, TalkState).heard == []
    assert [wait.get_reply(10) for wait in waits] == [False, False] or notification.is_available()
    assert notification.get_reply(10) == "notified"


def test_a_thread_of_the_paglet_can_wake_its_handler(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Talker)
    assert proxy.send(Message("wait_for_thread", {"timeout": 10})) is True
    assert proxy.send(Message("wait_state_of_thread", {"timeout": 10})) is True


def test_a_handler_that_waits_for_what_another_message_brings_times_out(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Talker)
    waiting = proxy.send_future(Message("wait_for", {"what": "never", "timeout": 0.1}))
    eventually(lambda: host.mailbox_status(proxy.agent_id)["in_flight_count"], "the handler to run")
    later = proxy.send_future(hear("never"))
    assert waiting.get_reply(10) is False
    assert later.get_reply(10) == 1
    assert proxy.send(Message("wait_for", {"what": "never", "timeout": 0})) is True


# --- paglets among each other ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["same host", "other host"])
def test_paglets_ask_each_other_and_see_the_same_errors_near_and_far(
    hosts: HostFactory, gate: Gate, place: str
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    asker = alpha.create(Talker)
    host = alpha if place == "same host" else beta
    other = host.create(Talker)

    def ask(kind: str, agent_id: str = other.agent_id, timeout: float = 10.0, **args: Any) -> list[Any]:
        message = {
            "host_url": host.address,
            "agent_id": agent_id,
            "kind": kind,
            "args": args,
            "timeout": timeout,
        }
        answer: list[Any] = asker.send(Message("ask", message), timeout=30)
        return answer

    assert ask("hear", what=b"\x01") == ["reply", 1]
    assert ask("raises", name="KeyError") == ["HostError", "'on purpose'"]
    assert ask("raises", name="ValueError") == ["RemoteHostError", "on purpose"]
    assert ask("raises", name="StorageQuotaError") == ["StorageQuotaError", "on purpose"]
    assert ask("nonsense")[0] == "NotHandledError"
    assert ask("hear", agent_id="nobody", what=1)[0] == "InvalidAgentError"
    held = hold(other, gate)
    error, text = ask("hear", what="late", timeout=0.1)
    assert (error, "within 0.1 s" in text) == ("RemoteTimeoutError", True)
    gate.open()
    held.get_reply(10)


def test_a_deactivate_message_stores_the_paglet_instead_of_being_handled(hosts: HostFactory) -> None:
    from paglets.core.messages import DEACTIVATE
    from paglets.core.policies import DeactivationRequest

    host = hosts()
    for way in (lambda proxy: proxy, over_http):
        proxy = host.create(Actor)
        request = DeactivationRequest(reason="asked").to_wire()
        assert way(proxy).send(Message(DEACTIVATE, {"request": request})) == {
            "deactivated": True,
            "proxy": proxy.to_wire(),
        }
        assert proxy.is_state(False)
        proxy.activate()
        state = host.get_state(proxy.agent_id, ActorState)
        assert [event["reason"] for event in state.events[1:]] == ["asked", "activate"]
        way(proxy).send_oneway(Message(DEACTIVATE))
        eventually(lambda proxy=proxy: proxy.is_state(False), "the paglet to be stored")
    with pytest.raises(InvalidAgentError):
        PagletProxy(host.address, "nobody", host.client).send(Message(DEACTIVATE))


def test_a_paglet_cannot_be_moved_from_two_sides_at_once(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(Actor, ActorState(plan={"deactivating": [f"gate {gate}"]}))
    reply = proxy.send_future(Message("do", {"steps": "deactivate"}))
    gate.await_entered()
    late = proxy.send_future(Message("add"))
    gate.open()
    assert reply.get_reply(10) == proxy.to_wire()
    assert late.get_reply(10) == 1
    assert await_event(host, "activate").agent_id == proxy.agent_id


def test_a_handler_that_asks_while_someone_else_moves_its_paglet_is_told_so(hosts: HostFactory, gate: Gate) -> None:
    from concurrent.futures import ThreadPoolExecutor

    host = hosts()
    proxy = host.create(Actor)
    reply = proxy.send_future(Message("do", {"steps": f"gate {gate}; deactivate"}))
    gate.await_entered()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(proxy.deactivate)
        eventually(lambda: host._node.kernel.agents.require(proxy.agent_id).lock.locked(), "the other operation")
        gate.open()
        with pytest.raises(PagletError, match="another lifecycle operation"):
            reply.get_reply(10)
        assert other.result(10).is_state(False)
    assert isinstance(LifecycleError("x"), PagletError)
