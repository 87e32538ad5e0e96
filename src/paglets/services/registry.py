"""The providers that are advertised on one host."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from paglets.core.errors import ServiceContractError
from paglets.core.runtime_values import ServiceScope, require_enum
from paglets.remote.references import PagletProxyRef
from paglets.services.records import ServiceRecord


class ServiceRegistry:
    """Service records, at most one per service name and paglet, in the order in which they were first advertised.

    Safe to call from several threads.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._records: dict[tuple[str, str], ServiceRecord] = {}

    def advertise(
        self,
        *,
        host_name: str,
        host_url: str,
        name: str,
        proxy: PagletProxyRef,
        capabilities: list[str] | tuple[str, ...] | None = None,
        metadata: dict[str, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
        ttl: float | None = None,
    ) -> ServiceRecord:
        """Add or renew the record of a provider and return it.

        :param ttl: seconds until it expires; None never.
        :raises ServiceContractError: the name is empty, or `ttl` is not a positive number of seconds.
        :raises TypeError: `scope` is not a `ServiceScope` member.
        """
        require_enum(scope, ServiceScope, "scope")
        if not name.strip():
            raise ServiceContractError("A service name must not be empty")
        if ttl is not None and not (ttl > 0 and math.isfinite(ttl)):
            raise ServiceContractError(f"The ttl of service {name!r} must be a positive number of seconds, not {ttl!r}")
        now = time.time()
        record = ServiceRecord(
            name=name,
            proxy=proxy,
            capabilities=tuple(capabilities or ()),
            metadata=dict(metadata or {}),
            scope=scope,
            host_name=host_name,
            host_url=host_url,
            advertised_at=now,
            expires_at=None if ttl is None else now + ttl,
        )
        with self._lock:
            key = (name, proxy.agent_id)
            previous = self._records.get(key)
            if previous is not None and previous.expired:
                del self._records[key]  # what has expired lost its place
            self._records[key] = record
        return record

    def unadvertise(self, name: str, agent_id: str | None = None) -> list[ServiceRecord]:
        """Remove the provider, or all providers when no paglet is named, and return the removed records."""
        return self._remove(lambda record: record.name == name and agent_id in (None, record.proxy.agent_id))

    def remove_agent(
        self, agent_id: str, *, keep: Callable[[ServiceRecord], bool] | None = None
    ) -> list[ServiceRecord]:
        """Remove all records of a paglet but those to keep, and return the removed ones."""
        return self._remove(
            lambda record: record.proxy.agent_id == agent_id and not (keep is not None and keep(record))
        )

    def move(self, former_url: str, host_url: str) -> None:
        """Have the records of the providers on a host name its new address, with their places and times."""
        with self._lock:
            self._records = {key: moved(record, former_url, host_url) for key, record in self._records.items()}

    def record(self, name: str, agent_id: str) -> ServiceRecord | None:
        """Return the record of one provider unless it has expired, or None."""
        with self._lock:
            self._drop_expired()
            return self._records.get((name, agent_id))

    def lookup(self, name: str, capability: str | None = None) -> ServiceRecord | None:
        """Return the first provider of a service, with the capability if one is given, or None."""
        return next(iter(self.lookup_all(name, capability)), None)

    def lookup_all(
        self, name: str | None = None, capability: str | None = None, scope: ServiceScope | None = None
    ) -> list[ServiceRecord]:
        """Return all providers that fit every given criterion, in order of advertisement."""
        if scope is not None:
            require_enum(scope, ServiceScope, "scope")
        with self._lock:
            self._drop_expired()
            records = list(self._records.values())
        return [
            record
            for record in records
            if (name is None or record.name == name)
            and (capability is None or capability in record.capabilities)
            and (scope is None or record.scope is scope)
        ]

    def _remove(self, chosen: Callable[[ServiceRecord], bool]) -> list[ServiceRecord]:
        with self._lock:
            # A copy, because a caller's predicate may call back.
            candidates = list(self._records.items())
        removed = [(key, record) for key, record in candidates if chosen(record)]
        with self._lock:
            # What was renewed in between is another record and stays.
            gone = [(key, record) for key, record in removed if self._records.get(key) is record]
            for key, _ in gone:
                del self._records[key]
        return [record for _, record in gone]

    def _drop_expired(self) -> None:
        for key in [key for key, record in self._records.items() if record.expired]:
            del self._records[key]


def moved(record: ServiceRecord, former_url: str, host_url: str) -> ServiceRecord:
    """Return a record with the new address of its host; one of another host as it is."""
    if record.proxy.host_url.rstrip("/") != former_url.rstrip("/"):
        return record
    return replace(record, host_url=host_url, proxy=PagletProxyRef(host_url, record.proxy.agent_id))
