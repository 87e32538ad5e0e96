"""What the mesh does, said on standard error for who looks for a fault in it."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

from paglets.core.text import without_controls
from paglets.remote.discovery import OFF_WORDS

__all__ = ["MESH_DEBUG_ENV", "say_if_wanted"]

MESH_DEBUG_ENV: Final = "PAGLETS_MESH_DEBUG"
"""The environment variable that has the mesh say what it does; any value but ``off``, ``0``, ``no`` and ``false``."""

_PREFIX: Final = "[paglets mesh] "
_LOGGERS: Final = tuple(
    f"paglets.remote.{part}" for part in ("mesh", "roster", "visits", "meetings", "gossip", "discovery")
)


def say_if_wanted() -> None:
    """Have this program say what its hosts learn of others and why, one line each, if its environment wants that.

    What the logs of the program have stays the same.
    """
    if os.environ.get(MESH_DEBUG_ENV, "").strip().lower() in ("", *OFF_WORDS):
        return
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, _Saying) for each in logger.filters):
            logger.addFilter(_Saying(logger, logger.level))
            logger.setLevel(logging.DEBUG)


class _Saying(logging.Filter):
    """Writes each record, and lets through what the logger would have passed on anyway.

    No handler, because whatever a logger takes in for one goes to the handlers above as well.
    """

    def __init__(self, logger: logging.Logger, level: int) -> None:
        super().__init__()
        self._logger = logger
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        """Write a record and tell whether it is passed on."""
        text = record.getMessage().removeprefix("mesh: ")
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text = f"{text}: {str(error) or type(error).__name__}"
        # Names and reasons come from other hosts.
        try:
            sys.stderr.write(f"{_PREFIX}{without_controls(text)}\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass  # nobody reads it any more
        above = self._logger.parent
        level = self._level or (above.getEffectiveLevel() if above is not None else logging.WARNING)
        return record.levelno >= level
