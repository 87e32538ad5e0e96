"""Content that is being received, as files that nobody takes for more than that."""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paglets.artifacts.errors import NoRoomError, UploadConflictError
from paglets.core.errors import TransferError

#: Broken receptions that wait to be resumed.
MOST_PARTS: Final = 10_000
_KEY: Final = re.compile(r"[0-9a-f]{32,64}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MOST_NOTE_BYTES: Final = 4096


def checked_sha256(sha256: str) -> str:
    """Return a checksum in lower case.

    :raises TransferError: it is not 64 hex digits.
    """
    lowered = sha256.lower()
    if _SHA256.fullmatch(lowered) is None:
        raise TransferError(f"not a SHA-256 in hex: {sha256[:80]!r}")
    return lowered


def is_sha256(name: str) -> bool:
    """Return whether a file of this name may be a blob."""
    return _SHA256.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Announced:
    """What the sender said of the content that it sends."""

    sha256: str = ""
    size: int = -1
    label: str = ""
    """Whose content it is, so that two users of the store do not resume each other's."""


@dataclass(frozen=True, slots=True)
class Part:
    """What has arrived of content whose sender may go on."""

    key: str
    received: int
    announced: Announced
    modified_at: float
    """Unix seconds of the last byte."""


class Parts:
    """The directory of what is being received.

    What may be resumed has a key and, beside its bytes, a note of what was announced. Safe for threads as long as each
    key is used by one of them at a time.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._keys: set[str] = set()

    def scan(self) -> None:
        """Remove what an earlier process left, apart from what may be resumed.

        A loss of power may have torn that, which only an announced checksum can show: without one it is not resumed.
        """
        keys = set()
        for entry in list(os.scandir(self.directory)):
            stem, dot, kind = entry.name.rpartition(".")
            announced = self._note(stem) if dot and _KEY.fullmatch(stem) and kind in ("part", "json") else None
            if announced is not None and announced.sha256 and self.path(stem).is_file():
                keys.add(stem)
            elif entry.is_dir(follow_symlinks=False):
                continue
            else:
                with suppress(FileNotFoundError):
                    Path(entry.path).unlink()
        self._keys = keys

    def fresh(self) -> Path:
        """Return a path for what is received without a key."""
        return self.directory / f"{secrets.token_hex(16)}.part"

    def scratch(self) -> Path:
        """Return a path for a file that is renamed soon; only the next start removes it."""
        return self.directory / f"{secrets.token_hex(16)}.moved"

    def strays(self, before: float) -> list[Path]:
        """Return parts without a key that were not written to since that Unix time."""
        found = []
        for entry in list(os.scandir(self.directory)):
            stem, _, kind = entry.name.rpartition(".")
            if kind == "part" and stem not in self._keys:
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime <= before:
                        found.append(Path(entry.path))
        return found

    def path(self, key: str) -> Path:
        """Return where the bytes of a key are, or would be.

        :raises TransferError: it is not 32 to 64 hex digits.
        """
        return self.directory / f"{self.checked(key)}.part"

    def checked(self, key: str) -> str:
        """Return a key in lower case.

        :raises TransferError: it is not 32 to 64 hex digits.
        """
        lowered = key.lower()
        if _KEY.fullmatch(lowered) is None:
            raise TransferError(f"not a key to resume by: {key[:80]!r}; use 32 to 64 hex digits")
        return lowered

    def received(self, key: str) -> int:
        """Return how many bytes are there; 0 when the key is not known."""
        path = self.path(key)
        if path.stem not in self._keys:
            return 0
        try:
            return path.lstat().st_size
        except FileNotFoundError:
            return 0

    def announce(self, key: str, announced: Announced) -> None:
        """Write down what is going to be received, or check that it is what was announced before.

        :raises UploadConflictError: it is not.
        :raises NoRoomError: too many others wait to be resumed.
        :raises OSError: the note cannot be written.
        """
        with self._lock:
            known = key in self._keys
            if not known and len(self._keys) >= MOST_PARTS:
                raise NoRoomError(f"{MOST_PARTS:,} broken uploads wait to be resumed here already; try again later")
            self._keys.add(key)
        if known and (before := self._note(key)) is not None:
            if before != announced:
                raise UploadConflictError(
                    f"upload {key} was begun with another content: {before} is not {announced}; begin with a new key"
                )
            return
        fresh = self.scratch()
        try:
            self._forget_files(key)
            fresh.write_bytes(json.dumps([announced.sha256, announced.size, announced.label]).encode())
            fresh.replace(self.directory / f"{key}.json")
        except BaseException:
            with suppress(OSError):
                fresh.unlink()
            with self._lock:
                self._keys.discard(key)
            raise

    def remove(self, key: str) -> None:
        """Forget a key with all that was received for it."""
        self._forget_files(key)
        with self._lock:
            self._keys.discard(key)

    def waiting(self, busy: Container[str] = ()) -> list[Part]:
        """Return what waits to be resumed, apart from the keys in `busy`."""
        with self._lock:
            keys = [key for key in self._keys if key not in busy]
        return [part for key in keys if (part := self.part(key)) is not None]

    def part(self, key: str) -> Part | None:
        """Return what is known of a key; None when nothing is, or it is malformed."""
        if key not in self._keys or (announced := self._note(key)) is None:
            return None
        with suppress(FileNotFoundError):
            stat = self.path(key).lstat()
            return Part(key, stat.st_size, announced, stat.st_mtime)
        return None

    def _forget_files(self, key: str) -> None:
        # The note last: bytes without one are nobody's and go at the next start.
        self.path(key).unlink(missing_ok=True)
        (self.directory / f"{key}.json").unlink(missing_ok=True)

    def _note(self, key: str) -> Announced | None:
        try:
            with (self.directory / f"{key}.json").open("rb") as stream:
                sha256, size, label = json.loads(stream.read(_MOST_NOTE_BYTES))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        if not (isinstance(sha256, str) and isinstance(label, str) and type(size) is int):
            return None
        if sha256 and not is_sha256(sha256):
            return None
        return Announced(sha256, size, label)
