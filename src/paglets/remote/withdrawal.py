"""Take back messages whose reply nobody waits for any more."""

from __future__ import annotations

import threading

from paglets.core.errors import MessageCancelledError

__all__ = ["Resting"]


class Resting:
    """Let one message rest between attempts to send it, unless it is withdrawn meanwhile. Thread-safe."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._withdrawable = False
        self._withdrawn = False

    def rest(self, seconds: float, *, unsent: bool) -> None:
        """Wait.

        :param unsent: no host can have the message, so that it may be withdrawn now.
        :raises MessageCancelledError: it was withdrawn.
        """
        with self._lock:
            self._withdrawable = unsent
        self._woken.wait(seconds)
        with self._lock:
            self._withdrawable = False
            if self._withdrawn:
                raise MessageCancelledError(self._text)

    def withdraw(self) -> bool:
        """Withdraw the message if it rests and no host can have it; return whether it was withdrawn."""
        with self._lock:
            if self._withdrawable:
                self._withdrawn = True
                self._woken.set()
            return self._withdrawn
