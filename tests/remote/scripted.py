"""A host made of a script: it answers each request with bytes, well-formed or not, and ends with its test."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass
class Received:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    chunks: list[int] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Received, socket.socket], bytes | None]
"""Return the bytes of the response; None closes the connection. Bytes can also be written to the socket directly."""


def response(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """Return a well-formed response."""
    fields = {"content-type": "application/json", "content-length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def reply(value: Any, status: str = "200 OK", **headers: str) -> bytes:
    """Return a well-formed response with a JSON body."""
    return response(json.dumps(value).encode(), status, **headers)


class ScriptedHost:
    """Serve on a free port in threads; leaving the block ends all of them."""

    def __init__(self, answer: Answer | bytes, *, read_body: bool = True) -> None:
        self._answer: Answer = answer if callable(answer) else lambda _request, _connection: answer
        self._read_body = read_body
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self.requests: list[Received] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def connections(self) -> int:
        return len(self._connections)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        # Wakes accept(), which closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self.end_connections()
        for thread in list(self._threads):
            thread.join(10)
            assert not thread.is_alive(), "a scripted connection did not end"
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def end_connections(self) -> None:
        """End every open connection, as a host does that restarts."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.append(connection)
                number = len(self._connections)
            self._start(self._serve, connection, number)

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection.makefile("rb") as stream:
            try:
                while (request := self._read(stream, number)) is not None:
                    self.requests.append(request)
                    answer = self._answer(request, connection)
                    if answer is None:
                        break
                    connection.sendall(answer)
                    if b"connection: close\r\n" in answer[:1024]:
                        break
            except (OSError, ValueError):
                # The client hung up, perhaps in the middle of a request.
                pass
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def _read(self, stream: Any, number: int) -> Received | None:
        line = stream.readline().decode()
        if not line:
            return None
        method, target, _ = line.split(" ", 2)
        headers: dict[str, str] = {}
        while (line := stream.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        request = Received(method, target, headers, b"", number)
        if self._read_body:
            if headers.get("transfer-encoding") == "chunked":
                pieces = []
                while (size := int(stream.readline(), 16)) > 0:
                    request.chunks.append(size)
                    pieces.append(stream.read(size))
                    stream.readline()
                stream.readline()
                request.body = b"".join(pieces)
            else:
                request.body = stream.read(int(headers.get("content-length", "0")))
        return request
