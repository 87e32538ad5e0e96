"""The ledger of a host: rows are made without I/O, are written with what they tell of, and read as a journey."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from paglets.persistence.journal import Journal
from paglets.persistence.rows import DepartedRow, LedgerRow
from paglets.persistence.tables import ledger as table
from paglets.persistence.tables import places
from paglets.runtime.ledger import Ledger, LedgerEvent

ALPHA, BETA, GAMMA = "http://alpha:1", "http://beta:2", "http://gamma:3"
KIND = "some.module:Walker"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as opened:
        yield opened


@pytest.fixture
def ledger(journal: Journal) -> Ledger:
    ticks = count(1000)
    return Ledger(journal, "beta", lambda: BETA, clock=lambda: float(next(ticks)))


def write(journal: Journal, *rows: LedgerRow) -> None:
    for row in rows:
        journal.write_now(lambda connection, row=row: table.add(connection, row))  # type: ignore[misc]


def test_a_stranger_has_no_journey(ledger: Ledger) -> None:
    assert ledger.journey("nobody") == {"agent_id": "nobody", "entries": [], "previous": None, "next": None}


def test_a_visit_is_told_from_arrival_to_departure(ledger: Ledger, journal: Journal) -> None:
    write(
        journal,
        ledger.arrived(
            "w",
            KIND,
            5,
            source=f"{ALPHA}/",
            source_name="alpha",
            cause="retract",
            transfer_id="t1",
            size_bytes=70,
            seconds=0.5,
        ),
        ledger.slept("w", KIND, 5, reason="night", size_bytes=60),
        ledger.woke("w", KIND, 5, cause="message", seconds=0.002),
        ledger.departed("w", KIND, 5, target=GAMMA, target_name="gamma", transfer_id="t2", size_bytes=80, seconds=0.01),
    )

    journey = ledger.journey("w")

    assert journey["previous"] == {"host_url": ALPHA, "name": "alpha", "epoch": 4}
    assert journey["next"] == {"host_url": GAMMA, "name": "gamma", "epoch": 6}
    assert journey["entries"][0] == {
        "at": 1000.0,
        "event": "arrived",
        "epoch": 5,
        "host": "beta",
        "host_url": BETA,
        "peer": ALPHA,
        "peer_name": "alpha",
        "cause": "retract",
        "size_bytes": 70,
        "seconds": 0.5,
        "transfer_id": "t1",
        "class_name": KIND,
    }
    told = [(each["at"], each["event"], each["cause"]) for each in journey["entries"][1:]]
    assert told == [(1001.0, "slept", "night"), (1002.0, "woke", "message"), (1003.0, "departed", "dispatch")]


def test_a_life_in_one_place_has_no_links(ledger: Ledger, journal: Journal) -> None:
    write(
        journal,
        ledger.created("w", KIND, 1, size_bytes=3),
        ledger.crashed("w", KIND, 1, error="process exited with code 3"),
        ledger.recovered("w", KIND, 1, cause="crash"),
        ledger.ended("w", KIND, 1),
        ledger.created("other", KIND, 1),
    )
    journey = ledger.journey("w")
    assert [each["event"] for each in journey["entries"]] == ["created", "crashed", "recovered", "ended"]
    assert (journey["previous"], journey["next"]) == (None, None)


def test_every_event_has_a_row(ledger: Ledger) -> None:
    rows = [
        ledger.created("w", KIND, 1),
        ledger.cloned("w", KIND, 0, origin_id="v", source=ALPHA),
        ledger.arrived("w", KIND, 1, source=ALPHA),
        ledger.departed("w", KIND, 1, target=ALPHA),
        ledger.slept("w", KIND, 1),
        ledger.woke("w", KIND, 1),
        ledger.recovered("w", KIND, 1),
        ledger.crashed("w", KIND, 1, error="e"),
        ledger.ended("w", KIND, 1),
    ]
    assert [row.event for row in rows] == [event.value for event in LedgerEvent]
    assert (rows[1].cause, rows[1].peer) == ("clone of v", ALPHA)


def test_a_paglet_that_came_back_is_here(ledger: Ledger, journal: Journal) -> None:
    write(
        journal,
        ledger.created("w", KIND, 1),
        ledger.departed("w", KIND, 1, target=ALPHA, target_name="alpha"),
        ledger.arrived("w", KIND, 4, source=GAMMA, source_name="gamma"),
    )
    # The forwarder of its first stay was not removed yet.
    journal.write_now(lambda c: places.departed_put(c, DepartedRow("w", 2, ALPHA, BETA, 1.0)))

    journey = ledger.journey("w")

    assert journey["next"] is None
    assert journey["previous"] == {"host_url": GAMMA, "name": "gamma", "epoch": 3}


def test_the_forwarder_tells_where_the_ledger_was_trimmed(ledger: Ledger, journal: Journal) -> None:
    journal.write_now(lambda c: places.departed_put(c, DepartedRow("w", 7, ALPHA, BETA, 1.0)))
    assert ledger.journey("w") == {
        "agent_id": "w",
        "entries": [],
        "previous": None,
        "next": {"host_url": ALPHA, "name": "", "epoch": 7},
    }


def test_a_long_error_is_shortened(ledger: Ledger) -> None:
    cause = ledger.crashed("w", KIND, 1, error="x" * 10_000).cause
    assert len(cause) == 500
    assert cause.endswith("x…")


def test_a_row_belongs_to_the_unit_it_is_written_in(ledger: Ledger, journal: Journal) -> None:
    row = ledger.ended("w", KIND, 1)

    def work(connection: object) -> None:
        table.add(connection, row)  # type: ignore[arg-type]
        raise RuntimeError("the rest of the unit fails")

    with pytest.raises(RuntimeError, match="the rest"):
        journal.write_now(work)
    assert ledger.journey("w")["entries"] == []
