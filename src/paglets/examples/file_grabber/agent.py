"""A paglet that carries one file to another host, put together from `FileMobilityMixin` and `TaskPaglet`."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.events import MobilityEvent, PersistencyEvent
from paglets.patterns import (
    FileMobilityMixin,
    FileTransferMode,
    FileTransferRequest,
    FileTransferResult,
    FileTransferState,
    TaskPaglet,
    TaskStatus,
    format_bytes,
)
from paglets.remote.proxy import PagletProxy

__all__ = [
    "FileGrabMode",
    "FileGrabRequest",
    "FileGrabResult",
    "FileGrabberPaglet",
    "FileGrabberState",
    "TaskStatus",
    "format_bytes",
]

FileGrabMode = FileTransferMode
FileGrabRequest = FileTransferRequest
FileGrabResult = FileTransferResult


@dataclass
class FileGrabberState(FileTransferState):
    """What the paglet knows of the file that it carries."""


class FileGrabberPaglet(FileMobilityMixin, TaskPaglet[FileTransferRequest, FileTransferResult, FileGrabberState]):
    """Carry one file to another host and save it there.

    Each hook is one step of the way; `paglets.patterns.file_mobility` says why they are where they are.
    """

    Request = FileTransferRequest
    Result = FileTransferResult
    State = FileGrabberState
    registered_file_name = "grabbed-file"
    notification_title = "File grabber"

    def run_task(self, request: FileTransferRequest) -> PagletProxy | FileTransferResult | None:
        """At the source: register the file and leave with it, or say what would be done."""
        return self.send_file(request)

    def on_arrival(self, event: MobilityEvent) -> None:
        """At the destination, while the move can be called off: refuse what cannot be saved."""
        self.receive_file(event)

    def run(self) -> None:
        """At the destination, when the move is final: save the file. After a crash: go on."""
        self.finish_file()

    def on_disposing(self, event: PersistencyEvent) -> None:
        """Wherever it ends: leave nothing half saved behind."""
        self.drop_file(event)
