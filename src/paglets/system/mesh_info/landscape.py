"""What is known of the hosts of a mesh: merging news, telling what is fresh, forgetting what is not.

No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from paglets.serialization.codec import to_wire
from paglets.system.mesh_info.ages import Ages

if TYPE_CHECKING:
    from paglets.system.mesh_info.agent import MeshHostSnapshot

MAX_HOSTS: Final = 4096


@dataclass(frozen=True, slots=True)
class Landscape:
    """A view of encoded snapshots, which changes them in place; `now` is Unix seconds by the own clock everywhere."""

    snapshots: dict[str, dict[str, Any]]
    """By host URL without a trailing slash."""
    ages: Ages
    own_url: str
    decode: Callable[[dict[str, Any]], MeshHostSnapshot]

    def known(self) -> list[MeshHostSnapshot]:
        """Return all snapshots, sorted by name and URL of their hosts."""
        return self._sorted(self.snapshots.values())

    def fresh(self, longest: float, *, now: float) -> list[MeshHostSnapshot]:
        """Return the snapshots that are not older than so many seconds, sorted likewise."""
        return self._sorted(self.snapshots[url] for url, age in self._known_ages(now) if age <= longest)

    def freshest(self, longest: float, limit: int, *, now: float) -> list[MeshHostSnapshot]:
        """Return the youngest of the fresh snapshots: what is about to expire is news to nobody."""
        fresh = sorted((age, url) for url, age in self._known_ages(now) if age <= longest)
        return [self.decode(self.snapshots[url]) for _, url in fresh[: max(1, limit)]]

    def merge(self, snapshot: MeshHostSnapshot, *, age: float | None, now: float) -> bool:
        """Take in a snapshot that somebody else has sent, and return whether it is news.

        :param age: how many seconds old it is; None when that was not said.
        """
        url = key_of(snapshot.host_url)
        if not url or url == key_of(self.own_url):
            return False  # nobody knows this host better than it does itself
        known = self.snapshots.get(url)
        if known is not None and snapshot.observed_at <= known["observed_at"]:
            return False
        if known is None and len(self.snapshots) >= MAX_HOSTS:
            return False
        self.snapshots[url] = to_wire(snapshot)
        self.ages.note(url, snapshot.observed_at, now=now, age=age)
        return True

    def drop_outdated(self, longest: float, *, now: float) -> None:
        """Forget the snapshots of other hosts that are older than so many seconds."""
        for url, age in self._known_ages(now):
            if url != key_of(self.own_url) and age > longest:
                del self.snapshots[url]
        self.ages.keep(set(self.snapshots))

    def _known_ages(self, now: float) -> list[tuple[str, float]]:
        # Without decoding: most of what is known is not asked for.
        return [(url, self.ages.age(url, wire["observed_at"], now=now)) for url, wire in self.snapshots.items()]

    def _sorted(self, wires: Iterable[dict[str, Any]]) -> list[MeshHostSnapshot]:
        return sorted(map(self.decode, wires), key=lambda each: (each.host_name, each.host_url))

    def age(self, snapshot: MeshHostSnapshot, *, now: float) -> float:
        """Return how many seconds old a snapshot is."""
        return self.ages.age(key_of(snapshot.host_url), snapshot.observed_at, now=now)

    def ages_of(self, snapshots: Iterable[MeshHostSnapshot], *, now: float) -> dict[str, float]:
        """Return how many seconds old snapshots are, by host URL."""
        return {key_of(each.host_url): round(self.age(each, now=now), 3) for each in snapshots}

    def on_own_clock(self, snapshots: Iterable[MeshHostSnapshot]) -> list[MeshHostSnapshot]:
        """Return snapshots with the times at which they were taken by the own clock."""
        moments = [(each, self.ages.moment(key_of(each.host_url), each.observed_at)) for each in snapshots]
        return [each if moment == each.observed_at else replace(each, observed_at=moment) for each, moment in moments]


def news_of(snapshots: Iterable[MeshHostSnapshot], had: Mapping[str, float]) -> list[MeshHostSnapshot]:
    """Return the snapshots that somebody lacks who has those with these stamps, by host URL."""
    return [each for each in snapshots if each.observed_at > had.get(key_of(each.host_url), float("-inf"))]


def key_of(url: str) -> str:
    """Return the URL under which a host is kept."""
    return url.rstrip("/")
