"""Paglets that carry a file and can be held up at every step, and one that is written with the single steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import handler
from paglets.core.events import MobilityEvent
from paglets.patterns.file_mobility import (
    FileMobilityMixin,
    FileTransferMode,
    FileTransferRequest,
    FileTransferResult,
    FileTransferState,
    SingleFileTransferPaglet,
)
from paglets.patterns.notifications import NotificationSeverity
from paglets.patterns.placing import Original, Placement
from paglets.patterns.tasks import TaskPaglet


@dataclass
class CarrierState(FileTransferState):
    gates: dict[str, str] = field(default_factory=dict)
    """Pipes that hold it up, by step, as long as they are there."""
    notices: list[str] = field(default_factory=list)


class Carrier(SingleFileTransferPaglet):
    """Carry a file; what the user would be told is written down."""

    State = CarrierState

    def hold(self, step: str) -> None:
        gate = self.state.gates.get(step, "")
        if gate and Path(gate).exists():
            Path(gate).read_bytes()

    def notify_user_info(self, severity: NotificationSeverity, title: str, message: str, **options: Any) -> bool:
        assert options["job_id"] == self.state.transfer_id
        with self.locked():
            self.state.notices.append(f"{severity.value} {title}")
        self.hold(title.rpartition(": ")[2])
        return super().notify_user_info(severity, title, message, **options)

    def on_arrival(self, event: MobilityEvent) -> None:
        super().on_arrival(event)
        self.hold("arrived")

    def _placement(self, scratch: Path, sha256: str) -> Placement:
        self.hold("saving")
        return super()._placement(scratch, sha256)

    def _note(self) -> bool:
        self.hold("published")
        noted = super()._note()
        self.hold("noted")
        return noted

    def _drop_scratch(self, ref: Any) -> None:
        self.hold("removed")
        super()._drop_scratch(ref)

    @handler(kind="file-mobility.remove-original")
    def remove_original(self, original: Original) -> None:
        super().remove_original(original)

    @handler
    def files(self) -> list[str]:
        return [ref.name for ref in self.registered_files()]


class StepwiseCarrier(FileMobilityMixin, TaskPaglet[FileTransferRequest, FileTransferResult, FileTransferState]):
    """Save the file in `on_arrival`, with the single steps, as programs for older versions do."""

    Request = FileTransferRequest
    Result = FileTransferResult
    State = FileTransferState

    def run_task(self, request: FileTransferRequest) -> Any:
        plan = self.prepare_file_transfer(request)
        self.register_planned_file(plan)
        self.mark_waiting_for_arrival()
        return self.dispatch(plan.target_host)

    def on_arrival(self, event: MobilityEvent) -> None:
        arrival = self.current_transfer_arrival()
        if arrival is None:
            return
        assert arrival.mode in FileTransferMode
        saved = self.save_arrived_file(arrival)
        self.complete_task(self.build_transfer_result(destination_path=str(saved), dry_run=False))
