"""The disk of a simulated host: tables that only a synced unit of work changes, and that survive every crash.

A unit is a function of the disk, as it is of the open connection in a real journal. Until `sync` it is nothing: a crash
forgets it. Its callback runs later still, as a step of its own, so that a crash can fall between "on disk" and "told".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from paglets.protocol.delivery import DedupWindow, Remembered
from paglets.protocol.reminders import Reminder
from tests.protocol.memory_journal import MemoryJournal


@dataclass(frozen=True, slots=True)
class Msg:
    """One message; its receiver's log will say that it was handled."""

    id: str
    kind: str
    """`log`, `post` (sends two more), `remind` (sets a reminder), `poison` (likes to kill its receiver), `tick`."""
    sender: str
    receiver: str
    home: str
    """The host that created the receiver."""
    seq: int
    """Counts the messages of this sender to this receiver."""
    oneway: bool = False
    post_to: tuple[str, str] = ("", "")
    """For `post`: receiver and its home."""
    born: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """One owned paglet."""

    epoch: int
    home: str
    durable: bool
    """Whether it is `MESSAGE`; otherwise `CHECKPOINT`."""
    log: tuple[str, ...] = ()
    """Its state: the ids of the messages that it has handled."""
    status: str = "active"
    wakes: bool = True
    lost_at: float | None = None
    """When a window was last lost with a process."""


@dataclass(frozen=True, slots=True)
class Luggage:
    """What a paglet takes along."""

    row: Row
    queued: tuple[Msg, ...] = ()
    window: tuple[Remembered, ...] = ()
    reminders: tuple[Reminder, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a paglet is said to be; no URL where it ended."""

    epoch: int
    url: str | None
    home: str = ""


@dataclass(slots=True)
class Disk:
    """The tables."""

    paglets: dict[str, Row] = field(default_factory=dict)
    queued: dict[str, dict[str, Msg]] = field(default_factory=dict)
    handled: dict[str, DedupWindow] = field(default_factory=dict)
    reminders: dict[tuple[str, str], Reminder] = field(default_factory=dict)
    outbox: dict[str, Msg] = field(default_factory=dict)
    dead: dict[str, tuple[Msg, str]] = field(default_factory=dict)
    homes: dict[str, Place] = field(default_factory=dict)
    notices: dict[str, Place] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    departed_home: dict[str, str] = field(default_factory=dict)
    inert: dict[str, Luggage] = field(default_factory=dict)
    kept: dict[str, Luggage] = field(default_factory=dict)

    def luggage(self, agent: str, row: Row, window: tuple[Remembered, ...]) -> Luggage:
        """Pack what is stored of a paglet."""
        queued = tuple(self.queued.get(agent, {}).values())
        return Luggage(row, queued, window, tuple(r for key, r in self.reminders.items() if key[0] == agent))

    def unpack(self, agent: str, luggage: Luggage, row: Row) -> None:
        """Store a paglet with what it brought."""
        self.paglets[agent] = row
        if luggage.queued:
            self.queued[agent] = {m.id: m for m in luggage.queued}
        self.handled[agent] = DedupWindow()
        self.handled[agent].restore(luggage.window)
        for reminder in luggage.reminders:
            self.reminders[agent, reminder.name] = reminder

    def remove(self, agent: str) -> None:
        """Remove everything that is stored of a paglet."""
        self.paglets.pop(agent, None)
        self.queued.pop(agent, None)
        self.handled.pop(agent, None)
        for key in [key for key in self.reminders if key[0] == agent]:
            del self.reminders[key]

    def bury(self, agent: str, reason: str) -> None:
        """Move the queued messages of a paglet to the dead letters."""
        for message in self.queued.pop(agent, {}).values():
            self.dead[message.id] = (message, reason)

    def set_row(self, agent: str, **changes: Any) -> None:
        """Change a row, where it is still there."""
        row = self.paglets.get(agent)
        if row is not None:
            self.paglets[agent] = replace(row, **changes)


# -- units of work, but for their last argument ---------------------------------------------------------------------


def enqueue(message: Msg, disk: Disk) -> None:
    if message.receiver in disk.paglets:
        disk.queued.setdefault(message.receiver, {})[message.id] = message


def drop(messages: list[Msg], disk: Disk) -> None:
    for message in messages:
        disk.queued.get(message.receiver, {}).pop(message.id, None)


def bury_one(message: Msg, reason: str, disk: Disk) -> None:
    disk.queued.get(message.receiver, {}).pop(message.id, None)
    disk.dead[message.id] = (message, reason)


def sent(message: Msg, disk: Disk) -> None:
    disk.outbox.pop(message.id, None)


def undeliverable(message: Msg, reason: str, disk: Disk) -> None:
    if disk.outbox.pop(message.id, None) is not None:
        disk.dead[message.id] = (message, reason)


def notice_taken(agent: str, place: Place, disk: Disk) -> None:
    if disk.notices.get(agent) == place:
        del disk.notices[agent]


@dataclass(slots=True)
class Unit:
    """One unit of work that waits for its turn."""

    apply: Callable[[Disk], None]
    done: Callable[[bool], None]
    key: str = ""
    """Where one unit of a key failed, those after it fail too until the key is released."""


class Writer:
    """Collect units and put them on disk together."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.waiting: list[Unit] = []
        self.poisoned: set[str] = set()

    def put(self, apply: Callable[[Disk], None], done: Callable[[bool], None], key: str = "") -> None:
        self.waiting.append(Unit(apply, done, key))

    def sync(self, failed: bool, applied: bool) -> list[Callable[[], None]]:
        """Put everything that waits on disk; return what has to be told to whom.

        :param failed: whether the commit reports a failure
        :param applied: whether it is on disk all the same
        """
        units, self.waiting = self.waiting, []
        told: list[Callable[[], None]] = []
        for unit in units:
            ok = not failed and unit.key not in self.poisoned
            if ok or (failed and applied and unit.key not in self.poisoned):
                unit.apply(self.disk)
            told.append(_call(unit.done, ok))
        if failed:
            self.poisoned.update(unit.key for unit in units if unit.key)
        return told


def _call(done: Callable[[bool], None], ok: bool) -> Callable[[], None]:
    return lambda: done(ok)
