"""A mesh of hosts in network namespaces: ``python -m tests.faults.namespaces --hosts 20 --json``.

Each host is a process with an address of its own, and every packet between them passes the switch of
:mod:`tests.faults.switch`. The hosts form a mesh from one peer and live through bad weather, a partition and a death,
with a paglet that moves over them meanwhile. What has to hold is checked; what it took is reported, and can be kept.

Needs root, for the namespaces; says so and ends with status 77 where there are none.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from paglets.core.errors import PagletError
from paglets.remote.transfer import TransferTicket
from tests.faults import switch
from tests.faults.cluster import Cluster, HostProcess, Nursery, cluster_in
from tests.faults.judge import judge, quiet
from tests.faults.switch import Line, Switch
from tests.faults.workload import Call, Sender, load
from tests.support import eventually

ROUGH = Line(loss=0.05, delay=0.05, reorder=0.05)
"""One packet in twenty lost, one in twenty overtaking the others, 50 ms each way."""
NO_NAMESPACES = 77
_PORT = 8765
_CONTROL = "control"
_KEY = "key-of-the-mesh"
_CHANGE = re.compile(r"^([0-9.]+) mesh: (\S+) at \S+ is (online|offline)(?:: (.*))?$")


class Meshed:
    """Hosts behind a switch, and what they say of each other."""

    def __init__(self, cluster: Cluster, made: Switch, count: int, offline_after: float, interval: float) -> None:
        self.cluster = cluster
        self.switch = made
        self.offline_after = offline_after
        options = {
            "port": _PORT,
            "api_key": _KEY,
            "mesh": True,
            "mesh_multicast": False,
            "mesh_lan_discovery": False,
            "mesh_offline_after": offline_after,
            "mesh_gossip_interval": interval,
        }
        cluster.client.api_key = _KEY
        self.hosts: list[HostProcess] = []
        for number in range(count):
            address = switch.address_of(number + 1)
            peers = [self.hosts[0].direct_url] if self.hosts else []
            setting = {"port_of_switch": [number + 1, str(made.path)], "log_mesh": True}
            host = cluster.add(f"h{number}", host=address, peers=peers, setting=setting, **options)
            host.port = _PORT
            self.hosts.append(host)

    def seen_by(self, host: HostProcess) -> dict[str, bool]:
        """Return whom a host knows, and whether it takes each for online; nobody where it does not answer."""
        try:
            records = self.cluster.client.get_json(f"{host.direct_url}/hosts", timeout=5.0)["hosts"]
        except PagletError:
            return {}
        return {str(record["name"]): bool(record["online"]) for record in records}

    def agree(self, hosts: Collection[HostProcess], expected: Collection[HostProcess] | None = None) -> bool:
        """Tell whether each of some hosts takes exactly these hosts for online."""
        names = {host.name for host in hosts if host.alive} if expected is None else {host.name for host in expected}
        return all({name for name, online in self.seen_by(host).items() if online} == names for host in hosts)

    def changes(self, since: float) -> list[tuple[float, str, str, str]]:
        """Return what each host noted of others since a time: when, by whom, whom, and online or why not."""
        found = []
        for host in self.hosts:
            for text in host.log.read_text(errors="replace").splitlines() if host.log.exists() else ():
                said = _CHANGE.match(text)
                if said is not None and float(said[1]) >= since:
                    found.append((float(said[1]), host.name, said[2], said[4] or said[3]))
        return sorted(found)

    def traffic(self) -> tuple[int, int, int]:
        """Return bytes and packets that hosts sent so far, and how many packets were lost."""
        ports = [port for name, port in list(self.switch.ports.items()) if name != _CONTROL]
        return (
            sum(port.sent_bytes for port in ports),
            sum(port.sent_packets for port in ports),
            sum(port.lost_packets for port in ports),
        )


class Scenario:
    """What happens to them, step by step."""

    def __init__(self, meshed: Meshed, seed: int, steady_seconds: float) -> None:
        self.meshed = meshed
        self.report: dict[str, Any] = {}
        self.problems: list[str] = []
        self.chance = random.Random(seed)
        self._steady_seconds = steady_seconds
        self._reachable: list[HostProcess] = []

    def run(self) -> None:
        """Do everything.

        :raises AssertionError: something did not come about in time.
        """
        meshed = self.meshed
        hosts = meshed.hosts
        self._form()
        self._steady("idle mesh", Line())
        home = hosts[-1]
        agent_id = meshed.cluster.create(home)
        self._reachable = list(hosts)
        with load() as talk:
            sender = talk.sender("s", meshed.cluster.proxy(home, agent_id))
            talk.run("talker", lambda: sender.say_on(Call))
            talk.run("wanderer", lambda: self._wander(sender, talk.stop, agent_id))
            self._steady("fine weather", Line())
            self._steady("rough weather", ROUGH)
            meshed.switch.line = Line()
            self._partition()
            self._death()
            notes = talk.finish()
            verdict = judge(meshed.cluster, notes, [agent_id])
            places = quiet(meshed.cluster)[agent_id]
        self.problems += verdict.problems
        self.report["paglet"] = {
            "moves": self.report.pop("moves", 0),
            "messages acknowledged": len(notes.told),
            "owners at the end": len(places),
            "errors answered by a repetition": dict(notes.errors),
        }

    def _form(self) -> None:
        meshed = self.meshed
        began = time.monotonic()
        meshed.cluster.start_all(meshed.hosts)
        started = time.monotonic()
        eventually(lambda: meshed.agree(meshed.hosts), "all hosts to know all", 60.0)
        done = time.monotonic()
        self.report["formation"] = {
            "hosts": len(meshed.hosts),
            "seconds to start all": round(started - began, 2),
            "seconds from the last start until all know all": round(done - started, 2),
        }

    def _steady(self, name: str, line: Line) -> None:
        """Let weather pass: nobody may be missed."""
        meshed = self.meshed
        meshed.switch.line = line
        since, began = time.time(), time.monotonic()
        sent, packets, lost = meshed.traffic()
        threading.Event().wait(self._steady_seconds)
        seconds = time.monotonic() - began
        after, packets_after, lost_after = meshed.traffic()
        missed = [
            f"{by} took {whom} for offline: {why}" for _, by, whom, why in meshed.changes(since) if why != "online"
        ]
        self.report[name] = {
            "seconds": round(seconds, 1),
            "healthy hosts taken for offline": len(missed),
            "KB/s sent by each host, with all headers": round((after - sent) / 1024 / seconds / len(meshed.hosts), 2),
            "packets lost": lost_after - lost,
            "packets/s sent by each host": round((packets_after - packets) / seconds / len(meshed.hosts), 1),
        }
        self.problems += missed

    def _partition(self) -> None:
        meshed = self.meshed
        hosts = meshed.hosts
        west, east = hosts[: len(hosts) // 3], hosts[len(hosts) // 3 :]
        self._reachable = list(east)
        began = time.monotonic()
        meshed.switch.separate([host.name for host in west], [host.name for host in east])
        eventually(
            lambda: meshed.agree(west, west) and meshed.agree(east, east),
            "each side to see itself alone",
            meshed.offline_after * 3 + 10.0,
        )
        seen = time.monotonic()
        meshed.switch.separate()
        eventually(lambda: meshed.agree(hosts), "the mesh to heal", 60.0)
        self._reachable = list(hosts)
        self.report["partition"] = {
            "sides": f"{len(west)} and {len(east)}",
            "seconds until each side sees itself alone": round(seen - began, 2),
            "seconds to heal": round(time.monotonic() - seen, 2),
        }

    def _death(self) -> None:
        meshed = self.meshed
        victim = meshed.hosts[1]
        self._reachable = [host for host in meshed.hosts if host is not victim]
        others = list(self._reachable)
        began = time.monotonic()
        victim.kill()
        eventually(lambda: meshed.agree(others, others), "the dead host to be missed", meshed.offline_after * 3 + 10.0)
        missed = time.monotonic()
        victim.start()
        eventually(lambda: meshed.agree(meshed.hosts), "the host to be back", 60.0)
        self._reachable = list(meshed.hosts)
        known = {name for host in meshed.hosts for name in meshed.seen_by(host)}
        ghosts = known - {host.name for host in meshed.hosts}
        self.problems += [f"a host that never was: {name}" for name in ghosts]
        self.report["death"] = {
            "seconds until all miss it": round(missed - began, 2),
            "seconds until it is back": round(time.monotonic() - missed, 2),
            "ghosts": len(ghosts),
        }

    def _wander(self, sender: Sender, stop: threading.Event, agent_id: str) -> None:
        """Move the paglet from host to host for as long as the test goes on."""
        self.report["moves"] = 0
        while not stop.is_set():
            target = self.chance.choice(self._reachable)
            try:
                sender.proxy.dispatch(TransferTicket(target.direct_url, timeout=5.0))
                self.report["moves"] += 1
            except PagletError:
                stop.wait(0.2)  # a host that is cut off or dead; what became of the paglet is judged at the end


def run(
    count: int, *, seed: int, seconds: float, offline_after: float, interval: float
) -> tuple[dict[str, Any], list[str]]:
    """Run everything in a namespace of its own; return the report and what is wrong.

    :param seconds: how long each weather lasts.
    """
    switch.enter_namespace()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paglets-mesh-")))
        made = Switch(directory / "switch", seed)
        stack.callback(made.close)
        switch.plug_in(_CONTROL, 0, str(made.path))
        nursery = Nursery()
        stack.callback(nursery.close)
        cluster = stack.enter_context(cluster_in(directory, nursery))
        meshed = Meshed(cluster, made, count, offline_after, interval)
        scenario = Scenario(meshed, seed, seconds)
        try:
            scenario.run()
        except AssertionError as exc:
            scenario.problems.append(str(exc))
            scenario.problems += [f"{host.name} sees {meshed.seen_by(host)}" for host in meshed.hosts if host.alive][:5]
            scenario.problems += [str(change) for change in meshed.changes(0.0)[-40:]]
        return scenario.report, scenario.problems


def main() -> int:
    """Run, print what happened, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=20, help="how many hosts there are (default: 20)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each weather lasts (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="what chance is drawn from (default: 1)")
    parser.add_argument("--offline-after", type=float, default=10.0, help="seconds of silence (default: 10)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two rounds of gossip (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--output", type=Path, help="also write it to this file")
    options = parser.parse_args()
    reason = switch.why_not()
    if reason:
        sys.stderr.write(f"{reason}\n")
        return NO_NAMESPACES
    report, problems = run(
        options.hosts,
        seed=options.seed,
        seconds=options.seconds,
        offline_after=options.offline_after,
        interval=options.interval,
    )
    whole = {"measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **report, "problems": problems}
    text = json.dumps(whole, indent=1)
    if options.output is not None:
        options.output.write_text(text + "\n")
    if options.json:
        print(text)
    else:
        show(report, problems)
    return 1 if problems else 0


def show(report: dict[str, Any], problems: list[str]) -> None:
    """Print a table."""
    for title, rows in report.items():
        for name, value in rows.items():
            print(f"{title:16}{name:56}{value}")
    print("\n".join(problems) or "nobody missed, no ghost, one owner, nothing lost or doubled")


if __name__ == "__main__":
    sys.exit(main())
