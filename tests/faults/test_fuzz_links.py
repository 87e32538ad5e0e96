"""A short run of the fuzzer of links; `python -m tests.faults.fuzz_links` is the long one."""

from __future__ import annotations

from tests.faults.fuzz_links import fuzz


def test_damaged_links_hurt_nobody_else() -> None:
    outcome = fuzz(20, links=50)
    assert outcome.problems == []
    # It found its way in, and was not let through.
    assert outcome.links == 50 and outcome.machines == 2000
    assert outcome.refused > 500 and outcome.messages > outcome.machines
