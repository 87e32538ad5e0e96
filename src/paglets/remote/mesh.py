"""The mesh as one host sees it: `protocol.membership` with a clock, a client and a thread."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from paglets.core.errors import ConnectionLostError, HostError, RemoteTimeoutError
from paglets.protocol.gossip import Tidings
from paglets.protocol.membership import Admission, HostRef, Membership, normalize_host_url, normalize_tags
from paglets.remote import meetings
from paglets.remote.announcement import Announcement
from paglets.remote.beacon import MESH_BEACON_KIND, decode_mesh_beacon, encode_mesh_beacon
from paglets.remote.code_version import resolve_code_version
from paglets.remote.discovery import LanDiscovery, announced_hosts, discovery_allowed
from paglets.remote.gossip import Crew, GossipLoop, for_each_at_once
from paglets.remote.mesh_host import MeshHost

__all__ = [
    "MESH_BEACON_KIND",
    "MESH_LAN_DISCOVERY_INTERVAL_SECONDS",
    "MESH_LAN_DISCOVERY_TIMEOUT_SECONDS",
    "MESH_LAN_DISCOVERY_WORKERS",
    "MESH_MULTICAST_GROUP",
    "MESH_MULTICAST_PORT",
    "HostRef",
    "MeshRegistry",
    "decode_mesh_beacon",
    "encode_mesh_beacon",
    "normalize_host_url",
    "resolve_code_version",
]

MESH_MULTICAST_GROUP: Final = "239.42.74.53"
MESH_MULTICAST_PORT: Final = 48765
MESH_LAN_DISCOVERY_INTERVAL_SECONDS: Final = 10.0
MESH_LAN_DISCOVERY_TIMEOUT_SECONDS: Final = 0.25
MESH_LAN_DISCOVERY_WORKERS: Final = 64

REQUEST_TIMEOUT_SECONDS: Final = 3.0
"""How long one request to a peer may take."""
PEERS_PER_ROUND: Final = 4
"""How many peers one background round contacts; news reach the others through these within a few rounds."""
CONTACT_THREADS: Final = 8
"""How many peers are contacted at once, so that slow ones do not delay the others."""
LATE_ROUND_SECONDS: Final = 1.0
"""A round that is later than this finds a host that did not run: it was paused, or the machine slept."""
LISTEN_SECONDS: Final = 1.5
"""How long `discover_lan_once` listens."""
FIRST_ROUND_SECONDS: Final = 1.0
"""How long the start of a host with given peers waits for them at most."""

logger = logging.getLogger(__name__)


class MeshRegistry:
    """The hosts this host knows, itself included.

    All methods are safe to call from any thread; no lock is held during network calls or calls to the host.
    """

    def __init__(
        self,
        host_runtime: MeshHost,
        *,
        enabled: bool = True,
        peers: Sequence[str] | None = None,
        code_version: str | None = None,
        multicast: bool = True,
        lan_discovery: bool = True,
        lan_discovery_interval: float = MESH_LAN_DISCOVERY_INTERVAL_SECONDS,
        gossip_interval: float = 1.0,
        offline_after: float = 10.0,
        discovery_key: Callable[[], str | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know the given peers as seeds; nothing is sent before `start`, `join` or `gossip_once`.

        :param multicast: announce this host on the local network.
        :param lan_discovery: take hosts as seeds that announce themselves there; needs `multicast`.
        :param lan_discovery_interval: kept for programs that give it; hosts announce themselves, nobody looks around.
        :param discovery_key: gives what announcements are signed with; None where this host shows others no key.
        :param code_version: replaces the detected one; hosts of other versions are not admitted.
        :param gossip_interval: seconds between two background rounds, at least 0.05.
        :param offline_after: seconds without news after which a peer counts as offline, at least 0.1.
        :param clock: monotonic seconds.
        :raises ValueError: a peer is an empty URL.
        """
        self.enabled = enabled
        self.multicast = multicast
        self.lan_discovery = lan_discovery
        self.lan_discovery_interval = max(1.0, lan_discovery_interval)
        self.gossip_interval = max(0.05, gossip_interval)
        version, self.version_warning = resolve_code_version(code_version)
        self._host = host_runtime
        self._thread_name = f"paglets-mesh-{host_runtime.name}"
        self._clock = clock
        self._membership = Membership(
            code_version=version,
            offline_after=max(0.1, offline_after),
            retry_interval=self.gossip_interval,
            chance=random.random,
        )
        self._crew = Crew(f"{self._thread_name}-contact", self._visit, threads=CONTACT_THREADS)
        self._listened_at: float | None = None
        self._changed = threading.Condition()
        self._seeds: set[str] = set()
        self._announced_seeds: set[str] = set()
        self._aliases: dict[str, str] = {}
        self._own_url = host_runtime.address.rstrip("/")
        self._former_urls: deque[str] = deque(maxlen=16)
        self._loop: GossipLoop | None = None
        self._discovery_key = discovery_key
        self._discovery: LanDiscovery | None = None
        for peer in peers or ():
            self.add_seed(peer)

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

    # background

    def start(self) -> None:
        """Begin to gossip in the background, when enabled; wait at most a second for the given peers."""
        with self._changed:
            if not self.enabled or self._loop is not None:
                return
            self._loop = loop = GossipLoop(self._thread_name, self._make_round, self._pause)
            has_seeds = bool(self._seeds)
            loop.start()
            if self.multicast and discovery_allowed():
                self._discovery = LanDiscovery(
                    self._announcement,
                    key=self._discovery_key(),
                    found=self._announced,
                    lost=self._withdrawn,
                    listen=self.lan_discovery,
                )
                self._discovery.start()
        if has_seeds:
            loop.wait_for_first_round(FIRST_ROUND_SECONDS)

    def stop(self) -> None:
        """End the background gossip; a request on its way is not waited for longer than two seconds."""
        with self._changed:
            loop, self._loop = self._loop, None
            self._listened_at = None
            discovery, self._discovery = self._discovery, None
        if discovery is not None:
            discovery.stop()
        if loop is not None:
            loop.stop()

    def _make_round(self, stopping: threading.Event) -> None:
        first = self._listened_at is None
        with self._changed:
            self._age()
            self._listened_at = self._clock()
        self._log_changes()
        self._crew.send(self._due(PEERS_PER_ROUND, busy=self._crew.busy()))
        if first:
            # The start waits for the peers that were named; later rounds wait for nobody.
            self._crew.wait(FIRST_ROUND_SECONDS)

    def _log_changes(self) -> None:
        with self._changed:
            changes = self._membership.take_changes()
        for ref in changes:
            if ref.online:
                logger.info("mesh: %s at %s is online", ref.name, ref.url)
            else:
                logger.info("mesh: %s at %s is offline: %s", ref.name, ref.url, ref.error or "it said so")

    def _pause(self) -> float:
        # Hosts that were started together do not stay in step.
        return self.gossip_interval * (0.9 + 0.2 * random.random())  # noqa: S311 - no secret

    def _age(self) -> None:
        """See who is stale; what passed while this host itself did not run is nobody's silence."""
        now = self._clock()
        if self._listened_at is not None:
            late = now - self._listened_at - self.gossip_interval * 1.1
            if late > LATE_ROUND_SECONDS:
                self._membership.excuse(late)
                self._listened_at = now
        self._membership.age(now=now)

    # asking

    def hosts(self, *, online_only: bool = False, include_self: bool = True) -> list[HostRef]:
        """Return the known hosts, sorted by name and URL."""
        own = self.refresh_self()
        with self._changed:
            self._age()
            refs = self._membership.peers()
        if include_self:
            refs.append(own)
        return sorted(
            (ref for ref in refs if ref.online or not online_only),
            key=lambda ref: (ref.name, ref.url),
        )

    def lookup(self, name_or_url: str) -> HostRef | None:
        """Return the host with exactly this name or URL, or None; of several with one name an online one."""
        own = self.refresh_self()
        url = _url_or_none(name_or_url)
        if name_or_url == own.name or url == own.url:
            return own
        with self._changed:
            self._age()
            found = self._membership.find(name_or_url)
            return found if found is not None or url is None else self._membership.get(url)

    def resolve_url(self, name_or_url: str) -> str:
        """Return the URL of a known host, or the input as a URL.

        :raises ValueError: the input is empty.
        """
        ref = self.lookup(name_or_url)
        return normalize_host_url(name_or_url) if ref is None else ref.url

    def is_online(self, name_or_url: str) -> bool:
        """Return whether the host is known and online."""
        ref = self.lookup(name_or_url)
        return ref is not None and ref.online

    def wait_for_host(self, name_or_url: str, *, timeout: float = 10.0, interval: float = 0.25) -> HostRef:
        """Gossip until the host is online and return it; `timeout` and the pauses of `interval` are in seconds.

        :raises HostError: it was not online in time; the text says what is known of it.
        """
        deadline = self._clock() + timeout
        while True:
            ref = self.lookup(name_or_url)
            if ref is not None and ref.online:
                return ref
            remaining = deadline - self._clock()
            if remaining <= 0:
                raise HostError(self._absence(name_or_url, ref, timeout))
            target = ref.url if ref is not None else _url_or_none(name_or_url) if "://" in name_or_url else None
            urls = self._due(PEERS_PER_ROUND)
            if target is not None and target not in urls:
                urls.append(target)
            self._contact_all(urls, timeout=min(REQUEST_TIMEOUT_SECONDS, max(remaining, 0.05)))
            if self.is_online(name_or_url):
                continue
            with self._changed:
                self._changed.wait(max(0.0, min(interval, deadline - self._clock())))

    def peer_urls(self, *, include_known: bool = True) -> list[str]:
        """Return the URLs of the seeds and, when asked, of all known peers, sorted and without this host."""
        own = self.refresh_self()
        with self._changed:
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
        with self._changed:
            self._seeds.add(seed)

    def register_wire(self, payload: dict[str, Any]) -> HostRef | None:
        """Take in what a host says about itself; see `register`.

        :raises SerializationError: the payload does not describe a host.
        """
        return self.register(HostRef.from_wire(payload))

    def register(self, ref: HostRef) -> HostRef | None:
        """Take in what a host says about itself and return what is known of it now.

        A host of another code version gives None: it is asked to update where this host can, and kept as offline in
        relay mode.

        :raises ValueError: the URL is empty.
        """
        checked = replace(ref, url=normalize_host_url(ref.url), tags=normalize_tags(ref.tags))
        return self._register(checked, own=self.refresh_self(), direct=True)

    def receive(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Take in what a visiting host says about itself and others, and return the answer to it.

        A visitor that brings no gossip is told of every known host.

        :raises SerializationError: the payload does not describe a host, or its gossip is malformed.
        """
        ref = HostRef.from_wire(payload)
        gossip = payload.get(meetings.GOSSIP)
        tidings = None if gossip is None else Tidings.from_wire(gossip)
        registered = self.register(ref)
        if tidings is None:
            return {"hosts": [known.to_wire() for known in self.hosts()]}
        own = self.refresh_self()
        with self._changed:
            self._age()
            now = self._clock()
            if registered is not None:
                self._hear(tidings)
            lacking = self._membership.lacking(tidings.digest, own, visitor=ref.url, now=now)
            reply = self._membership.reply(tidings, own, now=now)
        return meetings.answer(own, lacking, reply)

    def mark_offline(self, url: str, error: str) -> None:
        """Note that a host could not be reached; its `last_seen` stays."""
        key = normalize_host_url(url)
        with self._changed:
            self._membership.fail(key, error, now=self._clock())
            alias = self._aliases.get(key)
            if alias is not None:
                self._membership.fail(alias, error, now=self._clock())
            self._changed.notify_all()

    def _hear(self, tidings: Tidings) -> None:
        now = self._clock()
        for beat in tidings.beats:
            if beat.url != self._own_url:
                self._membership.hear_beat(beat, now=now)

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
        with self._changed:
            if own.url != self._own_url:
                self._former_urls.append(self._own_url)
                self._own_url = own.url
                self._membership.remove(own.url)
        return own

    def local_address_changed(self, previous_url: str) -> HostRef:
        """Replace the own record after this host moved to another address, and tell the peers in the background."""
        previous = normalize_host_url(previous_url)
        own = self.refresh_self()
        with self._changed:
            if previous != own.url:
                self._former_urls.append(previous)
                self._membership.remove(previous)
            loop, discovery = self._loop, self._discovery
        if loop is not None:
            loop.hurry()
        if discovery is not None:
            discovery.refresh()
        return own

    # talking

    def join(self, url: str) -> list[HostRef]:
        """Exchange acquaintances with the host at this URL and return all known hosts.

        A host that cannot be reached, or answers nonsense, is marked offline.

        :raises ValueError: the URL is empty.
        """
        self._contact(normalize_host_url(url), timeout=REQUEST_TIMEOUT_SECONDS)
        return self.hosts()

    def gossip_once(self) -> None:
        """Exchange acquaintances with every seed and every known peer."""
        self._contact_all(self._targets(), timeout=REQUEST_TIMEOUT_SECONDS)

    def discover_lan_once(self, *, force: bool = False) -> list[HostRef]:
        """Listen on the local network, contact who announces itself, and return the hosts that were not known before.

        :param force: do it although discovery is switched off here.
        """
        if not (force or (self.multicast and self.lan_discovery)):
            return []
        own = self._announcement()
        known = {ref.url for ref in self.hosts()}
        try:
            heard = announced_hosts(timeout=LISTEN_SECONDS, key=self._discovery_key())
        except OSError:
            logger.warning("hosts on the local network cannot be found", exc_info=True)
            return []
        for each in heard:
            if each.code_version == own.code_version and each.concerns(own.url) and each.url not in known:
                self.add_seed(each.url)
        self._contact_all(self._targets(), timeout=REQUEST_TIMEOUT_SECONDS)
        return [ref for ref in self.hosts(online_only=True, include_self=False) if ref.url not in known]

    # inside

    def _announcement(self) -> Announcement:
        return Announcement(self._host.name, self._host.address.rstrip("/"), self.code_version)

    def _announced(self, url: str) -> None:
        self.add_seed(url)
        with self._changed:
            self._announced_seeds.add(url)
            loop = self._loop
        if loop is not None:
            loop.hurry()

    def _withdrawn(self, url: str) -> None:
        # What is known of the host stays; only its address is no place to ask for others any more.
        with self._changed:
            if url in self._announced_seeds:
                self._announced_seeds.discard(url)
                self._seeds.discard(url)
                self._aliases.pop(url, None)

    def _targets(self) -> list[str]:
        own = self.refresh_self()
        with self._changed:
            self._age()
            known = {ref.url: ref.online for ref in self._membership.peers()}
            # A seed that is another address of an online peer, or of this host, needs no visit of its own.
            seeds = {seed for seed in self._seeds if not self._is_covered(seed, known, own.url)}
        return sorted((seeds | known.keys()) - {own.url})

    def _is_covered(self, seed: str, known: dict[str, bool], own_url: str) -> bool:
        alias = self._aliases.get(seed)
        return alias is not None and alias != seed and (alias == own_url or known.get(alias, False))

    def _due(self, limit: int, busy: Collection[str] = ()) -> list[str]:
        targets = self._targets()
        with self._changed:
            return self._membership.due(targets, now=self._clock(), limit=limit, busy=busy)

    def _contact_all(self, urls: Iterable[str], *, timeout: float) -> None:
        for_each_at_once(
            urls,
            lambda url: self._contact(url, timeout=timeout),
            threads=CONTACT_THREADS,
            name=f"{self._thread_name}-contact",
        )

    def _contact(self, url: str, *, timeout: float) -> None:
        try:
            self._exchange(url, timeout)
        except Exception as error:
            # Whatever a peer does to us, the mesh goes on without it.
            logger.debug("mesh contact with %s failed", url, exc_info=True)
            self.mark_offline(url, str(error) or type(error).__name__)

    def _visit(self, url: str) -> None:
        """Make a contact in the background, where being late once is no proof."""
        try:
            self._meet(url, REQUEST_TIMEOUT_SECONDS)
        except (RemoteTimeoutError, ConnectionLostError) as error:
            logger.debug("mesh contact with %s was late", url, exc_info=True)
            with self._changed:
                for known in {url, self._aliases.get(url, url)}:
                    self._membership.doubt(known, str(error), now=self._clock())
                self._changed.notify_all()
        except Exception as error:
            logger.debug("mesh contact with %s failed", url, exc_info=True)
            self.mark_offline(url, str(error) or type(error).__name__)

    def _meet(self, url: str, timeout: float) -> None:
        """Exchange acquaintances in one request with a peer that is known and online, else after a look at it."""
        with self._changed:
            known = self._membership.get(url)
        if known is None or not known.online or not self._tell(url, url, self.refresh_self(), True, timeout):
            self._exchange(url, timeout)

    def _exchange(self, url: str, timeout: float) -> None:
        health = self._host.client.get_json(f"{url}/health", timeout=timeout)
        ref = HostRef.from_wire(health)
        own = self.refresh_self()
        with self._changed:
            now = self._clock()
            self._membership.reached(url, now=now)
            if url in self._seeds:
                self._aliases[url] = ref.url
            known = self._membership.get(ref.url)
            # Somebody who answers here but not at the address it gives cannot be used at that address.
            direct = ref.url == url or self._membership.failure(ref.url) is None
        if ref.url == own.url:
            return
        if ref.code_version != self.code_version and not self._host.relay_mode:
            self._register(ref, own=own, direct=direct, health=health, contacted=url)
            return
        last_seen = ref.last_seen or (time.time() if known is None else known.last_seen)
        admitted = self._register(replace(ref, online=True, last_seen=last_seen), own=own, direct=direct)
        if admitted is not None:
            self._tell(url, ref.url, own, direct, timeout)

    def _tell(self, url: str, claimed: str, own: HostRef, direct: bool, timeout: float) -> bool:
        """Ask the host at a URL to join, and take in its answer; return whether it still is who it was.

        :param claimed: the address that it gives for itself.
        :param direct: whether it can be used at that address.
        """
        with self._changed:
            tidings = self._membership.inquiry(own, now=self._clock())
        reply = self._host.client.post_json(f"{url}/hosts/join", meetings.invitation(own, tidings), timeout=timeout)
        answer = meetings.read_answer(url, reply)
        with self._changed:
            self._membership.reached(url, now=self._clock())
        for told in answer.records:
            if direct and told.ref.url == claimed:
                self._register(told.ref, own=own, direct=True)
            else:
                self._register(told.ref, own=own, direct=False, age=told.age)
        with self._changed:
            self._hear(answer.tidings)
        return answer.about(claimed) is not None

    def _register(
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
        with self._changed:
            if ref.name == own.name and ref.url in self._former_urls:
                return own
            admission = self._membership.observe(
                ref, own_url=own.url, now=self._clock(), direct=direct, keep_other_version=relay_mode, age=age
            )
            known = self._membership.get(ref.url)
            self._changed.notify_all()
        if admission is Admission.SELF:
            return own
        if admission is not Admission.OTHER_VERSION:
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

    def _absence(self, name_or_url: str, ref: HostRef | None, timeout: float) -> str:
        if ref is not None:
            return f"Host {name_or_url!r} is not online after {timeout:g} s: {ref.error or 'no news from it'}"
        url = _url_or_none(name_or_url)
        with self._changed:
            failure = None if url is None else self._membership.failure(url)
        return f"Host {name_or_url!r} is not known after {timeout:g} s" + (f": {failure}" if failure else "")


def _url_or_none(text: str) -> str | None:
    try:
        return normalize_host_url(text)
    except ValueError:
        return None
