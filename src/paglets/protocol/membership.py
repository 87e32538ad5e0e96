"""Who belongs to the mesh and who of them is online: decisions only, no I/O, no clock, no threads.

Two clocks appear here and never meet. `now` is the monotonic clock of this host; it alone decides when a silent peer is
stale. A peer's `last_seen` is a stamp of that peer's own clock, which it renews whenever it describes itself; stamps of
one peer are compared with each other only, to tell news from an echo. So clocks of different hosts need not agree.

What a peer says about itself, or answers, is *direct*. What others say about it is *hearsay*: it makes unknown peers
known and refreshes the online ones when it carries a newer stamp, but it never overrules a failure that this host saw
itself; such a peer is contacted again instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, Final

from paglets.core.errors import SerializationError
from paglets.core.wire_fields import WireFields

STALE_ERROR: Final = "stale mesh peer"
MAX_MEMBERS: Final = 4096
FORGET_AFTER_SECONDS: Final = 3600.0
MAX_RETRY_SECONDS: Final = 30.0
_MAX_DOUBLINGS: Final = 16


def normalize_host_url(url: str) -> str:
    """Return a host URL without surrounding blanks and trailing slashes, with `http://` when it names no scheme.

    :raises ValueError: nothing is left.
    """
    text = url.strip().rstrip("/")
    if not text or text.endswith(":"):
        raise ValueError(f"Not a host URL: {url!r}")
    return text if "://" in text else f"http://{text}"


@dataclass(frozen=True, slots=True)
class HostRef:
    """What is known of one host.

    `last_seen` is Unix seconds by that host's own clock; `error` says why an offline host is offline.
    """

    name: str
    url: str
    code_version: str
    online: bool
    last_seen: float
    active_count: int
    inactive_count: int
    tags: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the fields as plain values; `error` only when set."""
        wire: dict[str, Any] = {
            "name": self.name,
            "url": self.url.rstrip("/"),
            "code_version": self.code_version,
            "online": self.online,
            "last_seen": self.last_seen,
            "active_count": self.active_count,
            "inactive_count": self.inactive_count,
            "tags": list(self.tags),
            "properties": dict(self.properties),
        }
        if self.error is not None:
            wire["error"] = self.error
        return wire

    @classmethod
    def from_wire(cls, payload: dict[str, Any]) -> HostRef:
        """Restore a reference, also from the health of a host, which has `address` in place of `url`.

        :raises SerializationError: `name`, `code_version` or the URL is missing, or a field has the wrong type.
        """
        fields = WireFields(payload, "host")
        return cls(
            name=fields.text("name"),
            url=_host_url(fields.text("address" if fields.get("url") is None else "url")),
            code_version=fields.text("code_version"),
            online=fields.flag_or("online", True),
            last_seen=fields.number_or("last_seen", 0.0),
            active_count=fields.integer_or("active_count", 0),
            inactive_count=fields.integer_or("inactive_count", 0),
            tags=normalize_tags(fields.texts_or_empty("tags")),
            properties={key: str(value) for key, value in fields.mapping_or_empty("properties").items()},
            error=fields.text_or_none("error") or None,
        )


