"""What the machine can do at best: the same bytes through the same kernel, without paglets."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import queue
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from bench.measure import timed

MEGABYTE = 1024 * 1024


def in_small_process(name: str) -> float:
    """Return what the function ``name`` of this module returns in an interpreter that has imported little else.

    A fork copies the page tables of the process that forks, so that a floor for forking is measured where little is
    mapped.
    """
    command = [sys.executable, "-c", f"from bench import floors; print(floors.{name}())"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def fork_to_ready(rounds: int = 40) -> float:
    """Return the milliseconds from a fork to the child's first word over a socket."""

    def once() -> None:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            theirs.send(b"!")
            os._exit(0)
        ours.recv(1)
        ours.close()
        theirs.close()
        os.waitpid(pid, 0)

    return statistics.median(timed(once, rounds)) * 1e3


def forked_memory() -> float:
    """Return the private megabytes of a forked child that does nothing."""
    import psutil

    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(ready_write, b"!")
        time.sleep(30)
        os._exit(0)
    os.read(ready_read, 1)
    try:
        return float(psutil.Process(pid).memory_full_info().uss) / MEGABYTE
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(ready_read)
        os.close(ready_write)


class EchoChild:
    """A forked process that sends every byte back."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.sock.close()
            while data := theirs.recv(65536):
                theirs.sendall(data)
            os._exit(0)
        theirs.close()

    def close(self) -> None:
        """End the process; its siblings hold copies of the socket, so closing that is not enough."""
        self.sock.close()
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


class LoopEcho:
    """A calling thread, an event loop, and processes that echo: the shape of a send without anything in it."""

    def __init__(self, children: int) -> None:
        import uvloop

        self._children = [EchoChild() for _ in range(children)]
        self.loop = uvloop.new_event_loop()
        self._waiting: list[list[Future[bytes]]] = [[] for _ in self._children]
        self._thread = threading.Thread(target=self._run, daemon=True)
        for index, child in enumerate(self._children):
            child.sock.setblocking(False)
            self.loop.add_reader(child.sock.fileno(), self._readable, index)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _readable(self, index: int) -> None:
        data = self._children[index].sock.recv(65536)
        for _ in range(len(data) // 64):
            self._waiting[index].pop(0).set_result(data)

    def _send(self, index: int, future: Future[bytes]) -> None:
        self._waiting[index].append(future)
        self._children[index].sock.send(b"x" * 64)

    def call(self, index: int) -> bytes:
        """Send 64 bytes to a child and wait for them."""
        future: Future[bytes] = Future()
        self.loop.call_soon_threadsafe(self._send, index, future)
        return future.result()

    def close(self) -> None:
        """End everything."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        for child in self._children:
            child.close()


def send_round_trip(rounds: int = 2000) -> float:
    """Return the milliseconds of a thread's call through a loop to a process and back."""
    echo = LoopEcho(1)
    try:
        return statistics.median(timed(lambda: echo.call(0), rounds, warm_up=100)) * 1e3
    finally:
        echo.close()


def concurrent_sends(threads: int = 16, children: int = 5, each: int = 400) -> float:
    """Return calls per second of many threads to a few processes."""
    echo = LoopEcho(children)

    def work(number: int) -> None:
        for index in range(each):
            echo.call((number + index) % children)

    try:
        return threads * each / run_threads(threads, work)
    finally:
        echo.close()


def run_threads(count: int, work: object) -> float:
    """Return the seconds until ``count`` threads have done their work."""
    running = [threading.Thread(target=work, args=(number,)) for number in range(count)]  # type: ignore[arg-type]
    start = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return time.perf_counter() - start


