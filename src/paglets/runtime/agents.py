"""The kernel's table of paglets: one entry per paglet that has, or had until it crashed, a process on this host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from paglets.core.allowance import NO_LIMITS, NOTHING_USED, Allowance, AllowanceBalance
from paglets.core.errors import ConflictError, HostError, InvalidAgentError, OverloadedError, PagletCrashedError
from paglets.core.policies import RestartPolicy
from paglets.core.runtime_values import Durability
from paglets.core.terms import FIRST_ATTEMPT, DeliveryTerms
from paglets.protocol.delivery.window import DedupWindow
from paglets.protocol.mailbox import Mailbox
from paglets.protocol.supervision import MessageVerdict, Supervisor
from paglets.runtime.attachment import Attachment

if TYPE_CHECKING:
    from paglets.artifacts import PagletFileRef
    from paglets.persistence.rows import ReminderRow
    from paglets.runtime.place import Place

#: Bounds of one mailbox.
MAILBOX_MESSAGES = 10_000
MAILBOX_BYTES = 256 * 1024 * 1024
#: Bounds of what is held while it is undecided whether a paglet is here.
HELD_MESSAGES = 10_000
HELD_BYTES = 64 * 1024 * 1024
#: Repeated messages of one paglet that are remembered.
MOST_REPEATED = 1_000
#: What is remembered in memory of the messages that a paglet handled, unless that is on disk as well.
MOST_REMEMBERED = 256
MOST_REMEMBERED_BYTES = 256 * 1024


class Phase(Enum):
    """Where a paglet is in its life on this host; see the record on the shape of the runtime."""

    STARTING = "starting"
    ACTIVE = "active"
    CRASHED = "crashed"
    GONE = "gone"


DeliveryDone = Callable[[Attachment | None, Exception | None], None]


@dataclass(slots=True, eq=False)
class Delivery:
    """One message on its way to a paglet's handler, and who wants to know."""

    packed: Attachment
    kind: str
    priority: int
    message_id: str
    oneway: bool
    done: DeliveryDone
    terms: DeliveryTerms = FIRST_ATTEMPT
    deadline: float | None = None
    """Loop time after which nobody waits for the reply any more."""
    stored: bool = False
    """Whether the message is in the journal's queue, to be removed there when it is handled."""
    joined: list[DeliveryDone] | None = None
    """Senders who repeated the message while it was under way, and get the same reply."""
    wakes: int = 0
    """How often the message has woken its receiver, which went back to sleep before it was handled."""
    accepted: list[DeliveryDone] | None = None
    """Senders who repeated a one-way message while it was being stored, and are told when it is."""
    no_delay: bool = False
    """Whether it fails where its paglet goes to sleep first, and stays asleep, instead of being stored."""

    def answer(self, reply: Attachment | None, error: Exception | None) -> None:
        """Tell everyone who waits what became of the message; who sent it one-way has been told already."""
        if self.joined is not None:
            for done in self.joined:
                done(None if reply is None else Attachment.of([reply.bytes()]), error)
        if not self.oneway:
            self.done(reply, error)
        elif reply is not None:
            reply.close()

    def tell_accepted(self, error: Exception | None) -> None:
        """Tell whoever sent a one-way message that it was accepted, or why not."""
        self.done(None, error)
        repeated, self.accepted = self.accepted, None
        for done in repeated or ():
            done(None, error)


@dataclass(frozen=True, slots=True)
class HeldPosting:
    """A message that came while it was undecided whether its paglet is here."""

    again: Callable[[], None]
    """Posts it again."""
    done: DeliveryDone
    message_id: str = ""
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class SelfCall:
    """A lifecycle call that a paglet made on itself before it was active; it takes effect afterwards."""

    operation: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Opening:
    """What a new paglet is allowed, as far as that is known before its class has been imported."""

    given: Allowance | None = None
    """What whoever creates it says; None for what its class says."""
    cap: Allowance = NO_LIMITS
    """The most that it gets."""

    def balance(self, own: Allowance, now: float) -> AllowanceBalance:
        """Return what it begins with.

        :param own: what its class says.
        """
        return (own if self.given is None else self.given).within(self.cap).opened(now)


