"""Times and sizes as people write them, and the shortest ids that tell paglets apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.cli.events import since_of
from paglets.cli.fleet import short_ids
from paglets.cli.options import duration_of, moment_of, size_or_none

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        (" 5 ", 5),
        ("0.5s", 0.5),
        ("1D2H", 93600),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_of(text, "--for") == seconds


@pytest.mark.parametrize("text", ["", "m", "10x", "-5s", "1m1h", "5 m", "0s", "1e3", "40000d", "soon"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="--for must be"):
        duration_of(text, "--for")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10485760", 10485760),
        ("10M", 10 * 1024**2),
        ("1.5g", 3 * 512 * 1024**2),
        ("7B", 7),
        ("2k", 2048),
        ("none", None),
        ("Unlimited", None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    assert size_or_none(text, "--x") == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1 MB", "1e3", "ten"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="--x must be a size"):
        size_or_none(text, "--x")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("13:30", NOON.replace(hour=13, minute=30)),
        ("12:00", NOON + timedelta(days=1)),
        ("7:05:30", NOON.replace(day=22, hour=7, minute=5, second=30)),
        ("2026-12-01", NOON.replace(month=12, day=1, hour=0)),
        ("2026-12-01T08:15", NOON.replace(month=12, day=1, hour=8, minute=15)),
        ("2026-12-01T08:15Z", datetime(2026, 12, 1, 8, 15, tzinfo=UTC)),
    ],
)
def test_moments(text: str, moment: datetime) -> None:
    assert moment_of(text, "--until", now=NOON) == moment.timestamp()


@pytest.mark.parametrize("text", ["", "noon", "25:00", "12:61", "2026-13-01", "12"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="--until must be a time like"):
        moment_of(text, "--until", now=NOON)


def test_since_is_in_the_past() -> None:
    now = datetime.now().astimezone()
    assert now.timestamp() - 601 < since_of("10m") <= now.timestamp()
    minute = (now - timedelta(minutes=1)).strftime("%H:%M")
    later = (now + timedelta(minutes=2)).strftime("%H:%M")
    assert since_of(minute) <= now.timestamp()
    assert since_of(later) <= now.timestamp() - 86400 + 180
    assert since_of("2026-01-01") == datetime(2026, 1, 1, tzinfo=now.tzinfo).timestamp()


@given(st.lists(st.text("0123456789abcdef", min_size=1, max_size=32), max_size=50))
def test_short_ids_are_beginnings_that_differ(ids: list[str]) -> None:
    short = short_ids(ids)
    assert set(short) == set(ids)
    for each, beginning in short.items():
        assert each.startswith(beginning)
        assert len(beginning) >= min(8, len(each))
        others = [other for other in set(ids) if other != each and other.startswith(beginning)]
        assert not others or beginning == each


def test_chosen_ids_stay_whole() -> None:
    assert short_ids(["talker-one", "0" * 32, "0" * 31 + "1"]) == {
        "talker-one": "talker-one",
        "0" * 32: "0" * 32,
        "0" * 31 + "1": "0" * 31 + "1",
    }
    assert short_ids(["a" * 32, "b" * 32]) == {"a" * 32: "a" * 8, "b" * 32: "b" * 8}
