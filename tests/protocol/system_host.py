"""A simulated host: a thin shell over the real cores of delivery, supervision and reminders.

The transfers of a host are in `system_moves`. Everything here but `disk` is forgotten in a crash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from paglets.core.terms import FIRST_ATTEMPT, DeliveryTerms
from paglets.protocol.delivery import (
    HANDLED,
    Arriving,
    Asleep,
    Crashed,
    DedupWindow,
    Deliver,
    Departed,
    Departing,
    Elsewhere,
    Ended,
    Forward,
    Forwarding,
    Hold,
    Join,
    Knowledge,
    Live,
    Outcome,
    Queue,
    Refuse,
    Repeat,
    Wake,
    newest,
    route,
)
from paglets.protocol.mailbox import MailboxState, Queued
from paglets.protocol.reminders import TimerQueue, reminder
from paglets.protocol.transfer import ParticipantPhase

from .system_disk import Disk, Luggage, Msg, Row, Writer, enqueue, notice_taken
from .system_errands import Errands
from .system_lives import Lives
from .system_post import Answer, AnswerKind, Body, Courier, ItIs, Notice, NoticeTaken, Request, WhereIs
from .system_process import OPEN, PRIORITY, Flight, Proc

if TYPE_CHECKING:
    from .system_moves import Machine
    from .system_world import World

_UNDECIDED = frozenset({ParticipantPhase.PREPARED, ParticipantPhase.ACTIVATING, ParticipantPhase.ACTIVATE_WAIT})
_ENDED = Ended()


class Host(Courier):
    """Hold what one host knows, on disk and in memory."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.disk = Disk()
        self.lives = Lives(self)
        self.errands = Errands(self)
        self._forget()
        self.up = True

    def _forget(self) -> None:
        self.writer = Writer(self.disk)
        self.calls.clear()
        self.ready.clear()
        self.procs: dict[str, Proc] = {}
        self.machines: dict[tuple[str, str], Machine] = {}
        self.luggage: dict[str, Luggage] = {}
        self.held: dict[str, list[Request]] = {}
        self.queueing: Counter[str] = Counter()
        """How many units of work that store messages for sleepers are not settled."""
        self.timers: TimerQueue[tuple[str, str]] = TimerQueue()
        self.sending: set[tuple[str, str]] = set()
        self.attempts: dict[str, int] = {}

    def crash(self) -> None:
        self.up = False
        for agent, proc in self.procs.items():
            if not proc.durable:
                self.world.window_lost(agent)
        self._forget()

    def boot(self) -> None:
        """Read the disk, then answer."""
        self.up = True
        self.attempts = dict.fromkeys(self.disk.outbox, 2)  # whether they were sent before is not known
        for agent, row in self.disk.paglets.items():
            if row.status == "active":
                proc = self.procs[agent] = self.start(agent, row)
                if not row.durable:
                    self.lost_window(proc)
                self.lives.load_queue(proc)
        for key, row_ in self.disk.reminders.items():
            self.timers.set(key, row_.due)

    def start(self, agent: str, row: Row) -> Proc:
        window = DedupWindow()
        window.restore(self.disk.handled.get(agent, DedupWindow()).export())
        return Proc.of(agent, row, window)

    def lost_window(self, proc: Proc) -> None:
        proc.window = DedupWindow()
        proc.lost_at = self.world.now
        self.world.window_lost(proc.agent)

    def persist(self, apply: Callable[[Disk], None], done: Callable[[], None] | None = None) -> None:
        """Put a unit on disk, again and again until it is there (or the host crashes)."""

        def settled(ok: bool) -> None:
            if not ok:
                self.writer.put(apply, settled)
            elif done is not None:
                done()

        self.writer.put(apply, settled)

    # -- messages that come in ---------------------------------------------------------------------------------------

    def take(self, body: Body) -> None:
        """Take what the network brings, transfers excepted."""
        match body:
            case Request():
                self.receive(body)
            case Answer():
                self.answered(body)
            case WhereIs(frm, call, agent):
                self.world.send(self.name, frm, ItIs(call, self.knowledge(agent)))
            case ItIs():
                self.told(body)
            case Notice():
                self.errands.notice(body)
            case NoticeTaken(agent, place):
                self.persist(partial(notice_taken, agent, place))
            case _:
                raise AssertionError(body)

    def knowledge(self, agent: str) -> Knowledge:
        proc = self.procs.get(agent)
        if proc is not None:
            return Live(proc.durable) if proc.phase in OPEN else Departing()
        for machine in self.machines.values():
            if machine.side == "target" and machine.plan.agent_id == agent and machine.state.phase in _UNDECIDED:
                return Arriving()
        disk = self.disk
        row = disk.paglets.get(agent)
        if row is not None:
            if row.status == "inactive":
                return Asleep(row.wakes, True, row.durable)
            # Active without a process: a commit that was called off is being taken back.
            return Crashed("died", row.durable) if row.status == "crashed" else Departing()
        if agent in disk.ended:
            return _ENDED
        left = disk.journal.departed(agent)
        home = disk.departed_home.get(agent, "")
        departed = None if left is None else Departed(left[0], left[1], "" if home == self.name else home)
        told = disk.homes.get(agent)
        if told is None:
            return newest(departed, None)
        if told.url is None:
            return _ENDED
        return newest(departed, Elsewhere(told.epoch, told.url))

    def receive(self, request: Request) -> None:
        """Do with a message what the receiver's whereabouts ask for."""
        if self.world.outlived(request):
            return
        message, attempt, hops = request.message, request.attempt, request.hops
        agent = message.receiver
        knowledge = self.knowledge(agent)
        proc = self.procs.get(agent)
        row = self.disk.paglets.get(agent)
        lost_at = proc.lost_at if proc is not None else row.lost_at if row is not None else None
        decision = route(
            agent,
            knowledge,
            FIRST_ATTEMPT if attempt == 1 and not hops else DeliveryTerms(attempt=attempt, hops=hops),
            message.id,
            window=proc.window if proc is not None else self.disk.handled.get(agent),
            in_flight=proc.flight if proc is not None else self.disk.queued.get(agent, ()),
            window_lost_for=None if lost_at is None else self.world.now - lost_at,
        )
        if self.world.bug == "no-hold" and isinstance(decision, Hold) and proc is not None:
            decision = Deliver()
        match decision:
            case Deliver():
                assert proc is not None
                self._deliver(proc, request)
            case Join():
                self._join(proc, request)
            case Repeat(outcome):
                self._repeat(request, outcome)
            case Wake():
                self.lives.wake(agent)
                self.receive(request)
            case Queue():
                self.queueing[agent] += 1
                self.writer.put(partial(enqueue, message), partial(self._queued, request))
            case Hold():
                self.held.setdefault(agent, []).append(request)
            case Forward():
                self.carry(decision, message, attempt, hops + 1, partial(self._forwarded, request))
            case Refuse(reason):
                kind: AnswerKind = "refused"
                if reason.value in ("unknown", "ended"):
                    kind = "unknown" if reason.value == "unknown" else "ended"
                self.answer(request, kind, reason.value)

    def answer(self, request: Request, kind: AnswerKind, value: str = "", location: str = "") -> None:
        self.world.send(self.name, request.frm, Answer(request.call, kind, value, location or self.name))

    def answer_all(self, flight: Flight | None, kind: AnswerKind, value: str = "") -> None:
        if flight is not None:
            for request in flight.waiters:
                self.answer(request, "accepted" if kind == "ok" and request.message.oneway else kind, value)
            flight.waiters.clear()

    def _forwarded(self, request: Request, answer: Answer, state: Forwarding) -> None:
        self.answer(request, answer.kind, answer.value, answer.location)

    def _deliver(self, proc: Proc, request: Request) -> None:
        message = request.message
        flight = proc.flight[message.id] = Flight(message, [request])
        if message.oneway and proc.durable:
            self.accept(proc, message)
            if self.world.bug == "ack-before-sync":
                self.answer_all(flight, "accepted")
            return
        proc.mailbox.push(message, PRIORITY)
        if message.oneway:
            flight.stored = True
            self.answer_all(flight, "accepted")

    def accept(self, proc: Proc, message: Msg) -> None:
        proc.pending += 1
        self.writer.put(partial(enqueue, message), partial(self._accepted, proc, message))

    def _accepted(self, proc: Proc, message: Msg, ok: bool) -> None:
        proc.pending -= 1
        flight = proc.flight.get(message.id)
        # A write that failed may have happened: the disk says.
        ok = ok or message.id in self.disk.queued.get(proc.agent, ())
        if not ok:
            self.answer_all(proc.flight.pop(message.id, None), "failed", "storage")
        else:
            self.answer_all(flight, "accepted")
            if flight is not None and proc.mailbox.state is not MailboxState.CLOSED:
                flight.stored = True
                proc.mailbox.push(message, PRIORITY, bounded=False)
        self._settled(proc)

    def _join(self, proc: Proc | None, request: Request) -> None:
        if proc is None:
            self.answer(request, "accepted")
            return
        flight = proc.flight[request.message.id]
        if request.message.oneway and flight.stored:
            self.answer(request, "accepted")
        else:
            flight.waiters.append(request)

    def _repeat(self, request: Request, outcome: Outcome | None) -> None:
        if request.message.oneway:
            self.answer(request, "accepted")
        elif outcome is None or outcome.reply is None:
            self.answer(request, "failed", "reply not held")
        else:
            self.answer(request, "ok", outcome.reply.decode())

    def _queued(self, request: Request, ok: bool) -> None:
        self.adopt(request.message)
        self.answer(request, "accepted" if ok else "failed")

    def adopt(self, message: Msg) -> None:
        """Take a message that was stored for a sleeper, or was not, to the process that it was woken in meanwhile."""
        self.queueing[message.receiver] -= 1
        proc = self.procs.get(message.receiver)
        if proc is None:
            return
        proc.pending -= 1
        if message.id not in self.disk.queued.get(proc.agent, ()) or proc.mailbox.state is MailboxState.CLOSED:
            return
        self.lives.in_memory(proc, [message])
        # Its repetition may have found the paglet awake already.
        flight = proc.flight.get(message.id)
        if flight is not None:
            flight.stored = True
        elif not proc.window.seen(message.id):
            proc.flight[message.id] = Flight(message, [], stored=True)
            proc.mailbox.push(message, PRIORITY, bounded=False)

    def release_held(self, agent: str, first: list[Request] | None = None) -> None:
        """Route again what waited for a decision: first who waited for a reply, then who was held back."""
        for request in [*(first or ()), *self.held.pop(agent, ())]:
            self.ready.append(partial(self.receive, request))

    # -- handlers ----------------------------------------------------------------------------------------------------

    def work(self, proc: Proc) -> None:
        """Let a process do its next small thing: begin a handler, or end it."""
        if proc.handling is None:
            proc.handling = proc.mailbox.next()
        else:
            message, proc.handling = proc.handling, None
            proc.log.append(message.id)
            outcome = Outcome(reply=str(len(proc.log) - 1).encode())
            proc.mailbox.done()
            if proc.durable:
                self._record(proc, message, HANDLED if message.kind == "tick" else outcome)
            else:
                proc.window.remember(message.id, outcome)
                proc.dirty = True
                assert outcome.reply is not None
                self.answer_all(proc.flight.pop(message.id), "ok", outcome.reply.decode())

    def _record(self, proc: Proc, message: Msg, outcome: Outcome) -> None:
        world, agent, log = self.world, proc.agent, tuple(proc.log)
        posts: list[Msg] = []
        timer = None
        if message.kind == "post":
            receiver, home = message.post_to
            posts = [
                Msg(f"{message.id}>{n}", "log", f"{agent}@{self.name}{proc.epoch}", receiver, home, n, True)
                for n in (1, 2)
            ]
        elif message.kind == "remind":
            every = 5.0 if world.chance(0.5) else None
            timer = reminder(agent, message.id, world.now, series=world.fresh("s"), after=3.0, every=every)

        def apply(disk: Disk) -> None:
            disk.set_row(agent, log=log, status="active")
            disk.queued.get(agent, {}).pop(message.id, None)
            if world.bug != "no-window":
                disk.handled.setdefault(agent, DedupWindow()).remember(message.id, outcome)
            disk.outbox.update((post.id, post) for post in posts)
            world.posted(posts)
            if timer is not None:
                disk.reminders[agent, timer.name] = timer
                world.reminded(timer)

        proc.pending += 1
        proc.uncommitted.append(message)
        self.writer.put(apply, partial(self._recorded, proc, message, outcome), key=f"{agent}/{proc.epoch}")
        if world.bug == "ack-before-sync" and outcome.reply is not None:
            self.answer_all(proc.flight.get(message.id), "ok", outcome.reply.decode())

    def _recorded(self, proc: Proc, message: Msg, outcome: Outcome, ok: bool) -> None:
        proc.pending -= 1
        if ok:
            proc.uncommitted.remove(message)
            proc.window.remember(message.id, outcome)
            reply = "" if outcome.reply is None else outcome.reply.decode()
            self.answer_all(proc.flight.pop(message.id, None), "ok", reply)
            for key, row in self.disk.reminders.items():
                if key[0] == proc.agent and key not in self.timers:
                    self.timers.set(key, row.due)
        else:
            proc.failing = True
            if proc.handling is not None:
                proc.handling = None
                proc.mailbox.put_back()
        self._settled(proc)

    def _settled(self, proc: Proc) -> None:
        """Start a process again that is ahead of the disk, once every unit of it is settled."""
        if not proc.failing or proc.pending:
            return
        proc.failing = False
        self.writer.poisoned.discard(f"{proc.agent}/{proc.epoch}")
        again = proc.uncommitted
        proc.uncommitted = []
        proc.window = DedupWindow()
        proc.window.restore(self.disk.handled.get(proc.agent, DedupWindow()).export())
        if proc.mailbox.state is MailboxState.CLOSED:
            for message in again:
                self.answer_all(proc.flight.pop(message.id, None), "failed", "storage")
            return
        proc.log = list(self.disk.paglets[proc.agent].log)
        back = []
        for message in again:
            if proc.window.seen(message.id):
                flight = proc.flight.pop(message.id)
                for request in flight.waiters:
                    self._repeat(request, proc.window.outcome(message.id))
            else:
                back.append(Queued(message, PRIORITY, 0))
        proc.mailbox.restore(back)

    def checkpoint(self, proc: Proc) -> None:
        proc.dirty = False
        proc.pending += 1
        log = tuple(proc.log)

        def done(ok: bool) -> None:
            proc.pending -= 1
            proc.dirty = proc.dirty or not ok

        self.writer.put(lambda disk: disk.set_row(proc.agent, log=log), done)
