"""What tests of running hosts share: hosts that leave nothing behind, gates between processes, polling."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

if TYPE_CHECKING:
    from paglets.remote.proxy import PagletProxy
    from paglets.runtime.host import Host

T = TypeVar("T")

DEADLINE_SECONDS = 30.0
_POLL_SECONDS = 0.01
_FIRST_PORT, _MOST_PORTS = 10_000, 20_000
_port_numbers = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """Return a TCP port of this machine that nobody listens on, another one each time.

    It is none of those that the system gives to connections and to whoever asks for any port, nor one that tests of
    another process are given at the time.
    """
    for number in itertools.islice(_port_numbers, _MOST_PORTS):
        port = _FIRST_PORT + number % _MOST_PORTS
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError(f"no free port from {_FIRST_PORT} to {_FIRST_PORT + _MOST_PORTS - 1}")


def eventually(look: Callable[[], T], what: str, timeout: float = DEADLINE_SECONDS) -> T:
    """Return what ``look`` returns as soon as that is true; only for what cannot be waited for in any other way."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(_POLL_SECONDS)
    return found


class Gate:
    """Hold a paglet up at one point of its code: it opens a pipe for reading and waits for the other end to be closed.

    ``await_entered`` returns when a paglet waits in the gate, so neither side has to guess.
    """

    def __init__(self, directory: Path, name: str = "gate") -> None:
        self.path = directory / f"{name}.fifo"
        os.mkfifo(self.path)
        self._descriptor: int | None = None

    def __str__(self) -> str:
        return str(self.path)

    def await_entered(self) -> None:
        """Wait until a paglet is in the gate."""
        self._descriptor = eventually(self._try_open, f"a paglet in {self.path.name}")

    def _try_open(self) -> int | None:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as exc:
            if exc.errno != errno.ENXIO:
                raise
            return None

    def open(self) -> None:
        """Let the paglet go on."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class HostFactory:
    """Start hosts that are stopped after the test, mesh off and in directories of the test unless told otherwise."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Host] = []

    def new(self, name: str = "alpha", **options: Any) -> Host:
        """Return a host that is not started."""
        from paglets.runtime.host import Host  # only for tests that run hosts

        options.setdefault("persistence_dir", self._directory / f"host-{name}")
        options.setdefault("mesh", False)
        options.setdefault("mesh_version", "test-version")
        host = Host(name, **options)
        self._started.append(host)
        return host

    def __call__(self, name: str = "alpha", **options: Any) -> Host:
        """Return a started host."""
        host = self.new(name, **options)
        host.start_background()
        return host

    def close(self) -> None:
        """Stop all hosts and check that nothing of them is left."""
        hosts, self._started = self._started, []
        for host in hosts:
            host.stop()
        for name in {host.name for host in hosts}:
            eventually(lambda name=name: not processes_of(name), f"no process of {name} left: {processes_of(name)}")
            eventually(lambda name=name: not threads_of(name), f"no thread of {name} left: {threads_of(name)}")


def processes_of(host_name: str) -> list[str]:
    """Return the titles of the running paglet processes of a host of this test process."""
    titles = []
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
            if title.startswith(f"paglet:{host_name}:") and process.status() != psutil.STATUS_ZOMBIE:
                titles.append(title)
        except psutil.NoSuchProcess:
            continue
    return titles


def threads_of(host_name: str) -> list[str]:
    """Return the names of the threads of a host of this process."""
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("paglets-") and f"-{host_name}" in f"{thread.name}-".replace("_", "-")
    ]


def events_of(host: Host, *kinds: str, agent_id: str | None = None) -> list[Any]:
    """Return the events of some kinds, oldest first."""
    return [
        event
        for event in host.list_events(limit=10_000)
        if (not kinds or event.kind in kinds) and agent_id in (None, event.agent_id)
    ]


def http_server_of(host: Host) -> Any:
    """Return what serves HTTP for a running host."""
    server = getattr(host._running()._inlet, "_server", None)
    assert server is not None, f"{host.name} does not listen"
    return server


def await_event(host: Host, kind: str, *, agent_id: str | None = None) -> Any:
    """Wait for an event and return the first of its kind."""
    return eventually(lambda: events_of(host, kind, agent_id=agent_id), f"event {kind}")[0]


def where(proxy: PagletProxy, *hosts: Host) -> list[str]:
    """Return the names of the hosts that know a paglet."""
    return [host.name for host in hosts if host.get_proxy(proxy.agent_id, include_inactive=True) is not None]


def leftovers(host: Host) -> list[str]:
    """Return what lies in the directories of a host for work and for arriving files."""
    return sorted(
        str(path.relative_to(host.persistence_dir))
        for part in ("work", "incoming")
        for path in (host.persistence_dir / part).glob("*")
    )
