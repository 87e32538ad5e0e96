"""The hub's side of links: who is connected, and asking them."""

from __future__ import annotations

import asyncio
import hmac
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from paglets.core.errors import (
    ConflictError,
    ConnectionLostError,
    HostError,
    HostUnreachableError,
    NotFoundError,
    OverloadedError,
    PagletError,
    RemoteTimeoutError,
)
from paglets.persistence.rows import RelayName
from paglets.protocol.link import Headers, Hello, LinkError, LinkFullError, LinkLimits, ResetCode
from paglets.runtime.relay.nodes import RelayNode
from paglets.runtime.relay.session import LinkSession, LinkStream, StreamLostError

if TYPE_CHECKING:
    from paglets.runtime.relay.wire import Wire

MOST_NODES: Final = 10_000
#: How long a request waits for a link that was lost a moment ago.
RETURN_SECONDS: Final = 2.0
#: How long after its loss, or the start of the hub, a link is expected to be back at once.
EXPECTED_SECONDS: Final = 30.0
#: How old the time at which a host was seen may be on disk.
NOTED_SECONDS: Final = 3600.0
_HELLO_HOSTS: Final = 200
_SHORTEST_REFRESH: Final = 0.05
_LONGEST_REFRESH: Final = 5.0


class NotReachedError(HostUnreachableError):
    """A request did not leave the hub: it has no link to the host that it is for."""


class QueueFullError(NotReachedError):
    """A request did not leave the hub: as many as may be are under way to the host that it is for, which is there."""


class HubPort(Protocol):
    """What a hub needs of its host; called on the loop."""

    def address(self) -> str:
        """Return the hub's base URL."""

    def health(self) -> dict[str, Any]:
        """Return what the hub says of itself."""

    def hosts(self) -> list[dict[str, Any]]:
        """Return the records of the hosts that it knows."""

    def register(self, record: dict[str, Any]) -> None:
        """Have a host in the mesh."""

    def mark_offline(self, url: str, error: str) -> None:
        """Know that a host cannot be reached."""

    def news_seconds(self) -> float:
        """Return after how many seconds without news the mesh takes a host for gone."""

    def emit(self, kind: str, **fields: Any) -> None:
        """Record an event."""

    def names(self) -> Sequence[RelayName]:
        """Return the names that are taken, the one that was seen last at the end; blocking."""

    async def keep_name(self, row: RelayName, released: Sequence[str]) -> None:
        """Have a taken name on disk, and those that make room for it removed; returns when they are.

        :raises PagletError: the disk does not take it.
        """

    async def release_name(self, name: str) -> None:
        """Remove a name from the disk."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How a hub treats what it passes on."""

    accepts: bool = True
    """Whether hosts may connect at all. A host that is no hub says of every relay address that nobody is there, which
    is another thing than not knowing the address."""
    offline_after: float = 30.0
    """Seconds of silence after which a connected host is offline."""
    delivery_timeout: float | None = None
    """Seconds that an answer may take to begin where whoever asks names no limit; None for as long as he waits."""
    queue_limit: int = 1024
    """Requests that may be under way to one host, waiting ones included."""

    def limits(self) -> LinkLimits:
        """Return the limits of links."""
        return LinkLimits(
            streams=max(1, self.queue_limit), ping_after=self.offline_after / 3, dead_after=self.offline_after
        )


class _Place:
    """Everything about one name."""

    def __init__(self, node: RelayNode) -> None:
        self.node = node
        self.session: LinkSession | None = None
        self.lost_at = 0.0
        self.told_offline = False
        self.told_full = False
        self.unanswered = 0


