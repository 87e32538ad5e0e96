"""A paglet that sends clones of itself to other hosts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paglets.core.agent import Paglet, handler
from paglets.core.events import CloneEvent
from paglets.patterns.coordination import MeshFanoutMixin, MeshFanoutState
from paglets.protocol.membership import HostRef


@dataclass
class FanState(MeshFanoutState):
    note: str = ""
    hooks: list[str] = field(default_factory=list)
    hook_count: int = 0


class Fan(MeshFanoutMixin, Paglet[FanState]):
    State = FanState

    def on_cloning(self, event: CloneEvent) -> None:
        self.state.hooks.append("cloning")
        self.state.hook_count += 1

    def on_cloned(self, event: CloneEvent) -> None:
        self.state.hooks = [*self.state.hooks, "cloned"]
        self.state.hook_count += 1

    @handler
    def begin(self, timeout: float) -> float:
        self.fanout_reset(timeout=timeout)
        return self.state.deadline

    @handler
    def spread(self, targets: list[str]) -> None:
        for host in self.fanout_select_hosts(targets):
            self.clone_to(host, state_overrides={"note": "of the child"})

    @handler
    def spread_to(self, host: dict[str, Any], overrides: dict[str, Any]) -> str:
        try:
            self.clone_to(HostRef.from_wire(host), state_overrides=overrides)
        except Exception as exc:
            return str(exc)
        return ""

    @handler
    def copy(self, target: str, overrides: dict[str, Any]) -> str:
        return self.clone_to(target, state_overrides=overrides).agent_id

    @handler
    def answer(self) -> None:
        parent = self.context.get_proxy(self.state.parent_agent_id, self.state.parent_host_url)
        assert parent is not None
        parent.call(Fan.hear, self.state.target_host_name)

    @handler
    def hear(self, host_name: str) -> None:
        self.fanout_record_done(host_name)

    @handler
    def clean_up(self) -> None:
        self.fanout_cleanup_children()
