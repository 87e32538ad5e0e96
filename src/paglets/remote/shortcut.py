"""A shorter way to a host than its public URL: a hub need not leave its machine to reach itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from paglets.remote.idle import Origin

__all__ = ["Detour", "Shortcut"]


class Detour(Protocol):
    """Another way for some requests, which are sent unchanged."""

    @property
    def way(self) -> Origin:
        """Where its requests go."""

    def covers(self, origin: Origin, target: str) -> bool:
        """Tell whether a request takes it.

        :param target: path and query.
        """
        ...


@dataclass(frozen=True, slots=True)
class Shortcut:
    """Send what is for one base URL somewhere else, unchanged.

    Behind a reverse proxy a host may not reach its own public URL at all, or only by way of the proxy.
    """

    origin: Origin
    """Server of the base URL."""
    path: str
    """Path of the base URL, without a trailing slash."""
    way: Origin
    """Where its requests go."""

    def covers(self, origin: Origin, target: str) -> bool:
        """Tell whether a request is for the base URL.

        :param target: path and query.
        """
        if origin != self.origin or not target.startswith(self.path):
            return False
        return target[len(self.path) : len(self.path) + 1] in ("", "/", "?")
