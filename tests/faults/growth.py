"""What one kind of work leaves behind in a host: ``python -m tests.faults.growth create --times 10000``.

Does the same thing again and again and tells, ten times, how much memory the hosts have and how many rows are in their
journals. What is bounded fills up in the beginning; from then on nothing may grow.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from paglets.core.messages import Message
from tests.faults.cluster import Cluster, HostProcess, Nursery, cluster_in
from tests.faults.soak import MEGABYTE, anonymous_bytes

ROUNDS: Final = 10


class Work:
    """The kinds of work, each a method that does it once."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self._cluster = cluster
        self._hosts = cluster.start("growth0", "growth1")
        self._file = directory / "file"
        self._file.write_bytes(os.urandom(200_000))
        self._resident = cluster.proxy(self._hosts[0], cluster.create(self._hosts[0]))

    @property
    def hosts(self) -> list[HostProcess]:
        """Where it is done."""
        return self._hosts

    def create(self) -> None:
        """Create a paglet and dispose of it."""
        self._cluster.proxy(self._hosts[0], self._cluster.create(self._hosts[0])).dispose()

    def move(self) -> None:
        """Have a paglet go to the other host and back."""
        for host in (self._hosts[1], self._hosts[0]):
            self._resident.dispatch(host.url)

    def message(self) -> None:
        """Ask a paglet something."""
        self._resident.send(Message("receipt", {}))

    def sleep(self) -> None:
        """Put a paglet to sleep and wake it."""
        self._resident.deactivate()
        self._resident.activate()

    def file(self) -> None:
        """Upload a file and delete it."""
        ref = self._cluster.client.upload_artifact(self._hosts[0].url, self._file)
        self._cluster.client.delete_artifact(ref)


KINDS: Final[dict[str, Callable[[Work], None]]] = {
    "create": Work.create,
    "move": Work.move,
    "message": Work.message,
    "sleep": Work.sleep,
    "file": Work.file,
}


def rows_of(host: HostProcess) -> dict[str, int]:
    """Return how many rows each table of a host's journal has, those without any left out."""
    uri = f"{(host.directory / 'journal.db').as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    return {name: count for name, count in counts.items() if count}


def measure(kind: str, times: int, directory: Path) -> list[dict[str, Any]]:
    """Do one kind of work and return the figures of both hosts after each tenth of it."""
    nursery = Nursery()
    found: list[dict[str, Any]] = []
    try:
        with cluster_in(directory, nursery) as cluster:
            work = Work(cluster, directory)
            for number in range(ROUNDS + 1):
                began = time.monotonic()
                for _ in range(times // ROUNDS if number else 0):
                    KINDS[kind](work)
                figures = {
                    "times": number * (times // ROUNDS),
                    "seconds": round(time.monotonic() - began, 1),
                    "memory MB": [round(anonymous_bytes(host.pid) / MEGABYTE, 2) for host in work.hosts],
                    "rows": rows_of(work.hosts[0]),
                }
                print(json.dumps(figures), flush=True)
                found.append(figures)
    finally:
        nursery.close()
    return found


def main() -> int:
    """Measure, and print the figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=KINDS, help="what is done")
    parser.add_argument("--times", type=int, default=1000, help="how often (default: 1000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paglets-growth-") as directory:
        measure(options.kind, options.times, Path(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
