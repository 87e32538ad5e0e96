"""Threads for gossip: one that makes rounds, and few that talk to several peers of a round at once."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable

_STOP_SECONDS = 2.0

logger = logging.getLogger(__name__)


class GossipLoop:
    """A daemon thread that makes rounds with pauses between them.

    :param make_round: called with an event that is set when the loop shall end; what it raises is logged.
    :param pause: gives the seconds to the next round, asked every time.
    """

    def __init__(self, name: str, make_round: Callable[[threading.Event], None], pause: Callable[[], float]) -> None:
        self._make_round = make_round
        self._pause = pause
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._first_round = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin with the first round at once."""
        self._thread.start()

    def wait_for_first_round(self, timeout: float) -> bool:
        """Return whether the first round ended within that many seconds."""
        return self._first_round.wait(timeout)

    def hurry(self) -> None:
        """Make the next round now."""
        self._wake.set()

    def stop(self) -> None:
        """End the loop; a round that hangs is left to its own time limits after two seconds."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                self._make_round(self._stopping)
            except Exception:
                # Nothing that a peer sends or the host raises may end the gossip.
                logger.warning("mesh round failed", exc_info=True)
            self._first_round.set()
            if not self._stopping.is_set():
                self._wake.wait(self._pause())


class Crew:
    """Few short-lived daemon threads that each talk to one peer; a slow peer holds up nobody but its own thread.

    :param action: called with a URL; must not raise.
    :param threads: how many run at once.
    """

    def __init__(self, name: str, action: Callable[[str], None], *, threads: int) -> None:
        self._name = name
        self._action = action
        self._threads = threads
        self._changed = threading.Condition()
        self._busy: set[str] = set()

    def busy(self) -> frozenset[str]:
        """Return the URLs that are being talked to."""
        with self._changed:
            return frozenset(self._busy)

    def send(self, urls: Iterable[str]) -> None:
        """Begin to talk to some peers; those for whom there is no thread are left out."""
        for url in urls:
            with self._changed:
                if len(self._busy) >= self._threads:
                    return
                if url in self._busy:
                    continue
                self._busy.add(url)
            threading.Thread(target=self._run, args=(url,), name=self._name, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Return whether all threads have ended within that many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, seconds)

    def _run(self, url: str) -> None:
        try:
            self._action(url)
        finally:
            with self._changed:
                self._busy.discard(url)
                self._changed.notify_all()


def for_each_at_once(
    urls: Iterable[str],
    action: Callable[[str], None],
    *,
    threads: int,
    name: str,
    stopping: threading.Event | None = None,
) -> None:
    """Call the action with every URL, several at once in short-lived daemon threads, and return when all are done.

    :param action: must not raise.
    :param threads: how many run at once, this one included.
    :param stopping: what has not begun when it is set is left out.
    """
    waiting = deque(urls)

    def work() -> None:
        while stopping is None or not stopping.is_set():
            try:
                url = waiting.popleft()
            except IndexError:
                return
            action(url)

    helpers = [threading.Thread(target=work, name=name, daemon=True) for _ in range(min(len(waiting), threads) - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