@dataclass(slots=True, eq=False)
class AgentEntry:
    """One paglet of this host."""

    agent_id: str
    class_name: str
    state_class_name: str
    epoch: int
    gone: asyncio.Future[dict[str, str] | None]
    """Resolved when the paglet leaves this host, with the wire form of its proxy if it lives on elsewhere or on
    disk."""
    lock: asyncio.Lock
    """Held by the one lifecycle operation in progress."""
    mailbox: Mailbox[Delivery]
    durability: Durability = Durability.CHECKPOINT
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    departure_hooks: frozenset[str] = frozenset()
    """The hooks before a departure that its class has."""
    balance: AllowanceBalance = NOTHING_USED
    """What it has used of its allowance, and what is left."""
    opening: Opening | None = None
    """Of a paglet that is being created: what its balance begins with, until that is known."""
    charging: bool = False
    """Whether a transfer is under way whose plan says what is left afterwards, so that nothing else may be spent."""
    holder: str = ""
    """The name of the key that created or brought it; empty for the host's own program."""
    home: str = ""
    """Base URL of the host it was created on, which always learns where it is."""
    window: DedupWindow = field(default_factory=lambda: DedupWindow(MOST_REMEMBERED, MOST_REMEMBERED_BYTES))
    """What became of the newest messages, for those that are sent again."""
    pulls: int = 0
    """Pulls at its streams that its process has not answered yet."""
    repeated: dict[str, None] = field(default_factory=dict)
    """Ids of messages that somebody sent again, the newest last."""
    window_lost_at: float | None = None
    """Loop time at which the paglet came back without its window, after a crash."""
    pending: dict[str, Delivery] = field(default_factory=dict)
    """The messages that were taken and not answered yet, by id."""
    current: Delivery | None = None
    """The message whose handler runs."""
    uncommitted: int = 0
    """Handled messages whose effects are on their way to the disk."""
    accepting: int = 0
    """One-way messages on their way to the disk, which are acknowledged when they are there."""
    removing: set[str] = field(default_factory=set)
    """Ids of messages that were handled, or withdrawn, and are about to be removed from the disk."""
    checkpoint_due: asyncio.TimerHandle | None = None
    checkpointing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a checkpoint is written."""
    checkpoint_failed: bool = False
    """Whether the newest checkpoint did not get to the disk, so that an unchanged state must be sent once more."""
    deaths: Supervisor = field(default_factory=Supervisor)
    verdict: MessageVerdict | None = None
    """What is to become of the message that was being handled when its process died."""
    held: list[HeldPosting] | None = None
    """While a transfer is undecided: what came meanwhile, to be posted again. None at all other times."""
    held_bytes: int = 0
    used_at: float = 0.0
    """Loop time at which its newest message was answered."""
    restarting: bool = False
    """Whether a crashed paglet is about to be started again, so that its messages wait."""
    reloads: int = 0
    """How often in a row it was started again because what it did could not be recorded."""
    recoveries: int = 0
    """How often it was tried again to bring it back after the death of its host."""
    phase: Phase = Phase.STARTING
    place: Place | None = None
    held_place: Place | None = None
    """The process on which the operation in progress began; a local move puts another in its place."""
    resources: dict[str, bool] = field(default_factory=dict)
    files: dict[str, PagletFileRef] = field(default_factory=dict)
    last_state: Attachment | None = None
    """The newest state blob the host has seen; shown when the process does not answer, and of a crashed paglet."""
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the paglet itself is on its way out."""
    creating: bool = False
    """Whether a failure of ``run`` still fails the creation instead of being a crash."""
    deferred: list[SelfCall] = field(default_factory=list)
    timers: dict[str, ReminderRow | None] | None = None
    """Of a paglet that is not on the disk of this host yet: the timers that it has set meanwhile, by name, None for one
    that it has forgotten. They get there with it."""
    mail_waits: bool = False
    """Whether messages were stored for it while it started."""
    notified: list[asyncio.Future[None]] = field(default_factory=list)
    calls_in_progress: int = 0
    """Calls of the paglet that the host has not answered yet."""
    idle_waiters: list[asyncio.Future[None]] = field(default_factory=list)
    exitcode: int | None = None
    error: str | None = None
    crashed_pid: int | None = None

    @property
    def durable(self) -> bool:
        """Whether the paglet has a row in the journal while it is active."""
        return self.durability is not Durability.NONE

    @property
    def crashed(self) -> bool:
        """Whether the paglet's process ended by itself."""
        return self.phase is Phase.CRASHED

    @property
    def active(self) -> bool:
        """Whether the paglet runs and has finished starting."""
        return self.phase is Phase.ACTIVE

    @property
    def in_use(self) -> bool:
        """Whether a message is being handled or waits, or an operation is in progress."""
        return bool(
            self.current is not None or len(self.mailbox) or self.uncommitted or self.accepting or self.lock.locked()
        )

    def live_place(self) -> Place:
        """Return the process of an active paglet.

        :raises PagletCrashedError: its process ended.
        :raises InvalidAgentError: it has none.
        """
        if self.phase is Phase.CRASHED:
            raise PagletCrashedError(f"paglet {self.agent_id} crashed: {self.error}")
        if self.place is None or self.phase is Phase.GONE:
            raise InvalidAgentError(f"paglet {self.agent_id} is not active")
        return self.place

    def accepted(self) -> list[Delivery]:
        """Return the one-way messages that were not handled yet: the one whose handler runs, and those that wait."""
        waiting = [queued.item for queued in self.mailbox.waiting()]
        return [delivery for delivery in (self.current, *waiting) if delivery is not None and delivery.oneway]

    def wake_idle_waiters(self) -> None:
        """Tell who waits for the running handler that it has ended."""
        waiters, self.idle_waiters = self.idle_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def remember_repeated(self, message_id: str) -> None:
        """Note that a message was sent again, so that a late first attempt is known for what it is."""
        self.repeated.pop(message_id, None)
        self.repeated[message_id] = None
        if len(self.repeated) > MOST_REPEATED:
            del self.repeated[next(iter(self.repeated))]

    def hold_back(self, posting: HeldPosting) -> None:
        """Hold a message until it is decided whether the paglet is here; it is not accepted yet.

        :raises OverloadedError: too much is held already.
        """
        held = self.held = [] if self.held is None else self.held
        if len(held) >= HELD_MESSAGES or self.held_bytes + posting.nbytes > HELD_BYTES:
            raise OverloadedError(
                f"{len(held)} messages of {self.held_bytes} bytes wait for paglet {self.agent_id}, which is on its "
                f"way; send this one again later"
            )
        held.append(posting)
        self.held_bytes += posting.nbytes

    def take_held(self, message_id: str) -> DeliveryDone | None:
        """Take out a message that is held; return who waits for its outcome."""
        for posting in self.held or ():
            if posting.message_id == message_id:
                (self.held or []).remove(posting)
                self.held_bytes -= posting.nbytes
                return posting.done
        return None

    def release_held(self, before: Iterable[HeldPosting] = ()) -> None:
        """Post again what came while a transfer was undecided.

        :param before: what is to be posted ahead of it.
        """
        held, self.held, self.held_bytes = self.held, None, 0
        for posting in (*before, *(held or ())):
            posting.again()

    def fail_held(self, error: BaseException) -> None:
        """Answer what came meanwhile with an error."""
        held, self.held, self.held_bytes = self.held, None, 0
        failure = error if isinstance(error, Exception) else HostError(f"paglet {self.agent_id} did not start")
        for posting in held or ():
            posting.done(None, failure)

    def remember_state(self, blob: Attachment) -> None:
        """Keep the newest state blob."""
        if self.last_state is not None and self.last_state is not blob:
            self.last_state.close()
        self.last_state = blob


