"""Hosts in processes of their own, which a test kills, pauses and starts again on the same directory and port."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from paglets.core.errors import ConflictError, ConnectionLostError, HostUnreachableError, RemoteTimeoutError
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from tests.faults.proxy import Network
from tests.support import eventually

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
END_SECONDS = 20.0
#: What the hosts of a cluster have imported ahead in the processes that become paglets.
PRELOAD = ("tests.agents.ledger_agent", "tests.agents.porter")
LEDGER = "tests.agents.ledger_agent:Ledger"


class HostStartError(Exception):
    """A host did not start; the text says why."""


class Nursery:
    """The process that forks the hosts of this test process; see :mod:`tests.faults.nursery`."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        environment.pop("PAGLETS_FAULT", None)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.faults.nursery"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._tokens = itertools.count(1)
        self._lock = threading.Lock()
        self._started: dict[int, Future[int]] = {}
        self._ready: dict[int, Future[dict[str, Any]]] = {}
        self._ended: dict[int, Future[int]] = {}
        self._reader = threading.Thread(target=self._listen, name="nursery-news", daemon=True)
        self._reader.start()

    def start(self, order: dict[str, Any]) -> tuple[int, Future[dict[str, Any]], Future[int]]:
        """Have a host forked; return its process id, what it says when it is ready, and how it will have ended."""
        token = next(self._tokens)
        started: Future[int] = Future()
        ready: Future[dict[str, Any]] = Future()
        with self._lock:
            self._started[token], self._ready[token] = started, ready
        self._tell({**order, "token": token})
        process_id = started.result(START_SECONDS)
        return process_id, ready, self._ended[process_id]

    def stop(self, process_id: int) -> None:
        """Have a host stop in order."""
        self._tell({"stop": process_id})

    def close(self) -> None:
        """End the process, and with it whatever it started."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(END_SECONDS)
        self._reader.join(END_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _tell(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = json.loads(line)
            with self._lock:
                if "started" in news:
                    self._ended[news["started"]] = Future()
                    self._started.pop(news["token"]).set_result(news["started"])
                elif "ended" in news:
                    self._ended.pop(news["ended"]).set_result(news["code"])
                else:
                    self._ready.pop(news["token"]).set_result(news)
        with self._lock:
            waiting: list[Future[Any]] = [*self._started.values(), *self._ready.values()]
        for future in waiting:
            future.set_exception(HostStartError("the process that forks hosts has ended"))


@dataclass
class HostProcess:
    """One host and the process it runs in now, if any."""

    nursery: Nursery
    name: str
    """Its name, which no other host of this machine has."""
    directory: Path
    log: Path
    options: dict[str, Any]
    setting: dict[str, Any] = field(default_factory=dict)
    """What else the nursery is told of it."""
    port: int = 0
    pid: int = 0
    paused: bool = False
    deaths: list[int] = field(default_factory=list)
    """Exit codes so far; negative ones are signals."""
    sessions: set[int] = field(default_factory=set)
    """Process ids of all its lives; each was the leader of a session."""
    _end: Future[int] | None = None

    @property
    def url(self) -> str:
        """Where others reach it: through its proxy or its hub where it has one."""
        if "connect_to" in self.options:
            return f"{self.options['connect_to']}/relay/hosts/{self.name}"
        return str(self.options.get("public_url") or self.direct_url)

    @property
    def direct_url(self) -> str:
        """Where it listens itself."""
        return f"http://{self.options.get('host', '127.0.0.1')}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether its process runs, paused or not."""
        return self._end is not None and not self._end.done()

    def start(self, fault: str = "", *, wait: bool = True, **environment: str) -> HostProcess:
        """Start it, or start it again where and as it was.

        :param fault: the point at which it dies; see :mod:`paglets.runtime.faults`.
        :param wait: return only when it serves; False where it may die before that.
        :raises HostStartError: it did not start.
        """
        assert not self.alive, f"{self.name} runs already"
        order = {
            **self.setting,
            "name": self.name,
            "log": str(self.log),
            "environment": {**environment, "PAGLETS_FAULT": fault},
            "options": {**self.options, "port": self.port, "persistence_dir": str(self.directory)},
        }
        self.pid, ready, self._end = self.nursery.start(order)
        self.sessions.add(self.pid)
        self._end.add_done_callback(lambda end: self.deaths.append(end.result()))
        self.paused = False
        if wait:
            self._await_ready(ready)
        return self

    def _await_ready(self, ready: Future[dict[str, Any]]) -> None:
        end = self._end
        assert end is not None
        eventually(lambda: ready.done() or end.done(), f"{self.name} to be ready; see {self.log}", START_SECONDS)
        news = ready.result() if ready.done() else {"failed": f"it ended with {end.result()}"}
        if "failed" in news:
            self.await_end()
            raise HostStartError(f"{self.name}: {news['failed']}\n{self.last_words()}")
        self.port = int(news["port"])

    def kill(self) -> None:
        """Kill its process, paused or not, and return when it is gone."""
        self.signal(signal.SIGKILL)
        self.await_end()

    def stop(self) -> int:
        """Stop it in order and return its exit code."""
        self.nursery.stop(self.pid)
        return self.await_end()

    def pause(self, *, with_paglets: bool = False) -> None:
        """Stop its process from running, and those of its paglets as well if asked to."""
        self.signal(signal.SIGSTOP)
        if with_paglets:
            for process in processes_of_sessions({self.pid}):
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
        # The signal is only sent so far; every thread stops for itself.
        eventually(lambda: not self.alive or is_stopped(self.pid), f"{self.name} to stop running")
        self.paused = True

    def go_on(self) -> None:
        """Let everything of it run again."""
        for process in processes_of_sessions({self.pid}):
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self.paused = False

    def signal(self, number: int) -> None:
        """Send a signal to its process; one that is gone is no error."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def await_end(self, timeout: float = END_SECONDS) -> int:
        """Wait until its process has ended and return the exit code."""
        assert self._end is not None
        end = self._end
        eventually(end.done, f"the end of {self.name}; see {self.log}", timeout)
        return end.result()

    def ended_within(self, timeout: float) -> bool:
        """Tell whether its process ends within some seconds."""
        assert self._end is not None
        with suppress(TimeoutError):
            self._end.result(timeout)
        return self._end.done()

    def last_words(self, lines: int = 30) -> str:
        """Return the end of what it printed."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def paglets(self) -> list[psutil.Process]:
        """Return the processes of its paglets."""
        return [process for process in processes_of_sessions({self.pid}) if _is_paglet(process, self.name)]

    def leftovers(self) -> list[psutil.Process]:
        """Return the processes that its earlier lives left behind."""
        return processes_of_sessions(self.sessions - ({self.pid} if self.alive else set()))


