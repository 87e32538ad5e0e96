"""Routes for paglets that visit several hosts, with tasks to do on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paglets.core.errors import HostError

EXECUTE_ON_ARRIVAL = "arrival"
EXECUTE_ON_DISPATCH = "dispatch"
EXECUTE_ON_REVERTING = "reverting"
EXECUTE_ON_DEFAULT = "default"


@dataclass(slots=True)
class ItineraryPlan:
    """A list of destinations and how far the paglet has come; lives in the paglet's state.

    A destination is whatever `Paglet.dispatch` accepts as text. `current_index` is the position of the next one.
    """

    destinations: list[str] = field(default_factory=list)
    current_index: int = 0
    current_location: str | None = None
    visited_destinations: list[str] = field(default_factory=list)
    mutable: bool = True
    circular: bool = False
    loop_count: int = 0
    completed: bool = False

    def add_next_destination(
        self, destination: str, *, index: int | None = None, after: str | None = None, allow_duplicate: bool = True
    ) -> bool:
        """Add a destination at the end, at an index, or directly behind another.

        :param index: from 0 to the number of destinations; wins over `after`.
        :param after: the first destination of that name; appended itself when the plan does not have it.
        :return: False, and nothing changed, when the plan is immutable, the destination empty or an unwanted duplicate,
            or the index out of range.
        """
        if not self.mutable or not destination:
            return False
        if not allow_duplicate and destination in self.destinations:
            return False
        if index is None and after is not None:
            if after not in self.destinations:
                self.destinations.append(after)
            index = self.destinations.index(after) + 1
        if index is None:
            index = len(self.destinations)
        if not 0 <= index <= len(self.destinations):
            return False
        self.destinations.insert(index, destination)
        return True

    def add_next_destination_if_not_duplicated(self, destination: str) -> bool:
        """Add a destination at the end unless the plan has it already."""
        return self.add_next_destination(destination, allow_duplicate=False)

    def remove_destination(self, destination: str) -> bool:
        """Remove the first destination of that name and tell whether there was one."""
        return destination in self.destinations and self.remove_destination_at(self.destinations.index(destination))

    def remove_destination_at(self, index: int) -> bool:
        """Remove the destination at an index and tell whether there was one."""
        if not self.mutable or not 0 <= index < len(self.destinations):
            return False
        del self.destinations[index]
        self.current_index = min(self.current_index, len(self.destinations))
        return True

    def set_immutable(self) -> None:
        """Refuse further changes to the list of destinations."""
        self.mutable = False

    def skip_next(self) -> None:
        """Step over the next destination; at its end a circular plan starts again and counts a loop."""
        size = len(self.destinations)
        self.current_index = min(self.current_index + 1, size)
        if self.circular and size and self.current_index == size:
            self._wrap()

    def get_destination_count(self) -> int:
        """Return the number of destinations."""
        return len(self.destinations)

    def get_remaining_destination_count(self) -> int:
        """Return the number of destinations up to the end of the list."""
        return max(0, len(self.destinations) - self.current_index)

    def get_destinations(self) -> list[str]:
        """Return a copy of the list of destinations."""
        return list(self.destinations)

    def get_first_destination(self) -> str | None:
        """Return the first destination, None when there is none."""
        return self.destinations[0] if self.destinations else None

    def get_last_destination(self) -> str | None:
        """Return the last destination, None when there is none."""
        return self.destinations[-1] if self.destinations else None

    def get_current_location(self) -> str | None:
        """Return the destination the paglet is at, None before its first move."""
        return self.current_location

    def get_loop_count(self) -> int:
        """Return how often a circular plan started again."""
        return self.loop_count

    def next_destination(self) -> str | None:
        """Return where the next move goes, None at the end of the route."""
        if self.current_index < len(self.destinations):
            return self.destinations[self.current_index]
        return self.destinations[0] if self.circular and self.destinations else None

    def dispatch_next(self, agent: Any) -> Any | None:
        """Move the paglet to its next destination.

        The plan is advanced before the move, so the paglet that arrives finds itself there. It stays advanced when the
        move fails: the next call goes on to the destination behind the one that could not be reached.

        :param agent: the paglet whose state holds this plan.
        :return: what its `dispatch` returned, or None at the end of the route, which marks the plan as completed.
        """
        target = self.next_destination()
        if target is None:
            self.completed = True
            return None
        if self.current_index >= len(self.destinations):
            self._wrap()
        self.current_index += 1
        self.current_location = target
        self.visited_destinations.append(target)
        return agent.dispatch(target)

    def _wrap(self) -> None:
        self.current_index = 0
        self.loop_count += 1


@dataclass(slots=True)
class ItineraryTask:
    """Something to do at a destination; `execution` is its phase, or ``default`` for the plan's default phases."""

    name: str
    execution: str = EXECUTE_ON_ARRIVAL
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class TaskItineraryPlan(ItineraryPlan):
    """A route with tasks for every destination and for single ones."""

    destination_tasks: dict[str, list[ItineraryTask]] = field(default_factory=dict)
    default_tasks: list[ItineraryTask] = field(default_factory=list)
    execute_default_on_arrival: bool = True
    execute_default_on_dispatch: bool = False
    execute_default_on_reverting: bool = False

    def add_default_task(self, task: ItineraryTask) -> bool:
        """Add a task for every destination; False when it is not a default task or already there."""
        if task.execution != EXECUTE_ON_DEFAULT or task in self.default_tasks:
            return False
        self.default_tasks.append(task)
        return True

    def remove_default_task(self, task: ItineraryTask) -> bool:
        """Remove a task for every destination and tell whether there was one."""
        return _remove(self.default_tasks, task)

    def add_task_for_destination(self, destination: str, task: ItineraryTask) -> bool:
        """Add a task for one destination; a default task is added for every destination."""
        if task.execution == EXECUTE_ON_DEFAULT:
            return self.add_default_task(task)
        if not destination:
            return False
        self.destination_tasks.setdefault(destination, []).append(task)
        return True

    def add_next_destination_with_task(self, destination: str, task: ItineraryTask) -> bool:
        """Add a destination at the end, and its task if that worked."""
        return self.add_next_destination(destination) and self.add_task_for_destination(destination, task)

    def remove_all_tasks_for_destination(self, destination: str) -> bool:
        """Remove the tasks of one destination and tell whether there were any."""
        return self.destination_tasks.pop(destination, None) is not None

    def remove_task_for_destination(self, destination: str, task: ItineraryTask) -> bool:
        """Remove one task of one destination and tell whether there was one."""
        tasks = self.destination_tasks.get(destination, [])
        removed = _remove(tasks, task)
        if removed and not tasks:
            del self.destination_tasks[destination]
        return removed

    def get_tasks_for_destination(self, destination: str) -> list[ItineraryTask]:
        """Return a copy of the list of tasks of one destination."""
        return list(self.destination_tasks.get(destination, ()))

    def tasks_for_phase(self, destination: str | None, phase: str) -> list[ItineraryTask]:
        """Return what to do at a destination in a phase: the default tasks if they are on for it, then its own."""
        defaults = self.default_tasks if self._defaults_on(phase) else []
        own = [] if destination is None else self.destination_tasks.get(destination, [])
        return [*defaults, *(task for task in own if task.execution == phase)]

    def _defaults_on(self, phase: str) -> bool:
        if phase == EXECUTE_ON_ARRIVAL:
            return self.execute_default_on_arrival
        if phase == EXECUTE_ON_DISPATCH:
            return self.execute_default_on_dispatch
        return phase == EXECUTE_ON_REVERTING and self.execute_default_on_reverting


