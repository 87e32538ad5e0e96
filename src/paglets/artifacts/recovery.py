"""What a directory of artifacts holds at start: what can be trusted, what an older layout left, and what is lost."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from paglets.artifacts.blobs import Blob, BlobStore
from paglets.artifacts.catalogue import Catalogue
from paglets.artifacts.depot import Depot
from paglets.artifacts.errors import NotStoredError
from paglets.artifacts.parts import is_sha256
from paglets.artifacts.refs import ArtifactRef
from paglets.core.errors import TransferError

_OLD_NAME: Final = re.compile(r"([0-9a-f]+)\.bin", re.ASCII)


def recovered(
    root: Path, catalogue: Catalogue, blobs: BlobStore, depot: Depot | None = None
) -> Iterator[tuple[ArtifactRef, str]]:
    """Give every artifact whose metadata and content are here, its content kept; drop and report the others.

    With it comes where else the content is. An artifact whose content is elsewhere is never dropped.
    """
    old = dict(_old_layout(root, blobs))
    for ref, place in catalogue.read():
        if place and is_sha256(ref.sha256):
            yield ref, _elsewhere(ref, place, blobs, depot)
            continue
        blob = old.pop(ref.artifact_id, None)
        try:
            yield (_known(ref, blobs) if blob is None else _imported(ref, blob, catalogue, blobs)), ""
        except TransferError as error:
            blobs.problems.append(f"artifact {ref.artifact_id} ({ref.name!r}) is dropped: {error}")
            catalogue.forget_file(ref.artifact_id)
    for artifact_id, blob in old.items():
        blobs.problems.append(f"content of the unknown artifact {artifact_id} is only kept in the cache")
        blobs.drop(blob.sha256, artifact_id)


def _elsewhere(ref: ArtifactRef, place: str, blobs: BlobStore, depot: Depot | None) -> str:
    if depot is not None and depot.location == place:
        depot.restore(ref.sha256)
        return place
    try:
        _known(ref, blobs)
    except TransferError:
        blobs.problems.append(f"the content of artifact {ref.artifact_id} ({ref.name!r}) is in {place}, not used now")
        return place
    # It is in the cache by luck, and kept from now on.
    return ""


def _known(ref: ArtifactRef, blobs: BlobStore) -> ArtifactRef:
    size = blobs.claim(ref.sha256, ref.artifact_id)
    if size != ref.size_bytes:
        blobs.doubt(ref.sha256)
        blobs.drop(ref.sha256, ref.artifact_id)
        raise NotStoredError(f"its content has {size:,} bytes, not {ref.size_bytes:,}")
    return ref


def _imported(ref: ArtifactRef, blob: Blob, catalogue: Catalogue, blobs: BlobStore) -> ArtifactRef:
    """Return the reference of an artifact whose content lay under its id and is a blob now."""
    if (ref.sha256 or blob.sha256, ref.size_bytes) != (blob.sha256, blob.size):
        blobs.drop(blob.sha256, ref.artifact_id)
        raise NotStoredError(f"its content is {blob.size:,} bytes with checksum {blob.sha256}, which is another one")
    if not ref.sha256:
        ref = replace(ref, sha256=blob.sha256)
        catalogue.write_file(ref)
    return ref


def _old_layout(root: Path, blobs: BlobStore) -> Iterator[tuple[str, Blob]]:
    """Make blobs of the files `blobs/<artifact id>.bin`, and give each with its id."""
    for file in list(os.scandir(root / "blobs")):
        match = _OLD_NAME.fullmatch(file.name)
        if match is None or not file.is_file(follow_symlinks=False):
            continue
        with suppress(NotStoredError):
            yield match[1], blobs.adopt(Path(file.path), match[1])
