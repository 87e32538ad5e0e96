"""The points at which a test kills a host, by name, and what must be true when it comes back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "src"
_REACHED = re.compile(r"""\breached\(\s*["']([a-z.-]+)["']""")

SOURCE = "alpha"
"""The host that a paglet leaves; also that of everything that happens on one host."""
TARGET = "beta"
"""The host that it goes to."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point."""

    name: str
    owner: str = ""
    """Where the paglet must be after a single attempt to move it: before the commit record is on disk at the source,
    from then on at the target. Empty for the instant in which the record is being written."""

    @property
    def owners(self) -> tuple[str, ...]:
        """The hosts on which it may be."""
        return (self.owner,) if self.owner else (SOURCE, TARGET)


SOURCE_POINTS = (
    Point("source.prepare-sent", SOURCE),
    Point("source.voted", SOURCE),
    Point("source.committing"),
    Point("source.committed", TARGET),
    Point("source.commit-sent", TARGET),
    Point("source.acknowledged", TARGET),
    Point("source.releasing", TARGET),
    Point("source.released", TARGET),
    Point("source.settled", TARGET),
)
#: Those that only a paglet with large files comes by.
SOURCE_FILE_POINTS = (
    Point("source.blob-sending", SOURCE),
    Point("source.blob-sent", SOURCE),
)
TARGET_POINTS = (
    Point("target.received", SOURCE),
    Point("target.materialised", SOURCE),
    Point("target.started", SOURCE),
    Point("target.arrived", SOURCE),
    Point("target.storing", SOURCE),
    Point("target.prepared", SOURCE),
    Point("target.activating", TARGET),
    Point("target.activated", TARGET),
    Point("target.acknowledged", TARGET),
)
TARGET_FILE_POINTS = (
    Point("target.blob-received"),
    Point("target.blob-stored"),
)
SLEEP_POINTS = ("sleep.stored", "wake.started", "wake.activated")
MESSAGE_POINTS = ("message.accepted", "message.handled", "message.recorded", "outbox.sent")
CREATION_POINTS = ("create.started", "create.stored")
REMINDER_POINTS = ("reminder.due", "reminder.queued")

ALL_POINTS = frozenset(
    [point.name for point in (*SOURCE_POINTS, *TARGET_POINTS, *SOURCE_FILE_POINTS, *TARGET_FILE_POINTS)]
    + [*SLEEP_POINTS, *MESSAGE_POINTS, *CREATION_POINTS, *REMINDER_POINTS]
)


def points_in_sources() -> frozenset[str]:
    """Return the names of the points that the sources have."""
    return frozenset(
        name
        for path in sorted((SOURCES / "paglets").rglob("*.py"))
        if path.name != "faults.py"
        for name in _REACHED.findall(path.read_text())
    )
