"""Work directories, managed storage and registered files of the paglets on one host."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from paglets.artifacts import ARTIFACT_MOVE, KIND_DIRECTORY, PagletFileRef
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.tree.removal import RemovalStoppedError, remove_tree
from paglets.core.errors import TransferError
from paglets.persistence.directory import safe_agent_dir, safe_class_key
from paglets.runtime.agents import AgentEntry
from paglets.runtime.shipment import mark_of

#: Arrivals remembered for departures that end late; a late end is seconds late.
_MOST_EPOCHS = 10_000


class FileDesk:
    """Know where a paglet's files are on this host. Its methods block on the disk and run in the kernel's executor.

    What is removed is renamed at once and deleted later, since a directory may have a great many files.

    :param directory: the host's directory.
    :param store: takes files that are no longer needed where they are.
    :param later: does something some time, on another thread.
    """

    def __init__(self, directory: Path, store: BlobStore, later: Callable[[Callable[[], None]], None]) -> None:
        self._store = store
        self._later = later
        self._work = directory / "work"
        self._storage = directory / "storage"
        self._removed = directory / "removed"
        self._outdated = directory / "incoming"
        self._closing = False
        self._epochs: dict[str, int] = {}
        self._lock = threading.Lock()

    def clear(self, keep: Iterable[str]) -> None:
        """Remove what earlier runs left behind, but the work directories of the paglets in ``keep``."""
        found = list(self._work.iterdir()) if self._work.is_dir() else []
        if found:  # working out the names of a great many paglets takes a while
            kept = {safe_agent_dir(agent_id) for agent_id in keep}
            for entry in found:
                if entry.name not in kept:
                    self._throw_away(entry)
        self._throw_away(self._outdated)  # where arriving files were once kept
        if self._removed.is_dir():
            for entry in self._removed.iterdir():
                self._delete_later(entry)

    def close(self) -> None:
        """Delete nothing more; the next start goes on with it."""
        self._closing = True

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
        self._throw_away(self.work_dir(agent_id))

    def clear_work_dir(self, agent_id: str) -> None:
        """Remove a paglet's work directory, and keep large contents in the store for when they are wanted again."""
        path = self.work_dir(agent_id)
        if path.exists():
            self._store.take_below(path)
            self._throw_away(path)

    def note_stay(self, agent_id: str, epoch: int) -> None:
        """Know that a paglet is here since this epoch, so that the end of an earlier stay leaves its files alone.

        Moves inside the host raise the epoch within one stay, and nobody has to tell of them.
        """
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
            self.clear_work_dir(agent_id)

    def _note_arrival(self, agent_id: str, epoch: int) -> None:
        self._epochs.pop(agent_id, None)
        self._epochs[agent_id] = epoch
        if len(self._epochs) > _MOST_EPOCHS:
            del self._epochs[next(iter(self._epochs))]

    def remove_departed(self, entry: AgentEntry, marks: Mapping[str, str]) -> list[str]:
        """Remove what a paglet that has safely left had here, but nothing of its next stay: it may be back already.

        :param marks: of each file as it was sent; what was changed since is not removed.
        :return: the paths of files that were to move and stay, since they are no longer what was sent.
        """
        work = self.work_dir(entry.agent_id)
        kept = self._remove_moved((ref for ref in entry.files.values() if not _is_below(ref, work)), marks)
        with self._lock:
            # A stay may have begun in an earlier epoch than it ends in. Only one that began later is another one.
            if self._epochs.get(entry.agent_id, entry.epoch) <= entry.epoch:
                self._epochs.pop(entry.agent_id, None)
                self.clear_work_dir(entry.agent_id)
        return kept

    def _remove_moved(self, refs: Iterable[PagletFileRef], marks: Mapping[str, str]) -> list[str]:
        kept = []
        for ref in refs:
            path = Path(ref.current_path)
            if ref.mode != ARTIFACT_MOVE:
                continue
            try:
                if ref.name in marks and mark_of(path, ref.kind) != marks[ref.name]:
                    kept.append(str(path))
                    continue
            except FileNotFoundError:
                continue
            except (OSError, TransferError):
                kept.append(str(path))
                continue
            if ref.kind == KIND_DIRECTORY:
                self._store.take_below(path)
                self._throw_away(path)
            elif (sha256 := self._store.known(path)) is None or not self._store.take(path, sha256):
                path.unlink(missing_ok=True)
        return kept

    def _throw_away(self, path: Path) -> None:
        """Have a file or directory gone from its place; it is deleted later."""
        try:
            self._removed.mkdir(mode=0o700, exist_ok=True)
            hidden = self._removed / uuid.uuid4().hex
            path.rename(hidden)
        except FileNotFoundError:
            return
        except OSError:  # on another disk, or not ours to rename
            self._delete(path)
        else:
            self._delete_later(hidden)

    def _delete_later(self, path: Path) -> None:
        self._later(partial(self._delete, path))

    def _delete(self, path: Path) -> None:
        # What cannot be deleted is tried again when the host starts; nobody could do more about it now.
        with suppress(OSError, RemovalStoppedError):
            remove_tree(path, stop=lambda: self._closing)

    def storage_root(self, class_name: str) -> Path:
        """Return the directory that all paglets of one class share."""
        return self._storage / safe_class_key(class_name)


def _is_below(ref: PagletFileRef, directory: Path) -> bool:
    return Path(ref.current_path).is_relative_to(directory)
