"""How many notifications get through: so many a minute in all, and from one source. No clock; time is passed in."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_SOURCES: Final = 256
#: How much more may come from all sources together than from one.
SOURCES_AT_ONCE: Final = 5


class Bucket:
    """Tokens that come back at a steady rate, up to those of a minute.

    :param now: monotonic seconds.
    """

    def __init__(self, per_minute: float, *, now: float) -> None:
        self._per_minute = per_minute
        self._tokens = max(1.0, per_minute)
        self._at = now

    def refill(self, now: float) -> float:
        """Return how many tokens there are."""
        gained = max(0.0, now - self._at) * self._per_minute / 60
        self._tokens = min(max(1.0, self._per_minute), self._tokens + gained)
        self._at = now
        return self._tokens

    def take(self) -> None:
        """Take one away."""
        self._tokens -= 1


class RateLimit:
    """Lets so many notifications a minute pass from each source, and five times as many in all.

    A source may call itself what it likes, hence the limit for all. It counts what it has held back.
    """

    def __init__(self, per_minute: float, *, now: float) -> None:
        self._per_minute = per_minute
        self._all = Bucket(per_minute * SOURCES_AT_ONCE, now=now)
        self._sources: OrderedDict[str, Bucket] = OrderedDict()
        self._held_back = 0

    def admits(self, source: str, *, now: float) -> bool:
        """Return whether a notification may pass, and count it."""
        bucket = self._sources.pop(source, None) or Bucket(self._per_minute, now=now)
        self._sources[source] = bucket
        while len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        if min(bucket.refill(now), self._all.refill(now)) < 1:
            self._held_back += 1
            return False
        bucket.take()
        self._all.take()
        return True

    def take_held_back(self) -> int:
        """Return how many were held back since the last call."""
        count, self._held_back = self._held_back, 0
        return count
