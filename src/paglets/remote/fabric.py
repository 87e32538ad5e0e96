"""What carries requests between hosts, and nothing of what they mean.

Everything that hosts say to each other is a request with an answer that may be repeated: messages, moves, files, blobs,
membership and the directory. A *fabric* carries them to the host at an address and serves those that come for a host.
It may lose a request or its answer, as long as it says so; it need not keep order, and nothing above knows which fabric
it is.

- HTTP straight to a host: `ConnectionPool` for threads, `AsyncHttp` for the event loop, the HTTP server to be reached.
- HTTP through a hub: the same two with another address, and a link to the hub (`paglets.runtime.relay`) to be reached.
- Anything else, a broker for example, is a `HostFabric` given to a host; record 0017 says what it has to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from paglets.remote.connections import Deadline, Request

__all__ = ["Answer", "Application", "Ask", "AsyncFabric", "Fabric", "HostFabric", "Inlet"]

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
"""What serves requests: ASGI 3, type `http`, bodies in pieces both ways."""


class Answer(Protocol):
    """An answer whose body is read as it comes; whoever has it closes it."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> dict[str, str]:
        """The header fields by lower-case name."""

    def read(self, limit: int) -> bytes:
        """Return the rest of the body; `BodyTooLargeError` where that is more than `limit` bytes."""
        ...

    def pieces(self, read_bytes: int = ...) -> Iterator[bytes]:
        """Yield the body as it comes. Raises `OSError` and `TimeoutError`, by the deadline of the request."""
        ...

    def lent_pieces(self, read_bytes: int, rooms: int) -> Iterator[bytes | memoryview]:
        """Yield the body as `pieces` does; a piece need not stay as it is once `rooms` - 1 more were asked for."""
        ...

    def close(self) -> None:
        """Let go of it, read or not."""


class Fabric(Protocol):
    """Carry requests of threads. Thread-safe."""

    def exchange(self, request: Request, deadline: Deadline) -> Answer:
        """Carry a request to the host at its address and return its answer as soon as that begins.

        :raises NotSentError: nothing of it was sent.
        :raises ConnectTimeoutError: nothing of it was sent before the deadline.
        :raises TimeoutError: there was no answer in time; it may have been carried out.
        :raises OSError: it was lost on the way, there or back; it may have been carried out.
        """
        ...

    def close(self) -> None:
        """Let go of what is open; a later exchange works."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of the event loop, whose answer is read as a whole."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes | memoryview] | None = None
    """All of it, or pieces that take a thread to make."""
    seconds: float = 10.0
    """How long it may take; where the body is in pieces, how long it may stall."""
    connecting: float | None = None
    """Seconds until the host must be reached, where that is less."""
    most_bytes: int = 256 * 1024 * 1024
    """Largest answer to take."""


class AsyncFabric(Protocol):
    """Carry requests of one event loop."""

    @property
    def is_open(self) -> bool:
        """Whether it was used since it was closed."""

    async def ask(self, ask: Ask) -> tuple[int, bytes]:
        """Carry a request to the host of its URL and return the status and the body of its answer.

        :raises NotConnectedError: nothing of it was sent.
        :raises RemoteTimeoutError: there was no answer in time; it may have been carried out.
        :raises ConnectionLostError: it was lost on the way, there or back; it may have been carried out.
        :raises RemoteHostError: the answer cannot be read, or is too large.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what is open; a later request works."""


class Inlet(Protocol):
    """The way in to one host; used on its event loop."""

    async def open(self, application: Application) -> None:
        """Have requests for the host served from now on; each call of the application is one request."""

    async def settle(self) -> None:
        """Wait a bounded moment until the host can be reached, where that takes something."""

    async def close(self) -> None:
        """Take no more requests, give those in progress a bounded moment, then call them off."""


class HostFabric(Protocol):
    """All that a host needs to be reached and to reach others."""

    def address(self, name: str) -> str:
        """Return the base URL by which others name the host of this name, with scheme `http` or `https`."""
        ...

    def for_threads(self) -> Fabric:
        """Return what carries the requests that threads of a host make."""
        ...

    def for_loop(self) -> AsyncFabric:
        """Return what carries those of its event loop."""
        ...

    def inlet(self, name: str) -> Inlet:
        """Return the way in to the host of this name."""
        ...
