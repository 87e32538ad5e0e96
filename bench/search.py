"""Search a tree of many files: in one process against `grep -r`, and on three hosts that are processes of their own."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from bench.measure import Row
from paglets.examples.search.local_search import run_local_search
from paglets.examples.search.models import SearchRequest
from paglets.examples.search.watching import searching
from paglets.remote.admin import ServerRef
from paglets.remote.client import HostClient

HOSTS = 3
#: One file in so many has the word that is looked for.
RARE = 500
FILES_OF_DIRECTORY = 25
MESH_SECONDS = 30.0

_HOST = """
import sys
from paglets.runtime.host import Host
name, directory, *peers = sys.argv[1:]
preload = ["paglets.examples.search.agent"]
host = Host(name, persistence_dir=directory, mesh=True, mesh_version="bench", peers=peers, preload=preload)
host.start_background()
print(host.address, flush=True)
sys.stdin.read()
host.stop()
"""


def search(quick: bool) -> Iterator[Row]:
    """Search the contents of files."""
    grep = shutil.which("grep")
    if grep is None:
        return
    count, rounds = (6_000, 3) if quick else (50_000, 7)
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        plant(tree, count)
        yield from _locally(grep, tree, count, rounds)
        yield from _on_hosts(grep, Path(directory), tree, count, rounds)


def plant(tree: Path, count: int) -> None:
    """Write text files of some 2 KB, in one third of the tree for each host."""
    choose = random.Random(1)  # the same tree each time
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(choose.choices(letters, k=choose.randint(2, 10))) for _ in range(3000)]
    for number in range(count):
        lines = [" ".join(choose.choices(words, k=8)) for _ in range(choose.randint(10, 60))]
        if number % RARE == 0:
            lines[len(lines) // 2] += " needle here"
        group = number // FILES_OF_DIRECTORY
        path = tree / f"part{group % HOSTS}" / f"d{group // 40:03}" / f"e{group % 40:02}" / f"f{number:06}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


def _locally(grep: str, tree: Path, count: int, rounds: int) -> Iterator[Row]:
    for name, options, request in (
        ("a word", ["-rn", "needle"], SearchRequest(pattern="needle")),
        ("a word, any case", ["-rniE", "NEEDLE"], SearchRequest(pattern="NEEDLE", ignore_case=True)),
        ("a pattern without a fixed part", ["-rnE", "q[a-f]{9}z"], SearchRequest(pattern="q[a-f]{9}z")),
    ):
        order = replace(request, paths=[str(tree)])
        floor, seconds = _in_turns(
            lambda options=options: _grep(grep, options, tree),
            lambda order=order: run_local_search(order, host_name="bench", host_url="", emit=_drop),
            rounds,
        )
        yield _row(f"search {count:,} files for {name}, no host", seconds, floor, note="floor: grep -r")


def _drop(_events: object) -> None:
    """Take events and forget them."""


def _on_hosts(grep: str, directory: Path, tree: Path, count: int, rounds: int) -> Iterator[Row]:
    with ExitStack() as stack:
        addresses: list[str] = []
        for number in range(HOSTS):
            started = _host(f"bench{number}", directory / f"host{number}", tree / f"part{number}", addresses)
            addresses.append(stack.enter_context(started))
        client = stack.enter_context(HostClient())
        entry = ServerRef("bench0", addresses[0])
        _await_mesh(client, addresses[0])
        shared = SearchRequest(pattern="needle")  # `.` is its own part of the tree for each host
        whole = SearchRequest(pattern="needle", paths=[str(tree)])
        first: list[float] = []
        floor, seconds = _in_turns(
            lambda: _grep(grep, ["-rn", "needle"], tree),
            lambda: first.append(_search(entry, shared, client, -(-count // RARE))),
            rounds,
        )
        yield Row(
            "first result of three hosts",
            "ms",
            round(statistics.median(first[1:]) * 1e3, 1),
            aim=100.0,
            p95=round(max(first[1:]) * 1e3, 1),
            samples=len(first) - 1,
            note="from the order to start, to the first result at whoever asked",
        )
        note = "with creating and ending the paglets; floor: one grep -r of the whole tree"
        yield _row(f"search {count:,} files shared by three hosts", seconds, floor, note=note)
        floor, seconds = _in_turns(
            lambda: _greps(grep, ["-rn", "needle"], tree),
            lambda: _search(entry, whole, client, HOSTS * -(-count // RARE)),
            rounds,
        )
        note = "three hosts on one machine; floor: three grep -r at once"
        yield _row(f"search {count:,} files on each of three hosts", seconds, floor, note=note)


def _search(entry: ServerRef, request: SearchRequest, client: HostClient, wanted: int) -> float:
    """Search to the end, and return the seconds from the start to the first result."""
    first = 0.0
    found = 0
    with searching(entry, request, client=client) as running:
        for events in running.events():
            first = first or time.perf_counter() - running.started_at
            found += len(events)
    assert found == wanted, f"{found} results instead of {wanted}"
    assert not running.summary.errors, running.summary.errors
    return first


@contextmanager
def _host(name: str, directory: Path, cwd: Path, peers: list[str]) -> Iterator[str]:
    command = [sys.executable, "-c", _HOST, name, str(directory), *peers]
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def _await_mesh(client: HostClient, address: str) -> None:
    deadline = time.monotonic() + MESH_SECONDS
    while sum(bool(ref["online"]) for ref in client.get_json(f"{address}/hosts")["hosts"]) < HOSTS:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no mesh of {HOSTS} within {MESH_SECONDS:g} s")
        time.sleep(0.05)


def _grep(grep: str, options: list[str], tree: Path) -> None:
    subprocess.run([grep, *options, str(tree)], stdout=subprocess.DEVNULL, check=False, env={"LC_ALL": "C.UTF-8"})


def _greps(grep: str, options: list[str], tree: Path) -> None:
    threads = [threading.Thread(target=_grep, args=(grep, options, tree)) for _ in range(HOSTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _in_turns(floor: Callable[[], object], work: Callable[[], object], rounds: int) -> tuple[float, list[float]]:
    """Time both in turns, since a machine is not as fast at all times.

    :return: the median of the first, and all seconds of the second.
    """
    floors: list[float] = []
    seconds: list[float] = []
    for number in range(rounds + 1):
        floors.append(_seconds(floor))
        seconds.append(_seconds(work))
        if not number:  # the first one fills the caches
            floors.clear()
            seconds.clear()
    return statistics.median(floors), seconds


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _row(name: str, seconds: list[float], floor: float, *, note: str) -> Row:
    ordered = sorted(seconds)
    return Row(
        name,
        "s",
        round(statistics.median(ordered), 3),
        floor=round(floor, 3),
        aim=round(3 * floor, 3),
        p95=round(ordered[-1], 3),
        samples=len(ordered),
        note=note,
    )
