"""Open the place where a host keeps artifacts: in its directory, in another one, or in object storage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from paglets.artifacts.backends import open_backend
from paglets.artifacts.store import ArtifactStore
from paglets.persistence.directory import DirectoryLock

if TYPE_CHECKING:
    from paglets.runtime.host import Host

#: The directory in the host's directory that has artifacts and blobs, or the cache of them.
ARTIFACTS_NAME: Final = "artifacts"


@dataclass(frozen=True, slots=True)
class ArtifactHome:
    """The artifacts of a host that runs, and the right to be the only one with their directory."""

    store: ArtifactStore
    _lock: DirectoryLock | None = None

    @classmethod
    def open(cls, host: Host) -> ArtifactHome:
        """Open what the host was told to use. Object storage is not asked before it is needed.

        :raises HostError: another host uses the directory, or object storage needs an extra that is not installed.
        :raises TransferError: the directory cannot be used.
        """
        directory, lock, backend = host.persistence_dir / ARTIFACTS_NAME, None, None
        place = host.artifact_place
        if isinstance(place, Path):
            if not place.is_relative_to(host.persistence_dir):
                lock = DirectoryLock(place)
                lock.acquire()
            directory = place
        elif place is not None:
            backend = open_backend(place, directory)
        try:
            store = ArtifactStore(
                directory,
                host_url=host.address,
                max_artifact_bytes=host.artifact_max_bytes,
                quota_bytes=host.artifact_storage_quota_bytes,
                spool_ttl_seconds=host.artifact_spool_ttl_seconds,
                backend=backend,
            )
        except BaseException:
            if backend is not None:
                backend.close()
            if lock is not None:
                lock.release()
            raise
        return cls(store, lock)

    def close(self) -> None:
        """Let others use the directory; requests to object storage that are under way end."""
        self.store.close()
        if self._lock is not None:
            self._lock.release()
