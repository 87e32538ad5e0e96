"""Churn for as long as wanted: ``python -m tests.faults.soak --minutes 30``.

Hosts die and come back, paglets are created, called, moved, given files and disposed of. Two hosts live through all of
it; after a warm-up their memory, threads and descriptors may not grow any more, and the work has to be done right. Ends
with a table, and with status 1 where something grew or was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from paglets.core.errors import InvalidAgentError, PagletError
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.remote.transfer import TransferTicket
from tests.faults.cluster import LEDGER, Cluster, HostProcess, Nursery, cluster_in
from tests.faults.slope import floor, trend
from tests.faults.workload import Call, Load, Notes
from tests.support import eventually

MEGABYTE = 1024 * 1024
LIMITS_PER_MINUTE = {"memory MB": 0.25, "threads": 0.2, "descriptors": 0.3, "fork server MB": 0.25, "journal MB": 0.5}
"""What a figure may grow by: less than the noise of a few minutes, and nothing that lasts."""
_CONTENT = re.compile(r"[0-9a-f]{32}")
"""Names of files of the store."""
SAMPLE_SECONDS = 5.0
FLOOR_SECONDS = 30.0
WARM_UP = 0.4
"""Share of the time in which what is bounded fills up; the paths of some 700 paglets fill the caches of the router."""
MESH = {
    "mesh": True,
    "mesh_multicast": False,
    "mesh_lan_discovery": False,
    "mesh_offline_after": 5.0,
    "mesh_gossip_interval": 0.5,
}


@dataclass
class Done:
    """What was done so far; counted from several threads."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str) -> None:
        """Count something."""
        with self._lock:
            self.counts[what] += 1

    def wrong(self, problem: str) -> None:
        """Note something that must not happen."""
        with self._lock:
            self.problems.append(problem)


@dataclass
class Figures:
    """What was measured of one host."""

    name: str
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    descriptors: list[dict[str, int]] = field(default_factory=list)
    """How many descriptors of which kind there were, by time."""

    def take(self, host: HostProcess) -> None:
        """Measure a host that runs."""
        now = time.monotonic()
        process = psutil.Process(host.pid)
        found = {
            "memory MB": anonymous_bytes(host.pid) / MEGABYTE,
            "threads": float(process.num_threads()),
            "descriptors": float(process.num_fds()),
            "journal MB": sum(path.stat().st_size for path in host.directory.glob("journal.db*")) / MEGABYTE,
        }
        self.descriptors.append(_descriptors_of(process))
        for child in process.children():
            with suppress(psutil.NoSuchProcess):
                if not " ".join(child.cmdline()).startswith("paglet:"):
                    found["fork server MB"] = child.memory_full_info().uss / MEGABYTE
        for what, figure in found.items():
            self.samples.setdefault(what, []).append((now, figure))

    def rows(self, warm_up: float) -> list[dict[str, Any]]:
        """Return how each figure went after the warm-up, and whether that is within its limit."""
        rows = []
        for what, samples in self.samples.items():
            # What grows for ever raises the floor; what is under way when it is measured, only what is above.
            line = trend(floor(samples, FLOOR_SECONDS), warm_up=warm_up)
            limit = LIMITS_PER_MINUTE[what]
            rows.append(
                {
                    "host": self.name,
                    "figure": what,
                    "first": round(line.first, 2),
                    "last": round(line.last, 2),
                    "per minute": round(line.per_minute, 3),
                    "limit": limit,
                    "good": line.per_minute <= limit,
                }
            )
        return rows


def anonymous_bytes(process_id: int) -> int:
    """Return how much memory a process has that no file is behind.

    Not what is its own alone: a host is forked here, and its first full garbage collection writes to some 5 MB that it
    had shared until then.
    """
    for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"the system does not tell of the memory of process {process_id}")


def _descriptors_of(process: psutil.Process) -> dict[str, int]:
    """Return how many descriptors of which kind a process has: connections by their state, others by what they are."""
    found: Counter[str] = Counter()
    for connection in process.net_connections("inet"):
        found[f"connection {connection.status.lower()}"] += 1
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            name = str(descriptor.readlink()).partition(":")[0].rpartition("/")[2]
            found["content" if _CONTENT.match(name) else name] += 1
    return dict(found)


