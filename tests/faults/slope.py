"""Does a figure grow for ever? The least-squares line through what was measured after the warm-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trend:
    """A line through samples."""

    first: float
    """Mean of the first tenth of the samples."""
    last: float
    """Mean of the last tenth."""
    per_minute: float
    """Slope of the line."""


def floor(samples: Sequence[tuple[float, float]], seconds: float) -> list[tuple[float, float]]:
    """Return the lowest of the figures in each stretch of so many seconds, with the times when they were measured."""
    lowest: dict[int, tuple[float, float]] = {}
    for when, figure in samples:
        stretch = int((when - samples[0][0]) // seconds)
        if stretch not in lowest or figure < lowest[stretch][1]:
            lowest[stretch] = when, figure
    return [lowest[stretch] for stretch in sorted(lowest)]


def trend(samples: Sequence[tuple[float, float]], *, warm_up: float) -> Trend:
    """Return the line through samples of (seconds, figure), without those of the first `warm_up` seconds.

    :raises ValueError: fewer than three are left.
    """
    kept = [(when, figure) for when, figure in samples if when >= samples[0][0] + warm_up]
    if len(kept) < 3:
        raise ValueError(f"{len(kept)} samples after the warm-up are too few for a line")
    mean_when = sum(when for when, _ in kept) / len(kept)
    mean = sum(figure for _, figure in kept) / len(kept)
    spread = sum((when - mean_when) ** 2 for when, _ in kept)
    slope = sum((when - mean_when) * (figure - mean) for when, figure in kept) / spread
    tenth = max(1, len(kept) // 10)
    return Trend(
        sum(figure for _, figure in kept[:tenth]) / tenth,
        sum(figure for _, figure in kept[-tenth:]) / tenth,
        slope * 60.0,
    )
