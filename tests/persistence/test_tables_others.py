from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from paglets.core.errors import OverloadedError
from paglets.persistence.rows import DepartedRow, HomeRow, NoticeRow, TransferRow
from paglets.persistence.tables import dead_letters, ledger, outbox, paglets, places, reminders, transfers

from .journal_rows import entry, in_file, inline, letter, put, reminder

# reminders


def test_reminders_are_put_moved_and_forgotten(c: sqlite3.Connection) -> None:
    reminders.put(c, reminder("b", due_at=20.0))
    reminders.put(c, reminder("a", due_at=30.0, every=None))
    reminders.put(c, reminder("a", "a2", due_at=10.0))
    assert reminders.of(c, "a1") == [reminder("a", due_at=30.0, every=None), reminder("b", due_at=20.0)]
    assert reminders.all_due(c) == [("a2", "a", 10.0), ("a1", "b", 20.0), ("a1", "a", 30.0)]
    assert reminders.move_on(c, "a1", "b", 25.0, 1)
    assert not reminders.move_on(c, "a1", "absent", 25.0, 1)
    assert reminders.of(c, "a1")[1] == replace(reminder("b", due_at=25.0), count=1)
    assert reminders.forget(c, "a1", "b")
    assert not reminders.forget(c, "a1", "b")
    assert [name for _, name, _ in reminders.all_due(c)] == ["a", "a"]


def test_reminders_are_replaced_for_the_paglet_that_arrived(c: sqlite3.Connection) -> None:
    reminders.put(c, reminder("old"))
    reminders.put(c, reminder("other", "a2"))
    reminders.replace(c, "a1", [reminder("x", "clone-of-a1"), reminder("y")])
    assert reminders.of(c, "a1") == [reminder("x"), reminder("y")]
    assert reminders.of(c, "a2") == [reminder("other", "a2")]


def test_a_paglet_has_a_bounded_number_of_reminders(c: sqlite3.Connection) -> None:
    most = [reminder(f"r{number}") for number in range(reminders.MOST_REMINDERS)]
    reminders.replace(c, "a1", most)
    with pytest.raises(OverloadedError, match="1000 reminders"):
        reminders.put(c, reminder("one more"))
    reminders.put(c, reminder("r5", due_at=99.0))
    with pytest.raises(OverloadedError):
        reminders.replace(c, "a2", [*most, reminder("one more")])
    assert reminders.of(c, "a2") == []
    assert len(reminders.of(c, "a1")) == 1000


# transfers


def test_transfers_are_kept_by_id_and_role(c: sqlite3.Connection) -> None:
    rows = [
        TransferRow("t2", "prepared", b"record", b"luggage", inline(b"state")),
        TransferRow("t1", "commit", b"record", b"", None),
        TransferRow("t2", "activated", b"other", b"", in_file("name")),
    ]
    for row in rows:
        transfers.put(c, row)
    assert transfers.load(c) == rows
    assert transfers.get(c, "t2", "prepared") == rows[0]
    assert transfers.get(c, "t2") == rows[2]
    assert transfers.get(c, "t1", "prepared") is None
    replaced = TransferRow("t2", "prepared", b"new", b"", None)
    transfers.put(c, replaced)
    assert transfers.load(c) == [replaced, *rows[1:]]
    assert transfers.remove(c, "t2", "prepared")
    assert not transfers.remove(c, "t2", "prepared")
    assert transfers.load(c) == rows[1:]


# places


def departed(agent_id: str, epoch: int = 1, at: float = 1.0) -> DepartedRow:
    return DepartedRow(agent_id, epoch, "http://target", "http://home", at)


def test_a_forwarder_is_of_the_latest_epoch(c: sqlite3.Connection) -> None:
    assert places.departed_put(c, departed("a1", 2))
    assert places.departed_put(c, departed("a2"))
    assert not places.departed_put(c, departed("a1", 1))
    assert places.departed_put(c, departed("a1", 3))
    assert places.departed_get(c, "a1") == departed("a1", 3)
    assert places.departed_all(c) == [departed("a2"), departed("a1", 3)]
    assert places.departed_remove(c, "a1")
    assert not places.departed_remove(c, "a1")
    assert places.departed_get(c, "a1") is None


