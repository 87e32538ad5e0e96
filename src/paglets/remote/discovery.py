"""Finding hosts on the local network by multicast DNS and DNS-SD (RFC 6762, RFC 6763), through `zeroconf`.

Nothing here asks an address that did not announce itself: no network is ever scanned.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from paglets.remote.announcement import SERVICE_TYPE, Announcement
from paglets.remote.lan import is_loopback

if TYPE_CHECKING:
    from zeroconf import ServiceBrowser, ServiceInfo, Zeroconf

DISCOVERY_ENV: Final = "PAGLETS_DISCOVERY"
"""The environment variable that turns all of this off on a machine, with the value ``off``."""
OFF_WORDS: Final = ("off", "0", "no", "false")
"""Values with which a variable of the environment says no."""
MOST_FOUND: Final = 1024
"""Hosts that are remembered; more announcements than that are no mesh of this kind, and ignored."""
RESOLVE_MS: Final = 1500
"""How long one announcement may take to be read, in milliseconds."""
STOP_SECONDS: Final = 3.0

logger = logging.getLogger(__name__)


def discovery_allowed() -> bool:
    """Return whether this machine's environment lets programs announce and look for hosts."""
    return os.environ.get(DISCOVERY_ENV, "").strip().lower() not in OFF_WORDS


class LanDiscovery:
    """Announce one host, and hear of others, in threads of its own.

    :param describe: says what to announce; called again whenever that may have changed.
    :param key: what announcements are signed with and must be signed with; None for a host without a key.
    :param found: called with the URL of a host that announced itself, and again when its announcement changes.
    :param lost: called with the URL of a host that took its announcement back, or did not renew it.
    :param differs: called with the announcement of a host that would be found if it ran the same code.
    :param listen: whether to hear of others at all.
    """

    def __init__(
        self,
        describe: Callable[[], Announcement],
        *,
        key: str | None,
        found: Callable[[str], None],
        lost: Callable[[str], None],
        differs: Callable[[Announcement], None],
        listen: bool = True,
    ) -> None:
        self._describe = describe
        self._key = key
        self._found = found
        self._lost = lost
        self._differs = differs
        self._listen = listen
        self._known: dict[str, str] = {}
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paglets-discovery", daemon=True)

    def start(self) -> None:
        """Begin; a network that does not take multicast is reported in the log and changes nothing else."""
        self._thread.start()

    def refresh(self) -> None:
        """Announce again, because the name or the address may have changed."""
        self._wanted.set()

    def stop(self) -> None:
        """Take the announcement back and end."""
        self._stopping.set()
        self._wanted.set()
        if self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.clear()
            own = self._describe()
            try:
                with _opened(own.url) as zeroconf:
                    self._serve(zeroconf, own)
            except Exception as error:
                # Without multicast there are still peers that are given; a later change of address tries again.
                logger.warning("hosts on the local network cannot be found: %s", str(error) or type(error).__name__)
                self._wanted.wait()

    def _serve(self, zeroconf: Zeroconf, own: Announcement) -> None:
        browser = _browsing(zeroconf, self._heard) if self._listen else None
        try:
            zeroconf.register_service(_record(own, self._key), cooperating_responders=True)
            logger.debug("announcing %s at %s on the local network", own.name, own.url)
            while not self._stopping.is_set() and self._describe() == own:
                self._wanted.wait()
                self._wanted.clear()
        finally:
            if browser is not None:
                browser.cancel()

    def _heard(self, zeroconf: Zeroconf, instance: str, removed: bool) -> None:
        if removed:
            url = self._known.pop(instance, None)
            logger.debug("announcement of %s ended", url or instance)
            if url is not None and url not in self._known.values():
                self._lost(url)
            return
        announced = _resolved(zeroconf, instance, self._key)
        own = self._describe()
        if announced is None or announced.url == own.url:
            return
        if not self._concerns(announced, own):
            key = "with a key" if announced.signed else "without a key"
            logger.debug("announcement of %s at %s %s is not for this host", announced.name, announced.url, key)
            return
        logger.debug("announcement of %s at %s, code version %s", announced.name, announced.url, announced.code_version)
        if instance not in self._known and len(self._known) >= MOST_FOUND:
            return
        former = self._known.get(instance)
        self._known[instance] = announced.url
        if former is not None and former not in self._known.values():
            self._lost(former)
        if announced.code_version == own.code_version:
            self._found(announced.url)
        else:
            self._differs(announced)

    def _concerns(self, announced: Announcement, own: Announcement) -> bool:
        # One that wants a key would refuse every request of a host that has none.
        return announced.signed is (self._key is not None) and announced.concerns(own.url)


