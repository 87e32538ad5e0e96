"""How much searching a run of the tests does: little with every change, more when there is time."""

from __future__ import annotations

import os

THOROUGH_VARIABLE = "PAGLETS_THOROUGH"
"""Environment variable that, set to 1, has searches for rare faults take the time they can use."""

THOROUGH = os.environ.get(THOROUGH_VARIABLE) == "1"


def thorough(usual: int, long: int) -> int:
    """Return how many examples, seeds or hosts a test tries: `usual` in the suite, `long` in a thorough run."""
    return long if THOROUGH else usual
