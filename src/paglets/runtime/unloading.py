"""Put the files of an arriving paglet into its work directory: all of them on disk, or none. Blocks on the disk."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from paglets.artifacts import ARTIFACT_STATUS_AVAILABLE, KIND_DIRECTORY, PagletFileRef, unique_target_names
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.errors import FileChangedError
from paglets.artifacts.known import Stamp
from paglets.artifacts.placing import copy_content, write_all
from paglets.artifacts.shelf import open_plain
from paglets.artifacts.tree import Entry, Tree, duplicate, scan, unpack
from paglets.artifacts.tree.manifest import MAX_MANIFEST_BYTES
from paglets.core.errors import PagletError, TransferError
from paglets.persistence.atomic import fsync_directory
from paglets.protocol.transfer.model import TransferKind
from paglets.runtime.carriage import Carriage
from paglets.runtime.files import FileDesk
from paglets.runtime.kernel import Kernel
from paglets.runtime.receiving import Incoming, Load
from paglets.runtime.shipment import HOLD_SECONDS, MOST_CHANGES

#: Less than this is hashed on the loop; a change of threads would take longer.
_HASHED_AT_ONCE_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 1024 * 1024
_NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Destination:
    """Whose files are put in place, and what their references say of this host."""

    agent_id: str
    host_name: str
    host_url: str

    def ref(self, ref: PagletFileRef, path: Path) -> PagletFileRef:
        """Return a reference to a file that is here now."""
        return replace(
            ref,
            current_host_name=self.host_name,
            current_host_url=self.host_url,
            current_path=str(path),
            status=ARTIFACT_STATUS_AVAILABLE,
            last_error="",
        )


class Unloader:
    """Put files in place at this host.

    :param files: knows the work directories.
    :param store: has the large contents.
    """

    def __init__(self, files: FileDesk, store: BlobStore) -> None:
        self._files = files
        self._store = store

    def missing(self, load: Load, holder: str, seconds: float) -> list[tuple[str, int]]:
        """Hold the large contents of a movement; return those that are not here, and how much of each is."""
        missing = self._store.hold(holder, load.large, seconds=seconds)
        return [(sha256, self._store.received(sha256)) for sha256 in missing]

    def unload(
        self, to: Destination, refs: Sequence[PagletFileRef], load: Load, holder: str
    ) -> dict[str, PagletFileRef]:
        """Put everything that came with a paglet into its work directory, under safe, unique names, and on disk.

        :param holder: for whom large contents are held.
        :raises TransferError: something cannot be put in place; nothing of it is left.
        """
        return self._fill(to, refs, lambda: _Contents(self._store, load, holder, refs).put)

    def copy(self, to: Destination, refs: Sequence[PagletFileRef]) -> dict[str, PagletFileRef]:
        """Copy the files of a paglet of this host for its clone here, and have them on disk.

        :raises TransferError: something cannot be copied; nothing of it is left.
        """
        return self._fill(to, refs, lambda: _copy)

    def undo(self, agent_id: str) -> None:
        """Take back what was put in place for a paglet that did not come after all."""
        self._files.clear_work_dir(agent_id)

    def _fill(
        self, to: Destination, refs: Sequence[PagletFileRef], ready: Callable[[], Callable[[PagletFileRef, Path], None]]
    ) -> dict[str, PagletFileRef]:
        """Fill a work directory.

        :param ready: returns what puts one file in place.
        """
        filled: dict[str, PagletFileRef] = {}
        try:
            put = ready()
            directory = self._files.make_work_dir(to.agent_id)
            for ref, name in zip(refs, unique_target_names([ref.name for ref in refs]), strict=True):
                put(ref, directory / name)
                filled[ref.name] = to.ref(ref, directory / name)
            fsync_directory(directory)
            fsync_directory(directory.parent)
        except (PagletError, OSError, ValueError, OverflowError) as exc:
            self.undo(to.agent_id)
            raise TransferError(f"Could not import registered files of paglet {to.agent_id}: {exc}") from exc
        return filled


class _Contents:
    """The contents that came with one paglet, small ones in memory and large ones in the store.

    :param refs: everything that is going to be put in place.
    """

    def __init__(self, store: BlobStore, load: Load, holder: str, refs: Sequence[PagletFileRef]) -> None:
        self._store = store
        self._load = load
        self._holder = holder
        self._trees = {ref.sha256: self._tree(ref) for ref in refs if ref.kind == KIND_DIRECTORY}
        # How often each content is still needed; the last time it need not be copied.
        self._uses = Counter(ref.sha256 for ref in refs if ref.kind != KIND_DIRECTORY)
        for ref in refs:
            if ref.kind == KIND_DIRECTORY:
                self._uses.update(self._trees[ref.sha256].digests)

    def put(self, ref: PagletFileRef, target: Path) -> None:
        """Put one registered file or directory at a path that nothing has."""
        if ref.kind == KIND_DIRECTORY:
            self._put_directory(ref, target)
        elif ref.sha256 in self._load.large:
            self._place(ref.sha256, target, modified_at=ref.source_modified_at)
        else:
            content = self._small(ref.sha256, ref.name)
            with _created(target) as descriptor:
                write_all(descriptor, content)
                if ref.source_modified_at:
                    os.utime(target, (ref.source_modified_at, ref.source_modified_at))
                os.fsync(descriptor)

    def _put_directory(self, ref: PagletFileRef, target: Path) -> None:
        tree = self._trees[ref.sha256]
        began = time.time()
        placed: list[tuple[Entry, str]] = []

        def contents(number: int) -> Iterator[bytes]:
            digest = tree.digests[number]
            self._uses[digest] -= 1
            if digest in self._load.large:
                return self._pieces(digest)
            return iter([self._small(digest, ref.name)])

        def place(number: int, path: Path) -> bool:
            digest = tree.digests[number]
            if digest not in self._load.large:
                return False
            self._place(digest, path)
            placed.append((tree.entries[tree.chunks[number].members[0]], digest))
            return True

        unpack(tree, contents, target, place=place)
        for entry, digest in placed:
            # Anew, because the file had another name and another time when the store put it there.
            path = target / os.fsdecode(entry.path)
            self._store.remember(path, digest, path.lstat(), read_at=began)

    def _place(self, sha256: str, path: Path, modified_at: float = 0.0) -> None:
        """Have a content of the store at a path, by a copy as long as it is needed in the store as well."""
        self._uses[sha256] -= 1
        holder = self._holder if self._uses[sha256] <= 0 else ""
        self._store.put_at(sha256, path, modified_at=modified_at, holder=holder)

    def _tree(self, ref: PagletFileRef) -> Tree:
        in_store = ref.sha256 in self._load.large
        tree = Tree.from_bytes(self._read(ref.sha256) if in_store else self._small(ref.sha256, ref.name))
        if tree.content_bytes != ref.size_bytes:
            raise TransferError(f"registered file {ref.name!r} arrived with another size than announced")
        return tree

    def _small(self, sha256: str, name: str) -> bytes:
        """Return a content that came inside PREPARE, verified already."""
        if sha256 not in self._load.small:
            raise TransferError(f"registered file {name!r} comes without its content")
        return self._load.small[sha256].content

    def _read(self, sha256: str) -> bytes:
        if self._load.large[sha256] > MAX_MANIFEST_BYTES:
            raise TransferError(f"the list of a directory may have {MAX_MANIFEST_BYTES} bytes")
        return b"".join(self._pieces(sha256))

    def _pieces(self, sha256: str) -> Iterator[bytes]:
        """Read a content of the store, and see that it is that content to the end."""
        with self._store.open(sha256) as stream:
            before = Stamp.of(os.fstat(stream.fileno()))
            while piece := stream.read(_PIECE_BYTES):
                yield piece
            if Stamp.of(os.fstat(stream.fileno())) != before:
                raise TransferError(f"content {sha256} changed while it was read; send it again")


def _copy(ref: PagletFileRef, target: Path) -> None:
    source = Path(ref.current_path).resolve()
    for attempt in range(1, MOST_CHANGES + 1):
        try:
            if ref.kind == KIND_DIRECTORY:
                duplicate(scan(source), _copy_content, target)
            else:
                _copy_file(source, target)
        except FileChangedError as exc:
            if attempt == MOST_CHANGES:
                raise TransferError(f"registered file {ref.name!r} changes while it is copied: {exc}") from exc
        else:
            return


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file with its time and permissions, and have it on disk."""
    try:
        status = _copy_content(source, target)
        with _opened(target) as descriptor:
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
            target.chmod(stat.S_IMODE(status.st_mode) & 0o777)
            os.fsync(descriptor)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _copy_content(source: Path, target: Path) -> os.stat_result:
    """Make a new file with the content of another, sharing it where the disk can, and return the state of that."""
    with open_plain(source) as stream, _created(target) as descriptor:
        status = os.fstat(stream.fileno())
        copy_content(stream.fileno(), descriptor, status.st_size)
        if Stamp.of(os.fstat(stream.fileno())) != Stamp.of(status):
            raise FileChangedError(f"{source} changed while it was copied")
    return status


