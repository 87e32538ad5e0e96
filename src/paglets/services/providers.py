"""The providers of one contract as they were found last, and which of them is asked next."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from paglets.core.chance import CHANCE
from paglets.core.errors import ServiceNotFoundError
from paglets.services.records import ServiceRecord

if TYPE_CHECKING:
    from paglets.services.contracts import ServiceContract

__all__ = ["Distance", "Providers", "distance"]

LONGEST_AVOIDANCE_SECONDS: Final = 60.0
_RELAYED: Final = "/relay/hosts/"

Key = tuple[str, str]


class Distance(IntEnum):
    """How far a provider is."""

    SAME_HOST = 0
    DIRECT = 1
    RELAYED = 2


def distance(url: str, own: str) -> Distance:
    """Return how far a host is from the one at ``own``."""
    if url.rstrip("/") == own.rstrip("/"):
        return Distance.SAME_HOST
    return Distance.RELAYED if _RELAYED in url else Distance.DIRECT


class Providers:
    """Choose among providers: nearest first, then the less busy one of two taken at random. Thread-safe.

    A provider that failed lately is asked after all others. How busy one is, is what this object knows itself, that is
    the calls it makes now, and among equals the number of paglets that the mesh last heard the host has.

    :param own: base URL of the host that calls begin at.
    :param sticky: stay with the provider that answered last, instead of choosing for each call.
    :param avoid_seconds: how long one that failed is asked after all others; doubles with each further time.
    :param clock: monotonic seconds.
    :param pick: returns a number below its argument at random.
    """

    def __init__(
        self,
        contract: ServiceContract,
        records: Iterable[ServiceRecord] = (),
        *,
        own: str = "",
        sticky: bool = False,
        avoid_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        pick: Callable[[int], int] = CHANCE.randrange,
    ) -> None:
        self._contract = contract
        self._own = own
        self._sticky = sticky
        self._avoid_seconds = avoid_seconds
        self._clock = clock
        self._pick = pick
        self._lock = threading.Lock()
        self._records: dict[Key, ServiceRecord] = {self.key(record): record for record in records}
        self._current: Key | None = next(iter(self._records), None) if sticky else None
        self._in_flight: Counter[Key] = Counter()
        self._avoided: dict[Key, tuple[float, float]] = {}
        self._loads: Mapping[str, int] = {}
        self._updated_at = clock()

    @property
    def contract(self) -> ServiceContract:
        """What they provide."""
        return self._contract

    def beginning_with(self, contract: ServiceContract, record: ServiceRecord) -> Providers:
        """Return an object that chooses as this one does, and knows this provider alone."""
        return Providers(
            contract,
            (record,),
            own=self._own,
            sticky=self._sticky,
            avoid_seconds=self._avoid_seconds,
            clock=self._clock,
            pick=self._pick,
        )

    @staticmethod
    def key(record: ServiceRecord) -> Key:
        """Return what tells one provider from another."""
        return record.proxy.agent_id, record.proxy.host_url

    @property
    def records(self) -> tuple[ServiceRecord, ...]:
        """The providers, in the order in which they were found."""
        with self._lock:
            return tuple(self._records.values())

    @property
    def current(self) -> ServiceRecord | None:
        """The provider that answered last, if it is stayed with."""
        with self._lock:
            return None if self._current is None else self._records.get(self._current)

    @property
    def age(self) -> float:
        """Seconds since the providers were found."""
        return self._clock() - self._updated_at

    def in_flight(self, record: ServiceRecord) -> int:
        """Return how many calls to a provider are being made through this object."""
        return self._in_flight[self.key(record)]

    def update(self, records: Iterable[ServiceRecord], loads: Mapping[str, int] | None = None) -> None:
        """Take over what was found now; records of other contracts are left out.

        :param loads: how many paglets hosts have, by base URL.
        """
        found = {self.key(record): record for record in records if self._contract.matches_record(record)}
        with self._lock:
            self._updated_at = self._clock()
            if not found and self._sticky:
                return  # what is known is all there is to try
            if loads is not None:
                self._loads = loads
            current = None if self._current is None else self._records.get(self._current)
            if current is not None and self._current not in found:
                # The provider itself, where it is now.
                again = (key for key in found if key[0] == current.proxy.agent_id)
                self._current = next(again, None)
            self._records = found
            self._avoided = {key: until for key, until in self._avoided.items() if key in found}

    def keep(self) -> None:
        """Take what is known for found now."""
        self._updated_at = self._clock()

    def choose(self, tried: Iterable[Key] = (), *, fresh_only: bool = False) -> ServiceRecord | None:
        """Return the provider to ask, None if there is none that was not tried.

        :param fresh_only: leave out those that failed lately.
        """
        done = set(tried)
        with self._lock:
            if self._sticky and self._current is not None and self._current not in done:
                current = self._records.get(self._current)
                if current is not None and not current.expired:
                    return current
            now = self._clock()
            candidates = [
                (self._is_avoided(key, now), distance(record.proxy.host_url, self._own), key)
                for key, record in self._records.items()
                if key not in done and not record.expired
            ]
            if fresh_only:
                candidates = [candidate for candidate in candidates if not candidate[0]]
            if not candidates:
                return None
            best = min(candidates)[:2]
            return self._records[self._less_busy([key for *rank, key in candidates if tuple(rank) == best])]

    def _less_busy(self, keys: list[Key]) -> Key:
        if len(keys) == 1:
            return keys[0]
        one = keys.pop(self._pick(len(keys)))
        other = keys[self._pick(len(keys))]
        return min(one, other, key=lambda key: (self._in_flight[key], self._loads.get(key[1].rstrip("/"), 0)))

    def _is_avoided(self, key: Key, now: float) -> bool:
        return self._avoided.get(key, (now, 0.0))[0] > now

    @contextmanager
    def calling(self, record: ServiceRecord) -> Iterator[None]:
        """Count a call to a provider while it is made."""
        key = self.key(record)
        with self._lock:
            self._in_flight[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight[key] -= 1
                if self._in_flight[key] <= 0:
                    del self._in_flight[key]

    def succeeded(self, record: ServiceRecord) -> None:
        """Note that a provider answered."""
        key = self.key(record)
        if self._current == key and not self._avoided:
            return
        with self._lock:
            self._avoided.pop(key, None)
            if self._sticky:
                self._current = key

    def failed(self, record: ServiceRecord) -> None:
        """Ask a provider after all others for a while."""
        key = self.key(record)
        with self._lock:
            now = self._clock()
            until, seconds = self._avoided.get(key, (now, self._avoid_seconds / 2))
            if until <= now:
                seconds = min(seconds * 2, LONGEST_AVOIDANCE_SECONDS)
            self._avoided[key] = (now + seconds, seconds)
            if self._current == key:
                self._current = None

    def nobody(self) -> ServiceNotFoundError:
        """Return the error for a contract that nobody provides."""
        contract = self._contract
        return ServiceNotFoundError(f"no provider of contract {contract.name!r} version {contract.version} found")
