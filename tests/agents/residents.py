"""Services that hosts keep: one that remembers its life, and variations of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paglets.config.startup import AutoStartSpec
from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.messages import Message
from paglets.core.runtime_values import Durability, ResidentLifecycle, ServiceScope
from paglets.services.contracts import EmptyPayload, ServiceContract, ServiceOperation
from paglets.services.resident import ResidentServiceSpec


@dataclass(frozen=True)
class Report:
    calls: int
    pid: int
    log: list[str]
    greeting: str
    host: str


@dataclass(frozen=True)
class At:
    """Where to wait, as a named pipe, or nowhere."""

    gate: str = ""


REPORT = ServiceOperation("report", EmptyPayload, Report)
WAIT = ServiceOperation("wait", At, Report)
DIE = ServiceOperation("die")
CONTRACT = ServiceContract("tests.resident", (REPORT, WAIT, DIE))
OTHER = ServiceContract("tests.other", (REPORT,))
ID = "service.tests.resident"


@dataclass
class ResidentState(PagletState):
    greeting: str = "hello"
    calls: int = 0
    log: list[str] = field(default_factory=list)
    fail_while: str = ""
    """A file; as long as it exists this paglet cannot be created."""
    die_while: str = ""
    """A file; as long as it exists `run` ends the process."""
    advertise: bool = False


class Resident(Paglet[ResidentState]):
    """Remember calls and hooks."""

    State = ResidentState
    RESIDENT_SERVICES = (ResidentServiceSpec(CONTRACT, idle_timeout=60.0),)

    def on_creation(self, event: Any) -> None:
        if self.state.fail_while and Path(self.state.fail_while).exists():
            raise RuntimeError("not while this file is there")
        self.state.log.append(f"created {event.init}")
        if self.state.advertise:
            self.advertise_contract(CONTRACT, metadata={"colours": 3}, scope=ServiceScope.MESH, ttl=0.01)

    def on_activation(self, event: Any) -> None:
        self.state.log.append(f"activated {event.reason}")

    def on_deactivating(self, event: Any) -> None:
        policy = event.request.policy
        if policy is None:
            self.state.log.append(f"deactivating {event.reason}")
            return
        kept = [policy.activate_on_message, policy.queue_messages_when_inactive, policy.activate_on_startup]
        self.state.log.append(f"deactivating {event.reason} {event.request.source} {kept}")

    def _report(self, request: Any = None) -> Report:
        del request
        self.state.calls += 1
        state = self.state
        return Report(state.calls, os.getpid(), list(state.log), state.greeting, self.context.name)

    def _wait(self, request: At) -> Report:
        if request.gate:
            Path(request.gate).read_bytes()
        return self._report()

    def _die(self, request: Any) -> None:
        os._exit(3)

    def handle_message(self, message: Message) -> Any:
        default = object()
        handlers = {REPORT: self._report, WAIT: self._wait, DIE: self._die}
        reply = CONTRACT.route(message, handlers, default=default)
        return super().handle_message(message) if reply is default else reply

    @handler
    def withdraw(self) -> int:
        return len(self.unadvertise_service(CONTRACT.name))


class Fleeting(Resident):
    """One that keeps nothing while it runs."""

    DURABILITY = Durability.NONE


class Busy(Resident):
    """One whose `run` goes on for ever, or kills it."""

    RESIDENT_SERVICES = (
        ResidentServiceSpec(CONTRACT, lifecycle=ResidentLifecycle.EAGER, scope=ServiceScope.MESH, idle_timeout=0.0),
    )

    def run(self) -> None:
        if self.state.die_while and Path(self.state.die_while).exists():
            os._exit(4)


class Renamed(Resident):
    """Another class with the same contract."""


class Several(Paglet[ResidentState]):
    State = ResidentState
    RESIDENT_SERVICES = (ResidentServiceSpec(CONTRACT), ResidentServiceSpec(OTHER))


class Starter(Paglet[ResidentState]):
    """One that proposes to be started with the host."""

    State = ResidentState
    AUTO_START = AutoStartSpec("starter", agent_id="starter", state={"greeting": "proposed"})

    def on_creation(self, event: Any) -> None:
        self.state.log.append(f"created {event.init}")

    def on_activation(self, event: Any) -> None:
        self.state.log.append(f"activated {event.reason}")


class Holder(Paglet[ResidentState]):
    """Hold leases, and use services in a `with` block."""

    State = ResidentState

    @handler
    def hold(self, scope: str = "local", ttl: float = 60.0) -> str:
        return self.lease_contract(CONTRACT, scope=ServiceScope(scope), ttl=ttl).lease_id

    @handler
    def tell(self, agent_id: str) -> int:
        return int(self.context.send(agent_id, REPORT.to_message())["calls"])

    @handler
    def call(self) -> int:
        return self.require_contract(CONTRACT).call(REPORT).calls

    @handler
    def hold_another(self, lost: str) -> str:
        """Lease what a handle found when its provider, which has this id, was lost."""
        handle = self.require_contract(CONTRACT)
        handle = replace(handle, record=replace(handle.record, proxy=replace(handle.record.proxy, agent_id=lost)))
        handle.call(REPORT)
        return self.context.host.lease_service_handle(handle, ttl=60.0).lease_id

    @handler
    def use(self, scope: str = "local") -> list[Any]:
        with self.lease_contract(CONTRACT, scope=ServiceScope(scope)) as service:
            held = list(self.resources.status())
            report = service.call(REPORT)
        return [report.calls, len(held), list(self.resources.status())]
