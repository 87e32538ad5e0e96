"""Paglets that follow a plan through several hosts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.itinerary import (
    EXECUTE_ON_ARRIVAL,
    EXECUTE_ON_DISPATCH,
    EXECUTE_ON_REVERTING,
    ItineraryAgentMixin,
    ItineraryPlan,
    ItineraryTask,
    TaskItineraryPlan,
)


@dataclass
class RouteState(PagletState):
    itinerary: ItineraryPlan = field(default_factory=ItineraryPlan)
    log: list[str] = field(default_factory=list)
    started: bool = False


class Tourist(ItineraryAgentMixin, Paglet[RouteState]):
    """Go on from ``run`` until the route ends, once started."""

    State = RouteState

    def _log(self, what: str) -> None:
        self.state.log.append(f"{what}@{self.context.name}")

    def on_dispatching(self, event: Any) -> None:
        self._log("dispatching")

    def on_arrival(self, event: Any) -> None:
        self._log("arrival")

    def run(self) -> None:
        self._log("run")
        if self.state.started:
            self.go_to_next_destination()

    @handler
    def start(self) -> Any:
        self.state.started = True
        proxy = self.go_to_next_destination()
        return None if proxy is None else proxy.to_wire()


@dataclass
class WorkState(PagletState):
    plan: TaskItineraryPlan = field(default_factory=TaskItineraryPlan)
    done: list[str] = field(default_factory=list)


class Worker(ItineraryAgentMixin, Paglet[WorkState]):
    """Do the tasks of every phase."""

    State = WorkState
    itinerary_attr = "plan"

    def execute_itinerary_task(self, task: ItineraryTask, phase: str, event: Any = None) -> str:
        self.state.done.append(f"{task.name}:{phase}@{self.context.name}:{task.args.get('n', 0)}")
        return task.name

    def on_dispatching(self, event: Any) -> None:
        self.execute_itinerary_tasks(EXECUTE_ON_DISPATCH, event)

    def on_reverting(self, event: Any) -> None:
        self.execute_itinerary_tasks(EXECUTE_ON_REVERTING, event)

    def on_arrival(self, event: Any) -> None:
        self.execute_itinerary_tasks(EXECUTE_ON_ARRIVAL, event)

    @handler
    def next(self) -> Any:
        proxy = self.go_to_next_destination()
        return None if proxy is None else proxy.to_wire()
