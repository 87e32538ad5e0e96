"""Who was refused, and who changed what: one JSON line each, in files that are bounded and for their owner alone."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

AUDIT_NAME: Final = "audit.log"
MAX_FILE_BYTES: Final = 8 * 1024 * 1024
#: Files of before that are kept beside the present one, `audit.log.1` the newest.
KEPT_FILES: Final = 4
#: Lines wait so long for others, to be written together.
FLUSH_SECONDS: Final = 0.1
MAX_WAITING: Final = 20_000
#: Refusals that get a line each; more in the same second are only counted, so that a flood cannot wash away what was
#: before it.
REFUSALS_PER_SECOND: Final = 50
_MAX_TEXT: Final = 200


class AuditLog:
    """Write lines beside the event loop.

    :param path: the present file; it is created at once, so that a directory that cannot be written to is found now.
    :param thread: writes; the loop's own ones by default.
    :param on_fault: told when lines cannot be written.
    :raises OSError: it cannot be created.
    """

    def __init__(
        self,
        path: Path,
        thread: Executor | None = None,
        *,
        max_bytes: int = MAX_FILE_BYTES,
        kept: int = KEPT_FILES,
        on_fault: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._thread = thread
        self._max_bytes = max_bytes
        self._kept = kept
        self._on_fault = on_fault
        self._clock = clock
        self._waiting: list[bytes] = []
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._lost = 0
        self._second = 0
        self._refused = 0
        os.close(self._open())

    def record(self, *, outcome: int, refused: bool, **fields: Any) -> None:
        """Add a line; on the event loop.

        :param outcome: the HTTP status.
        :param fields: short texts; longer ones are cut.
        """
        now = self._clock()
        if refused and not self._room_for_refusal(int(now)):
            self._lost += 1
            return
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        entry = {"time": round(now, 3), **{key: _cut(value) for key, value in fields.items()}, "status": outcome}
        if self._lost:
            entry["not_listed"], self._lost = self._lost, 0
        self._waiting.append(msgspec.json.encode(entry) + b"\n")
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_soon())

    def _room_for_refusal(self, second: int) -> bool:
        if second != self._second:
            self._second, self._refused = second, 0
        self._refused += 1
        return self._refused <= REFUSALS_PER_SECOND

    async def _write_soon(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._closing.wait()
        while self._waiting:
            lines, self._waiting = self._waiting, []
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write_or_tell, lines)
        self._writing = None

    async def close(self) -> None:
        """Write what waits."""
        self._closing.set()
        writing = self._writing
        if writing is not None:
            await writing

    def _write_or_tell(self, lines: list[bytes]) -> None:
        try:
            self._write(lines)
        except OSError as exc:
            self._on_fault(f"the audit log {self._path} cannot be written: {exc.strerror or exc}")

    def _write(self, lines: list[bytes]) -> None:
        chunk: list[bytes] = []
        size = self._path.stat().st_size if self._path.exists() else 0
        for line in lines:
            if size and size + len(line) > self._max_bytes:
                self._append(chunk)
                self._rotate()
                chunk, size = [], 0
            chunk.append(line)
            size += len(line)
        self._append(chunk)

    def _append(self, lines: list[bytes]) -> None:
        descriptor = self._open()
        try:
            view = memoryview(b"".join(lines))
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)

    def _rotate(self) -> None:
        for older, newer in pairwise(audit_files(self._path, self._kept)):
            if newer.exists():
                newer.replace(older)


def audit_files(path: Path, kept: int = KEPT_FILES) -> list[Path]:
    """Return the files of an audit log, the oldest first; not all need exist."""
    return [*(path.with_name(f"{path.name}.{number}") for number in range(kept, 0, -1)), path]


def _cut(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    # Half of a surrogate pair is a text that no JSON can carry.
    return value[:_MAX_TEXT].encode(errors="replace").decode()
