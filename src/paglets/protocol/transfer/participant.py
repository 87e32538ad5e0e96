"""Take part at the target of a transfer: vote, then do as the source decided. See the package's docstring."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias

from . import actions, events
from .model import (
    ActivatedRecord,
    LifecycleCall,
    Outcome,
    PreparedRecord,
    Refusal,
    RefusalReason,
    TransferKind,
    TransferPlan,
    TransferProtocolError,
)
from .pacing import back_off

MOST_DEFERRED_CALLS: Final = 16
"""How many lifecycle calls an arriving paglet may leave waiting; only the first that takes it away can matter."""
MOST_TOMBSTONE_TEXT: Final = 500
"""How much of a refusal is repeated to a late question."""


class ParticipantPhase(StrEnum):
    """Say what the target waits for."""

    ABSENT = "absent"
    CHECKING = "checking"
    FILES = "files"
    STARTING = "starting"
    HOOK = "hook"
    STORING = "storing"
    PREPARED = "prepared"
    """The vote is on disk: from here only the source decides, however long that takes."""
    ACTIVATING = "activating"
    ACTIVATE_WAIT = "activate-wait"
    ACTIVE = "active"
    """The paglet is owned here (it may have left again since); the record answers repeated COMMITs."""
    REFUSED = "refused"
    """This side said no; a later attempt may try again where the reason allows."""
    ABORTED = "aborted"
    """The source called it off: the tombstone that keeps a delayed PREPARE from starting anything."""
    FORGOTTEN = "forgotten"


_P = ParticipantPhase
_IN_FLIGHT = frozenset({_P.CHECKING, _P.FILES, _P.STARTING, _P.HOOK, _P.STORING})
_OPEN_FOR_CALLS = frozenset({_P.STARTING, _P.HOOK, _P.STORING, _P.PREPARED, _P.ACTIVATING, _P.ACTIVATE_WAIT})
_CALLED_OFF: Final = Refusal(RefusalReason.ABORTED, "the source called the transfer off")


@dataclass(frozen=True, slots=True)
class ParticipantState:
    """Hold one transfer as the target knows it."""

    phase: ParticipantPhase = ParticipantPhase.ABSENT
    plan: TransferPlan | None = None
    attempt: int = 0
    """The highest attempt of the source that was looked at."""
    vote: str = ""
    cold: bool = False
    """The process died with an earlier life of this host; only the inert copy is left."""
    deferred: tuple[LifecycleCall, ...] = ()
    refusal: Refusal | None = None
    doomed: bool = False
    """ABORT came while an action was in flight; its end discards."""
    rounds: int = 0
    """Unanswered tries, for the back-off."""

    @property
    def terminal(self) -> bool:
        """Tell whether the shell may drop the machine, once it has kept the `tombstone`."""
        return self.phase in (_P.ABSENT, _P.REFUSED, _P.ABORTED, _P.FORGOTTEN)


ParticipantStep: TypeAlias = tuple[ParticipantState, tuple[actions.ParticipantAction, ...]]


def tombstone(state: ParticipantState) -> ParticipantState | None:
    """Return what is worth keeping of a transfer that has ended; None where a late event finds nothing to repeat.

    It is small whatever the transfer was: no plan, and of a refusal neither the exception, whose traceback holds all
    that was under way when it was raised, nor more than `MOST_TOMBSTONE_TEXT` characters.
    """
    match state.phase:
        case _P.ABORTED | _P.REFUSED:
            refusal = state.refusal
            if refusal is not None:
                refusal = replace(refusal, cause=None, text=refusal.text[:MOST_TOMBSTONE_TEXT])
            return ParticipantState(state.phase, attempt=state.attempt, refusal=refusal)
        case _P.ABSENT | _P.FORGOTTEN:
            # To every event the same: whether it may come is judged by epochs.
            return None
        case _:
            raise TransferProtocolError(f"a transfer that is {state.phase} has not ended")


def restore(record: PreparedRecord | ActivatedRecord) -> ParticipantStep:
    """Take a transfer up again after a restart of the target, and ask the source for it."""
    if isinstance(record, PreparedRecord):
        state = ParticipantState(_P.PREPARED, record.plan, vote=record.vote, cold=True, deferred=record.deferred)
    else:
        state = ParticipantState(_P.ACTIVE, record.plan, vote=record.vote)
    return state, (actions.QueryOutcome(record.vote),)


def judge_epoch(
    plan: TransferPlan, *, live: int | None, departed: int | None, undecided: str | None = None
) -> Refusal | None:
    """Judge a PREPARE by what this host knows of the paglet; part of `CheckAdmission`.

    :param live: the epoch that is active, moving out or inactive here, or None
    :param departed: the highest epoch that this host handed over to another, or None
    :param undecided: the id of a transfer of which an inert copy of this paglet is here, or None
    :return: None where the paglet may come in
    """
    if departed is not None and departed >= plan.epoch:
        return Refusal(RefusalReason.STALE, f"epoch {departed} of {plan.agent_id} has been here already")
    if live is not None and live >= plan.epoch:
        return Refusal(RefusalReason.STALE, f"epoch {live} of {plan.agent_id} lives here")
    moving_locally = plan.kind is TransferKind.LOCAL and live == plan.departed_epoch
    if live is not None and not moving_locally:
        return Refusal(RefusalReason.CONFLICT, f"a paglet with the id {plan.agent_id} lives here")
    if undecided is not None and undecided != plan.transfer_id:
        return Refusal(
            RefusalReason.BUSY, f"transfer {undecided} of {plan.agent_id} is not decided yet", retryable=True
        )
    return None


def step(state: ParticipantState, event: events.ParticipantEvent) -> ParticipantStep:
    """Take one event.

    Raises `TransferProtocolError` for the result of an action that is not in flight.
    """
    match event:
        case events.PrepareReceived():
            return _prepare(state, event)
        case events.CommitReceived(vote):
            return _commit(state, vote)
        case events.AbortReceived():
            return _abort(state)
        case events.OutcomeReceived(outcome, vote):
            return _outcome(state, outcome, vote)
        case events.QueryFailed():
            return _ask_later(state)
        case events.SettledReceived(vote):
            settled = state.phase is _P.ACTIVE and state.vote == vote
            return _forget(state) if settled else (state, ())
        case events.RetryDue():
            return _retry(state)
        case events.CallRequested(call):
            return _defer(state, call)
        case events.JournalWritten() | events.JournalFailed() if state.phase is _P.ACTIVATING:
            return _activated(state) if isinstance(event, events.JournalWritten) else _activate_later(state)
        case _:
            return _local(state, event)


# -- up to the vote --------------------------------------------------------------------------------------------------


def _prepare(state: ParticipantState, event: events.PrepareReceived) -> ParticipantStep:
    if state.plan is not None and state.plan.transfer_id != event.plan.transfer_id:
        raise TransferProtocolError(f"PREPARE of {event.plan.transfer_id} given to {state.plan.transfer_id}")
    match state.phase:
        case _P.ABSENT | _P.FORGOTTEN:
            return _open(event)
        case _P.REFUSED if event.recovering or (event.attempt > state.attempt and _retryable(state)):
            return _open(event)
        case _P.ABORTED if event.recovering:
            return _open(event)
        case _P.REFUSED | _P.ABORTED:
            return state, (actions.ReplyRefused(state.refusal or _CALLED_OFF),)
        case _P.PREPARED:
            return state, (actions.ReplyPrepared(state.vote),)
        case _P.ACTIVE:
            return state, (actions.AckCommit(),)
        case _:
            # Under way: the answer goes to every waiting request.
            return replace(state, attempt=max(state.attempt, event.attempt)), ()


def _open(event: events.PrepareReceived) -> ParticipantStep:
    state = ParticipantState(_P.CHECKING, event.plan, event.attempt, event.fresh_vote)
    return state, (actions.CheckAdmission(event.plan),)


def _retryable(state: ParticipantState) -> bool:
    return state.refusal is not None and state.refusal.retryable


def _local(state: ParticipantState, event: events.ParticipantEvent) -> ParticipantStep:
    if state.phase not in _IN_FLIGHT:
        raise _illegal(state, event)
    plan = _plan(state)
    step_done: ParticipantStep
    match state.phase, event:
        case _P.CHECKING, events.NotAdmitted(refusal):
            step_done = replace(state, phase=_P.REFUSED, refusal=refusal), (actions.ReplyRefused(refusal),)
        case _P.CHECKING, events.Admitted():
            step_done = replace(state, phase=_P.FILES), (actions.MaterialiseFiles(),)
        case _P.FILES, events.FilesMaterialised() if plan.activate:
            step_done = replace(state, phase=_P.STARTING), (actions.StartProcess(),)
        case (_P.FILES, events.FilesMaterialised()) | (_P.HOOK, events.HookDone()):
            record = PreparedRecord(plan, state.vote, state.deferred)
            step_done = replace(state, phase=_P.STORING), (actions.StoreInert(record),)
        case _P.STARTING, events.ProcessStarted():
            step_done = replace(state, phase=_P.HOOK), (actions.RunHook(plan.arrival_hook),)
        case _P.STORING, events.JournalWritten():
            ask = actions.ScheduleRetry(back_off(plan, 0))
            step_done = replace(state, phase=_P.PREPARED), (actions.ReplyPrepared(state.vote), ask)
        case _P.STORING, events.JournalFailed(error):
            step_done = _refuse(state, plan, Refusal(RefusalReason.STORAGE_FAILED, error, retryable=True))
        case _P.CHECKING, events.StepFailed(error, cause):
            step_done = _refuse(state, plan, Refusal(RefusalReason.POLICY, error, retryable=True, cause=cause))
        case ((_P.FILES | _P.STARTING | _P.HOOK), events.StepFailed(error, cause)):
            step_done = _refuse(state, plan, Refusal(RefusalReason.ARRIVAL_FAILED, error, retryable=True, cause=cause))
        case _:
            raise _illegal(state, event)
    return _bury(state, plan) if state.doomed else step_done


def _refuse(state: ParticipantState, plan: TransferPlan, refusal: Refusal) -> ParticipantStep:
    """Say no before the vote, which is this side's right. A record left by a failed write goes as well."""
    state = ParticipantState(_P.REFUSED, plan, state.attempt, refusal=refusal)
    return state, (_discard(plan), actions.ReplyRefused(refusal))


