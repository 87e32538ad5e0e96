"""The runtime draws from a generator of its own."""

from __future__ import annotations

import random
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from paglets.core.chance import CHANCE


@given(st.integers())
def test_a_program_that_has_seeded_random_draws_what_it_expects(seed: int) -> None:
    random.seed(seed)
    expected = [random.random() for _ in range(3)]
    random.seed(seed)
    drawn = []
    for _ in range(3):
        CHANCE.random()
        drawn.append(random.random())
    assert drawn == expected


FORKS = """
import os
from paglets.core.chance import CHANCE
for _ in range(2):
    if os.fork() == 0:
        print(CHANCE.random(), flush=True)
        os._exit(0)
    os.wait()
print(CHANCE.random())
"""


def test_forked_processes_draw_different_numbers() -> None:
    """Else what failed together would be tried again together."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert len(set(done.stdout.split())) == 3
