"""A host at the other end of a link that does what a test tells it: plain threads, the real machine of links."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from paglets.core.errors import HostError
from paglets.protocol.link import Hello, Link, LinkLimits, Opened, Received, ResetCode, WasReset
from tests.runtime.relay.conftest import KEY
from tests.support import eventually


class ScriptedHost:
    """Link to a hub under a name, answer what is asked of a few paths, and stay silent on the others.

    :param answers: JSON by path.
    :param said: what it calls itself, `name` by default.
    :param deaf: takes nothing, and says nothing after who it is.
    """

    def __init__(
        self,
        hub: str,
        name: str,
        *,
        key: str = KEY,
        answers: dict[str, Any] | None = None,
        said: str | None = None,
        deaf: bool = False,
        limits: LinkLimits | None = None,
    ) -> None:
        self._url = f"ws{hub.removeprefix('http')}/relay/link?name={name}"
        self._key = key
        self.answers = answers or {}
        self._deaf = deaf
        self.link = Link(
            Hello(name=said or name, health={"name": name, "code_version": "test-version"}),
            first=True,
            now=time.monotonic(),
            limits=limits,
        )
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self.on_request: Callable[[Opened], None] | None = None
        self.opened: list[Opened] = []
        self.resets: set[int] = set()
        self.unread: dict[int, int] = {}
        self.ended: str | None = None

    def __enter__(self) -> ScriptedHost:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            self._socket = self._stack.enter_context(
                connect(self._url, additional_headers=headers, compression=None, ping_interval=None)
            )
        except InvalidStatus as exc:
            body = (exc.response.body or b"").decode(errors="replace")
            raise HostError(f"{exc.response.status_code}: {body}") from exc
        self._thread = threading.Thread(target=self._run, name="scripted-host")
        self._flush()
        if not self._deaf:
            self._thread.start()
            if self.link.other is None:
                eventually(lambda: self.link.other is not None or self.ended is not None, "the hub's greeting")
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        if self._thread.ident is not None:
            self._thread.join(10)

    def send(self, message: bytes) -> None:
        """Send a message past the machine."""
        self._socket.send(message)

    def drop(self, _: Opened) -> None:
        """Close the connection."""
        self._socket.close_socket()

    def refuse(self, opened: Opened) -> None:
        """Say that a request was not looked at."""
        self.link.reset(opened.stream, ResetCode.REFUSED, "not today")

    def read(self, stream: int) -> int:
        """Read what has come of a body and return how many bytes it was."""
        with self._lock:
            nbytes = self.unread.pop(stream, 0)
            self.link.consumed(stream, nbytes)
            self._flush()
        return nbytes

    def write(self, stream: int, data: bytes) -> int:
        """Send as much of an answer as may be sent and return how many bytes it was."""
        with self._lock:
            room = min(len(data), self.link.room(stream))
            self.link.send(stream, data[:room])
            self._flush()
        return room

    def await_end(self) -> str:
        """Wait until the hub has ended the link, and return why."""
        eventually(lambda: self.ended is not None, "the end of the link")
        return self.ended or ""

    def await_reset(self, path: str) -> None:
        """Wait until a request is taken back."""
        eventually(lambda: any(o.stream in self.resets for o in self.opened if o.target == path), f"a reset of {path}")

    def _run(self) -> None:
        try:
            while True:
                message = self._socket.recv()
                assert isinstance(message, bytes)
                with self._lock:
                    for event in self.link.receive(message, time.monotonic()):
                        match event:
                            case Opened():
                                self._serve(event)
                            case Received(stream, data):
                                self.unread[stream] = self.unread.get(stream, 0) + len(data)
                            case WasReset(stream):
                                self.resets.add(stream)
                    self._flush()
        except ConnectionClosed as exc:
            self.ended = exc.rcvd.reason if exc.rcvd is not None else str(exc)
        except (OSError, AssertionError) as exc:
            self.ended = str(exc)

    def _serve(self, opened: Opened) -> None:
        self.opened.append(opened)
        if self.on_request is not None:
            self.on_request(opened)
        elif opened.target in self.answers:
            body = json.dumps(self.answers[opened.target]).encode()
            self.link.answer(opened.stream, 200, [(b"content-type", b"application/json")])
            self.link.send(opened.stream, body)
            self.link.end(opened.stream)

    def _flush(self) -> None:
        while pieces := self.link.take():
            self._socket.send(b"".join(pieces))
