"""The store of blobs: what it takes, what it gives, and what it never believes."""

from __future__ import annotations

import mmap
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from paglets.artifacts import blobs, placing
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.errors import (
    NoRoomError,
    NotStoredError,
    TooLargeError,
    UploadConflictError,
    WrongContentError,
)
from paglets.artifacts.hashing import THREAD_BYTES, Digest
from paglets.artifacts.known import Memory, Stamp
from paglets.artifacts.ledger import Entry
from paglets.artifacts.shelf import Shelf
from paglets.core.errors import TransferError
from tests.artifacts.contents import content_of, files, read, received, sha

KEY = "0123456789abcdef" * 2
HELLO = b"hello"


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store", clock=lambda: 1000.0)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


# receiving


@pytest.mark.parametrize("size", [0, 1, THREAD_BYTES - 1, THREAD_BYTES, THREAD_BYTES + 1, 9_000_001])
@pytest.mark.parametrize("announced", [True, False])
def test_what_is_received_is_what_is_read(store: BlobStore, size: int, announced: bool) -> None:
    content = content_of("a", size)
    with store.receive(size=size if announced else -1) as writer:
        for start in range(0, size, 300_007):
            assert writer.write(content[start : start + 300_007]) == len(content[start : start + 300_007])
        blob = writer.commit()
    assert (blob.sha256, blob.size, blob.durable) == (sha(content), size, True)
    assert read(store, blob.sha256) == content
    assert (store.has(blob.sha256), store.size(blob.sha256), store.used_bytes) == (True, size, size)
    assert files(store.root) == {f"blobs/{blob.sha256[:2]}/{blob.sha256}": size}


def test_a_buffer_may_be_used_again_as_soon_as_it_is_written(store: BlobStore) -> None:
    content = content_of("a", 3 * THREAD_BYTES)
    buffer = bytearray(1 << 20)
    with store.receive(size=len(content)) as writer:
        for start in range(0, len(content), len(buffer)):
            buffer[:] = content[start : start + len(buffer)]
            writer.write(memoryview(buffer) if start % 2 else buffer)
        buffer[:] = bytes(len(buffer))
        assert writer.commit().sha256 == sha(content)


def test_bytes_are_counted_whatever_kind_of_buffer_has_them(store: BlobStore) -> None:
    with store.receive() as writer:
        assert writer.write(memoryview(bytes(24)).cast("Q")) == 24
        assert writer.offset == 24
        assert writer.commit().size == 24


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"sha256": sha(b"other")}, WrongContentError),
        ({"size": 6}, WrongContentError),
        ({"size": 4}, WrongContentError),
        ({"limit": 4}, TooLargeError),
    ],
)
def test_nothing_stays_of_a_wrong_content(store: BlobStore, how: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error), store.receive(**how) as writer:  # type: ignore[arg-type]
        writer.write(HELLO)
        writer.commit()
    assert files(store.root) == {}
    assert not store.has(sha(HELLO))
    with pytest.raises(UploadConflictError):
        writer.write(b"more")


def test_an_error_in_the_block_leaves_nothing(store: BlobStore) -> None:
    with pytest.raises(RuntimeError), store.receive() as writer:
        writer.write(content_of("a", THREAD_BYTES * 2))
        raise RuntimeError
    assert files(store.root) == {}


def test_a_checksum_may_be_announced_in_upper_case(store: BlobStore) -> None:
    with store.receive(sha256=sha(HELLO).upper()) as writer:
        writer.write(HELLO)
        assert writer.commit().sha256 == sha(HELLO)
    assert store.has(sha(HELLO).upper())


@pytest.mark.parametrize("name", ["", "x" * 64, "../" + "a" * 61, "a" * 63, "a" * 65, "é" * 64, "a\0" * 32])
def test_hostile_checksums_are_refused(store: BlobStore, name: str, work: Path) -> None:
    for use in (store.has, store.size, store.open, store.path):
        with pytest.raises(TransferError, match="not a SHA-256"):
            use(name)
    with pytest.raises(TransferError):
        store.put_at(name, work / "x")
    with pytest.raises(TransferError):
        store.hold("t", [name], seconds=1)


@pytest.mark.parametrize("key", ["x" * 32, "a" * 31, "a" * 65, "../../../../../../../etc/passwd00"])
def test_hostile_keys_are_refused(store: BlobStore, key: str) -> None:
    with pytest.raises(TransferError, match="not a key"):
        store.receive(key=key)
    with pytest.raises(TransferError, match="not a key"):
        store.received(key)
    assert files(store.root) == {}


