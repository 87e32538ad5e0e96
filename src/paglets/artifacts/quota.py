"""How many bytes artifacts take, counted before they are written. No input and output."""

from __future__ import annotations

import threading
from collections.abc import Callable

from paglets.artifacts.errors import NoRoomError


class Quota:
    """Bytes of the contents that artifacts have, each content once, and bytes reserved for what is being received.

    Their sum is never above the limit: room is reserved before a byte is written. Safe for threads.
    """

    def __init__(self, limit: int | None) -> None:
        """Begin with nothing used.

        :param limit: in bytes; None is unlimited.
        """
        self.limit = limit
        self.relieve: Callable[[], object] = lambda: None
        """Called without a lock when there is no room, before room is refused."""
        self._lock = threading.Lock()
        self._contents: dict[str, tuple[int, int]] = {}
        self._unique = 0
        self._reserved = 0

    @property
    def used_bytes(self) -> int:
        """Return the bytes of contents and reservations."""
        with self._lock:
            return self._unique + self._reserved

    def reserve(self, count: int) -> None:
        """Reserve so many bytes.

        :raises NoRoomError: they and what is used are more than the limit.
        """
        if self.try_reserve(count):
            return
        self.relieve()
        if not self.try_reserve(count):
            raise NoRoomError(
                f"Artifact storage quota exceeded: {count:,} bytes and the {self.used_bytes:,} in use are more than "
                f"{self.limit:,}; delete artifacts or raise the quota"
            )

    def try_reserve(self, count: int) -> bool:
        """Reserve so many bytes if there is room for them as it is, and return whether there was."""
        with self._lock:
            fits = self.limit is None or count <= 0 or self._unique + self._reserved + count <= self.limit
            if fits:
                self._reserved += count
            return fits

    def restore(self, count: int) -> None:
        """Reserve what an earlier process had reserved, even if the limit is lower now."""
        with self._lock:
            self._reserved += count

    def release(self, count: int) -> None:
        """Give back so many reserved bytes."""
        with self._lock:
            self._reserved -= count

    def add(self, sha256: str, size: int, *, reserved: int) -> None:
        """Count a content for one more artifact, and give back what was reserved for it."""
        with self._lock:
            self._reserved -= reserved
            times, _ = self._contents.get(sha256, (0, size))
            if not times:
                self._unique += size
            self._contents[sha256] = (times + 1, size)

    def remove(self, sha256: str) -> None:
        """Count a content for one artifact less."""
        with self._lock:
            times, size = self._contents.pop(sha256)
            if times > 1:
                self._contents[sha256] = (times - 1, size)
            else:
                self._unique -= size

    def has(self, sha256: str) -> bool:
        """Return whether some artifact has this content, so that another one costs nothing."""
        with self._lock:
            return sha256 in self._contents
