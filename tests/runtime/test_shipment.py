"""What of registered files travels inside a move, what ahead of it, and what is noticed about them."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paglets.artifacts import PagletFileRef, paglet_file_ref_from_path
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.errors import FileChangedError
from paglets.artifacts.tree.manifest import FORMAT
from paglets.core.errors import SerializationError, TransferError
from paglets.runtime import shipment
from paglets.runtime.files import FileDesk
from paglets.runtime.receiving import Load, SmallSink
from paglets.runtime.shipment import LargeList, LargePack, look, mark_of, ship
from paglets.runtime.unloading import Destination, Unloader
from tests.artifacts.test_tree import contents_of, sample

MEGABYTE = 1024 * 1024
HERE = Destination("paglet", "beta", "http://beta")


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


@pytest.fixture
def desk(tmp_path: Path, store: BlobStore) -> FileDesk:
    return FileDesk(tmp_path / "host", store, lambda work: work())


def registered(path: Path, name: str | None = None, mode: str = "copy") -> PagletFileRef:
    return paglet_file_ref_from_path(
        path, name=name, mode=mode, host_name="alpha", host_url="http://alpha", directories=True
    )


def written(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(1024) * (size // 1024) + b"x" * (size % 1024))
    return path


def kinds(made: shipment.Shipment) -> list[str]:
    return sorted(type(large).__name__ for large in made.large.values())


# --- what goes how -----------------------------------------------------------------------------------------------


def test_small_files_travel_inside_until_there_is_no_room(tmp_path: Path, store: BlobStore) -> None:
    refs = [registered(written(tmp_path / "own" / f"{number}", 3 * MEGABYTE)) for number in range(7)]
    made = ship(refs, store)
    assert [len(content) for content in made.small.values()] == [3 * MEGABYTE] * 5
    assert kinds(made) == ["LargeFile"] * 2
    assert (made.count, made.nbytes) == (7, 21 * MEGABYTE)
    assert [item["file"]["sha256"] for item in made.manifest] == [*made.small, *made.large]
    assert sum(part.nbytes for part in made.parts) == 15 * MEGABYTE
    assert made.to_wire()["large"] == [[large.sha256, 3 * MEGABYTE] for large in made.large.values()]


def test_contents_are_sent_once(tmp_path: Path, store: BlobStore) -> None:
    small, big = written(tmp_path / "own" / "small", 10), written(tmp_path / "own" / "big", 5 * MEGABYTE)
    made = ship([registered(path, name) for path in (small, big) for name in ("a", "b")], store)
    assert (len(made.small), len(made.large), made.count) == (1, 1, 4)


def test_a_directory_is_its_list_its_packs_and_its_large_files(tmp_path: Path, store: BlobStore) -> None:
    root = sample(tmp_path / "root")
    made = ship([registered(root)], store)
    assert (len(made.small), made.large) == (2, {}), "the list and one small pack"
    written(root / "large", 5 * MEGABYTE)
    for number in range(3):
        written(root / f"middle{number}", 3 * MEGABYTE)
    made = ship([registered(root)], store)
    assert (len(made.small), kinds(made)) == (1, ["LargeFile", "LargePack"])
    pack = next(large for large in made.large.values() if isinstance(large, LargePack))
    packed = pack.file(store, "somebody").read_bytes()
    assert hashlib.sha256(packed).hexdigest() == pack.sha256
    assert store.held_bytes == pack.size
    assert pack.file(store, "somebody") == store.path(pack.sha256)
    assert made.nbytes == pack.size + 5 * MEGABYTE


def test_a_long_list_travels_ahead(tmp_path: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipment, "SMALL_BYTES", 100)
    made = ship([registered(sample(tmp_path / "root"))], store)
    assert kinds(made) == ["LargeList", "LargePack"]
    listed = next(large for large in made.large.values() if isinstance(large, LargeList))
    listed.ensure_unchanged()
    assert listed.file(store, "somebody").read_bytes() == listed.content


def test_too_many_files_are_refused(tmp_path: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipment, "MAX_CONTENTS", 3)
    refs = [registered(written(tmp_path / "own" / str(number), number)) for number in range(4)]
    ship(refs[:3], store)
    with pytest.raises(TransferError, match="at most 3 files"):
        ship(refs, store)


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "own" / "large", 5 * MEGABYTE)
    root = tmp_path / "own" / "root"
    inside = written(root / "inside", 5 * MEGABYTE)
    for old in (path, inside):
        os.utime(old, (time.time() - 100, time.time() - 100))
    refs = [registered(path), registered(root)]
    first = ship(refs, store)

    def never(*_: Any) -> None:
        raise AssertionError("it is read again")

    monkeypatch.setattr("paglets.artifacts.places.hashlib.file_digest", never)
    assert ship(refs, store).manifest == first.manifest
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[::-1])
    assert ship(refs, store).manifest[0] != first.manifest[0]


# --- what changes ------------------------------------------------------------------------------------------------


class Restless:
    """An open file that is written to each time it is read, as often as it is told."""

    changes = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("rb", buffering=0)

    def __enter__(self) -> Restless:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def fileno(self) -> int:
        return self._stream.fileno()

    def read(self, count: int) -> bytes:
        content = self._stream.read(count)
        if Restless.changes:
            Restless.changes -= 1
            with self._path.open("ab") as writer:
                writer.write(b"more")
        return content


def test_what_changes_while_it_is_read_is_read_again(
    tmp_path: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "own" / "file", 10)
    ref = registered(path)
    monkeypatch.setattr(shipment, "open_plain", Restless)
    Restless.changes = 2
    assert ship([ref], store).nbytes == 18
    Restless.changes = 3
    with pytest.raises(TransferError, match="registered file 'file' changes while it is sent") as caught:
        ship([ref], store)
    assert type(caught.value) is TransferError, "others know it by this name"


def test_large_contents_know_whether_they_are_as_they_were(tmp_path: Path, store: BlobStore) -> None:
    root = tmp_path / "root"
    written(root / "large", 5 * MEGABYTE)
    for number in range(3):
        written(root / f"middle{number}", 3 * MEGABYTE)
    made = ship([registered(root)], store)
    for large in made.large.values():
        large.ensure_unchanged()
    (root / "middle1").touch()
    (root / "large").unlink()
    for large in made.large.values():
        with pytest.raises(FileChangedError):
            large.ensure_unchanged()
        with pytest.raises(FileChangedError):
            large.file(store, "somebody")
    assert not list((tmp_path / "store" / "tmp").iterdir())


def test_a_mark_is_that_of_what_was_sent(tmp_path: Path, store: BlobStore) -> None:
    small, big = written(tmp_path / "own" / "small", 10), written(tmp_path / "own" / "big", 5 * MEGABYTE)
    root = sample(tmp_path / "own" / "root")
    refs = [registered(path) for path in (small, big, root)]
    marks = ship(refs, store).marks
    assert {ref.name: mark_of(Path(ref.current_path), ref.kind) for ref in refs} == marks
    small.touch()
    big.chmod(0o640)
    (root / "deep" / "new").touch()
    for ref in refs:
        assert mark_of(Path(ref.current_path), ref.kind) != marks[ref.name]


def test_what_is_missing_is_said_by_its_name(tmp_path: Path, store: BlobStore) -> None:
    path, root = written(tmp_path / "own" / "file", 10), sample(tmp_path / "own" / "root")
    refs = [registered(path, "a file"), registered(root, "a directory")]
    assert look(refs).count == 2
    path.rename(tmp_path / "away")
    root.rename(path)
    path.with_name("root").touch()
    for ref in refs:
        for check in (lambda ref=ref: ship([ref], store), lambda ref=ref: look([ref])):
            with pytest.raises(TransferError, match=f"registered file '{ref.name}' is missing"):
                check()
    unreadable = PagletFileRef("a pipe", current_path=str(tmp_path / "pipe"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TransferError, match="'a pipe' is missing"):
        ship([unreadable], store)


# --- what arrives ------------------------------------------------------------------------------------------------


def arrived(made: shipment.Shipment) -> tuple[list[PagletFileRef], Load]:
    """Return what the target has of a shipment whose large contents were brought."""
    refs = [PagletFileRef.from_wire(item["file"]) for item in made.manifest]
    load = Load.from_wire(made.to_wire(), refs)
    for content, sink in zip(made.small.values(), load.small.values(), strict=True):
        sink.write(memoryview(content))
        sink.finish()
    load.verify()
    return refs, load


def test_everything_arrives_in_the_work_directory(tmp_path: Path, store: BlobStore, desk: FileDesk) -> None:
    root = sample(tmp_path / "own" / "root")
    written(root / "large", 5 * MEGABYTE)
    for number in range(3):
        written(root / f"middle{number}", 3 * MEGABYTE)
    big, small = written(tmp_path / "own" / "big", 5 * MEGABYTE), written(tmp_path / "own" / "small", 10)
    there = BlobStore(tmp_path / "there")
    unloader = Unloader(FileDesk(tmp_path / "beta", there, lambda work: work()), there)
    made = ship([registered(path) for path in (root, big, small)], store)
    refs, load = arrived(made)
    assert unloader.missing(load, "transfer", 60.0) == [(sha256, 0) for sha256 in made.large]
    for large in made.large.values():
        shipment.receive_into(there, iter([large.file(store, "s").read_bytes()]), large.sha256, large.size)
    assert unloader.missing(load, "transfer", 60.0) == []
    filled = unloader.unload(HERE, refs, load, "transfer")
    work = tmp_path / "beta" / "work" / "paglet"
    assert {name: ref.current_path for name, ref in filled.items()} == {
        name: str(work / name) for name in ("root", "big", "small")
    }
    before = contents_of(root)
    assert contents_of(work / "root") == before
    assert (work / "big").read_bytes() == big.read_bytes()
    assert (work / "small").read_bytes() == small.read_bytes()
    for name in ("big", "root/large"):
        assert there.known(work / name) in made.large, "so that it need not be hashed when it leaves"
    unloader.undo("paglet")
    assert not work.exists()
    assert unloader.missing(load, "transfer", 60.0) == [], "nothing has to be brought again"
    assert contents_of(root) == before


def forged(entries: list[Any], digests: list[bytes]) -> bytes:
    return msgspec.msgpack.encode([FORMAT, 0o700, 0, entries, digests])


def sink(content: bytes) -> tuple[str, SmallSink]:
    made = SmallSink(len(content))
    made.write(memoryview(content))
    made.finish()
    return hashlib.sha256(content).hexdigest(), made


@pytest.mark.parametrize(
    ("entries", "size"),
    [
        ([[b"../escaped", 1, 0o600, 0, 4, b""]], 4),
        ([[b"out", 2, 0o777, 0, 0, b"../../.."], [b"out/escaped", 1, 0o600, 0, 4, b""]], 4),
        ([[b"file", 1, 0o600, 0, 4, b""]], 5),
        ([[b"file", 1, 0o600, 0, 5, b""]], 5),
        ([[b"file", 1, 0o600, 0, 3, b""]], 3),
    ],
    ids=["up", "through a link", "other size", "too short", "too long"],
)
def test_a_hostile_directory_leaves_nothing(
    tmp_path: Path, store: BlobStore, desk: FileDesk, entries: list[Any], size: int
) -> None:
    content = sink(b"evil")
    listed = sink(forged(entries, [bytes.fromhex(content[0])]))
    honest = sink(b"honest")
    refs = [
        PagletFileRef("honest", size_bytes=6, sha256=honest[0]),
        PagletFileRef.from_wire({"name": "tree", "kind": "directory", "size_bytes": size, "sha256": listed[0]}),
    ]
    with pytest.raises(TransferError, match="Could not import registered files of paglet paglet"):
        Unloader(desk, store).unload(HERE, refs, Load(dict([content, listed, honest])), "transfer")
    assert {path.name for path in (tmp_path / "host").rglob("*")} <= {"removed", "work"}
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("modified_at", [float("inf"), float("nan"), 1e300])
def test_a_hostile_time_leaves_nothing(tmp_path: Path, store: BlobStore, desk: FileDesk, modified_at: float) -> None:
    honest = sink(b"honest")
    refs = [PagletFileRef("honest", size_bytes=6, sha256=honest[0], source_modified_at=modified_at)]
    with pytest.raises(TransferError, match="Could not import"):
        Unloader(desk, store).unload(HERE, refs, Load(dict([honest])), "transfer")
    assert {path.name for path in (tmp_path / "host").rglob("*")} <= {"removed", "work"}


def test_contents_of_another_length_are_refused() -> None:
    made = SmallSink(3)
    with pytest.raises(SerializationError, match="longer"):
        made.write(memoryview(b"four"))
    made = SmallSink(3)
    made.write(memoryview(b"ab"))
    with pytest.raises(SerializationError, match="shorter"):
        made.finish()


# --- what is removed ---------------------------------------------------------------------------------------------


def test_what_is_removed_is_gone_at_once_and_deleted_later(tmp_path: Path, store: BlobStore) -> None:
    waiting: list[Any] = []
    desk = FileDesk(tmp_path / "host", store, waiting.append)
    sample(desk.make_work_dir("paglet") / "tree")
    desk.remove_work_dir("paglet")
    assert not desk.work_dir("paglet").exists()
    assert len(list((tmp_path / "host" / "removed").iterdir())) == 1
    desk.close()
    waiting.pop()()
    (left,) = (tmp_path / "host" / "removed").iterdir()
    assert any(path.is_file() for path in left.rglob("*")), "the host stops: nobody waits for this"
    again = FileDesk(tmp_path / "host", store, lambda work: work())
    again.make_work_dir("unknown")
    again.make_work_dir("known")
    again.clear(["known"])
    assert list((tmp_path / "host" / "removed").iterdir()) == []
    assert [path.name for path in (tmp_path / "host" / "work").iterdir()] == ["known"]
