"""Remember where paglets were last found, so that a proxy made long ago still reaches its paglet.

A paglet that moves is found again through the places it is known by: the host that its proxy names, the one that
answered last, its home host. Nothing is asked here; clients tell the table what they heard, and ask it whom to ask.

Ids are unique by chance or by choice, not by law: two hosts may each have a paglet called `echo`. So places belong
together only where something said so (an answer that came from elsewhere, a move, a home host), and a message to one
paglet is never sent to a namesake.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Route", "RouteStatistics", "RouteTable"]

MAX_ROUTES: Final = 10_000
"""Proxies whose paglet's place is remembered."""
MAX_EARLIER: Final = 6
"""Places remembered per paglet beside the latest one and the home."""
MAX_BLOCKED: Final = 1_000
"""Hosts remembered as not reachable."""
BLOCKED_SECONDS: Final = 5.0
"""How long a host that could not be reached is asked after all others; doubles with every further time."""
MAX_BLOCKED_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Route:
    """Where one paglet was last found, and where else it may be asked for."""

    url: str
    """Base URL of the host that had it last."""
    home: str = ""
    """Base URL of the host that created it and is told of its moves; empty if not known."""
    earlier: tuple[str, ...] = ()
    """Base URLs of hosts that had it before, the latest first."""

    def places(self) -> tuple[str, ...]:
        """Return all of them, each once."""
        return tuple(dict.fromkeys((self.url, *((self.home,) if self.home else ()), *self.earlier)))


@dataclass(frozen=True, slots=True)
class RouteStatistics:
    """Count what a table holds."""

    routes: int
    """Pairs of paglet and place that lead somewhere."""
    blocked: int
    """Hosts that could not be reached lately."""


class RouteTable:
    """Map a paglet, as a proxy names it by id and host URL, to the places where it may be. Thread-safe and bounded.

    :param max_routes: pairs of id and URL to remember; those not used for longest are forgotten first.
    :param clock: monotonic seconds.
    """

    def __init__(self, *, max_routes: int = MAX_ROUTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_routes = max_routes
        self._clock = clock
        self._lock = threading.Lock()
        # Every place of a paglet leads to the same route, so that all proxies for it learn from each other.
        self._routes: OrderedDict[tuple[str, str], Route] = OrderedDict()
        self._blocked: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def statistics(self) -> RouteStatistics:
        """Return how much is remembered."""
        with self._lock:
            return RouteStatistics(len(self._routes), len(self._blocked))

    def find(self, agent_id: str, host_url: str) -> Route | None:
        """Return the route of a paglet that was found before, None for any other."""
        with self._lock:
            return self._routes.get((agent_id, host_url.rstrip("/")))

    def best(self, agent_id: str, host_url: str) -> tuple[str, bool]:
        """Return the place to ask first, and whether there are others."""
        route = self.find(agent_id, host_url)
        if route is None:
            return host_url.rstrip("/"), False
        if self._blocked:
            places = self.places(agent_id, host_url)
            return places[0], len(places) > 1
        return route.url, bool(route.earlier or (route.home and route.home != route.url))

    def places(self, agent_id: str, host_url: str) -> list[str]:
        """Return all places to ask, the likeliest first: hosts that could not be reached lately come last.

        :param host_url: where the proxy thinks the paglet is; always among the places.
        """
        asked = host_url.rstrip("/")
        route = self.find(agent_id, asked)
        if route is None:
            return [asked]
        first, *others = route.places()
        return self.sorted(dict.fromkeys((first, asked, *others)))

    def sorted(self, places: dict[str, None]) -> list[str]:
        """Return places in their order, those that could not be reached lately behind all others."""
        if not self._blocked:
            return list(places)
        now = self._clock()
        with self._lock:
            return sorted(places, key=lambda place: self._blocked.get(place, (now, 0.0))[0] > now)

    def learn(self, agent_id: str, asked: str, place: str, home: str = "") -> None:
        """Note where a paglet was found, or is after it moved.

        :param asked: the place by which it was asked for: a proxy's host URL, or where it was before.
        :param place: where it is.
        :param home: its home host, empty where nothing was said.
        """
        asked, place, home = asked.rstrip("/"), place.rstrip("/"), home.rstrip("/")
        with self._lock:
            known = self._routes.get((agent_id, asked))
            if (
                known is not None
                and known.url == place
                and (not home or known.home == home)
                # Otherwise the place was forgotten since, and may have come to be known for something else.
                and self._routes.get((agent_id, place)) is known
            ):
                self._routes.move_to_end((agent_id, asked))
                return
            self._join(agent_id, asked, place, home)

    def _join(self, agent_id: str, asked: str, place: str, home: str) -> None:
        """Make one route of what is known by any of the places."""
        parts = [self._routes.get((agent_id, url)) for url in dict.fromkeys((asked, place, home))]
        known = [part for part in parts if part is not None]
        former = dict.fromkeys(url for part in known for url in part.places())
        home = home or next((part.home for part in known if part.home), "")
        others = [url for url in dict.fromkeys((asked, *former)) if url not in (place, home)]
        route = Route(place, home, tuple(others[:MAX_EARLIER]))
        for url in former:
            self._routes.pop((agent_id, url), None)
        for url in reversed(route.places()):
            self._routes[(agent_id, url)] = route
        while len(self._routes) > self._max_routes:
            self._routes.popitem(last=False)

    def forget(self, agent_id: str, host_url: str) -> None:
        """Forget a paglet that ended."""
        with self._lock:
            route = self._routes.pop((agent_id, host_url.rstrip("/")), None)
            for url in () if route is None else route.places():
                self._routes.pop((agent_id, url), None)

    def block(self, host_url: str) -> None:
        """Note that a host could not be reached."""
        url = host_url.rstrip("/")
        now = self._clock()
        with self._lock:
            until, seconds = self._blocked.pop(url, (0.0, BLOCKED_SECONDS / 2))
            if until <= now:
                seconds = min(seconds * 2, MAX_BLOCKED_SECONDS)
                until = now + seconds
            self._blocked[url] = (until, seconds)
            while len(self._blocked) > MAX_BLOCKED:
                self._blocked.popitem(last=False)

    def unblock(self, host_url: str) -> None:
        """Note that a host was reached."""
        if self._blocked:
            with self._lock:
                self._blocked.pop(host_url.rstrip("/"), None)