class Hub:
    """Hold one link for each connected host, and ask them; lives on the loop of the hub's host.

    :param name: of the hub's host, which nobody else may take.
    """

    def __init__(self, name: str, port: HubPort, settings: RelaySettings) -> None:
        self.name = name
        self.settings = settings
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._instance = uuid.uuid4().hex
        self._places: dict[str, _Place] = {}
        self._names: dict[str, RelayName] = {row.name: row for row in port.names()} if settings.accepts else {}
        """To whom each name belongs, also of hosts that are not connected."""
        self._awaited: dict[str, set[asyncio.Future[None]]] = {}
        self._waiting = 0
        self._closing = False
        self._wires: list[Wire] = []
        """The connections of the links that `close` has ended."""
        self._refreshing: asyncio.TimerHandle | None = None

    def address_of(self, name: str) -> str:
        """Return the base URL of a connected host."""
        return f"{self._port.address()}/relay/hosts/{quote(name, safe='')}"

    def emit(self, kind: str, **fields: Any) -> None:
        """Record an event of the hub's host."""
        self._port.emit(kind, **fields)

    # --- links --------------------------------------------------------------------------------------------------------

    def admit(self, name: str, credential: bytes) -> None:
        """See that a host may be linked under a name.

        :param credential: what stands for the key that it showed.
        :raises HostError: this is no hub.
        :raises ConflictError: the name is taken by somebody else.
        :raises OverloadedError: there are too many.
        """
        if not self.settings.accepts:
            raise HostError("this host is no relay hub; start it with --public-url to make it one")
        if name == self.name:
            raise ConflictError(f"{name!r} is the name of this hub; give the host another one")
        known = self._names.get(name)
        if known is None:
            if len(self._names) >= MOST_NODES and self._longest_absent() is None:
                raise OverloadedError(f"{MOST_NODES} hosts are connected; connect this one to another hub")
        elif not hmac.compare_digest(known.credential, credential):
            raise ConflictError(
                f"the name {name!r} belongs to a host with another key; an operator of this hub can release it: "
                f"paglets relay release {name}"
            )

    async def claim(self, name: str, credential: bytes) -> None:
        """See that a host may be linked under a name, and have it belong to that host from now on.

        It is on disk when this returns, so that a hub that starts again knows as well.

        :raises ConflictError: see `admit`.
        :raises InsufficientStorageError: the disk does not take it.
        """
        self.admit(name, credential)
        known = self._names.get(name)
        if known is not None:
            if time.time() - known.seen_at > NOTED_SECONDS:
                known.seen_at = time.time()
                await self._port.keep_name(known, ())
            return
        released = []
        if len(self._names) >= MOST_NODES and (longest := self._longest_absent()) is not None:
            released.append(longest)
            self._forget(longest)
        # Before it is written: whoever comes meanwhile is second.
        row = self._names[name] = RelayName(name, credential, time.time())
        try:
            await self._port.keep_name(row, released)
        except BaseException:
            if self._names.get(name) is row:
                del self._names[name]
            raise

    async def release(self, name: str) -> None:
        """Let a name belong to nobody, so that a host with another key may take it.

        :raises NotFoundError: it belongs to nobody.
        :raises ConflictError: a host is connected under it.
        """
        if name not in self._names:
            raise NotFoundError(f"the name {name!r} belongs to nobody")
        place = self._places.get(name)
        if place is not None and place.session is not None and place.session.alive:
            raise ConflictError(f"a host is connected under the name {name!r}; stop it first")
        await self._port.release_name(name)
        self._forget(name)
        self._port.emit("relay-name-released", data={"name": name})

    def _forget(self, name: str) -> None:
        self._names.pop(name, None)
        self._places.pop(name, None)

    def _longest_absent(self) -> str | None:
        """Return the name of the host that has been gone for longest, None where all are connected."""
        absent = (
            (row.seen_at, name)
            for name, row in self._names.items()
            if name not in self._places or self._places[name].session is None
        )
        return min(absent, default=(0.0, None))[1]

    def names(self) -> list[dict[str, Any]]:
        """Return the names that are taken, each with whether a host is connected under it and when it was seen."""
        found = []
        for name, row in sorted(self._names.items()):
            place = self._places.get(name)
            online = place is not None and place.session is not None and place.session.alive
            seen = row.seen_at if place is None else place.node.last_seen
            found.append({"name": name, "online": online, "last_seen": seen})
        return found

    def session(self, name: str, credential: bytes) -> LinkSession:
        """Return the hub's end of a new link; give it a wire.

        :raises ConflictError: see `admit`.
        """
        self.admit(name, credential)

        def greeted(hello: Hello) -> None:
            if hello.name != name:
                raise LinkError(f"a host that opened a link as {name!r} calls itself {hello.name!r}")
            self._greeted(session, hello, credential)

        hello = Hello(
            name=self.name,
            instance=self._instance,
            health=self._port.health(),
            hosts=self._port.hosts()[:_HELLO_HOSTS],
        )
        session = LinkSession(hello, first=False, limits=self.settings.limits(), serve=_refuse, greeted=greeted)
        return session

    def _greeted(self, session: LinkSession, hello: Hello, credential: bytes) -> None:
        name, now = hello.name, time.time()
        try:
            self.admit(name, credential)
        except PagletError as exc:
            raise LinkError(str(exc)) from exc
        address = self.address_of(name)
        health = {**hello.health, "name": name, "address": address}
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = _Place(RelayNode(name, health))
        row = self._names.setdefault(name, RelayName(name, credential, now))
        row.seen_at = now
        former, place.session = place.session, session
        node = place.node
        node.health, node.last_seen, node.online, node.last_error = health, now, True, None
        node.active_polls, node.last_poll_started = 1, now
        place.told_offline = False
        if former is not None:
            former.close("a newer link of the same host took its place")
        session.ended.add_done_callback(lambda ended: self._lost(place, session, ended.result()))
        self._register(place)
        self._keep_fresh()
        self._port.emit("relay-connected", data={"target": name, "address": address})
        for waiter in self._awaited.pop(name, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _register(self, place: _Place) -> None:
        """Have the mesh know that a host is there."""
        node = place.node
        record = {**node.health, "url": node.health["address"], "online": True, "last_seen": time.time()}
        try:
            self._port.register(record)
        except (PagletError, ValueError) as exc:
            node.last_error = str(exc)

    def _keep_fresh(self) -> None:
        """Tell the mesh again and again who is connected: it is the link that says so, not gossip."""
        if self._refreshing is None and not self._closing:
            pause = min(_LONGEST_REFRESH, max(_SHORTEST_REFRESH, self._port.news_seconds() / 3))
            self._refreshing = self._loop.call_later(pause, self._refresh)

    def _refresh(self) -> None:
        self._refreshing = None
        present = [place for place in self._places.values() if place.session is not None and place.session.alive]
        for place in present:
            self._register(place)
        if present:
            self._keep_fresh()

    def _lost(self, place: _Place, session: LinkSession, reason: str) -> None:
        if place.session is not session:
            return
        node = place.node
        place.session, place.lost_at = None, self._loop.time()
        node.online, node.active_polls, node.last_error = False, 0, reason
        node.last_poll_finished = time.time()
        node.last_seen = node.last_poll_finished - max(0.0, place.lost_at - session.link.heard_at)
        if node.name in self._names:
            self._names[node.name].seen_at = node.last_seen
        if self._closing:
            return
        self._port.mark_offline(self.address_of(node.name), self._offline_text(node))
        self._port.emit("relay-disconnected", data={"target": node.name}, error=reason)

    def close(self) -> None:
        """End every link."""
        self._closing = True
        if self._refreshing is not None:
            self._refreshing.cancel()
        for place in list(self._places.values()):
            if place.session is not None:
                self._wires += [] if place.session.wire is None else [place.session.wire]
                place.session.close("the hub is shutting down")
        for waiters in self._awaited.values():
            for waiter in waiters:
                waiter.cancel()
        self._awaited.clear()

    async def ended(self) -> None:
        """Wait for the end of the connections whose links were ended by `close`."""
        await asyncio.gather(*(wire.ended() for wire in self._wires))

    # --- asking -------------------------------------------------------------------------------------------------------

    async def reach(self, name: str, *, seconds: float | None) -> LinkSession:
        """Return the link of a host; one that was lost a moment ago is waited for.

        :param seconds: how long whoever asks waits.
        :raises NotReachedError: there is none.
        """
        place = self._places.get(name)
        if place is not None and place.session is not None and place.session.alive:
            return place.session
        now = self._loop.time()
        since = self._began if place is None else place.lost_at
        if now - since < EXPECTED_SECONDS and not self._closing and self._waiting < self.settings.queue_limit:
            patience = RETURN_SECONDS if seconds is None else min(RETURN_SECONDS, seconds / 2)
            await self._await_link(name, patience)
            place = self._places.get(name)
            if place is not None and place.session is not None and place.session.alive:
                return place.session
        raise NotReachedError(self._absence(name))

    async def _await_link(self, name: str, seconds: float) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._awaited.setdefault(name, set()).add(waiter)
        self._waiting += 1
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        finally:
            self._waiting -= 1
            waiters = self._awaited.get(name)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._awaited[name]

    def ask(self, name: str, session: LinkSession, method: str, target: str, headers: Headers) -> LinkStream:
        """Begin a request to a host.

        :raises QueueFullError: too many are under way.
        """
        try:
            stream = session.ask(method, target, headers)
        except LinkFullError as exc:
            raise QueueFullError(f"Relay target {name!r} has too many requests under way: {exc}") from None
        place = self._places.get(name)
        if place is not None:
            place.node.in_flight += 1
            place.unanswered += 1
        return stream

    def answered(self, name: str) -> None:
        """Know that the answer to a request has begun, or never will."""
        place = self._places.get(name)
        if place is not None:
            place.unanswered = max(0, place.unanswered - 1)

    def over(self, name: str) -> None:
        """Know that a request has ended."""
        place = self._places.get(name)
        if place is not None:
            place.node.in_flight = max(0, place.node.in_flight - 1)
            # Not at the first free place: under a load that is too much, that one is taken again at once.
            if place.node.in_flight <= self.settings.queue_limit // 2:
                place.told_full = False

    def failure(self, name: str, error: StreamLostError) -> PagletError:
        """Return what whoever asked is told of a stream that was lost."""
        if error.code is ResetCode.REFUSED:
            return NotReachedError(f"Relay target {name!r} did not take the request: {error}")
        place = self._places.get(name)
        if place is not None:
            place.node.last_error = str(error)
        return ConnectionLostError(f"The link to relay target {name!r} broke: {error}; it may have had the request")

    def timed_out(self, name: str, seconds: float) -> PagletError:
        """Return what whoever asked is told when no answer began in time."""
        error = RemoteTimeoutError(f"Relay delivery to {name!r} timed out after {round(seconds, 3):g}s")
        place = self._places.get(name)
        if place is not None:
            place.node.last_error = str(error)
        return error

    def first_time_offline(self, name: str) -> bool:
        """Tell whether nobody was told yet that this host is offline."""
        place = self._places.get(name)
        if place is None:
            return True
        told, place.told_offline = place.told_offline, True
        return not told

    def first_time_full(self, name: str) -> bool:
        """Tell whether nobody was told yet that too many requests are under way to a host.

        Once no more than half of them are, that is news again.
        """
        place = self._places.get(name)
        if place is None:
            return True
        told, place.told_full = place.told_full, True
        return not told

    def age(self, name: str) -> float | None:
        """Return how many seconds ago a host was heard, None where it never was."""
        place = self._places.get(name)
        return None if place is None else self._silence(place)

    def _silence(self, place: _Place) -> float:
        session = place.session
        if session is not None:
            return max(0.0, self._loop.time() - session.link.heard_at)
        return max(0.0, time.time() - place.node.last_seen)

    def queue_depth(self, name: str) -> int:
        """Return how many requests to a host have no answer yet."""
        place = self._places.get(name)
        return (0 if place is None else place.unanswered) + len(self._awaited.get(name, ()))

    def _absence(self, name: str) -> str:
        place = self._places.get(name)
        return f"Relay target {name!r} is not connected" if place is None else self._offline_text(place.node)

    def _offline_text(self, node: RelayNode) -> str:
        age = max(0.0, time.time() - node.last_seen)
        return f"Relay target {node.name!r} is offline/not polling (last seen {age:.1f}s ago)"

    # --- looking ------------------------------------------------------------------------------------------------------

    def diagnostics(self, most: int | None = None) -> list[dict[str, Any]]:
        """Return how each connected host does, by name; nothing of what passes. Any thread may ask.

        :param most: how many hosts to tell of, the first by name; None for all.
        """
        places = list(self._places.values())  # in one step, as seen by other threads
        chosen = nsmallest(len(places) if most is None else most, places, key=_name_of)
        return [self._describe(place) for place in chosen]

    def _describe(self, place: _Place) -> dict[str, Any]:
        node, age = place.node, self._silence(place)
        return {
            "name": node.name,
            "online": node.online,
            "last_seen": time.time() - age if node.online else node.last_seen,
            "last_seen_age": age,
            "active_polls": node.active_polls,
            "queue_depth": self.queue_depth(node.name),
            "in_flight": node.in_flight,
            "last_error": node.last_error,
        }


def _name_of(place: _Place) -> str:
    return place.node.name


def _refuse(stream: LinkStream) -> None:
    """Take no requests over links: a connected host asks the hub as everybody does."""
    stream.reset(ResetCode.REFUSED, "a hub is asked over HTTP")
