"""The target: votes, decisions, repetitions, restarts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paglets.protocol.transfer import (
    ActivatedRecord,
    Hook,
    LifecycleCall,
    Outcome,
    ParticipantPhase,
    PreparedRecord,
    Refusal,
    RefusalReason,
    TransferProtocolError,
    judge_epoch,
    participant,
)
from paglets.protocol.transfer.actions import (
    AckCommit,
    Activate,
    CheckAdmission,
    Discard,
    DropStaged,
    ForgetTransfer,
    JournalActivate,
    MaterialiseFiles,
    QueryOutcome,
    RefuseCall,
    RefuseCommit,
    ReleaseMailbox,
    ReplyPrepared,
    ReplyRefused,
    ReportFault,
    RunHook,
    ScheduleRetry,
    StartProcess,
    StoreInactive,
    StoreInert,
)
from paglets.protocol.transfer.events import (
    AbortReceived,
    Admitted,
    CallRequested,
    CommitReceived,
    FilesMaterialised,
    HookDone,
    JournalFailed,
    JournalWritten,
    NotAdmitted,
    OutcomeReceived,
    ParticipantEvent,
    ProcessStarted,
    QueryFailed,
    RetryDue,
    SettledReceived,
    StepFailed,
)
from paglets.protocol.transfer.model import CommitRecord
from paglets.protocol.transfer.participant import MOST_DEFERRED_CALLS
from tests.protocol.memory_journal import MemoryJournal
from tests.protocol.transfer_script import CLONE, LOCAL, PLAN, prepare, target, target_actions, to_active, to_prepared

P = ParticipantPhase
CALL = LifecycleCall("dispatch", "http://next")


def test_arrival_from_prepare_to_acknowledgement() -> None:
    assert target_actions(*to_active()) == [
        CheckAdmission(PLAN),
        MaterialiseFiles(),
        StartProcess(),
        RunHook(Hook.ARRIVAL),
        StoreInert(PreparedRecord(PLAN, "v1")),
        ReplyPrepared("v1"),
        ScheduleRetry(0.5),
        JournalActivate(ActivatedRecord(PLAN, "v1")),
        ReleaseMailbox(),
        Activate(cold=False),
        AckCommit(),
        ScheduleRetry(0.5),
    ]


def test_a_clone_runs_its_own_hook() -> None:
    assert RunHook(Hook.CLONE) in target_actions(*to_active(CLONE))


def test_an_inactive_arrival_starts_nothing() -> None:
    asked = target_actions(*to_active(replace(PLAN, activate=False)))

    assert not any(isinstance(a, StartProcess | RunHook | Activate) for a in asked)
    assert asked[-3:] == [StoreInactive(), AckCommit(), ScheduleRetry(0.5)]


# -- before the vote -------------------------------------------------------------------------------------------------


def test_what_is_not_admitted_is_refused() -> None:
    refusal = Refusal(RefusalReason.QUOTA)

    state, actions = participant.step(target(prepare()), NotAdmitted(refusal))

    assert state.phase is P.REFUSED
    assert actions == (ReplyRefused(refusal),)


@pytest.mark.parametrize("done", [2, 3, 4])
def test_a_failed_arrival_is_discarded_and_refused_with_its_text(done: int) -> None:
    boom = ValueError("arrival boom")

    state, actions = participant.step(target(*to_prepared()[:done]), StepFailed("arrival boom", boom))

    refusal = Refusal(RefusalReason.ARRIVAL_FAILED, "arrival boom", retryable=True, cause=boom)
    assert state.phase is P.REFUSED
    assert actions == (Discard(delete_files=True), ReplyRefused(refusal))


def test_a_copy_that_cannot_be_stored_is_refused() -> None:
    state, actions = participant.step(target(*to_prepared()[:-1]), JournalFailed("disk full"))

    assert state.phase is P.REFUSED
    assert isinstance(actions[0], Discard)


def test_a_local_move_that_fails_leaves_the_files_alone() -> None:
    actions = target_actions(prepare(LOCAL), Admitted(), StepFailed("boom"))

    assert Discard(delete_files=False) in actions


def test_the_same_attempt_gets_the_same_refusal_and_a_later_one_a_new_try() -> None:
    refused = target(prepare(), Admitted(), StepFailed("boom"))

    assert [type(a) for a in participant.step(refused, prepare())[1]] == [ReplyRefused]
    assert participant.step(refused, prepare(attempt=2, vote="v2"))[1] == (CheckAdmission(PLAN),)


def test_a_final_refusal_stays() -> None:
    refused = target(prepare(), NotAdmitted(Refusal(RefusalReason.CLASS_NOT_ALLOWED)))

    assert [type(a) for a in participant.step(refused, prepare(attempt=2))[1]] == [ReplyRefused]


@pytest.mark.parametrize("done", [1, 2, 3, 4, 5])
def test_abort_during_a_step_discards_when_it_ends(done: int) -> None:
    state, actions = participant.step(target(*to_prepared()[:done]), AbortReceived())
    assert actions == ()

    state, actions = participant.step(state, to_prepared()[done])

    assert state.phase is P.ABORTED
    assert [type(a) for a in actions] == [Discard, DropStaged, ReplyRefused]


# -- repetitions -----------------------------------------------------------------------------------------------------


def test_a_repeated_prepare_under_way_is_answered_once_by_the_vote() -> None:
    assert participant.step(target(prepare()), prepare(attempt=2, vote="v2"))[1] == ()


def test_a_repeated_prepare_gets_the_same_vote() -> None:
    assert participant.step(target(*to_prepared()), prepare(attempt=2, vote="v2"))[1] == (ReplyPrepared("v1"),)


def test_a_repeated_prepare_after_activation_says_active() -> None:
    assert participant.step(target(*to_active()), prepare(attempt=2))[1] == (AckCommit(),)


def test_a_repeated_commit_is_acknowledged_again() -> None:
    assert participant.step(target(*to_active()), CommitReceived("v1"))[1] == (AckCommit(),)


def test_a_commit_while_activating_waits_for_the_disk() -> None:
    state = target(*to_active()[:-1])

    assert participant.step(state, CommitReceived("v1")) == (state, ())


def test_a_delayed_prepare_finds_the_tombstone() -> None:
    dead = target(*to_prepared(), AbortReceived())

    state, actions = participant.step(dead, prepare(attempt=2, vote="v2"))

    assert state.phase is P.ABORTED
    assert [type(a) for a in actions] == [ReplyRefused]


def test_abort_may_overtake_prepare() -> None:
    state, actions = participant.step(target(), AbortReceived())

    assert actions == (DropStaged(),)
    assert [type(a) for a in participant.step(state, prepare())[1]] == [ReplyRefused]


def test_a_late_abort_does_not_touch_an_active_paglet() -> None:
    state = target(*to_active())

    assert participant.step(state, AbortReceived()) == (state, ())


def test_abort_after_commit_is_a_fault_and_the_commit_stands() -> None:
    state, actions = participant.step(target(*to_active()[:-1]), AbortReceived())

    assert state.phase is P.ACTIVATING
    assert isinstance(actions[0], ReportFault)


# -- votes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("happened", [(), (prepare(),), (*to_prepared(), AbortReceived())])
def test_a_commit_without_a_vote_is_refused(happened: tuple[ParticipantEvent, ...]) -> None:
    assert participant.step(target(*happened), CommitReceived("v1"))[1] == (RefuseCommit("v1"),)


def test_a_replayed_transfer_cannot_come_back_to_life() -> None:
    # Given a transfer that both sides have settled and forgotten
    done = target(*to_active(), SettledReceived("v1"))
    # When the network delivers its PREPARE and its COMMIT once more
    ghost = done
    for event in (prepare(vote="v9"), *to_prepared()[1:]):
        ghost, _ = participant.step(ghost, event)
    ghost, actions = participant.step(ghost, CommitReceived("v1"))
    # Then the old COMMIT does not fit the new vote, an old answer neither, and the source's answer ends it
    assert actions == (RefuseCommit("v1"),)
    assert participant.step(ghost, OutcomeReceived(Outcome.COMMITTED, "v1")) == (ghost, ())
    assert participant.step(ghost, OutcomeReceived(Outcome.ABORTED, "v9"))[0].phase is P.ABORTED


def test_a_source_that_recovers_reopens_even_a_tombstone() -> None:
    dead = target(*to_prepared(), AbortReceived())

    assert participant.step(dead, prepare(recovering=True))[1] == (CheckAdmission(PLAN),)


# -- in doubt --------------------------------------------------------------------------------------------------------


def test_a_target_that_hears_nothing_asks_until_answered() -> None:
    state, actions = participant.step(target(*to_prepared()), RetryDue())
    assert actions == (QueryOutcome("v1"),)

    state, actions = participant.step(state, QueryFailed("down"))
    assert actions == (ScheduleRetry(0.5),)
    state, actions = participant.step(state, OutcomeReceived(Outcome.PENDING, "v1"))
    assert actions == (ScheduleRetry(1.0),)

    state, actions = participant.step(state, OutcomeReceived(Outcome.COMMITTED, "v1"))
    assert actions == (JournalActivate(ActivatedRecord(PLAN, "v1")),)


def test_the_answer_aborted_discards() -> None:
    state, actions = participant.step(target(*to_prepared()), OutcomeReceived(Outcome.ABORTED, "v1"))

    assert state.phase is P.ABORTED
    assert actions[0] == Discard(delete_files=True)


def test_a_restarted_target_asks_and_brings_the_copy_back_without_its_hook() -> None:
    state, actions = participant.restore(PreparedRecord(PLAN, "v1", (CALL,)))
    assert actions == (QueryOutcome("v1"),)

    state, _ = participant.step(state, OutcomeReceived(Outcome.COMMITTED, "v1"))
    state, actions = participant.step(state, JournalWritten())

    assert actions[:3] == (ReleaseMailbox(), Activate(cold=True, deferred=(CALL,)), AckCommit())


def test_activation_is_written_until_that_succeeds_and_not_acknowledged_before() -> None:
    state, actions = participant.step(target(*to_active()[:-1]), JournalFailed("disk"))
    assert actions == (ScheduleRetry(0.5),)

    state, actions = participant.step(state, RetryDue())

    assert actions == (JournalActivate(ActivatedRecord(PLAN, "v1")),)


# -- forgetting ------------------------------------------------------------------------------------------------------


def test_settled_lets_the_target_forget() -> None:
    state, actions = participant.step(target(*to_active()), SettledReceived("v1"))

    assert state.phase is P.FORGOTTEN
    assert actions == (ForgetTransfer(),)


def test_a_lost_settled_is_made_up_for_by_asking() -> None:
    state, actions = participant.restore(ActivatedRecord(PLAN, "v1"))
    assert actions == (QueryOutcome("v1"),)

    state, actions = participant.step(state, OutcomeReceived(Outcome.COMMITTED, "v1"))
    assert actions == (ScheduleRetry(0.5),)
    state, actions = participant.step(state, OutcomeReceived(Outcome.ABORTED, "v1"))

    assert actions == (ForgetTransfer(),)


# -- calls of the arriving paglet ------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [4, 5, 6])
def test_calls_of_the_arrival_hook_wait_for_the_commit(when: int) -> None:
    happened = to_active()

    actions = target_actions(*happened[:when], CallRequested(CALL), *happened[when:])

    assert Activate(cold=False, deferred=(CALL,)) in actions


def test_calls_of_the_arrival_hook_are_part_of_the_vote() -> None:
    happened = to_prepared()

    actions = target_actions(*happened[:4], CallRequested(CALL), *happened[4:])

    assert StoreInert(PreparedRecord(PLAN, "v1", (CALL,))) in actions


def test_too_many_calls_are_refused() -> None:
    state = target(*to_prepared(), *[CallRequested(CALL)] * MOST_DEFERRED_CALLS)

    assert participant.step(state, CallRequested(CALL)) == (state, (RefuseCall(CALL),))


def test_a_call_of_a_discarded_copy_is_refused() -> None:
    assert participant.step(target(AbortReceived()), CallRequested(CALL))[1] == (RefuseCall(CALL),)


# -- admission -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("live", "departed", "undecided", "reason"),
    [
        (None, None, None, None),
        (None, 3, None, None),
        (None, 4, None, RefusalReason.STALE),
        (4, None, None, RefusalReason.STALE),
        (5, None, None, RefusalReason.STALE),
        (3, None, None, RefusalReason.CONFLICT),
        (None, None, "t0", RefusalReason.BUSY),
        (None, None, "t1", None),
    ],
)
def test_epochs(live: int | None, departed: int | None, undecided: str | None, reason: RefusalReason | None) -> None:
    refusal = judge_epoch(PLAN, live=live, departed=departed, undecided=undecided)

    assert (refusal.reason if refusal else None) is reason


def test_a_local_move_expects_its_own_paglet() -> None:
    assert judge_epoch(LOCAL, live=3, departed=None) is None
    assert judge_epoch(LOCAL, live=None, departed=None) is None
    stale = judge_epoch(LOCAL, live=4, departed=None)
    assert stale is not None
    assert stale.reason is RefusalReason.STALE


# -- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("happened", "event"),
    [
        ((), Admitted()),
        ((prepare(),), ProcessStarted()),
        ((prepare(), Admitted()), HookDone()),
        (to_prepared(), FilesMaterialised()),
        (to_prepared(), JournalWritten()),
        (to_active(), JournalFailed("x")),
        (to_active(), CallRequested(CALL)),
        ((prepare(),), prepare(replace(PLAN, transfer_id="t2"))),
    ],
)
def test_what_makes_no_sense_is_an_error(happened: tuple[ParticipantEvent, ...], event: ParticipantEvent) -> None:
    with pytest.raises(TransferProtocolError):
        participant.step(target(*happened), event)


# -- what is kept of it ----------------------------------------------------------------------------------------------

REFUSED = Refusal(RefusalReason.QUOTA, "full", retryable=True)
ENDED: dict[str, tuple[ParticipantEvent, ...]] = {
    "never begun": (),
    "refused": (prepare(), NotAdmitted(REFUSED)),
    "refused for good": (prepare(), NotAdmitted(replace(REFUSED, retryable=False))),
    "failed": (prepare(), Admitted(), FilesMaterialised(), StepFailed("no", ValueError("no"))),
    "called off": (*to_prepared(), AbortReceived()),
    "called off before it began": (AbortReceived(),),
    "forgotten": (*to_active(), SettledReceived("v1")),
}
LATE: tuple[ParticipantEvent, ...] = (
    prepare(vote="v2"),
    prepare(attempt=2, vote="v2"),
    prepare(attempt=2, vote="v2", recovering=True),
    CommitReceived("v1"),
    AbortReceived(),
    OutcomeReceived(Outcome.COMMITTED, "v1"),
    QueryFailed("no answer"),
    SettledReceived("v1"),
    RetryDue(),
    CallRequested(CALL),
)


@pytest.mark.parametrize("event", LATE, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("name", ENDED)
def test_a_tombstone_answers_late_events_as_the_machine_did(name: str, event: ParticipantEvent) -> None:
    ended = target(*ENDED[name])
    kept = participant.tombstone(ended) or participant.ParticipantState()

    _, told = participant.step(ended, event)
    _, repeated = participant.step(kept, event)

    assert [_plain(action) for action in repeated] == [_plain(action) for action in told]


def _plain(action: object) -> object:
    """Leave out the exception, which is for this side only."""
    return ReplyRefused(replace(action.refusal, cause=None)) if isinstance(action, ReplyRefused) else action


@pytest.mark.parametrize("name", ENDED)
def test_a_tombstone_is_small(name: str) -> None:
    kept = participant.tombstone(replace(target(*ENDED[name]), refusal=Refusal(RefusalReason.POLICY, "x" * 10_000)))

    assert kept is None or (kept.plan is None and kept.refusal is not None and len(kept.refusal.text) == 500)


def test_a_tombstone_holds_nothing_of_what_was_under_way_when_it_failed() -> None:
    kept = participant.tombstone(target(*ENDED["failed"]))

    assert kept is not None and kept.refusal is not None
    assert (kept.refusal.text, kept.refusal.cause) == ("no", None)


def test_there_is_no_tombstone_of_a_transfer_that_goes_on() -> None:
    with pytest.raises(TransferProtocolError):
        participant.tombstone(target(*to_prepared()))


# -- the journal in memory -------------------------------------------------------------------------------------------


def test_the_memory_journal_tells_what_it_was_told() -> None:
    journal = MemoryJournal()
    commit, inert, active = CommitRecord(PLAN, "v1"), PreparedRecord(CLONE, "v2"), ActivatedRecord(CLONE, "v2")

    journal.record_commit(commit)
    journal.record_prepared(inert)
    assert (journal.load().commits, journal.load().prepared) == ((commit,), (inert,))
    assert journal.load().departed == {"p": (4, "T")}

    journal.record_activated(active)
    journal.forget_commit("t1")
    assert (journal.load().commits, journal.load().prepared, journal.load().activated) == ((), (), (active,))
    assert journal.load().departed == {"p": (4, "T")}

    journal.forget_activated("t1")
    journal.forget_departed("p")
    assert (journal.load().activated, journal.load().departed) == ((), {})


def test_the_memory_journal_erases_a_commit_with_its_mark() -> None:
    journal = MemoryJournal()
    journal.record_commit(CommitRecord(PLAN, "v1"))

    journal.erase_commit("t1")

    assert (journal.load().commits, journal.load().departed) == ((), {})
