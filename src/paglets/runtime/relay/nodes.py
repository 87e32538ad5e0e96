"""What a hub knows of the hosts that are, or were, connected to it."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from paglets.core import errors
from paglets.core.error_wire import PROCESS_ERRORS, ErrorTable, error_from_wire
from paglets.core.errors import PagletError, RemoteHostError


@dataclass(slots=True)
class RelayNode:
    """One connected host."""

    name: str
    health: dict[str, Any]
    """What it last said of itself."""
    last_seen: float = field(default_factory=time.time)
    """Unix seconds."""
    online: bool = True
    """Whether its link is up."""
    active_polls: int = 0
    """Its links that are up."""
    in_flight: int = 0
    """Requests that are with it now."""
    last_poll_started: float = 0.0
    """When its newest link was opened."""
    last_poll_finished: float = 0.0
    """When its last link was lost."""
    last_error: str | None = None
    """What went wrong last."""


@dataclass(slots=True)
class RelayDelivery:
    """One thing that a connected host was asked to do."""

    delivery_id: str
    target: str
    kind: str
    payload: dict[str, Any]
    future: Future[dict[str, Any]]
    created_at: float = field(default_factory=time.time)


_RESTORED = ErrorTable(
    {
        cls.__name__: cls
        for cls in (
            errors.TransferError,
            errors.InvalidAgentError,
            errors.PagletInactiveError,
            errors.PagletCrashedError,
            errors.NotHandledError,
            errors.ForbiddenError,
            errors.AuthenticationError,
            errors.ServiceNotFoundError,
            errors.HostError,
        )
    },
    foreign=PROCESS_ERRORS.foreign,
)


def relay_error_from_ack(payload: dict[str, Any]) -> PagletError:
    """Return the error that the answer of a connected host describes; an unknown type is a `RemoteHostError`."""
    error = error_from_wire(payload, unknown=RemoteHostError, table=_RESTORED)
    return error if isinstance(error, PagletError) else RemoteHostError(str(error))
