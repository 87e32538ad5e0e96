"""The metadata of artifacts: one file for each, and all of them in memory."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from paglets.artifacts.errors import NotStoredError, io_error
from paglets.artifacts.refs import ArtifactRef
from paglets.core.errors import PagletError, TransferError

_ID: Final = re.compile(r"[0-9a-fA-F]+", re.ASCII)
_MOST_ID: Final = 128
_MOST_FILE_BYTES: Final = 256 * 1024
_PLACE: Final = "stored_at"


def checked_artifact_id(artifact_id: str) -> str:
    """Return an id that can name a file.

    :raises TransferError: it is anything but hex digits.
    """
    if len(artifact_id) > _MOST_ID or _ID.fullmatch(artifact_id) is None:
        raise TransferError(f"invalid artifact id {artifact_id[:80]!r}")
    return artifact_id


class Catalogue:
    """The references of all artifacts, with the present address of their host. Safe for threads."""

    def __init__(
        self, directory: Path, host_url: str, scratch: Callable[[], Path], report: Callable[[str], None]
    ) -> None:
        """Name the directory, which exists, and know nothing of what is in it yet.

        :param scratch: gives a fresh path on the same file system, which the next start removes.
        :param report: takes note of a problem.
        """
        self.directory = directory
        self.host_url = host_url
        self._scratch = scratch
        self._report = report
        self._lock = threading.Lock()
        self._refs: dict[str, ArtifactRef] = {}
        self._places: dict[str, str] = {}

    def read(self) -> list[tuple[ArtifactRef, str]]:
        """Return what the files say, without believing it: references, and where content is beside this host.

        Unreadable files are reported and stay, empty ones go.
        """
        found = []
        for file in list(os.scandir(self.directory)):
            stem, dot, kind = file.name.rpartition(".")
            if not dot or kind != "json" or not file.is_file(follow_symlinks=False):
                self._report(f"{file.path} is no metadata of an artifact and is ignored")
                continue
            try:
                ref, place = self._parsed(Path(file.path))
            except (OSError, ValueError, TypeError, KeyError, RecursionError, PagletError) as error:
                if file.stat(follow_symlinks=False).st_size == 0:  # a loss of power before its bytes were on disk
                    self.forget_file(stem)
                self._report(f"metadata of artifact {stem} cannot be read and is ignored: {error}")
                continue
            if ref.artifact_id != stem:
                self._report(f"{file.path} is the metadata of artifact {ref.artifact_id[:80]} and is ignored")
                continue
            found.append((ref, place))
        return found

    def set_host_url(self, host_url: str) -> None:
        """Have all references name another address of the host."""
        with self._lock:
            self.host_url = host_url
            self._refs = {key: replace(ref, host_url=host_url) for key, ref in self._refs.items()}

    def __len__(self) -> int:
        return len(self._refs)

    def has(self, artifact_id: str) -> bool:
        """Return whether there is such an artifact."""
        return artifact_id in self._refs

    def get(self, artifact_id: str) -> ArtifactRef:
        """Return one reference.

        :raises NotStoredError: there is no such artifact.
        :raises TransferError: the id is malformed.
        """
        found = self._refs.get(checked_artifact_id(artifact_id))
        if found is None:
            raise NotStoredError(f"No artifact {artifact_id}")
        return found

    def all(self) -> list[ArtifactRef]:
        """Return all references, by id."""
        with self._lock:
            refs = self._refs
            return [refs[key] for key in sorted(refs)]

    def place(self, artifact_id: str) -> str:
        """Return where the content of an artifact is, if it need not be on the disk of this host; else nothing."""
        return self._places.get(artifact_id, "")

    def add(self, ref: ArtifactRef, place: str = "") -> ArtifactRef:
        """Take in an artifact whose metadata is on file, and return its reference with the present address."""
        with self._lock:
            ref = replace(ref, host_url=self.host_url)
            self._refs[ref.artifact_id] = ref
            if place:
                self._places[ref.artifact_id] = place
            return ref

    def take(self, artifact_id: str) -> ArtifactRef | None:
        """Take out an artifact; None if another thread did."""
        with self._lock:
            self._places.pop(artifact_id, None)
            return self._refs.pop(artifact_id, None)

    def write_file(self, ref: ArtifactRef, place: str = "") -> None:
        """Write the metadata of an artifact; it is complete, or not there at all.

        :param place: where its content is, if it need not be on the disk of this host.
        :raises NoRoomError: the disk does not take it.
        :raises TransferError: it cannot be written.
        """
        fresh = self._scratch()
        wire = {**ref.to_wire(), _PLACE: place} if place else ref.to_wire()
        try:
            fresh.write_bytes(json.dumps(wire, indent=2).encode())
            fresh.replace(self._file(ref.artifact_id))
        except OSError as error:
            raise io_error("The metadata of an artifact cannot be written", self.directory, error) from error
        finally:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)

    def forget_file(self, artifact_id: str) -> None:
        """Remove the metadata of an artifact from the disk; nothing there is no error.

        :raises TransferError: it cannot be removed.
        """
        try:
            self._file(artifact_id).unlink(missing_ok=True)
        except OSError as error:
            raise io_error(f"Artifact {artifact_id} cannot be deleted", self.directory, error) from error

    def _file(self, artifact_id: str) -> Path:
        return self.directory / f"{artifact_id}.json"

    def _parsed(self, path: Path) -> tuple[ArtifactRef, str]:
        with path.open("rb") as stream:
            wire: Any = json.loads(stream.read(_MOST_FILE_BYTES))
        if not isinstance(wire, dict):
            raise ValueError("it is no object")
        ref = ArtifactRef.from_wire(wire)
        checked_artifact_id(ref.artifact_id)
        place = wire.get(_PLACE, "")
        if not isinstance(place, str):
            raise ValueError("its place is no text")
        return ref, place
