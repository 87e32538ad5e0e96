"""Files that hosts store, name, verify and carry along with paglets."""

from typing import TYPE_CHECKING, Any

from paglets.artifacts.names import safe_target_filename, unique_target_names
from paglets.artifacts.refs import (
    ARTIFACT_COPY,
    ARTIFACT_MOVE,
    ARTIFACT_STATUS_AVAILABLE,
    ARTIFACT_STATUS_FAILED,
    ARTIFACT_STATUS_REGISTERED,
    DEFAULT_ARTIFACT_MAX_BYTES,
    DEFAULT_ARTIFACT_SPOOL_TTL_SECONDS,
    DEFAULT_ARTIFACT_STORAGE_QUOTA_BYTES,
    KIND_DIRECTORY,
    KIND_FILE,
    ArtifactRef,
    ArtifactWriteResult,
    Content,
    PagletDirectoryRef,
    PagletFileRef,
    paglet_file_ref_from_path,
    read_content,
    registered_name,
    registered_path,
)
from paglets.artifacts.streams import STREAM_CHUNK_BYTES, copy_path, copy_stream, file_sha256

if TYPE_CHECKING:
    from paglets.artifacts.store import ArtifactStore

__all__ = [
    "ARTIFACT_COPY",
    "ARTIFACT_MOVE",
    "ARTIFACT_STATUS_AVAILABLE",
    "ARTIFACT_STATUS_FAILED",
    "ARTIFACT_STATUS_REGISTERED",
    "DEFAULT_ARTIFACT_MAX_BYTES",
    "DEFAULT_ARTIFACT_SPOOL_TTL_SECONDS",
    "DEFAULT_ARTIFACT_STORAGE_QUOTA_BYTES",
    "KIND_DIRECTORY",
    "KIND_FILE",
    "STREAM_CHUNK_BYTES",
    "ArtifactRef",
    "ArtifactStore",
    "ArtifactWriteResult",
    "Content",
    "PagletDirectoryRef",
    "PagletFileRef",
    "copy_path",
    "copy_stream",
    "file_sha256",
    "paglet_file_ref_from_path",
    "read_content",
    "registered_name",
    "registered_path",
    "safe_target_filename",
    "unique_target_names",
]


def __getattr__(name: str) -> Any:
    # What stores is 25 modules, for hosts alone: clients and paglets have references.
    if name == "ArtifactStore":
        from paglets.artifacts.store import ArtifactStore

        return ArtifactStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
