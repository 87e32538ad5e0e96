"""What a lifecycle hook is told about the step it belongs to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class PagletEvent:
    """The paglet and the host on which the hook runs; `timestamp` is Unix seconds."""

    agent_id: str
    host_name: str
    host_address: str
    timestamp: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class CreationEvent(PagletEvent):
    """A paglet was created; `init` is what its creator passed."""

    init: Any = None


@dataclass(frozen=True, slots=True)
class MobilityEvent(PagletEvent):
    """A paglet leaves or arrives; `reason` is ``dispatch`` or ``retract``."""

    source_host_name: str = ""
    source_host_address: str = ""
    target_host_name: str = ""
    target_host_address: str = ""
    reason: str = "dispatch"


@dataclass(frozen=True, slots=True)
class CloneEvent(PagletEvent):
    """A paglet is copied; `clone_agent_id` is the id of the copy."""

    source_agent_id: str = ""
    clone_agent_id: str = ""
    source_host_name: str = ""
    source_host_address: str = ""
    target_host_name: str = ""
    target_host_address: str = ""


@dataclass(frozen=True, slots=True)
class PersistencyEvent(PagletEvent):
    """A paglet is put to sleep, woken or disposed of.

    `request` and `policy` are the `DeactivationRequest` and `DeactivationPolicy` of a sleep or wake-up, None for a
    disposal.
    """

    reason: str = "deactivate"
    request: Any = None
    policy: Any = None
