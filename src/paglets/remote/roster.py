"""What one host knows of the others: `protocol.membership` with a clock, a lock and the addresses to ask at."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final

from paglets.core.chance import CHANCE
from paglets.protocol.gossip import Tidings
from paglets.protocol.left_out import LeftOut
from paglets.protocol.membership import Admission, HostRef, Membership, normalize_host_url
from paglets.remote.mesh_host import MeshHost

LATE_ROUND_SECONDS: Final = 1.0
"""A round that is later than this finds a host that did not run: it was paused, or the machine slept."""

logger = logging.getLogger(__name__)


class Roster:
    """The hosts that one host knows, and where it may meet more.

    All methods are safe to call from any thread; no lock is held during calls to the host.

    :param clock: monotonic seconds.
    :param left_out: told of each host of another code version, once for each version, from any thread.
    """

    def __init__(
        self,
        host: MeshHost,
        *,
        code_version: str,
        gossip_interval: float,
        offline_after: float,
        clock: Callable[[], float],
        left_out: Callable[[HostRef], None],
    ) -> None:
        self.gossip_interval = max(0.05, gossip_interval)
        self.changed = threading.Condition()
        """Guards everything here; notified when something is known that was not."""
        self._host = host
        self._clock = clock
        self._membership = Membership(
            code_version=code_version,
            offline_after=max(0.1, offline_after),
            retry_interval=self.gossip_interval,
            chance=CHANCE.random,
        )
        self._left_out = LeftOut()
        self._tell_left_out = left_out
        self._listened_at: float | None = None
        self._seeds: set[str] = set()
        self._announced_seeds: set[str] = set()
        self._aliases: dict[str, str] = {}
        self._own_url = host.address.rstrip("/")
        self._former_urls: deque[str] = deque(maxlen=16)

    @property
    def code_version(self) -> str:
        """The code version that members of the mesh share."""
        return self._membership.code_version

    @code_version.setter
    def code_version(self, version: str) -> None:
        self._membership.code_version = version

    @property
    def offline_after(self) -> float:
        """Seconds without news after which a peer counts as offline."""
        return self._membership.offline_after

    @offline_after.setter
    def offline_after(self, seconds: float) -> None:
        self._membership.offline_after = max(0.1, seconds)

    # time

    def listen(self) -> bool:
        """Note that this host runs and hears what it is told; return whether it did not before."""
        with self.changed:
            first = self._listened_at is None
            self._age()
            self._listened_at = self._clock()
        return first

    def end_listening(self) -> None:
        """Note that what passes from now on is nobody's silence."""
        with self.changed:
            self._listened_at = None

    def _age(self) -> None:
        """See who is stale; what passed while this host itself did not run is nobody's silence."""
        now = self._clock()
        if self._listened_at is not None:
            late = now - self._listened_at - self.gossip_interval * 1.1
            if late > LATE_ROUND_SECONDS:
                self._membership.excuse(late)
                self._listened_at = now
        self._membership.age(now=now)

    # this host

    def refresh_self(self) -> HostRef:
        """Return what this host says about itself now."""
        active, inactive = self._host.agent_counts()
        own = HostRef(
            name=self._host.name,
            url=self._host.address.rstrip("/"),
            code_version=self.code_version,
            online=True,
            # To the millisecond, so that it is short wherever it is passed on.
            last_seen=round(time.time(), 3),
            active_count=active,
            inactive_count=inactive,
            tags=tuple(self._host.tags),
            properties=dict(self._host.host_properties),
        )
        with self.changed:
            if own.url != self._own_url:
                self._former_urls.append(self._own_url)
                self._own_url = own.url
                self._membership.remove(own.url)
        return own

    def moved(self, previous_url: str) -> HostRef:
        """Know that this host had another address until now, and return what it says about itself."""
        own = self.refresh_self()
        with self.changed:
            if previous_url != own.url:
                self._former_urls.append(previous_url)
                self._membership.remove(previous_url)
        return own

    # who is known

    def peers(self) -> list[HostRef]:
        """Return what is known of every other host now."""
        with self.changed:
            self._age()
            return self._membership.peers()

    def lookup(self, name_or_url: str) -> HostRef | None:
        """Return the host with exactly this name or URL, or None; of several with one name an online one."""
        own = self.refresh_self()
        url = url_or_none(name_or_url)
        if name_or_url == own.name or url == own.url:
            return own
        with self.changed:
            self._age()
            found = self._membership.find(name_or_url)
            return found if found is not None or url is None else self._membership.get(url)

    def left_out(self) -> list[HostRef]:
        """Return the hosts that are no members because they run other code, sorted by name and URL."""
        with self.changed:
            others = self._left_out.hosts(now=self._clock())
        return [ref for ref in others if ref.code_version != self.code_version]

    def take_changes(self) -> list[HostRef]:
        """Return who came or went since the last call."""
        with self.changed:
            return self._membership.take_changes()

    def failure(self, url: str) -> str | None:
        """Return why a host could not be reached, None where that is not known."""
        with self.changed:
            return self._membership.failure(url)

    # where to ask

    def peer_urls(self, *, include_known: bool = True) -> list[str]:
        """Return the URLs of the seeds and, when asked, of all known peers, sorted and without this host."""
        own = self.refresh_self()
        with self.changed:
            urls = set(self._seeds)
            if include_known:
                urls.update(ref.url for ref in self._membership.peers())
        return sorted(urls - {own.url})

    # being told

    def add_seed(self, url: str) -> None:
        """Remember a URL to be contacted in every round; the own URL is ignored.

        :raises ValueError: the URL is empty.
        """
        seed = normalize_host_url(url)
        if seed == self._host.address.rstrip("/"):
            return
        with self.changed:
            added = seed not in self._seeds
            self._seeds.add(seed)
        if added:
            logger.debug("mesh: %s is to be asked for others", seed)

    def has_seeds(self) -> bool:
        """Tell whether there is anybody to ask for others."""
        with self.changed:
            return bool(self._seeds)

    def announced(self, url: str) -> None:
        """Remember a URL that was heard of on the local network, until it is withdrawn."""
        self.add_seed(url)
        with self.changed:
            self._announced_seeds.add(url)

    def withdrawn(self, url: str) -> None:
        """Forget such a URL."""
        # What is known of the host stays; only its address is no place to ask for others any more.
        with self.changed:
            if url in self._announced_seeds:
                self._announced_seeds.discard(url)
                self._seeds.discard(url)
                self._aliases.pop(url, None)
            self._left_out.withdrawn(url)

    def targets(self) -> list[str]:
        """Return everywhere that somebody may be met: seeds and known peers."""
        own = self.refresh_self()
        with self.changed:
            self._age()
            known = {ref.url: ref.online for ref in self._membership.peers()}
            # A seed that is another address of an online peer, or of this host, needs no visit of its own.
            seeds = {seed for seed in self._seeds if not self._is_covered(seed, known, own.url)}
        return sorted((seeds | known.keys()) - {own.url})

    def _is_covered(self, seed: str, known: dict[str, bool], own_url: str) -> bool:
        alias = self._aliases.get(seed)
        return alias is not None and alias != seed and (alias == own_url or known.get(alias, False))

    def due(self, limit: int, busy: Collection[str] = ()) -> list[str]:
        """Return at most so many of these whose turn it is."""
        targets = self.targets()
        with self.changed:
            return self._membership.due(targets, now=self._clock(), limit=limit, busy=busy)

    # being told

    def register(
        self,
        ref: HostRef,
        *,
        own: HostRef,
        direct: bool,
        age: float = 0.0,
        health: dict[str, Any] | None = None,
        contacted: str | None = None,
    ) -> HostRef | None:
        relay_mode = self._host.relay_mode
        with self.changed:
            if ref.name == own.name and ref.url in self._former_urls:
                return own
            admission = self._membership.observe(
                ref, own_url=own.url, now=self._clock(), direct=direct, keep_other_version=relay_mode, age=age
            )
            known = self._membership.get(ref.url)
            other = admission is Admission.OTHER_VERSION
            # What is passed on of one that is gone is no news of it.
            news = other and ref.online and self._left_out.note(ref, now=self._clock())
            if not other:
                self._left_out.admitted(ref.url)
            self.changed.notify_all()
        if news:
            self._leave_out(ref)
        if admission is Admission.SELF:
            return own
        if not other:
            return known
        if not relay_mode:
            if health is None:
                self._request_update(ref.url, validate_health=True, report_unreachable=False)
            else:
                self._request_update(contacted or ref.url, health=health)
        return None

    def _request_update(self, url: str, **options: Any) -> None:
        request = getattr(self._host, "request_peer_git_update", None)
        if request is None:
            return
        try:
            request(url, **options)
        except Exception:
            logger.warning("asking %s to update failed", url, exc_info=True)

    def differs(self, ref: HostRef) -> None:
        """Note that a host of another code version announced itself on the local network."""
        with self.changed:
            news = self._left_out.note(ref, now=self._clock(), announced=True)
        if news:
            self._leave_out(ref)

    def _leave_out(self, ref: HostRef) -> None:
        logger.debug(
            "mesh: %s at %s is left out: code version %r, not %r",
            ref.name,
            ref.url,
            ref.code_version,
            self.code_version,
        )
        self._tell_left_out(ref)

    def mark_offline(self, url: str, error: str) -> None:
        """Note that a host could not be reached; its `last_seen` stays."""
        key = normalize_host_url(url)
        with self.changed:
            self._membership.fail(key, error, now=self._clock())
            alias = self._aliases.get(key)
            if alias is not None:
                self._membership.fail(alias, error, now=self._clock())
            self.changed.notify_all()

    def hear(self, tidings: Tidings) -> None:
        """Take in signs of life that somebody passes on."""
        with self.changed:
            self._hear(tidings)

    def _hear(self, tidings: Tidings) -> None:
        now = self._clock()
        for beat in tidings.beats:
            if beat.url != self._own_url:
                self._membership.hear_beat(beat, now=now)

    def doubt(self, url: str, error: str) -> None:
        """Note that a host was late or broke off, which once is no proof."""
        with self.changed:
            for known in {url, self._aliases.get(url, url)}:
                self._membership.doubt(known, error, now=self._clock())
            self.changed.notify_all()

    def met(self, url: str, ref: HostRef) -> tuple[HostRef | None, bool]:
        """Note who answers at a URL; return what was known of him, and whether his own address can be used."""
        with self.changed:
            now = self._clock()
            self._membership.reached(url, now=now)
            if url in self._seeds:
                self._aliases[url] = ref.url
            known = self._membership.get(ref.url)
            # Somebody who answers here but not at the address it gives cannot be used at that address.
            return known, ref.url == url or self._membership.failure(ref.url) is None

    def reached(self, url: str) -> None:
        """Note that a host answered at a URL."""
        with self.changed:
            self._membership.reached(url, now=self._clock())

    def is_known_online(self, url: str) -> bool:
        """Tell whether a host of exactly this URL is known and was online when last looked at."""
        with self.changed:
            known = self._membership.get(url)
            return known is not None and known.online

    # gossip

    def inquiry(self, own: HostRef) -> Tidings:
        """Return what to tell a host that is visited."""
        with self.changed:
            return self._membership.inquiry(own, now=self._clock())

    def answer(
        self, tidings: Tidings, own: HostRef, *, visitor: str, admitted: bool
    ) -> tuple[list[tuple[HostRef, float]], Tidings]:
        """Take in what a visitor tells; return the records it lacks, and what to tell it."""
        with self.changed:
            self._age()
            now = self._clock()
            if admitted:
                self._hear(tidings)
            lacking = self._membership.lacking(tidings.digest, own, visitor=visitor, now=now)
            return lacking, self._membership.reply(tidings, own, now=now)


def url_or_none(text: str) -> str | None:
    """Return a text as the URL of a host, None where it is none."""
    try:
        return normalize_host_url(text)
    except ValueError:
        return None