def test_two_receptions_of_one_content_give_one_blob(store: BlobStore) -> None:
    with store.receive() as one, store.receive() as two:
        one.write(HELLO)
        two.write(HELLO)
        assert not one.commit(durable=False).durable
        # Somebody needs it on disk now, and gets that.
        assert two.commit(durable=True).durable
    assert store.used_bytes == 5
    assert len(files(store.root)) == 1


# resuming


def test_a_broken_reception_goes_on_where_it_broke(store: BlobStore) -> None:
    content = content_of("a", THREAD_BYTES + 17)
    with pytest.raises(ConnectionError), store.receive(key=KEY, sha256=sha(content), size=len(content)) as writer:
        writer.write(content[:5_000_00])
        raise ConnectionError
    assert store.received(KEY.upper()) == 500_000
    assert not store.has(sha(content))
    for offset in (0, 499_999, 500_001):
        with pytest.raises(UploadConflictError, match="goes on at byte 500,000"):
            store.receive(key=KEY, sha256=sha(content), size=len(content), offset=offset)
    with pytest.raises(UploadConflictError, match="another content"):
        store.receive(key=KEY, sha256=sha(b"x"), size=len(content), offset=500_000)
    with pytest.raises(UploadConflictError, match="another content"):
        store.receive(key=KEY, sha256=sha(content), size=len(content), offset=500_000, label="other")
    with store.receive(key=KEY, sha256=sha(content), size=len(content), offset=500_000) as writer:
        writer.write(content[500_000:])
        writer.commit()
    assert read(store, sha(content)) == content
    assert store.received(KEY) == 0
    assert [name for name in files(store.root) if name.startswith("tmp")] == []


def test_a_short_reception_with_a_key_stays_and_a_wrong_one_goes(store: BlobStore) -> None:
    with pytest.raises(WrongContentError, match="3 of 5"), store.receive(key=KEY, size=5) as writer:
        writer.write(b"hel")
        writer.commit()
    assert store.received(KEY) == 3
    with pytest.raises(WrongContentError), store.receive(key=KEY, size=5, offset=3) as writer:
        writer.write(b"lo, world")
    assert store.received(KEY) == 0
    assert files(store.root) == {}


def test_a_key_has_one_writer_until_another_takes_over(store: BlobStore) -> None:
    first = store.receive(key=KEY, size=5)
    first.write(b"he")
    with pytest.raises(UploadConflictError, match="another connection"):
        store.receive(key=KEY, size=5, offset=2)
    second = store.receive(key=KEY, size=5, offset=2, take_over=True)
    with pytest.raises(UploadConflictError, match="continued by another connection"):
        first.write(b"xx")
    first.abort()
    second.write(b"llo")
    assert second.commit().sha256 == sha(HELLO)


def test_a_restart_keeps_what_an_announced_checksum_will_prove(store: BlobStore) -> None:
    other = "f" * 32
    for key, announced in ((KEY, sha(HELLO)), (other, "")):
        with store.receive(key=key, sha256=announced) as writer:
            writer.write(b"hel")
    assert (store.received(KEY), store.received(other)) == (3, 3)
    again = BlobStore(store.root)
    assert (again.received(KEY), again.received(other)) == (3, 0)
    assert [(part.key, part.received) for part in again.waiting()] == [(KEY, 3)]
    with again.receive(key=KEY, sha256=sha(HELLO), offset=3) as writer:
        writer.write(b"lo")
        writer.commit()
    assert read(again, sha(HELLO)) == HELLO


def test_a_torn_part_is_noticed_at_the_end(store: BlobStore) -> None:
    with store.receive(key=KEY, sha256=sha(HELLO)) as writer:
        writer.write(b"hel")
    (store.root / "tmp" / f"{KEY}.part").write_bytes(b"\0\0\0")
    again = BlobStore(store.root)
    with pytest.raises(WrongContentError), again.receive(key=KEY, sha256=sha(HELLO), offset=3) as writer:
        writer.write(b"lo")
        writer.commit()
    assert files(store.root) == {}


