"""How long a pattern may take: some take for ever with a few dozen characters."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Protocol

#: Processor time for one piece of a file, some 256 KB; an ordinary pattern needs a few milliseconds.
PIECE_SECONDS: Final = 2.0
#: So many files are given up, then the search is.
MOST_SLOW_FILES: Final = 5
_TICK_SECONDS: Final = 0.1


class SlowPatternError(RuntimeError):
    """The pattern takes too long to match."""


class TimeBound(Protocol):
    """Bounds the time that one piece of a file takes."""

    def begin(self) -> None:
        """Have the time of a piece begin now.

        From here to `end`, `SlowPatternError` may be raised anywhere.
        """

    def end(self) -> None:
        """Stop counting."""


class Unbounded:
    """Lets a pattern take its time, for callers that end the process themselves, or know their patterns."""

    def begin(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class ProcessorTime:
    """Bounds the processor time of a piece with a signal, which the regular expression engine looks out for.

    A process has one, and uses it in its main thread. Time in which the process waits does not count: a busy machine
    makes no pattern slow.
    """

    def __init__(self, seconds: float = PIECE_SECONDS, clock: Callable[[], float] = time.process_time) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until: float | None = None

    def begin(self) -> None:
        """Have the time of a piece begin now."""
        self._until = self._clock() + self._seconds

    def end(self) -> None:
        """Stop counting."""
        self._until = None

    def _tick(self, _number: int, _frame: FrameType | None) -> None:
        if self._until is not None and self._clock() >= self._until:
            self._until = None
            raise SlowPatternError

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """Look at the time from now on; needs the main thread."""
        before = signal.signal(signal.SIGVTALRM, self._tick)
        signal.setitimer(signal.ITIMER_VIRTUAL, _TICK_SECONDS, _TICK_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
            signal.signal(signal.SIGVTALRM, before)


def can_tick() -> bool:
    """Tell whether the system has such timers."""
    return hasattr(signal, "setitimer")
