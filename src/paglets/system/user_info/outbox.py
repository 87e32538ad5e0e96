"""What is still to be posted, when it is tried again, and when it is given up. No I/O, no clock, no randomness."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

MAX_PENDING: Final = 256
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 300.0
GIVE_UP_SECONDS: Final = 86_400.0
_MAX_DOUBLINGS: Final = 16


@dataclass(frozen=True)
class Delivery:
    """One notification on its way to one target; times are Unix seconds."""

    delivery_id: str
    target: str
    body: dict[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    next_at: float = 0.0
    attempts: int = 0


def with_new(pending: Iterable[Delivery], new: Iterable[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
    """Return what is pending with something new behind it, and what has to go for it: the oldest."""
    everything = [*pending, *new]
    excess = max(0, len(everything) - MAX_PENDING)
    return everything[excess:], everything[:excess]


def due(pending: Iterable[Delivery], *, now: float) -> list[Delivery]:
    """Return what is to be tried now: of each target the oldest, so that what it gets is in order."""
    return [each for each in heads(pending) if _wait(each, now) <= 0]


def seconds_to_next(pending: Iterable[Delivery], *, now: float) -> float | None:
    """Return how long there is nothing to try; None when nothing is pending."""
    return min((_wait(each, now) for each in heads(pending)), default=None)


def heads(pending: Iterable[Delivery]) -> list[Delivery]:
    """Return the oldest delivery to each target."""
    found: dict[str, Delivery] = {}
    for each in pending:
        found.setdefault(each.target, each)
    return list(found.values())


def without(pending: Iterable[Delivery], delivery: Delivery) -> list[Delivery]:
    """Return what is pending besides a delivery."""
    return [each for each in pending if each.delivery_id != delivery.delivery_id]


def after_failure(
    pending: Iterable[Delivery], delivery: Delivery, *, now: float, jitter: float, pause: float | None = None
) -> tuple[list[Delivery], bool]:
    """Return what is pending after a delivery failed, and whether it was given up because it is a day old.

    :param jitter: from 0 to 1; spreads those who wait for the same target over the second half of the pause.
    :param pause: seconds that the target asked for, at most five minutes.
    """
    everything = list(pending)
    if now - delivery.created_at >= GIVE_UP_SECONDS:
        return without(everything, delivery), True
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(delivery.attempts, _MAX_DOUBLINGS))
    seconds = longest * (0.5 + jitter / 2) if pause is None else min(max(pause, 0.0), LONGEST_PAUSE_SECONDS)
    later = replace(delivery, attempts=delivery.attempts + 1, next_at=now + seconds)
    return [later if each.delivery_id == delivery.delivery_id else each for each in everything], False


def _wait(delivery: Delivery, now: float) -> float:
    # A clock that was set back must not make a pause longer than the longest.
    return min(delivery.next_at - now, LONGEST_PAUSE_SECONDS)
