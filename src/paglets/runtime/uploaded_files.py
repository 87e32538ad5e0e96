"""The registered files of a paglet that comes as one document: artifacts of this host, uploaded for it before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from paglets.artifacts import KIND_FILE, ArtifactRef, PagletFileRef
from paglets.artifacts.store import ArtifactStore
from paglets.core.errors import PagletError, SerializationError, TransferError
from paglets.persistence.envelope import PagletEnvelope
from paglets.runtime.artifact_desk import served
from paglets.runtime.receiving import Load, manifest_of
from paglets.runtime.shipment import MAX_CONTENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_TEXT: Final = 200


@dataclass(frozen=True, slots=True)
class UploadedFiles:
    """What an envelope lists, each file with the artifact of this host that has its content."""

    agent_id: str
    refs: Sequence[PagletFileRef] = ()
    artifact_ids: Sequence[str] = ()
    """Each of them once."""

    @classmethod
    def of(cls, envelope: PagletEnvelope, store: ArtifactStore) -> UploadedFiles:
        """Find the artifacts that an envelope names, and see that they are for its paglet and what it says.

        :raises SerializationError: its list of files is malformed.
        :raises TransferError: a file has no artifact here, or another paglet's, or one with another content.
        """
        manifest = manifest_of(envelope)
        if len(manifest) > MAX_CONTENTS:
            raise SerializationError(f"an envelope lists at most {MAX_CONTENTS:,} registered files")
        agent_id = envelope.agent_id
        refs: dict[str, PagletFileRef] = {}
        artifact_ids: dict[str, None] = {}
        for item in manifest:
            ref, artifact = _parsed(item)
            with _import_of(agent_id):
                if ref.name in refs:
                    raise TransferError(f"the file {ref.name[:_MOST_TEXT]!r} is listed twice")
                refs[ref.name] = _found(ref, artifact, agent_id, store)
            artifact_ids[artifact.artifact_id] = None
        return cls(agent_id, [*refs.values()], [*artifact_ids])

    @property
    def nbytes(self) -> int:
        """Bytes of all files together."""
        return sum(ref.size_bytes for ref in self.refs)

    @property
    def load(self) -> Load:
        """The contents, which are in this host's store; an artifact keeps each of them there until it is deleted."""
        return Load(large={ref.sha256: ref.size_bytes for ref in self.refs})

    def fetch(self, store: ArtifactStore) -> None:
        """Have every content on the disk of this host. Blocks on that, and where need be on storage elsewhere.

        :raises TransferError: one of them is not to be had.
        """
        with _import_of(self.agent_id):
            for artifact_id in self.artifact_ids:
                store.blob_path(artifact_id)

    def delete(self, store: ArtifactStore) -> list[str]:
        """Delete the artifacts, whose contents the paglet has now; return why some of them stay. Blocks on the disk."""
        problems = []
        for artifact_id in self.artifact_ids:
            try:
                store.delete(artifact_id)
            except PagletError as exc:
                problems.append(f"artifact {artifact_id}, of which paglet {self.agent_id} has a file, stays: {exc}")
        return problems


def _parsed(item: dict[str, Any]) -> tuple[PagletFileRef, ArtifactRef]:
    try:
        ref = PagletFileRef.from_wire(item["file"])
        artifact = item.get("artifact")
        if not isinstance(artifact, dict):
            raise SerializationError(
                f"registered file {ref.name[:_MOST_TEXT]!r} comes without an artifact; upload it to this host first"
            )
        return ref, ArtifactRef.from_wire(artifact)
    except KeyError as exc:
        raise SerializationError(f"malformed list of registered files: {exc} is missing") from None


def _found(ref: PagletFileRef, artifact: ArtifactRef, agent_id: str, store: ArtifactStore) -> PagletFileRef:
    """Return the reference to a file with the size and checksum of its artifact, as that is here."""
    if ref.kind != KIND_FILE:
        raise TransferError(f"{ref.name[:_MOST_TEXT]!r} is a directory, which an envelope does not carry; dispatch it")
    here = served(store, artifact.artifact_id)
    if here.owner_agent_id != agent_id:
        # What the paglet does not own is neither to be read through it nor to be deleted.
        raise TransferError(
            f"artifact {here.artifact_id} is not the paglet's; upload it with owner_agent_id={agent_id!r}"
        )
    if {ref.sha256, artifact.sha256} - {"", here.sha256}:
        raise TransferError(f"artifact {here.artifact_id} has checksum {here.sha256}, not the one that is listed")
    return replace(ref, size_bytes=here.size_bytes, sha256=here.sha256)


@contextmanager
def _import_of(agent_id: str) -> Iterator[None]:
    try:
        yield
    except PagletError as exc:
        raise TransferError(f"Could not import registered files of paglet {agent_id}: {exc}") from exc