class Soak:
    """The work and the trouble."""

    def __init__(self, cluster: Cluster, seed: int, directory: Path) -> None:
        self.cluster = cluster
        self.done = Done()
        self.veterans = [cluster.add(f"veteran{number}", **MESH) for number in range(2)]
        cluster.start_all(self.veterans)
        peers = [host.url for host in self.veterans]
        self.mortals = [cluster.add(f"mortal{number}", peers=peers, **MESH) for number in range(2)]
        cluster.start_all(self.mortals)
        self.endings: dict[str, list[str]] = {}
        """By id: what was answered to whoever disposed of a paglet, where it was not done at once."""
        self._seed = seed
        self._directory = directory

    def live(self, number: int, load: Load) -> None:
        """Go through the lives of paglets, one after the other, until told to stop."""
        chance = random.Random(f"{self._seed}:{number}")
        with HostClient(timeout=20.0) as client:
            turn = 0
            while not load.stop.is_set():
                turn += 1
                self._one_life(f"{number}.{turn}", chance, client, load.stop)

    def _one_life(self, name: str, chance: random.Random, client: HostClient, stop: threading.Event) -> None:
        notes = Notes()
        agent_id = uuid4().hex
        home = chance.choice(self.veterans)
        body = {"agent_class_name": LEDGER, "agent_id": agent_id}
        client.post_json(f"{home.url}/agents", body)
        self.done.add("paglets created")
        talk = Load(notes)
        sender = talk.sender(name, PagletProxy(home.url, agent_id, client))
        for _ in range(chance.randint(5, 20)):
            match chance.choice(["say", "say", "say", "oneway", "move", "move", "sleep", "file"]):
                case "say":
                    sender.say(Call(args={"padding": "x" * chance.randint(0, 20_000)}))
                case "oneway":
                    sender.say(Call(oneway=True))
                case "move":
                    self._move(sender.proxy, chance.choice(self.veterans + self.mortals))
                case "sleep":
                    sender.say(Call("rest"))
                case "file":
                    self._file(client, chance)
        # The last word is answered, so everything before it is in the book: the same number of entries was told.
        told = sender.say(Call())
        self.done.counts["messages acknowledged"] += len(notes.told)
        entries = [item for item in notes.told if item.kind in ("add", "rest")]
        if notes.given_up:
            self.done.wrong(f"{name}: {notes.given_up}")
        elif not isinstance(told, int) or not len(entries) - 40 <= told <= len(entries) + 40:
            self.done.wrong(f"{name}: told {told} after {len(entries)} messages")
        elif told != sender.count:
            self.done.wrong(f"{name}: {sender.count} messages make {told} entries")
        self._dispose(name, sender.proxy, stop)

    def _move(self, proxy: PagletProxy, target: HostProcess) -> None:
        try:
            proxy.dispatch(TransferTicket(target.url, timeout=3.0))
            self.done.add("moves")
        except PagletError:
            self.done.add("moves that failed")

    def _dispose(self, name: str, proxy: PagletProxy, stop: threading.Event) -> None:
        deadline = time.monotonic() + 60.0
        answers: list[str] = []
        while time.monotonic() < deadline:
            try:
                proxy.dispose()
            except PagletError as exc:
                answers.append(f"{time.strftime('%H:%M:%S')} {type(exc).__name__}: {exc}")
                if not isinstance(exc, InvalidAgentError):
                    stop.wait(0.1)
                    continue
                if len(answers) == 1:
                    self.done.wrong(f"{name} is nowhere at its end: {exc}")
                # Otherwise the answer to an earlier attempt was lost.
            break
        else:
            self.done.wrong(f"{name} could not be disposed of: {answers[-1]}")
        if answers:
            self.endings[proxy.agent_id] = answers
        self.done.add("paglets disposed of")

    def _file(self, client: HostClient, chance: random.Random) -> None:
        source = self._directory / uuid4().hex
        source.write_bytes(chance.randbytes(chance.randint(1, 2_000_000)))
        target = source.with_suffix(".back")
        host = chance.choice(self.veterans)
        try:
            ref = client.upload_artifact(host.url, source)
            client.download_artifact(ref, target)
            if _hash_of(source) != _hash_of(target):
                self.done.wrong(f"a file came back changed from {host.name}")
            client.delete_artifact(ref)
            self.done.add("files sent, fetched and deleted")
        finally:
            source.unlink()
            target.unlink(missing_ok=True)

    def churn(self, load: Load) -> None:
        """Kill, pause and start mortals until told to stop."""
        chance = random.Random(f"{self._seed}:churn")
        while not load.stop.wait(chance.uniform(3.0, 8.0)):
            host = chance.choice(self.mortals)
            if chance.random() < 0.3:
                host.pause()
                load.stop.wait(chance.uniform(0.5, 3.0))
                host.go_on()
                self.done.add("hosts paused")
            else:
                host.kill()
                load.stop.wait(chance.uniform(0.0, 3.0))
                host.start()
                self.done.add("hosts killed and started")


