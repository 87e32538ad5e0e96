"""Files that hosts store, name, verify and carry along with paglets."""

from __future__ import annotations

import hashlib
import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from paglets.core.errors import HostError, TransferError
from paglets.core.wire_fields import WireFields
from paglets.persistence.atomic import make_directories, replacing
from paglets.persistence.directory import is_device_name

ARTIFACT_COPY: Final = "copy"
ARTIFACT_MOVE: Final = "move"
ARTIFACT_STATUS_REGISTERED: Final = "registered"
ARTIFACT_STATUS_AVAILABLE: Final = "available"
ARTIFACT_STATUS_FAILED: Final = "failed"
DEFAULT_ARTIFACT_MAX_BYTES: Final = 1024**3
DEFAULT_ARTIFACT_STORAGE_QUOTA_BYTES: Final = 10 * 1024**3
DEFAULT_ARTIFACT_SPOOL_TTL_SECONDS: Final = 24 * 60 * 60
STREAM_CHUNK_BYTES: Final = 1024 * 1024

_MAX_TARGET_NAME_BYTES = 200
_MAX_SUFFIX_BYTES = 32


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

    def to_wire(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, payload: dict[str, Any]) -> PagletFileRef:
        """Restore a reference; missing keys give the defaults.

        :raises KeyError: there is no `name`.
        :raises TransferError: the mode is neither copy nor move.
        :raises SerializationError: a field has the wrong type.
        """
        fields = WireFields(payload, "registered file")
        if fields.get("name") is None:
            raise KeyError("name")
        return cls(
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


@dataclass(frozen=True, slots=True)
class ArtifactWriteResult:
    """A new artifact and the file that holds it."""

    ref: ArtifactRef
    path: Path


def paglet_file_ref_from_path(
    path: str | Path, *, name: str | None, mode: str, host_name: str, host_url: str
) -> PagletFileRef:
    """Describe an existing file as registered on this host, with its size, times and checksum.

    :param name: logical name; None takes the file name.
    :raises TransferError: `path` is no file, the name is empty, or the mode is neither copy nor move.
    """
    resolved = _existing_file(path)
    logical_name = resolved.name if name is None else name.strip()
    if not logical_name:
        raise TransferError(f"The name of a registered file must not be empty: {resolved}")
    checked_mode = _file_mode(mode)
    status = resolved.stat()
    # No birth time on most Linux file systems; the change time is the nearest to it that every system has.
    created_at = getattr(status, "st_birthtime", status.st_ctime)
    return PagletFileRef(
        name=logical_name,
        mode=checked_mode,
        source_host_name=host_name,
        source_host_url=host_url,
        source_path=str(resolved),
        source_created_at=created_at,
        source_modified_at=status.st_mtime,
        size_bytes=status.st_size,
        sha256=file_sha256(resolved),
        current_host_name=host_name,
        current_host_url=host_url,
        current_path=str(resolved),
    )


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


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in lower-case hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def safe_target_filename(name: str) -> str:
    """Return a file name for a logical name that every operating system accepts, of at most 200 bytes.

    Characters other than letters, digits and `._-` become `_`; `.` and `_` are stripped at both ends; nothing gives
    `artifact`; a device name such as `NUL` gets the prefix `_`.
    """
    safe = "".join(character if character.isalnum() or character in "._-" else "_" for character in name)
    safe = safe.strip("._") or "artifact"
    return _shortened(f"_{safe}" if is_device_name(safe) else safe)


def unique_target_names(names: Sequence[str]) -> list[str]:
    """Return one file name per logical name, all different also where upper and lower case are the same.

    Names that would meet get `-2`, `-3`, … before their extension, in the given order; a later name never changes the
    target of an earlier one.
    """
    taken: set[str] = set()
    targets: list[str] = []
    for name in names:
        safe = safe_target_filename(name)
        target, number = safe, 1
        while _file_key(target) in taken:
            number += 1
            target = _shortened(safe, marker=f"-{number}")
        taken.add(_file_key(target))
        targets.append(target)
    return targets


def copy_stream(source: Any, target: Any, *, expected_bytes: int | None = None) -> tuple[int, str]:
    """Copy a binary stream in chunks and return the number of bytes with their SHA-256 in lower-case hex.

    :raises TransferError: the source holds fewer or more bytes than expected; it is not read further than to find out.
    """
    digest = hashlib.sha256()
    count = 0
    while chunk := source.read(STREAM_CHUNK_BYTES):
        count += len(chunk)
        if expected_bytes is not None and count > expected_bytes:
            raise TransferError(f"Received more than the expected {expected_bytes} bytes")
        digest.update(chunk)
        target.write(chunk)
    if expected_bytes is not None and count != expected_bytes:
        raise TransferError(f"Received {count} of the expected {expected_bytes} bytes")
    return count, digest.hexdigest()


def copy_path(source: str | Path, target: str | Path) -> None:
    """Copy a file durably; the target, whose parents are created, is the old or the complete new file at any time.

    :raises TransferError: the source is no file.
    """
    origin = _existing_file(source)
    destination = Path(target).expanduser().absolute()
    make_directories(destination.parent)
    with origin.open("rb") as reader, replacing(destination) as writer:
        shutil.copyfileobj(reader, writer, STREAM_CHUNK_BYTES)


def _existing_file(path: str | Path) -> Path:
    resolved = Path(path).expanduser().resolve()
    if not resolved.is_file():
        raise TransferError(f"Not a file: {resolved}")
    return resolved


def _file_mode(mode: str) -> str:
    normalised = mode.strip().lower()
    if normalised not in (ARTIFACT_COPY, ARTIFACT_MOVE):
        raise TransferError(f"The mode of a registered file must be {ARTIFACT_COPY} or {ARTIFACT_MOVE}, not {mode!r}")
    return normalised


def _file_key(name: str) -> str:
    # File systems that fold case usually fold the Unicode composition as well.
    return unicodedata.normalize("NFC", name).casefold()


def _shortened(name: str, *, marker: str = "") -> str:
    stem, suffix = _split_suffix(name)
    room = _MAX_TARGET_NAME_BYTES - len((marker + suffix).encode())
    if len(stem.encode()) > room:
        stem = stem.encode()[:room].decode(errors="ignore").rstrip("._")
    return f"{stem}{marker}{suffix}"


def _split_suffix(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    suffix = dot + extension
    return (stem, suffix) if stem and len(suffix.encode()) <= _MAX_SUFFIX_BYTES else (name, "")
