"""A memory of which content lies in which file, true as long as the file system reports no change of the file."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

#: Files remembered at most; the least recently used one is forgotten, which costs no more than a hash.
MOST_REMEMBERED: Final = 50_000
_SECOND: Final = 10**9
#: Kernels stamp files with a clock that ticks every 1 to 10 ms: a second change within one tick leaves no trace.
_TICK: Final = _SECOND // 20
_COARSE_TICK: Final = 2 * _SECOND


class Stamp(NamedTuple):
    """What changes when the content of a file does."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Self:
        """Return the stamp of a file."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def settled(self, at_ns: int) -> bool:
        """Return whether a change after that time shows.

        A change gets the time that the kernel's clock shows then. That may still be this file's own time if the last
        change was just before.

        :param at_ns: Unix time in nanoseconds at which the reading of the content began.
        """
        whole = self.modified_ns % _SECOND == 0 and self.changed_ns % _SECOND == 0
        return abs(at_ns - self.modified_ns) > (_COARSE_TICK if whole else _TICK)


@dataclass(frozen=True, slots=True)
class Remembered:
    """The content of one file, and what the file was like when it had it."""

    sha256: str
    stamp: Stamp
    durable: bool


class Memory:
    """Content by file and files by content. Not safe for threads by itself."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        """Remember nothing yet, and never more than `most` files."""
        self._most = most
        self._files: OrderedDict[str, Remembered] = OrderedDict()
        self._places: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._files)

    def remember(self, path: Path, sha256: str, stamp: Stamp, *, durable: bool = False) -> None:
        """Take note of what a regular file contains; its stamp has to be a settled one.

        :param durable: the content is on disk.
        """
        self.forget(path)
        key = str(path)
        self._files[key] = Remembered(sha256, stamp, durable)
        self._places.setdefault(sha256, []).append(key)
        while len(self._files) > self._most:
            self.forget(Path(next(iter(self._files))))

    def forget(self, path: Path) -> None:
        """Know nothing of a file any more."""
        key = str(path)
        if (found := self._files.pop(key, None)) is None:
            return
        places = self._places[found.sha256]
        places.remove(key)
        if not places:
            del self._places[found.sha256]

    def get(self, path: Path) -> Remembered | None:
        """Return what is remembered of a file that is still the same; forget one that is not."""
        key = str(path)
        if (found := self._files.get(key)) is None:
            return None
        if _stamp(path) != found.stamp:
            self.forget(path)
            return None
        self._files.move_to_end(key)
        return found

    def below(self, directory: Path) -> list[tuple[Path, str]]:
        """Return the files below a directory with what they had when they were remembered."""
        prefix = f"{directory}{os.sep}"
        return [(Path(key), found.sha256) for key, found in self._files.items() if key.startswith(prefix)]

    def places(self, sha256: str) -> list[Path]:
        """Return the files that have this content, as far as they are still the same."""
        # A copy, as what has changed is forgotten meanwhile.
        return [path for path in map(Path, tuple(self._places.get(sha256, ()))) if self.get(path) is not None]


def _stamp(path: Path) -> Stamp | None:
    try:
        return Stamp.of(path.lstat())
    except OSError:
        return None
