"""Chance for the runtime's own choices: which peer is next, how long a pause is.

It is not the generator behind the functions of `random`. That one belongs to the program, which may have seeded it and
counts on what it draws; hosts draw in threads of the program, whenever it suits them.
"""

from __future__ import annotations

import os
import random
from typing import Final

CHANCE: Final = random.Random()  # noqa: S311 - spreads load and retries, guards nothing
"""Thread-safe. A forked process has numbers of its own."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CHANCE.seed)
