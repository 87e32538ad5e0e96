"""What happens on a host, as log lines for the person who watches it."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from paglets.cli.console import bytes_text, one_line
from paglets.cli.host_options import LogLevel
from paglets.core.context_events import ContextEvent

LOGGER_NAME: Final = "paglets.events"

_QUIET_KINDS: Final = frozenset(
    {
        "message-queued",
        "message-delivered",
        "transfer-progress",  # twice a second; who wants to see it follows the events
        "context-start",  # the line on standard output says it
        "launch-config-copy",
        "launch-config-update",
        "resident-service-declare",  # what follows from it is said
        "service-lease-acquire",
        "service-lease-release",
    }
)
_ERROR_KINDS: Final = frozenset({"paglet-crashed", "transfer-fault", "background-failure"})
#: Their error says which class it is about.
_SAID_BY_ERROR: Final = frozenset({"resident-service-failed", "startup-agent-failed"})
_MADE_UP: Final = re.compile("[0-9a-f]{9,}")
"""An id that nobody chose: its beginning will do."""
_MOST_VALUES: Final = 200


def configure_logging(level: LogLevel) -> logging.Logger:
    """Send the package's log to standard error and return the logger for events."""
    package = logging.getLogger("paglets")
    package.setLevel(level.upper())
    package.propagate = False
    for handler in list(package.handlers):
        package.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S"))
    package.addHandler(handler)
    return logging.getLogger(LOGGER_NAME)


class EventLogger:
    """Listen to a host's events and log each at the level it deserves."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __call__(self, event: ContextEvent) -> None:
        """Log one event."""
        level = level_of(event)
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", describe(event))


def level_of(event: ContextEvent) -> int:
    """Return how much an event matters."""
    if event.kind in _QUIET_KINDS:
        return logging.DEBUG
    if event.kind in _ERROR_KINDS:
        return logging.ERROR
    return logging.WARNING if event.error else logging.INFO


def describe(event: ContextEvent) -> str:
    """Return one line: kind, paglet, what matters of the data, and the error."""
    parts = [f"{event.kind:<15}"]
    if event.agent_id:
        class_name = (event.class_name or "").rpartition(":")[2]
        agent_id = event.agent_id[:8] if _MADE_UP.fullmatch(event.agent_id) else event.agent_id
        parts.append(f"{agent_id} {class_name}".rstrip())
    if event.service_name:
        parts.append(f"service {event.service_name}")
    target = event.data.get("target")
    if event.kind == "transfer-progress":
        parts.append(_progress(event.data))
    elif event.kind == "service-advertise":
        parts.append(_values({"scope": event.data.get("scope")}))
    elif event.kind not in _SAID_BY_ERROR:
        parts.append(_movement(target) if isinstance(target, dict) else _values(event.data))
    line = one_line(" ".join(part for part in parts if part))
    return f"{line}: {one_line(event.error)}" if event.error else line


def _movement(target: Mapping[str, Any]) -> str:
    where = target.get("name") or target.get("address") or "?"
    text = f"to {where}"
    seconds = target.get("seconds")
    if isinstance(seconds, int | float):
        text += f" in {seconds * 1000:.0f} ms"
    carried = f"{bytes_text(target.get('state_bytes') or 0)} state"
    files = target.get("files")
    if files:
        carried += f", {files} file{'s' if files != 1 else ''} of {bytes_text(target.get('file_bytes') or 0)}"
    return f"{text} ({carried})"


def _progress(data: Mapping[str, Any]) -> str:
    done, total = data.get("bytes_done") or 0, data.get("bytes_total") or 0
    share = f" ({done * 100 // total}%)" if total else ""
    return f"to {data.get('destination') or '?'}: {bytes_text(done)} of {bytes_text(total)} of files{share}"


def _values(data: Mapping[str, Any]) -> str:
    shown = " ".join(
        f"{key}={value}"
        for key, value in data.items()
        if value not in ("", None) and not isinstance(value, dict | list)
    )
    return shown if len(shown) <= _MOST_VALUES else f"{shown[: _MOST_VALUES - 1]}…"
