"""A fabric without sockets: hosts of one process that reach each other by calls, some of which are lost."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from paglets.core.errors import ConnectionLostError, RemoteTimeoutError
from paglets.remote.connections import BodyTooLargeError, Deadline, NotSentError, Request
from paglets.remote.content import FileBody
from paglets.remote.fabric import Application, Ask, AsyncFabric, Fabric, Inlet
from paglets.remote.pursuit import NotConnectedError

_PIECE = 64 * 1024
_STOP_SECONDS = 5.0

Reply = tuple[int, dict[str, str], bytes]


class MemoryFabric:
    """Everything between some hosts; implements `HostFabric`.

    :param seed: of the chance by which calls are lost.
    """

    def __init__(self, seed: int = 0) -> None:
        self.loss = 0.0
        """How probable it is that a request is lost, and again that its answer is."""
        self.carried = self.lost = 0
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._inlets: dict[str, MemoryInlet] = {}

    # HostFabric

    def address(self, name: str) -> str:
        return f"http://{name}.memory"

    def for_threads(self) -> Fabric:
        return _ForThreads(self)

    def for_loop(self) -> AsyncFabric:
        return _ForLoop(self)

    def inlet(self, name: str) -> Inlet:
        return MemoryInlet(self, f"{name}.memory")

    # between them

    def plug(self, host: str, inlet: MemoryInlet | None) -> None:
        """Have an inlet reached under a name, or nobody."""
        with self._lock:
            if inlet is None:
                self._inlets.pop(host, None)
            else:
                self._inlets[host] = inlet

    def begin(
        self, host: str, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> concurrent.futures.Future[Reply]:
        """Carry a request to a host.

        :raises NotSentError: it is not there.
        :raises ConnectionResetError: it was lost.
        """
        with self._lock:
            inlet = self._inlets.get(host)
            self.carried += 1
        if inlet is None:
            raise NotSentError(ConnectionRefusedError(f"{host} is not plugged in"))
        self.lose("the request")
        return inlet.serve(method, target, headers, body)

    def lose(self, what: str) -> None:
        """Lose something, if chance has it so.

        :raises ConnectionResetError: it did.
        """
        with self._lock:
            if self._chance.random() >= self.loss:
                return
            self.lost += 1
        raise ConnectionResetError(f"{what} was lost")


class MemoryInlet:
    """The way in to one host."""

    def __init__(self, fabric: MemoryFabric, host: str) -> None:
        self._fabric = fabric
        self._host = host
        self._application: Application | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Reply]] = set()

    async def open(self, application: Application) -> None:
        self._application, self._loop = application, asyncio.get_running_loop()
        self._fabric.plug(self._host, self)

    async def settle(self) -> None:
        return

    async def close(self) -> None:
        self._fabric.plug(self._host, None)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def serve(
        self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> concurrent.futures.Future[Reply]:
        """Serve a request on the loop of the host; called from any thread."""
        assert self._loop is not None

        async def run() -> Reply:
            task = asyncio.create_task(self._answer(method, target, headers, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return await task

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    async def _answer(self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Reply:
        assert self._application is not None
        path, _, query = target.partition("?")
        pieces = [body[at : at + _PIECE] for at in range(0, len(body), _PIECE)] or [b""]
        over = asyncio.Event()
        status, found, answer = 0, {}, bytearray()

        async def receive() -> dict[str, Any]:
            if pieces:
                piece = pieces.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
            await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found.update(
                    (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in message["headers"]
                )
            else:
                answer.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    over.set()

        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": None,
            "client": None,
            "scheme": "http",
            "root_path": "",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": [(b"host", b"localhost"), *(field for field in headers if field[0] != b"host")],
            "state": {},
            "extensions": {},
        }
        await self._application(scope, receive, send)
        return status, found, bytes(answer)


class MemoryAnswer:
    """An answer that is here."""

    def __init__(self, reply: Reply) -> None:
        self.status, self.headers, self._body = reply

    def read(self, limit: int) -> bytes:
        if len(self._body) > limit:
            raise BodyTooLargeError(f"the answer has more than {limit} bytes")
        return self._body

    def pieces(self, read_bytes: int = _PIECE) -> Iterator[bytes]:
        for at in range(0, len(self._body), read_bytes):
            yield self._body[at : at + read_bytes]

    def lent_pieces(self, read_bytes: int, rooms: int) -> Iterator[bytes | memoryview]:
        return self.pieces(read_bytes)

    def close(self) -> None:
        return


class _ForThreads:
    def __init__(self, fabric: MemoryFabric) -> None:
        self._fabric = fabric

    def exchange(self, request: Request, deadline: Deadline) -> MemoryAnswer:
        first, *lines = request.head.decode("ascii").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [tuple(line.encode().split(b": ", 1)) for line in lines if line]
        fields = [(name.lower(), value) for name, value in headers if name.lower() != b"transfer-encoding"]  # type: ignore[misc]
        future = self._fabric.begin(request.origin.host, method, target, fields, _whole(request.body))
        reply = future.result(deadline.remaining())
        self._fabric.lose("the answer")
        return MemoryAnswer(reply)

    def close(self) -> None:
        return


class _ForLoop:
    is_open = True

    def __init__(self, fabric: MemoryFabric) -> None:
        self._fabric = fabric

    async def ask(self, ask: Ask) -> tuple[int, bytes]:
        parts = urlsplit(ask.url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        body = await asyncio.to_thread(_whole, ask.body or b"")
        headers = [(name.lower().encode(), value.encode()) for name, value in ask.headers.items()]
        if body:
            headers.append((b"content-length", b"%d" % len(body)))
        try:
            future = self._fabric.begin(parts.hostname or "", ask.method, target, headers, body)
            async with asyncio.timeout(ask.seconds):
                status, _, answer = await asyncio.wrap_future(future)
            self._fabric.lose("the answer")
        except NotSentError as exc:
            raise NotConnectedError(f"Could not reach {ask.url}: {exc}") from exc
        except TimeoutError as exc:
            raise RemoteTimeoutError(f"No answer from {ask.url} within {ask.seconds:g} s") from exc
        except OSError as exc:
            raise ConnectionLostError(f"Lost the connection to {ask.url}: {exc}") from exc
        return status, answer

    async def aclose(self) -> None:
        return


def _whole(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return b"".join(bytes(piece) for piece in (body.pieces() if isinstance(body, FileBody) else body))
