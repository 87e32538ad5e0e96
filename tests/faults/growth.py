"""What one kind of work leaves behind in a host: ``python -m tests.faults.growth create --times 10000``.

Does the same thing again and again and tells, ten times, what each host and its fork server have of memory, mappings,
descriptors and threads, and how many rows are in the journal. What is bounded fills up in the beginning; from then on
nothing may grow. With ``--inside`` one host runs in this process, and the figures are those of its allocators and what
is left to the garbage collector, which should be nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.faults.cluster import LEDGER, HostProcess, Nursery, cluster_in
from tests.faults.memory import figures_of, inside

ROUNDS: Final = 10


class Work:
    """The kinds of work, each a method that does it once."""

    def __init__(self, client: HostClient, urls: Sequence[str], directory: Path, size: int) -> None:
        self._client = client
        self._urls = urls
        self._file = directory / "file"
        self._file.write_bytes(os.urandom(200_000))
        self._resident = self._created()
        if size:
            self._resident.send(Message("load", {"nbytes": size}))

    def _created(self) -> PagletProxy:
        reply = self._client.post_json(f"{self._urls[0]}/agents", {"agent_class_name": LEDGER})
        return PagletProxy(self._urls[0], reply["proxy"]["agent_id"], self._client)

    def create(self) -> None:
        """Create a paglet and dispose of it."""
        self._created().dispose()

    def move(self) -> None:
        """Have a paglet go to the other host and back."""
        for url in (self._urls[-1], self._urls[0]):
            self._resident.dispatch(url)

    def message(self) -> None:
        """Ask a paglet something."""
        self._resident.send(Message("receipt", {}))

    def sleep(self) -> None:
        """Put a paglet to sleep and wake it."""
        self._resident.deactivate()
        self._resident.activate()

    def file(self) -> None:
        """Upload a file and delete it."""
        self._client.delete_artifact(self._client.upload_artifact(self._urls[0], self._file))


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


def fork_server_of(host: HostProcess) -> int | None:
    """Return the process id of what forks a host's paglets, None where it has none."""
    for child in psutil.Process(host.pid).children():
        with suppress(psutil.NoSuchProcess):
            if not " ".join(child.cmdline()).startswith("paglet:"):
                return child.pid
    return None


def repeat(work: Work, kind: str, times: int, look: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
    """Do one kind of work, and return and print what there is to see after each tenth of it."""
    found: list[dict[str, Any]] = []
    for number in range(ROUNDS + 1):
        began = time.monotonic()
        for _ in range(times // ROUNDS if number else 0):
            KINDS[kind](work)
        taken = round(time.monotonic() - began, 1)
        found.append({"times": number * (times // ROUNDS), "seconds": taken, **look()})
        print(json.dumps(found[-1]), flush=True)
    return found


def measure(kind: str, times: int, size: int, directory: Path) -> list[dict[str, Any]]:
    """Do one kind of work with hosts of their own and return the figures of both after each tenth of it."""
    nursery = Nursery()
    try:
        with cluster_in(directory, nursery) as cluster:
            hosts = cluster.start("growth0", "growth1")

            def look() -> dict[str, Any]:
                server = fork_server_of(hosts[0])
                return {
                    "hosts": [figures_of(host.pid) for host in hosts],
                    "fork server": None if server is None else figures_of(server),
                    "rows": rows_of(hosts[0]),
                }

            work = Work(cluster.client, [host.url for host in hosts], directory, size)
            return repeat(work, kind, times, look)
    finally:
        nursery.close()


def measure_inside(kind: str, times: int, size: int, directory: Path) -> list[dict[str, Any]]:
    """Do one kind of work with a host in this process and return what its allocators say after each tenth of it."""
    host = Host("growth-inside", persistence_dir=directory / "host", port=0, mesh=False, mesh_version="test-version")
    host.start_background()
    try:
        with HostClient(timeout=20.0) as client:
            return repeat(Work(client, [host.address], directory, size), kind, times, inside)
    finally:
        host.stop()


def main() -> int:
    """Measure, and print the figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=KINDS, help="what is done")
    parser.add_argument("--times", type=int, default=1000, help="how often (default: 1000)")
    parser.add_argument("--size", type=int, default=0, help="bytes of state that the paglet has besides (default: 0)")
    parser.add_argument("--inside", action="store_true", help="run one host here and look at its allocators")
    options = parser.parse_args()
    if options.inside and options.kind == "move":
        parser.error("a move needs two hosts")
    with tempfile.TemporaryDirectory(prefix="paglets-growth-") as directory:
        run = measure_inside if options.inside else measure
        run(options.kind, options.times, options.size, Path(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
