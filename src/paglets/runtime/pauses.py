"""Pauses between tries, spread so that what failed together is not tried again together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from paglets.core.chance import CHANCE

LONGEST_PAUSE_SECONDS: Final = 30.0


async def rest(pause: float) -> float:
    """Wait about so many seconds and return how long to wait the next time: twice that, up to a bound."""
    await asyncio.sleep(pause * CHANCE.uniform(0.8, 1.2))
    return min(LONGEST_PAUSE_SECONDS, pause * 2)


def call_about(after: float, call: Callable[[], object]) -> asyncio.TimerHandle:
    """Have something called by the running loop in about so many seconds."""
    jitter = CHANCE.uniform(0.9, 1.1)
    return asyncio.get_running_loop().call_later(after * jitter, call)
