"""Measure what is durable: recorded messages, coming back after SIGKILL, a great many sleepers."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench import floors
from bench.agents import Echo, EchoState, Recorded
from bench.measure import Row, milliseconds, timed
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.persistence.journal import Journal
from paglets.persistence.rows import StateRef, StoredRecord
from paglets.persistence.tables import paglets
from paglets.remote.proxy import PagletProxy
from paglets.runtime.assembly import JOURNAL_NAME
from paglets.runtime.host import Host
from paglets.serialization.blob import encode_blob
from paglets.serialization.names import qualified_name

_VICTIM = """
import sys
from bench.agents import Echo
from bench import floors
from paglets.runtime.host import Host
directory, count = sys.argv[1], int(sys.argv[2])
host = Host("bench", persistence_dir=directory, mesh=False, preload=["bench.agents"])
host.start_background()
floors.run_threads(4, lambda _: [host.create(Echo) for _ in range(count // 4)])
print("ready", flush=True)
sys.stdin.read()
"""


def recorded(quick: bool) -> Iterator[Row]:
    """Send messages whose every effect is on disk before the reply."""
    rounds = 100 if quick else 1000
    each = 50 if quick else 300
    commit = floors.sqlite_commit()
    grouped = floors.grouped_commits(each=each)
    with tempfile.TemporaryDirectory() as directory:
        host = Host("bench", persistence_dir=directory, mesh=False, preload=["bench.agents"])
        host.start_background()
        try:
            proxy = host.create(Recorded)
            seconds = timed(lambda: proxy.send(Message("add")), rounds, warm_up=50)
            floor = commit + floors.send_round_trip(400)
            yield milliseconds("send and recorded reply (MESSAGE)", seconds, floor=floor)
            for count in (16, 5, 1):
                targets = [host.create(Recorded) for _ in range(count)]
                rate = 16 * each / floors.run_threads(16, partial(_send_many, targets, each))
                yield Row(
                    f"16 callers, {count} MESSAGE paglet{'s' if count > 1 else ''}",
                    "/s",
                    round(rate),
                    round(grouped),
                    1500.0,
                    larger_is_better=True,
                    note="floor: 16 threads that share commits, nothing else",
                )
        finally:
            host.stop()


def _send_many(targets: list[PagletProxy], each: int, number: int) -> None:
    target = targets[number % len(targets)]
    for _ in range(each):
        target.send(Message("add"))


def recovery(quick: bool) -> Iterator[Row]:
    """Kill a host and start it again."""
    count = 200 if quick else 1000
    fork = floors.in_small_process("fork_to_ready")
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-c", _VICTIM, directory, str(count)]
        victim = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert victim.stdout is not None
        victim.stdout.readline()
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        host = Host("bench", persistence_dir=directory, mesh=False, preload=["bench.agents"])
        start = time.perf_counter()
        host.start_background()
        seconds = time.perf_counter() - start
        alive = len(host.get_proxies())
        host.stop()
        assert alive == count, f"{alive} of {count} came back"
        yield Row(
            f"start with {count} paglets to recover",
            "s",
            round(seconds, 2),
            round(count * fork / 1e3, 2),
            5.0 * count / 1000,
            note="floor: as many forks",
        )


def sleepers(quick: bool) -> Iterator[Row]:
    """Start a host with a great many sleepers, and wake some."""
    wakes = 20 if quick else 60
    fork = floors.in_small_process("fork_to_ready")
    for count in (10, 20_000 if quick else 100_000):
        with tempfile.TemporaryDirectory() as directory:
            _fill(Path(directory), count)
            host = Host("bench", persistence_dir=directory, mesh=False, preload=["bench.agents"])
            start = time.perf_counter()
            host.start_background()
            seconds = time.perf_counter() - start
            up: list[float] = []
            for number in range(min(wakes, count)):
                up += timed(partial(host.activate, f"sleeper-{number}"), 1, warm_up=0)
            host.stop()
            if count > 10:
                yield Row(f"start with {count:,} sleepers", "s", round(seconds, 2), aim=2.0)
            yield milliseconds(f"activate one of {count:,}", up, floor=fork, aim=5.0)


def _fill(directory: Path, count: int) -> None:
    state = encode_blob(EchoState(count=1, content=os.urandom(200))).tobytes()
    with Journal(directory / JOURNAL_NAME) as journal:
        ref = journal.states.keep(state)
        for first in range(0, count, 5000):
            journal.write_now(partial(_put_sleepers, range(first, min(first + 5000, count)), ref))


def _put_sleepers(numbers: range, ref: StateRef, connection: sqlite3.Connection) -> None:
    for number in numbers:
        record = StoredRecord(
            f"sleeper-{number}",
            qualified_name(Echo),
            qualified_name(EchoState),
            b"",
            DeactivationPolicy(),
            DeactivationRequest(),
            time.time(),
        )
        paglets.put(connection, record, ref)
