"""A log of notifications: one JSON object per line, in a file that is rotated."""

from __future__ import annotations

import json
import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

from paglets.core.errors import HostError

SUFFIXES: Final = (".jsonl", ".log")


class NotificationLog:
    """Appends to a file; when it would get larger than `max_bytes` it becomes `<file>.1`, that `.2`, and so on.

    :param backups: how many older files are kept.
    :raises HostError: the path or a bound makes no sense.
    """

    def __init__(self, path: str, *, max_bytes: int, backups: int) -> None:
        self.path = Path(path).expanduser()
        # The ending keeps whoever may create paglets from writing into files that others execute.
        if not self.path.is_absolute() or self.path.suffix not in SUFFIXES:
            raise HostError(f"log_file must be an absolute path that ends in {' or '.join(SUFFIXES)}, not {path!r}")
        if max_bytes < 1024 or not 1 <= backups <= 100:
            raise HostError("log_max_bytes must be at least 1024, and log_backups between 1 and 100")
        self._max_bytes = max_bytes
        self._backups = backups

    def write(self, notice: dict[str, Any]) -> None:
        """Append a notification.

        :raises OSError: it cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handler = _Raising(self.path, maxBytes=self._max_bytes, backupCount=self._backups, encoding="utf-8")
        try:
            # Everything beyond ASCII is escaped, and so is what a terminal would obey.
            handler.emit(logging.makeLogRecord({"msg": "%s", "args": (json.dumps(notice),)}))
        finally:
            handler.close()


class _Raising(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in the base class
        raise