def http_round_trip(rounds: int = 1500) -> float:
    """Return the milliseconds of a request to a server that does nothing, over a kept connection."""
    import uvicorn

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        await receive()  # type: ignore[operator]
        await send(  # type: ignore[operator]
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
        )
        await send({"type": "http.response.body", "body": b"{}"})  # type: ignore[operator]

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, lifespan="off", access_log=False, loop="uvloop", http="httptools")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", sock.getsockname()[1])

    def once() -> None:
        connection.request("POST", "/x", body=b'{"a":1}', headers={"content-type": "application/json"})
        connection.getresponse().read()

    deadline = time.monotonic() + 5
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        return statistics.median(timed(once, rounds, warm_up=50)) * 1e3
    finally:
        connection.close()
        server.should_exit = True
        thread.join(5)
        sock.close()


def loopback_transfer(nbytes: int = 64 * MEGABYTE, rounds: int = 6) -> float:
    """Return the milliseconds of one pass of bytes from process to process over TCP loopback."""
    content = os.urandom(nbytes)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    pid = os.fork()
    if pid == 0:
        peer, _ = listener.accept()
        buffer = bytearray(nbytes)
        view = memoryview(buffer)
        for _ in range(rounds + 1):
            done = 0
            while done < nbytes:
                done += peer.recv_into(view[done:])
            peer.send(b"!")
        os._exit(0)
    client = socket.create_connection(listener.getsockname())

    def once() -> None:
        client.sendall(content)
        client.recv(1)

    try:
        return statistics.median(timed(once, rounds, warm_up=1)) * 1e3
    finally:
        client.close()
        listener.close()
        os.waitpid(pid, 0)


def file_copy_rate(nbytes: int = 256 * MEGABYTE, rounds: int = 5) -> float:
    """Return the megabytes per second of reading a file and writing another one, both in the page cache."""
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "source", Path(directory) / "target"
        source.write_bytes(os.urandom(nbytes))
        room = memoryview(bytearray(MEGABYTE))

        def once() -> None:
            with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
                while count := reader.readinto(room):
                    writer.write(room[:count])
            target.unlink()

        return nbytes / MEGABYTE / statistics.median(timed(once, rounds, warm_up=1))


