"""Who belongs to the mesh and who of them is online: decisions only, no I/O, no clock, no threads.

Two clocks appear here and never meet. `now` is the monotonic clock of this host; it alone decides when a silent peer is
stale. A peer's `last_seen` is a stamp of that peer's own clock, which it renews whenever it describes itself; stamps of
one peer are compared with each other only, to tell news from an echo. So clocks of different hosts need not agree.

What a peer says about itself, or answers, is *direct*. What others say about it is *hearsay*: it makes unknown peers
known and refreshes the online ones when it carries a newer stamp, but it never overrules a failure that this host saw
itself; such a peer is contacted again instead. Hearsay is as old as whoever tells it says, so that a host that is gone
is not kept alive by passing it on, and everybody misses it at the same time.

A peer that refuses, or answers nonsense, has *failed* and is offline. One that is late is *doubted*: packets get lost,
and a host may be busy. It stays online while others hear of it, until it was late `DOUBTS` times in a row or silent for
too long. So others' news are what other designs ask for by probing through third parties.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from operator import attrgetter
from typing import Final

from paglets.protocol.gossip import MOST_BEATS, MOST_RECORDS, Beat, Digest, Mark, Tidings, differing, digest_of, mark_of
from paglets.protocol.host_ref import HostRef, normalize_host_url, normalize_tags

__all__ = [
    "DOUBTS",
    "FORGET_AFTER_SECONDS",
    "MAX_MEMBERS",
    "MAX_RETRY_SECONDS",
    "STALE_ERROR",
    "Admission",
    "HostRef",
    "Membership",
    "normalize_host_url",
    "normalize_tags",
]

STALE_ERROR: Final = "stale mesh peer"
MAX_MEMBERS: Final = 4096
MAX_CHANGES: Final = 1024
FORGET_AFTER_SECONDS: Final = 3600.0
MAX_RETRY_SECONDS: Final = 30.0
DOUBTS: Final = 5
"""How often in a row a peer may be late before this host takes it for offline, whatever others say.

