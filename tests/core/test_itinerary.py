"""Routes: editing them, following them, and the tasks on the way."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import HostError, TransferError
from paglets.core.itinerary import (
    EXECUTE_ON_ARRIVAL,
    EXECUTE_ON_DEFAULT,
    EXECUTE_ON_DISPATCH,
    EXECUTE_ON_REVERTING,
    ItineraryAgentMixin,
    ItineraryPlan,
    ItineraryTask,
    TaskItineraryPlan,
)

NAMES = st.sampled_from(["alpha", "beta", "gamma", "delta"])
PLANS = st.builds(
    lambda names, index, circular: ItineraryPlan(names, min(index, len(names)), circular=circular),
    st.lists(NAMES, max_size=5),
    st.integers(0, 5),
    st.booleans(),
)


class Traveller:
    """Stands for a paglet: records what the plan looked like when the move began."""

    def __init__(self, plan: ItineraryPlan, *, fails: bool = False) -> None:
        self.plan = plan
        self.fails = fails
        self.moves: list[tuple[str, int, str | None]] = []

    def dispatch(self, target: str) -> str:
        self.moves.append((target, self.plan.current_index, self.plan.current_location))
        if self.fails:
            raise TransferError("unreachable")
        return f"proxy at {target}"


def test_destinations_are_added_at_the_end_at_an_index_and_behind_another() -> None:
    plan = ItineraryPlan()
    assert plan.add_next_destination("a")
    assert plan.add_next_destination("c")
    assert plan.add_next_destination("b", index=1)
    assert plan.add_next_destination("a2", after="a")
    assert plan.add_next_destination("z", after="y")
    assert plan.get_destinations() == ["a", "a2", "b", "c", "y", "z"]


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_the_plan_changes_nothing(index: int) -> None:
    plan = ItineraryPlan(["a", "b"])
    assert not plan.add_next_destination("c", index=index)
    assert not plan.remove_destination_at(index)
    assert plan.destinations == ["a", "b"]


def test_empty_and_unwanted_duplicates_change_nothing() -> None:
    plan = ItineraryPlan(["a"])
    assert not plan.add_next_destination("")
    assert not plan.add_next_destination("", after="b")
    assert not plan.add_next_destination("a", after="b", allow_duplicate=False)
    assert not plan.add_next_destination_if_not_duplicated("a")
    assert plan.destinations == ["a"]
    assert plan.add_next_destination("a")
    assert plan.add_next_destination_if_not_duplicated("b")
    assert plan.destinations == ["a", "a", "b"]


def test_an_immutable_plan_keeps_its_destinations() -> None:
    plan = ItineraryPlan(["a", "b"])
    plan.set_immutable()
    assert not plan.add_next_destination("c", after="x")
    assert not plan.remove_destination("a")
    assert not plan.remove_destination_at(0)
    assert plan.destinations == ["a", "b"]


def test_removal_takes_the_first_and_clamps_the_position() -> None:
    plan = ItineraryPlan(["a", "b", "a"], current_index=3)
    assert plan.remove_destination("a")
    assert (plan.destinations, plan.current_index) == (["b", "a"], 2)
    assert not plan.remove_destination("z")


def test_getters_of_an_empty_plan() -> None:
    plan = ItineraryPlan()
    assert plan.get_first_destination() is None
    assert plan.get_last_destination() is None
    assert plan.get_current_location() is None
    assert plan.next_destination() is None
    assert (plan.get_destination_count(), plan.get_remaining_destination_count(), plan.get_loop_count()) == (0, 0, 0)


def test_getters_of_a_plan_on_its_way() -> None:
    plan = ItineraryPlan(["a", "b", "c"], current_index=1, current_location="a", loop_count=2)
    assert (plan.get_first_destination(), plan.get_last_destination(), plan.get_current_location()) == ("a", "c", "a")
    assert plan.next_destination() == "b"
    assert (plan.get_destination_count(), plan.get_remaining_destination_count(), plan.get_loop_count()) == (3, 2, 2)
    plan.get_destinations().clear()
    assert plan.get_destination_count() == 3


def test_a_route_is_followed_to_its_end() -> None:
    plan = ItineraryPlan(["beta", "alpha", "beta"])
    traveller = Traveller(plan)
    proxies = [plan.dispatch_next(traveller) for _ in range(4)]
    assert proxies == ["proxy at beta", "proxy at alpha", "proxy at beta", None]
    assert traveller.moves == [("beta", 1, "beta"), ("alpha", 2, "alpha"), ("beta", 3, "beta")]
    assert plan.completed
    assert (plan.current_index, plan.visited_destinations) == (3, ["beta", "alpha", "beta"])


def test_a_circular_route_starts_again() -> None:
    plan = ItineraryPlan(["a", "b"], circular=True)
    traveller = Traveller(plan)
    for _ in range(5):
        plan.dispatch_next(traveller)
    assert plan.visited_destinations == ["a", "b", "a", "b", "a"]
    assert (plan.loop_count, plan.current_index, plan.completed) == (2, 1, False)


def test_a_move_that_fails_leaves_the_plan_advanced() -> None:
    plan = ItineraryPlan(["a", "b"])
    with pytest.raises(TransferError):
        plan.dispatch_next(Traveller(plan, fails=True))
    assert plan.next_destination() == "b"


def test_skipping() -> None:
    plan = ItineraryPlan(["a", "b"])
    positions = []
    for _ in range(3):
        plan.skip_next()
        positions.append(plan.current_index)
    assert positions == [1, 2, 2]
    assert plan.loop_count == 0

    circular = ItineraryPlan(["a", "b"], circular=True)
    upcoming = []
    for _ in range(3):
        circular.skip_next()
        upcoming.append(circular.next_destination())
    assert upcoming == ["b", "a", "b"]
    assert circular.loop_count == 1

    empty = ItineraryPlan(circular=True)
    empty.skip_next()
    assert (empty.current_index, empty.loop_count) == (0, 0)


@given(PLANS, st.data())
def test_any_edit_keeps_the_position_within_the_plan(plan: ItineraryPlan, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 6))):
        edit = data.draw(st.sampled_from(["add", "insert", "after", "remove", "remove_at", "skip", "go"]))
        before = len(plan.destinations)
        name, index = data.draw(NAMES), data.draw(st.integers(-1, 6))
        if edit == "add":
            assert plan.add_next_destination(name)
            assert plan.destinations[-1] == name
        elif edit == "insert":
            assert plan.add_next_destination(name, index=index) == (0 <= index <= before)
        elif edit == "after":
            anchor = data.draw(NAMES)
            assert plan.add_next_destination(name, after=anchor)
            assert plan.destinations[plan.destinations.index(anchor) + 1] == name
        elif edit == "remove":
            assert plan.remove_destination(name) == (len(plan.destinations) == before - 1)
        elif edit == "remove_at":
            assert plan.remove_destination_at(index) == (0 <= index < before)
        elif edit == "skip":
            plan.skip_next()
        else:
            plan.dispatch_next(Traveller(plan))
        assert 0 <= plan.current_index <= len(plan.destinations)
        assert plan.get_remaining_destination_count() == len(plan.destinations) - plan.current_index


@given(PLANS)
def test_following_a_plan_visits_what_it_announces(plan: ItineraryPlan) -> None:
    expected = deepcopy(plan).destinations[plan.current_index :]
    for _ in range(2 * len(plan.destinations) + 1):
        announced = plan.next_destination()
        traveller = Traveller(plan)
        plan.dispatch_next(traveller)
        assert [target for target, _, _ in traveller.moves] == ([] if announced is None else [announced])
    assert plan.visited_destinations[: len(expected)] == expected
    assert plan.completed == (not plan.circular or not plan.destinations)
    if not plan.circular:
        assert plan.visited_destinations == expected
        assert plan.loop_count == 0


DEFAULT = ItineraryTask("log", EXECUTE_ON_DEFAULT)
ARRIVAL = ItineraryTask("measure", EXECUTE_ON_ARRIVAL, {"what": "cpu"})
LEAVING = ItineraryTask("sweep", EXECUTE_ON_DISPATCH)


def test_default_tasks_come_first_on_arrival_only_unless_switched_on() -> None:
    plan = TaskItineraryPlan()
    assert plan.add_default_task(DEFAULT)
    assert plan.add_task_for_destination("beta", ARRIVAL)
    assert plan.add_task_for_destination("beta", LEAVING)
    assert plan.tasks_for_phase("beta", EXECUTE_ON_ARRIVAL) == [DEFAULT, ARRIVAL]
    assert plan.tasks_for_phase("beta", EXECUTE_ON_DISPATCH) == [LEAVING]
    assert plan.tasks_for_phase("beta", EXECUTE_ON_REVERTING) == []
    assert plan.tasks_for_phase(None, EXECUTE_ON_ARRIVAL) == [DEFAULT]

    plan.execute_default_on_arrival = False
    plan.execute_default_on_dispatch = plan.execute_default_on_reverting = True
    assert plan.tasks_for_phase("beta", EXECUTE_ON_ARRIVAL) == [ARRIVAL]
    assert plan.tasks_for_phase("beta", EXECUTE_ON_DISPATCH) == [DEFAULT, LEAVING]
    assert plan.tasks_for_phase("alpha", EXECUTE_ON_REVERTING) == [DEFAULT]


def test_default_tasks_are_kept_once() -> None:
    plan = TaskItineraryPlan()
    assert plan.add_task_for_destination("", DEFAULT)
    assert not plan.add_default_task(ItineraryTask("log", EXECUTE_ON_DEFAULT))
    assert not plan.add_default_task(ARRIVAL)
    assert plan.default_tasks == [DEFAULT]
    assert plan.remove_default_task(DEFAULT)
    assert not plan.remove_default_task(DEFAULT)


def test_tasks_of_a_destination_are_added_and_removed() -> None:
    plan = TaskItineraryPlan()
    assert not plan.add_task_for_destination("", ARRIVAL)
    assert plan.add_next_destination_with_task("beta", ARRIVAL)
    assert plan.add_task_for_destination("beta", LEAVING)
    plan.get_tasks_for_destination("beta").clear()
    assert plan.get_tasks_for_destination("beta") == [ARRIVAL, LEAVING]
    assert plan.remove_task_for_destination("beta", ARRIVAL)
    assert not plan.remove_task_for_destination("beta", ARRIVAL)
    assert plan.remove_task_for_destination("beta", LEAVING)
    assert plan.destination_tasks == {}
    assert not plan.remove_task_for_destination("nowhere", LEAVING)
    plan.add_task_for_destination("beta", ARRIVAL)
    assert plan.remove_all_tasks_for_destination("beta")
    assert not plan.remove_all_tasks_for_destination("beta")
    assert plan.get_tasks_for_destination("beta") == []


def test_a_refused_destination_takes_no_task() -> None:
    plan = TaskItineraryPlan(mutable=False)
    assert not plan.add_next_destination_with_task("beta", ARRIVAL)
    assert plan.destination_tasks == {}


@dataclass
class TourState:
    itinerary: ItineraryPlan = field(default_factory=ItineraryPlan)
    tour: ItineraryPlan = field(default_factory=ItineraryPlan)


class Tourist(ItineraryAgentMixin):
    def __init__(self, state: TourState) -> None:
        self.state = state

    def dispatch(self, target: str) -> str:
        return f"proxy at {target}"


class Worker(Tourist):
    def execute_itinerary_task(self, task: ItineraryTask, phase: str, event: Any = None) -> Any:
        return (task.name, phase, event)


class Wanderer(Tourist):
    itinerary_attr = "tour"


def test_the_mixin_follows_the_plan_in_the_state() -> None:
    tourist = Tourist(TourState(ItineraryPlan(["beta"])))
    assert tourist.get_itinerary() is tourist.state.itinerary
    assert tourist.go_to_next_destination() == "proxy at beta"
    assert tourist.go_to_next_destination() is None
    wanderer = Wanderer(TourState(tour=ItineraryPlan(["gamma"])))
    assert wanderer.go_to_next_destination() == "proxy at gamma"


def test_the_mixin_does_the_tasks_of_the_current_location() -> None:
    plan = TaskItineraryPlan(current_location="beta")
    plan.add_task_for_destination("beta", ARRIVAL)
    plan.add_default_task(DEFAULT)
    worker = Worker(TourState(plan))
    results = worker.execute_itinerary_tasks(EXECUTE_ON_ARRIVAL, "event")
    assert results == [("log", "arrival", "event"), ("measure", "arrival", "event")]
    assert Tourist(TourState()).execute_itinerary_tasks(EXECUTE_ON_ARRIVAL) == []
    with pytest.raises(NotImplementedError, match=r"Tourist.*log"):
        Tourist(TourState(plan)).execute_itinerary_tasks(EXECUTE_ON_ARRIVAL)


def test_the_mixin_names_the_missing_plan() -> None:
    class Lost(Tourist):
        itinerary_attr = "route"

    with pytest.raises(HostError, match=r"Lost.*'route'"):
        Lost(TourState()).get_itinerary()
