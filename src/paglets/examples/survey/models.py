"""What a survey counts, how its work is shared out, and what its paglets tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Self
from zlib import crc32

from paglets.core.agent import PagletState
from paglets.core.itinerary import ItineraryPlan
from paglets.remote.references import PagletProxyRef


class Stage(StrEnum):
    """How far a survey paglet has come."""

    PLAN = "plan"
    """Just created: it will share the work out."""
    WALK = "walk"
    """It walks its share; a clone wakes up here."""
    CARRY = "carry"
    """A clone on its way home with its result."""
    TOUR = "tour"
    """The merged result is shown around all hosts."""
    DONE = "done"
    """Home again."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was found. Files are regular files; the directory that is surveyed does not count itself."""

    files: int = 0
    bytes: int = 0
    directories: int = 0
    symlinks: int = 0
    others: int = 0
    """Sockets, pipes and devices."""
    unreadable: int = 0
    """Directories that cannot be listed, and entries of which nothing can be learned."""

    def __add__(self, other: Self) -> Counts:
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Counts)))


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work: one directory, alone or with everything below it, or a part of that."""

    path: bytes
    """Below the surveyed directory. Names of files are bytes to the system and need not be any text."""
    deep: bool
    part: int = 0
    parts: int = 1
    """In how many parts the entries of this directory were cut, because there are so many."""

    def takes(self, name: bytes) -> bool:
        """Tell whether an entry of the directory belongs to this part of it."""
        return self.parts == 1 or crc32(name) % self.parts == self.part


@dataclass(frozen=True, slots=True)
class Share:
    """What one host does."""

    host: str
    url: str
    units: list[Unit]


@dataclass(frozen=True, slots=True)
class ShareReport:
    """What came out of one share."""

    host: str
    counts: Counts
    seconds: float
    """How long the walk took."""


@dataclass(frozen=True, slots=True)
class SurveyProgress:
    """How far a survey has come, by host."""

    stage: Stage
    walked: dict[str, Counts]
    """What each host has found so far."""
    merged: list[str]
    """The hosts whose results are in."""


@dataclass(frozen=True, slots=True)
class FileSize:
    """A file and its size."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class TypeTotal:
    """All files of one type, that is with one extension."""

    type: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SurveyReport:
    """What came out of a survey."""

    totals: Counts
    shares: list[ShareReport]
    largest: list[FileSize]
    types: list[TypeTotal]
    unreadable: list[str]
    """The first of what could not be read, each with the reason."""


@dataclass
class SurveyState(PagletState):
    """What a survey paglet takes along. The rows it collects are not in here but in its file."""

    root: bytes = b""
    """Absolute path of the directory to survey."""
    skip: list[bytes] = field(default_factory=list)
    """Absolute paths of directories to leave out."""
    hosts: list[str] = field(default_factory=list)
    """Names of the hosts that share the work, the first one home."""
    stage: Stage = Stage.PLAN
    home: PagletProxyRef | None = None
    """The original, to which its clones report."""
    shares: list[Share] = field(default_factory=list)
    own: ShareReport | None = None
    """What this paglet's own share came to."""
    walked: dict[str, Counts] = field(default_factory=dict)
    """What the original has heard of the walks."""
    reports: list[ShareReport] = field(default_factory=list)
    """The shares that the original has merged."""
    route: ItineraryPlan = field(default_factory=ItineraryPlan)
