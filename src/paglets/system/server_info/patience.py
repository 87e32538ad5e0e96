"""Calls that may hang in the kernel or in a driver, and are given up after a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: Hanging calls at the same time. Beyond that none is begun.
MAX_HANGING = 16


class Patience:
    """Make calls in threads of their own and wait for each only so long.

    A call into a dead network file system or a stuck driver cannot be ended. Its thread is left behind, and while it
    hangs the same call is not begun again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hanging: dict[str, threading.Thread] = {}

    def call(self, key: str, function: Callable[[], T], seconds: float) -> T:
        """Return what the function returns, or raise what it raises.

        :param key: what the call is about.
        :raises TimeoutError: it takes longer, or an earlier one about the same hangs.
        """
        outcome: list[T] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                outcome.append(function())
            except BaseException as exc:
                failure.append(exc)

        # Its name keeps it from counting as an activity of the paglet.
        thread = threading.Thread(target=work, name=f"paglet-patience-{key}", daemon=True)
        with self._lock:
            self._hanging = {each: other for each, other in self._hanging.items() if other.is_alive()}
            if key in self._hanging or len(self._hanging) >= MAX_HANGING:
                raise TimeoutError(f"{key}: an earlier call hangs")
            self._hanging[key] = thread
            thread.start()
        thread.join(seconds)
        if failure:
            raise failure[0]
        if not outcome:
            raise TimeoutError(f"{key}: no answer within {seconds:g} s")
        return outcome[0]

    def statistics(self) -> dict[str, Any]:
        """Return what hangs."""
        with self._lock:
            return {"hanging": sorted(key for key, thread in self._hanging.items() if thread.is_alive())}
