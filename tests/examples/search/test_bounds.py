"""Patterns that take for ever, and searches in slices."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from paglets.examples.search.bounds import MOST_SLOW_FILES, ProcessorTime, SlowPatternError
from paglets.examples.search.local_search import LocalSearch
from paglets.examples.search.models import SearchEvent, SearchRequest
from paglets.examples.search.worker import SlicedSearch
from tests.examples.search.local import plant

HOSTILE = r"(a+)+$"
TRAP = "a" * 60 + "!\n"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def bounded(root: Path, **fields: object) -> tuple[list[SearchEvent], LocalSearch]:
    events: list[SearchEvent] = []
    bound = ProcessorTime(0.05)
    request = SearchRequest(pattern=HOSTILE, paths=[str(root)], **fields)  # type: ignore[arg-type]
    search = LocalSearch(request, host_name="a", host_url="u", emit=events.extend, bound=bound)
    with bound.ticking():
        search.run()
    return events, search


def test_a_pattern_that_takes_for_ever_costs_one_file(tmp_path: Path) -> None:
    plant(tmp_path, {"a": f"aaa\n{TRAP}aaa\n", "b": "baa\n"})
    events, search = bounded(tmp_path)
    assert [(event.event, event.path[-1]) for event in events] == [("match", "a"), ("error", "a"), ("match", "b")]
    assert "takes longer than" in search.summary().errors[0]
    assert (search.summary().matches, search.summary().files_matched) == (2, 2)


def test_many_such_files_end_the_search(tmp_path: Path) -> None:
    plant(tmp_path, {f"{number}": TRAP for number in range(MOST_SLOW_FILES + 3)})
    _, search = bounded(tmp_path, files_without_match=True)
    assert search.summary().files_seen == MOST_SLOW_FILES
    assert "given up after" in search.summary().errors[-1]
    # Whether there is a match in them nobody knows.
    assert search.summary().files_matched == 0


def test_time_outside_of_a_piece_does_not_count() -> None:
    bound = ProcessorTime(0.0)
    with bound.ticking():
        begun = time.process_time()
        while time.process_time() < begun + 0.25:  # more than one tick of processor time
            pass
    with bound.ticking(), pytest.raises(SlowPatternError):
        bound.begin()
        while True:
            pass


def test_slices_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    plant(tmp_path, {f"{number:03}": "needle\n" * 3 for number in range(200)})
    request = SearchRequest(pattern="needle", paths=[str(tmp_path)], batch_size=1)
    search = SlicedSearch(request, host_name="a", host_url="u")
    first = search.advance(limit=100, seconds=1.0)
    assert 0 < len(first) <= 3  # the first results are told at once
    found = list(first)
    while not search.done:
        found += search.advance(limit=100, seconds=1.0)
    assert [event.sequence for event in found] == list(range(1, 601))
    assert (search.summary().matches, search.advance(limit=1, seconds=0.0)) == (600, [])


def test_a_slice_ends_without_results(tmp_path: Path) -> None:
    plant(tmp_path, {f"{number:03}": "x\n" for number in range(200)})
    search = SlicedSearch(SearchRequest(pattern="y", paths=[str(tmp_path)]), host_name="a", host_url="u")
    assert search.advance(limit=100, seconds=0.0) == []
    assert (search.done, search.summary().files_seen) == (False, 1)
    search.close()


def test_a_search_that_is_closed_has_nothing_open(tmp_path: Path) -> None:
    plant(tmp_path, {"a": f"needle\n{'x' * 200}\n" * 20_000})
    before = open_files()
    search = SlicedSearch(
        SearchRequest(pattern="needle", paths=[str(tmp_path)], max_count=0), host_name="a", host_url="u"
    )
    assert search.advance(limit=1, seconds=1.0)
    assert not search.done
    assert open_files() == before + 1
    search.close()
    assert open_files() == before


def test_the_bound_needs_the_main_thread(tmp_path: Path) -> None:
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with ProcessorTime().ticking():
                pass
        except ValueError as exc:
            raised.append(exc)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(raised) == 1
