"""What a program of paglets costs before it does anything, in time of the processor and in time of the clock."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import psutil

from bench.measure import Row, with_bytecode
from bench.peers import peer

_PROGRAM = (sys.executable, "-m", "paglets")


def start_up(quick: bool) -> Iterator[Row]:
    """Run commands to their end, and a host until it is ready."""
    rounds = 5 if quick else 20
    floor = _least(lambda: _run(sys.executable, "-c", "pass"), rounds)
    yield from _rows("a command's help", _least(lambda: _run(*_PROGRAM, "--help"), rounds), floor, aim=200.0)
    with peer() as other:
        asked = (*_PROGRAM, "ps", "--json", "--host", other.address)
        yield from _rows("a command that asks a host", _least(lambda: _run(*asked), rounds), floor, aim=200.0)
    yield from _rows("a host until it is ready", _least(_start_host, rounds), floor, aim=450.0)


def _rows(name: str, least: tuple[float, float], floor: tuple[float, float], *, aim: float) -> Iterator[Row]:
    note = "the least of its runs; floor: an interpreter that does nothing"
    for kind, value, below, goal in (("processor", least[0], floor[0], aim), ("until then", least[1], floor[1], None)):
        yield Row(f"{name}, {kind}", "ms", round(value * 1e3, 1), below * 1e3, goal, note=note)


def _least(run: Callable[[], tuple[float, float]], rounds: int) -> tuple[float, float]:
    run()  # bytecode is written once, and read from memory from then on
    samples = [run() for _ in range(rounds)]
    return min(sample[0] for sample in samples), min(sample[1] for sample in samples)


def _run(*command: str) -> tuple[float, float]:
    """Return the seconds of the processor, and of the clock, that a program takes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=with_bytecode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - began


def _start_host() -> tuple[float, float]:
    """Return the seconds of the processor, and of the clock, until a host says that it is ready.

    What its fork server takes beside it is not counted.
    """
    with tempfile.TemporaryDirectory() as directory:
        options = ("--name", "bench-start", "--port", "0", "--no-mesh", "--persistence-dir", directory)
        command = (*_PROGRAM, "host", *options, "--json", "--stop-on-eof", "--no-sync-launch-config")
        began = time.perf_counter()
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=with_bytecode()
        ) as host:
            assert host.stdin is not None
            assert host.stdout is not None
            if not host.stdout.readline():
                raise RuntimeError("the host did not start")
            waited = time.perf_counter() - began
            used = psutil.Process(host.pid).cpu_times()
            host.stdin.close()
            host.stdout.read()
        return used.user + used.system, waited
