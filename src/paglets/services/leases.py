"""The requests behind leases on resident services: how long one may last, and what giving one back looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote

from paglets.core.errors import HostError, RemoteHostError
from paglets.services.records import ServiceRecord

LONGEST_LEASE_SECONDS: Final = 7 * 86400.0
"""The longest time for which a lease is given; who needs a service for longer takes another one in time."""
_PREFIX: Final = "/services/leases/"
_SUFFIX: Final = "/release"


def checked_ttl(ttl: float) -> float:
    """Return the seconds of a lease.

    :raises HostError: they are not above 0, or more than a week.
    """
    if not (0 < ttl <= LONGEST_LEASE_SECONDS and math.isfinite(ttl)):
        raise HostError(
            f"ttl of a service lease must be above 0 and at most {LONGEST_LEASE_SECONDS:g} seconds, not {ttl!r}"
        )
    return float(ttl)


def host_of(record: ServiceRecord) -> str:
    """Return the base URL of the host that keeps a service."""
    return (record.host_url or record.proxy.host_url).rstrip("/")


def acquire_url(host_url: str) -> str:
    """Return where a lease is asked for."""
    return f"{host_url.rstrip('/')}{_PREFIX.rstrip('/')}"


def release_url(host_url: str, lease_id: str) -> str:
    """Return where a lease is given back."""
    return f"{host_url.rstrip('/')}{_PREFIX}{quote(lease_id, safe='')}{_SUFFIX}"


@dataclass(frozen=True, slots=True)
class GivenBack:
    """A lease that a request gives back."""

    host_url: str
    lease_id: str


def given_back(url: str) -> GivenBack | None:
    """Return the lease that a request to this URL gives back, None where it asks for something else."""
    host_url, found, rest = url.rpartition(_PREFIX)
    lease_id = rest.removesuffix(_SUFFIX)
    if not found or not lease_id or lease_id == rest or "/" in lease_id:
        return None
    return GivenBack(host_url, unquote(lease_id))


def granted(answer: Any, url: str) -> dict[str, Any]:
    """Return ``lease_id`` and ``expires_at``, in Unix seconds, of the lease in a host's answer.

    :raises RemoteHostError: it is not one.
    """
    if isinstance(answer, dict):
        lease_id, expires_at = answer.get("lease_id"), answer.get("expires_at")
        if isinstance(lease_id, str) and isinstance(expires_at, int | float) and not isinstance(expires_at, bool):
            return {"lease_id": lease_id, "expires_at": float(expires_at)}
    raise RemoteHostError(f"malformed answer from {url}: no lease in it")