def _hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(minutes: float, seed: int, directory: Path) -> dict[str, Any]:
    """Soak for some minutes and return the report."""
    nursery = Nursery()
    try:
        with cluster_in(directory, nursery) as cluster:
            soak = Soak(cluster, seed, directory)
            figures = [Figures(host.name.rpartition("-")[0]) for host in soak.veterans]
            load = Load()
            for number in range(3):
                load.run(f"life{number}", lambda number=number: soak.live(number, load))  # type: ignore[misc]
            load.run("churn", lambda: soak.churn(load))
            end = time.monotonic() + minutes * 60.0
            while time.monotonic() < end and not load.stop.wait(SAMPLE_SECONDS):
                for host, measured in zip(soak.veterans, figures, strict=True):
                    measured.take(host)
                _say_where(soak, figures, end)
            load.finish()
            _check_rest(soak)
    finally:
        nursery.close()
    rows = [row for measured in figures for row in measured.rows(warm_up=minutes * 60.0 * WARM_UP)]
    return {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "minutes": minutes,
        "seed": seed,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "done": dict(soak.done.counts),
        "figures": rows,
        "descriptors": {
            each.name: {
                "early": _typical(each.descriptors[: count // 3]),
                "late": _typical(each.descriptors[-count // 3 :]),
            }
            for each in figures
            if (count := len(each.descriptors)) > 2
        },
        "problems": soak.done.problems,
        "good": not soak.done.problems and all(row["good"] for row in rows),
    }


def _typical(samples: list[dict[str, int]]) -> dict[str, float]:
    """Return how many descriptors of each kind there were on average."""
    kinds = sorted({kind for sample in samples for kind in sample})
    return {kind: round(sum(sample.get(kind, 0) for sample in samples) / len(samples), 1) for kind in kinds}


def _say_where(soak: Soak, figures: list[Figures], end: float) -> None:
    last = figures[0].samples
    shown = ", ".join(f"{what} {samples[-1][1]:.1f}" for what, samples in last.items())
    left = max(0.0, end - time.monotonic())
    print(f"\r{left:5.0f} s left, {soak.done.counts['paglets created']} paglets; {shown}   ", end="", flush=True)


def _check_rest(soak: Soak) -> None:
    """See that nothing is left: no paglet, and everybody knows everybody."""
    cluster = soak.cluster
    cluster.everyone_back()

    def left() -> list[tuple[HostProcess, dict[str, Any]]] | None:
        with suppress(PagletError):
            return [
                (host, agent)
                for host in cluster.hosts.values()
                for agent in cluster.client.get_json(f"{host.url}/agents?state=all")["agents"]
            ]
        return None

    try:
        try:
            eventually(lambda: left() == [], "all paglets to be gone", 60.0)
        except AssertionError:
            for host, agent in left() or ():
                soak.done.wrong(f"left on {host.name}: {agent}; disposed of: {soak.endings.get(agent['agent_id'])}")
                for each in cluster.hosts.values():
                    soak.done.wrong(f"  {each.name}: {_known_of(cluster, each, agent['agent_id'])}")
            raise
        names = {host.name for host in cluster.hosts.values()}
        for host in cluster.hosts.values():
            eventually(
                lambda host=host: (
                    {  # type: ignore[misc]
                        record["name"]
                        for record in cluster.client.get_json(f"{host.url}/hosts")["hosts"]
                        if record["online"]
                    }
                    == names
                ),
                f"{host.name} to know everybody",
                30.0,
            )
    except AssertionError as exc:
        soak.done.wrong(str(exc))


def _known_of(cluster: Cluster, host: HostProcess, agent_id: str) -> str:
    """Return what a host knows of a paglet that should be gone: what happened to it there, and where it says it is."""
    found = []
    for part in ("journey", "location"):
        try:
            found.append(json.dumps(cluster.client.get_json(f"{host.url}/agents/{agent_id}/{part}")))
        except PagletError as exc:
            found.append(f"{type(exc).__name__}: {exc}")
    return " | ".join(found)


def main() -> int:
    """Run, print what happened, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    parser.add_argument("--seed", type=int, default=1, help="what chance is drawn from (default: 1)")
    parser.add_argument("--output", type=Path, help="also write the report to this file, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paglets-soak-") as directory:
        report = run(options.minutes, options.seed, Path(directory))
    print()
    for row in report["figures"]:
        mark = "" if row["good"] else "  GROWS"
        figures = f"{row['first']:10.2f}{row['last']:10.2f}{row['per minute']:+10.3f}/min (limit {row['limit']}){mark}"
        print(f"{row['host']:12}{row['figure']:16}{figures}")
    for what, count in sorted(report["done"].items()):
        print(f"{what:40}{count}")
    print("\n".join(report["problems"]) or "nothing wrong, nothing left")
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if report["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
