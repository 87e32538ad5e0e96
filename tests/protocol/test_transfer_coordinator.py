"""The source: every path from the first look at the target to its end."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from paglets.protocol.transfer import (
    CommitRecord,
    CoordinatorPhase,
    Hook,
    Outcome,
    Refusal,
    RefusalReason,
    Stage,
    TransferKind,
    TransferPlan,
    TransferProtocolError,
    coordinator,
)
from paglets.protocol.transfer.actions import (
    AwaitHandler,
    CheckTarget,
    CleanupResources,
    EraseCommit,
    Fence,
    ForgetTransfer,
    JournalCommit,
    LeaveForwarder,
    Release,
    Reply,
    ReportAttemptFailed,
    ReportFault,
    ResumePaglet,
    RunHook,
    ScheduleRetry,
    SendAbort,
    SendCommit,
    SendPrepare,
    SendSettled,
    Snapshot,
    StageFiles,
    StopDeliveries,
)
from paglets.protocol.transfer.events import (
    Admitted,
    Cancel,
    Checked,
    CommitAcked,
    CommitFailed,
    CommitUnknown,
    CoordinatorEvent,
    HookDone,
    JournalFailed,
    JournalWritten,
    Prepared,
    PrepareFailed,
    Refused,
    RetryDue,
    StepFailed,
)
from tests.protocol.transfer_script import (
    CLONE,
    CLONE_TO_COMMITTED,
    LOCAL,
    PLAN,
    RETRACT,
    TO_COMMITTED,
    TO_STAGED,
    source,
    source_actions,
)

RECORD = CommitRecord(PLAN, "v1")
P = CoordinatorPhase


def test_dispatch_from_the_first_look_to_the_end() -> None:
    asked = source_actions(*TO_COMMITTED, CommitAcked(), JournalWritten())

    assert asked == [
        CheckTarget(),
        StopDeliveries(),
        AwaitHandler(),
        RunHook(Hook.DISPATCHING),
        CleanupResources("dispatch"),
        Snapshot(),
        StageFiles(),
        SendPrepare(1),
        Fence(),
        JournalCommit(RECORD),
        SendCommit("v1"),
        LeaveForwarder("T"),
        Reply(True, attempts=1),
        Release(stop_process=True, delete_files=True),
        ForgetTransfer(),
        SendSettled("v1"),
    ]


def test_retract_runs_its_own_hook_and_reason() -> None:
    asked = source_actions(*TO_STAGED, plan=RETRACT)

    assert RunHook(Hook.REVERTING) in asked
    assert CleanupResources("retract") in asked


def test_local_move_keeps_the_files() -> None:
    asked = source_actions(*TO_COMMITTED, CommitAcked(), plan=LOCAL)

    assert Release(stop_process=True, delete_files=False) in asked


def test_clone_leaves_the_original_and_runs_its_after_hook() -> None:
    asked = source_actions(*CLONE_TO_COMMITTED, CommitAcked(), HookDone(), JournalWritten(), plan=CLONE)

    assert asked == [
        CheckTarget(),
        StopDeliveries(),
        AwaitHandler(),
        RunHook(Hook.CLONING),
        Snapshot(),
        StageFiles(),
        SendPrepare(1),
        JournalCommit(CommitRecord(CLONE, "v1")),
        SendCommit("v1"),
        RunHook(Hook.CLONED),
        ResumePaglet(),
        Reply(True, attempts=1),
        Release(stop_process=False, delete_files=False),
        ForgetTransfer(),
        SendSettled("v1"),
    ]


def test_a_paglet_that_moves_itself_is_not_waited_for() -> None:
    plan = replace(PLAN, by_itself=True)

    assert source_actions(Checked(), plan=plan) == [CheckTarget(), StopDeliveries(), RunHook(Hook.DISPATCHING)]


# -- before the vote -------------------------------------------------------------------------------------------------


def test_a_failed_preflight_touches_nothing() -> None:
    cause = OSError("unreachable")

    state, actions = coordinator.step(source(), StepFailed("unreachable", cause))

    assert state.phase is P.ABORTED
    assert actions == (
        ReportAttemptFailed(Stage.PREFLIGHT, 1, 1, "unreachable"),
        Reply(False, Stage.PREFLIGHT, "unreachable", cause=cause),
    )


@pytest.mark.parametrize(
    ("done", "stage"),
    [(1, Stage.QUIESCE), (2, Stage.HOOK), (3, Stage.CLEANUP), (4, Stage.SNAPSHOT), (5, Stage.STAGING)],
)
def test_a_failed_step_resumes_the_paglet(done: int, stage: Stage) -> None:
    state, actions = coordinator.step(source(*TO_STAGED[:done]), StepFailed("boom"))

    assert state.phase is P.ABORTED
    assert actions[:2] == (ResumePaglet(), Reply(False, stage, "boom"))
    assert actions[2:] == ((SendAbort(),) if stage is Stage.STAGING else ())


@pytest.mark.parametrize("done", range(6))
def test_cancel_waits_for_the_step_in_flight_and_then_aborts(done: int) -> None:
    state, actions = coordinator.step(source(*TO_STAGED[:done]), Cancel("shutdown"))
    assert actions == ()

    state, actions = coordinator.step(state, TO_STAGED[done])

    assert state.phase is P.ABORTED
    assert [a.error for a in actions if isinstance(a, Reply)] == ["shutdown"]


# -- PREPARE ---------------------------------------------------------------------------------------------------------


def test_an_attempt_without_answer_is_repeated_with_the_next_number() -> None:
    state, actions = coordinator.step(source(*TO_STAGED), PrepareFailed("timed out"))
    assert actions == (ReportAttemptFailed(Stage.PREPARE, 1, 2, "timed out"), ScheduleRetry(0.5))

    state, actions = coordinator.step(state, RetryDue())

    assert actions == (SendPrepare(2),)


def test_the_last_attempt_without_answer_aborts_and_resumes() -> None:
    state, actions = coordinator.step(
        source(*TO_STAGED, PrepareFailed("timed out"), RetryDue()), PrepareFailed("reset")
    )

    assert state.phase is P.ABORTED
    assert actions == (
        ReportAttemptFailed(Stage.PREPARE, 2, 2, "reset"),
        ResumePaglet(),
        Reply(False, Stage.PREPARE, "reset", 2),
        SendAbort(),
    )


def test_a_refusal_that_cannot_change_aborts_at_once() -> None:
    boom = ValueError("boom")
    refusal = Refusal(RefusalReason.CLASS_NOT_ALLOWED, "not here", cause=boom)

    state, actions = coordinator.step(source(*TO_STAGED), Refused(refusal))

    assert state.phase is P.ABORTED
    assert Reply(False, Stage.PREPARE, "not here", 1, refusal, boom) in actions


def test_a_refusal_that_may_change_is_tried_again() -> None:
    state = source(*TO_STAGED, Refused(Refusal(RefusalReason.BUSY, retryable=True)))

    assert state.phase is P.PREPARE_WAIT


def test_a_vote_between_two_attempts_counts() -> None:
    state, actions = coordinator.step(source(*TO_STAGED, PrepareFailed("slow")), Prepared("v1"))

    assert state.phase is P.COMMITTING
    assert actions == (Fence(), JournalCommit(RECORD))


def test_a_vote_after_the_abort_is_answered_with_abort() -> None:
    gone = source(*TO_STAGED, PrepareFailed("no route", retryable=False))

    assert coordinator.step(gone, Prepared("v1")) == (gone, (SendAbort(),))


@pytest.mark.parametrize("event", [Prepared("v1"), PrepareFailed("late")])
def test_cancel_while_preparing_never_commits(event: CoordinatorEvent) -> None:
    state = source(*TO_STAGED, Cancel("shutdown"), event)

    assert state.phase is P.ABORTED


def test_cancel_between_attempts_aborts_at_once() -> None:
    assert source(*TO_STAGED, PrepareFailed("slow"), Cancel("shutdown")).phase is P.ABORTED


def test_a_target_that_claims_the_paglet_before_the_commit_is_reported() -> None:
    state, actions = coordinator.step(source(*TO_STAGED), CommitAcked())

    assert state.phase is P.ABORTED
    assert isinstance(actions[0], ReportFault)


# -- the commit record -----------------------------------------------------------------------------------------------


def test_a_commit_that_could_not_be_written_is_erased_before_anything_runs() -> None:
    state, actions = coordinator.step(source(*TO_STAGED, Prepared("v1")), JournalFailed("disk full"))
    assert actions == (EraseCommit(),)
    assert coordinator.outcome(state, "v1") is Outcome.PENDING

    state, actions = coordinator.step(state, JournalWritten())

    assert state.phase is P.ABORTED
    assert actions == (ResumePaglet(), Reply(False, Stage.COMMIT, "disk full", 1), SendAbort())


def test_while_the_record_cannot_be_erased_the_transfer_stays_in_doubt() -> None:
    state = source(*TO_STAGED, Prepared("v1"), JournalFailed("disk"), JournalFailed("disk"))
    assert state.phase is P.IN_DOUBT_WAIT

    state, actions = coordinator.step(state, RetryDue())

    assert actions == (EraseCommit(),)


@pytest.mark.parametrize("happened", [TO_COMMITTED[:-1], TO_COMMITTED])
def test_cancel_from_the_commit_on_is_too_late(happened: tuple[CoordinatorEvent, ...]) -> None:
    state = source(*happened)

    assert coordinator.step(state, Cancel("shutdown")) == (state, ())


# -- after the commit ------------------------------------------------------------------------------------------------


def test_commit_is_sent_until_acknowledged_and_the_caller_need_not_wait() -> None:
    state, actions = coordinator.step(source(*TO_COMMITTED), CommitFailed("reset"))
    assert actions == (Reply(True, attempts=1), ScheduleRetry(0.5))

    for _ in range(20):
        state, actions = coordinator.step(state, RetryDue())
        assert actions == (SendCommit("v1"),)
        state, actions = coordinator.step(state, CommitFailed("reset"))
        assert [type(a) for a in actions] == [ScheduleRetry]
    assert actions == (ScheduleRetry(15.0),)

    state, actions = coordinator.step(state, CommitAcked())
    assert state.phase is P.RELEASING
    assert not any(isinstance(a, Reply) for a in actions)


def test_an_acknowledgement_may_come_late() -> None:
    assert source(*TO_COMMITTED, CommitFailed("slow"), CommitAcked()).phase is P.RELEASING


def test_repeated_answers_change_nothing_after_the_end() -> None:
    state = source(*TO_COMMITTED, CommitAcked(), JournalWritten())

    for event in (CommitAcked(), CommitUnknown(), CommitFailed("late"), PrepareFailed("late"), RetryDue()):
        assert coordinator.step(state, event) == (state, ())


def test_the_commit_record_is_removed_until_that_succeeds() -> None:
    state, actions = coordinator.step(source(*TO_COMMITTED, CommitAcked()), JournalFailed("disk"))
    assert actions == (ScheduleRetry(0.5),)

    state, actions = coordinator.step(state, RetryDue())

    assert actions == (ForgetTransfer(),)


def test_a_clone_that_is_committed_lets_its_original_go_on_while_the_target_is_silent() -> None:
    state, actions = coordinator.step(source(*CLONE_TO_COMMITTED, plan=CLONE), CommitFailed("reset"))
    assert actions == (RunHook(Hook.CLONED),)

    state, actions = coordinator.step(state, HookDone())

    assert state.phase is P.COMMIT_WAIT
    assert actions == (ResumePaglet(), Reply(True, attempts=1), ScheduleRetry(0.5))


def test_an_acknowledgement_during_the_after_hook_is_kept() -> None:
    state = source(*CLONE_TO_COMMITTED, CommitFailed("slow"), CommitAcked(), plan=CLONE)

    assert coordinator.step(state, HookDone())[0].phase is P.RELEASING


def test_a_failing_after_hook_is_reported_and_does_not_undo_the_clone() -> None:
    state, actions = coordinator.step(source(*CLONE_TO_COMMITTED, CommitAcked(), plan=CLONE), StepFailed("boom"))

    assert state.phase is P.RELEASING
    assert [type(a) for a in actions[:3]] == [ReportFault, ResumePaglet, Reply]


# -- a target that lost what it voted for ----------------------------------------------------------------------------


def test_unknown_after_the_commit_sends_the_paglet_again() -> None:
    state, actions = coordinator.step(source(*TO_COMMITTED), CommitUnknown())
    assert state.phase is P.RECOVERING
    assert isinstance(actions[0], ReportFault)
    assert actions[1:] == (SendPrepare(2, recovering=True),)

    state, actions = coordinator.step(state, Prepared("v2"))

    assert actions == (SendCommit("v2"),)
    assert coordinator.outcome(state, "v2") is Outcome.COMMITTED
    assert coordinator.outcome(state, "v1") is Outcome.PENDING


@pytest.mark.parametrize(
    "event", [PrepareFailed("gone", retryable=False), Refused(Refusal(RefusalReason.QUOTA)), Cancel("shutdown")]
)
def test_recovery_never_aborts(event: CoordinatorEvent) -> None:
    state, actions = coordinator.step(source(*TO_COMMITTED, CommitUnknown()), event)

    assert state.committed
    assert not any(isinstance(a, ResumePaglet | SendAbort) for a in actions)
    if state.phase is P.RECOVER_WAIT:
        assert coordinator.step(state, RetryDue())[1] == (SendPrepare(3, recovering=True),)


def test_stale_during_recovery_means_that_the_paglet_had_arrived() -> None:
    state = source(*TO_COMMITTED, CommitUnknown(), Refused(Refusal(RefusalReason.STALE)))

    assert state.phase is P.RELEASING


def test_a_target_that_keeps_losing_it_is_asked_ever_more_slowly() -> None:
    state, actions = coordinator.step(source(*TO_COMMITTED, CommitUnknown(), Prepared("v2")), CommitUnknown())

    assert state.phase is P.RECOVER_WAIT
    assert any(isinstance(a, ScheduleRetry) for a in actions)


def test_the_answer_active_to_a_second_prepare_ends_the_recovery() -> None:
    assert source(*TO_COMMITTED, CommitUnknown(), CommitAcked()).phase is P.RELEASING


# -- restart and questions -------------------------------------------------------------------------------------------


def test_a_restarted_source_with_a_commit_record_goes_on_committing() -> None:
    state, actions = coordinator.restore(RECORD)
    assert actions == (SendCommit("v1"),)

    state, actions = coordinator.step(state, CommitAcked())

    assert actions == (LeaveForwarder("T"), Release(True, True), ForgetTransfer())


def test_a_restarted_source_runs_no_after_hook_for_a_clone() -> None:
    state, _ = coordinator.restore(CommitRecord(CLONE, "v1"))

    assert coordinator.step(state, CommitAcked())[0].phase is P.RELEASING


def test_a_source_without_record_answers_aborted() -> None:
    assert coordinator.outcome(None, "v1") is Outcome.ABORTED


@pytest.mark.parametrize(
    ("happened", "answer"),
    [
        (TO_STAGED, Outcome.PENDING),
        (TO_COMMITTED[:-1], Outcome.PENDING),
        (TO_COMMITTED, Outcome.COMMITTED),
        ((*TO_COMMITTED, CommitFailed("x")), Outcome.COMMITTED),
        ((*TO_COMMITTED, CommitAcked()), Outcome.COMMITTED),
        ((*TO_COMMITTED, CommitAcked(), JournalWritten()), Outcome.ABORTED),
        ((*TO_STAGED, PrepareFailed("x", retryable=False)), Outcome.ABORTED),
    ],
)
def test_what_a_source_answers(happened: tuple[CoordinatorEvent, ...], answer: Outcome) -> None:
    assert coordinator.outcome(source(*happened), "v1") is answer


# -- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("happened", "event"),
    [
        ((), HookDone()),
        (TO_STAGED, Checked()),
        (TO_STAGED, JournalWritten()),
        (TO_STAGED, JournalFailed("x")),
        (TO_COMMITTED, StepFailed("x")),
    ],
)
def test_a_result_of_nothing_in_flight_is_an_error(
    happened: tuple[CoordinatorEvent, ...], event: CoordinatorEvent
) -> None:
    with pytest.raises(TransferProtocolError, match="makes no sense"):
        coordinator.step(source(*happened), event)


def test_an_event_of_the_other_side_is_an_error() -> None:
    with pytest.raises(TransferProtocolError):
        coordinator.step(source(), cast("CoordinatorEvent", Admitted()))


@pytest.mark.parametrize(
    ("kind", "epoch", "attempts"),
    [(TransferKind.DISPATCH, 0, 1), (TransferKind.CLONE, 1, 1), (TransferKind.DISPATCH, 1, 0)],
)
def test_a_plan_is_checked(kind: TransferKind, epoch: int, attempts: int) -> None:
    with pytest.raises(ValueError, match=r"epoch|attempts"):
        TransferPlan("t", kind, "p", epoch, "S", "T", attempts=attempts)