def _bury(state: ParticipantState, plan: TransferPlan) -> ParticipantStep:
    tomb = ParticipantState(_P.ABORTED, plan, state.attempt)
    return tomb, (_discard(plan), actions.DropStaged(), actions.ReplyRefused(_CALLED_OFF))


def _discard(plan: TransferPlan) -> actions.Discard:
    return actions.Discard(delete_files=plan.kind is not TransferKind.LOCAL)


# -- the decision ----------------------------------------------------------------------------------------------------


def _commit(state: ParticipantState, vote: str) -> ParticipantStep:
    match state.phase:
        case _P.PREPARED if vote == state.vote:
            return _activate(replace(state, rounds=0))
        case _P.ACTIVATING | _P.ACTIVATE_WAIT:
            return state, ()  # the acknowledgement will answer this request as well
        case _P.ACTIVE:
            return state, (actions.AckCommit(),)
        case _:
            return state, (actions.RefuseCommit(vote),)


def _abort(state: ParticipantState) -> ParticipantStep:
    match state.phase:
        case _P.ACTIVATING | _P.ACTIVATE_WAIT:
            return state, (actions.ReportFault("ABORT came after COMMIT; the commit stands"),)
        case _P.ACTIVE | _P.ABORTED:
            return state, ()
        case _P.PREPARED:
            return _bury(state, _plan(state))
        case _P.ABSENT | _P.FORGOTTEN | _P.REFUSED:
            # ABORT may overtake PREPARE: bury what has not come yet.
            return ParticipantState(_P.ABORTED, state.plan, state.attempt), (actions.DropStaged(),)
        case _:
            return replace(state, doomed=True), ()


