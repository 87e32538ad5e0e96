"""A host does with each message what it knows of the receiver allows, and never accepts one that it may not own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import CallCycleError, HostError, InvalidAgentError, PagletError
from paglets.core.terms import FIRST_ATTEMPT, MAX_CHAIN, MAX_HOPS, DeliveryTerms
from paglets.protocol.delivery import (
    DELIVER,
    HANDLED,
    HOLD,
    JOIN,
    QUEUE,
    UNKNOWN,
    WAKE,
    Arriving,
    Asleep,
    Crashed,
    DedupWindow,
    Departed,
    Departing,
    Elsewhere,
    Ended,
    Forward,
    Knowledge,
    Live,
    Outcome,
    Refuse,
    RefuseReason,
    Repeat,
    lost_reply_error,
    newest,
    refusal_error,
    route,
)
from paglets.protocol.delivery.routing import AMBIGUOUS_SECONDS

AGAIN = DeliveryTerms(attempt=2)
HERE = [Live(), Live(True), Asleep(), Asleep(remembers=True), Crashed(), Crashed(remembers=True)]
UNDECIDED = [Departing(), Arriving()]
AWAY = [Departed(3, "http://b", "http://h"), Elsewhere(3, "http://b")]
NOWHERE = [Ended(), UNKNOWN]


def window_with(message_id: str, outcome: Outcome | None = HANDLED) -> DedupWindow:
    window = DedupWindow()
    window.remember(message_id, outcome)
    return window


def refused(reason: RefuseReason, knowledge: Knowledge, terms: DeliveryTerms = FIRST_ATTEMPT) -> bool:
    decision = route("p", knowledge, terms, "m")
    return isinstance(decision, Refuse) and decision.reason is reason


@pytest.mark.parametrize("remembers", [False, True])
def test_a_new_message_to_a_live_paglet_is_delivered(remembers: bool) -> None:
    assert route("p", Live(remembers), FIRST_ATTEMPT, "m") is DELIVER
    assert route("p", Live(remembers), FIRST_ATTEMPT, "m", window=window_with("n"), in_flight={"o"}) is DELIVER


@pytest.mark.parametrize("knowledge", HERE)
def test_a_repeated_message_that_was_handled_gets_the_recorded_outcome(knowledge: Knowledge) -> None:
    outcome = Outcome(reply=b"5")

    assert route("p", knowledge, AGAIN, "m", window=window_with("m", outcome)) == Repeat(outcome)
    assert route("p", knowledge, AGAIN, "m", window=window_with("m", None)) == Repeat(None)


@pytest.mark.parametrize("knowledge", HERE)
def test_a_repeated_message_that_is_here_joins_the_one_that_is(knowledge: Knowledge) -> None:
    assert route("p", knowledge, AGAIN, "m", window=DedupWindow(), in_flight={"m"}) is JOIN


@pytest.mark.parametrize("knowledge", HERE)
def test_a_first_attempt_that_its_own_repetition_overtook_is_recognised(knowledge: Knowledge) -> None:
    assert route("p", knowledge, FIRST_ATTEMPT, "m", window=window_with("m")) == Repeat(HANDLED)
    assert route("p", knowledge, FIRST_ATTEMPT, "m", in_flight={"m"}) is JOIN


def test_who_lost_the_window_refuses_a_repeated_message_for_a_minute() -> None:
    def decide(terms: DeliveryTerms, lost_for: float | None, knowledge: Knowledge) -> object:
        return route("p", knowledge, terms, "m", window=DedupWindow(), window_lost_for=lost_for)

    assert decide(AGAIN, AMBIGUOUS_SECONDS - 1, Live()) == Refuse(RefuseReason.AMBIGUOUS)
    assert decide(AGAIN, AMBIGUOUS_SECONDS - 1, Asleep()) == Refuse(RefuseReason.AMBIGUOUS)
    assert decide(AGAIN, AMBIGUOUS_SECONDS, Live()) is DELIVER
    assert decide(AGAIN, None, Live()) is DELIVER
    assert decide(FIRST_ATTEMPT, 1.0, Live()) is DELIVER
    assert decide(AGAIN, 1.0, Live(remembers=True)) is DELIVER


@pytest.mark.parametrize("knowledge", [Live(), Live(True), *UNDECIDED])
def test_a_cycle_is_answered_at_once(knowledge: Knowledge) -> None:
    terms = DeliveryTerms(chain=("o", "p", "q"))

    assert route("p", knowledge, terms, "m") == Refuse(RefuseReason.CYCLE, ("o", "p", "q"))


def test_a_chain_without_the_receiver_is_none_of_its_business() -> None:
    assert route("p", Live(), DeliveryTerms(chain=("o", "q")), "m") is DELIVER
    assert route("p", Asleep(), DeliveryTerms(chain=("o", "q")), "m") is WAKE


@pytest.mark.parametrize("knowledge", [Live(), Asleep(), *UNDECIDED])
def test_too_many_handlers_may_not_wait_for_each_other(knowledge: Knowledge) -> None:
    assert refused(RefuseReason.DEPTH, knowledge, DeliveryTerms(chain=tuple(map(str, range(MAX_CHAIN + 1)))))
    assert not refused(RefuseReason.DEPTH, knowledge, DeliveryTerms(chain=tuple(map(str, range(MAX_CHAIN)))))


@pytest.mark.parametrize(
    ("policy", "wishes", "decision"),
    [
        (Asleep(), {}, WAKE),
        (Asleep(), {"no_delay": True}, WAKE),
        (Asleep(), {"activate_if_inactive": False}, QUEUE),
        (Asleep(activate_on_message=False), {}, QUEUE),
        (Asleep(activate_on_message=False), {"no_delay": True}, Refuse(RefuseReason.INACTIVE)),
        (Asleep(queue_messages=False), {"activate_if_inactive": False}, Refuse(RefuseReason.INACTIVE)),
        (Asleep(queue_messages=False), {}, WAKE),
    ],
)
def test_a_sleeper_is_woken_or_its_messages_wait(policy: Asleep, wishes: dict[str, bool], decision: object) -> None:
    assert route("p", policy, FIRST_ATTEMPT, "m", **wishes) == decision


@pytest.mark.parametrize("knowledge", UNDECIDED)
@pytest.mark.parametrize("terms", [FIRST_ATTEMPT, AGAIN])
def test_nothing_is_accepted_while_a_transfer_is_undecided(knowledge: Knowledge, terms: DeliveryTerms) -> None:
    assert route("p", knowledge, terms, "m", window=window_with("m"), in_flight={"m"}) is HOLD


@pytest.mark.parametrize("knowledge", AWAY)
def test_what_left_is_followed_as_often_as_allowed(knowledge: Knowledge) -> None:
    home = "http://h" if isinstance(knowledge, Departed) else ""

    assert route("p", knowledge, AGAIN, "m") == Forward("http://b", 3, home)
    assert not refused(RefuseReason.HOPS, knowledge, DeliveryTerms(hops=MAX_HOPS - 1))
    assert refused(RefuseReason.HOPS, knowledge, DeliveryTerms(hops=MAX_HOPS))


def test_a_crashed_paglet_says_of_what() -> None:
    decision = route("p", Crashed("out of memory"), FIRST_ATTEMPT, "m")

    assert decision == Refuse(RefuseReason.CRASHED, text="out of memory")


def test_nobody_is_nobody() -> None:
    assert refused(RefuseReason.ENDED, Ended())
    assert refused(RefuseReason.UNKNOWN, UNKNOWN)


def test_the_newer_of_two_tales_is_believed() -> None:
    departed, older, newer = Departed(4, "http://b"), Elsewhere(3, "http://a"), Elsewhere(5, "http://c")

    assert newest(departed, older) is departed
    assert newest(departed, newer) is newer
    # Of one stay the home was told last, by the host that has it: of another address by then, if it is not the same.
    moved = Elsewhere(4, "http://b-moved")
    assert newest(departed, moved) is moved
    assert newest(departed, None) is departed
    assert newest(None, older) is older
    assert newest(None, None) is UNKNOWN


@pytest.mark.parametrize(
    ("reason", "kind", "text"),
    [
        (RefuseReason.UNKNOWN, InvalidAgentError, "no paglet p on host"),
        (RefuseReason.ENDED, InvalidAgentError, "ended"),
        (RefuseReason.CYCLE, CallCycleError, "o -> p"),
        (RefuseReason.DEPTH, CallCycleError, "at most 64"),
        (RefuseReason.AMBIGUOUS, HostError, "not known"),
    ],
)
def test_a_refusal_says_what_to_do(reason: RefuseReason, kind: type[PagletError], text: str) -> None:
    error = refusal_error("p", "host", Refuse(reason, ("o",)))

    assert type(error) is kind
    assert text in str(error)


def test_every_refusal_has_its_text() -> None:
    texts = {str(refusal_error("p", "host", Refuse(reason))) for reason in RefuseReason}

    assert len(texts) == len(RefuseReason)
    assert "not held" in str(lost_reply_error("p"))


@given(
    knowledge=st.sampled_from([*HERE, *UNDECIDED, *AWAY, *NOWHERE]),
    terms=st.builds(
        DeliveryTerms,
        attempt=st.integers(1, 3),
        chain=st.lists(st.sampled_from("pqr"), max_size=3).map(tuple),
        hops=st.integers(0, MAX_HOPS),
    ),
    handled=st.booleans(),
    in_flight=st.booleans(),
    lost_for=st.one_of(st.none(), st.floats(0, 200)),
    activate=st.booleans(),
    no_delay=st.booleans(),
)
def test_what_may_never_happen(
    knowledge: Knowledge,
    terms: DeliveryTerms,
    handled: bool,
    in_flight: bool,
    lost_for: float | None,
    activate: bool,
    no_delay: bool,
) -> None:
    decision = route(
        "p",
        knowledge,
        terms,
        "m",
        window=window_with("m") if handled else DedupWindow(),
        in_flight={"m"} if in_flight else (),
        window_lost_for=lost_for,
        activate_if_inactive=activate,
        no_delay=no_delay,
    )

    accepts = decision in (DELIVER, QUEUE, WAKE)
    remembers = getattr(knowledge, "remembers", False)
    if accepts:
        assert isinstance(knowledge, Live | Asleep), "only an owner accepts"
        assert not (handled or in_flight), "nothing is doubled"
        if lost_for is not None and lost_for < AMBIGUOUS_SECONDS and terms.attempt > 1:
            assert remembers, "nothing is perhaps doubled"
    if decision is DELIVER:
        assert "p" not in terms.chain
    if isinstance(decision, Repeat):
        assert handled
    if isinstance(knowledge, Departing | Arriving):
        assert decision is HOLD or isinstance(decision, Refuse)
