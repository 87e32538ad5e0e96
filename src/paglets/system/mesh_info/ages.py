"""How old news of other hosts is by the own clock, whatever theirs say.

A snapshot is stamped by the clock of the host it is about. Such stamps are compared with each other only, to tell news
from an echo. Who passes a snapshot on says how old it is; added up along the way that gives a moment on the receiver's
clock. Where nobody has said it, as hosts of older versions do not, the stamp has to do, and one from the future counts
as being of now.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class _Sighting(NamedTuple):
    stamp: float
    at: float


class Ages:
    """When, by the own clock, the snapshots were taken that are known; all times are Unix seconds."""

    def __init__(self) -> None:
        self._sightings: dict[str, _Sighting] = {}

    def note(self, url: str, stamp: float, *, now: float, age: float | None = None) -> None:
        """Take down that a snapshot has come in.

        :param stamp: what is written on it.
        :param age: how many seconds old it was when it came; None when nobody has said so.
        """
        if age is not None and math.isfinite(age):
            self._sightings[url] = _Sighting(stamp, now - max(0.0, age))
        elif stamp > now:
            self._sightings[url] = _Sighting(stamp, now)
        else:
            self._sightings.pop(url, None)

    def moment(self, url: str, stamp: float) -> float:
        """Return when a snapshot was taken by the own clock."""
        seen = self._sightings.get(url)
        # Another stamp: what is asked about is not what was noted.
        return seen.at if seen is not None and seen.stamp == stamp else stamp

    def age(self, url: str, stamp: float, *, now: float) -> float:
        """Return how many seconds old a snapshot is."""
        return max(0.0, now - self.moment(url, stamp))

    def keep(self, urls: set[str]) -> None:
        """Forget all but these."""
        self._sightings = {url: seen for url, seen in self._sightings.items() if url in urls}
