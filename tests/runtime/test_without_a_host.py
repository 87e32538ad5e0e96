"""Paglets in unit tests of their authors: no host, no process."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from paglets.core.agent import Paglet, PagletState, state_locked
from paglets.core.context import PagletContext
from paglets.core.errors import HostError, NotHandledError, SerializationError
from paglets.core.messages import Message
from tests.agents.actor import Actor, ActorState, Needy, NeedyState, Picky
from tests.agents.typed import Asynchronous, Point, Typed


def test_a_paglet_is_made_like_any_object() -> None:
    paglet = Actor()
    assert isinstance(paglet.state, ActorState)
    assert len(paglet.agent_id) == 32
    assert paglet.agent_id == paglet.agent_id.lower()
    assert Actor().agent_id != paglet.agent_id
    assert paglet.resources.status() == {}
    assert Actor(ActorState(count=2), agent_id="mine").agent_id == "mine"
    with pytest.raises(TypeError):
        Needy()
    assert Needy(NeedyState("n")).state.name == "n"


def test_a_state_must_be_a_dataclass() -> None:
    class Stateless(Paglet[Any]):
        pass

    class Plain(PagletState):
        pass

    class WithPlain(Paglet[Any]):
        State = Plain

    for make in (Stateless, WithPlain, lambda: Actor({"count": 1}), lambda: Actor(ActorState)):  # type: ignore[arg-type]
        with pytest.raises(HostError):
            make()


def test_what_needs_a_host_says_so() -> None:
    paglet = Actor()
    for attempt in (
        lambda: paglet.context,
        lambda: paglet.dispatch("http://h:1"),
        paglet.clone,
        paglet.deactivate,
        lambda: paglet.send("other", Message("x")),
        paglet.work_dir,
        lambda: paglet.handle_message(Message("do", {"steps": "deactivate"})),
    ):
        with pytest.raises(HostError, match="not attached"):
            attempt()
    with pytest.raises(HostError, match="agent_id"):
        PagletContext(SimpleNamespace(work_dir_for=None)).work_dir()  # type: ignore[arg-type]


def test_messages_are_handled_by_a_call() -> None:
    paglet = Actor()
    assert paglet.handle_message(Message("add", {"by": 2})) == 2
    assert paglet.add(by=3) == 5
    with pytest.raises(NotHandledError, match=r"Actor.*nonsense"):
        paglet.handle_message(Message("nonsense"))
    assert Picky().handle_message(Message("nonsense")) is Picky().not_handled()
    typed = Typed()
    assert typed.handle_message(Message("put", {"name": "a", "point": {"x": 1}})) == Point(0, 1)
    with pytest.raises(SerializationError):
        typed.handle_message(Message("put", {"name": "a"}))
    assert asyncio.run(Asynchronous().handle_message(Message("add", {"point": {"x": 1}}))) == Point(2, 1)


def test_a_context_can_be_stood_in_for() -> None:
    paglet = Actor()
    paglet._context = SimpleNamespace(name="stand-in", address="http://stand-in")  # type: ignore[assignment]
    paglet.run()
    assert paglet.state.places == ["stand-in"]
    other = Actor()
    other._attach(PagletContext(SimpleNamespace(name="other", address="http://other")))  # type: ignore[arg-type]
    assert other.handle_message(Message("look"))["host"] == "other"


def test_the_state_lock_keeps_threads_apart() -> None:
    paglet = Actor()

    def work() -> None:
        for _ in range(100):
            with paglet.locked_state() as state:
                count = state.count
                with paglet.locked():
                    state.count = count + 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert paglet.state.count == 800


class Guarded(Paglet[ActorState]):
    State = ActorState

    @state_locked
    def inside(self, action: Any) -> Any:
        """Call something under the lock."""
        return action()


def test_a_locked_method_keeps_others_out_and_lets_results_and_errors_through() -> None:
    paglet = Guarded()
    assert paglet.inside(lambda: 7) == 7
    with pytest.raises(KeyError):
        paglet.inside(lambda: {}["missing"])
    assert Guarded.inside.__name__ == "inside"
    assert Guarded.inside.__doc__ == "Call something under the lock."
    assert paglet.inside(lambda: paglet.inside(lambda: "nested")) == "nested"
    entered, release, order = threading.Event(), threading.Event(), []

    def hold() -> None:
        entered.set()
        release.wait(10)
        order.append("first")

    threads = [threading.Thread(target=paglet.inside, args=(hold,))]
    threads[0].start()
    assert entered.wait(10)
    threads.append(threading.Thread(target=paglet.inside, args=(lambda: order.append("second"),)))
    threads[1].start()
    assert order == []
    release.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "second"]


def test_waiting_for_a_state_ends_when_it_holds_or_time_is_over() -> None:
    paglet = Actor()
    assert paglet.wait_state(lambda state: state.count == 0)
    assert not paglet.wait_state(lambda state: state.count == 1, timeout=0.01)
    assert not paglet.wait_state(lambda state: state.count == 1, timeout=-5)
    looked = threading.Event()

    def look(state: ActorState) -> bool:
        looked.set()
        return state.count == 1

    outcomes: list[bool] = []
    waiters = [threading.Thread(target=lambda: outcomes.append(paglet.wait_state(look, 10))) for _ in range(2)]
    for waiter in waiters:
        waiter.start()
    assert looked.wait(10)
    with paglet.locked_state() as state:
        state.count = 1
        paglet.notify_state_changed()
        paglet.notify_all_state_changed()
    for waiter in waiters:
        waiter.join(10)
    assert outcomes == [True, True]
