"""The ground of a testing mesh: hosts that start, crash and stop in virtual time, and what runs on their threads."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from paglets.core.context_events import ContextEvent
from paglets.core.errors import HostError
from paglets.testing.clients import OutsideClient
from paglets.testing.driven import DrivenFuture, DrivenHost
from paglets.testing.hosts import MOST_EVENTS, PORT, MeshHost, MeshSurroundings
from paglets.testing.interpose import EPOCH, Interposition
from paglets.testing.loop import MeshLoop
from paglets.testing.network import TEST, Network
from paglets.testing.scheduler import MeshStuckError, Process, Scheduler, this_thread

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")

#: Seconds between two exchanges of the hosts about who is online, and without news after which one is not: more than
#: elsewhere, so that an hour takes a moment. `host_options` may say other ones.
GOSSIP_SECONDS: Final = 30.0
OFFLINE_SECONDS: Final = 100.0
#: A time is long that is longer, and in it hosts exchange news so often.
_LONG_SECONDS: Final = 1800.0
_ROUNDS_OF_A_LONG_TIME: Final = 20
#: Virtual seconds that a newly made mesh has to get to know itself.
_INTRODUCTION_SECONDS: Final = 10.0
SIGKILL: Final = 9


class MeshGround:
    """Run hosts with these names, and let time pass for them; see `PagletMesh`."""

    def __init__(
        self,
        *names: str,
        seed: int = 0,
        directory: str | Path | None = None,
        host_options: dict[str, Any] | None = None,
    ) -> None:
        if not names:
            raise ValueError("a mesh needs the name of a host at least")
        if len(set(names)) < len(names) or TEST in names:
            raise ValueError(f"names of hosts are different from each other and from {TEST!r}")
        self.seed = seed
        self.scheduler = Scheduler(seed)
        self._loop = MeshLoop(self.scheduler)
        self.network = Network(self.scheduler)
        self._options = host_options or {}
        self._own_directory = None if directory is not None else tempfile.mkdtemp(prefix="paglets-", dir=_fast_place())
        self._directory = Path(directory if directory is not None else self._own_directory or "")
        self._addresses = {name: f"127.0.0.{number}" for number, name in enumerate(names, start=2)}
        self._hosts: dict[str, MeshHost] = {}
        self._processes: dict[str, Process] = {}
        self._test = Process(TEST, TEST)
        self._log: list[ContextEvent] = []
        self._noted: dict[MeshHost, int] = {}
        self._closed = False
        self.client = OutsideClient(self.network, self._loop, self.call)
        """A client that is on no host, as a program beside them has one."""
        self._interposition = Interposition(self.scheduler, seed, self.advance, self._submit)
        try:
            self._interposition.start()
        except BaseException:
            self._closed = True
            self._give_back()
            raise
        try:
            for name in names:
                self._start(name)
            self._introduce()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._addresses))}, seed={self.seed})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and hasattr(error, "add_note"):
            error.add_note(f"in {self!r}, at {self.now:.6f} s; the same seed gives the same run")
        self.close()

    def close(self) -> None:
        """Stop every host and put everything back; a second call does nothing.

        :raises MeshStuckError: a thread of a paglet ended with an error that nobody expects.
        """
        if self._closed:
            return
        self._closed = True
        try:
            for process in [*self._processes.values(), self._test]:
                self.scheduler.end_process(process, -SIGKILL)
            while self.scheduler.has_ready:
                self.scheduler.run_one()
            for host in self._hosts.values():
                host.vanish()
            self.scheduler.close()
        finally:
            self._interposition.stop()
            self._give_back()
        if self.scheduler.failures:
            raise MeshStuckError("a thread ended with an error:\n" + "\n".join(self.scheduler.failures))

    def _give_back(self) -> None:
        self._loop.close()
        if self._own_directory is not None:
            shutil.rmtree(self._own_directory, ignore_errors=True)

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Virtual seconds since the mesh was made."""
        return self._loop.time()

    @property
    def time(self) -> float:
        """Virtual Unix time, what `time.time()` returns in paglets and in the test."""
        return EPOCH + self.now

    def advance(self, seconds: float) -> None:
        """Let so many virtual seconds pass, with everything that happens in them."""
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"time passes by a number of seconds, not {seconds!r}")
        if seconds > _LONG_SECONDS:
            # A host that asks all others every half minute would be most of what happens.
            end = self.now + seconds
            self._gossip_every(seconds / _ROUNDS_OF_A_LONG_TIME)
            try:
                self._drive(asyncio.sleep(seconds - 2 * OFFLINE_SECONDS))
            finally:
                self._gossip_every(None)
            seconds = end - self.now
        self._drive(asyncio.sleep(max(0.0, seconds)))

    def _gossip_every(self, seconds: float | None) -> None:
        for host in self._hosts.values():
            registry = host.mesh
            usual, offline = host.gossip_seconds
            registry.gossip_interval = usual if seconds is None else max(usual, seconds)
            registry.offline_after = offline if seconds is None else max(offline, 3 * seconds)
            if seconds is None and registry._loop is not None:
                registry._loop.hurry()

    def settle(self, most: float = 60.0) -> None:
        """Let time pass until nothing is on its way: no request, no message in a mailbox, no handler that runs.

        :param most: virtual seconds after which a mesh that is never quiet has to do.
        :raises MeshStuckError: it was not quiet by then.
        """
        end = self.now + most
        while True:
            self.advance(0.05)
            if self._quiet():
                return
            if self.now >= end:
                raise MeshStuckError(f"not quiet after {most:g} s: a message or request is on its way")

    def until(self, look: Callable[[], T], most: float = 60.0) -> T:
        """Let time pass until something is true, and return it.

        :param most: virtual seconds to wait.
        :raises TimeoutError: it is not true by then.
        """
        end = self.now + most
        while not (found := look()):
            if self.now >= end:
                raise TimeoutError(f"not within {most:g} virtual seconds")
            self.advance(0.05)
        return found

    def _quiet(self) -> bool:
        if self.network.in_flight or self.scheduler.has_ready:
            return False
        for host in self._hosts.values():
            if host.running:
                agents = host._node.kernel.agents
                if any(entry.current is not None or len(entry.mailbox) for entry in agents if entry.active):
                    return False
        return True

    # --- hosts --------------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The names of the hosts, running or not."""
        return list(self._addresses)

    def url(self, name: str) -> str:
        """Return the address of a host."""
        if name not in self._addresses:
            raise HostError(f"the mesh has no host {name!r}; it has {', '.join(self._addresses)}")
        return f"http://{self._addresses[name]}:{PORT}"

    def host(self, name: str) -> Any:
        """Return a running host, with all that a `Host` has.

        :raises HostError: there is none of that name, or it does not run.
        """
        self.url(name)
        host = self._hosts.get(name)
        if host is None or not host.running:
            raise HostError(f"host {name} does not run")
        return DrivenHost(host, lambda work: self.call(work, process=self._processes[name]))

    def crash(self, name: str) -> None:
        """End a host and its paglets at this very moment, as SIGKILL or a power cut would; its disk stays."""
        host = self._running(name)
        self.scheduler.end_process(self._processes[name], -SIGKILL)
        self.network.leave(self.url(name))
        self._drive(asyncio.sleep(0))
        self._note_events(host)
        host.vanish()
        del self._hosts[name]

    def stop(self, name: str) -> None:
        """Shut a host down in order: its paglets are stored, and wake with its next start."""
        host = self._running(name)
        self.call(host.shutdown, process=self._processes[name])
        self._note_events(host)
        del self._hosts[name]
        self.scheduler.end_process(self._processes[name], 0)

    def restart(self, name: str) -> None:
        """Start a host that crashed or was stopped, with the disk that it had."""
        self.url(name)
        if name in self._hosts:
            raise HostError(f"host {name} runs; crash or stop it first")
        self._start(name)

    # --- running ------------------------------------------------------------------------------------------------------

    def call(self, work: Callable[[], T], *, process: Process | None = None) -> T:
        """Run a function on a simulated thread, where it may wait, and return what it returns.

        :raises HostError: its process ended meanwhile.
        """
        if this_thread() is not None:
            return work()
        chosen = self._test if process is None else process
        outcome: asyncio.Future[T] = self._loop.create_future()
        outcome.add_done_callback(lambda done: done.exception())  # it may end with the mesh, and nobody asks

        def perform() -> None:
            try:
                outcome.set_result(work())
            except Exception as exc:
                outcome.set_exception(exc)
            finally:
                if not outcome.done():
                    outcome.set_exception(HostError(f"{chosen.name} ended in the middle of this call"))

        if chosen.dead:
            raise HostError(f"{chosen.name} has ended")
        self.scheduler.spawn(chosen, perform, getattr(work, "__name__", "call"))
        result: T = self._drive(outcome)
        return result

    def _submit(self, work: Callable[[], Any]) -> Future[Any]:
        future = DrivenFuture(self.until)

        def perform() -> None:
            try:
                future.set_result(work())
            except Exception as exc:
                future.set_exception(exc)

        future.set_running_or_notify_cancel()
        self.scheduler.spawn(self._test, perform, "send")
        return future

    def _drive(self, work: Any) -> Any:
        if self._closed:
            if asyncio.iscoroutine(work):
                work.close()
            raise HostError("the mesh is closed")
        return self._loop.run_until_complete(work)

    def _start(self, name: str) -> None:
        self._processes[name] = process = Process(name, name)
        address = self._addresses[name]

        def begin() -> MeshHost:
            around = MeshSurroundings(self.scheduler, self._loop, self.network, name, self.url(name))
            options = {
                "mesh_version": "testing",
                "mesh_multicast": False,
                "mesh_lan_discovery": False,
                "mesh_gossip_interval": GOSSIP_SECONDS,
                "mesh_offline_after": OFFLINE_SECONDS,
                **self._options,
                "name": name,
                "host": address,
                "port": PORT,
                "persistence_dir": self._directory / name,
                "peers": [self.url(other) for other in self._addresses if other != name],
            }
            host = MeshHost(around, self._loop, self.network, **options)
            host.start_background()
            return host

        self._hosts[name] = self.call(begin, process=process)

    def _introduce(self) -> None:
        def known() -> bool:
            return all(len(host.mesh.hosts(online_only=True)) == len(self._addresses) for host in self._hosts.values())

        with suppress(TimeoutError):
            self.until(known, most=_INTRODUCTION_SECONDS)

    def _running(self, name: str) -> MeshHost:
        self.host(name)
        return self._hosts[name]

    def _note_events(self, host: MeshHost) -> None:
        for event in host.events.events_since(self._noted.get(host, 0), limit=MOST_EVENTS):
            self._log.append(event)
            self._noted[host] = event.event_id


def _fast_place() -> str | None:
    shared = Path("/dev/shm")  # noqa: S108 - a directory of its own is made there
    return str(shared) if shared.is_dir() and os.access(shared, os.W_OK) else None
