"""A window recognises the newest handled messages within its bounds, and says which outcomes it holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.protocol.delivery import HANDLED, DedupWindow, Outcome

IDS = st.sampled_from([f"m{number}" for number in range(12)])
OUTCOMES = st.one_of(
    st.none(),
    st.builds(Outcome, reply=st.one_of(st.none(), st.binary(max_size=8)), error=st.none()),
    st.builds(Outcome, reply=st.none(), error=st.binary(max_size=8)),
)


def test_a_handled_message_is_seen_with_its_outcome() -> None:
    window = DedupWindow()

    assert window.remember("a", Outcome(reply=b"5"))
    assert window.remember("b", HANDLED)

    assert window.seen("a") and "a" in window
    assert window.outcome("a") == Outcome(reply=b"5")
    assert window.outcome("b") == HANDLED
    assert not window.seen("c")
    assert window.outcome("c") is None


def test_beyond_the_count_the_oldest_id_goes() -> None:
    window = DedupWindow(max_entries=2)

    for name in "abc":
        window.remember(name, HANDLED)

    assert [name for name in "abc" if window.seen(name)] == ["b", "c"]
    assert window.statistics().forgotten == 1


def test_beyond_the_bytes_the_oldest_outcome_goes_and_its_id_stays() -> None:
    window = DedupWindow(max_bytes=10)

    window.remember("a", Outcome(reply=b"12345"))
    window.remember("b", Outcome(error=b"12345"))
    window.remember("c", Outcome(reply=b"1"))

    assert window.seen("a") and window.outcome("a") is None
    assert window.outcome("b") == Outcome(error=b"12345")
    assert window.statistics().outcome_bytes == 6
    assert window.statistics().stripped == 1


def test_an_outcome_too_large_to_keep_says_so_and_costs_the_others_nothing() -> None:
    window = DedupWindow(max_bytes=10)
    window.remember("a", Outcome(reply=b"1234567890"))

    assert not window.remember("b", Outcome(reply=b"12345678901"))

    assert window.seen("b") and window.outcome("b") is None
    assert window.outcome("a") == Outcome(reply=b"1234567890")


def test_what_a_sender_was_told_first_stays() -> None:
    window = DedupWindow()
    window.remember("a", Outcome(reply=b"first"))
    window.remember("b", None)

    assert window.remember("a", Outcome(reply=b"second"))
    assert not window.remember("b", HANDLED)

    assert window.outcome("a") == Outcome(reply=b"first")
    assert window.export() == [("a", Outcome(reply=b"first")), ("b", None)]


def test_it_travels() -> None:
    window = DedupWindow()
    for number in range(20):
        window.remember(str(number), Outcome(reply=bytes(number)) if number % 3 else None)
    arrived = DedupWindow()

    arrived.restore(window.export())

    assert arrived.export() == window.export()
    assert arrived.statistics().outcome_bytes == window.statistics().outcome_bytes


@pytest.mark.parametrize(("entries", "nbytes"), [(0, 1), (1, -1)])
def test_bounds_must_make_sense(entries: int, nbytes: int) -> None:
    with pytest.raises(ValueError, match="a window remembers at least"):
        DedupWindow(entries, nbytes)


@given(
    items=st.lists(st.tuples(IDS, OUTCOMES), max_size=60),
    entries=st.integers(1, 6),
    nbytes=st.integers(0, 20),
)
def test_it_equals_a_list_that_is_searched(items: list[tuple[str, Outcome | None]], entries: int, nbytes: int) -> None:
    window = DedupWindow(entries, nbytes)
    model: list[tuple[str, Outcome | None]] = []

    for message_id, outcome in items:
        held = window.remember(message_id, outcome)
        found = dict(model).get(message_id, "absent")
        if found == "absent":
            fits = outcome is not None and outcome.nbytes <= nbytes
            model = [*model, (message_id, outcome if fits else None)][-entries:]
            for position, (name, kept) in enumerate(model):
                if sum(o.nbytes for _, o in model if o is not None) <= nbytes:
                    break
                if kept is not None and kept.nbytes:
                    model[position] = (name, None)
        assert held == (dict(model)[message_id] is not None)
        assert window.export() == model
        assert len(window) == len(model)
        assert window.statistics().outcome_bytes == sum(o.nbytes for _, o in model if o is not None)
