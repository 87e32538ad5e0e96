"""The testing mesh and real hosts: the same scenarios, and the same to be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from paglets.core.messages import Message
from tests.agents.actor import Actor, ActorState, Picky, Stubborn
from tests.agents.conformist import Careful, Conformist, ConformistState
from tests.testing.worlds import MeshWorld, Observer, RealWorld, World

Scenario = Callable[[Observer], None]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


@scenario
def a_life(see: Observer) -> None:
    actor = see.create("alpha", Actor)
    see.ask(actor, "add", by=2)
    there = see.attempt(lambda: actor.dispatch("beta"))
    see.ask(actor, "add")
    see.ask(there, "look")
    see.attempt(lambda: there.deactivate(reason="rest"))
    see.ask(there, "look")
    back = see.attempt(lambda: there.dispatch(see.world.url("alpha")))
    see.ask(back, "look")
    see.attempt(back.dispose)
    see.ask(back, "look")
    see.note_events(back)


@scenario
def errors_of_handlers(see: Observer) -> None:
    actor, picky = see.create("alpha", Actor), see.create("alpha", Picky)
    see.ask(actor, "do", steps="fail on purpose")
    see.ask(actor, "unknown")
    see.ask(actor, "add", by="text")
    see.ask(picky, "echo", text="x")
    see.ask(picky, "none")
    see.ask(picky, "other")
    see.ask(actor, "look")


@scenario
def moves_that_its_handler_asks_for(see: Observer) -> None:
    actor = see.create("alpha", Actor)
    see.ask(actor, "do", steps=f"dispatch {see.world.url('beta')}; count 5")
    see.ask(actor, "look")
    see.ask(actor, "do", steps="trydispatch http://127.0.0.1:1")
    see.ask(actor, "do", steps="deactivate tired")
    see.ask(actor, "look")
    see.ask(actor, "do", steps="dispose")
    see.ask(actor, "look")
    see.note_events(actor)


@scenario
def hooks_that_fail(see: Observer) -> None:
    see.attempt(lambda: see.create("alpha", Actor, ActorState(plan={"creation": ["fail at birth"]})))
    plan = {"dispatching": ["fail to go", "", ""], "arrival": ["fail to come"], "deactivating": ["fail to sleep"]}
    actor = see.create("alpha", Actor, ActorState(plan=plan))
    for _ in range(3):
        see.attempt(lambda: actor.dispatch("beta"))
    see.attempt(actor.deactivate)
    see.ask(actor, "look")
    see.note_events(actor)


@scenario
def hooks_that_move(see: Observer) -> None:
    plan = {"creation": [f"dispatch {see.world.url('beta')}"], "arrival": ["clone ", ""]}
    actor = see.create("alpha", Actor, ActorState(plan=plan))
    see.ask(actor, "look")
    see.note(len(see.world.host("beta").list_agents()) >= 2)


@scenario
def copies(see: Observer) -> None:
    actor = see.create("alpha", Actor, ActorState(count=4))
    copy = actor.clone("beta")
    see.note([copy.host_url, copy.agent_id != actor.agent_id])
    see.note({**copy.send(Message("look")), "log": copy.send(Message("look"))["log"]})
    see.ask(actor, "look")


@scenario
def ends_of_processes(see: Observer) -> None:
    for steps in ("exit 3", "kill 4"):
        actor = see.create("alpha", Actor)
        see.ask(actor, "do", steps=steps)
        see.ask(actor, "look")
        see.attempt(actor.dispose)
        see.note_events(actor)


@scenario
def policies(see: Observer) -> None:
    see.attempt(see.create("alpha", Stubborn).deactivate)
    asleep = see.create("alpha", Actor, ActorState(policy={"activate_on_message": False}))
    see.attempt(asleep.deactivate)
    see.attempt(lambda: asleep.send(Message("add"), no_delay=True))
    see.attempt(lambda: asleep.send_oneway(Message("add")))
    see.attempt(asleep.activate)
    see.world.eventually(lambda: asleep.send(Message("look"))["count"] == 1)
    see.ask(asleep, "look")


@scenario
def resources_are_released(see: Observer) -> None:
    actor = see.create("alpha", Actor)
    see.ask(actor, "do", steps="resource one; resource quiet; resource two")
    see.attempt(lambda: actor.dispatch("beta"))
    see.ask(actor, "do", steps="resource bad")
    see.attempt(lambda: actor.dispatch("alpha"))
    see.ask(actor, "look")


@scenario
def state_that_cannot_travel(see: Observer) -> None:
    paglet = see.create("alpha", Conformist)
    see.ask(paglet, "carry", what="lock")
    see.attempt(lambda: paglet.dispatch("beta"))
    see.attempt(paglet.deactivate)
    see.ask(paglet, "tick")
    see.ask(paglet, "carry", what="none")
    see.attempt(lambda: paglet.dispatch("beta"))


@scenario
def paglets_that_call_each_other(see: Observer) -> None:
    one, two = see.create("alpha", Conformist), see.create("beta", Conformist)
    for url in (two.host_url, see.world.url("alpha")):
        see.ask(one, "call_other", url=url, agent_id=two.agent_id, kind="tick")
    see.ask(one, "call_other", url=one.host_url, agent_id=one.agent_id, kind="tick")
    see.ask(one, "call_other", url=two.host_url, agent_id="nobody", kind="tick")
    see.ask(one, "call_many", url=two.host_url, agent_id=two.agent_id, times=4)
    two.dispatch("alpha")
    see.ask(one, "call_other", url=two.host_url, agent_id=two.agent_id, kind="tick")
    see.ask(one, "make")


@scenario
def coroutines_threads_and_waiting(see: Observer) -> None:
    paglet = see.create("alpha", Conformist)
    see.ask(paglet, "tick_slowly", seconds=0.1)
    see.ask(paglet, "notes")
    see.ask(paglet, "use_threads")
    see.ask(paglet, "wait_in_vain")
    waiting = see.create("alpha", Conformist, ConformistState(slow=True))
    see.ask(waiting, "wait_for_run")


@scenario
def timers(see: Observer) -> None:
    paglet = see.create("alpha", Conformist)
    see.ask(paglet, "set_alarm", after=0.2)
    see.world.eventually(lambda: paglet.send(Message("notes")))
    see.ask(paglet, "notes")
    see.ask(paglet, "set_alarm", after=0.3)
    see.attempt(lambda: paglet.dispatch("beta"))
    see.world.eventually(lambda: len(paglet.send(Message("notes"))) == 2)
    see.ask(paglet, "notes")
    see.ask(paglet, "set_alarm", after=0.3)
    see.attempt(paglet.deactivate)
    see.world.eventually(lambda: see.world.host("beta").get_proxy(paglet.agent_id) is not None)
    see.world.eventually(lambda: len(paglet.send(Message("notes"))) == 3)
    see.ask(paglet, "notes")


@scenario
def creations_that_are_refused(see: Observer) -> None:
    class Local(Conformist):
        pass

    see.attempt(lambda: see.create("alpha", Local))
    see.attempt(lambda: see.create("alpha", Conformist, 3))
    see.attempt(lambda: see.create("alpha", int))
    see.create("alpha", Conformist, agent_id="the-one")
    see.attempt(lambda: see.create("alpha", Conformist, agent_id="the-one"))
    see.attempt(lambda: see.create("alpha", Conformist, agent_id="../x"))


@scenario
def messages_in_order(see: Observer) -> None:
    paglet = see.create("alpha", Actor)
    for number in range(10):
        paglet.send_oneway(Message("hear", {"what": number}))
    see.world.eventually(lambda: len(paglet.send(Message("look"))["heard"]) == 10)
    see.ask(paglet, "look")
    replies = [paglet.send_future(Message("add")) for _ in range(5)]
    see.note(sorted(reply.get_reply(10) for reply in replies))


@scenario
def services(see: Observer) -> None:
    one, two = see.create("alpha", Conformist), see.create("alpha", Conformist)
    see.ask(two, "find", name="ticks")
    see.ask(one, "advertise", name="ticks")
    see.ask(two, "find", name="ticks")
    one.dispose()
    see.ask(two, "find", name="ticks")


@scenario
def a_host_that_stops_and_starts(see: Observer) -> None:
    for cls in (Conformist, Careful):
        paglet = see.create("beta", cls)
        for _ in range(3):
            see.ask(paglet, "tick")
        see.world.reboot("beta")
        see.ask(paglet, "tick")
        see.note_events(paglet)


def _observed(world: World) -> dict[str, list[Any]]:
    seen: dict[str, list[Any]] = {}
    with world:
        for name, run in SCENARIOS.items():
            observer = Observer(world)
            run(observer)
            seen[name] = observer.seen
    return seen


@pytest.fixture(scope="module")
def in_the_mesh() -> dict[str, list[Any]]:
    return _observed(MeshWorld())


@pytest.fixture(scope="module")
def in_reality() -> dict[str, list[Any]]:
    return _observed(RealWorld())


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_is_to_be_seen(name: str, in_the_mesh: dict[str, list[Any]], in_reality: dict[str, list[Any]]) -> None:
    assert in_reality[name] != []
    assert in_the_mesh[name] == in_reality[name]
