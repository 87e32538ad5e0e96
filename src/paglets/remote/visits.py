"""Talk to other hosts of the mesh: one visit is a look at the host, then an exchange of acquaintances."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from paglets.core.errors import ConnectionLostError, RemoteTimeoutError
from paglets.protocol.membership import HostRef
from paglets.remote import meetings
from paglets.remote.gossip import for_each_at_once
from paglets.remote.mesh_host import MeshHost
from paglets.remote.roster import Roster

REQUEST_TIMEOUT_SECONDS: Final = 3.0
"""How long one request to a peer may take."""
CONTACT_THREADS: Final = 8
"""How many peers are contacted at once, so that slow ones do not delay the others."""

logger = logging.getLogger(__name__)


class Visitor:
    """Visit hosts and note in the roster what comes of it.

    :param thread_name: of the threads that visit several at once.
    """

    def __init__(self, host: MeshHost, roster: Roster, thread_name: str) -> None:
        self._host = host
        self._roster = roster
        self._thread_name = thread_name

    def contact_all(self, urls: Iterable[str], *, timeout: float) -> None:
        """Visit several hosts at once, each with requests of at most so many seconds."""
        for_each_at_once(
            urls,
            lambda url: self.contact(url, timeout=timeout),
            threads=CONTACT_THREADS,
            name=self._thread_name,
        )

    def contact(self, url: str, *, timeout: float) -> None:
        """Visit a host; one that cannot be reached, or answers nonsense, is marked offline."""
        try:
            self._exchange(url, timeout)
        except Exception as error:
            # Whatever a peer does to us, the mesh goes on without it.
            logger.debug("mesh contact with %s failed", url, exc_info=True)
            self._roster.mark_offline(url, str(error) or type(error).__name__)

    def visit(self, url: str) -> None:
        """Make a contact in the background, where being late once is no proof."""
        try:
            self._meet(url, REQUEST_TIMEOUT_SECONDS)
        except (RemoteTimeoutError, ConnectionLostError) as error:
            logger.debug("mesh contact with %s was late", url, exc_info=True)
            self._roster.doubt(url, str(error))
        except Exception as error:
            logger.debug("mesh contact with %s failed", url, exc_info=True)
            self._roster.mark_offline(url, str(error) or type(error).__name__)

    def _meet(self, url: str, timeout: float) -> None:
        """Exchange acquaintances in one request with a peer that is known and online, else after a look at it."""
        online = self._roster.is_known_online(url)
        if not online or not self._tell(url, url, self._roster.refresh_self(), True, timeout):
            self._exchange(url, timeout)

    def _exchange(self, url: str, timeout: float) -> None:
        health = self._host.client.get_json(f"{url}/health", timeout=timeout)
        ref = HostRef.from_wire(health)
        own = self._roster.refresh_self()
        known, direct = self._roster.met(url, ref)
        if ref.url == own.url:
            return
        if ref.code_version != self._roster.code_version and not self._host.relay_mode:
            self._roster.register(ref, own=own, direct=direct, health=health, contacted=url)
            return
        last_seen = ref.last_seen or (time.time() if known is None else known.last_seen)
        admitted = self._roster.register(replace(ref, online=True, last_seen=last_seen), own=own, direct=direct)
        if admitted is not None:
            self._tell(url, ref.url, own, direct, timeout)

    def _tell(self, url: str, claimed: str, own: HostRef, direct: bool, timeout: float) -> bool:
        """Ask the host at a URL to join, and take in its answer; return whether it still is who it was.

        :param claimed: the address that it gives for itself.
        :param direct: whether it can be used at that address.
        """
        tidings = self._roster.inquiry(own)
        reply = self._host.client.post_json(f"{url}/hosts/join", meetings.invitation(own, tidings), timeout=timeout)
        answer = meetings.read_answer(url, reply)
        self._roster.reached(url)
        for told in answer.records:
            if direct and told.ref.url == claimed:
                self._roster.register(told.ref, own=own, direct=True)
            else:
                self._roster.register(told.ref, own=own, direct=False, age=told.age)
        self._roster.hear(answer.tidings)
        return answer.about(claimed) is not None
