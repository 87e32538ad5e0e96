"""Timing, and the rows of the report."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Row:
    """One figure."""

    name: str
    unit: str
    value: float
    """Median, or a rate."""
    floor: float | None = None
    """What the same machine does for the same bytes without paglets, measured in this run."""
    aim: float | None = None
    reference: float | None = None
    """What the older public runtime (1.1.0) took on one 2-core machine."""
    larger_is_better: bool = False
    p95: float | None = None
    samples: int = 1
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.larger_is_better else self.value <= self.aim

    def to_wire(self) -> dict[str, Any]:
        """Return the row for the result file."""
        return {**asdict(self), "met": self.met}


def timed(
    work: Callable[[], object], rounds: int, *, warm_up: int = 5, before: Callable[[], object] = lambda: None
) -> list[float]:
    """Return the seconds of each of ``rounds`` runs, after some that do not count.

    :param before: done before each, and not counted.
    """
    for _ in range(warm_up):
        before()
        work()
    seconds = []
    for _ in range(rounds):
        before()
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def with_bytecode() -> dict[str, str]:
    """Return the environment for programs whose start is measured.

    Where bytecode is not to be written every start compiles everything, which is not what users have.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def milliseconds(name: str, seconds: list[float], **fields: Any) -> Row:
    """Return a row from samples in seconds."""
    ordered = sorted(seconds)
    return Row(
        name,
        "ms",
        round(statistics.median(ordered) * 1e3, 4),
        p95=round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))] * 1e3, 4),
        samples=len(ordered),
        **fields,
    )


@dataclass(slots=True)
class Machine:
    """Where it was measured."""

    system: str = field(default_factory=platform.platform)
    python: str = field(default_factory=platform.python_version)
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    processor: str = ""
    memory_gb: float = 0.0
    load_before: float = field(default_factory=lambda: round(os.getloadavg()[0], 2))

    @classmethod
    def here(cls) -> Machine:
        """Describe this machine."""
        machine = cls()
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    machine.processor = line.partition(":")[2].strip()
                    break
            pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            machine.memory_gb = round(pages / 2**30, 1)
        except OSError:
            machine.processor = platform.processor()
        return machine