def announced_hosts(*, timeout: float, key: str | None) -> list[Announcement]:
    """Listen for hosts and return them, sorted by name and URL.

    :param timeout: seconds to listen.
    :param key: only announcements that are signed with it count; None takes all.
    :raises OSError: this machine has no network that takes multicast.
    """
    if not discovery_allowed():
        return []
    from zeroconf import Zeroconf

    found: dict[str, Announcement] = {}

    def heard(zeroconf: Zeroconf, instance: str, removed: bool) -> None:
        announced = None if removed else _resolved(zeroconf, instance, key)
        if announced is None:
            found.pop(instance, None)
        elif len(found) < MOST_FOUND:
            found[instance] = announced

    with Zeroconf() as zeroconf:
        browser = _browsing(zeroconf, heard)
        time.sleep(timeout)  # nobody says that there are no more: how long to listen is all there is
        browser.cancel()  # waits for its thread, the only one that touches what was found
    return sorted(found.values(), key=lambda each: (each.name, each.url))


def _browsing(zeroconf: Zeroconf, heard: Callable[[Zeroconf, str, bool], None]) -> ServiceBrowser:
    """Report every announcement, by its instance name, and whether it was taken back."""
    from zeroconf import ServiceBrowser, ServiceStateChange

    def changed(*, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        heard(zeroconf, name, state_change is ServiceStateChange.Removed)

    return ServiceBrowser(zeroconf, SERVICE_TYPE, handlers=[changed])


def _opened(url: str) -> Zeroconf:
    from zeroconf import InterfaceChoice, Zeroconf

    # Who cannot be reached from outside does not speak there.
    return Zeroconf(interfaces=["127.0.0.1"] if is_loopback(url) else InterfaceChoice.All)


def _record(own: Announcement, key: str | None) -> ServiceInfo:
    from zeroconf import ServiceInfo

    parts = urlsplit(own.url)
    # Names need not differ in a network, instances must; RFC 6763 allows them 63 bytes.
    instance = f"{_label(own.name)[:40]}-{hashlib.sha256(own.url.encode()).hexdigest()[:12]}"
    return ServiceInfo(
        SERVICE_TYPE,
        f"{instance}.{SERVICE_TYPE}",
        port=parts.port or (443 if parts.scheme == "https" else 80),
        properties=own.texts(key),
        server=f"{instance}.local.",
        addresses=_addresses(parts.hostname or ""),
    )


def _label(name: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter == "-") else "-" for letter in name)


def _addresses(host: str) -> list[bytes]:
    # For browsers of other programs; ours go by the URL, which may name a proxy in front of the host.
    try:
        return [socket.inet_pton(socket.AF_INET, host)]
    except OSError:
        return [socket.inet_pton(socket.AF_INET, "127.0.0.1")]


def _resolved(zeroconf: Zeroconf, instance: str, key: str | None) -> Announcement | None:
    from zeroconf import ServiceInfo

    info = ServiceInfo(SERVICE_TYPE, instance)
    if not info.request(zeroconf, RESOLVE_MS):
        return None
    announced = Announcement.believed(info.properties, key)
    if announced is None:
        logger.debug("the announcement %r is malformed or not signed with the key of this host", instance)
    return announced
