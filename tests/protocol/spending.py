"""The books of a simulated world: what its paglets were given, and what they must have left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from paglets.core.allowance import Allowance, AllowanceBalance
from paglets.protocol.transfer import TransferKind, TransferPlan

BALANCE: Final = Allowance(max_hops=12, max_clones=5).opened(0.0)
"""What every paglet of a world begins with."""


class ViolationError(AssertionError):
    """An invariant of the transfer does not hold."""


@dataclass(slots=True)
class Spending:
    """Note every commit, and compare with what the paglets have."""

    hops: dict[str, int] = field(default_factory=dict)
    """Moves between hosts that were committed, by paglet; of a clone those of its original too."""
    clones: dict[str, int] = field(default_factory=dict)
    """Clones that were committed, by the paglet that the family began with."""
    gone: dict[str, int] = field(default_factory=dict)
    """Clones that ended paglets of a family had left."""

    def committed(self, plan: TransferPlan) -> None:
        """Note a transfer whose commit record is on disk."""
        crosses = plan.source != plan.target and plan.kind is not TransferKind.LOCAL
        if plan.origin_id:
            self.clones[_family(plan)] = self.clones.get(_family(plan), 0) + 1
            self.hops[plan.agent_id] = self.hops.get(plan.origin_id, 0)
        self.hops[plan.agent_id] = self.hops.get(plan.agent_id, 0) + crosses

    def undone(self, plan: TransferPlan) -> None:
        """Note a commit that was erased."""
        crosses = plan.source != plan.target and plan.kind is not TransferKind.LOCAL
        if plan.origin_id:
            self.clones[_family(plan)] -= 1
            del self.hops[plan.agent_id]
        else:
            self.hops[plan.agent_id] -= crosses

    def ended(self, agent: str, balance: AllowanceBalance) -> None:
        """Note what a paglet takes with it."""
        family = agent.partition("/")[0]
        self.gone[family] = self.gone.get(family, 0) + (balance.clones_left or 0)

    def check(self, balances: dict[str, AllowanceBalance]) -> None:
        """Compare with what living paglets have."""
        left: dict[str, int] = {}
        for agent, balance in balances.items():
            used = self.hops.get(agent, 0)
            if balance.hops_used != used or used + (balance.hops_left or 0) != BALANCE.hops_left:
                raise ViolationError(f"{agent} moved {used} times, and its books say {balance}")
            family = agent.partition("/")[0]
            left[family] = left.get(family, 0) + (balance.clones_left or 0)
        for family, clones in left.items():
            total = clones + self.clones.get(family, 0) + self.gone.get(family, 0)
            if total != BALANCE.clones_left:
                raise ViolationError(f"the family of {family} has {total} clones instead of {BALANCE.clones_left}")


def _family(plan: TransferPlan) -> str:
    return plan.agent_id.partition("/")[0]
