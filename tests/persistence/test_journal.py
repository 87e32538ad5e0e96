from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import HostError, OverloadedError, PagletError
from paglets.persistence import journal as journal_module
from paglets.persistence.journal import Journal, read_only
from paglets.persistence.rows import StateRef
from paglets.persistence.states import INLINE_BYTES
from paglets.persistence.tables import outbox, paglets

from .journal_rows import put, record

LARGE = os.urandom(INLINE_BYTES + 1)


def add(body: str) -> Any:
    return lambda c: outbox.add(c, "s", "http://h", "a", body.encode())


def bodies(c: sqlite3.Connection) -> list[str]:
    return [row.body.decode() for row in outbox.pending(c, 100_000)]


class Hold:
    """A unit that keeps the writer busy until told otherwise."""

    def __init__(self, journal: Journal) -> None:
        self._entered, self._leave = threading.Event(), threading.Event()
        journal.submit(self._wait, lambda _value, _error: None)
        assert self._entered.wait(10)

    def _wait(self, _: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._leave.wait(10)

    def release(self) -> None:
        self._leave.set()


class Outcomes:
    """What units ended in, in the order in which it was told."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def __call__(self, value: Any, error: Exception | None) -> None:
        self.all.append(value if error is None else error)


# writing and reading


def test_what_was_written_can_be_read_and_stays(journal_path: Path) -> None:
    with Journal(journal_path) as journal:
        assert journal.warnings == []
        assert journal.write_now(add("1")) == 1
        assert journal.read(bodies) == ["1"]
    with Journal(journal_path) as journal:
        assert journal.read(bodies) == ["1"]


def test_errors_reach_their_caller_unchanged(journal: Journal) -> None:
    failure = PagletError("no")

    def fail(c: sqlite3.Connection) -> None:
        add("half")(c)
        raise failure

    with pytest.raises(PagletError) as caught:
        journal.write_now(fail)
    assert caught.value is failure
    with pytest.raises(HostError, match="no such table"):
        journal.write_now(lambda c: c.execute("SELECT * FROM absent"))
    assert journal.read(bodies) == []


def test_units_run_in_order_and_share_a_commit(journal: Journal) -> None:
    hold = Hold(journal)
    before = journal.statistics()
    outcomes = Outcomes()
    for number in range(100):
        journal.submit(add(str(number)), outcomes)
    assert journal.statistics().waiting == 100
    hold.release()
    journal.write_now(lambda _: None)
    after = journal.statistics()
    assert outcomes.all == list(range(1, 101))
    assert journal.read(bodies) == [str(number) for number in range(100)]
    assert after.units - before.units >= 101
    assert after.groups - before.groups < 50


def test_a_group_is_bounded(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "GROUP_UNITS", 10)
    hold = Hold(journal)
    before = journal.statistics().groups
    for number in range(50):
        journal.submit(add(str(number)), lambda _value, _error: None)
    hold.release()
    journal.write_now(lambda _: None)
    assert journal.statistics().groups - before >= 5
    assert len(journal.read(bodies)) == 50


def test_a_completion_comes_after_the_commit(journal: Journal, journal_path: Path) -> None:
    seen: list[list[str]] = []
    ended = threading.Event()

    def done(_value: Any, _error: Exception | None) -> None:
        with closing(sqlite3.connect(journal_path)) as other:
            seen.append(bodies(other))
        ended.set()

    hold = Hold(journal)
    journal.submit(add("1"), lambda _value, _error: None)
    journal.submit(add("2"), done)
    hold.release()
    assert ended.wait(10)
    assert seen == [["1", "2"]]


def test_a_failing_completion_takes_no_other_along(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_value: Any, _error: Exception | None) -> None:
        raise RuntimeError("careless")

    outcomes = Outcomes()
    hold = Hold(journal)
    journal.submit(add("1"), fail)
    journal.submit(add("2"), outcomes)
    hold.release()
    with caplog.at_level(logging.ERROR):
        journal.write_now(lambda _: None)
    assert outcomes.all == [2]
    assert "careless" in caplog.text


def test_a_read_is_one_snapshot_and_does_not_wait_for_the_writer(journal: Journal) -> None:
    journal.write_now(add("1"))
    hold = Hold(journal)

    def look(c: sqlite3.Connection) -> list[list[str]]:
        first = bodies(c)
        ended = threading.Event()
        journal.submit(add("2"), lambda _value, _error: ended.set())
        hold.release()
        assert ended.wait(10)
        return [first, bodies(c)]

    assert journal.read(bodies) == ["1"]
    assert journal.read(look) == [["1"], ["1"]]
    assert journal.read(bodies) == ["1", "2"]


def test_a_reader_cannot_write_and_recovers_from_errors(journal: Journal) -> None:
    with pytest.raises(HostError, match="readonly"):
        journal.read(add("1"))
    with pytest.raises(PagletError, match="own"):
        journal.read(lambda _: (_ for _ in ()).throw(PagletError("own")))
    assert journal.read(bodies) == []


def test_many_threads(journal: Journal) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(50):
                journal.write_now(add(f"{name}-{number}"))
                mine = [body for body in journal.read(bodies) if body.startswith(name)]
                assert mine == [f"{name}-{earlier}" for earlier in range(number + 1)]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(journal.read(bodies)) == 400


def test_what_waits_is_bounded(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MOST_WAITING", 3)
    hold = Hold(journal)
    for number in range(3):
        journal.submit(add(str(number)), lambda _value, _error: None)
    with pytest.raises(OverloadedError, match="wait for the disk"):
        journal.submit(add("3"), lambda _value, _error: None)
    hold.release()


# keys


def test_a_released_key_lets_only_later_units_through(journal: Journal) -> None:
    failure = PagletError("no")

    def fail(_: sqlite3.Connection) -> None:
        raise failure

    outcomes = Outcomes()
    hold = Hold(journal)
    journal.submit(add("1"), outcomes, key="k")
    journal.submit(fail, outcomes, key="k")
    journal.submit(add("stale"), outcomes, key="k")
    journal.submit(add("other"), outcomes, key="other")
    journal.release("k")
    journal.submit(add("fresh"), outcomes, key="k")
    hold.release()
    journal.write_now(lambda _: None)
    assert outcomes.all == [1, failure, failure, 2, 3]
    assert journal.read(bodies) == ["1", "other", "fresh"]


# closing


def test_closing_finishes_what_was_submitted(journal_path: Path) -> None:
    journal = Journal(journal_path)
    outcomes = Outcomes()
    hold = Hold(journal)
    for number in range(300):
        journal.submit(add(str(number)), outcomes)
    hold.release()
    journal.close()
    journal.close()
    assert len(outcomes.all) == 300
    for attempt in (
        lambda: journal.submit(add("late"), outcomes),
        lambda: journal.write_now(add("late")),
        lambda: journal.read(bodies),
    ):
        with pytest.raises(HostError, match="closed"):
            attempt()
    journal.release("k")
    # The log was folded into the file by the last to leave.
    assert [path.name for path in journal_path.parent.iterdir()] == [journal_path.name]
    with Journal(journal_path) as journal:
        assert len(journal.read(bodies)) == 300


def test_the_writer_does_not_wait_for_itself(journal: Journal) -> None:
    outcomes = Outcomes()
    journal.submit(lambda _: journal.write_now(add("1")), outcomes)
    journal.write_now(lambda _: None)
    assert isinstance(outcomes.all[0], HostError)


def test_the_thread_says_whose_it_is(journal: Journal) -> None:
    assert "paglets-journal-host" in [thread.name for thread in threading.enumerate()]


# event loops


def test_completions_come_on_the_attached_loop_in_one_call(journal: Journal) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        journal.attach(loop)
        threads: list[threading.Thread] = []
        ended = asyncio.Event()
        hold = Hold(journal)
        for number in range(10):
            journal.submit(add(str(number)), lambda _value, _error: threads.append(threading.current_thread()))
        journal.submit(lambda _: None, lambda _value, _error: ended.set())
        hold.release()
        await ended.wait()
        assert threads == [threading.main_thread()] * 10

    asyncio.run(main())


def test_write_returns_the_value_or_raises(journal: Journal) -> None:
    failure = PagletError("no")

    def fail(_: sqlite3.Connection) -> None:
        raise failure

    async def main() -> None:
        journal.attach(asyncio.get_running_loop())
        assert await journal.write(add("1"), key="k") == 1
        with pytest.raises(PagletError) as caught:
            await journal.write(fail, key="k")
        assert caught.value is failure
        with pytest.raises(PagletError):
            await journal.write(add("2"), key="k")
        journal.release("k")
        assert await journal.write(add("3"), key="k") == 2

    asyncio.run(main())
    assert journal.read(bodies) == ["1", "3"]


def test_a_cancelled_writer_is_served_nevertheless(journal: Journal) -> None:
    async def main() -> None:
        journal.attach(asyncio.get_running_loop())
        hold = Hold(journal)
        task = asyncio.create_task(journal.write(add("1")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hold.release()
        assert await journal.write(add("2")) == 2

    asyncio.run(main())
    assert journal.read(bodies) == ["1", "2"]


def test_write_is_for_the_attached_loop_only(journal: Journal) -> None:
    async def main() -> None:
        with pytest.raises(HostError, match="not attached"):
            await journal.write(add("1"))

    asyncio.run(main())
    assert journal.read(bodies) == []


def test_a_closed_loop_drops_completions_but_no_work(journal: Journal) -> None:
    loop = asyncio.new_event_loop()
    journal.attach(loop)
    loop.close()
    outcomes = Outcomes()
    journal.submit(add("1"), outcomes)
    assert journal.write_now(add("2")) == 2
    assert outcomes.all == []
    assert journal.read(bodies) == ["1", "2"]


# large states


def stored(agent_id: str, ref: StateRef) -> Any:
    return lambda c: paglets.put(c, record(agent_id), ref)


def files(journal: Journal) -> list[str]:
    return sorted(path.name for path in journal.states.directory.iterdir())


def test_the_file_of_a_replaced_state_goes_after_the_commit(journal: Journal) -> None:
    first, second = journal.states.keep(LARGE), journal.states.keep(LARGE)
    journal.write_now(stored("a1", first))
    journal.write_now(lambda _: None)
    assert files(journal) == sorted([first.file, second.file])
    journal.write_now(lambda c: paglets.update_state(c, "a1", 1, second))
    journal.write_now(lambda _: None)
    assert files(journal) == [second.file]
    found = journal.read(lambda c: paglets.get(c, "a1"))
    assert found is not None
    assert journal.states.load(found[1]) == LARGE
    journal.write_now(lambda c: paglets.remove(c, "a1"))
    journal.write_now(lambda _: None)
    assert files(journal) == []


def test_a_file_that_cannot_be_removed_stops_nobody(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ref = journal.states.keep(LARGE)
    journal.write_now(stored("a1", ref))

    def fail(_: str) -> None:
        raise OSError("busy")

    monkeypatch.setattr(journal.states, "drop", fail)
    with caplog.at_level(logging.WARNING):
        journal.write_now(lambda c: paglets.remove(c, "a1"))
        journal.write_now(add("1"))
    assert "busy" in caplog.text
    assert journal.read(bodies) == ["1"]


def test_opening_sweeps_the_files_that_no_row_names(journal_path: Path) -> None:
    with Journal(journal_path) as journal:
        named = journal.states.keep(LARGE)
        journal.states.keep(LARGE)
        journal.write_now(stored("a1", named))
        assert len(files(journal)) == 2
    with Journal(journal_path) as journal:
        assert files(journal) == [named.file]


def test_a_sweep_that_fails_is_a_warning(journal_path: Path) -> None:
    journal_path.parent.mkdir(parents=True)
    (journal_path.parent / "states").write_text("no directory")
    with Journal(journal_path) as journal:
        (warning,) = journal.warnings
        assert "stay for now" in warning
        journal.write_now(add("1"))


# reading from outside


def test_reading_creates_nothing(journal_path: Path) -> None:
    with read_only(journal_path) as connection:
        assert connection is None
    assert not journal_path.parent.exists()


def test_reading_while_a_host_writes(journal: Journal, journal_path: Path) -> None:
    journal.write_now(lambda c: put(c, "a1"))
    with read_only(journal_path) as connection:
        assert connection is not None
        assert [summary.agent_id for summary in paglets.summaries(connection)] == ["a1"]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            put(connection, "a2")
