"""Work directories, managed storage and registered files of the paglets on one host."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paglets.artifacts import (
    ARTIFACT_MOVE,
    ARTIFACT_STATUS_AVAILABLE,
    PagletFileRef,
    file_sha256,
    unique_target_names,
)
from paglets.core.errors import TransferError
from paglets.persistence.directory import safe_agent_dir, safe_class_key
from paglets.runtime.agents import AgentEntry

_CHUNK_BYTES = 1024 * 1024
#: Arrivals remembered for departures that end late; a late end is seconds late.
_MOST_EPOCHS = 10_000


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file of a movement: where its bytes are, and how many."""

    path: Path
    nbytes: int


class FileDesk:
    """Know where a paglet's files are on this host. Its methods block on the disk and run in the kernel's executor.

    :param directory: the host's directory.
    """

    def __init__(self, directory: Path) -> None:
        self._work = directory / "work"
        self._storage = directory / "storage"
        self._incoming = directory / "incoming"
        self._epochs: dict[str, int] = {}
        self._lock = threading.Lock()

    def clear(self, keep: Iterable[str]) -> None:
        """Remove what earlier runs left behind, but the work directories of the paglets in ``keep``."""
        found = list(self._work.iterdir()) if self._work.is_dir() else []
        if found:  # working out the names of a great many paglets takes a while
            kept = {safe_agent_dir(agent_id) for agent_id in keep}
            for entry in found:
                if entry.name not in kept:
                    _remove_tree(entry)
        if self._incoming.is_dir():
            _remove_tree(self._incoming)

    def work_dir(self, agent_id: str) -> Path:
        """Return where a paglet's work directory is, or would be."""
        return self._work / safe_agent_dir(agent_id)

    def make_work_dir(self, agent_id: str) -> Path:
        """Return a paglet's work directory, created when absent."""
        path = self.work_dir(agent_id)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def remove_work_dir(self, agent_id: str) -> None:
        """Remove a paglet's work directory with everything in it."""
        path = self.work_dir(agent_id)
        if path.exists():
            _remove_tree(path)

    def note_stay(self, agent_id: str, epoch: int) -> None:
        """Know that a paglet is here in this epoch, so that the end of an earlier stay leaves its files alone."""
        with self._lock:
            self._epochs[agent_id] = epoch

    def has_room(self, agent_id: str, epoch: int) -> bool:
        """Do what `make_room` does if that takes no waiting, which is nearly always; return whether it is done."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self.work_dir(agent_id).exists():
                return False
            self._note_arrival(agent_id, epoch)
        finally:
            self._lock.release()
        return True

    def make_room(self, agent_id: str, epoch: int) -> None:
        """Have a paglet that arrives find no work directory of an earlier stay, whose end may still be under way."""
        with self._lock:
            self._note_arrival(agent_id, epoch)
            self.remove_work_dir(agent_id)

    def _note_arrival(self, agent_id: str, epoch: int) -> None:
        self._epochs.pop(agent_id, None)
        self._epochs[agent_id] = epoch
        if len(self._epochs) > _MOST_EPOCHS:
            del self._epochs[next(iter(self._epochs))]

    def remove_departed(self, entry: AgentEntry) -> None:
        """Remove what a paglet that has safely left had here, but nothing of its next stay: it may be back already."""
        with self._lock:
            back = self._epochs.get(entry.agent_id, entry.epoch) != entry.epoch
            self.delete_moved(entry, keep=self.work_dir(entry.agent_id) if back else None)
            if not back:
                self._epochs.pop(entry.agent_id, None)
                self.remove_work_dir(entry.agent_id)

    def storage_root(self, class_name: str) -> Path:
        """Return the directory that all paglets of one class share."""
        return self._storage / safe_class_key(class_name)

    def incoming_dir(self, transfer_id: str) -> Path:
        """Return a fresh directory for the files of an arriving paglet."""
        path = self._incoming / safe_agent_dir(transfer_id)
        if path.exists():
            _remove_tree(path)
        path.mkdir(mode=0o700, parents=True)
        return path

    def drop_incoming(self, transfer_id: str) -> None:
        """Remove the files of a paglet that did not arrive."""
        path = self._incoming / safe_agent_dir(transfer_id)
        if path.exists():
            _remove_tree(path)

    def stage(self, entry: AgentEntry) -> tuple[list[dict[str, Any]], list[FilePart]]:
        """Check every registered file as it is now, and list it for a movement.

        :return: the manifest, and the files in its order.
        :raises TransferError: one is missing or cannot be read.
        """
        manifest: list[dict[str, Any]] = []
        parts: list[FilePart] = []
        for ref in entry.files.values():
            path = Path(ref.current_path)
            if not path.is_file():
                raise TransferError(f"registered file {ref.name!r} is missing: {path}")
            try:
                size = path.stat().st_size
                fresh = replace(ref, size_bytes=size, sha256=file_sha256(path))
            except OSError as exc:
                raise TransferError(f"registered file {ref.name!r} cannot be read: {exc}") from exc
            manifest.append({"file": fresh.to_wire(), "transfer_mode": ref.mode, "source_path": str(path)})
            parts.append(FilePart(path, size))
        return manifest, parts

    def install(
        self, agent_id: str, manifest: list[dict[str, Any]], received: list[Path], *, host_name: str, host_url: str
    ) -> dict[str, PagletFileRef]:
        """Put received files into a paglet's work directory under safe, unique names.

        :param received: the verified files, in the manifest's order.
        :raises TransferError: a file cannot be put in place; nothing of it is left.
        """
        if not manifest:
            return {}
        refs = [PagletFileRef.from_wire(item["file"]) for item in manifest]
        directory = self.make_work_dir(agent_id)
        installed: dict[str, PagletFileRef] = {}
        try:
            for ref, name, source in zip(refs, unique_target_names([ref.name for ref in refs]), received, strict=True):
                target = directory / name
                source.replace(target)
                if ref.source_modified_at:
                    os.utime(target, (ref.source_modified_at, ref.source_modified_at))
                installed[ref.name] = replace(
                    ref,
                    current_host_name=host_name,
                    current_host_url=host_url,
                    current_path=str(target),
                    status=ARTIFACT_STATUS_AVAILABLE,
                    last_error="",
                )
        except (OSError, ValueError) as exc:
            self.remove_work_dir(agent_id)
            raise TransferError(f"Could not import registered files of paglet {agent_id}: {exc}") from exc
        return installed

    def delete_moved(self, entry: AgentEntry, keep: Path | None = None) -> None:
        """Delete the files that a paglet took along with ``mode="move"`` when it left, but none below ``keep``."""
        for ref in entry.files.values():
            path = Path(ref.current_path)
            if ref.mode == ARTIFACT_MOVE and (keep is None or not path.is_relative_to(keep)):
                path.unlink(missing_ok=True)


def copy_tree_files(refs: Iterable[PagletFileRef], directory: Path) -> dict[str, PagletFileRef]:
    """Copy registered files for a clone on the same host, under safe, unique names."""
    listed = list(refs)
    copies: dict[str, PagletFileRef] = {}
    for ref, name in zip(listed, unique_target_names([ref.name for ref in listed]), strict=True):
        target = directory / name
        shutil.copy2(ref.current_path, target)
        copies[ref.name] = replace(ref, current_path=str(target), status=ARTIFACT_STATUS_AVAILABLE, last_error="")
    return copies


def _remove_tree(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)
