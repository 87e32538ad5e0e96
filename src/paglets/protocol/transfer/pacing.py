"""Space out what a transfer repeats without end."""

from __future__ import annotations

from typing import Final

from .model import TransferPlan

FIRST_PAUSE_AT_LEAST: Final = 0.05
"""Seconds; a ticket may ask for no pause between attempts, an endless loop may not have that."""
LONGEST_PAUSE: Final = 15.0
"""Seconds; short enough that a healed network shows soon, long enough that a dead peer costs nothing."""


def back_off(plan: TransferPlan, rounds: int) -> float:
    """Double the pause with every round, between the two limits above."""
    first: float = max(plan.retry_interval, FIRST_PAUSE_AT_LEAST)
    return min(first * float(2 ** min(rounds, 12)), max(LONGEST_PAUSE, plan.retry_interval))
