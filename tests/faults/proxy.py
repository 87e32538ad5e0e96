"""A network between hosts that delays, drops, cuts and partitions.

Every host is reached by the others through a proxy of its own, all of which live on one event loop in a thread. What
becomes of a connection is decided by the network's rules and a generator seeded with the seed, the host and the number
of the connection; so a run can be repeated as far as the order of connections can.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

_PIECE = 16 * 1024
_BACKLOG = 256
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Weather:
    """What may happen to a connection."""

    delay: float = 0.0
    """Longest time in seconds that a piece of data is held back; each is held back for a random part of it."""
    drop: float = 0.0
    """How probable it is that a connection is closed before a byte passed."""
    cut: float = 0.0
    """How probable it is that a connection is reset in the middle."""
    cut_after: int = 2_000
    """The most bytes, of both directions together, that pass before it is reset."""


FINE = Weather()


@dataclass
class Statistics:
    """What happened so far."""

    connections: int = 0
    dropped: int = 0
    cut: int = 0
    refused: int = 0
    """Connections that a partition did not let through."""


@dataclass(eq=False)
class _Line:
    """One connection through a proxy."""

    peer_port: int
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    left: int | None = None
    """Bytes that may still pass."""
    source: str | None = None
    """Name of the host that opened it, empty where it was no host; looked up where a partition asks for it."""

    def reset(self) -> None:
        for writer in self.writers:
            sock: socket.socket | None = writer.get_extra_info("socket")
            if sock is not None:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Network:
    """All proxies of a cluster. Its methods may be called from any thread.

    A partition cuts what connects its sides and lets nothing new through; programs that are no hosts, a test for
    example, are on every side.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.weather = FINE
        self.statistics = Statistics()
        self._sides: tuple[frozenset[str], ...] = ()
        self._silent = False
        self._members: dict[str, Callable[[], int]] = {}
        self._proxies: list[FaultProxy] = []
        self._healed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-network", daemon=True)
        self._thread.start()

    def proxy(self, name: str, port: Callable[[], int], process_id: Callable[[], int]) -> FaultProxy:
        """Return a new proxy in front of the host that listens on ``port()``, 0 while there is none.

        :param process_id: the process of that host, by which its own connections are told from others'.
        """
        proxy = FaultProxy(self, name, port)
        self._run(proxy.open())
        self._proxies.append(proxy)
        self._members[name] = process_id
        return proxy

    def partition(self, *sides: Collection[str], silent: bool = False) -> None:
        """Separate hosts: those of one side do not reach those of another; a host that is in none is on all.

        :param silent: nothing is reset; what is sent is held until the partition heals, as where packets are lost.
        """
        self._run(self._separate(tuple(frozenset(side) for side in sides), silent))

    def heal(self) -> None:
        """End the partition and the bad weather."""
        self.weather = FINE
        self._run(self._join())

    def close(self) -> None:
        """Close every connection and end the thread."""
        self.heal()
        for proxy in self._proxies:
            self._run(proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def pass_through(self, line: _Line, target: str) -> bool:
        """Wait until a silent partition lets data of a line through; False where one says no."""
        while self._sides:
            if line.source is None:
                line.source = await asyncio.to_thread(self._source_of, line.peer_port)
            if not self._separated(line.source, target):
                return True
            if not self._silent:
                return False
            await self._healed.wait()
        return True

    def _separated(self, source: str, target: str) -> bool:
        first = [side for side in self._sides if source in side]
        second = [side for side in self._sides if target in side]
        return bool(first and second) and not set(first) & set(second)

    def _source_of(self, peer_port: int) -> str:
        for name, process_id in self._members.items():
            with suppress(psutil.Error):
                for connection in psutil.Process(process_id()).net_connections("tcp"):
                    if connection.laddr.port == peer_port:
                        return name
        return ""

    async def _separate(self, sides: tuple[frozenset[str], ...], silent: bool) -> None:
        self._sides, self._silent = sides, silent
        self._healed.clear()
        if not silent:
            lines = [(line, proxy.name) for proxy in self._proxies for line in proxy.lines]
            for line, target in lines:
                if not await self.pass_through(line, target):
                    self.statistics.refused += 1
                    line.reset()

    async def _join(self) -> None:
        self._sides = ()
        self._healed.set()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


class FaultProxy:
    """The way to one host."""

    def __init__(self, network: Network, name: str, port: Callable[[], int]) -> None:
        self.name = name
        self.url = ""
        self.lines: set[_Line] = set()
        self._network = network
        self._port = port
        self._count = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=_BACKLOG)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Close it and everything that goes through it."""
        if self._server is not None:
            self._server.close()
        for line in list(self.lines):
            line.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._count += 1
        chance = random.Random(f"{self._network.seed}:{self.name}:{self._count}")
        line = _Line(writer.get_extra_info("peername")[1], [writer])
        self.lines.add(line)
        try:
            await self._serve(line, reader, chance)
        except OSError:
            line.reset()  # the host is gone, or a wire was cut: both ends see a connection that broke
        finally:
            self.lines.discard(line)
            for open_writer in line.writers:
                open_writer.close()

    async def _serve(self, line: _Line, reader: asyncio.StreamReader, chance: random.Random) -> None:
        network = self._network
        network.statistics.connections += 1
        weather = network.weather
        if chance.random() < weather.drop:
            network.statistics.dropped += 1
            line.reset()
            return
        if chance.random() < weather.cut:
            line.left = chance.randint(0, weather.cut_after)
        if not await network.pass_through(line, self.name):
            network.statistics.refused += 1
            line.reset()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port() or 1)
        line.writers.append(there_writer)
        pumps = [
            asyncio.ensure_future(self._pump(line, reader, there_writer, chance)),
            asyncio.ensure_future(self._pump(line, there_reader, line.writers[0], chance)),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()

    async def _pump(
        self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chance: random.Random
    ) -> None:
        network = self._network
        while data := await reader.read(_PIECE):
            delay = network.weather.delay
            if delay:
                await asyncio.sleep(chance.uniform(0, delay))
            if not await network.pass_through(line, self.name):
                raise ConnectionResetError("a partition")
            if line.left is not None:
                data, line.left = data[: line.left], line.left - len(data)
            writer.write(data)
            await writer.drain()
            if line.left is not None and line.left <= 0:
                network.statistics.cut += 1
                raise ConnectionResetError("cut")
        if writer.can_write_eof():
            writer.write_eof()
