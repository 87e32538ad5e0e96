"""The clients of hosts and tests, speaking over the network of a testing mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from paglets.remote import requests
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.remote.connections import BodyTooLargeError, ConnectionPool, Deadline, Request
from paglets.remote.content import FileBody, Progress
from paglets.remote.content_calls import Terms
from paglets.remote.exchanges import FAILURES, failure
from paglets.remote.sockets import Stop
from paglets.runtime.local_client import LocalHostClient
from paglets.testing.network import Answer, Network

if TYPE_CHECKING:
    from paglets.runtime.host import Host
    from paglets.testing.loop import MeshLoop

T = TypeVar("T")


class MeshPool(ConnectionPool):
    """Exchange requests over the network of a mesh, from simulated threads."""

    def __init__(self, network: Network, loop: MeshLoop) -> None:
        super().__init__()
        self._network = network
        self._mesh_loop = loop

    def exchange(self, request: Request, deadline: Deadline) -> Any:
        """Send a request and return what looks like its response."""
        lines = request.head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = [tuple(line.split(": ", 1)) for line in lines[1:] if line]
        body = _whole(request.body, deadline)
        origin = request.origin
        url = f"{origin.scheme}://{origin.host}:{origin.port}{target}"
        # The length of a body that was made of pieces is known by now.
        fields = [(name, value) for name, value in headers if name.lower() != "transfer-encoding"]
        answering = asyncio.run_coroutine_threadsafe(
            self._within(deadline.seconds, method, url, fields, body), self._mesh_loop
        )
        return _Response(answering.result())

    async def _within(
        self, seconds: float, method: str, url: str, headers: list[tuple[str, str]], body: bytes
    ) -> Answer:
        async with asyncio.timeout(seconds):
            return await self._network.request(method, url, headers, body)


class _Response:
    """As much of `Response` as clients use."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._body = answer.body

    def read(self, limit: int) -> bytes:
        """Return the body."""
        if len(self._body) > limit:
            raise BodyTooLargeError(f"the answer has more than {limit} bytes")
        return self._body

    def pieces(self, read_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Yield the body in pieces."""
        for start in range(0, len(self._body), read_bytes):
            yield self._body[start : start + read_bytes]

    def lent_pieces(self, read_bytes: int, held: int) -> Iterator[Any]:
        """Yield the body in pieces; here they stay what they are."""
        del held
        return self.pieces(read_bytes)

    def close(self) -> None:
        """Do nothing: it is all there."""


class _Collector:
    """Take what a file sends to a connection."""

    def __init__(self) -> None:
        self.content = bytearray()

    def readable_now(self) -> bool:
        return False

    def send_file(self, stream: Any, offset: int, count: int, deadline: Deadline) -> int:
        del deadline
        stream.seek(offset)
        piece = stream.read(count)
        self.content += piece
        return len(piece)


def _whole(body: bytes | Iterable[bytes | memoryview] | FileBody, deadline: Deadline) -> bytes:
    if isinstance(body, bytes):
        return body
    if isinstance(body, FileBody):
        collector: Any = _Collector()
        body.write_to(collector, deadline)
        return bytes(collector.content)
    return b"".join(bytes(piece) for piece in body)


class MeshHostClient(LocalHostClient):
    """The client of a host of the mesh, for its own program."""

    def __init__(self, host: Host, network: Network, loop: MeshLoop, **options: Any) -> None:
        super().__init__(host, **options)
        self.connections = MeshPool(network, loop)


class OutsideClient(HostClient):
    """A client that is on no host. Every call is made on a simulated thread, by what `call` does.

    :param call: runs a function on a simulated thread and returns what it returns.
    """

    def __init__(self, network: Network, loop: MeshLoop, call: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__()
        self.connections = MeshPool(network, loop)
        self._do = call

    def _call(self, *args: Any, **options: Any) -> Any:
        return self._do(lambda: HostClient._call(self, *args, **options))

    def deliver(self, *args: Any, **options: Any) -> Any:
        """Deliver a message; see `HostClient.deliver`."""
        return self._do(lambda: HostClient.deliver(self, *args, **options))

    def operate(self, *args: Any, **options: Any) -> Any:
        """Ask for an operation; see `HostClient.operate`."""
        return self._do(lambda: HostClient.operate(self, *args, **options))

    def agent_info(self, *args: Any, **options: Any) -> Any:
        """Return what a host says about a paglet; see `HostClient.agent_info`."""
        return self._do(lambda: HostClient.agent_info(self, *args, **options))

    def withdraw(self, *args: Any, **options: Any) -> bool:
        """Withdraw a message; see `HostClient.withdraw`."""
        return bool(self._do(lambda: HostClient.withdraw(self, *args, **options)))

    def upload_artifact(self, *args: Any, **options: Any) -> Any:
        """Upload a file; see `HostClient.upload_artifact`."""
        return self._do(lambda: HostClient.upload_artifact(self, *args, **options))

    def download_artifact(self, *args: Any, **options: Any) -> Any:
        """Download an artifact; see `HostClient.download_artifact`."""
        return self._do(lambda: HostClient.download_artifact(self, *args, **options))

    def read_artifact(self, *args: Any, **options: Any) -> Any:
        """Read a part of an artifact; see `HostClient.read_artifact`."""
        return self._do(lambda: HostClient.read_artifact(self, *args, **options))


class MeshWords(AsyncHostClient):
    """The client of a host's loop."""

    def __init__(self, network: Network, loop: MeshLoop, **options: Any) -> None:
        super().__init__(**options)
        self._network = network
        self._mesh_loop = loop
        self._content = MeshPool(network, loop)

    @property
    def _open(self) -> bool:
        return True

    async def _call(
        self,
        method: str,
        url: str,
        body: bytes | Iterable[bytes | memoryview] | None,
        headers: dict[str, str],
        timeout: float | None,
        *,
        connecting: float | None = None,
        decode: Callable[[bytes, str], Any] | None = None,
    ) -> Any:
        seconds = self.timeout if timeout is None else timeout
        fields, seconds = (
            requests.relay_terms(url, seconds) if body is None or isinstance(body, bytes) else ({}, seconds)
        )
        content = b"" if body is None else body if isinstance(body, bytes) else b"".join(bytes(each) for each in body)
        given = {"Accept": "application/json", **fields, **headers}
        if self.api_key:
            given["Authorization"] = f"Bearer {requests.checked_key(self.api_key)}"
        try:
            async with asyncio.timeout(seconds):
                answer = await self._network.request(method, url, given.items(), content)
        except FAILURES as exc:
            raise failure(exc, url, seconds) from exc
        return requests.decode_reply(answer.status, answer.body, url, has_key=bool(self.api_key), decode=decode)

    async def _transfer(self, work: Callable[[Terms], T], timeout: float | None, progress: Progress | None) -> T:
        seconds = self.timeout if timeout is None else timeout
        outcome: T = await self._mesh_loop.in_thread(work, Terms(seconds, self.api_key, progress, Stop()))
        return outcome