def _outcome(state: ParticipantState, outcome: Outcome, vote: str) -> ParticipantStep:
    if vote != state.vote:
        return state, ()
    match state.phase, outcome:
        case _P.PREPARED, Outcome.COMMITTED:
            return _commit(state, vote)
        case _P.PREPARED, Outcome.ABORTED:
            return _abort(state)
        case _P.ACTIVE, Outcome.ABORTED:
            # The commit record outlives every COMMIT, so a source without one is done with this transfer.
            return _forget(state)
        case _:
            return _ask_later(state)


def _ask_later(state: ParticipantState) -> ParticipantStep:
    if state.phase not in (_P.PREPARED, _P.ACTIVE):
        return state, ()
    pause = actions.ScheduleRetry(back_off(_plan(state), state.rounds))
    return replace(state, rounds=state.rounds + 1), (pause,)


def _retry(state: ParticipantState) -> ParticipantStep:
    match state.phase:
        case _P.PREPARED | _P.ACTIVE:
            return state, (actions.QueryOutcome(state.vote),)
        case _P.ACTIVATE_WAIT:
            return _activate(state)
        case _:
            return state, ()


def _activate(state: ParticipantState) -> ParticipantStep:
    record = ActivatedRecord(_plan(state), state.vote)
    return replace(state, phase=_P.ACTIVATING), (actions.JournalActivate(record),)


def _activated(state: ParticipantState) -> ParticipantStep:
    plan = _plan(state)
    live: tuple[actions.ParticipantAction, ...] = (actions.StoreInactive(),)
    if plan.activate:
        live = (actions.ReleaseMailbox(), actions.Activate(state.cold, state.deferred))
    # Acknowledged after the paglet was set going, so that the caller who looks next finds it alive.
    state = replace(state, phase=_P.ACTIVE, cold=False, deferred=(), rounds=0)
    return state, (*live, actions.AckCommit(), actions.ScheduleRetry(back_off(plan, 0)))


def _activate_later(state: ParticipantState) -> ParticipantStep:
    pause = actions.ScheduleRetry(back_off(_plan(state), state.rounds))
    return replace(state, phase=_P.ACTIVATE_WAIT, rounds=state.rounds + 1), (pause,)


def _forget(state: ParticipantState) -> ParticipantStep:
    return ParticipantState(_P.FORGOTTEN, state.plan, state.attempt), (actions.ForgetTransfer(),)


def _defer(state: ParticipantState, call: LifecycleCall) -> ParticipantStep:
    if state.phase is _P.ACTIVE:
        raise TransferProtocolError("an active paglet's calls are performed, not deferred")
    if state.phase not in _OPEN_FOR_CALLS or len(state.deferred) >= MOST_DEFERRED_CALLS:
        return state, (actions.RefuseCall(call),)
    return replace(state, deferred=(*state.deferred, call)), ()


def _plan(state: ParticipantState) -> TransferPlan:
    if state.plan is None:
        raise TransferProtocolError(f"a target that is {state.phase} has no plan")
    return state.plan


def _illegal(state: ParticipantState, event: events.ParticipantEvent) -> TransferProtocolError:
    return TransferProtocolError(f"{type(event).__name__} makes no sense to a target that is {state.phase}")
