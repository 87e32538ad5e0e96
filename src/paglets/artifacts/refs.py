"""What is known of a stored artifact, and of a file that is registered with a paglet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from paglets.artifacts.streams import existing_file, existing_path, file_sha256
from paglets.core.errors import HostError, TransferError
from paglets.core.wire_fields import WireFields

ARTIFACT_COPY: Final = "copy"
ARTIFACT_MOVE: Final = "move"
KIND_FILE: Final = "file"
KIND_DIRECTORY: Final = "directory"
ARTIFACT_STATUS_REGISTERED: Final = "registered"
ARTIFACT_STATUS_AVAILABLE: Final = "available"
ARTIFACT_STATUS_FAILED: Final = "failed"
DEFAULT_ARTIFACT_MAX_BYTES: Final = 1024**3
DEFAULT_ARTIFACT_STORAGE_QUOTA_BYTES: Final = 10 * 1024**3
DEFAULT_ARTIFACT_SPOOL_TTL_SECONDS: Final = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """Where one stored artifact is and what it contains.

    Times are Unix seconds, `expires_at` 0 means never; `sha256` is lower-case hex; `compression` is a label that is
    only stored.
    """

    host_url: str
    artifact_id: str
    name: str = ""
    size_bytes: int = 0
    sha256: str = ""
    compression: str = ""
    created_at: float = 0.0
    expires_at: float = 0.0
    owner_agent_id: str = ""

    def to_wire(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, payload: dict[str, Any]) -> ArtifactRef:
        """Restore a reference; missing keys give the defaults.

        :raises KeyError: there is no `artifact_id`.
        :raises SerializationError: a field has the wrong type.
        """
        fields = WireFields(payload, "artifact")
        if fields.get("artifact_id") is None:
            raise KeyError("artifact_id")
        return cls(
            host_url=fields.text_or("host_url", ""),
            artifact_id=fields.text("artifact_id"),
            name=fields.text_or("name", ""),
            size_bytes=fields.integer_or("size_bytes", 0),
            sha256=fields.text_or("sha256", "").lower(),
            compression=fields.text_or("compression", ""),
            created_at=fields.number_or("created_at", 0.0),
            expires_at=fields.number_or("expires_at", 0.0),
            owner_agent_id=fields.text_or("owner_agent_id", ""),
        )


@dataclass(slots=True)
class PagletFileRef:
    """One file that is registered with a paglet: where it came from and where it is now.

    The `source_*` fields keep the values of the registration; `current_*` follow the paglet. Times are Unix seconds.
    """

    name: str
    mode: str = ARTIFACT_COPY
    source_host_name: str = ""
    source_host_url: str = ""
    source_path: str = ""
    source_created_at: float = 0.0
    source_modified_at: float = 0.0
    size_bytes: int = 0
    sha256: str = ""
    current_host_name: str = ""
    current_host_url: str = ""
    current_path: str = ""
    status: str = ARTIFACT_STATUS_REGISTERED
    last_error: str = ""

    @property
    def kind(self) -> str:
        """`file` or `directory`."""
        return KIND_FILE

    def to_wire(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, payload: dict[str, Any]) -> PagletFileRef:
        """Restore a reference; missing keys give the defaults.

        :raises KeyError: there is no `name`.
        :raises TransferError: the mode is neither copy nor move, or the kind is unknown.
        :raises SerializationError: a field has the wrong type.
        """
        fields = WireFields(payload, "registered file")
        if fields.get("name") is None:
            raise KeyError("name")
        kind = fields.text_or("kind", KIND_FILE)
        if kind not in (KIND_FILE, KIND_DIRECTORY):
            raise TransferError(f"{kind!r} is no kind of registered file; it is {KIND_FILE} or {KIND_DIRECTORY}")
        return (PagletDirectoryRef if kind == KIND_DIRECTORY else PagletFileRef)(
            name=fields.text("name"),
            mode=_file_mode(fields.text_or("mode", ARTIFACT_COPY)),
            source_host_name=fields.text_or("source_host_name", ""),
            source_host_url=fields.text_or("source_host_url", ""),
            source_path=fields.text_or("source_path", ""),
            source_created_at=fields.number_or("source_created_at", 0.0),
            source_modified_at=fields.number_or("source_modified_at", 0.0),
            size_bytes=fields.integer_or("size_bytes", 0),
            sha256=fields.text_or("sha256", "").lower(),
            current_host_name=fields.text_or("current_host_name", ""),
            current_host_url=fields.text_or("current_host_url", ""),
            current_path=fields.text_or("current_path", ""),
            status=fields.text_or("status", ARTIFACT_STATUS_REGISTERED),
            last_error=fields.text_or("last_error", ""),
        )


@dataclass(slots=True)
class PagletDirectoryRef(PagletFileRef):
    """One directory that is registered with a paglet.

    Its size is that of all files in it, its checksum that of the list of everything in it. On the wire it has `kind`
    beside the fields of a file.
    """

    @property
    def kind(self) -> str:
        """`directory`."""
        return KIND_DIRECTORY

    def to_wire(self) -> dict[str, Any]:
        """Return the fields as plain values, and the kind."""
        return {**PagletFileRef.to_wire(self), "kind": KIND_DIRECTORY}


@dataclass(frozen=True, slots=True)
class ArtifactWriteResult:
    """A new artifact and the file that holds it."""

    ref: ArtifactRef
    path: Path


@dataclass(frozen=True, slots=True)
class Content:
    """What a file or a directory holds."""

    size: int
    """Bytes, of a directory those of all files in it."""
    sha256: str
    """In lower-case hex, of a directory that of its list."""


def paglet_file_ref_from_path(
    path: str | Path,
    *,
    name: str | None,
    mode: str,
    host_name: str,
    host_url: str,
    directories: bool = False,
    content_of: Callable[[Path], Content] | None = None,
) -> PagletFileRef:
    """Describe an existing file as registered on this host, with its size, times and checksum.

    :param name: logical name; None takes the file name.
    :param directories: whether it may be a directory.
    :param content_of: returns what a path holds; it is read where this is None.
    :raises TransferError: `path` is no file, or something in the directory cannot travel; the name is empty, or the
        mode is neither copy nor move.
    """
    resolved = existing_path(path) if directories else existing_file(path)
    logical_name = resolved.name if name is None else name.strip()
    if not logical_name:
        raise TransferError(f"The name of a registered file must not be empty: {resolved}")
    checked_mode = _file_mode(mode)
    content = (content_of or read_content)(resolved)
    status = resolved.stat()
    # No birth time on most Linux file systems; the change time is the nearest to it that every system has.
    created_at = getattr(status, "st_birthtime", status.st_ctime)
    return (PagletDirectoryRef if resolved.is_dir() else PagletFileRef)(
        name=logical_name,
        mode=checked_mode,
        source_host_name=host_name,
        source_host_url=host_url,
        source_path=str(resolved),
        source_created_at=created_at,
        source_modified_at=status.st_mtime,
        size_bytes=content.size,
        sha256=content.sha256,
        current_host_name=host_name,
        current_host_url=host_url,
        current_path=str(resolved),
    )


def read_content(path: Path) -> Content:
    """Read a file or a directory and return what it holds.

    :raises TransferError: it cannot be read, changes meanwhile, or has something in it that cannot travel.
    """
    if path.is_dir():
        # Not in every process that knows of registered files.
        from paglets.artifacts.tree import scan

        tree = scan(path).tree()
        return Content(tree.content_bytes, tree.sha256())
    return Content(path.stat().st_size, file_sha256(path))


def registered_name(name_or_ref: str | PagletFileRef) -> str:
    """Return the name under which a file is registered, given that or its reference."""
    return name_or_ref if isinstance(name_or_ref, str) else name_or_ref.name


def registered_path(refs: Iterable[PagletFileRef], name_or_ref: str | PagletFileRef) -> Path:
    """Return where a registered file lies at present.

    :raises HostError: none of `refs` has the name.
    """
    name = registered_name(name_or_ref)
    for ref in refs:
        if ref.name == name:
            return Path(ref.current_path)
    raise HostError(f"no file is registered under the name {name!r}")


def _file_mode(mode: str) -> str:
    normalised = mode.strip().lower()
    if normalised not in (ARTIFACT_COPY, ARTIFACT_MOVE):
        raise TransferError(f"The mode of a registered file must be {ARTIFACT_COPY} or {ARTIFACT_MOVE}, not {mode!r}")
    return normalised