@pytest.mark.parametrize("note", [b"", b"{", b"[1, 2, 3]", b'["x", 5, ""]', b"null", b'["", 1.5, ""]', b"[" * 5000])
def test_a_damaged_note_costs_the_part(store: BlobStore, note: bytes) -> None:
    with store.receive(key=KEY, sha256=sha(HELLO)) as writer:
        writer.write(b"hel")
    (store.root / "tmp" / f"{KEY}.json").write_bytes(note)
    again = BlobStore(store.root)
    assert again.received(KEY) == 0
    assert files(store.root) == {}


def test_an_upload_can_be_given_up(store: BlobStore) -> None:
    writer = store.receive(key=KEY)
    writer.write(HELLO)
    store.forget(KEY)
    with pytest.raises(UploadConflictError):
        writer.write(HELLO)
    writer.abort()
    assert (store.received(KEY), files(store.root)) == (0, {})


# who wants what


def test_what_nobody_wants_goes_least_recently_used_first(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, cache_bytes=25)
    contents = [bytes([number]) * 10 for number in range(4)]
    for content in contents[:2]:
        received(store, content)
    assert read(store, sha(contents[0])) == contents[0]
    received(store, contents[2])
    assert [store.has(sha(content)) for content in contents] == [True, False, True, False]
    assert store.hold("t", map(sha, contents), seconds=10) == [sha(contents[1]), sha(contents[3])]
    assert (store.used_bytes, store.cached_bytes, store.held_bytes) == (20, 0, 20)
    for content in (contents[1], contents[3]):
        received(store, content)
    assert (store.used_bytes, store.cached_bytes) == (40, 0)
    store.release("t")
    assert (store.used_bytes, store.cached_bytes) == (20, 20)


def test_a_blob_larger_than_the_cache_stays_until_the_next(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, cache_bytes=0)
    received(store, b"one")
    assert store.has(sha(b"one"))
    received(store, b"two")
    assert not store.has(sha(b"one"))
    assert store.sweep(part_seconds=1) == blobs.Swept(0, 0, 1, 3)
    assert store.used_bytes == 0


def test_a_hold_ends_with_its_time_and_can_be_extended(tmp_path: Path) -> None:
    now = 0.0
    store = BlobStore(tmp_path, cache_bytes=0, clock=lambda: now)
    received(store, HELLO)
    store.hold("t", [sha(HELLO)], seconds=10)
    now = 9
    store.hold("t", [], seconds=10)
    assert store.sweep(now=18, part_seconds=1).holds == 0
    assert store.sweep(now=19, part_seconds=1) == blobs.Swept(0, 1, 1, 5)


def test_an_artifact_keeps_its_blob_until_the_last_one_drops_it(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, cache_bytes=0)
    received(store, HELLO)
    store.keep(sha(HELLO), "a")
    store.keep(sha(HELLO), "b")
    store.drop(sha(HELLO), "a")
    store.drop(sha(HELLO), "a")
    store.drop(sha(HELLO), "never")
    assert store.has(sha(HELLO))
    store.drop(sha(HELLO), "b")
    assert not store.has(sha(HELLO))
    with pytest.raises(NotStoredError):
        store.keep(sha(HELLO), "c")


def test_a_discarded_blob_goes_at_once_unless_somebody_wants_it(store: BlobStore) -> None:
    received(store, HELLO)
    store.keep(sha(HELLO), "a")
    store.hold("t", [sha(HELLO)], seconds=10)
    store.drop(sha(HELLO), "a", discard=True)
    assert store.has(sha(HELLO))
    store.release("t")
    store.drop(sha(HELLO), "a", discard=True)
    assert files(store.root) == {}


