"""What is asked of the transfer of a file, what comes out, and what the paglet that carries it knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from paglets.patterns.tasks import TaskState

_UNITS: Final = ("B", "KB", "MB", "GB", "TB")


class FileTransferMode(Enum):
    """What becomes of the original."""

    COPY = "copy"
    MOVE = "move"
    """It is deleted when the file is saved at its destination."""


@dataclass(frozen=True, slots=True)
class FileTransferRequest:
    """Ask for the transfer of one file from the host that the paglet is on to another."""

    source_path: str
    destination_path: str = ""
    """Empty or `.` for the name of the source; below a directory if it ends with `/` or `\\`, or is one there."""
    target_host: str = ""
    """URL, or name in the mesh."""
    mode: FileTransferMode = FileTransferMode.COPY
    dry_run: bool = False
    """Only say what would be done."""
    overwrite: bool = False
    transfer_id: str = ""
    """Made up when empty."""
    source_label: str = ""
    """What results call the source host; its name when empty."""
    destination_label: str = ""


@dataclass(frozen=True, slots=True)
class FileTransferEndpoint:
    """A file on a host; times are Unix seconds, 0 for unknown."""

    host_name: str = ""
    host_url: str = ""
    path: str = ""
    created_at: float = 0.0
    modified_at: float = 0.0


@dataclass(frozen=True, slots=True)
class FileTransferResult:
    """What was done, or would be."""

    transfer_id: str = ""
    mode: FileTransferMode = FileTransferMode.COPY
    dry_run: bool = False
    source: FileTransferEndpoint = field(default_factory=FileTransferEndpoint)
    destination: FileTransferEndpoint = field(default_factory=FileTransferEndpoint)
    file_name: str = ""
    size_bytes: int = 0
    size: str = ""
    """For people, like `1.5 KB`."""


@dataclass(frozen=True, slots=True)
class FileTransferSource:
    """A file that is to be transferred, as it was when it was looked at; times are Unix seconds."""

    path: Path
    file_name: str
    size_bytes: int
    created_at: float
    modified_at: float


@dataclass(frozen=True, slots=True)
class FileTransferPlan:
    """A checked request."""

    request: FileTransferRequest
    source: FileTransferSource
    destination_path: str
    """As it is handed to the destination host, which resolves it."""
    target_host: str


@dataclass(frozen=True, slots=True)
class FileTransferArrival:
    """A file that has come along and is to be saved."""

    scratch_path: Path
    """Where it lies now."""
    destination_path: str
    source_name: str
    overwrite: bool
    mode: FileTransferMode


@dataclass
class FileTransferState(TaskState):
    """What a paglet knows of the file that it carries."""

    transfer_id: str = ""
    mode: FileTransferMode = FileTransferMode.COPY
    dry_run: bool = False
    overwrite: bool = False
    source_host_name: str = ""
    source_host_url: str = ""
    destination_host_name: str = ""
    destination_host_url: str = ""
    source_path: str = ""
    destination_path: str = ""
    final_path: str = ""
    """Absolute path at the destination host, empty until the paglet has arrived there."""
    file_name: str = ""
    size_bytes: int = 0
    source_created_at: float = 0.0
    source_modified_at: float = 0.0


def format_bytes(size_bytes: int) -> str:
    """Return a number of bytes for people, like `1.5 KB`; a KB has 1,024 bytes, and less than nothing is `0 B`."""
    amount = float(max(0, size_bytes))
    for unit in _UNITS[:-1]:
        # 1023.96 would be shown as 1024.0.
        if round(amount, 1) < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} {_UNITS[-1]}"
