"""From names in a launch file to classes and states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from paglets.config.launch_file import AutoStartSpec, ResidentServiceConfig, StartupAgentConfig
from paglets.core.agent import Paglet
from paglets.core.allowance import Allowance
from paglets.core.errors import HostError, SerializationError
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.persistence.directory import validate_agent_id
from paglets.serialization.codec import from_wire
from paglets.serialization.names import resolve_qualified_name
from paglets.services.resident import ResidentServiceSpec


@dataclass(frozen=True, slots=True)
class ResolvedStartupAgent:
    """A paglet to start with the host."""

    agent_cls: type[Any]
    state: Any
    agent_id: str | None
    singleton: bool
    init: Any
    allowance: Allowance | None = None
    """What it may use up; None takes what the class says."""


@dataclass(frozen=True, slots=True)
class ResolvedResidentService:
    """A service to keep available; `idle_timeout` is in seconds."""

    agent_cls: type[Any]
    state: Any
    agent_id: str
    singleton: bool
    init: Any
    spec: ResidentServiceSpec
    lifecycle: ResidentLifecycle
    scope: ServiceScope
    idle_timeout: float
    allowance: Allowance | None = None
    """What it may use up; None takes what the class says."""


def resolve_startup_agent(config: StartupAgentConfig) -> ResolvedStartupAgent:
    """Return the class and the first state that an entry stands for; this imports the class.

    :raises HostError: the class is missing, cannot be imported or is no paglet, or the state does not fit.
    """
    agent_cls = _agent_class(config.class_name, config.use, "startup agent")
    spec = getattr(agent_cls, "AUTO_START", None)
    if spec is not None and not isinstance(spec, AutoStartSpec):
        raise HostError(f"{config.class_name}: AUTO_START must be an AutoStartSpec, not {type(spec).__name__}")
    agent_id = config.agent_id or (None if spec is None else spec.agent_id)
    return ResolvedStartupAgent(
        agent_cls=agent_cls,
        state=_state(agent_cls, {} if spec is None else spec.state, config.state),
        agent_id=None if agent_id is None else validate_agent_id(agent_id),
        singleton=config.singleton and (spec is None or spec.singleton),
        init=config.init,
        allowance=config.allowance,
    )


def resolve_resident_service(config: ResidentServiceConfig) -> ResolvedResidentService:
    """Return the class, the first state and the terms of the service that an entry stands for; this imports the class.

    :raises HostError: the class is missing, cannot be imported, is no paglet or does not declare the service, the state
        does not fit, or the idle timeout is negative.
    """
    agent_cls = _agent_class(config.class_name, config.use, "resident service")
    spec = _resident_spec(agent_cls, config)
    idle_timeout = spec.idle_timeout if config.idle_timeout is None else config.idle_timeout
    if idle_timeout < 0 or math.isnan(idle_timeout):
        raise HostError(f"{config.class_name}: idle_timeout must not be negative: {idle_timeout!r}")
    return ResolvedResidentService(
        agent_cls=agent_cls,
        state=_state(agent_cls, spec.state, config.state),
        agent_id=validate_agent_id(config.agent_id or spec.agent_id or f"service.{spec.contract.name}"),
        singleton=config.singleton and spec.singleton,
        init=config.init,
        spec=spec,
        lifecycle=spec.lifecycle if config.lifecycle is None else config.lifecycle,
        scope=spec.scope if config.scope is None else config.scope,
        idle_timeout=idle_timeout,
        allowance=config.allowance,
    )


def _agent_class(class_name: str | None, alias: str | None, what: str) -> type[Any]:
    if alias is not None:
        raise HostError(f'Unknown {what} alias {alias!r}; name the class instead: class = "module:Class"')
    if class_name is None:
        raise HostError(f'A {what} needs a class: class = "module:Class"')
    try:
        agent_cls = resolve_qualified_name(class_name)
    except SerializationError as error:
        missing = error.__cause__
        if isinstance(missing, ModuleNotFoundError) and str(missing.name).startswith("paglets."):
            raise HostError(f"This version of paglets has no {missing.name}; the {what} is left out") from error
        raise HostError(f"Cannot load {what} {class_name!r}: {error}") from error
    if not (isinstance(agent_cls, type) and issubclass(agent_cls, Paglet)):
        raise HostError(f"Cannot use {class_name!r} as {what}: it is no Paglet subclass")
    return agent_cls


def _state(agent_cls: type[Any], proposed: dict[str, Any], configured: dict[str, Any]) -> Any:
    state_cls = agent_cls.state_class()
    try:
        return from_wire(state_cls, {**proposed, **configured})
    except Exception as error:
        # A state class may check its fields itself and raise whatever it likes.
        raise HostError(f"The configured state of {agent_cls.__qualname__} does not fit: {error}") from error


def _resident_spec(agent_cls: type[Any], config: ResidentServiceConfig) -> ResidentServiceSpec:
    specs = tuple(getattr(agent_cls, "RESIDENT_SERVICES", ()))
    if not specs or not all(isinstance(spec, ResidentServiceSpec) for spec in specs):
        raise HostError(f"{config.class_name} does not declare RESIDENT_SERVICES, a tuple of ResidentServiceSpec")
    names = ", ".join(spec.contract.name for spec in specs)
    if config.service_name is not None:
        specs = tuple(spec for spec in specs if spec.contract.name == config.service_name)
        if not specs:
            raise HostError(f"{config.class_name} has no resident service {config.service_name!r}; it has: {names}")
    elif len(specs) > 1:
        raise HostError(f"{config.class_name} has several resident services; name one in 'service': {names}")
    spec: ResidentServiceSpec = specs[0]
    return spec
