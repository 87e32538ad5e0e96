"""What two hosts tell each other when they meet, so that little is said twice.

Two kinds of news travel apart. *Beats* say that a host was alive lately: a short row for each host, never more than
`MOST_BEATS`. A visitor brings its freshest, and its oldest to hear of newer ones, so that nobody is missed because
chance passed him over. *Records* say what a host is (name, tags, properties) and travel only where the two differ: each
side sums up what it knows in a *digest* of `BUCKETS` numbers, and the records of the buckets that differ are handed
over, never more than `MOST_RECORDS` at a time. So an exchange has a largest size, however many hosts there are; record
0017 has the figures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, NamedTuple

from paglets.core.errors import SerializationError
from paglets.core.wire_fields import WireFields
from paglets.protocol.host_ref import HostRef

BUCKETS: Final = 32
MOST_BEATS: Final = 32
MOST_RECORDS: Final = 64
_DIGITS: Final = 8
_NUMBERS: Final = (int, float)


class Beat(NamedTuple):
    """A host was alive."""

    url: str
    last_seen: float
    """The stamp of that host's own clock."""
    age: float
    """Seconds since whoever tells this heard of it."""
    active_count: int
    inactive_count: int


class Mark(NamedTuple):
    """What a record adds to a digest."""

    bucket: int
    number: int


Digest = tuple[int, ...]
"""`BUCKETS` numbers of 32 bits; empty where nothing is to be compared."""


def mark_of(ref: HostRef) -> Mark:
    """Return what the record of a host adds to a digest: the same as long as the host is the same."""
    facts = (f"{key}={ref.properties[key]}" for key in sorted(ref.properties))
    said = "\x1f".join((ref.url, ref.name, ref.code_version, *ref.tags, *facts))
    found = hashlib.blake2b(said.encode(errors="surrogatepass"), digest_size=4).digest()
    # By the address alone, so that both sides look for a host in the same bucket when they differ about it.
    place = hashlib.blake2b(ref.url.encode(errors="surrogatepass"), digest_size=1).digest()[0] % BUCKETS
    return Mark(place, int.from_bytes(found))


def digest_of(marks: Iterable[Mark]) -> Digest:
    """Sum up marks; their order does not matter."""
    numbers = [0] * BUCKETS
    for bucket, number in marks:
        numbers[bucket] ^= number
    return tuple(numbers)


def differing(ours: Digest, theirs: Digest) -> frozenset[int]:
    """Return the buckets in which two digests differ, all of them where one is missing."""
    if not theirs or not ours:
        return frozenset(range(BUCKETS))
    return frozenset(number for number in range(BUCKETS) if ours[number] != theirs[number])


@dataclass(frozen=True, slots=True)
class Tidings:
    """What one side says of the hosts it knows, besides records."""

    beats: tuple[Beat, ...] = ()
    digest: Digest = ()

    def to_wire(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "beats": [list(beat) for beat in self.beats],
            "digest": "".join(f"{number:0{_DIGITS}x}" for number in self.digest),
        }

    @classmethod
    def from_wire(cls, payload: object) -> Tidings:
        """Restore what somebody sent.

        :raises SerializationError: it is malformed, or more than anybody may send.
        """
        fields = WireFields(payload, "gossip")
        rows = fields.items_or_empty("beats")
        if len(rows) > MOST_BEATS:
            raise SerializationError(f"gossip holds {len(rows)} beats, more than {MOST_BEATS}")
        return cls(tuple(_beat(row) for row in rows), _digest(fields.text_or("digest", "")))


def _beat(row: object) -> Beat:
    if not isinstance(row, list) or len(row) != len(Beat._fields):
        raise SerializationError("a gossip beat must be a list of address, stamp, age and two counts")
    url, last_seen, age, active, inactive = row
    if type(url) is not str or type(active) is not int or type(inactive) is not int:
        raise SerializationError("a gossip beat has a text, two numbers and two whole numbers")
    if type(last_seen) not in _NUMBERS or type(age) not in _NUMBERS or not isfinite(last_seen) or not isfinite(age):
        raise SerializationError("stamp and age in a gossip beat must be finite numbers")
    return Beat(url, last_seen, max(0.0, age), active, inactive)


def _digest(text: str) -> Digest:
    if not text:
        return ()
    try:
        if len(text) != BUCKETS * _DIGITS:
            raise ValueError(text)
        return tuple(int(text[at : at + _DIGITS], 16) for at in range(0, len(text), _DIGITS))
    except ValueError:
        raise SerializationError(f"a gossip digest has {BUCKETS * _DIGITS} hexadecimal digits") from None
