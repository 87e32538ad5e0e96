"""Code that is run is put side by side, and does what it did."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator

import pytest

from paglets.runtime.worker.hot_code import gather


@pytest.fixture(autouse=True)
def _known_to_the_collector() -> Iterator[None]:
    """Functions are looked for among what is not frozen, as in a fork server."""
    gc.unfreeze()
    yield
    gc.freeze()


def _inner(number: int, *, step: int = 1) -> int:
    return number + step


def _outer(number: int) -> int:
    return _inner(number) + _beside()


def _beside() -> int:
    return 10


def _never() -> None:
    raise AssertionError


def _closure(start: int) -> Callable[[], int]:
    def count() -> int:
        nonlocal start
        start += 1
        return start

    return count


def test_what_runs_gets_copies_that_do_the_same() -> None:
    count = _closure(3)
    before = [function.__code__ for function in (_outer, _inner, _beside, count, _never)]
    results: list[int] = []
    assert gather(lambda: results.extend((_outer(1), count())), also=(_never,)) >= 5
    assert results == [12, 4]
    after = [function.__code__ for function in (_outer, _inner, _beside, count, _never)]
    assert all(new is not old and new == old for new, old in zip(after, before, strict=True))
    assert (_outer(2), _inner(1, step=5), count(), count()) == (13, 6, 5, 6)


def test_a_profiler_that_watches_goes_on_watching() -> None:
    def watch(*_: object) -> None:
        return None

    sys.setprofile(watch)
    try:
        gather(_beside)
        assert sys.getprofile() is watch
    finally:
        sys.setprofile(None)


def test_what_was_not_run_keeps_its_code() -> None:
    before = _never.__code__
    gather(_beside)
    assert _never.__code__ is before
