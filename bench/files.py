"""Measure registered files on the way: large ones, and directories of many small ones."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

import psutil

from bench import floors
from bench.agents import Echo
from bench.measure import Row
from bench.peers import local_host, peer
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host

MEGABYTE = 1024 * 1024
_SAMPLE_SECONDS = 0.02
_ROUNDS = 3
_REMOVAL_SECONDS = 120.0


def files(quick: bool) -> Iterator[Row]:
    """Move paglets with a large file, and with a directory of small ones."""
    yield from _large_file(64 if quick else 1024)
    yield from _small_files(1000 if quick else 10_000)


def _large_file(megabytes: int) -> Iterator[Row]:
    size = megabytes * MEGABYTE
    name = f"{megabytes} MB" if megabytes < 1024 else f"{megabytes // 1024} GB"
    registering: list[float] = []
    first: list[float] = []
    home: list[float] = []
    again: list[float] = []
    growth: list[float] = []
    writing: list[float] = []
    copying: list[float] = []
    with tempfile.TemporaryDirectory() as directory, local_host() as host, peer() as other:
        hashing = megabytes / floors.sha256_rate()
        _warm_up(host, other.address)
        for number in range(_ROUNDS):
            # In between, since a disk is not as fast at all times.
            writing.append(floors.write_and_sync(Path(directory), size))
            path = Path(directory) / f"file-{number}"
            floors.write_fresh(path, size)
            os.sync()
            proxy = host.create(Echo)
            registering.append(_seconds(partial(host.register_file_for, proxy.agent_id, path)))
            with _Memory(os.getpid(), other.pid) as memory:
                proxy = _move(proxy, other.address, first)
            growth.append(memory.growth)
            proxy = _move(proxy, host.address, home)
            copying.append(floors.copy_and_sync(Path(directory), size))
            proxy = _move(proxy, other.address, again)
            proxy.dispose()
            path.unlink()
    yield _row(f"register a file of {name}", registering, floor=hashing, note="floor: SHA-256 on one core")
    yield _row(
        f"move with a file of {name}, first time",
        first,
        floor=max(hashing, statistics.median(writing)),
        aim=2.5 * megabytes / 1024,
        note="floor: writing and syncing it, or its SHA-256, whichever takes longer",
    )
    yield _row(
        f"move with a file of {name} home to its original",
        home,
        floor=statistics.median(copying),
        note="the original stays, so the paglet gets a copy; floor: copying and syncing it",
    )
    yield _row(f"move with a file of {name} to where it was before", again, aim=0.1)
    yield Row(f"memory of both hosts for a file of {name}", "MB", round(max(growth), 1), aim=64.0, samples=len(growth))


def _small_files(count: int) -> Iterator[Row]:
    there: list[float] = []
    back: list[float] = []
    making: list[float] = []
    with tempfile.TemporaryDirectory() as directory, local_host() as host, peer() as other:
        _warm_up(host, other.address)
        for number in range(_ROUNDS):
            root = Path(directory) / f"tree-{number}"
            making.append(_seconds(partial(floors.write_small_files, root, count)))
            proxy = host.create(Echo)
            host.register_file_for(proxy.agent_id, root, mode="move")
            proxy = _move(proxy, other.address, there)
            _await_removal(root)  # which keeps the disk busy
            proxy = _move(proxy, host.address, back)
            proxy.dispose()
    name = f"move with a directory of {count:,} small files"
    note = "floor: writing and syncing as many"
    aim, floor = 5.0 * count / 10_000, statistics.median(making)
    yield _row(f"{name}, first time", there, floor=floor, aim=aim, note=note)
    yield _row(f"{name}, back", back, floor=floor, aim=aim, note=note)


def _move(proxy: PagletProxy, target: str, seconds: list[float]) -> PagletProxy:
    start = time.perf_counter()
    moved = proxy.dispatch(target)
    seconds.append(time.perf_counter() - start)
    return moved


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _await_removal(path: Path) -> None:
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} was not removed within {_REMOVAL_SECONDS:g} s")
        time.sleep(_SAMPLE_SECONDS)


class _Memory:
    """Look at the memory of processes from time to time, and say how much it grew at most."""

    def __init__(self, *pids: int) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self._ended = threading.Event()
        self._least = self._most = self._now()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def growth(self) -> float:
        """Megabytes that all of them grew together."""
        return (self._most - self._least) / MEGABYTE

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._most = max(self._most, self._now())

    def _now(self) -> int:
        return sum(process.memory_info().rss for process in self._processes)


def _warm_up(host: Host, target: str) -> None:
    proxy = host.create(Echo)
    for _ in range(3):
        proxy = proxy.dispatch(target).dispatch(host.address)
    proxy.dispose()


def _row(
    name: str, seconds: list[float], *, floor: float | None = None, aim: float | None = None, note: str = ""
) -> Row:
    ordered = sorted(seconds)
    return Row(
        name,
        "s",
        round(ordered[len(ordered) // 2], 3),
        floor=None if floor is None else round(floor, 3),
        aim=None if aim is None else round(aim, 3),
        p95=round(ordered[-1], 3),
        samples=len(ordered),
        note=note,
    )
