"""The base URL of a host, which may change while the host runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from paglets.core.context import same_url
from paglets.remote.idle import Origin
from paglets.runtime.options import base_url

#: Addresses of a host that are remembered; of a machine that had more, the oldest are nobody's any more.
MOST_FORMER: Final = 16


class OwnUrl:
    """The base URL of one host, and those that it had before while it ran.

    Whoever was given a URL of the host may keep it for long: proxies in the state of paglets, rows on disk, processes
    that were not told yet. So every comparison with the own URL is made here. Safe to use from any thread.

    :param present: returns the URL as it is now.
    :param is_anothers: tells whether another host is known at a URL. The network may give an address that this machine
        had to another one; from then on it names that.
    """

    def __init__(self, present: Callable[[], str], *, is_anothers: Callable[[str], bool] = lambda _: False) -> None:
        self._present = present
        self._is_anothers = is_anothers
        self._former: tuple[str, ...] = ()

    def __call__(self) -> str:
        """Return the URL as it is now, without a trailing slash."""
        return self._present()

    @property
    def former(self) -> tuple[str, ...]:
        """The URLs that the host had before, the latest first."""
        here = self._present().rstrip("/")
        return tuple(url for url in self._former if url != here)

    def left(self, url: str) -> None:
        """Know that the host has had this URL; said before it gets another one, so that it is its own all the time."""
        self._former = tuple(dict.fromkeys((url.rstrip("/"), *self._former)))[:MOST_FORMER]

    def is_own(self, url: str) -> bool:
        """Tell whether a URL names this host: by the present address, or by one that it had and nobody else has."""
        return same_url(url, self._present()) or self.is_former(url)

    def is_former(self, url: str) -> bool:
        """Tell whether a URL names this host by an address that it had before."""
        # Most hosts never move, and most URLs are not theirs: those are told apart first.
        return bool(self._former) and url.rstrip("/") in self.former and not self._is_anothers(url.rstrip("/"))

    def of(self, url: str) -> str:
        """Return the present URL for any that names this host, and every other as it is."""
        return self._present() if self.is_former(url) else url


class FormerAddresses:
    """Send what is for a former address of a host to where it listens now; a `paglets.remote.shortcut.Detour`."""

    def __init__(self, own: OwnUrl, way: Origin) -> None:
        self._own = own
        self._way = way

    @property
    def way(self) -> Origin:
        """Where the requests go."""
        return self._way

    def covers(self, origin: Origin, target: str) -> bool:
        """Tell whether a request is for a former address."""
        del target
        return self._own.is_former(base_url(origin.host, origin.port, tls=origin.scheme == "https"))
