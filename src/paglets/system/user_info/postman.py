"""A thread that posts what is pending to web hooks, for as long as there is something."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from paglets.system.user_info import outbox, webhooks
from paglets.system.user_info.outbox import Delivery

LONGEST_WAIT_SECONDS: Final = 60.0


class Pending(Protocol):
    """What the thread works on."""

    pending: list[Delivery]


class Postman:
    """Posts the deliveries of a state.

    :param edit: gives the state under its lock, as a context manager.
    :param post: posts deliveries and returns the attempts.
    :param emptied: called, without the lock, when nothing is pending any more.
    """

    def __init__(
        self,
        edit: Callable[[], Any],
        post: Callable[[list[Delivery]], list[webhooks.Attempt]],
        emptied: Callable[[], None],
    ) -> None:
        self._edit = edit
        self._post = post
        self._emptied = emptied
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def hurry(self) -> None:
        """Begin to post, or look again at once."""
        with self._lock:
            self._wake.set()
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="paglet-postman", daemon=True)
                self._thread.start()

    def stop(self, seconds: float) -> None:
        """End once the attempts that are under way have ended, or after so many seconds."""
        with self._lock:
            self._stopping = True
            self._wake.set()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._wake.clear()
            if self._stopping:
                return
            with self._edit() as state:
                ready = outbox.due(state.pending, now=time.time())
            for attempt in self._attempt(ready):
                self._settle(attempt)
            with self._edit() as state:
                wait = outbox.seconds_to_next(state.pending, now=time.time())
            if wait is None and self._is_over():
                return
            self._wake.wait(min(max(wait or 0.0, 0.0), LONGEST_WAIT_SECONDS))

    def _attempt(self, ready: list[Delivery]) -> list[webhooks.Attempt]:
        if not ready:
            return []
        try:
            return self._post(ready)
        except Exception as exc:  # what is pending must not get stuck with this thread
            return [webhooks.Attempt(each, webhooks.Verdict.LATER, str(exc)) for each in ready]

    def _is_over(self) -> bool:
        self._emptied()
        with self._lock:
            if self._wake.is_set():
                return False  # something came meanwhile
            self._thread = None
            return True

    def _settle(self, attempt: webhooks.Attempt) -> None:
        delivery, given_up = attempt.delivery, attempt.verdict is webhooks.Verdict.REFUSED
        with self._edit() as state:
            if attempt.verdict is webhooks.Verdict.LATER:
                state.pending, given_up = outbox.after_failure(
                    state.pending,
                    delivery,
                    now=time.time(),
                    jitter=random.random(),  # noqa: S311 - spreads load, hides nothing
                    pause=attempt.pause,
                )
            else:
                state.pending = outbox.without(state.pending, delivery)
            state.undelivered_count += given_up
        if given_up:
            name = webhooks.name_of(delivery.target)
            print(f"a notification did not get to {name}: {attempt.reason}", file=sys.stderr, flush=True)  # noqa: T201 - where notifications go
