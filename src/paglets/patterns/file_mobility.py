"""Paglets that carry a file from one host to another and save it there.

`FileMobilityMixin` has the single steps of `paglets.patterns.file_steps`, and the whole way in an order in which the
file is complete at the source or at the destination at any moment, whatever dies:

1. `send_file`, in the handler of `start` at the source, registers the file as a copy and moves the paglet.
2. `receive_file`, in `on_arrival`, only looks: the move is not final yet, and may be called off without anybody here
   being told. What it refuses sends paglet and file back, and `start` is answered with `FAILED`.
3. `finish_file`, in `run`, when the move is final, saves the file under a hidden name, gives it its own, and only then
   has the original deleted at the source, where that was asked for. After a crash, at either host, it goes on.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from paglets.artifacts import PagletFileRef
from paglets.core.context import same_url
from paglets.core.errors import (
    ConflictError,
    InsufficientStorageError,
    OverloadedError,
    PagletError,
    RemoteHostError,
    TransferError,
)
from paglets.core.events import MobilityEvent, PersistencyEvent
from paglets.core.handlers import handler
from paglets.core.runtime_values import Durability
from paglets.patterns.file_steps import FileSteps
from paglets.patterns.placing import Original, Placement, check_place
from paglets.patterns.tasks import TaskPaglet, TaskStatus
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
from paglets.remote.calls import CallOptions
from paglets.remote.proxy import PagletProxy
from paglets.remote.transfer import TransferTicket
from paglets.serialization.codec import dataclass_from_wire, dataclass_to_wire

__all__ = [
    "FileMobilityMixin",
    "FileTransferArrival",
    "FileTransferEndpoint",
    "FileTransferMode",
    "FileTransferPlan",
    "FileTransferRequest",
    "FileTransferResult",
    "FileTransferSource",
    "FileTransferState",
    "SingleFileTransferPaglet",
    "format_bytes",
]

_log = logging.getLogger(__name__)

#: Seconds that a host may stall over a file, and the bytes for each second more: what its disk does at the least.
_PATIENCE_SECONDS: Final = 30.0
_SLOWEST_BYTES_PER_SECOND: Final = 32 * 1024 * 1024
#: Pauses between attempts to have the original deleted, seconds, and what may be over after them.
_REMOVAL_PAUSES: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_PASSING: Final = (RemoteHostError, OverloadedError)
_UNDER_WAY: Final = (TaskStatus.RUNNING, TaskStatus.WAITING_FOR_ARRIVAL)


class FileMobilityMixin(FileSteps):
    """Lets a `TaskPaglet` whose state is a `FileTransferState` carry one file; mix it in before `TaskPaglet`.

    For the whole way call `send_file` in `run_task`, `receive_file` in `on_arrival`, `finish_file` in `run`, and
    `drop_file` in `on_disposing`. The class needs checkpoints, which are the default.
    """

    def __init__(self, state: Any = None, *, agent_id: str | None = None) -> None:
        cast("Any", super()).__init__(state, agent_id=agent_id)
        # `run` begins beside the handlers: only what was under way before the first of them is its business.
        self._came_unfinished = self.task_is_under_way()

    def task_is_under_way(self) -> bool:
        """Tell whether a file is being transferred."""
        return self._transfer.status in _UNDER_WAY and not self._transfer.done

    # --- 1: at the source ---------------------------------------------------------------------------------------------

    def send_file(self, request: FileTransferRequest) -> PagletProxy | FileTransferResult | None:
        """Do what a request asks for at the source; the return value is that of `run_task`.

        :return: the new place; the result, for a dry run; or None where the move was refused and the task has failed.
        :raises ValueError: the request names no target, or no file.
        :raises PermissionError: the file cannot be deleted, as it should be.
        :raises PagletError: the file cannot travel.
        """
        plan = self.prepare_file_transfer(request)
        source, way = plan.source, f"{plan.source.path} -> {plan.target_host}:{plan.destination_path}"
        if request.mode is FileTransferMode.MOVE and not os.access(source.path.parent, os.W_OK | os.X_OK):
            raise PermissionError(f"{source.path} cannot be moved: its directory is not writable")
        self.notify_transfer_info("found file", f"{source.path} ({format_bytes(source.size_bytes)})")
        if request.dry_run:
            self.notify_transfer_info("dry run", way)
            return self.build_transfer_result(destination_path=plan.destination_path, dry_run=True)
        # From here on a host that dies brings back a paglet that knows what it was about to do.
        self._task.checkpoint()
        # As a copy, whatever was asked for: the original is not to go before the file is saved.
        self.register_transfer_file(source, FileTransferMode.COPY)
        self.mark_waiting_for_arrival()
        self.notify_transfer_info("dispatching", way)
        try:
            # One attempt: what the target has refused it refuses again, after the whole file was sent again.
            return self._task.dispatch(TransferTicket(plan.target_host, timeout=_patience(source.size_bytes)))
        except PagletError as exc:
            self._task.unregister_file(self.registered_file_name)
            self._fail(exc)
            return None

    # --- 2: at the destination, before the move is final --------------------------------------------------------------

    def receive_file(self, event: MobilityEvent) -> None:
        """Refuse a file that could not be saved here; nothing is changed on this host.

        :raises OSError: it could not, for example because the destination exists.
        :raises PagletError: likewise.
        """
        arrival, state = self.current_transfer_arrival(), self._transfer
        if arrival is None:
            return
        if state.final_path:
            if not same_url(event.host_address, state.destination_host_url):
                self._task.fail_task(
                    f"taken from {state.destination_host_name} to {event.host_name} before it was done"
                )
            return
        ref = self._registered_file()
        destination = self.resolve_destination_path(arrival.destination_path, arrival.source_name)
        check_place(destination, overwrite=arrival.overwrite, scratch=arrival.scratch_path, size=ref.size_bytes)
        with self._task.locked():
            state.size_bytes = ref.size_bytes  # it travels as it is when it leaves
            self.remember_transfer_arrival(destination)

    # --- 3: at the destination, when the move is final ----------------------------------------------------------------

    def finish_file(self) -> None:
        """Save the file that came along, or go on with what this paglet was about to do when its host died.

        The task is done when this returns, unless the paglet has left again. Where the file could not be saved, the
        paglet returns to the source if it can, and has failed at either place.
        """
        if not self._came_unfinished or not self.task_is_under_way():
            return
        try:
            if self._transfer.final_path:
                self._save()
            else:
                self._send_again()
        except Exception as exc:  # whatever it was, somebody waits for the outcome
            self._give_up(exc)

    def drop_file(self, event: PersistencyEvent) -> None:
        """Leave nothing half saved behind where this paglet ends."""
        state = self._transfer
        if self.task_is_under_way() and state.final_path:
            _forget(self._placement(Path(), ""))

    def _send_again(self) -> None:
        request = dataclass_from_wire(FileTransferRequest, self._transfer.request, path="request")
        outcome = self.send_file(replace(request, transfer_id=self._transfer.transfer_id))
        if isinstance(outcome, FileTransferResult):
            self._task.complete_task(outcome)

    def _save(self) -> None:
        state = self._transfer
        ref = next((ref for ref in self._task.registered_files() if ref.name == self.registered_file_name), None)
        placement = self._placement(
            Path() if ref is None else Path(ref.current_path), "" if ref is None else ref.sha256
        )
        # A result is noted as soon as the file is saved; the task is done when everything else is, too.
        if not state.result:
            try:
                placement.save()
            except Exception as exc:
                _forget(placement)
                self._give_up(exc, way_back=state.source_host_url)
                return
            with self._task.locked():
                result = self.build_transfer_result(destination_path=state.final_path, dry_run=False)
                state.result = dataclass_to_wire(result)
            self._note()
        _forget(placement)
        if ref is not None:
            self._remove_original(ref)
            self._drop_scratch(ref)
        self._task.complete_task(dataclass_from_wire(FileTransferResult, state.result, path="result"))
        self.notify_transfer_info("saved file", f"{state.final_path} ({format_bytes(state.size_bytes)})")

    def _placement(self, scratch: Path, sha256: str) -> Placement:
        state = self._transfer
        # On one host the file has stayed where it is: what is at the source must not be given away.
        take = scratch.is_relative_to(self._task.work_dir(create=False))
        return Placement(scratch, Path(state.final_path), state.overwrite, sha256, self._task.agent_id, take)

    def _drop_scratch(self, ref: PagletFileRef) -> None:
        path = Path(ref.current_path)
        self._task.unregister_file(ref)
        if path.is_relative_to(self._task.work_dir(create=False)):
            path.unlink(missing_ok=True)

    def _note(self) -> bool:
        """Have the state on disk; return whether it is. Where there is no room, what was done is done all the same."""
        try:
            self._task.checkpoint()
        except InsufficientStorageError as exc:
            _log.warning("the state of transfer %s is not on disk: %s", self._transfer.transfer_id, exc)
            return False
        return True

    def _fail(self, exc: Exception) -> None:
        self._task.fail_task(exc)
        self.notify_transfer_error("failed", self._transfer.error)

    def _give_up(self, exc: Exception, *, way_back: str = "") -> None:
        """Fail, at the source where there is a way back, or else here."""
        self._fail(exc)  # before the way back, which waits for a handler that waits for the outcome
        # A file that is not registered any more stands for a transfer that was a success, so not before this.
        if self._note():
            for ref in self._task.registered_files():
                if ref.name == self.registered_file_name:
                    self._drop_scratch(ref)
        if not way_back or same_url(way_back, self._task.context.address):
            return
        try:
            self._task.dispatch(TransferTicket(way_back, timeout=_PATIENCE_SECONDS, retries=1))
        except PagletError as error:
            _log.warning("transfer %s has failed and stays here: %s", self._transfer.transfer_id, error)

    # --- the original -------------------------------------------------------------------------------------------------

    def _remove_original(self, ref: PagletFileRef) -> None:
        state = self._transfer
        if state.mode is not FileTransferMode.MOVE:
            return
        original = Original(
            state.source_path, ref.size_bytes, ref.sha256, state.source_created_at, state.source_modified_at
        )
        try:
            if same_url(state.source_host_url, self._task.context.address):
                original.remove()
            else:
                self._have_removed(original)
        except (OSError, PagletError) as exc:
            where = f"{state.source_host_name}:{state.source_path}"
            raise TransferError(
                f"saved as {state.final_path}, but the original {where} was not deleted: {exc}"
            ) from exc

    def _have_removed(self, original: Original) -> None:
        """Have a paglet at the source delete the original: one of this class, which may be there."""
        url = self._transfer.source_host_url
        for pause in (*_REMOVAL_PAUSES, None):
            try:
                helper = self._helper_at(url)
                try:
                    patience = CallOptions(timeout=_patience(original.size_bytes))
                    helper.with_options(patience).call(FileMobilityMixin.remove_original, original)
                finally:
                    _end(helper)
                return
            except _PASSING:
                if pause is None:
                    raise
                self._task.wait_state(lambda state: bool(state.done), pause)

    def _helper_at(self, url: str) -> PagletProxy:
        # Always the same id: what a life of this host left there that has died meanwhile is used, not forgotten.
        helper_id = hashlib.blake2b(f"{self._task.agent_id} original".encode(), digest_size=16).hexdigest()
        try:
            return self._task.context.host.create_remote(
                url, type(self._task), self._task.state_class()(), agent_id=helper_id
            )
        except ConflictError:
            return self._task.context.host.proxy_for(url, helper_id)

    @handler(kind="file-mobility.remove-original")
    def remove_original(self, original: Original) -> None:
        """Delete a file on this host that was saved elsewhere; asked by the paglet that saved it.

        :raises ConflictError: this paglet carries a file itself.
        :raises TransferError: the file has changed, or cannot be deleted, and stays.
        """
        if self._transfer.status is not TaskStatus.NEW:
            raise ConflictError("a paglet that carries a file deletes no other")
        try:
            original.remove()
        except OSError as exc:
            raise TransferError(str(exc)) from exc


class SingleFileTransferPaglet(
    FileMobilityMixin, TaskPaglet[FileTransferRequest, FileTransferResult, FileTransferState]
):
    """Carry one file to another host and save it there; see `paglets.patterns.file_mobility` for the order of things.

    Checkpoints are enough: the paglet takes one before each step that a crash must not repeat, or leave out.
    """

    Request = FileTransferRequest
    Result = FileTransferResult
    State = FileTransferState
    DURABILITY = Durability.CHECKPOINT

    def run_task(self, request: FileTransferRequest) -> PagletProxy | FileTransferResult | None:
        """Send the file off, or say what would be done."""
        return self.send_file(request)

    def on_arrival(self, event: MobilityEvent) -> None:
        """Refuse what cannot be saved here."""
        self.receive_file(event)

    def run(self) -> None:
        """Save the file, and finish what a crash has interrupted."""
        self.finish_file()

    def on_disposing(self, event: PersistencyEvent) -> None:
        """Leave nothing half saved behind."""
        self.drop_file(event)


def _forget(placement: Placement) -> None:
    try:
        placement.forget()
    except OSError as exc:  # it is only litter
        _log.warning("%s is left: %s", placement.part, exc)


def _end(helper: PagletProxy) -> None:
    try:
        helper.dispose()
    except PagletError as exc:
        _log.warning("paglet %s is left at %s: %s", helper.agent_id, helper.host_url, exc)


def _patience(size_bytes: int) -> float:
    return _PATIENCE_SECONDS + size_bytes / _SLOWEST_BYTES_PER_SECOND
