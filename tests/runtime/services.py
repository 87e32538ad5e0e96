"""What tests of resident services share."""

from __future__ import annotations

from typing import Any

from paglets.config.startup import LaunchConfig, ResidentServiceConfig, StartupAgentConfig
from paglets.core.context import PagletContext
from paglets.core.runtime_values import ServiceScope
from paglets.runtime.host import Host
from paglets.services.contracts import ServiceHandle
from tests.agents.residents import CONTRACT


def service(cls: type[Any] | None = None, **options: Any) -> ResidentServiceConfig:
    """Return the entry of a service."""
    name = "tests.agents.residents:Resident" if cls is None else f"{cls.__module__}:{cls.__name__}"
    return ResidentServiceConfig(class_name=name, **options)


def launch(*services: ResidentServiceConfig, agents: tuple[StartupAgentConfig, ...] = ()) -> LaunchConfig:
    """Return a launch configuration."""
    return LaunchConfig(resident_services=services, startup_agents=agents)


def handle_of(host: Host, scope: ServiceScope = ServiceScope.LOCAL) -> ServiceHandle:
    """Return a handle of the service."""
    return PagletContext(host).require_contract(CONTRACT, scope=scope)


def state_of(host: Host) -> str:
    """Return the state of the only service of a host."""
    (shown,) = host.resident_services()
    return str(shown["state"])
