"""Pauses between tries, spread so that what failed together is not tried again together."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

LONGEST_PAUSE_SECONDS: Final = 30.0


async def rest(pause: float) -> float:
    """Wait about so many seconds and return how long to wait the next time: twice that, up to a bound."""
    await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads retries, guards nothing
    return min(LONGEST_PAUSE_SECONDS, pause * 2)


def call_about(after: float, call: Callable[[], object]) -> asyncio.TimerHandle:
    """Have something called by the running loop in about so many seconds."""
    jitter = random.uniform(0.9, 1.1)  # noqa: S311 - spreads retries, guards nothing
    return asyncio.get_running_loop().call_later(after * jitter, call)