@contextmanager
def _created(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _NEW_FILE, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class UnloadingDesk:
    """Put the files of arriving paglets in place, beside the host's loop."""

    def __init__(self, kernel: Kernel, carriage: Carriage, files: FileDesk) -> None:
        self._kernel = kernel
        self._carriage = carriage
        self._unloader = Unloader(files, carriage.store)

    async def verify(self, incoming: Incoming) -> None:
        """Compare what came inside PREPARE with its checksums.

        :raises TransferError: something differs.
        """
        if incoming.load.small_bytes <= _HASHED_AT_ONCE_BYTES:
            incoming.load.verify()
        else:
            await self._carriage.threads.look(incoming.load.verify)

    async def missing(self, incoming: Incoming) -> list[tuple[str, int]]:
        """Hold the large contents of a movement, and return those that are not here."""
        return await self._carriage.threads.carry(self._unloader.missing, incoming.load, incoming.holder, HOLD_SECONDS)

    async def unload(self, incoming: Incoming) -> dict[str, PagletFileRef]:
        """Put the files of a movement into the work directory of its paglet, and have them on disk.

        :raises TransferError: that is not possible; nothing of them is left.
        """
        kernel, plan = self._kernel, incoming.plan
        to = Destination(plan.agent_id, kernel.config.name, kernel.address())
        if plan.kind is TransferKind.CLONE and kernel.address.is_own(plan.source) and not incoming.load:
            return await self._carriage.threads.carry(self._unloader.copy, to, incoming.refs)
        return await self._carriage.threads.carry(
            self._unloader.unload, to, incoming.refs, incoming.load, incoming.holder
        )

    async def undo(self, agent_id: str) -> None:
        """Take back what was put in place for a paglet that did not come after all."""
        await self._carriage.threads.carry(self._unloader.undo, agent_id)

    def release(self, incoming: Incoming) -> None:
        """Hold the contents of a movement no longer."""
        self._carriage.release(incoming.holder)
