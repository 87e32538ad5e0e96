"""A paglet that notifies the user, and one that passes such notifications on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler
from paglets.patterns.notifications import NotificationMixin, NotificationSeverity
from paglets.services.contracts import ServiceContract, ServiceOperation


@dataclass
class CrierState(PagletState):
    pass


class Crier(NotificationMixin, Paglet[CrierState]):
    State = CrierState

    @handler
    def cry(self, severity: str, title: str, text: str, job_id: str = "") -> bool:
        return self.notify_user_info(
            NotificationSeverity(severity), title, text, job_id=job_id, metadata={"k": "v"}, timeout=5.0
        )

    @handler
    def cry_plainly(self, severity: Any) -> bool:
        return self.notify_user_info(severity, "title", "text", timeout=5.0)


@dataclass(frozen=True, slots=True)
class Notice:
    severity: str = "info"
    title: str = ""
    message: str = ""
    source_agent_id: str = ""
    job_id: str = ""
    timestamp: float = 0.0
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NoticeReply:
    ok: bool = True


@dataclass
class BellmanState(PagletState):
    heard: list[dict[str, Any]] = field(default_factory=list)
    answer: str = ""


class Bellman(Paglet[BellmanState]):
    State = BellmanState

    @handler
    def offer(self, version: str, answer: str = "") -> None:
        operation = ServiceOperation("notify", Notice, NoticeReply)
        self.state.answer = answer
        self.advertise_contract(ServiceContract("user-info", (operation,), version))

    @handler
    def notify(self, **notice: Any) -> Any:
        if self.state.answer == "raise":
            raise ValueError("no bell")
        self.state.heard.append(notice)
        return {"": {"ok": True}, "refuse": {"ok": False}, "odd": 3}[self.state.answer]

    @handler
    def heard(self) -> list[dict[str, Any]]:
        return self.state.heard
