"""A managed service as a launch configuration declares it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from paglets.config.startup import LaunchConfig, ResolvedResidentService
from paglets.core.allowance import Allowance
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.serialization.blob import encode_blob
from paglets.serialization.names import qualified_name
from paglets.services.contracts import ServiceContract

_OWN_PREFIX: Final = "paglets."


@dataclass(frozen=True, slots=True)
class Declared:
    """What is offered, and from what it is started; `idle_timeout` is in seconds."""

    agent_id: str
    contract: ServiceContract
    class_name: str
    state_class_name: str
    state: bytes
    """The blob of its first state."""
    init: Any
    lifecycle: ResidentLifecycle
    scope: ServiceScope
    idle_timeout: float
    allowance: Allowance | None = None
    """What it may use up; None takes what the class says."""

    @classmethod
    def of(cls, service: ResolvedResidentService) -> Declared:
        """Take over a resolved entry.

        :raises SerializationError: its class cannot be imported by others, or its state cannot be stored.
        """
        return cls(
            service.agent_id,
            service.spec.contract,
            qualified_name(service.agent_cls),
            qualified_name(service.state),
            encode_blob(service.state).tobytes(),
            service.init,
            service.lifecycle,
            service.scope,
            service.idle_timeout,
            service.allowance,
        )

    @property
    def name(self) -> str:
        """The name of its contract."""
        return self.contract.name

    @property
    def eager(self) -> bool:
        """Whether it runs all the time."""
        return self.lifecycle is ResidentLifecycle.EAGER

    def metadata(self) -> dict[str, Any]:
        """Return what its record says of it."""
        return {
            "agent_id": self.agent_id,
            "agent_class_name": self.class_name,
            "lifecycle": self.lifecycle.value,
            "idle_timeout": self.idle_timeout,
        }


def own_modules(config: LaunchConfig | None) -> list[str]:
    """Return the modules of the services of paglets' own that a launch configuration has, as far as they are there.

    They may be imported ahead of the first call, which is for others to decide of their own modules.
    """
    found: dict[str, None] = {}
    for service in () if config is None else config.resident_services:
        module = (service.class_name or "").partition(":")[0]
        if service.enabled and module.startswith(_OWN_PREFIX) and _is_there(module):
            found[module] = None
    return list(found)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False