def test_holds_are_bounded(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paglets.artifacts.ledger.MOST_HOLDERS", 2)
    monkeypatch.setattr("paglets.artifacts.ledger.MOST_HELD", 1)
    store.hold("a", [sha(b"1")], seconds=1)
    with pytest.raises(NoRoomError, match="small files"):
        store.hold("a", [sha(b"2")], seconds=1)
    store.hold("b", [], seconds=1)
    with pytest.raises(NoRoomError, match="some have ended"):
        store.hold("c", [], seconds=1)
    store.release("b")
    store.hold("c", [], seconds=1)


def test_a_sweep_gives_up_what_nobody_resumes(store: BlobStore) -> None:
    with store.receive(key=KEY) as writer:
        writer.write(HELLO)
    part = store.root / "tmp" / f"{KEY}.part"
    os.utime(part, (500, 500))
    stray = store.root / "tmp" / "someone.part"
    stray.write_bytes(b"x")
    os.utime(stray, (500, 500))
    live = store.receive()
    os.utime(live.path, (500, 500))
    resumed = store.receive(key="a" * 32)
    os.utime(resumed.path, (500, 500))
    assert store.sweep(now=1000, part_seconds=501).parts == 0
    assert store.sweep(now=1000, part_seconds=500).parts == 2
    for writer in (live, resumed):
        writer.write(HELLO)
        writer.commit()
    assert store.received(KEY) == 0


# places


def test_a_blob_that_nobody_else_wants_is_moved(store: BlobStore, work: Path) -> None:
    received(store, HELLO)
    inode = store.path(sha(HELLO)).stat().st_ino
    store.put_at(sha(HELLO), work / "x", modified_at=1234567890.25, mode=0o640)
    status = (work / "x").stat()
    assert (status.st_ino, status.st_mtime, stat.S_IMODE(status.st_mode)) == (inode, 1234567890.25, 0o640)
    assert (work / "x").read_bytes() == HELLO
    assert (store.used_bytes, files(store.root)) == (0, {})
    # It still counts as here, and can be copied from there.
    assert store.has(sha(HELLO))
    assert store.path(sha(HELLO)) == work / "x"
    assert read(store, sha(HELLO)) == HELLO
    store.put_at(sha(HELLO), work / "y")
    assert (work / "y").read_bytes() == HELLO
    store.keep(sha(HELLO), "artifact")
    assert store.path(sha(HELLO)).is_relative_to(store.root)
    assert files(work) == {"x": 5, "y": 5}


@pytest.mark.parametrize("who", ["artifact", "two transfers", "another transfer"])
def test_a_blob_that_others_want_is_copied(store: BlobStore, work: Path, who: str) -> None:
    received(store, HELLO)
    if who == "artifact":
        store.keep(sha(HELLO), "a")
    else:
        store.hold("t1", [sha(HELLO)], seconds=10)
    if who == "two transfers":
        store.hold("t2", [sha(HELLO)], seconds=10)
    store.put_at(sha(HELLO), work / "x", holder="t2" if who == "another transfer" else "")
    (work / "x").write_bytes(b"HELLO")
    assert store.path(sha(HELLO)).is_relative_to(store.root)
    assert read(store, sha(HELLO)) == HELLO
    assert list(files(work)) == ["x"]


def test_the_only_transfer_that_holds_a_blob_may_have_it(store: BlobStore, work: Path) -> None:
    received(store, HELLO)
    store.hold("t", [sha(HELLO)], seconds=10)
    store.put_at(sha(HELLO), work / "x", holder="t")
    assert store.used_bytes == 0


def test_nothing_is_overwritten(store: BlobStore, work: Path) -> None:
    received(store, HELLO)
    (work / "file").write_bytes(b"mine")
    (work / "directory").mkdir()
    (work / "link").symlink_to(work / "nowhere")
    for keeper in ("", "artifact"):
        if keeper:
            store.keep(sha(HELLO), keeper)
        for name in ("file", "directory", "link"):
            with pytest.raises(TransferError, match="not overwritten"):
                store.put_at(sha(HELLO), work / name)
    assert (work / "file").read_bytes() == b"mine"
    assert not (work / "nowhere").exists()
    assert sorted(entry.name for entry in work.iterdir()) == ["directory", "file", "link"]
    assert read(store, sha(HELLO)) == HELLO


def test_a_missing_directory_is_an_error_and_costs_nothing(store: BlobStore, tmp_path: Path) -> None:
    received(store, HELLO)
    with pytest.raises(TransferError, match="cannot be put at"):
        store.put_at(sha(HELLO), tmp_path / "no" / "such" / "x")
    assert read(store, sha(HELLO)) == HELLO
    assert store.used_bytes == 5


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_an_impossible_time_is_refused(store: BlobStore, work: Path, time: float) -> None:
    received(store, HELLO)
    with pytest.raises(TransferError, match="no time of modification"):
        store.put_at(sha(HELLO), work / "x", modified_at=time)
    assert files(work) == {}


@pytest.mark.parametrize("kept", [True, False])
def test_another_file_system_gets_a_copy(store: BlobStore, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == store.root.stat().st_dev:
        pytest.skip("no second file system here")
    received(store, HELLO)
    if kept:
        store.keep(sha(HELLO), "a")
    target = shared / f"paglets-{os.getpid()}-{kept}"
    try:
        store.put_at(sha(HELLO), target)
        assert target.read_bytes() == HELLO
        assert store.path(sha(HELLO)).is_relative_to(store.root)
        assert read(store, sha(HELLO)) == HELLO
        assert not store.take(target, sha(HELLO))
        assert target.read_bytes() == HELLO
    finally:
        target.unlink()


@pytest.mark.parametrize(
    "missing", [(), ("_share",), ("_share", "_copy_in_kernel")], ids=["all", "no sharing", "bytes only"]
)
def test_a_copy_is_the_same_however_it_is_made(
    store: BlobStore, work: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    for name in missing:
        monkeypatch.setattr(placing, name, lambda *_: False)
    content = content_of("a", 9_000_003)
    received(store, content)
    store.keep(sha(content), "a")
    store.put_at(sha(content), work / "x")
    assert (work / "x").read_bytes() == content


def test_a_file_that_was_written_to_is_no_longer_that_blob(store: BlobStore, work: Path) -> None:
    received(store, HELLO)
    store.put_at(sha(HELLO), work / "x", modified_at=1e9)
    with (work / "x").open("r+b") as stream:
        stream.write(b"J")
    assert not store.has(sha(HELLO))
    assert store.known(work / "x") is None
    with pytest.raises(NotStoredError):
        store.open(sha(HELLO))
    with pytest.raises(NotStoredError):
        store.put_at(sha(HELLO), work / "y")
    assert not store.take(work / "x", sha(HELLO))
    assert (work / "x").read_bytes() == b"Jello"
    assert files(work) == {"x": 5}


def test_a_write_in_the_very_moment_after_putting_is_noticed(store: BlobStore, work: Path) -> None:
    for number in range(50):
        content = bytes([number])
        received(store, content, durable=False)
        store.put_at(sha(content), work / str(number), durable=False)
        with (work / str(number)).open("r+b") as stream:
            stream.write(b"\xff")
        assert not store.has(sha(content))


def test_an_unchanged_file_goes_back_by_a_rename(store: BlobStore, work: Path) -> None:
    received(store, HELLO)
    store.put_at(sha(HELLO), work / "x", modified_at=1e9)
    inode = (work / "x").stat().st_ino
    assert store.take(work / "x", sha(HELLO))
    assert files(work) == {}
    assert store.path(sha(HELLO)).stat().st_ino == inode
    assert (store.used_bytes, store.cached_bytes) == (5, 5)
    # Its bytes were on disk before it was put, and still are.
    assert stat.S_IMODE(store.path(sha(HELLO)).stat().st_mode) == 0o400
    assert not store.take(work / "x", sha(HELLO))


def test_a_second_copy_goes_when_the_store_has_the_blob(store: BlobStore, work: Path) -> None:
    received(store, HELLO)
    store.keep(sha(HELLO), "a")
    store.put_at(sha(HELLO), work / "x")
    assert store.take(work / "x", sha(HELLO))
    assert files(work) == {}
    assert (store.used_bytes, len(files(store.root))) == (5, 1)


def test_what_somebody_can_still_change_is_not_taken(store: BlobStore, work: Path) -> None:
    received(store, HELLO)
    store.put_at(sha(HELLO), work / "x")
    with (work / "x").open("r+b") as stream:
        assert not store.take(work / "x", sha(HELLO))
        stream.write(b"J")
    assert (work / "x").read_bytes() == b"Jello"
    received(store, HELLO)
    store.put_at(sha(HELLO), work / "y", modified_at=1e9)
    os.link(work / "y", work / "z")
    store.remember(work / "y", sha(HELLO), (work / "y").stat())
    assert not store.take(work / "y", sha(HELLO))
    assert (work / "y").read_bytes() == HELLO
    assert files(store.root) == {}


def test_what_is_mapped_for_writing_is_not_taken(store: BlobStore, work: Path) -> None:
    received(store, HELLO)
    store.put_at(sha(HELLO), work / "x")
    with (work / "x").open("r+b") as stream:
        mapped = mmap.mmap(stream.fileno(), 5)
    with mapped:
        assert not store.take(work / "x", sha(HELLO))
    assert (work / "x").read_bytes() == HELLO


def test_a_link_in_the_place_of_a_file_is_not_taken(store: BlobStore, work: Path) -> None:
    received(store, HELLO)
    store.put_at(sha(HELLO), work / "x")
    (work / "x").rename(work / "moved")
    (work / "x").symlink_to(work / "moved")
    assert not store.take(work / "x", sha(HELLO))
    assert not store.has(sha(HELLO))
    assert (work / "x").is_symlink()


def test_a_file_of_another_content_is_not_taken(store: BlobStore, work: Path) -> None:
    received(store, HELLO)
    store.put_at(sha(HELLO), work / "x")
    assert not store.take(work / "x", sha(b"other"))
    assert not store.take(work / "unknown", sha(HELLO))
    assert store.known(work / "x") == sha(HELLO)


def test_a_blob_that_changes_while_it_is_copied_is_copied_again(
    store: BlobStore, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received(store, HELLO)
    store.put_at(sha(HELLO), work / "x", modified_at=1e9)
    store.put_at(sha(HELLO), work / "y", modified_at=1e9)
    changed = iter([work / "x", work / "y"])
    copy = placing.copy_content

    def copy_and_change(source: int, target: int, size: int) -> None:
        copy(source, target, size)
        next(changed).write_bytes(b"other")

    monkeypatch.setattr("paglets.artifacts.places.copy_content", copy_and_change)
    with pytest.raises(NotStoredError):
        store.put_at(sha(HELLO), work / "z")
    assert sorted(files(work)) == ["x", "y"]


# what a file contains


def test_an_unchanged_file_is_hashed_once(store: BlobStore, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = work / "x"
    path.write_bytes(HELLO)
    os.utime(path, (1e9, 1e9))
    assert store.identify(path)[0] == sha(HELLO)
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", lambda *_: pytest.fail("hashed again"))
        assert store.identify(path)[0] == sha(HELLO)
        assert store.known(path) == sha(HELLO)
        assert store.has(sha(HELLO))
    path.write_bytes(b"other")
    assert store.known(path) is None
    assert store.identify(path)[0] == sha(b"other")


def test_a_file_that_was_just_written_is_not_remembered(store: BlobStore, work: Path) -> None:
    path = work / "x"
    path.write_bytes(HELLO)
    now = path.stat().st_mtime
    os.utime(path, (now + 3600, now + 3600))
    os.utime(path)
    assert store.identify(path)[0] == sha(HELLO)
    assert store.known(path) is None
    store.remember(path, sha(HELLO), path.stat())
    assert store.known(path) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells who has a file open")
def test_a_file_that_somebody_may_change_through_a_mapping_is_not_remembered(store: BlobStore, work: Path) -> None:
    path = work / "x"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 4096) as mapped:
        mapped[0] = 1
        os.utime(path, (1e9, 1e9))
        assert store.identify(path)[0] == sha(b"\1" + bytes(4095))
        # The page is dirty already, so this changes no time of the file.
        mapped[1] = 1
        assert path.stat().st_mtime == 1e9
        assert store.identify(path)[0] == sha(b"\1\1" + bytes(4094))


def test_no_file_is_identified_where_there_is_none(store: BlobStore, work: Path) -> None:
    os.mkfifo(work / "pipe")
    (work / "file").write_bytes(HELLO)
    (work / "link").symlink_to(work / "file")
    for name in ("absent", "pipe", ".", "link"):
        with pytest.raises(TransferError):
            store.identify(work / name)


def test_memory_is_bounded(tmp_path: Path) -> None:
    memory = Memory(most=3)
    for number in range(5):
        path = tmp_path / str(number)
        path.write_bytes(HELLO)
        memory.remember(path, sha(HELLO), Stamp.of(path.stat()))
        assert memory.get(tmp_path / "0") is not None or number > 2
    assert len(memory) == 3
    assert len(memory.places(sha(HELLO))) == 3


def test_a_time_of_whole_seconds_settles_later() -> None:
    fine = Stamp(1, 1, 1, 5_000_000_001, 5_000_000_001)
    coarse = Stamp(1, 1, 1, 5_000_000_000, 5_000_000_000)
    assert [fine.settled(at) for at in (5_000_000_001, 5_040_000_000, 5_060_000_000)] == [False, False, True]
    assert [coarse.settled(at) for at in (5_060_000_000, 6_900_000_000, 7_100_000_000)] == [False, False, True]


# damage


def test_a_blob_removed_by_hand_is_gone(store: BlobStore) -> None:
    received(store, HELLO)
    store.path(sha(HELLO)).unlink()
    assert not store.has(sha(HELLO))
    assert store.used_bytes == 0
    assert "its file was removed" in store.problems[0]
    received(store, HELLO)
    assert read(store, sha(HELLO)) == HELLO


@pytest.mark.parametrize("damage", [b"", b"hell", b"hello!", b"jello"])
@pytest.mark.parametrize("restart", [True, False])
def test_a_damaged_blob_is_never_served(store: BlobStore, damage: bytes, restart: bool) -> None:
    received(store, HELLO, durable=False)
    store.keep(sha(HELLO), "a")
    store.path(sha(HELLO)).write_bytes(damage)
    if restart:
        store = BlobStore(store.root)
    with pytest.raises(NotStoredError):
        store.open(sha(HELLO))
    assert not store.has(sha(HELLO))
    assert "not those of its checksum" in store.problems[0]
    assert (store.used_bytes, files(store.root)) == (0, {})


def test_a_blob_that_was_only_touched_is_hashed_and_stays(store: BlobStore) -> None:
    received(store, HELLO)
    store.path(sha(HELLO)).touch()
    assert store.has(sha(HELLO))
    assert not store.problems


def test_only_a_synced_blob_is_believed_at_a_restart(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    received(store, HELLO)
    received(store, b"unsynced", durable=False)
    hashed: list[str] = []
    checked = Shelf._checked
    monkeypatch.setattr(Shelf, "_checked", lambda self, name: (hashed.append(name), checked(self, name))[1])
    again = BlobStore(store.root)
    for _ in range(2):
        assert again.has(sha(HELLO))
        assert again.has(sha(b"unsynced"))
    assert hashed == [sha(b"unsynced")]


def test_a_blob_of_an_artifact_is_synced_later(store: BlobStore) -> None:
    received(store, HELLO, durable=False)
    received(store, b"cache", durable=False)
    store.keep(sha(HELLO), "a")
    assert store.settle(most_bytes=100, most=10) == []
    modes = [stat.S_IMODE(store.path(sha(content)).stat().st_mode) for content in (HELLO, b"cache")]
    assert modes == [0o400, 0o600]
    received(store, b"broken", durable=False)
    store.keep(sha(b"broken"), "b")
    store.path(sha(b"broken")).write_bytes(b"damage")
    assert store.settle(most_bytes=100, most=10) == [sha(b"broken")]


def test_what_is_no_blob_is_left_alone(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    received(store, HELLO)
    shelf = tmp_path / "blobs" / "ab"
    shelf.mkdir()
    (shelf / "notes.txt").write_bytes(b"x")
    (shelf / ("ab" + "z" * 62)).write_bytes(b"x")
    (shelf / sha(b"elsewhere")).write_bytes(b"elsewhere")
    (shelf / ("ab" + "0" * 62)).symlink_to("/etc/passwd")
    (shelf / ("ab" + "1" * 62)).mkdir()
    again = BlobStore(tmp_path)
    assert again.used_bytes == 5
    assert not again.has("ab" + "0" * 62)
    assert not again.has(sha(b"elsewhere"))
    assert len(again.problems) == 5
    assert len(list(shelf.iterdir())) == 5


def test_a_directory_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TransferError, match="cannot be opened"):
        BlobStore(tmp_path / "file")


# a full disk

FULL = """
import resource, sys
from pathlib import Path
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.errors import NoRoomError

store = BlobStore(Path(sys.argv[1]))
with store.receive() as writer:
    writer.write(bytes(3_000_000))
    kept = writer.commit(durable=False)
store.keep(kept.sha256, "a")
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

def tries(key, size):
    try:
        with store.receive(key=key, size=size) as writer:
            for _ in range(50):
                writer.write(b"x" * 100_000)
            writer.commit()
    except NoRoomError as error:
        assert "free some space" in str(error), error
        return
    raise AssertionError("no error")

for key in ("", "ab" * 16):
    for size in (-1, 5_000_000):
        tries(key, size)
        assert store.received("ab" * 16) == 0
try:
    store.put_at(kept.sha256, Path(sys.argv[2]))
    raise AssertionError("no error")
except NoRoomError:
    pass
found = [p for p in Path(sys.argv[1]).rglob("*") if p.is_file()]
assert found == [store.path(kept.sha256)], found
assert not any(Path(sys.argv[2]).parent.iterdir())
"""


def test_a_write_that_the_disk_refuses_leaves_nothing(tmp_path: Path, work: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "store"), str(work / "x")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


SMALL_DISK = """
import subprocess, sys
from pathlib import Path
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", sys.argv[1]], check=True)
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.errors import NoRoomError

root = Path(sys.argv[1])
store = BlobStore(root)

def send(letter, size, announced=-1):
    with store.receive(size=announced) as writer:
        for start in range(0, size, 65536):
            writer.write(letter * min(65536, size - start))
        return writer.commit().sha256

MB = 1024 * 1024
held = send(b"a", MB)
store.keep(held, "a")
send(b"b", MB)
send(b"c", MB)
# Room for it comes from the cache: all of b and c, but not of a.
assert store.has(send(b"d", 2 * MB + MB // 2))
assert store.has(held) and store.used_bytes <= 4 * MB
for announced in (-1, 4 * MB):
    try:
        send(b"e", 4 * MB, announced)
        raise AssertionError("no error")
    except NoRoomError:
        pass
assert store.has(held)
assert not any((root / "tmp").iterdir())
# A copy evicts as well; d was evicted by e.
store.keep(send(b"f", MB), "f")
send(b"g", MB + MB // 2)
store.put_at(held, root / "copy")
assert (root / "copy").stat().st_size == MB
print("done")
"""


def test_a_full_disk_takes_the_room_of_the_cache(tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no private mounts here")
    done = subprocess.run(
        [*command, sys.executable, "-c", SMALL_DISK, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "done\n")


def test_a_content_that_cannot_fit_is_refused_before_its_first_byte(store: BlobStore) -> None:
    with pytest.raises(NoRoomError, match="room for"):
        store.receive(size=1 << 60)
    assert files(store.root) == {}


# hashing


def test_a_digest_is_the_same_on_its_thread() -> None:
    content = content_of("a", THREAD_BYTES + 5)
    for size in (-1, len(content)):
        with Digest(size) as digest:
            for start in range(0, len(content), 1 << 18):
                digest.update(content[start : start + (1 << 18)])
        assert digest.hexdigest() == sha(content)
        digest.close()


def test_one_of_several_places_is_enough(store: BlobStore, work: Path) -> None:
    received(store, HELLO)
    for name in "abc":
        store.put_at(sha(HELLO), work / name)
    for name in "ab":
        (work / name).unlink()
        assert read(store, sha(HELLO)) == HELLO
    (work / "c").unlink()
    assert not store.has(sha(HELLO))


# what happens in between


def test_a_file_that_changes_just_before_it_is_taken_stays(
    store: BlobStore, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received(store, HELLO)
    store.put_at(sha(HELLO), work / "x", modified_at=1e9)
    remembered = Memory.get

    def then_change(memory: Memory, path: Path) -> object:
        found = remembered(memory, path)
        (work / "x").write_bytes(b"jello")
        return found

    monkeypatch.setattr(Memory, "get", then_change)
    assert not store.take(work / "x", sha(HELLO))
    assert (work / "x").read_bytes() == b"jello"
    assert files(store.root) == {}


def test_a_blob_that_is_wanted_while_it_is_synced_stays(
    store: BlobStore, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received(store, HELLO, durable=False)
    synced = Shelf.make_durable

    def then_keep(shelf: Shelf, entry: Entry) -> None:
        synced(shelf, entry)
        store.keep(sha(HELLO), "a")

    monkeypatch.setattr(Shelf, "make_durable", then_keep)
    store.put_at(sha(HELLO), work / "x")
    assert store.path(sha(HELLO)).is_relative_to(store.root)
    assert (work / "x").read_bytes() == HELLO


def test_a_blob_that_is_replaced_while_it_is_opened_is_looked_at_again(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    received(store, HELLO)
    usable, times = Shelf.usable, iter(range(10))

    def then_replace(shelf: Shelf, name: str) -> Entry | None:
        found = usable(shelf, name)
        if not next(times):
            shelf.file(name).chmod(0o600)
            shelf.file(name).write_bytes(b"jello")
        return found

    monkeypatch.setattr(Shelf, "usable", then_replace)
    with pytest.raises(NotStoredError):
        store.open(sha(HELLO))
    assert files(store.root) == {}
