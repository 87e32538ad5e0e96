"""Decide at the source of a transfer: prepare, commit or abort. See the package's docstring for the whole picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from . import actions, events
from .model import (
    CommitRecord,
    Hook,
    Outcome,
    Refusal,
    RefusalReason,
    Stage,
    TransferKind,
    TransferPlan,
    TransferProtocolError,
)
from .pacing import back_off


class CoordinatorPhase(StrEnum):
    """Say what the source waits for."""

    PREFLIGHT = "preflight"
    QUIESCING = "quiescing"
    HOOK = "hook"
    CLEANUP = "cleanup"
    SNAPSHOT = "snapshot"
    STAGING = "staging"
    PREPARING = "preparing"
    PREPARE_WAIT = "prepare-wait"
    COMMITTING = "committing"
    """The commit record is being written: no way back by wish, only by a failed write."""
    IN_DOUBT = "in-doubt"
    """The write failed and may have happened all the same: neither side may run until it is surely erased."""
    IN_DOUBT_WAIT = "in-doubt-wait"
    COMMIT_SENDING = "commit-sending"
    COMMIT_WAIT = "commit-wait"
    RECOVERING = "recovering"
    """The target lost what it had voted for: PREPARE once more, with no way back."""
    RECOVER_WAIT = "recover-wait"
    CLONED_HOOK = "cloned-hook"
    RELEASING = "releasing"
    RELEASE_WAIT = "release-wait"
    FINISHED = "finished"
    ABORTED = "aborted"


_P = CoordinatorPhase
_LINEAR = {
    _P.PREFLIGHT: (events.Checked, Stage.PREFLIGHT),
    _P.QUIESCING: (events.HandlerIdle, Stage.QUIESCE),
    _P.HOOK: (events.HookDone, Stage.HOOK),
    _P.CLEANUP: (events.Cleaned, Stage.CLEANUP),
    _P.SNAPSHOT: (events.SnapshotTaken, Stage.SNAPSHOT),
    _P.STAGING: (events.FilesStaged, Stage.STAGING),
}
_TERMINAL = frozenset({_P.FINISHED, _P.ABORTED})
_COMMITTED = frozenset(
    {
        _P.COMMIT_SENDING,
        _P.COMMIT_WAIT,
        _P.RECOVERING,
        _P.RECOVER_WAIT,
        _P.CLONED_HOOK,
        _P.RELEASING,
        _P.RELEASE_WAIT,
    }
)


@dataclass(frozen=True, slots=True)
class CoordinatorState:
    """Hold one transfer as the source knows it."""

    plan: TransferPlan
    phase: CoordinatorPhase = CoordinatorPhase.PREFLIGHT
    attempt: int = 0
    """PREPAREs sent so far."""
    vote: str = ""
    """The vote that was committed, or is being committed."""
    rounds: int = 0
    """Failed tries since the commit, for the back-off."""
    answered: bool = False
    """Whether the caller has its answer."""
    acked: bool = False
    """Whether the acknowledgement came while `on_cloned` was running."""
    resume_in: CoordinatorPhase = CoordinatorPhase.COMMIT_WAIT
    """Which wait follows `on_cloned` where no acknowledgement came."""
    cancelled: str | None = None
    """Why to abort as soon as the action in flight has ended."""

    @property
    def terminal(self) -> bool:
        """Tell whether the shell may drop the machine."""
        return self.phase in _TERMINAL

    @property
    def committed(self) -> bool:
        """Tell whether the hand-over is decided and on disk."""
        return self.phase in _COMMITTED or self.phase is CoordinatorPhase.FINISHED


CoordinatorStep: TypeAlias = tuple[CoordinatorState, tuple[actions.CoordinatorAction, ...]]


def start(plan: TransferPlan) -> CoordinatorStep:
    """Open a transfer: nothing is touched before the target has been looked at."""
    return CoordinatorState(plan), (actions.CheckTarget(),)


def restore(record: CommitRecord) -> CoordinatorStep:
    """Take a committed transfer up again after a restart of the source."""
    state = CoordinatorState(
        record.plan, _P.COMMIT_SENDING, attempt=record.plan.attempts, vote=record.vote, answered=True
    )
    return state, (actions.SendCommit(record.vote),)


def outcome(state: CoordinatorState | None, vote: str) -> Outcome:
    """Answer a target's question; `None` stands for a transfer this host knows nothing of.

    A finished transfer answers like an unknown one, so that dropping its machine changes nothing. Only the very vote
    that was committed is told so: a copy that grew from a PREPARE delayed past the end holds another one.
    """
    if state is None or state.phase in _TERMINAL:
        return Outcome.ABORTED
    if state.phase in _COMMITTED and state.vote == vote:
        return Outcome.COMMITTED
    return Outcome.PENDING


def step(state: CoordinatorState, event: events.CoordinatorEvent) -> CoordinatorStep:
    """Take one event.

    Raises `TransferProtocolError` for the result of an action that is not in flight.
    """
    match event:
        case events.Cancel(reason):
            return _cancel(state, reason)
        case events.RetryDue():
            return _retry(state)
        case events.Prepared(vote):
            return _prepared(state, vote)
        case events.Refused(refusal):
            return _refused(state, refusal)
        case events.PrepareFailed(error, retryable):
            return _prepare_failed(state, error, retryable)
        case events.CommitAcked():
            return _acked(state)
        case events.CommitUnknown():
            return _unknown(state)
        case events.CommitFailed():
            return _commit_failed(state)
        case events.JournalWritten():
            return _written(state)
        case events.JournalFailed(error):
            return _not_written(state, error)
        case _:
            return _local(state, event)


# -- up to PREPARE ---------------------------------------------------------------------------------------------------


def _local(state: CoordinatorState, event: events.CoordinatorEvent) -> CoordinatorStep:
    if state.phase is _P.CLONED_HOOK and isinstance(event, events.HookDone | events.StepFailed):
        return _cloned(state, event)
    expected = _LINEAR.get(state.phase)
    if expected is None:
        raise _illegal(state, event)
    success, stage = expected
    if isinstance(event, events.StepFailed):
        return _abort(state, stage, state.cancelled or event.error, cause=event.cause)
    if not isinstance(event, success):
        raise _illegal(state, event)
    if state.cancelled is not None:
        return _abort(state, stage, state.cancelled)
    return _advance(state)


def _advance(state: CoordinatorState) -> CoordinatorStep:
    plan = state.plan
    match state.phase:
        case _P.PREFLIGHT if plan.by_itself:
            # The handler that asked for the move is still running; waiting for its end would be a deadlock.
            return replace(state, phase=_P.HOOK), (actions.StopDeliveries(), actions.RunHook(plan.departure_hook))
        case _P.PREFLIGHT:
            return replace(state, phase=_P.QUIESCING), (actions.StopDeliveries(), actions.AwaitHandler())
        case _P.QUIESCING:
            return replace(state, phase=_P.HOOK), (actions.RunHook(plan.departure_hook),)
        case _P.HOOK if plan.leaves_source:
            reason = TransferKind.RETRACT if plan.kind is TransferKind.RETRACT else TransferKind.DISPATCH
            return replace(state, phase=_P.CLEANUP), (actions.CleanupResources(reason.value),)
        case _P.HOOK | _P.CLEANUP:
            return replace(state, phase=_P.SNAPSHOT), (actions.Snapshot(),)
        case _P.SNAPSHOT:
            return replace(state, phase=_P.STAGING), (actions.StageFiles(),)
        case _:
            return _send_prepare(state)


def _send_prepare(state: CoordinatorState, *, recovering: bool = False) -> CoordinatorStep:
    attempt = state.attempt + 1
    phase = _P.RECOVERING if recovering else _P.PREPARING
    return replace(state, phase=phase, attempt=attempt), (actions.SendPrepare(attempt, recovering),)


def _abort(
    state: CoordinatorState,
    stage: Stage,
    error: str,
    *,
    refusal: Refusal | None = None,
    cause: BaseException | None = None,
    before: tuple[actions.CoordinatorAction, ...] = (),
) -> CoordinatorStep:
    """Go back. There is no commit record, and having none *is* the durable decision (presumed abort)."""
    todo: list[actions.CoordinatorAction] = list(before)
    if stage is Stage.PREFLIGHT:
        todo.append(actions.ReportAttemptFailed(stage, 1, 1, error))
    else:
        todo.append(actions.ResumePaglet())
    todo.append(actions.Reply(False, stage, error, state.attempt, refusal, cause))
    if stage in (Stage.STAGING, Stage.PREPARE, Stage.COMMIT):
        # Last, because it is a courtesy: a target that never hears it asks, and is told the same.
        todo.append(actions.SendAbort())
    return replace(state, phase=_P.ABORTED, answered=True, cancelled=None), tuple(todo)


def _cancel(state: CoordinatorState, reason: str) -> CoordinatorStep:
    if state.phase is _P.PREPARE_WAIT:
        return _abort(state, Stage.PREPARE, reason)
    if state.phase in _LINEAR or state.phase is _P.PREPARING:
        # An action is in flight and may still touch the paglet; its end aborts.
        return replace(state, cancelled=state.cancelled or reason), ()
    return state, ()


# -- votes -----------------------------------------------------------------------------------------------------------


def _prepared(state: CoordinatorState, vote: str) -> CoordinatorStep:
    match state.phase:
        case _P.PREPARING | _P.PREPARE_WAIT if state.cancelled is not None:
            return _abort(state, Stage.PREPARE, state.cancelled)
        case _P.PREPARING | _P.PREPARE_WAIT:
            # A vote of an earlier attempt is as good: a target that voted waits for the decision.
            state = replace(state, phase=_P.COMMITTING, vote=vote)
            # Fenced before the record is written: whoever reads `committed` may set the paglet going that very moment.
            fence: tuple[actions.CoordinatorAction, ...] = (actions.Fence(),) if state.plan.leaves_source else ()
            return state, (*fence, actions.JournalCommit(CommitRecord(state.plan, vote)))
        case _P.RECOVERING | _P.RECOVER_WAIT:
            return replace(state, phase=_P.COMMIT_SENDING, vote=vote), (actions.SendCommit(vote),)
        case _P.ABORTED | _P.FINISHED:
            # A copy that nobody will ever commit; a target that is long active ignores this.
            return state, (actions.SendAbort(),)
        case _:
            return state, ()


def _refused(state: CoordinatorState, refusal: Refusal) -> CoordinatorStep:
    text = refusal.text or refusal.reason.value
    match state.phase:
        case _P.PREPARING | _P.PREPARE_WAIT:
            return _attempt_failed(state, text, refusal.retryable, refusal)
        case _P.RECOVERING if refusal.reason is RefusalReason.STALE:
            # Only our commit could bring this epoch to life: the target has had the paglet.
            return _acked(state)
        case _P.RECOVERING:
            fault = actions.ReportFault(
                f"{state.plan.target} refuses {state.plan.agent_id}, which was handed over to it: {text}"
            )
            return _keep_trying(state, _P.RECOVER_WAIT, before=(fault,))
        case _:
            return state, ()


def _prepare_failed(state: CoordinatorState, error: str, retryable: bool) -> CoordinatorStep:
    match state.phase:
        case _P.PREPARING | _P.PREPARE_WAIT:
            return _attempt_failed(state, error, retryable, None)
        case _P.RECOVERING:
            return _keep_trying(state, _P.RECOVER_WAIT)
        case _:
            return state, ()


def _attempt_failed(state: CoordinatorState, error: str, retryable: bool, refusal: Refusal | None) -> CoordinatorStep:
    if state.phase is _P.PREPARE_WAIT:
        return state, ()  # an answer to an attempt that already counts as failed
    plan = state.plan
    report = actions.ReportAttemptFailed(Stage.PREPARE, state.attempt, plan.attempts, error)
    if state.cancelled is not None:
        return _abort(state, Stage.PREPARE, state.cancelled, before=(report,))
    if retryable and state.attempt < plan.attempts:
        return replace(state, phase=_P.PREPARE_WAIT), (report, actions.ScheduleRetry(plan.retry_interval))
    cause = refusal.cause if refusal is not None else None
    return _abort(state, Stage.PREPARE, error, refusal=refusal, cause=cause, before=(report,))


# -- the commit record -----------------------------------------------------------------------------------------------


def _written(state: CoordinatorState) -> CoordinatorStep:
    match state.phase:
        case _P.COMMITTING:
            return replace(state, phase=_P.COMMIT_SENDING, cancelled=None), (actions.SendCommit(state.vote),)
        case _P.IN_DOUBT:
            return _abort(state, Stage.COMMIT, state.cancelled or "the commit could not be written")
        case _P.RELEASING:
            return replace(state, phase=_P.FINISHED), (actions.SendSettled(state.vote),)
        case _:
            raise _illegal(state, events.JournalWritten())


def _not_written(state: CoordinatorState, error: str) -> CoordinatorStep:
    match state.phase:
        case _P.COMMITTING:
            return replace(state, phase=_P.IN_DOUBT, cancelled=error), (actions.EraseCommit(),)
        case _P.IN_DOUBT:
            wait = actions.ScheduleRetry(back_off(state.plan, state.rounds))
            return replace(state, phase=_P.IN_DOUBT_WAIT, rounds=state.rounds + 1), (wait,)
        case _P.RELEASING:
            wait = actions.ScheduleRetry(back_off(state.plan, state.rounds))
            return replace(state, phase=_P.RELEASE_WAIT, rounds=state.rounds + 1), (wait,)
        case _:
            raise _illegal(state, events.JournalFailed(error))


# -- after the commit ------------------------------------------------------------------------------------------------


def _acked(state: CoordinatorState) -> CoordinatorStep:
    match state.phase:
        case _P.COMMIT_SENDING | _P.COMMIT_WAIT | _P.RECOVERING | _P.RECOVER_WAIT:
            if not state.answered and not state.plan.leaves_source:
                return replace(state, phase=_P.CLONED_HOOK, acked=True), (actions.RunHook(Hook.CLONED),)
            return _release(state)
        case _P.CLONED_HOOK:
            return replace(state, acked=True), ()
        case _P.PREPARING | _P.PREPARE_WAIT:
            fault = actions.ReportFault(
                f"{state.plan.target} claims to own {state.plan.agent_id}, which was not handed over"
            )
            return _abort(state, Stage.PREPARE, "the target broke the protocol", before=(fault,))
        case _:
            return state, ()


def _unknown(state: CoordinatorState) -> CoordinatorStep:
    if state.phase not in (_P.COMMIT_SENDING, _P.COMMIT_WAIT):
        return state, ()
    plan = state.plan
    fault = actions.ReportFault(
        f"{plan.target} voted for {plan.agent_id} and lost it; sending it again from the kept snapshot"
    )
    if state.rounds:
        return _keep_trying(state, _P.RECOVER_WAIT, before=(fault,))
    state, todo = _send_prepare(replace(state, rounds=1), recovering=True)
    return state, (fault, *todo)


def _commit_failed(state: CoordinatorState) -> CoordinatorStep:
    if state.phase is _P.COMMIT_SENDING:
        return _keep_trying(state, _P.COMMIT_WAIT)
    return state, ()


def _keep_trying(
    state: CoordinatorState, wait: CoordinatorPhase, *, before: tuple[actions.CoordinatorAction, ...] = ()
) -> CoordinatorStep:
    """Wait for the next try, but let the caller go: what it asked for is decided and will happen."""
    if not state.answered and not state.plan.leaves_source:
        return replace(state, phase=_P.CLONED_HOOK, resume_in=wait), (*before, actions.RunHook(Hook.CLONED))
    reply: tuple[actions.CoordinatorAction, ...] = (
        () if state.answered else (actions.Reply(True, attempts=state.attempt),)
    )
    pause = actions.ScheduleRetry(back_off(state.plan, state.rounds))
    return replace(state, phase=wait, rounds=state.rounds + 1, answered=True), (*before, *reply, pause)


def _cloned(state: CoordinatorState, event: events.HookDone | events.StepFailed) -> CoordinatorStep:
    todo: list[actions.CoordinatorAction] = []
    if isinstance(event, events.StepFailed):
        # The clone lives; its original's after-hook cannot undo that.
        todo.append(actions.ReportFault(f"{Hook.CLONED} failed: {event.error}"))
    todo += [actions.ResumePaglet(), actions.Reply(True, attempts=state.attempt)]
    state = replace(state, answered=True)
    state, rest = _release(state) if state.acked else _keep_trying(state, state.resume_in)
    return state, (*todo, *rest)


def _release(state: CoordinatorState) -> CoordinatorStep:
    plan = state.plan
    todo: list[actions.CoordinatorAction] = []
    if plan.leaves_source:
        todo.append(actions.LeaveForwarder(plan.target))
    if not state.answered:
        todo.append(actions.Reply(True, attempts=state.attempt))
    moved_away = plan.leaves_source and plan.kind is not TransferKind.LOCAL
    todo += [actions.Release(stop_process=plan.leaves_source, delete_files=moved_away), actions.ForgetTransfer()]
    return replace(state, phase=_P.RELEASING, answered=True, rounds=0), tuple(todo)


def _retry(state: CoordinatorState) -> CoordinatorStep:
    match state.phase:
        case _P.PREPARE_WAIT:
            return _send_prepare(state)
        case _P.IN_DOUBT_WAIT:
            return replace(state, phase=_P.IN_DOUBT), (actions.EraseCommit(),)
        case _P.COMMIT_WAIT:
            return replace(state, phase=_P.COMMIT_SENDING), (actions.SendCommit(state.vote),)
        case _P.RECOVER_WAIT:
            return _send_prepare(state, recovering=True)
        case _P.RELEASE_WAIT:
            return replace(state, phase=_P.RELEASING), (actions.ForgetTransfer(),)
        case _:
            return state, ()


def _illegal(state: CoordinatorState, event: events.CoordinatorEvent) -> TransferProtocolError:
    return TransferProtocolError(f"{type(event).__name__} makes no sense to a source that is {state.phase}")
