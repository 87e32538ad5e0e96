"""Paglets that follow a plan through several hosts."""

from __future__ import annotations

import pytest

from paglets.core.errors import TransferError
from paglets.core.itinerary import (
    EXECUTE_ON_ARRIVAL,
    EXECUTE_ON_DEFAULT,
    EXECUTE_ON_DISPATCH,
    EXECUTE_ON_REVERTING,
    ItineraryPlan,
    ItineraryTask,
    TaskItineraryPlan,
)
from paglets.core.messages import Message
from paglets.remote.proxy import PagletProxy
from tests.agents.routes import RouteState, Tourist, Worker, WorkState
from tests.support import HostFactory, eventually, free_port, where


def test_a_route_is_finished_when_the_starting_message_is_answered(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    plan = ItineraryPlan([alpha.address, beta.address])
    assert plan.add_next_destination(beta.address, index=0)
    proxy = beta.create(Tourist, RouteState(itinerary=plan))
    location = proxy.send(Message("start"))
    assert location == {"host_url": beta.address, "agent_id": proxy.agent_id}
    assert where(proxy, alpha, beta) == ["beta"]
    state = beta.get_state(proxy.agent_id, RouteState)
    assert state.itinerary.completed
    assert state.itinerary.current_index == 3
    assert state.itinerary.visited_destinations == [beta.address, alpha.address, beta.address]
    assert state.itinerary.current_location == beta.address
    assert state.log == [
        "run@beta",
        "dispatching@beta",
        "arrival@beta",
        "run@beta",
        "dispatching@beta",
        "arrival@alpha",
        "run@alpha",
        "dispatching@alpha",
        "arrival@beta",
        "run@beta",
    ]


def test_a_route_over_three_hosts_is_driven_by_run_from_creation(hosts: HostFactory) -> None:
    alpha, beta, gamma = hosts("alpha"), hosts("beta"), hosts("gamma")
    stops = [beta, gamma, alpha, gamma]
    plan = ItineraryPlan([host.address for host in stops])
    proxy = alpha.create(Tourist, RouteState(itinerary=plan, started=True))
    assert proxy.host_url == gamma.address
    found = eventually(
        lambda: (state := gamma.get_state(proxy.agent_id, RouteState)).itinerary.completed and state, "the end"
    )
    assert [entry for entry in found.log if entry.startswith("run")] == [
        f"run@{name}" for name in ["alpha", "beta", "gamma", "alpha", "gamma"]
    ]
    assert where(proxy, alpha, beta, gamma) == ["gamma"]


def test_a_circular_route_counts_its_rounds(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    plan = TaskItineraryPlan([beta.address, alpha.address], circular=True)
    proxy = alpha.create(Worker, WorkState(plan=plan))
    for _ in range(5):
        proxy = PagletProxy.from_wire(proxy.send(Message("next")))
    state = beta.get_state(proxy.agent_id, WorkState)
    assert state.plan.loop_count == 2
    assert state.plan.visited_destinations == [beta.address, alpha.address] * 2 + [beta.address]


def test_a_stop_that_cannot_be_reached_fails_and_the_next_one_is_tried(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    plan = TaskItineraryPlan([f"http://127.0.0.1:{free_port()}", beta.address])
    proxy = alpha.create(Worker, WorkState(plan=plan))
    with pytest.raises(TransferError):
        proxy.send(Message("next"))
    moved = PagletProxy.from_wire(proxy.send(Message("next")))
    assert moved.host_url == beta.address
    assert moved.send(Message("next")) is None
    assert beta.get_state(moved.agent_id, WorkState).plan.completed


def test_tasks_are_done_where_and_when_the_plan_says(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    plan = TaskItineraryPlan()
    assert plan.add_default_task(ItineraryTask("every", EXECUTE_ON_DEFAULT, {"n": 1}))
    assert plan.add_next_destination_with_task(beta.address, ItineraryTask("arrive", EXECUTE_ON_ARRIVAL, {"n": 2}))
    assert plan.add_task_for_destination(beta.address, ItineraryTask("leave", EXECUTE_ON_DISPATCH))
    assert plan.add_task_for_destination(beta.address, ItineraryTask("pulled", EXECUTE_ON_REVERTING))
    proxy = alpha.create(Worker, WorkState(plan=plan))
    moved = PagletProxy.from_wire(proxy.send(Message("next")))
    # The plan has advanced when the hook on the way out runs, so that is a task of the destination too.
    assert beta.get_state(moved.agent_id, WorkState).done == [
        "leave:dispatch@alpha:0",
        "every:arrival@beta:1",
        "arrive:arrival@beta:2",
    ]
    home = alpha.retract(beta.address, moved.agent_id)
    assert alpha.get_state(home.agent_id, WorkState).done[3:] == [
        "pulled:reverting@beta:0",
        "every:arrival@alpha:1",
        "arrive:arrival@alpha:2",
    ]
