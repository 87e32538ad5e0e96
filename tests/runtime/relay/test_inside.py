"""A host's own application, for requests that came over a link."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from litestar import Litestar, get

from paglets.protocol.link import Headers, Opened, ResetCode
from paglets.runtime.http.guards import Application
from paglets.runtime.relay.inside import InsideServer
from paglets.runtime.relay.session import LinkStream, StreamLostError


class LostStream(LinkStream):
    """A request of somebody who has gone when the answer comes."""

    def __init__(self, taken: int) -> None:
        self.opened = Opened(1, "GET", "/", [])
        self.taken = taken
        """Pieces of the answer that still leave."""
        self.ends: list[ResetCode] = []

    def answer(self, status: int, headers: Headers) -> None:
        assert status == 200

    async def write(self, data: bytes, *, end: bool = False) -> None:
        self.taken -= 1
        if self.taken < 0:
            raise StreamLostError(ResetCode.CANCELLED, "whoever asked has gone")

    async def read(self) -> bytes:
        return b""

    @property
    def at_end(self) -> bool:
        return True

    def flush(self) -> None: ...

    def reset(self, code: ResetCode, reason: str) -> None:
        self.ends.append(code)

    def lose(self, error: StreamLostError) -> None: ...


def served(application: Application, stream: LostStream) -> BaseException | None:
    """Serve a stream, and return what its task ends with: asyncio complains where nobody retrieves that."""

    async def serve() -> BaseException | None:
        server = InsideServer(application)
        server(stream)
        (task,) = server._tasks
        await asyncio.wait({task})
        return task.exception()

    return asyncio.run(serve())


@get("/")
async def text() -> str:
    return "an answer"


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await send({"type": "http.response.body", "body": b"two"})


async def wrapping(scope: Any, receive: Any, send: Any) -> None:
    try:
        await bare(scope, receive, send)
    except Exception as exc:
        raise RuntimeError("Exception caught after response started") from exc


@pytest.mark.parametrize("taken", [0, 1])
@pytest.mark.parametrize("application", [Litestar([text], openapi_config=None), bare, wrapping])
def test_whoever_leaves_during_the_answer_alarms_nobody(application: Application, taken: int) -> None:
    """An application wraps what it is told of that in an error of its own, once its answer has begun."""
    stream = LostStream(taken)
    assert served(application, stream) is None
    assert stream.ends == [ResetCode.FAILED]


def test_a_mistake_of_the_application_is_not_kept_quiet() -> None:
    async def mistaken(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        raise RuntimeError("a mistake")

    assert str(served(mistaken, LostStream(0))) == "a mistake"
