"""A way to a host that breaks, over and over, in the middle of what passes."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_RESET = struct.pack("ii", 1, 0)


class Cutter:
    """Pass connections on to a host, and reset each of the first ones after some bytes in one direction.

    :param after: for one connection after the other, how many bytes pass; connections behind these are left alone.
    :param upwards: count what the client sends, otherwise what it receives.
    """

    def __init__(self, host_url: str, after: Sequence[int], *, upwards: bool) -> None:
        parts = urlsplit(host_url)
        self._target = (parts.hostname or "", parts.port or 80)
        self._after: Iterator[int] = iter(after)
        self._upwards = upwards
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.cut = 0
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for sock in (self._listener, *self._sockets):
            sock.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            limit = next(self._after, None)
            up, down = (limit, None) if self._upwards else (None, limit)
            self._start(self._pass, near, far, up)
            self._start(self._pass, far, near, down)

    def _pass(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        left = limit
        try:
            while data := source.recv(65536 if left is None else min(65536, left)):
                target.sendall(data)
                if left is not None:
                    left -= len(data)
                    if not left:
                        self.cut += 1
                        for sock in (source, target):
                            # The first wakes the other direction. Only the second tells a sender who does not read.
                            with suppress(OSError):
                                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                                sock.shutdown(socket.SHUT_RDWR)
                        for sock in (source, target):
                            sock.close()
                        return
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the other direction has ended it
