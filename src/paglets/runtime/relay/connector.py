"""The connected side of a link: keep one open to the hub, for as long as the host runs."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from paglets.core.chance import CHANCE
from paglets.core.errors import HostError, PagletError
from paglets.protocol.link import Hello, LinkLimits
from paglets.remote.requests import quoted
from paglets.runtime.relay.gateway import LINK_PATH
from paglets.runtime.relay.session import LinkSession, LinkStream
from paglets.runtime.relay.wire import Wire

CONNECT_SECONDS: Final = 10.0
"""How long the hub may take to answer and to say who it is."""
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 15.0
_PORTS: Final = {"http": 80, "https": 443}
#: A link that lasted so long was a good one: the next attempt follows at once.
STEADY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """The hub, and what is said to it."""

    url: str
    """Its base URL."""
    name: str
    """Of this host."""
    api_key: str | None
    health: Callable[[], dict[str, Any]]
    tls: Callable[[], ssl.SSLContext]
    """Returns how to verify an https hub; called on a thread."""
    limits: LinkLimits
    learn: Callable[[list[dict[str, Any]]], None]
    """Called with the records of the hosts that the hub knows."""
    emit: Callable[..., None]
    """Records an event."""


class Connector:
    """Open the link to the hub, and open it again whenever it is lost.

    :param serve: called with each stream.
    """

    def __init__(
        self,
        upstream: Upstream,
        serve: Callable[[LinkStream], None],
        *,
        jitter: Callable[[], float] = CHANCE.random,
    ) -> None:
        self._upstream = upstream
        self._serve = serve
        self._jitter = jitter
        self._instance = uuid.uuid4().hex
        self._session: LinkSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._tls: ssl.SSLContext | None = None
        self.connected = asyncio.Event()
        """Whether the link is up."""

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End the link for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            session.close("the host is shutting down")
            if session.wire is not None:
                await session.wire.ended()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = loop.time()
            try:
                reason = await self._one_link()
            except (OSError, PagletError, ValueError) as exc:  # the last is a name that cannot be looked up
                reason = str(exc) or type(exc).__name__
            self.connected.clear()
            self._upstream.emit("relay-client-error", data={"hub": self._upstream.url}, error=reason)
            if loop.time() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause * (0.5 + self._jitter() / 2))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _one_link(self) -> str:
        """Open a link, wait for its end, and return why it ended.

        :raises OSError: there is no connection.
        :raises HostError: the hub did not want it.
        """
        upstream = self._upstream
        greeting: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        hello = Hello(name=upstream.name, instance=self._instance, health=upstream.health())
        session = self._session = LinkSession(
            hello,
            first=True,
            limits=upstream.limits,
            serve=self._serve,
            greeted=lambda heard: None if greeting.done() else greeting.set_result(heard),
        )
        try:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._connect(session)
                    await asyncio.wait((greeting, session.ended), return_when=asyncio.FIRST_COMPLETED)
            except TimeoutError:
                raise HostError(f"no link to {upstream.url} within {CONNECT_SECONDS:g} s") from None
            if session.wire is not None and session.wire.refusal is not None:
                refusal = session.wire.refusal
                raise HostError(f"{upstream.url} refused the link: {refusal}: {quoted(refusal.body)}")
            if session.ended.done():
                raise HostError(f"no link to {upstream.url}: {session.ended.result()}")
            self._compare(str(greeting.result().health.get("address", "")))
            upstream.learn(greeting.result().hosts)
            self.connected.set()
            upstream.emit("relay-client-connected", data={"hub": upstream.url})
            return await asyncio.shield(session.ended)
        finally:
            session.close("the link is given up")

    def _compare(self, address: str) -> None:
        """See that others call the hub what this host calls it: its own address begins with that."""
        upstream = self._upstream
        if address and address.rstrip("/") != upstream.url:
            text = f"the hub calls itself {address}; connect to that, or the address of this host leads nowhere"
            upstream.emit("relay-client-error", data={"hub": upstream.url}, error=text)

    async def _connect(self, session: LinkSession) -> None:
        upstream, loop = self._upstream, asyncio.get_running_loop()
        parts = urlsplit(upstream.url)
        secure = parts.scheme == "https"
        address = f"{'wss' if secure else 'ws'}://{parts.netloc}{parts.path}{LINK_PATH}"
        headers = [("Authorization", f"Bearer {upstream.api_key}")] if upstream.api_key else []
        session.wire = Wire.client(f"{address}?name={quote(upstream.name, safe='')}", headers, session)
        if secure and self._tls is None:
            # Once, and beside the loop: the system's store of certificates takes a while to load.
            self._tls = await loop.run_in_executor(None, upstream.tls)
        wire = session.wire
        await loop.create_connection(
            lambda: wire,
            parts.hostname or "",
            parts.port or _PORTS[parts.scheme],
            ssl=self._tls if secure else None,
        )
