"""The mesh as one host sees it: `protocol.membership` with a clock, a client and a thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from paglets.core.chance import CHANCE
from paglets.core.errors import HostError
from paglets.protocol.gossip import Tidings
from paglets.protocol.membership import HostRef, normalize_host_url, normalize_tags
from paglets.remote import meetings
from paglets.remote.announcement import Announcement
from paglets.remote.beacon import MESH_BEACON_KIND, decode_mesh_beacon, encode_mesh_beacon
from paglets.remote.code_version import resolve_code_version
from paglets.remote.discovery import LanDiscovery, announced_hosts, discovery_allowed
from paglets.remote.gossip import Crew, GossipLoop
from paglets.remote.mesh_debug import say_if_wanted
from paglets.remote.mesh_host import MeshHost
from paglets.remote.roster import Roster, url_or_none
from paglets.remote.visits import CONTACT_THREADS, REQUEST_TIMEOUT_SECONDS, Visitor

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

PEERS_PER_ROUND: Final = 4
"""How many peers one background round contacts; news reach the others through these within a few rounds."""
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
        left_out: Callable[[HostRef], None] = lambda ref: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know the given peers as seeds; nothing is sent before `start`, `join` or `gossip_once`.

        :param multicast: announce this host on the local network.
        :param lan_discovery: take hosts as seeds that announce themselves there; needs `multicast`.
        :param lan_discovery_interval: kept for programs that give it; hosts announce themselves, nobody looks around.
        :param discovery_key: gives what announcements are signed with; None where this host shows others no key.
        :param left_out: told of each host that is not admitted because it runs other code, once for each version of it,
            from any thread.
        :param code_version: replaces the detected one; hosts of other versions are not admitted.
        :param gossip_interval: seconds between two background rounds, at least 0.05.
        :param offline_after: seconds without news after which a peer counts as offline, at least 0.1.
        :param clock: monotonic seconds.
        :raises ValueError: a peer is an empty URL.
        """
        say_if_wanted()
        self.enabled = enabled
        self.multicast = multicast
        self.lan_discovery = lan_discovery
        self.lan_discovery_interval = max(1.0, lan_discovery_interval)
        version, self.version_warning = resolve_code_version(code_version)
        self._host = host_runtime
        self._thread_name = f"paglets-mesh-{host_runtime.name}"
        self._clock = clock
        self._roster = Roster(
            host_runtime,
            code_version=version,
            gossip_interval=gossip_interval,
            offline_after=offline_after,
            clock=clock,
            left_out=left_out,
        )
        self._visitor = Visitor(host_runtime, self._roster, f"{self._thread_name}-contact")
        self._crew = Crew(f"{self._thread_name}-contact", self._visitor.visit, threads=CONTACT_THREADS)
        self._starting = threading.RLock()
        self._loop: GossipLoop | None = None
        self._discovery_key = discovery_key
        self._discovery: LanDiscovery | None = None
        for peer in peers or ():
            self.add_seed(peer)

    @property
    def code_version(self) -> str:
        """The code version that members of the mesh share."""
        return self._roster.code_version

    @code_version.setter
    def code_version(self, version: str) -> None:
        self._roster.code_version = version

    @property
    def offline_after(self) -> float:
        """Seconds without news after which a peer counts as offline."""
        return self._roster.offline_after

    @offline_after.setter
    def offline_after(self, seconds: float) -> None:
        self._roster.offline_after = seconds

    @property
    def gossip_interval(self) -> float:
        """Seconds between two background rounds."""
        return self._roster.gossip_interval

    @gossip_interval.setter
    def gossip_interval(self, seconds: float) -> None:
        self._roster.gossip_interval = seconds

    # background

    def start(self) -> None:
        """Begin to gossip in the background, when enabled; wait at most a second for the given peers."""
        with self._starting:
            if not self.enabled or self._loop is not None:
                return
            self._loop = loop = GossipLoop(self._thread_name, self._make_round, self._pause)
            has_seeds = self._roster.has_seeds()
            loop.start()
            if self.multicast and discovery_allowed():
                self._discovery = LanDiscovery(
                    self._announcement,
                    key=self._discovery_key(),
                    found=self._announced,
                    lost=self._roster.withdrawn,
                    differs=self._announced_other,
                    listen=self.lan_discovery,
                )
                self._discovery.start()
        if has_seeds:
            loop.wait_for_first_round(FIRST_ROUND_SECONDS)

    def stop(self) -> None:
        """End the background gossip; a request on its way is not waited for longer than two seconds."""
        with self._starting:
            loop, self._loop = self._loop, None
            self._roster.end_listening()
            discovery, self._discovery = self._discovery, None
        if discovery is not None:
            discovery.stop()
        if loop is not None:
            loop.stop()

    def _make_round(self, stopping: threading.Event) -> None:
        first = self._roster.listen()
        self._log_changes()
        self._crew.send(self._roster.due(PEERS_PER_ROUND, busy=self._crew.busy()))
        if first:
            # The start waits for the peers that were named; later rounds wait for nobody.
            self._crew.wait(FIRST_ROUND_SECONDS)

    def _log_changes(self) -> None:
        for ref in self._roster.take_changes():
            if ref.online:
                logger.info("mesh: %s at %s is online", ref.name, ref.url)
            else:
                logger.info("mesh: %s at %s is offline: %s", ref.name, ref.url, ref.error or "it said so")

    def _pause(self) -> float:
        # Hosts that were started together do not stay in step.
        return self.gossip_interval * (0.9 + 0.2 * CHANCE.random())

    # asking

    def hosts(self, *, online_only: bool = False, include_self: bool = True) -> list[HostRef]:
        """Return the known hosts, sorted by name and URL."""
        own = self.refresh_self()
        refs = self._roster.peers()
        if include_self:
            refs.append(own)
        return sorted(
            (ref for ref in refs if ref.online or not online_only),
            key=lambda ref: (ref.name, ref.url),
        )

    def left_out(self) -> list[HostRef]:
        """Return the hosts that this host came across and that are not admitted, because they run other code."""
        return self._roster.left_out()

    def lookup(self, name_or_url: str) -> HostRef | None:
        """Return the host with exactly this name or URL, or None; of several with one name an online one."""
        return self._roster.lookup(name_or_url)

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
            target = ref.url if ref is not None else url_or_none(name_or_url) if "://" in name_or_url else None
            urls = self._roster.due(PEERS_PER_ROUND)
            if target is not None and target not in urls:
                urls.append(target)
            self._visitor.contact_all(urls, timeout=min(REQUEST_TIMEOUT_SECONDS, max(remaining, 0.05)))
            if self.is_online(name_or_url):
                continue
            with self._roster.changed:
                self._roster.changed.wait(max(0.0, min(interval, deadline - self._clock())))

    def peer_urls(self, *, include_known: bool = True) -> list[str]:
        """Return the URLs of the seeds and, when asked, of all known peers, sorted and without this host."""
        return self._roster.peer_urls(include_known=include_known)

    # being told

    def add_seed(self, url: str) -> None:
        """Remember a URL to be contacted in every round; the own URL is ignored.

        :raises ValueError: the URL is empty.
        """
        self._roster.add_seed(url)

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
        return self._roster.register(checked, own=self.refresh_self(), direct=True)

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
        lacking, reply = self._roster.answer(tidings, own, visitor=ref.url, admitted=registered is not None)
        return meetings.answer(own, lacking, reply)

    def mark_offline(self, url: str, error: str) -> None:
        """Note that a host could not be reached; its `last_seen` stays."""
        self._roster.mark_offline(url, error)

    def refresh_self(self) -> HostRef:
        """Return what this host says about itself now."""
        return self._roster.refresh_self()

    def local_address_changed(self, previous_url: str) -> HostRef:
        """Replace the own record after this host moved to another address, and tell the peers in the background."""
        own = self._roster.moved(normalize_host_url(previous_url))
        with self._starting:
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
        self._visitor.contact(normalize_host_url(url), timeout=REQUEST_TIMEOUT_SECONDS)
        return self.hosts()

    def gossip_once(self) -> None:
        """Exchange acquaintances with every seed and every known peer."""
        self._visitor.contact_all(self._roster.targets(), timeout=REQUEST_TIMEOUT_SECONDS)

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
        self._visitor.contact_all(self._roster.targets(), timeout=REQUEST_TIMEOUT_SECONDS)
        return [ref for ref in self.hosts(online_only=True, include_self=False) if ref.url not in known]

    # inside

    def _announcement(self) -> Announcement:
        return Announcement(self._host.name, self._host.address.rstrip("/"), self.code_version)

    def _announced(self, url: str) -> None:
        self._roster.announced(url)
        with self._starting:
            loop = self._loop
        if loop is not None:
            loop.hurry()

    def _announced_other(self, announced: Announcement) -> None:
        ref = HostRef(announced.name, announced.url, announced.code_version, True, 0.0, 0, 0)
        self._roster.differs(ref)

    def _absence(self, name_or_url: str, ref: HostRef | None, timeout: float) -> str:
        if ref is not None:
            return f"Host {name_or_url!r} is not online after {timeout:g} s: {ref.error or 'no news from it'}"
        url = url_or_none(name_or_url)
        failure = None if url is None else self._roster.failure(url)
        for other in self.left_out():
            if name_or_url == other.name or url == other.url:
                failure = (
                    f"it is left out, because it runs code version {other.code_version!r}, not {self.code_version!r}"
                )
        return f"Host {name_or_url!r} is not known after {timeout:g} s" + (f": {failure}" if failure else "")