class Cluster:
    """Hosts of one test; closing it checks that no process of theirs is left.

    :param network: puts a proxy in front of every host through which the others reach it.
    """

    def __init__(self, directory: Path, nursery: Nursery, *, network: Network | None = None) -> None:
        self.directory = directory
        self.network = network
        self.client = HostClient(timeout=20.0)
        self.hosts: dict[str, HostProcess] = {}
        self._nursery = nursery
        self._tag = uuid4().hex[:6]

    def add(self, name: str, **options: Any) -> HostProcess:
        """Describe a host that is not started."""
        full = f"{name}-{self._tag}"
        setting = options.pop("setting", {})
        host = HostProcess(
            self._nursery,
            full,
            options.pop("directory", self.directory / f"host-{name}"),
            self.directory / f"{name}.log",
            {"mesh": False, "mesh_version": "test-version", "preload": PRELOAD, **options},
            setting,
        )
        if self.network is not None:
            host.options["public_url"] = self.network.proxy(full, lambda: host.port, lambda: host.pid).url
        self.hosts[name] = host
        return host

    def start(self, *names: str, **options: Any) -> list[HostProcess]:
        """Start new hosts of these names, at the same time."""
        return self.start_all([self.add(name, **options) for name in names])

    def start_all(self, hosts: list[HostProcess], faults: dict[str, str] | None = None) -> list[HostProcess]:
        """Start hosts at the same time.

        :param faults: by name of the cluster, where each is to die.
        """
        names = {id(host): name for name, host in self.hosts.items()}
        with ThreadPoolExecutor(len(hosts)) as starters:
            return list(starters.map(lambda host: host.start((faults or {}).get(names[id(host)], "")), hosts))

    def create(self, host: HostProcess, class_name: str = LEDGER, *, agent_id: str | None = None) -> str:
        """Create a paglet by class name and return its id; a bad network may cost several attempts."""
        chosen = agent_id or uuid4().hex
        body = {"agent_class_name": class_name, "agent_id": chosen}
        attempts = 0

        def made() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                self.client.post_json(f"{host.url}/agents", body)
            except (ConnectionLostError, HostUnreachableError, RemoteTimeoutError):
                return False
            except ConflictError:
                # An attempt of before whose answer was lost; nobody else knows the id.
                if attempts == 1 or agent_id is not None:
                    raise
            return True

        eventually(made, f"paglet {chosen} on {host.name}", START_SECONDS)
        return chosen

    def proxy(self, host: HostProcess, agent_id: str) -> PagletProxy:
        """Return a stand-in for a paglet that is believed to be on a host."""
        return PagletProxy(host.url, agent_id, self.client)

    def running(self) -> list[HostProcess]:
        """Return the hosts whose process runs and is not paused."""
        return [host for host in self.hosts.values() if host.alive and not host.paused]

    def everyone_back(self) -> None:
        """Start again, without faults, what does not run, and wake what is paused."""
        dead = [host for host in self.hosts.values() if not host.alive]
        if dead:
            self.start_all(dead)
        for host in self.hosts.values():
            if host.paused:
                host.go_on()

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 60.0) -> Any:
        """Wait for something, and start every host again that dies meanwhile (an armed fault met late)."""

        def look() -> Any:
            self.everyone_back()
            return condition()

        return eventually(look, what, timeout)

    def close(self) -> None:
        """Kill every host and check that all that they started died with them."""
        for host in self.hosts.values():
            if host.alive:
                host.kill()
        for host in self.hosts.values():
            self._await_nothing_left(host)
        self.client.close()

    def _await_nothing_left(self, host: HostProcess) -> None:
        eventually(lambda: not host.leftovers(), f"no process of {host.name} left")


@contextmanager
def cluster_in(directory: Path, nursery: Nursery, *, network: Network | None = None) -> Iterator[Cluster]:
    """Give a cluster and close it, whatever happens."""
    cluster = Cluster(directory, nursery, network=network)
    try:
        yield cluster
    finally:
        cluster.close()


def processes_of_sessions(sessions: set[int]) -> list[psutil.Process]:
    """Return the running processes of some sessions, their leaders first."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return sorted(found, key=lambda process: process.pid not in sessions)


def _is_paglet(process: psutil.Process, host_name: str) -> bool:
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline()).startswith(f"paglet:{host_name}:")
    return False


def is_stopped(process_id: int) -> bool:
    """Tell whether every thread of a process is stopped."""
    tasks = Path(f"/proc/{process_id}/task")
    if not tasks.is_dir():
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(process_id).status() == psutil.STATUS_STOPPED
        return True
    states = []
    for task in tasks.iterdir():
        with suppress(OSError):  # a thread that ended meanwhile
            states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
    return all(state in "TtXZ" for state in states)
