"""The processes of a machine, with how much processor time each really takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import psutil

#: Over which time a process is looked at that was not looked at shortly before.
WINDOW_SECONDS: Final = 0.25
SHORTEST_SECONDS: Final = 0.1
FORGET_SECONDS: Final = 30.0
MAX_ARGUMENT_CHARACTERS: Final = 8192


class ProcessRow(NamedTuple):
    """One process; `cpu_percent` is that of one CPU, and more than 100 with several threads."""

    pid: int
    name: str
    status: str
    username: str
    cpu_percent: float
    memory_rss_bytes: int
    cmdline: list[str]


class _Reading(NamedTuple):
    at: float
    cpu_seconds: float


class _Candidate(NamedTuple):
    process: psutil.Process
    name: str
    rss: int
    cmdline: list[str]


class ProcessSampler:
    """Lists processes, and remembers for a while what each has used, so that the next list needs no second look.

    :param clock: monotonic seconds.
    :param wait: lets so many seconds pass.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._wait = wait
        self._known: dict[tuple[int, float], _Reading] = {}

    def sample(self, query: str, limit: int) -> tuple[list[ProcessRow], bool]:
        """Return processes, those with most memory first, and whether there are more.

        What has ended meanwhile, and what may not be looked at, is left out.

        :param query: part of the name or of the command line, in any case.
        :param limit: at most so many.
        """
        found = sorted(_matching(query.casefold()), key=lambda each: (-each.rss, each.process.pid))
        shown = found[:limit]
        rates = self._rates([each.process for each in shown])
        rows = []
        for each in shown:
            key = _key(each.process)
            try:
                status, username = each.process.status(), sendable(each.process.username())
            except _gone():
                continue
            if key in rates:
                rows.append(
                    ProcessRow(each.process.pid, each.name, status, username, rates[key], each.rss, each.cmdline)
                )
        return rows, len(found) > limit

    def _rates(self, processes: list[psutil.Process]) -> dict[tuple[int, float], float]:
        now = self._clock()
        self._known = {key: seen for key, seen in self._known.items() if now - seen.at < FORGET_SECONDS}
        earlier = dict(self._known)
        if any(not self._is_useful(earlier.get(_key(process)), now) for process in processes):
            # Not only those that are new: they are all looked at over the same time then.
            earlier = self._read(processes)
            self._wait(WINDOW_SECONDS)
        later = self._read(processes)
        self._known |= later
        return {key: _percent(earlier[key], seen) for key, seen in later.items() if key in earlier}

    def _is_useful(self, seen: _Reading | None, now: float) -> bool:
        return seen is not None and now - seen.at >= SHORTEST_SECONDS

    def _read(self, processes: list[psutil.Process]) -> dict[tuple[int, float], _Reading]:
        found = {}
        for process in processes:
            try:
                times = process.cpu_times()
            except _gone():
                continue
            found[_key(process)] = _Reading(self._clock(), times.user + times.system)
        return found


def _gone() -> tuple[type[Exception], ...]:
    """Return what says that a process has ended meanwhile, or may not be looked at."""
    from paglets.system.server_info.machine import psutil

    return psutil.NoSuchProcess, psutil.AccessDenied, OSError


def _matching(query: str) -> list[_Candidate]:
    from paglets.system.server_info.machine import psutil

    found = []
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                name, cmdline = sendable(process.name()), [sendable(each) for each in process.cmdline()]
                if query in name.casefold() or query in " ".join(cmdline).casefold():
                    process.create_time()  # kept by the object, and part of its key
                    found.append(_Candidate(process, name, process.memory_info().rss, _bounded(cmdline)))
        except _gone():
            continue
    return found


def sendable(text: str) -> str:
    """Return a text of the system, which may hold any bytes, as one that every encoding takes.

    Linux cuts the name of a process to 15 bytes, in the middle of a character where that is how it comes.
    """
    return text if text.isascii() else os.fsencode(text).decode("utf-8", "replace")


def _key(process: psutil.Process) -> tuple[int, float]:
    return process.pid, process.create_time()


def _percent(before: _Reading, after: _Reading) -> float:
    seconds = after.at - before.at
    return round(max(0.0, 100 * (after.cpu_seconds - before.cpu_seconds) / seconds), 1) if seconds > 0 else 0.0


def _bounded(cmdline: list[str]) -> list[str]:
    kept: list[str] = []
    left = MAX_ARGUMENT_CHARACTERS
    for argument in cmdline:
        if len(argument) > left:
            return [*kept, argument[:left] + "…"]
        kept.append(argument)
        left -= len(argument)
    return kept
