from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from paglets.config.startup import (
    AutoStartSpec,
    ResidentServiceConfig,
    StartupAgentConfig,
    resolve_resident_service,
    resolve_startup_agent,
)
from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import HostError
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.services.contracts import ServiceContract, ServiceOperation
from paglets.services.resident import ResidentServiceSpec

HERE = __name__
ONE = ServiceContract("tests.one", (ServiceOperation("ping"),))
TWO = ServiceContract("tests.two", (ServiceOperation("ping"),))


@dataclass
class State(PagletState):
    name: str = "default"
    count: int = 0
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")


class Plain(Paglet[State]):
    State = State


class AutoStarted(Paglet[State]):
    State = State
    AUTO_START = AutoStartSpec("auto", agent_id="auto-1", state={"name": "spec", "count": 1})


class BadAutoStart(Paglet[State]):
    State = State
    AUTO_START = "auto"


class OneService(Paglet[State]):
    State = State
    RESIDENT_SERVICES = (
        ResidentServiceSpec(
            ONE,
            scope=ServiceScope.MESH,
            lifecycle=ResidentLifecycle.EAGER,
            idle_timeout=7.0,
            state={"name": "spec", "count": 1},
        ),
    )


class TwoServices(Paglet[State]):
    State = State
    RESIDENT_SERVICES = (ResidentServiceSpec(ONE), ResidentServiceSpec(TWO, agent_id="fixed", singleton=False))


class NotAPaglet:
    pass


# startup agents


def test_a_plain_class() -> None:
    resolved = resolve_startup_agent(
        StartupAgentConfig(class_name=f"{HERE}:Plain", agent_id="x", state={"tags": ["a"]}, init={"k": 1})
    )
    assert resolved.agent_cls is Plain
    assert resolved.state == State(tags=["a"])
    assert (resolved.agent_id, resolved.singleton, resolved.init) == ("x", True, {"k": 1})
    assert resolve_startup_agent(StartupAgentConfig(class_name=f"{HERE}:Plain")).agent_id is None


def test_a_class_with_proposals() -> None:
    resolved = resolve_startup_agent(StartupAgentConfig(class_name=f"{HERE}:AutoStarted", state={"count": 2}))
    assert (resolved.agent_id, resolved.state) == ("auto-1", State("spec", 2))
    other = resolve_startup_agent(StartupAgentConfig(class_name=f"{HERE}:AutoStarted", agent_id="y", singleton=False))
    assert (other.agent_id, other.singleton) == ("y", False)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (StartupAgentConfig(), "needs a class"),
        (StartupAgentConfig(use="demo"), "Unknown startup agent alias 'demo'"),
        (StartupAgentConfig(use="demo", class_name=f"{HERE}:Plain"), "Unknown startup agent alias"),
        (StartupAgentConfig(class_name="no.such.module:X"), "Cannot load startup agent"),
        (StartupAgentConfig(class_name=f"{HERE}:Absent"), "Cannot load startup agent"),
        (StartupAgentConfig(class_name="nonsense"), "Cannot load startup agent"),
        (StartupAgentConfig(class_name=f"{HERE}:NotAPaglet"), "no Paglet subclass"),
        (StartupAgentConfig(class_name=f"{HERE}:ONE"), "no Paglet subclass"),
        (StartupAgentConfig(class_name=f"{HERE}:BadAutoStart"), "AUTO_START"),
        (StartupAgentConfig(class_name=f"{HERE}:Plain", state={"count": "many"}), "count"),
        (StartupAgentConfig(class_name=f"{HERE}:Plain", state={"count": -1}), "must not be negative"),
        (StartupAgentConfig(class_name=f"{HERE}:Plain", agent_id="a/b"), "Invalid agent id"),
    ],
)
def test_startup_agents_that_cannot_be_resolved(config: StartupAgentConfig, text: str) -> None:
    with pytest.raises(HostError, match=text):
        resolve_startup_agent(config)


# resident services


def test_a_service_as_declared() -> None:
    resolved = resolve_resident_service(ResidentServiceConfig(class_name=f"{HERE}:OneService"))
    assert resolved.agent_cls is OneService
    assert resolved.spec is OneService.RESIDENT_SERVICES[0]
    assert resolved.agent_id == "service.tests.one"
    assert resolved.state == State("spec", 1)
    assert (resolved.lifecycle, resolved.scope) == (ResidentLifecycle.EAGER, ServiceScope.MESH)
    assert (resolved.idle_timeout, resolved.singleton, resolved.init) == (7.0, True, None)


def test_the_file_overrides_the_class() -> None:
    resolved = resolve_resident_service(
        ResidentServiceConfig(
            class_name=f"{HERE}:OneService",
            service_name="tests.one",
            agent_id="mine",
            singleton=False,
            lifecycle=ResidentLifecycle.LAZY,
            scope=ServiceScope.LOCAL,
            idle_timeout=0.0,
            state={"count": 5},
            init=1,
        )
    )
    assert (resolved.agent_id, resolved.state, resolved.singleton) == ("mine", State("spec", 5), False)
    assert (resolved.lifecycle, resolved.scope) == (ResidentLifecycle.LAZY, ServiceScope.LOCAL)
    assert (resolved.idle_timeout, resolved.init) == (0.0, 1)


def test_one_of_several_services() -> None:
    resolved = resolve_resident_service(
        ResidentServiceConfig(class_name=f"{HERE}:TwoServices", service_name="tests.two")
    )
    assert (resolved.spec.contract, resolved.agent_id, resolved.singleton) == (TWO, "fixed", False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "needs a class"),
        ({"use": "demo"}, "Unknown resident service alias 'demo'"),
        ({"class_name": f"{HERE}:Plain"}, "does not declare RESIDENT_SERVICES"),
        ({"class_name": f"{HERE}:TwoServices"}, r"several .* tests\.one, tests\.two"),
        ({"class_name": f"{HERE}:TwoServices", "service_name": "x"}, r"no resident service 'x'; it has: tests\.one"),
        ({"class_name": f"{HERE}:OneService", "idle_timeout": -1.0}, "idle_timeout"),
        ({"class_name": f"{HERE}:OneService", "idle_timeout": float("nan")}, "idle_timeout"),
        ({"class_name": f"{HERE}:OneService", "state": {"tags": 3}}, "tags"),
    ],
)
def test_services_that_cannot_be_resolved(options: dict[str, Any], text: str) -> None:
    with pytest.raises(HostError, match=text):
        resolve_resident_service(ResidentServiceConfig(**options))
