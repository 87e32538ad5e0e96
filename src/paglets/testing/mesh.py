"""A mesh of hosts for tests: whole, in this process, with virtual time, and repeatable."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from paglets.core.context_events import ContextEvent
from paglets.core.errors import HostError, InvalidAgentError
from paglets.remote.proxy import PagletProxy
from paglets.testing.clients import OutsideClient
from paglets.testing.driven import DrivenFuture, DrivenHost
from paglets.testing.hosts import MOST_EVENTS, PORT, MeshHost, MeshSurroundings
from paglets.testing.interpose import EPOCH, Interposition
from paglets.testing.loop import MeshLoop
from paglets.testing.network import TEST, Fault, Network, Rule
from paglets.testing.scheduler import MeshStuckError, Process, Scheduler, this_thread

if TYPE_CHECKING:
    from typing import Self

    from paglets.core.agent import Paglet, PagletState
    from paglets.core.messages import Message

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
_SIGKILL: Final = 9


class PagletMesh:
    """Run hosts with these names, all of them in this process.

    The hosts are the real ones: kernel, journal, transfers, HTTP routes and the worker that runs a paglet. In place of
    processes they have threads of which one runs at a time, in place of sockets memory, in place of the clock one that
    jumps to the next thing to do. What happens depends on the seed alone.

    Use it as a context manager, or `close` it. One mesh can be open in a program at a time, and its methods are called
    by the thread that made it. That thread and the paglets see virtual time in `time`.

    :param seed: decides the order of what may happen in any order, how long messages take, and every random number.
    :param directory: where the hosts keep their data; a temporary one by default, removed with the mesh.
    :param host_options: options of every `Host`.
    :raises MeshStuckError: another mesh is open.
    """

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
        return f"PagletMesh({', '.join(map(repr, self._addresses))}, seed={self.seed})"

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
                self.scheduler.end_process(process, -_SIGKILL)
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
        self.scheduler.end_process(self._processes[name], -_SIGKILL)
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

    def kill(self, proxy: PagletProxy | str) -> None:
        """End the process of a paglet, as SIGKILL would.

        :raises InvalidAgentError: it has none on any host.
        """
        agent_id = proxy if isinstance(proxy, str) else proxy.agent_id
        for host in self._hosts.values():
            entry = host._node.kernel.agents.get(agent_id)
            if entry is not None and entry.place is not None and not entry.crashed:
                entry.place._process.signal(_SIGKILL)
                self._drive(asyncio.sleep(0))
                return
        raise InvalidAgentError(f"paglet {agent_id} has no process in this mesh")

    def where(self, proxy: PagletProxy | str) -> list[str]:
        """Return the names of the running hosts on which a paglet is, active or not: one, unless something is wrong."""
        agent_id = proxy if isinstance(proxy, str) else proxy.agent_id
        found = []
        for name, host in self._hosts.items():
            node = host._node
            if agent_id in node.kernel.agents or agent_id in node.dormitory:
                found.append(name)
        return found

    def state_of(self, proxy: PagletProxy | str) -> str:
        """Return how a paglet does: `active`, `asleep` or `crashed`.

        :raises InvalidAgentError: it is on no running host.
        """
        agent_id = proxy if isinstance(proxy, str) else proxy.agent_id
        for host in self._hosts.values():
            entry = host._node.kernel.agents.get(agent_id)
            if entry is not None:
                return "crashed" if entry.crashed else "active"
            if agent_id in host._node.dormitory:
                return "asleep"
        raise InvalidAgentError(f"paglet {agent_id} is on no running host of this mesh")

    # --- paglets ------------------------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        agent_cls: type[Paglet[Any]],
        state: PagletState | Any = None,
        *,
        init: Any = None,
        agent_id: str | None = None,
    ) -> PagletProxy:
        """Create a paglet on a host and return a proxy that the test can use; see `Host.create`."""
        made = self.host(name).create(agent_cls, state, init=init, agent_id=agent_id)
        return self.proxy(made.host_url, made.agent_id)

    def proxy(self, name_or_url: str, agent_id: str) -> PagletProxy:
        """Return a proxy of a paglet that the test can use, without asking whether there is one."""
        url = name_or_url if "://" in name_or_url else self.url(name_or_url)
        return PagletProxy(url, agent_id, self.client)

    def send(self, proxy: PagletProxy, message: Message | str, **args: Any) -> Any:
        """Send a message and return the reply; a text is the kind of a message with these arguments."""
        from paglets.core.messages import Message

        return proxy.send(Message(message, args) if isinstance(message, str) else message)

    def state(self, proxy: PagletProxy) -> Any:
        """Return a copy of the present state of an active paglet, as a move would give it.

        :raises InvalidAgentError: it is active on no host.
        """
        for host in self._hosts.values():
            entry = host._node.kernel.agents.get(proxy.agent_id)
            if entry is not None and entry.active:
                from paglets.runtime.worker.main import load_paglet_class, load_state_class

                cls = load_state_class(entry.state_class_name, load_paglet_class(entry.class_name))
                return self.host(host.name).get_state(proxy.agent_id, cls)
        raise InvalidAgentError(f"paglet {proxy.agent_id} is active on no host of this mesh")

    # --- the network --------------------------------------------------------------------------------------------------

    def partition(self, *sides: str | Iterable[str]) -> None:
        """Let nothing pass between hosts any more: each given one, or group of them, and the others.

        Nobody is told: requests end with the time their senders give them. `test` is the test itself.
        """
        groups = [[side] if isinstance(side, str) else list(side) for side in sides]
        if len(groups) == 1:
            groups.append([name for name in self._addresses if name not in groups[0]])
        for group in groups:
            for name in group:
                if name != TEST:
                    self.url(name)
        for number, group in enumerate(groups):
            for other in groups[number + 1 :]:
                self.network.cuts |= {frozenset((one, two)) for one in group for two in other}

    def heal(self) -> None:
        """End every partition, delay and fault."""
        self.network.cuts.clear()
        self.network.extra.clear()
        self.network.rules.clear()

    def delay(self, seconds: float, *pair: str) -> None:
        """Let messages between two hosts, or all, take so much longer in each direction."""
        if len(pair) not in (0, 2):
            raise ValueError("a delay is between two hosts, or all")
        names = [*self._addresses, TEST]
        pairs = [pair] if pair else [(one, two) for one in names for two in names if one < two]
        for each in pairs:
            self.network.extra[frozenset(each)] = seconds

    def lose(
        self,
        count: int | None = 1,
        *,
        what: str = "request",
        sender: str | None = None,
        target: str | None = None,
        path: str = "",
        rate: float = 1.0,
    ) -> None:
        """Let connections break: before the request arrives, or when it has been carried out, before the answer does.

        :param count: how many; None until `heal`.
        :param what: `request` or `answer`.
        :param sender: of this host only, or of the test.
        :param target: to this host only.
        :param path: only requests with this in their path, like `/messages`, `/commit`.
        :param rate: of those that fit only this part, by the seed.
        """
        faults = {"request": Fault.LOSE_REQUEST, "answer": Fault.LOSE_ANSWER}
        if what not in faults:
            raise ValueError("what is lost is a request or an answer")
        self.network.rules.append(Rule(faults[what], sender, target, path, count, rate))

    def duplicate(
        self,
        count: int | None = 1,
        *,
        sender: str | None = None,
        target: str | None = None,
        path: str = "",
        rate: float = 1.0,
    ) -> None:
        """Let requests arrive twice; otherwise like `lose`."""
        self.network.rules.append(Rule(Fault.DUPLICATE, sender, target, path, count, rate))

    # --- what happened ------------------------------------------------------------------------------------------------

    def events(self, name: str | None = None, kind: str | None = None) -> list[ContextEvent]:
        """Return the events of all hosts, or of one, in the order in which they happened; those before a crash too."""
        for host in self._hosts.values():
            self._note_events(host)
        return [
            event
            for event in sorted(self._log, key=lambda each: each.timestamp)
            if name in (None, event.host_name) and kind in (None, event.kind)
        ]

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
