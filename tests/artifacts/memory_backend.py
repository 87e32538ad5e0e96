"""A backend in memory that fails when it is told to, for tests of what uses a backend."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

from paglets.artifacts.errors import NotStoredError
from paglets.core.errors import StorageUnavailableError

PIECE = 4096


class MemoryBackend:
    """Blobs in a dictionary."""

    def __init__(self, location: str = "memory://one") -> None:
        self.location = location
        self.objects: dict[str, bytes] = {}
        self.reads: list[tuple[int, int | None]] = []
        self.puts = 0
        self.down = False
        self.loses_answers = False
        """Store what is put, and then say that it failed."""
        self.closed = False

    def put(self, sha256: str, path: Path) -> None:
        self._check()
        self.puts += 1
        self.objects[sha256] = path.read_bytes()
        if self.loses_answers:
            raise StorageUnavailableError("the answer was lost")

    def read(self, sha256: str, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        self._check()
        self.reads.append((start, length))
        if sha256 not in self.objects:
            raise NotStoredError(f"no blob {sha256}")
        content = self.objects[sha256][start : None if length is None else start + length]
        for at in range(0, len(content), PIECE):
            self._check()
            yield content[at : at + PIECE]

    def size(self, sha256: str) -> int | None:
        self._check()
        return len(self.objects[sha256]) if sha256 in self.objects else None

    def delete(self, sha256: str) -> None:
        self._check()
        self.objects.pop(sha256, None)

    def blobs(self) -> Iterator[tuple[str, int]]:
        self._check()
        yield from [(sha256, len(content)) for sha256, content in self.objects.items()]

    def sweep(self) -> int:
        self._check()
        return 0

    def close(self) -> None:
        self.closed = True

    def _check(self) -> None:
        if self.down:
            raise StorageUnavailableError("the backend is down")