class ItineraryAgentMixin:
    """Lets a paglet follow the plan in its state.

    :cvar itinerary_attr: name of the state field that holds the plan.
    """

    itinerary_attr = "itinerary"

    def get_itinerary(self) -> ItineraryPlan:
        """Return the plan.

        :raises HostError: the state holds none under that name.
        """
        plan = getattr(getattr(self, "state", None), self.itinerary_attr, None)
        if not isinstance(plan, ItineraryPlan):
            raise HostError(f"the state of {type(self).__name__} has no ItineraryPlan in field {self.itinerary_attr!r}")
        return plan

    def go_to_next_destination(self) -> Any | None:
        """Move to the next destination; None at the end of the route."""
        return self.get_itinerary().dispatch_next(self)

    def execute_itinerary_tasks(self, phase: str, event: Any = None) -> list[Any]:
        """Do the tasks of a phase at the current location and return their results in order."""
        plan = self.get_itinerary()
        if not isinstance(plan, TaskItineraryPlan):
            return []
        tasks = plan.tasks_for_phase(plan.current_location, phase)
        return [self.execute_itinerary_task(task, phase, event) for task in tasks]

    def execute_itinerary_task(self, task: ItineraryTask, phase: str, event: Any = None) -> Any:
        """Do one task; to be overridden by every paglet that has tasks."""
        raise NotImplementedError(f"{type(self).__name__} does not implement execute_itinerary_task ({task.name!r})")


def _remove(tasks: list[ItineraryTask], task: ItineraryTask) -> bool:
    if task not in tasks:
        return False
    tasks.remove(task)
    return True
