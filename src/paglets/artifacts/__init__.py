"""Files that hosts store, name, verify and carry along with paglets."""

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
    ArtifactRef,
    ArtifactWriteResult,
    PagletFileRef,
    paglet_file_ref_from_path,
    registered_name,
    registered_path,
)
from paglets.artifacts.store import ArtifactStore
from paglets.artifacts.streams import STREAM_CHUNK_BYTES, copy_path, copy_stream, file_sha256

__all__ = [
    "ARTIFACT_COPY",
    "ARTIFACT_MOVE",
    "ARTIFACT_STATUS_AVAILABLE",
    "ARTIFACT_STATUS_FAILED",
    "ARTIFACT_STATUS_REGISTERED",
    "DEFAULT_ARTIFACT_MAX_BYTES",
    "DEFAULT_ARTIFACT_SPOOL_TTL_SECONDS",
    "DEFAULT_ARTIFACT_STORAGE_QUOTA_BYTES",
    "STREAM_CHUNK_BYTES",
    "ArtifactRef",
    "ArtifactStore",
    "ArtifactWriteResult",
    "PagletFileRef",
    "copy_path",
    "copy_stream",
    "file_sha256",
    "paglet_file_ref_from_path",
    "registered_name",
    "registered_path",
    "safe_target_filename",
    "unique_target_names",
]
