"""Keep the windows of paglets that sleep, within bounds of number and of bytes; pure, as windows are."""

from __future__ import annotations

from typing import Final

from .window import DedupWindow

MOST_WINDOWS: Final = 4_096
MOST_WINDOW_BYTES: Final = 32 * 1024 * 1024


class WindowShelf:
    """Hold windows by the ids of their paglets. Beyond either bound the ones that were put there first are forgotten.

    :param max_windows: how many are held
    :param max_bytes: how much memory they may take together; a window that takes more by itself is never held
    :raises ValueError: a bound is negative
    """

    def __init__(self, max_windows: int = MOST_WINDOWS, max_bytes: int = MOST_WINDOW_BYTES) -> None:
        if max_windows < 0 or max_bytes < 0:
            raise ValueError("a shelf holds no negative number of windows or bytes")
        self._windows: dict[str, tuple[DedupWindow, int]] = {}
        self._max_windows = max_windows
        self._max_bytes = max_bytes
        self._nbytes = 0

    def __len__(self) -> int:
        """Count the windows."""
        return len(self._windows)

    @property
    def nbytes(self) -> int:
        """Tell about how many bytes of memory the windows take."""
        return self._nbytes

    def put(self, agent_id: str, window: DedupWindow) -> None:
        """Hold a window, in place of an earlier one of its paglet. Nothing may be added to it while it is here."""
        self.take(agent_id)
        nbytes = window.nbytes
        self._windows[agent_id] = window, nbytes
        self._nbytes += nbytes
        while self._nbytes > self._max_bytes or len(self._windows) > self._max_windows:
            self.take(next(iter(self._windows)))

    def find(self, agent_id: str) -> DedupWindow | None:
        """Return the window of a paglet, or None."""
        held = self._windows.get(agent_id)
        return None if held is None else held[0]

    def take(self, agent_id: str) -> DedupWindow | None:
        """Return the window of a paglet, which is not held any more, or None."""
        held = self._windows.pop(agent_id, None)
        if held is None:
            return None
        self._nbytes -= held[1]
        return held[0]
