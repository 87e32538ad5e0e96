"""The single steps of carrying a file to another host, for paglets that decide themselves what happens when."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from paglets.artifacts import PagletFileRef, file_sha256
from paglets.core.errors import HostError
from paglets.patterns.notifications import NotificationMixin, NotificationSeverity
from paglets.patterns.placing import birth_of, copy_file, planned_path, resolved_path
from paglets.patterns.tasks import TaskStatus
from paglets.patterns.transfer_models import (
    FileTransferArrival,
    FileTransferEndpoint,
    FileTransferMode,
    FileTransferPlan,
    FileTransferRequest,
    FileTransferResult,
    FileTransferSource,
    FileTransferState,
    format_bytes,
)

if TYPE_CHECKING:
    from paglets.patterns.tasks import TaskPaglet


class FileSteps(NotificationMixin):
    """Lets a `TaskPaglet` whose state is a `FileTransferState` carry one file; mix it in before `TaskPaglet`."""

    registered_file_name: ClassVar[str] = "file"
    """The name under which the file travels."""
    notification_title: ClassVar[str] = "File transfer"
    """What the titles of notifications begin with."""

    @property
    def _task(self) -> TaskPaglet[Any, Any, Any]:
        return cast("TaskPaglet[Any, Any, Any]", self)

    @property
    def _transfer(self) -> FileTransferState:
        state: FileTransferState = self._task.state
        return state

    # --- at the source ------------------------------------------------------------------------------------------------

    def require_transfer_target(self, request: FileTransferRequest) -> str:
        """Return the host that a request names.

        :raises ValueError: it names none.
        """
        target = request.target_host.strip()
        if not target:
            raise ValueError("target_host is required")
        return target

    def stat_transfer_source(self, source_path: str | Path) -> FileTransferSource:
        """Look at a file on this host.

        :raises ValueError: there is none at that path.
        """
        path = Path(source_path).expanduser().resolve()
        if not path.is_file():
            raise ValueError(f"source is not a file: {source_path}")
        status = path.stat()
        return FileTransferSource(path, path.name, status.st_size, birth_of(status), status.st_mtime)

    def prepare_file_transfer(self, request: FileTransferRequest) -> FileTransferPlan:
        """Check a request, and write it down in the state.

        :raises ValueError: it names no target, or no file.
        """
        target = self.require_transfer_target(request)
        source = self.stat_transfer_source(request.source_path)
        self.remember_transfer_request(request, source)
        return FileTransferPlan(request, source, self._transfer.destination_path, target)

    def remember_transfer_request(self, request: FileTransferRequest, source: FileTransferSource) -> str:
        """Write a request into the state and return the id of the transfer."""
        target = request.target_host.strip()
        known = self._task.context.host_status(target) if target else None
        with self._task.locked():
            state = self._transfer
            state.transfer_id = request.transfer_id or f"file-transfer-{uuid.uuid4().hex}"
            state.mode, state.dry_run, state.overwrite = request.mode, request.dry_run, request.overwrite
            state.source_host_name = request.source_label or self._task.context.name
            state.source_host_url = self._task.context.address
            state.destination_host_name = request.destination_label or (target if known is None else known.name)
            state.destination_host_url = target if known is None else known.url
            state.source_path, state.file_name = str(source.path), source.file_name
            state.destination_path = self.plan_destination_path(request.destination_path, source.file_name)
            state.final_path = ""
            state.size_bytes = source.size_bytes
            state.source_created_at, state.source_modified_at = source.created_at, source.modified_at
            self._task.notify_all_state_changed()
            return state.transfer_id

    def register_transfer_file(self, source: FileTransferSource, mode: FileTransferMode) -> None:
        """Have a file travel along.

        With `MOVE` the host deletes the original when the paglet has arrived elsewhere, so that is for paglets that
        save the file in `on_arrival`, where a failure calls the move off.

        :raises TransferError: there is no file any more.
        """
        self._task.register_file(source.path, name=self.registered_file_name, mode=mode.value)

    def register_planned_file(self, plan: FileTransferPlan) -> None:
        """Have the file of a plan travel along in the mode that was asked for; see `register_transfer_file`."""
        self.register_transfer_file(plan.source, plan.request.mode)

    def mark_waiting_for_arrival(self) -> None:
        """Say that the file is on its way."""
        self._task.set_task_status(TaskStatus.WAITING_FOR_ARRIVAL, done=False)

    # --- at the destination -------------------------------------------------------------------------------------------

    def current_transfer_arrival(self) -> FileTransferArrival | None:
        """Return the file that has come along and is to be saved, None if there is no such file.

        :raises HostError: there should be one, and it is not registered.
        """
        state = self._transfer
        if state.status is not TaskStatus.WAITING_FOR_ARRIVAL:
            return None
        return FileTransferArrival(
            self._task.file_path(self.registered_file_name),
            state.destination_path,
            state.file_name,
            state.overwrite,
            state.mode,
        )

    def save_arrived_file(self, arrival: FileTransferArrival) -> Path:
        """Save the file that has come along, note where in the state, and return that.

        Called in `on_arrival`, it leaves the saved file behind if the move is called off after that hook, for example
        because the source dies before it has committed. `finish_file` does not.

        :raises FileExistsError: the destination exists, and is not to be overwritten.
        :raises TransferError: what was saved has another checksum than what came.
        """
        saved = self.save_registered_file_to_destination(
            destination=arrival.destination_path, source_name=arrival.source_name, overwrite=arrival.overwrite
        )
        self.remember_transfer_arrival(saved)
        return saved

    def save_registered_file_to_destination(self, *, destination: str, source_name: str, overwrite: bool) -> Path:
        """Copy the registered file to where a destination says, compare it there, and return the path.

        :raises FileExistsError: the destination exists, and is not to be overwritten.
        :raises TransferError: what was saved has another checksum than what came.
        """
        ref = self._registered_file()
        target = self.resolve_destination_path(destination, source_name)
        return copy_file(Path(ref.current_path), target, overwrite=overwrite, sha256=ref.sha256)

    def remember_transfer_arrival(self, destination: Path) -> str:
        """Note in the state that the file is, or will be, at a path of this host; return that path."""
        with self._task.locked():
            state = self._transfer
            label = str(state.request.get("destination_label") or "")
            state.destination_host_name = label or self._task.context.name
            state.destination_host_url = self._task.context.address
            state.final_path = str(destination)
            self._task.notify_all_state_changed()
            return state.final_path

    def _registered_file(self) -> PagletFileRef:
        for ref in self._task.registered_files():
            if ref.name == self.registered_file_name:
                return ref
        raise HostError(f"no file is registered under the name {self.registered_file_name!r}")

    # --- paths and files ----------------------------------------------------------------------------------------------

    def plan_destination_path(self, destination: str, source_name: str) -> str:
        """Return a destination with the file name that it leaves out, without looking at any disk.

        Empty or `.` is the source's name; what ends with a slash or backslash is a directory.
        """
        return planned_path(destination, source_name)

    def resolve_destination_path(self, destination: str, source_name: str, *, check_existing_dir: bool = True) -> Path:
        """Return the absolute path on this host that a destination stands for, `~` expanded.

        :param check_existing_dir: an existing directory means a file of the source's name in it.
        """
        return resolved_path(destination, source_name, check_existing_dir=check_existing_dir)

    def atomic_copy_file(self, source: Path, destination: Path, *, overwrite: bool) -> Path:
        """Copy a file durably and return the absolute path of the copy; its parents are created.

        It appears whole or not at all, with the modification time of the source.

        :raises FileExistsError: the destination exists, and is not to be overwritten.
        :raises TransferError: the copy differs from the source.
        """
        return copy_file(source, destination, overwrite=overwrite, sha256=file_sha256(source))

    # --- the outcome --------------------------------------------------------------------------------------------------

    def build_transfer_result(self, *, destination_path: str, dry_run: bool) -> FileTransferResult:
        """Return the result that follows from the state."""
        state = self._transfer
        return FileTransferResult(
            state.transfer_id,
            state.mode,
            dry_run,
            FileTransferEndpoint(
                state.source_host_name,
                state.source_host_url,
                state.source_path,
                state.source_created_at,
                state.source_modified_at,
            ),
            FileTransferEndpoint(state.destination_host_name, state.destination_host_url, destination_path),
            state.file_name,
            state.size_bytes,
            format_bytes(state.size_bytes),
        )

    def notify_transfer_info(self, title: str, message: str) -> bool:
        """Tell the user how the transfer goes; return whether somebody took it."""
        return self._notify(NotificationSeverity.INFO, title, message)

    def notify_transfer_error(self, title: str, message: str) -> bool:
        """Tell the user that the transfer has failed; return whether somebody took it."""
        return self._notify(NotificationSeverity.ERROR, title, message)

    def _notify(self, severity: NotificationSeverity, title: str, message: str) -> bool:
        return self.notify_user_info(
            severity, f"{self.notification_title}: {title}", message, job_id=self._transfer.transfer_id
        )