def test_the_oldest_forwarders_go(c: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_DEPARTED", 5)
    monkeypatch.setattr(places, "_TRIM_EVERY", 2)
    for number in range(20):
        places.departed_put(c, departed(f"a{number}"))
    assert [row.agent_id for row in places.departed_all(c)] == [f"a{number}" for number in range(15, 20)]


def test_a_home_believes_the_latest_epoch(c: sqlite3.Connection) -> None:
    assert places.home_put(c, HomeRow("a1", 2, "http://x", 5.0))
    assert not places.home_put(c, HomeRow("a1", 1, "http://y", 6.0))
    assert places.home_get(c, "a1") == HomeRow("a1", 2, "http://x", 5.0)
    assert places.home_put(c, HomeRow("a1", 2, "http://z", 7.0))
    assert places.home_put(c, HomeRow("a1", 3, None, 8.0))
    assert not places.home_put(c, HomeRow("a1", 2, "http://late", 9.0))
    assert places.home_get(c, "a1") == HomeRow("a1", 3, None, 8.0)
    assert places.home_get(c, "absent") is None


def test_only_ends_make_room_for_ends(c: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_ENDED", 5)
    monkeypatch.setattr(places, "_TRIM_EVERY", 2)
    for number in range(20):
        places.home_put(c, HomeRow(f"alive{number}", 1, "http://x", 0.0))
        places.home_put(c, HomeRow(f"ended{number}", 1, "http://x", 0.0))
        places.home_put(c, HomeRow(f"ended{number}", 1, None, float(number)))
    assert all(places.home_get(c, f"alive{number}") is not None for number in range(20))
    kept = [number for number in range(20) if places.home_get(c, f"ended{number}") is not None]
    assert kept == [15, 16, 17, 18, 19]


def test_a_new_address_takes_the_place_of_the_former(c: sqlite3.Connection) -> None:
    old, new, other = "http://old", "http://new", "http://other"
    assert places.settle_in(c, old) is None
    put(c, "born-here", home=old)
    put(c, "guest", home=other, epoch=4)
    places.departed_put(c, replace(departed("left"), home=old))
    places.home_put(c, HomeRow("back", 2, old, 5.0))
    places.home_put(c, HomeRow("away", 2, other, 5.0))
    for url in (old, other):
        outbox.add(c, "sender", url, "receiver", b"body")
        dead_letters.add(c, replace(letter(), host_url=url))
    assert places.settle_in(c, old) is None
    assert places.settle_in(c, new) == old
    homes = {row.agent_id: found[0].home for row in paglets.summaries(c) if (found := paglets.get(c, row.agent_id))}
    assert homes == {"born-here": new, "guest": other}
    assert places.departed_get(c, "left") == replace(departed("left"), home=new)
    assert [places.home_get(c, agent_id) for agent_id in ("back", "away")] == [
        HomeRow("back", 2, new, 5.0),
        HomeRow("away", 2, other, 5.0),
    ]
    for table in ("outbox", "dead_letters"):
        urls = [row[0] for row in c.execute(f"SELECT host_url FROM {table} ORDER BY 1")]
        assert urls == [new, other]
    # The home of the guest is to be told.
    assert places.notices(c) == [NoticeRow("guest", other, 4, new)]
    assert places.settle_in(c, new) is None


def test_notices_stay_until_the_same_or_later_news_was_heard(c: sqlite3.Connection) -> None:
    places.notice_put(c, NoticeRow("a1", "http://home", 2, "http://x"))
    places.notice_put(c, NoticeRow("a1", "http://home", 1, "http://late"))
    places.notice_put(c, NoticeRow("a2", "http://home", 1, None))
    assert places.notices(c) == [
        NoticeRow("a1", "http://home", 2, "http://x"),
        NoticeRow("a2", "http://home", 1, None),
    ]
    places.notice_done(c, "a1", 1)
    assert len(places.notices(c)) == 2
    places.notice_put(c, NoticeRow("a1", "http://home", 3, None))
    places.notice_done(c, "a1", 2)
    assert places.notices(c)[0] == NoticeRow("a1", "http://home", 3, None)
    places.notice_done(c, "a1", 3)
    assert [row.agent_id for row in places.notices(c)] == ["a2"]


# ledger


def test_the_ledger_says_what_happened_in_order(c: sqlite3.Connection) -> None:
    numbers = [ledger.add(c, entry(f"a{number % 2}", f"e{number}")) for number in range(5)]
    entries = [replace(entry(f"a{n % 2}", f"e{n}"), sequence=numbers[n]) for n in range(5)]
    assert ledger.recent(c, 10) == entries
    assert ledger.recent(c, 2) == entries[3:]
    assert ledger.of(c, "a0") == entries[::2]
    assert ledger.of(c, "a0", limit=2) == [entries[2], entries[4]]


def test_a_cause_that_is_no_text_is_kept_as_its_escape(c: sqlite3.Connection) -> None:
    ledger.add(c, replace(entry(), cause="caf\udce9"))
    assert [row.cause for row in ledger.recent(c, 1)] == [r"caf\udce9"]


def test_the_ledger_is_bounded(c: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST_ENTRIES", 5)
    monkeypatch.setattr(ledger, "_TRIM_EVERY", 2)
    for number in range(20):
        ledger.add(c, entry(event=f"e{number}"))
    assert [row.event for row in ledger.recent(c, 100)] == [f"e{number}" for number in range(15, 20)]
