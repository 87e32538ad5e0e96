"""Serve the streams of a link by a host's own HTTP application, as if each had come from a socket."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import unquote

from paglets.protocol.link import Headers, Opened, ResetCode
from paglets.runtime.http.extensions import ANSWER
from paglets.runtime.http.guards import Application
from paglets.runtime.relay.session import LinkStream, StreamLostError

#: Fields that are about one connection; a link is another one.
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

#: What the hub has judged: whom the request names, and which page it comes from. Here it is for this host.
_JUDGED: Final = frozenset({b"host", b"origin"})
_OWN_NAME: Final = (b"host", b"localhost")


def end_to_end(headers: Headers) -> Headers:
    """Return the fields that are not about the connection that they came on."""
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    return [field for field in headers if field[0] not in HOP_BY_HOP and field[0] not in named]


class InsideServer:
    """Run an application for the streams of links.

    :param application: the application; each call of it is a task of the loop.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def __call__(self, stream: LinkStream) -> None:
        """Serve one stream."""
        if self._closing:
            stream.reset(ResetCode.REFUSED, "the host is shutting down")
            return
        task = asyncio.get_running_loop().create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, graceful_seconds: float) -> None:
        """Take no more requests, give those in progress a moment, then call them off."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=graceful_seconds)
        unfinished = list(self._tasks)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    async def _serve(self, stream: LinkStream) -> None:
        if stream.opened is None:
            raise ValueError("only a request of the other end can be served")
        exchange = _Exchange(stream, stream.opened)
        try:
            await self._application(exchange.scope, exchange.receive, exchange.send)
        except Exception:
            # Where whoever asked has gone, or the link, there is nobody to be told. What was raised for that need not
            # be what comes out of the application, which wraps it once its answer has begun.
            if not exchange.lost:
                raise
        finally:
            # Without an effect on an answer that is complete.
            stream.reset(ResetCode.FAILED, "the request was not answered to its end")
            stream.lose(StreamLostError(ResetCode.CANCELLED, "the request is over"))


class _Exchange:
    """The three things that an application is called with."""

    def __init__(self, stream: LinkStream, opened: Opened) -> None:
        self._stream = stream
        self.lost = False
        """Whether the answer could not be sent, because nobody is there any more."""
        self._whole = False
        self._start: MutableMapping[str, Any] | None = None
        self._head_only = opened.method == "HEAD"
        path, _, query = opened.target.partition("?")
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": None,
            "client": None,
            "scheme": "http",
            "root_path": "",
            "method": opened.method,
            "path": unquote(path),
            "raw_path": path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": [_OWN_NAME, *(field for field in opened.headers if field[0] not in _JUDGED)],
            "state": {},
            "extensions": {ANSWER: self._answer},
        }

    async def receive(self) -> dict[str, Any]:
        """Return the next piece of the request's body, or that whoever asked has gone."""
        if self._whole:
            await self._stream.gone()
            return {"type": "http.disconnect"}
        try:
            piece = await self._stream.read()
        except StreamLostError:
            return {"type": "http.disconnect"}
        self._whole = not piece or self._stream.at_end
        return {"type": "http.request", "body": piece, "more_body": not self._whole}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send a piece of the answer."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._start is not None:
            start, self._start = self._start, None
            self._stream.answer(start["status"], end_to_end(list(start.get("headers", ()))))
        await self._write(bytes(body), end=not more)
        if more:
            self._stream.flush()

    async def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer."""
        fields = end_to_end(headers)
        if status not in (204, 304) and not any(name == b"content-length" for name, _ in fields):
            fields.append((b"content-length", b"%d" % len(body)))
        self._stream.answer(status, fields)
        await self._write(body, end=True)

    async def _write(self, body: bytes, *, end: bool) -> None:
        try:
            await self._stream.write(b"" if self._head_only else body, end=end)
        except StreamLostError:
            self.lost = True
            raise
