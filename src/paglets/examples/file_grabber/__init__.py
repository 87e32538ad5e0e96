"""Fetch a file from a host, or bring one to it: `paglets examples file`, and `paglets-file-grabber`."""

from paglets.examples.file_grabber.agent import (
    FileGrabberPaglet,
    FileGrabberState,
    FileGrabMode,
    FileGrabRequest,
    FileGrabResult,
    TaskStatus,
    format_bytes,
)

__all__ = [
    "FileGrabMode",
    "FileGrabRequest",
    "FileGrabResult",
    "FileGrabberPaglet",
    "FileGrabberState",
    "TaskStatus",
    "format_bytes",
]
