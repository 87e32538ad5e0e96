"""The life of one paglet on a simulated host: its process, its mailbox, who waits for what."""

from __future__ import annotations

from dataclasses import dataclass, field

from paglets.protocol.delivery import DedupWindow
from paglets.protocol.mailbox import Mailbox
from paglets.protocol.supervision import Supervisor

from .system_disk import Msg, Row
from .system_post import Request

PRIORITY = 5
#: What takes messages; in any other phase they are held back until it is decided.
OPEN = frozenset({"live", "waking", "cloning"})


@dataclass(slots=True)
class Flight:
    """One message that is here and not handled yet."""

    message: Msg
    waiters: list[Request] = field(default_factory=list)
    """Who wants to know: a reply, or that it is accepted."""
    stored: bool = False
    """Whether it is accepted: on disk, or good enough for a paglet that is not durable."""


@dataclass(slots=True)
class Proc:
    """One paglet that is not asleep."""

    agent: str
    epoch: int
    home: str
    durable: bool
    log: list[str]
    window: DedupWindow
    lost_at: float | None
    phase: str = "live"
    """`live`, `waking`, `cloning`; `departing`, `sleeping`, `ending`: undecided, nothing is accepted."""
    mailbox: Mailbox[Msg] = field(default_factory=Mailbox)
    flight: dict[str, Flight] = field(default_factory=dict)
    handling: Msg | None = None
    alive: bool = True
    """False while the process is dead and going to be started again."""
    failing: bool = False
    """What it did could not be written: it is ahead of the disk."""
    pending: int = 0
    """Units of work about it that are not settled."""
    uncommitted: list[Msg] = field(default_factory=list)
    """Handled, the unit not settled."""
    dirty: bool = False
    moving: str = ""
    """The transfer it is stopped for."""
    restart_at: float = 0.0
    supervisor: Supervisor = field(default_factory=Supervisor)

    @classmethod
    def of(cls, agent: str, row: Row, window: DedupWindow) -> Proc:
        return cls(agent, row.epoch, row.home, row.durable, list(row.log), window, row.lost_at)

    @property
    def idle(self) -> bool:
        """Tell whether what the disk says of it is all there is to say."""
        return self.handling is None and not self.pending and self.alive and not self.failing

    @property
    def settled(self) -> bool:
        """Tell whether everything that it has handled is on disk; messages may still be on their way there."""
        return self.handling is None and not self.uncommitted and self.alive and not self.failing

    @property
    def busy(self) -> bool:
        """Tell whether its handler can do something."""
        if not self.alive or self.failing:
            return False
        return self.handling is not None or (self.phase == "live" and len(self.mailbox) > 0)

    def waiters(self) -> list[Request]:
        """Return who waits, in the order of the messages."""
        return [request for flight in self.flight.values() for request in flight.waiters]

    def accepted(self) -> list[Msg]:
        """Return the waiting messages that somebody was told are accepted (a reply "queued" says so too)."""
        return [queued.item for queued in self.mailbox.waiting() if self.flight[queued.item.id].stored]
