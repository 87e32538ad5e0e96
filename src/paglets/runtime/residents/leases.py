"""Leases on managed services: those that this host gives, and those that its paglets hold, here and on other hosts."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from paglets.core.errors import PagletError
from paglets.remote.aio import AsyncHostClient
from paglets.runtime.agents import AgentEntry
from paglets.runtime.kernel import Kernel
from paglets.runtime.resident_services import ResidentServices
from paglets.services.leases import acquire_url, checked_ttl, granted, host_of, release_url
from paglets.services.records import ServiceRecord


@dataclass(frozen=True, slots=True)
class _Held:
    """A lease of a paglet of this host."""

    host_url: str
    """Of the host that gave it; empty for this one."""
    ends: float
    """In loop time."""


class LeaseDesk:
    """Take leases and give them back; runs on the host's loop."""

    def __init__(self, kernel: Kernel, residents: ResidentServices, words: AsyncHostClient) -> None:
        self._kernel = kernel
        self._residents = residents
        self._words = words
        self._held_by: dict[str, dict[str, _Held]] = {}
        kernel.on_departed.append(self._departed)

    async def take(self, record: ServiceRecord, ttl: float, *, holder: str = "") -> dict[str, Any]:
        """Have a managed service up, here or on another host; return ``lease_id`` and ``expires_at``, in Unix seconds.

        :param holder: id of the paglet of this host that asks; its leases are given back when it has gone.
        :raises HostError: `ttl` is no time that a lease may have.
        :raises ServiceNotFoundError: its host does not manage it.
        :raises PagletError: the service did not start, or its host cannot be asked.
        """
        checked_ttl(ttl)
        host_url, agent_id = host_of(record), record.proxy.agent_id
        if self._kernel.address.is_own(host_url):
            host_url = ""
            lease = await self.give(agent_id, record.name, ttl)
        else:
            url = acquire_url(host_url)
            request = {"agent_id": agent_id, "service_name": record.name, "ttl": ttl}
            lease = granted(await self._words.post_json(url, request), url)
        if holder:
            now = self._kernel.loop.time()
            held = self._held_by.setdefault(holder, {})
            for lease_id in [each for each, other in held.items() if other.ends <= now]:
                del held[lease_id]
            held[lease["lease_id"]] = _Held(host_url, now + ttl)
            if holder not in self._kernel.agents:
                self._give_back(self._held_by.pop(holder))  # it has gone meanwhile
        return lease

    async def give(self, agent_id: str, service_name: str, ttl: float) -> dict[str, Any]:
        """Have a service of this host up and keep it so; return ``lease_id`` and ``expires_at``, in Unix seconds.

        :raises HostError: `ttl` is no time that a lease may have.
        :raises ServiceNotFoundError: this is no managed service of that name, or one that has moved to another host.
        :raises OverloadedError: it has as many leases as it may.
        :raises PagletError: the service did not start.
        """
        checked_ttl(ttl)
        lease_id = uuid.uuid4().hex
        expires_at = await self._residents.lease(agent_id, service_name, lease_id, ttl)
        return {"lease_id": lease_id, "expires_at": expires_at}

    def release(self, lease_id: str) -> bool:
        """Give back a lease of this host; return whether there was one."""
        self.forget(lease_id)
        return self._residents.release(lease_id)

    def forget(self, lease_id: str) -> None:
        """Know that a paglet holds a lease no longer."""
        for holder, held in list(self._held_by.items()):
            held.pop(lease_id, None)
            if not held:
                del self._held_by[holder]

    def _departed(self, entry: AgentEntry) -> None:
        held = self._held_by.pop(entry.agent_id, None)
        if held is not None and not self._kernel.closing:
            self._give_back(held)

    def _give_back(self, leases: dict[str, _Held]) -> None:
        """Give back what a paglet has left behind, which it does not when its process dies."""
        for lease_id, held in leases.items():
            if not held.host_url:
                self._residents.release(lease_id)
            elif held.ends > self._kernel.loop.time():
                self._kernel.background(self._tell(held.host_url, lease_id))

    async def _tell(self, host_url: str, lease_id: str) -> None:
        try:
            await self._words.post_json(release_url(host_url, lease_id), {})
        except (PagletError, OSError) as exc:
            # It runs out by itself.
            self._kernel.emit("service-lease-left", data={"lease_id": lease_id, "host": host_url}, error=str(exc))
