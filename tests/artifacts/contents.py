"""Contents, and a look at the directories of a store, for tests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from paglets.artifacts.blobs import Blob, BlobStore


def sha(content: bytes) -> str:
    """Return the checksum of a content."""
    return hashlib.sha256(content).hexdigest()


def content_of(seed: str, size: int) -> bytes:
    """Return bytes that only this seed gives."""
    return hashlib.shake_128(seed.encode()).digest(size)


def received(store: BlobStore, content: bytes, *, durable: bool = True) -> Blob:
    """Send a content to a store."""
    with store.receive(sha256=sha(content), size=len(content), durable=durable) as writer:
        writer.write(content)
        return writer.commit(durable=durable)


def read(store: BlobStore, sha256: str) -> bytes:
    """Return a content of a store."""
    with store.open(sha256) as stream:
        return stream.read()


def files(root: Path) -> dict[str, int]:
    """Return the files below the root of a store with their sizes."""
    return {str(path.relative_to(root)): path.lstat().st_size for path in root.rglob("*") if not path.is_dir()}
