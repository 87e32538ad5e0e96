"""The hosts of a testing mesh: real ones, with other surroundings."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from paglets.core.context_events import ContextEventLog
from paglets.persistence.journal import Journal
from paglets.remote.aio import AsyncHostClient
from paglets.runtime.host import Host
from paglets.runtime.http.guards import Application
from paglets.runtime.launch.base import Launcher
from paglets.runtime.loop import LoopThread
from paglets.runtime.surroundings import Server, Surroundings
from paglets.testing.clients import MeshHostClient, MeshWords
from paglets.testing.launcher import ThreadLauncher
from paglets.testing.loop import MeshLoop
from paglets.testing.network import Network
from paglets.testing.scheduler import MeshStuckError, Scheduler, this_thread

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PORT: Final = 8765
#: Events of each host that are kept.
MOST_EVENTS: Final = 100_000


class MeshJournal(Journal):
    """A journal that survives everything but its computer: tests would wait for the disk at every commit."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._committer._connection.execute("PRAGMA synchronous = OFF")

    def abandon(self) -> None:
        """Let go of the file, as the end of a process does."""
        self._committer.close()
        if self._reader is not None:
            self._reader.close()


class _SharedLoop(LoopThread):
    """The loop of the mesh, for one host: simulated threads have things done on it."""

    def __init__(self, loop: MeshLoop) -> None:
        self.loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it."""
        if this_thread() is None:
            work.close()
            raise MeshStuckError("a host of a testing mesh is called through its mesh: mesh.host(NAME)")
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def call(self, work: Callable[[], T]) -> T:
        """Call a function; nothing else runs meanwhile."""
        return work()

    def stop(self) -> None:
        """Do nothing: the loop is that of other hosts as well."""


class _Listener:
    """A listening socket, as far as a host looks at it."""

    def __init__(self, host: str, port: int) -> None:
        self.address = host, port

    def getsockname(self) -> tuple[str, int]:
        """Return where it listens."""
        return self.address

    def close(self) -> None:
        """Do nothing."""


class _MeshServer:
    """Serve an application on the network of the mesh."""

    def __init__(self, network: Network, address: str, name: str, application: Application) -> None:
        self._network = network
        self._address = address
        self._name = name
        self._application = application

    async def start(self) -> None:
        """Begin to serve."""
        self._network.serve(self._address, self._name, self._application)

    async def listen(self, sockets: Sequence[Any]) -> None:
        """Do nothing: a simulated machine has one address."""

    def leave(self, sockets: Sequence[Any]) -> None:
        """Do nothing: a simulated machine keeps its address."""

    async def stop(self) -> None:
        """Serve no more."""
        self._network.leave(self._address)


class MeshSurroundings(Surroundings):
    """A simulated machine."""

    def __init__(self, scheduler: Scheduler, loop: MeshLoop, network: Network, name: str, address: str) -> None:
        self._scheduler = scheduler
        self._loop = loop
        self._network = network
        self._name = name
        self._address = address

    def launcher(self) -> Launcher:
        """Return what starts simulated paglet processes."""
        return ThreadLauncher(self._scheduler)

    def loop_thread(self, name: str) -> LoopThread:
        """Return the loop of the mesh."""
        del name
        return _SharedLoop(self._loop)

    def bind(self, hosts: Sequence[str], port: int) -> list[Any]:
        """Return what stands for a socket."""
        return [_Listener(hosts[0], port)]

    def server(self, application: Application, sockets: list[Any], *, tls: Any) -> Server:
        """Return what serves on the network of the mesh."""
        del sockets, tls
        return _MeshServer(self._network, self._address, self._name, application)

    def journal(self, path: Path) -> Journal:
        """Open a journal that is not synced."""
        return MeshJournal(path)

    def words(self, **options: Any) -> AsyncHostClient:
        """Return a client on the network of the mesh."""
        return MeshWords(self._network, self._loop, **options)


class MeshHost(Host):
    """A host in a testing mesh."""

    surroundings: ClassVar[Any]

    def __init__(self, around: MeshSurroundings, loop: MeshLoop, network: Network, **options: Any) -> None:
        self.surroundings = around  # type: ignore[misc]  # one of its own for each
        super().__init__(**options)
        # Whole, because tests look at what happened in the end.
        self.events = ContextEventLog(capacity=MOST_EVENTS)
        self.gossip_seconds = self.mesh.gossip_interval, self.mesh.offline_after
        """Between two exchanges about who is online, and after how long somebody is not."""
        self.client = MeshHostClient(self, network, loop, api_key=self.shown_key)

    def vanish(self) -> None:
        """Give back what the operating system takes from a process that ends."""
        assembly, self._assembly = self._assembly, None
        if assembly is not None:
            journal = assembly.kernel.journal
            assembly.node.content.abandon()
            assembly._artifacts.close()
            if isinstance(journal, MeshJournal):
                journal.abandon()
        self._directory_lock.release()
