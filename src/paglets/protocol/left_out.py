"""Hosts that run other code: they are no members of the mesh, and people want to know why. Decisions only, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from paglets.protocol.host_ref import HostRef

MAX_LEFT_OUT: Final = 256
"""Hosts of other versions that are remembered; the one heard of longest ago makes room for another."""
SHOWN_SECONDS: Final = 120.0
"""How long one is shown that was not heard of again; the longest pause between two contacts is much shorter."""


@dataclass(slots=True)
class _Stranger:
    ref: HostRef
    heard_at: float
    announced: bool


class LeftOut:
    """The hosts of other code versions that one host came across.

    Not safe for concurrent use. Every `now` is a time of one monotonic clock, in seconds.
    """

    def __init__(self) -> None:
        self._strangers: dict[str, _Stranger] = {}

    def note(self, ref: HostRef, *, now: float, announced: bool = False) -> bool:
        """Remember a host, and return whether that it runs this version is news.

        :param announced: it stays until `withdrawn`, heard of or not.
        """
        known = self._strangers.pop(ref.url, None)
        if known is None and len(self._strangers) >= MAX_LEFT_OUT:
            del self._strangers[next(iter(self._strangers))]
        # Behind all others: they are in the order in which they were heard of.
        announced = announced or (known is not None and known.announced)
        self._strangers[ref.url] = _Stranger(ref, now, announced)
        return known is None or known.ref.code_version != ref.code_version

    def admitted(self, url: str) -> None:
        """Forget a host that is a member now."""
        self._strangers.pop(url, None)

    def withdrawn(self, url: str) -> None:
        """Note that a host does not announce itself any more; it is shown again when it is heard of."""
        known = self._strangers.get(url)
        if known is not None and known.announced:
            known.announced, known.heard_at = False, -inf

    def hosts(self, *, now: float) -> list[HostRef]:
        """Return those that are there as far as is known, sorted by name and URL."""
        shown = [each.ref for each in self._strangers.values() if each.announced or now - each.heard_at < SHOWN_SECONDS]
        return sorted(shown, key=lambda ref: (ref.name, ref.url))
