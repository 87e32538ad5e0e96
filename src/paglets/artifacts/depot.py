"""The contents of artifacts in a backend, for which the store of blobs is the cache."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from paglets.artifacts.backends import BlobBackend
from paglets.core.errors import PagletError

__all__ = ["Depot"]

logger = logging.getLogger(__name__)
#: Between two looks for objects that nobody wants, which a crash left; the first is soon after the start.
_INVENTORY_SECONDS: Final = 24 * 60 * 60
#: After a failure, what has to be removed waits for the next sweep or for so long.
_RETRY_SECONDS: Final = 60
_MOST_UNWANTED: Final = 100_000


class Depot:
    """Which contents artifacts have in a backend. Safe for threads.

    A content is there before an artifact that needs it is acknowledged, and goes after the last one went. Both happen
    under a lock of the content, so that one artifact never loses what another one just stored.
    """

    def __init__(self, backend: BlobBackend, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet of what is there.

        :param clock: seconds that never go back.
        """
        self.backend = backend
        self._clock = clock
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self._owners: dict[str, int] = {}
        self._unwanted: dict[str, None] = {}
        self._failed_at = float("-inf")
        self._counted_at = float("-inf")

    @property
    def location(self) -> str:
        """Where the contents are; without credentials."""
        return self.backend.location

    def has(self, sha256: str) -> bool:
        """Return whether an artifact has this content here."""
        with self._guard:
            return sha256 in self._owners

    def restore(self, sha256: str) -> None:
        """Know of an artifact of an earlier process that has this content here."""
        with self._guard:
            self._owners[sha256] = self._owners.get(sha256, 0) + 1

    @contextmanager
    def storing(self, sha256: str, path: Path) -> Iterator[None]:
        """Have a content here for one more artifact, which the block acknowledges; on an error nothing changes.

        :param path: where its bytes are, on this host's disk.
        :raises StorageUnavailableError: it cannot be stored now.
        :raises InsufficientStorageError: there is no room for it.
        """
        with self.locked(sha256):
            fresh = not self.has(sha256)
            try:
                # Somebody else may have removed what is known to be there; a new upload is the chance to mend that.
                if fresh or self.backend.size(sha256) != path.stat().st_size:
                    self.backend.put(sha256, path)
                yield
            except BaseException:
                if fresh:  # it may be there all the same
                    self._give_up(sha256)
                raise
            with self._guard:
                self._owners[sha256] = self._owners.get(sha256, 0) + 1
                self._unwanted.pop(sha256, None)

    @contextmanager
    def locked(self, sha256: str) -> Iterator[None]:
        """Have no other thread store or remove this content meanwhile."""
        with self._guard:
            lock, users = self._locks.get(sha256, (threading.Lock(), 0))
            self._locks[sha256] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._locks.pop(sha256)
                if users > 1:
                    self._locks[sha256] = (lock, users - 1)

    def disown(self, sha256: str) -> None:
        """Know of one artifact less that has this content here; `tidy` removes what none has. Needs the lock."""
        with self._guard:
            left = self._owners.pop(sha256) - 1
            if left:
                self._owners[sha256] = left
        if not left:
            self._give_up(sha256)

    def tidy(self) -> None:
        """Remove what no artifact has any more; what cannot be removed now waits for the next sweep."""
        if self._unwanted and self._clock() - self._failed_at >= _RETRY_SECONDS:
            try:
                self._remove_unwanted()
            except PagletError as error:
                self._failed_at = self._clock()
                logger.warning("%d contents stay in storage for now: %s", len(self._unwanted), error)

    def sweep(self) -> None:
        """Remove what broken uploads and crashes left, as far as the backend can be reached."""
        try:
            if broken := self.backend.sweep():
                logger.info("removed %d broken uploads from %s", broken, self.location)
            self._remove_unwanted()
            if self._clock() - self._counted_at >= _INVENTORY_SECONDS:
                self._remove_strays()
                self._counted_at = self._clock()
        except PagletError as error:
            logger.warning("the storage of artifacts is not tidy: %s", error)

    def close(self) -> None:
        """Let go of the backend."""
        self.backend.close()

    # inside

    def _give_up(self, sha256: str) -> None:
        with self._guard:
            # What does not fit is found by the next inventory.
            if len(self._unwanted) < _MOST_UNWANTED:
                self._unwanted[sha256] = None

    def _remove_unwanted(self) -> None:
        with self._guard:
            unwanted = list(self._unwanted)
        for sha256 in unwanted:
            self._remove(sha256)

    def _remove_strays(self) -> None:
        for sha256, _ in self.backend.blobs():
            if not self.has(sha256):
                logger.info("content %s in %s is nobody's and is removed", sha256, self.location)
                self._remove(sha256)

    def _remove(self, sha256: str) -> None:
        with self.locked(sha256):
            if not self.has(sha256):
                self.backend.delete(sha256)
            with self._guard:
                self._unwanted.pop(sha256, None)
