"""Services that a host keeps available: what a class declares, and the lease that keeps one awake."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from paglets.core.errors import PagletError
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope, require_enum
from paglets.remote.client import HostClient
from paglets.services.contracts import ServiceContract, ServiceHandle
from paglets.services.leases import release_url

RESIDENT_SERVICE_METADATA_KEY: Final = "paglets.resident_service"
DEFAULT_RESIDENT_IDLE_TIMEOUT_SECONDS: Final = 30.0
DEFAULT_SERVICE_LEASE_TTL_SECONDS: Final = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResidentServiceSpec:
    """How a paglet class is kept available as a service; listed in its class attribute `RESIDENT_SERVICES`.

    :raises TypeError: `scope` or `lifecycle` is not a member of its enum.
    :raises ValueError: `idle_timeout` is negative or no number.
    """

    contract: ServiceContract
    """What it offers."""
    scope: ServiceScope = ServiceScope.LOCAL
    """Where it can be found."""
    lifecycle: ResidentLifecycle = ResidentLifecycle.LAZY
    """Whether it starts with the host or with the first call."""
    agent_id: str | None = None
    """The id of its paglet; None is `service.<contract name>`."""
    singleton: bool = True
    """Whether there is one per host."""
    idle_timeout: float = DEFAULT_RESIDENT_IDLE_TIMEOUT_SECONDS
    """Seconds without calls and leases after which a lazy service sleeps."""
    state: dict[str, Any] = field(default_factory=dict)
    """The fields of its first state."""

    def __post_init__(self) -> None:
        require_enum(self.scope, ServiceScope, "scope")
        require_enum(self.lifecycle, ResidentLifecycle, "lifecycle")
        if self.idle_timeout < 0 or math.isnan(self.idle_timeout):
            raise ValueError(f"idle_timeout must not be negative: {self.idle_timeout!r}")


@dataclass(slots=True)
class ServiceLease:
    """The promise of a host to keep a resident service awake until `expires_at`, in Unix seconds.

    A context manager whose value is the handle; leaving it gives the lease back.
    """

    handle: ServiceHandle
    lease_id: str
    host_url: str
    expires_at: float
    client: HostClient = field(default_factory=HostClient)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _released: bool = field(default=False, init=False, repr=False, compare=False)
    _told: list[Callable[[], None]] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def expired(self) -> bool:
        """Whether the promise has run out."""
        return self.expires_at <= time.time()

    def release(self) -> None:
        """Give the lease back; only the first call says so to the host.

        :raises PagletError: the host could not be told; the lease then runs out by itself.
        """
        with self._lock:
            if self._released:
                return
            self._released = True
            told, self._told = self._told, []
        for tell in told:
            tell()
        self.client.post_json(release_url(self.host_url, self.lease_id), {})

    def when_released(self, call: Callable[[], None]) -> None:
        """Have something called when the lease is given back, before the host is told."""
        with self._lock:
            if not self._released:
                self._told.append(call)

    def __enter__(self) -> ServiceHandle:
        return self.handle

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.release()
        except PagletError:
            # The work is done, or has an error of its own; the host drops the lease when it expires.
            logger.warning("could not release service lease %s", self.lease_id, exc_info=True)
