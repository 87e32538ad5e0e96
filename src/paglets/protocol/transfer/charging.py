"""Work out what a transfer costs a paglet, before it begins.

The plan of the transfer holds the outcome, so both sides and both journals have the same one however often a request is
repeated. It comes into force with the two writes that make the transfer: what the paglet carries, with the record
that makes the target its owner; what an original keeps, with the commit record. A transfer that is aborted costs
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.allowance import AllowanceBalance, AllowanceExcess

from .model import TransferKind


@dataclass(frozen=True, slots=True)
class Charge:
    """Say what there is after a transfer."""

    carried: AllowanceBalance
    """What arrives."""
    kept: AllowanceBalance | None = None
    """What the original of a clone has left; None where nothing stays."""


def charge(
    balance: AllowanceBalance, kind: TransferKind, *, source: str, target: str, now: float
) -> Charge | AllowanceExcess:
    """Charge a paglet for a transfer, or say what it has not enough of.

    A move to another host costs one hop, one inside a host nothing. A clone costs one clone, and the clone one hop
    where it begins on another host. Whoever is held, or whose time is over, may do neither.

    :param source: the URL of the host that has it
    :param target: the URL of the host that is to have it
    :param now: Unix time
    """
    excess = balance.held(now)
    if kind is TransferKind.CLONE:
        excess = excess or balance.no_clone()
    crosses = source != target and kind is not TransferKind.LOCAL
    if crosses:
        excess = excess or balance.no_hop()
    if excess is not None:
        return excess
    if kind is not TransferKind.CLONE:
        return Charge(balance.hop() if crosses else balance)
    kept, given = balance.split()
    return Charge(given.hop() if crosses else given, kept)