def verified_transfer_rate(nbytes: int = 512 * MEGABYTE, rounds: int = 3) -> float:
    """Return the megabytes per second of a file that one process sends and another one writes, while both hash it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "source", Path(directory) / "target"
        source.write_bytes(os.urandom(nbytes))
        pid = os.fork()
        if pid == 0:
            peer, _ = listener.accept()
            for _ in range(rounds + 1):
                _receive_verified(peer, target, nbytes)
            os._exit(0)
        client = socket.create_connection(listener.getsockname())

        def once() -> None:
            found: list[bytes] = []
            hashing = threading.Thread(target=lambda: found.append(_hash_of(source)))
            hashing.start()
            with source.open("rb") as stream:
                client.sendfile(stream)
            hashing.join()
            assert client.recv(32) == found[0]

        try:
            return nbytes / MEGABYTE / statistics.median(timed(once, rounds, warm_up=1))
        finally:
            client.close()
            listener.close()
            os.waitpid(pid, 0)


def _hash_of(path: Path) -> bytes:
    room = memoryview(bytearray(MEGABYTE))
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(room):
            digest.update(room[:count])
    return digest.digest()


def _receive_verified(peer: socket.socket, target: Path, nbytes: int) -> None:
    """Write what comes while another thread hashes it; then send the checksum."""
    pieces: queue.Queue[bytes | None] = queue.Queue(4)
    digest = hashlib.sha256()

    def work() -> None:
        while (piece := pieces.get()) is not None:
            digest.update(piece)

    hashing = threading.Thread(target=work)
    hashing.start()
    with target.open("wb", buffering=0) as stream:
        left = nbytes
        while left:
            piece = peer.recv(min(MEGABYTE, left))
            pieces.put(piece)
            stream.write(piece)
            left -= len(piece)
    pieces.put(None)
    hashing.join()
    target.unlink()
    peer.send(digest.digest())


def sqlite_commit(rounds: int = 60) -> float:
    """Return the milliseconds of one small transaction that is on disk."""
    with tempfile.TemporaryDirectory() as directory:
        connection = sqlite3.connect(Path(directory) / "x.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)")

        def once() -> None:
            connection.execute("INSERT INTO t (v) VALUES (?)", (b"x" * 500,))

        try:
            return statistics.median(timed(once, rounds)) * 1e3
        finally:
            connection.close()


def grouped_commits(threads: int = 16, each: int = 200) -> float:
    """Return the transactions per second of threads that wait for one writer, which commits all that wait together."""
    waiting: queue.SimpleQueue[threading.Lock | None] = queue.SimpleQueue()

    def write(path: Path) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)")
        while (first := waiting.get()) is not None:
            group = [first]
            while not waiting.empty():
                another = waiting.get()
                if another is not None:
                    group.append(another)
            connection.execute("BEGIN IMMEDIATE")
            for _ in group:
                connection.execute("INSERT INTO t (v) VALUES (?)", (b"x" * 500,))
            connection.execute("COMMIT")
            for lock in group:
                lock.release()
        connection.close()

    def work(_: int) -> None:
        lock = threading.Lock()
        lock.acquire()
        for _ in range(each):
            waiting.put(lock)
            lock.acquire()

    with tempfile.TemporaryDirectory() as directory:
        writer = threading.Thread(target=write, args=(Path(directory) / "x.db",))
        writer.start()
        seconds = run_threads(threads, work)
        waiting.put(None)
        writer.join()
    return threads * each / seconds


def sha256_rate() -> float:
    """Return megabytes per second of SHA-256 on one core."""
    content = os.urandom(64 * MEGABYTE)
    seconds = statistics.median(timed(lambda: hashlib.sha256(content).digest(), 3, warm_up=1))
    return 64 / seconds


def write_fresh(path: Path, size: int) -> None:
    """Write a file whose content no other has."""
    block = os.urandom(MEGABYTE - 16)
    with path.open("wb", buffering=0) as stream:
        for number in range(size // MEGABYTE):
            stream.write(block + number.to_bytes(16, "big"))


def write_and_sync(directory: Path, size: int) -> float:
    """Return the seconds of writing so many bytes to a new file and having them on disk."""
    block = os.urandom(MEGABYTE)
    path = directory / "floor"
    start = time.perf_counter()
    with path.open("wb", buffering=0) as stream:
        for _ in range(size // MEGABYTE):
            stream.write(block)
        os.fsync(stream.fileno())
    seconds = time.perf_counter() - start
    path.unlink()
    return seconds


def copy_and_sync(directory: Path, size: int) -> float:
    """Return the seconds of copying a file of that size within the kernel and having the copy on disk."""
    source, target = directory / "floor", directory / "copy"
    write_fresh(source, size)
    os.sync()
    start = time.perf_counter()
    with source.open("rb") as reader, target.open("wb") as writer:
        done = 0
        while done < size:
            done += os.copy_file_range(reader.fileno(), writer.fileno(), min(8 * MEGABYTE, size - done), done, done)
        os.fsync(writer.fileno())
    seconds = time.perf_counter() - start
    source.unlink()
    target.unlink()
    return seconds


def write_small_files(root: Path, count: int) -> None:
    """Write a directory of files of up to 4 KB, a hundred in each directory below it, and have them on disk."""
    block = os.urandom(4096)
    for number in range(count):
        if number % 100 == 0:
            (root / str(number // 100)).mkdir(parents=True)
        with (root / str(number // 100) / str(number)).open("wb", buffering=0) as stream:
            stream.write(block[: number % 4096] + b"%d" % number)
    os.sync()


def kill_and_reap(rounds: int = 40) -> float:
    """Return the milliseconds to end a forked process and to see its end."""
    seconds = []
    for _ in range(rounds):
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
            os._exit(0)
        start = time.perf_counter()
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * 1e3
