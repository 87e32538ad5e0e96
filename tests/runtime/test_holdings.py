"""What is known of whose paglets are here is about paglets that are here."""

from __future__ import annotations

from paglets.runtime.holdings import Holdings
from paglets.security.policy import Policy


def test_copies_that_left_are_not_remembered_for_ever() -> None:
    here: set[str] = set()
    holdings = Holdings(Policy(), here.__contains__)

    for number in range(10_000):
        here.clear()
        here.add(f"copy{number}")
        holdings.count("ann", f"copy{number}")

    assert len(holdings._paglets["ann"]) <= 1_001
    assert "copy9999" in holdings._paglets["ann"]


def test_those_that_stay_are_counted_however_many_they_are() -> None:
    holdings = Holdings(Policy(), lambda _: True)

    for number in range(5_000):
        holdings.count("ann", f"copy{number}")

    assert len(holdings._paglets["ann"]) == 5_000
