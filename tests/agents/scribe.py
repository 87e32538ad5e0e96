"""Paglets that write to and read from the storage of their class as fast as they can."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.agent import Paglet, PagletState, handler
from paglets.persistence.storage import StorageQuotaError


@dataclass
class ScribeState(PagletState):
    """Nothing."""


class Scribe(Paglet[ScribeState]):
    """Write files that hold one byte value throughout, so that a torn one can be told."""

    State = ScribeState

    @handler
    def write(self, name: str, value: int, sizes: list[int], quota: int) -> int:
        """Replace a file again and again; return how often the quota allowed it."""
        storage = self.persistent_storage(quota_bytes=quota)
        written = 0
        for size in sizes:
            try:
                storage.write_bytes(name, bytes([value]) * size)
                written += 1
            except StorageQuotaError:
                continue
        return written

    @handler
    def write_for_ever(self, name: str, value: int, size: int) -> None:
        """Replace a file until somebody ends this process."""
        storage = self.persistent_storage()
        while True:
            storage.write_bytes(name, bytes([value]) * size)

    @handler
    def read(self, name: str, times: int) -> list[str]:
        """Read a file again and again; return what was wrong with it."""
        storage = self.persistent_storage()
        wrong = []
        for _ in range(times):
            data = storage.read_bytes(name)
            if len(set(data)) != 1:
                wrong.append(f"{len(data)} bytes of {len(set(data))} kinds")
        return wrong
