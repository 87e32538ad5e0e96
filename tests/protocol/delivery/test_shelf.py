"""A shelf holds the newest windows within its bounds of number and of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.protocol.delivery import HANDLED, DedupWindow, Outcome, WindowShelf

ONE = DedupWindow()
ONE.remember("m", HANDLED)
EACH = ONE.nbytes


def window(replies: int = 0) -> DedupWindow:
    made = DedupWindow()
    made.remember("m", Outcome(reply=b"x" * replies))
    return made


def test_a_window_is_found_and_taken_once() -> None:
    shelf, mine = WindowShelf(), window()
    shelf.put("a", mine)

    assert shelf.find("a") is mine
    assert shelf.take("a") is mine
    assert (shelf.find("a"), shelf.take("a"), shelf.nbytes) == (None, None, 0)


def test_beyond_the_bytes_the_first_go() -> None:
    shelf = WindowShelf(max_bytes=3 * EACH + 100)
    for name in "abc":
        shelf.put(name, window())

    shelf.put("d", window(replies=200))

    assert [name for name in "abcd" if shelf.find(name)] == ["c", "d"]
    assert shelf.nbytes == 2 * EACH + 200


def test_a_window_too_large_is_not_held() -> None:
    shelf = WindowShelf(max_bytes=1_000)

    shelf.put("a", window(replies=1_000))

    assert (len(shelf), shelf.nbytes) == (0, 0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "take"]), st.sampled_from("abcdef"), st.integers(0, 2_000)), max_size=60
    ),
    st.integers(0, 5),
    st.integers(0, 5_000),
)
def test_the_bounds_hold_whatever_happens(steps: list[tuple[str, str, int]], most: int, most_bytes: int) -> None:
    shelf = WindowShelf(most, most_bytes)
    for what, name, replies in steps:
        if what == "take":
            shelf.take(name)
        else:
            made = window(replies)
            shelf.put(name, made)
            assert shelf.find(name) is (made if most and made.nbytes <= most_bytes else None)
        held = [found for each in "abcdef" if (found := shelf.find(each)) is not None]
        assert len(held) == len(shelf) <= most
        assert sum(found.nbytes for found in held) == shelf.nbytes <= most_bytes


@pytest.mark.parametrize("bounds", [(-1, 0), (0, -1)])
def test_negative_bounds_are_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="negative"):
        WindowShelf(*bounds)
