"""How busy the processors are, and how much memory there is: of the machine, or of the container that this runs in."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from paglets.system.server_info.cgroups import ContainerLimits

#: A percentage of less time than this says nothing: the clocks of the kernel tick a hundred times a second.
SHORTEST_SECONDS: Final = 0.1
LONGEST_SECONDS: Final = 10.0


class Processors(NamedTuple):
    """How many logical CPUs there are."""

    usable: int
    """That this process may use; a part of one counts as one."""
    machine: int
    limit: float | None
    """CPUs that the container may use at the same time; None without a limit."""


class Memory(NamedTuple):
    """Memory in bytes."""

    total: int
    used: int
    available: int

    @property
    def percent(self) -> float:
        """How much is not available any more."""
        return round(100 * (self.total - self.available) / self.total, 1) if self.total else 0.0


def processors(limits: ContainerLimits) -> Processors:
    """Return how many logical CPUs there are for this process, and in all."""
    from paglets.system.server_info.machine import psutil

    machine = psutil.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    limit = limits.cpus()
    if limit is not None and limit >= allowed:
        limit = None
    return Processors(allowed if limit is None else max(1, math.ceil(limit)), machine, limit)


def memory(limits: ContainerLimits) -> Memory:
    """Return the memory that there is for this process."""
    from paglets.system.server_info.machine import psutil

    machine = psutil.virtual_memory()
    container = limits.memory()
    if container is None or container.limit_bytes >= machine.total:
        return Memory(machine.total, machine.used, machine.available)
    available = min(machine.available, container.available_bytes)
    return Memory(container.limit_bytes, container.limit_bytes - available, available)


class _Reading(NamedTuple):
    at: float
    busy: float
    total: float
    limit: float | None


class ProcessorMeter:
    """How busy the processors were between two readings.

    In a container with a limit they are its share: 100 % means that it has used all it may.

    :param clock: monotonic seconds.
    :param wait: lets so many seconds pass.
    """

    def __init__(
        self,
        limits: ContainerLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._last = self._read()

    def percent(self, seconds: float = 0.0) -> float:
        """Return how busy the processors are, from 0 to 100.

        :param seconds: over the next so many, at most ten; 0 since the last call, or over a tenth of a second when that
            was only just.
        """
        with self._lock:
            before = self._last
            if seconds > 0:
                before = self._read()
                self._wait(min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS))
            elif self._clock() - before.at < SHORTEST_SECONDS:
                self._wait(SHORTEST_SECONDS)
            now = self._last = self._read()
        if now.limit != before.limit:
            return 0.0  # another measure; the next call compares with this one
        total = now.total - before.total
        return round(min(100.0, max(0.0, 100 * (now.busy - before.busy) / total)), 1) if total > 0 else 0.0

    def _read(self) -> _Reading:
        from paglets.system.server_info.machine import psutil

        at = self._clock()
        limit = processors(self._limits).limit
        used = None if limit is None else self._limits.cpu_seconds()
        if limit is not None and used is not None:
            return _Reading(at, used, at * limit, limit)
        times = psutil.cpu_times()
        # Time of guests is counted in `user` and `nice` as well, and waiting for a disk is not being busy.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return _Reading(at, total - times.idle - getattr(times, "iowait", 0.0), total, None)