def normalize_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags stripped, case-folded, without blanks and repetitions, sorted."""
    return tuple(sorted({tag.strip().casefold() for tag in tags} - {""}))


def _host_url(text: str) -> str:
    try:
        url = normalize_host_url(text)
    except ValueError as error:
        raise SerializationError(f"host field 'url': {error}") from error
    # The URL came from a peer and will be requested: nothing but HTTP may be asked for.
    if not url.lower().startswith(("http://", "https://")):
        raise SerializationError(f"host field 'url' must be an HTTP URL, not {text!r}")
    return url


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


@dataclass(slots=True)
class _Contact:
    """What came of talking to one URL, which may be a seed whose host is not known yet."""

    at: float
    retry_at: float
    failures: int = 0
    error: str | None = None


class Membership:
    """The table of peers of one host, without that host itself.

    Not safe for concurrent use. Every `now` is a time of one monotonic clock, in seconds.
    """

    def __init__(self, *, code_version: str, offline_after: float, retry_interval: float = 1.0) -> None:
        """Start empty.

        :param offline_after: seconds without news after which a peer counts as offline.
        :param retry_interval: seconds before a failed peer is due again; doubles with every failure up to
            `MAX_RETRY_SECONDS`.
        """
        self.code_version = code_version
        self.offline_after = offline_after
        self.retry_interval = retry_interval
        self._members: dict[str, _Member] = {}
        self._contacts: dict[str, _Contact] = {}

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

    def failure(self, url: str) -> str | None:
        """Return why the last contact with this URL failed, or None when it did not."""
        contact = self._contacts.get(url)
        return None if contact is None else contact.error

    def due(self, urls: Iterable[str], *, now: float, limit: int) -> list[str]:
        """Return those of the given URLs to contact in this round, the one contacted longest ago first.

        A failed one waits for its back-off, unless others told news of it. Nothing is kept of URLs that are not given.
        """
        wanted = set(urls)
        for url in self._contacts.keys() - wanted:
            del self._contacts[url]

        def order(url: str) -> tuple[float, str]:
            contact = self._contacts.get(url)
            return (float("-inf") if contact is None else contact.at, url)

        ready = [url for url in wanted if url not in self._contacts or self._contacts[url].retry_at <= now]
        return sorted(ready, key=order)[:limit]

    # being told

    def observe(self, ref: HostRef, *, own_url: str, now: float, direct: bool, keep_other_version: bool) -> Admission:
        """Take in a claim about a host.

        :param direct: the host itself made the claim or answered.
        :param keep_other_version: keep a host of another code version as offline, for people to see.
        """
        if ref.url == own_url:
            return Admission.SELF
        known = self._members.get(ref.url)
        if ref.code_version != self.code_version:
            self._refuse_version(ref, known, now=now, keep=keep_other_version)
            return Admission.OTHER_VERSION
        if known is None:
            return self._admit(ref, now=now, direct=direct)
        if direct:
            return self._hear(known, ref, now=now)
        return self._overhear(known, ref, now=now)

    def reached(self, url: str, *, now: float) -> None:
        """Note that this host talked to whatever answers at the URL; others come first in the next round."""
        self._contacts[url] = _Contact(at=now, retry_at=now)

    def fail(self, url: str, error: str, *, now: float) -> bool:
        """Mark a peer offline because this host could not reach it; return whether it is known.

        Its `last_seen` stays, and so does its place in the table until nobody has heard of it for
        `FORGET_AFTER_SECONDS`.
        """
        earlier = self._contacts.get(url)
        failures = 0 if earlier is None else earlier.failures
        pause = self.retry_interval * 2.0 ** min(failures, _MAX_DOUBLINGS)
        self._contacts[url] = _Contact(
            at=now, retry_at=now + min(pause, MAX_RETRY_SECONDS), failures=failures + 1, error=error
        )
        member = self._members.get(url)
        if member is None:
            return False
        member.ref = replace(member.ref, online=False, error=error)
        return True

    def remove(self, url: str) -> None:
        """Forget a peer."""
        self._members.pop(url, None)

    def age(self, *, now: float) -> None:
        """Mark online peers without news for `offline_after` seconds as stale and forget those silent for very long."""
        for url, member in list(self._members.items()):
            silence = now - member.heard_at
            if silence > max(FORGET_AFTER_SECONDS, self.offline_after) and not member.ref.online:
                del self._members[url]
            elif silence >= self.offline_after and member.ref.online:
                member.ref = replace(member.ref, online=False, error=STALE_ERROR)

    # deciding

    def _admit(self, ref: HostRef, *, now: float, direct: bool) -> Admission:
        if not ref.online and not direct:
            return Admission.UNCHANGED  # else hosts that are gone would be passed round for ever
        if len(self._members) >= MAX_MEMBERS and not self._evict():
            return Admission.FULL
        self._members[ref.url] = _Member(_seen(ref), heard_at=now)
        return Admission.ACCEPTED

    def _hear(self, known: _Member, ref: HostRef, *, now: float) -> Admission:
        if not ref.online and ref.last_seen < known.ref.last_seen:
            return Admission.UNCHANGED
        known.ref = _seen(ref)
        if ref.online:
            known.heard_at = now
            contact = self._contacts.get(ref.url)
            if contact is not None:
                contact.failures, contact.error, contact.retry_at = 0, None, now
        return Admission.ACCEPTED

    def _overhear(self, known: _Member, ref: HostRef, *, now: float) -> Admission:
        if not ref.online or ref.last_seen <= known.ref.last_seen:
            return Admission.UNCHANGED
        if not known.ref.online and known.ref.error != STALE_ERROR:
            # Somebody reached it after us, perhaps because it is back: look for ourselves in the next round.
            self._look_soon(ref.url, now=now)
            return Admission.UNCHANGED
        known.ref = _seen(ref)
        known.heard_at = now
        return Admission.ACCEPTED

    def _look_soon(self, url: str, *, now: float) -> None:
        contact = self._contacts.get(url)
        if contact is not None:
            contact.retry_at = min(contact.retry_at, now)

    def _refuse_version(self, ref: HostRef, known: _Member | None, *, now: float, keep: bool) -> None:
        error = f"code version {ref.code_version!r} != {self.code_version!r}"
        if keep:
            if known is None and len(self._members) >= MAX_MEMBERS and not self._evict():
                return
            offline = replace(ref, online=False, error=error)
            self._members[ref.url] = _Member(offline, heard_at=now)
        elif known is not None:
            known.ref = replace(known.ref, online=False, error=error)

    def _evict(self) -> bool:
        offline = [(member.heard_at, url) for url, member in self._members.items() if not member.ref.online]
        if not offline:
            return False
        del self._members[min(offline)[1]]
        return True


def _seen(ref: HostRef) -> HostRef:
    return replace(ref, error=None) if ref.online else ref