class AgentTable:
    """The paglets with a process here, in the order in which they came."""

    def __init__(self, host_name: str) -> None:
        self._host_name = host_name
        self._entries: dict[str, AgentEntry] = {}

    def __contains__(self, agent_id: object) -> bool:
        return agent_id in self._entries

    def __iter__(self) -> Iterator[AgentEntry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def new(
        self, agent_id: str, class_name: str, state_class_name: str, *, epoch: int, loop: asyncio.AbstractEventLoop
    ) -> AgentEntry:
        """Add an entry that is starting.

        :raises ConflictError: the id is taken.
        """
        if agent_id in self._entries:
            raise ConflictError(f"paglet {agent_id} already exists on {self._host_name}")
        entry = AgentEntry(
            agent_id,
            class_name,
            state_class_name,
            epoch,
            gone=loop.create_future(),
            lock=asyncio.Lock(),
            mailbox=Mailbox(max_count=MAILBOX_MESSAGES, max_bytes=MAILBOX_BYTES),
        )
        entry.mailbox.pause()
        self._entries[agent_id] = entry
        return entry

    def get(self, agent_id: str) -> AgentEntry | None:
        """Return the entry of a paglet, or None."""
        return self._entries.get(agent_id)

    def require(self, agent_id: str) -> AgentEntry:
        """Return the entry of a paglet.

        :raises InvalidAgentError: no such paglet has a process here.
        """
        entry = self._entries.get(agent_id)
        if entry is None:
            raise InvalidAgentError(f"no active paglet {agent_id} on {self._host_name}")
        return entry

    def visible(self) -> list[AgentEntry]:
        """Return the paglets that are here for everyone to see: one that still starts or arrives is not."""
        return [entry for entry in self._entries.values() if entry.phase is not Phase.STARTING or entry.restarting]

    def remove(self, entry: AgentEntry) -> None:
        """Forget an entry; one that was replaced meanwhile stays."""
        if self._entries.get(entry.agent_id) is entry:
            del self._entries[entry.agent_id]

    def counts(self) -> tuple[int, int]:
        """Return how many paglets are active and how many crashed."""
        phases = [entry.phase for entry in list(self._entries.values())]
        return phases.count(Phase.ACTIVE), phases.count(Phase.CRASHED)