Where one exchange in twenty is late, a mesh of 200 hosts, which make 800 a second, would wrongly miss a host every ten
seconds if three in a row were enough; with five it is once an hour. Whom nobody hears is stale before that."""
_MAX_DOUBLINGS: Final = 16


class Admission(Enum):
    """What became of a claim about a host."""

    ACCEPTED = auto()
    """It is known now, or was refreshed."""
    UNCHANGED = auto()
    """The claim is older than what is known, or no evidence; what is known stays."""
    SELF = auto()
    """It is about this host, which knows better."""
    OTHER_VERSION = auto()
    """It runs other code and is no member."""
    FULL = auto()
    """The table is full of online hosts."""


@dataclass(slots=True)
class _Member:
    ref: HostRef
    heard_at: float
    mark: Mark


@dataclass(slots=True)
class _Contact:
    """What came of talking to one URL, which may be a seed whose host is not known yet."""

    at: float
    retry_at: float
    failures: int = 0
    error: str | None = None
    told: bool = False
    """Others heard of it since."""
    hastened: int = 0
    """How often it failed again although others had heard of it."""


class Membership:
    """The table of peers of one host, without that host itself.

    Not safe for concurrent use. Every `now` is a time of one monotonic clock, in seconds.
    """

    def __init__(
        self,
        *,
        code_version: str,
        offline_after: float,
        retry_interval: float = 1.0,
        chance: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Start empty.

        :param offline_after: seconds without news after which a peer counts as offline.
        :param retry_interval: seconds before a failed peer is due again; doubles with every failure up to
            `MAX_RETRY_SECONDS`.
        :param chance: gives numbers from 0 to below 1, by which hosts choose differently among equals.
        """
        self.code_version = code_version
        self.offline_after = offline_after
        self.retry_interval = retry_interval
        self._chance = chance
        self._members: dict[str, _Member] = {}
        self._contacts: dict[str, _Contact] = {}
        self._changes: deque[HostRef] = deque(maxlen=MAX_CHANGES)

    # asking

    def peers(self) -> list[HostRef]:
        """Return all peers as of the last `age`, in no particular order."""
        return [member.ref for member in self._members.values()]

    def get(self, url: str) -> HostRef | None:
        """Return the peer with this URL, or None."""
        member = self._members.get(url)
        return None if member is None else member.ref

    def find(self, name: str) -> HostRef | None:
        """Return the peer with this name, or None; of several the online one heard of last."""
        candidates = [member for member in self._members.values() if member.ref.name == name]
        if not candidates:
            return None
        return max(candidates, key=lambda member: (member.ref.online, member.heard_at)).ref

    def take_changes(self) -> list[HostRef]:
        """Return the peers that came online or went offline since the last call, in order; the latest `MAX_CHANGES`."""
        changes = list(self._changes)
        self._changes.clear()
        return changes

    def failure(self, url: str) -> str | None:
        """Return why the last contact with this URL failed, or None when it did not."""
        contact = self._contacts.get(url)
        return None if contact is None else contact.error

    def due(self, urls: Iterable[str], *, now: float, limit: int, busy: Collection[str] = ()) -> list[str]:
        """Return those of the given URLs to contact in this round.

        First those in question: doubted, long silent, or failed here and heard of by others. Then the others, the one
        contacted longest ago first. At least one place is for those that are offline, and at most a quarter where
        others want theirs, so that a partition heals and the dead do not crowd out the living. Nothing is kept of URLs
        that are not given.

        :param busy: those that are being contacted.
        """
        wanted = set(urls)
        for url in self._contacts.keys() - wanted:
            del self._contacts[url]
        urgent: list[tuple[float, float, str]] = []
        usual: list[tuple[float, float, str]] = []
        offline: list[tuple[float, float, str]] = []
        for url in wanted.difference(busy):
            contact, member = self._contacts.get(url), self._members.get(url)
            if contact is not None and contact.retry_at > now:
                continue
            row = (float("-inf") if contact is None else contact.at, self._chance(), url)
            if contact is not None and contact.told:
                urgent.append(row)
            elif member is None:
                (usual if contact is None or not contact.failures else offline).append(row)
            elif not member.ref.online:
                offline.append(row)
            elif (contact is not None and contact.failures) or now - member.heard_at > self.offline_after / 2:
                urgent.append(row)
            else:
                usual.append(row)
        living = sorted(urgent) + sorted(usual)
        reserved = min(len(offline), max(1, limit // 4)) if limit > 1 else 0
        return [url for _, _, url in (living[: limit - reserved] + sorted(offline))[:limit]]

    # what others are told

    def digest(self, own: HostRef) -> Digest:
        """Return the sum of what this host and its online peers are."""
        marks = [member.mark for member in self._members.values() if member.ref.online]
        return digest_of((*marks, mark_of(own)))

    def inquiry(self, own: HostRef, *, now: float, limit: int = MOST_BEATS) -> Tidings:
        """Return what a visit begins with: the freshest news, and the oldest ones, to hear of newer."""
        online = self._online()
        if len(online) > limit:
            online = online[: limit // 4] + online[limit // 4 - limit :]
        return Tidings(tuple(_beat(member, now) for member in online), self.digest(own))

    def reply(self, heard: Tidings, own: HostRef, *, now: float, limit: int = MOST_BEATS) -> Tidings:
        """Return the answer to an inquiry: newer news of whom it names, then the freshest of others."""
        named = {beat.url for beat in heard.beats}
        newer = [
            member
            for url, last_seen, *_ in heard.beats
            if (member := self._members.get(url)) and member.ref.online and member.ref.last_seen > last_seen
        ]
        online = self._online() if len(self._members) > len(named) else []
        others = [member for member in online[: 2 * limit] if member.ref.url not in named][: limit // 4]
        return Tidings(tuple(_beat(member, now) for member in (newer + others)[:limit]), self.digest(own))

    def _online(self) -> list[_Member]:
        """Return the online members, those heard of last first."""
        online = [member for member in self._members.values() if member.ref.online]
        online.sort(key=attrgetter("heard_at"), reverse=True)
        return online

    def lacking(
        self, theirs: Digest, own: HostRef, *, visitor: str = "", now: float, limit: int = MOST_RECORDS
    ) -> list[tuple[HostRef, float]]:
        """Return online peers that the host with another digest may not know, each with the seconds since its news.

        :param visitor: that host, which knows itself.
        """
        buckets = differing(self.digest(own), theirs)
        found = [
            member
            for member in self._members.values()
            if member.ref.online and member.mark.bucket in buckets and member.ref.url != visitor
        ]
        return [(member.ref, now - member.heard_at) for member in self._sample(found, limit)]

    # being told

    def observe(
        self, ref: HostRef, *, own_url: str, now: float, direct: bool, keep_other_version: bool, age: float = 0.0
    ) -> Admission:
        """Take in a claim about a host.

        :param direct: the host itself made the claim or answered.
        :param keep_other_version: keep a host of another code version as offline, for people to see.
        :param age: seconds since whoever tells this heard of it; 0 where it was the host itself.
        """
        if ref.url == own_url:
            return Admission.SELF
        known = self._members.get(ref.url)
        if ref.code_version != self.code_version:
            self._refuse_version(ref, known, now=now, keep=keep_other_version)
            return Admission.OTHER_VERSION
        if known is None:
            return self._admit(ref, now=now, direct=direct, age=age)
        if direct:
            return self._hear(known, ref, now=now)
        return self._overhear(known, ref, now=now, age=age)

    def hear_beat(self, beat: Beat, *, now: float) -> None:
        """Take in that a host was alive; nothing becomes of one that is not known."""
        known = self._members.get(beat.url)
        if known is None or beat.last_seen <= known.ref.last_seen or known.ref.code_version != self.code_version:
            return
        ref = known.ref
        # Not by `replace`, which takes longer than everything else here: this is what gossip consists of.
        news = HostRef(
            ref.name,
            ref.url,
            ref.code_version,
            True,
            beat.last_seen,
            beat.active_count,
            beat.inactive_count,
            ref.tags,
            ref.properties,
            None if ref.online else ref.error,
        )
        self._overhear(known, news, now=now, age=beat.age)

    def reached(self, url: str, *, now: float) -> None:
        """Note that this host talked to whatever answers at the URL; others come first in the next round."""
        self._contacts[url] = _Contact(at=now, retry_at=now)

    def fail(self, url: str, error: str, *, now: float) -> bool:
        """Mark a peer offline because this host could not reach it; return whether it is known.

        Its `last_seen` stays, and so does its place in the table until nobody has heard of it for
        `FORGET_AFTER_SECONDS`.
        """
        self._note_failure(url, error, now=now, patient=True)
        member = self._members.get(url)
        if member is None:
            return False
        self._put(member, replace(member.ref, online=False, error=error))
        return True

    def doubt(self, url: str, error: str, *, now: float) -> bool:
        """Note that a peer did not answer in time, or lost the connection; return whether it is offline now.

        An online one is asked again soon, and has failed when that happened `DOUBTS` times in a row.
        """
        member = self._members.get(url)
        online = member is not None and member.ref.online
        failures = self._note_failure(url, error, now=now, patient=not online)
        if member is None:
            return True
        if online and failures >= DOUBTS:
            self._put(member, replace(member.ref, online=False, error=error))
        return not member.ref.online

    def remove(self, url: str) -> None:
        """Forget a peer."""
        self._members.pop(url, None)

    def excuse(self, seconds: float) -> None:
        """Note that this host itself was not listening for some seconds: they are nobody's silence."""
        for member in self._members.values():
            member.heard_at += seconds

    def age(self, *, now: float) -> None:
        """Mark online peers without news for `offline_after` seconds as stale and forget those silent for very long."""
        for url, member in list(self._members.items()):
            silence = now - member.heard_at
            if silence > max(FORGET_AFTER_SECONDS, self.offline_after) and not member.ref.online:
                del self._members[url]
            elif silence >= self.offline_after and member.ref.online:
                self._put(member, replace(member.ref, online=False, error=STALE_ERROR))

    # deciding

    def _admit(self, ref: HostRef, *, now: float, direct: bool, age: float) -> Admission:
        if not direct and (not ref.online or age >= self.offline_after):
            return Admission.UNCHANGED  # else hosts that are gone would be passed round for ever
        if len(self._members) >= MAX_MEMBERS and not self._evict():
            return Admission.FULL
        self._members[ref.url] = _Member(_seen(ref), heard_at=now - age, mark=mark_of(ref))
        self._changes.append(ref)
        return Admission.ACCEPTED

    def _hear(self, known: _Member, ref: HostRef, *, now: float) -> Admission:
        if not ref.online and ref.last_seen < known.ref.last_seen:
            return Admission.UNCHANGED
        self._put(known, _seen(ref))
        if ref.online:
            known.heard_at = now
            contact = self._contacts.get(ref.url)
            if contact is not None:
                contact.failures, contact.error, contact.retry_at, contact.told = 0, None, now, False
        return Admission.ACCEPTED

    def _overhear(self, known: _Member, ref: HostRef, *, now: float, age: float) -> Admission:
        if not ref.online or ref.last_seen <= known.ref.last_seen or age >= self.offline_after:
            return Admission.UNCHANGED
        if not known.ref.online:
            if known.ref.error != STALE_ERROR:
                # Somebody reached it after us, perhaps because it is back: look for ourselves in the next round.
                self._look_soon(ref.url, now=now)
                return Admission.UNCHANGED
            contact = self._contacts.get(ref.url)
            if contact is not None:
                contact.failures, contact.retry_at = 0, min(contact.retry_at, now)
        self._put(known, _seen(ref))
        known.heard_at = max(known.heard_at, now - age)
        return Admission.ACCEPTED

    def _look_soon(self, url: str, *, now: float) -> None:
        contact = self._contacts.get(url)
        if contact is not None and not contact.told:
            # Later each time: a peer that others reach and this host does not is not asked in every round.
            pause = self._pause(contact.hastened)
            contact.retry_at, contact.told = min(contact.retry_at, max(now, contact.at + pause)), True

    def _note_failure(self, url: str, error: str, *, now: float, patient: bool) -> int:
        earlier = self._contacts.get(url)
        failures = 0 if earlier is None else earlier.failures
        hastened = 0 if earlier is None else earlier.hastened + earlier.told
        retry_at = now + (self._pause(failures) if patient else 0.0)
        self._contacts[url] = _Contact(now, retry_at, failures + 1, error, hastened=hastened)
        return failures + 1

    def _pause(self, failures: int) -> float:
        return min(self.retry_interval * 2.0 ** min(failures, _MAX_DOUBLINGS), MAX_RETRY_SECONDS)

    def _refuse_version(self, ref: HostRef, known: _Member | None, *, now: float, keep: bool) -> None:
        error = f"code version {ref.code_version!r} != {self.code_version!r}"
        if keep:
            if known is None and len(self._members) >= MAX_MEMBERS and not self._evict():
                return
            offline = replace(ref, online=False, error=error)
            self._members[ref.url] = _Member(offline, heard_at=now, mark=mark_of(offline))
        elif known is not None:
            self._put(known, replace(known.ref, online=False, error=error))

    def _put(self, member: _Member, ref: HostRef) -> None:
        known, member.ref = member.ref, ref
        if known.online != ref.online:
            self._changes.append(ref)
        if (known.name, known.code_version, known.tags, known.properties) != (
            ref.name,
            ref.code_version,
            ref.tags,
            ref.properties,
        ):
            member.mark = mark_of(ref)

    def _evict(self) -> bool:
        offline = [(member.heard_at, url) for url, member in self._members.items() if not member.ref.online]
        if not offline:
            return False
        del self._members[min(offline)[1]]
        return True

    def _sample(self, members: list[_Member], count: int) -> list[_Member]:
        """Return that many of some members, all equally likely."""
        if len(members) <= count:
            return members
        pool = list(members)
        for place in range(count):
            other = place + int(self._chance() * (len(pool) - place))
            pool[place], pool[other] = pool[other], pool[place]
        return pool[:count]


def _seen(ref: HostRef) -> HostRef:
    return replace(ref, error=None) if ref.online and ref.error is not None else ref


def _beat(member: _Member, now: float) -> Beat:
    ref = member.ref
    return Beat(ref.url, ref.last_seen, round(now - member.heard_at, 2), ref.active_count, ref.inactive_count)
