"""Notifications as text that a terminal, a log and a chat can show safely."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from paglets.core.text import one_line

MAX_TITLE: Final = 200
MAX_MESSAGE: Final = 4000
MAX_LABEL: Final = 100
MAX_METADATA: Final = 32
DEFAULT_TITLE: Final = "paglets"
DEFAULT_SEVERITY: Final = "INFO"
_LAST_YEAR: Final = 253_402_214_400.0  # 9999-12-31


def cleaned(text: str, longest: int) -> str:
    """Return a text on one line, at most so long, without characters that a terminal would obey."""
    line = one_line(str(text)[: 4 * longest])
    return line if len(line) <= longest else line[: longest - 1] + "…"


def fields_of(
    severity: str,
    *,
    now: float,
    title: str = "",
    message: str = "",
    source_agent_id: str = "",
    job_id: str = "",
    timestamp: float = 0.0,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return a notification with its defaults, cleaned and bounded.

    :param timestamp: Unix seconds; what is no time stands for `now`.
    """
    return {
        "severity": cleaned(severity, MAX_LABEL).upper() or DEFAULT_SEVERITY,
        "title": cleaned(title, MAX_TITLE) or DEFAULT_TITLE,
        "message": cleaned(message, MAX_MESSAGE),
        "source_agent_id": cleaned(source_agent_id, MAX_LABEL),
        "job_id": cleaned(job_id, MAX_LABEL),
        "timestamp": timestamp if math.isfinite(timestamp) and 0 < timestamp < _LAST_YEAR else now,
        "metadata": {
            cleaned(key, MAX_LABEL): cleaned(value, MAX_TITLE) for key, value in list(metadata.items())[:MAX_METADATA]
        },
    }


def line_of(notice: dict[str, Any]) -> str:
    """Return a cleaned notification as one line: when, how bad, what."""
    moment = datetime.fromtimestamp(notice["timestamp"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    job = f" job={notice['job_id']}" if notice["job_id"] else ""
    source = f" source={notice['source_agent_id']}" if notice["source_agent_id"] else ""
    return f"[{moment}] {notice['severity']}: {notice['title']}{job}{source}: {notice['message']}"
