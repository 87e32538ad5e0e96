"""What a container may use of its machine: the limits of the control groups that a process is in.

Everything is read below a root directory, in which `proc/self/cgroup` and `proc/self/mountinfo` say where the groups
are. Both versions of control groups are understood, also side by side. Groups are nested, and the tightest limit on the
way from the process up to the root counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_OCTAL: Final = re.compile(r"\\([0-7]{3})")
# Version 1 has no word for "no limit", but the largest multiple of a page.
_NO_LIMIT_V1: Final = 1 << 60
_NANOSECONDS: Final = 1e9
_MICROSECONDS: Final = 1e6


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """How much memory a container may use at most, and how much of that is left, in bytes."""

    limit_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class _Group:
    """One group: its directory of each controller, and which version it is of."""

    version: int
    directory: Path


class ContainerLimits:
    """The limits of the control groups of this process.

    Where the groups are is read once, limits and use at every call, because both change while a container runs.
    Elsewhere than on Linux there are none.

    :param root: what stands for the root of the file system.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        places = _places(root)
        self._cpu = places("cpu")
        self._cpuacct = places("cpuacct")
        self._memory = places("memory")

    def cpus(self) -> float | None:
        """Return how many CPUs may be used at the same time, in fractions; None without a limit."""
        return min((cpus for _, cpus in self._cpu_quotas()), default=None)

    def cpu_seconds(self) -> float | None:
        """Return the CPU time that was used in the group with the tightest limit; None without a limit."""
        tightest = min(self._cpu_quotas(), key=lambda found: found[1], default=None)
        if tightest is None:
            return None
        group = tightest[0]
        if group.version == 2:
            used = _table(group.directory / "cpu.stat").get("usage_usec")
            return None if used is None else used / _MICROSECONDS
        # The accounting is a controller of its own, usually with the same groups.
        position = [each for each in self._cpu if each.version == 1].index(group)
        accounts = [each for each in self._cpuacct if each.version == 1]
        used = _number(accounts[position].directory / "cpuacct.usage") if position < len(accounts) else None
        return None if used is None else used / _NANOSECONDS

    def memory(self) -> MemoryLimit | None:
        """Return the memory limit; None without one.

        What is left is the least that any group on the way up leaves. Files that are merely cached count as free.
        """
        found = [(limit, max(0, limit - used)) for limit, used in self._memory_limits()]
        if not found:
            return None
        return MemoryLimit(min(limit for limit, _ in found), min(available for _, available in found))

    def _cpu_quotas(self) -> Iterator[tuple[_Group, float]]:
        for group in self._cpu:
            if group.version == 2:
                quota, _, period = _text(group.directory / "cpu.max").partition(" ")
            else:
                quota = _text(group.directory / "cpu.cfs_quota_us")
                period = _text(group.directory / "cpu.cfs_period_us")
            if quota.isdecimal() and period.isdecimal() and int(period) and int(quota):
                yield group, int(quota) / int(period)

    def _memory_limits(self) -> Iterator[tuple[int, int]]:
        for group in self._memory:
            if group.version == 2:
                limit, used, cached = "memory.max", "memory.current", "inactive_file"
            else:
                limit, used, cached = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            allowed = _number(group.directory / limit)
            if allowed is None or (group.version == 1 and allowed >= _NO_LIMIT_V1):
                continue
            taken = _number(group.directory / used) or 0
            yield allowed, max(0, taken - _table(group.directory / "memory.stat").get(cached, 0))


# --- where the groups are ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Mount:
    version: int
    controllers: frozenset[str]
    inner: str
    """The group that is seen at the mount point."""
    point: str


def _places(root: Path) -> Callable[[str], list[_Group]]:
    """Return what gives the groups of this process for a controller, innermost first."""
    mounts = list(_mounts(_text(root / "proc/self/mountinfo")))
    paths: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in [""] if number == "0" else controllers.split(","):
            paths[controller] = path

    def groups(controller: str) -> list[_Group]:
        found = []
        for mount in mounts:
            if mount.version == 1 and controller not in mount.controllers:
                continue
            path = paths.get("" if mount.version == 2 else controller)
            if path is not None:
                top = root / mount.point.lstrip("/")
                inner = _below(path, mount.inner)
                steps = [inner, *inner.parents] if inner != PurePosixPath() else [inner]
                found += [_Group(mount.version, top / step) for step in steps]
        return found

    return groups


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if dash and len(fields) >= 5 and len(kind) >= 3 and kind[0] in ("cgroup", "cgroup2"):
            version = 2 if kind[0] == "cgroup2" else 1
            yield _Mount(version, frozenset(kind[-1].split(",")), _unescaped(fields[3]), _unescaped(fields[4]))


def _below(path: str, inner: str) -> PurePosixPath:
    """Return a group relative to the mount point; the mount point itself where the group is not below it."""
    group, seen = PurePosixPath(path), PurePosixPath(inner)
    if ".." in group.parts or not group.is_relative_to(seen):
        return PurePosixPath()
    return group.relative_to(seen)


def _unescaped(field: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


# --- reading ----------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # what is not there, or not for us, limits nothing that we could know of


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}
