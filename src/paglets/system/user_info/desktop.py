"""Showing notifications on the desktop of whoever is logged in, where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TOOL_SECONDS: Final = 2.0
_URGENCY: Final = {"ERROR": "critical", "CRITICAL": "critical", "WARNING": "normal"}
_SCRIPT: Final = (
    "on run argv",
    "display notification (item 2 of argv) with title (item 1 of argv)",
    "end run",
)


def desktop_command(severity: str, title: str, message: str) -> list[str] | None:
    """Return the command that shows a notification, None where there is no tool or no desktop.

    Title and message are arguments of their own, never part of a script.
    """
    if sys.platform == "darwin":
        tool = shutil.which("osascript")
        return None if tool is None else [tool, *(word for line in _SCRIPT for word in ("-e", line)), title, message]
    tool = shutil.which("notify-send")
    if tool is None or not _has_desktop(os.environ):
        return None
    return [tool, f"--urgency={_URGENCY.get(severity, 'low')}", "--app-name=paglets", "--", title, message]


def show(command: list[str]) -> str:
    """Run the command and return what went wrong, or nothing; takes two seconds at most."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TOOL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {TOOL_SECONDS:g} s"
    except OSError as exc:
        return exc.strerror or str(exc)
    return f"exit code {done.returncode}" if done.returncode else ""


def _has_desktop(environment: Mapping[str, str]) -> bool:
    if any(environment.get(name) for name in ("DBUS_SESSION_BUS_ADDRESS", "WAYLAND_DISPLAY", "DISPLAY")):
        return True
    directory = environment.get("XDG_RUNTIME_DIR")
    return bool(directory) and (Path(directory or "") / "bus").exists()
