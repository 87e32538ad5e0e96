from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from paglets.core import errors
from paglets.persistence import atomic
from paglets.persistence.storage import (
    DEFAULT_PERSISTENT_STORAGE_QUOTA_BYTES,
    ManagedStorage,
    StorageQuotaError,
    StorageStatus,
)

WRITER = """
import sys
from paglets.persistence.storage import ManagedStorage, StorageQuotaError
root, name, quota = sys.argv[1], sys.argv[2], int(sys.argv[3])
storage = ManagedStorage(root, quota_bytes=quota)
print("ready", flush=True)
sys.stdin.readline()
refused = 0
for number in range(40):
    try:
        storage.write_bytes(f"{name}/{number % 7}", bytes(number % 90))
    except StorageQuotaError:
        refused += 1
    used = storage.status().used_bytes
    assert used <= quota, used
    if number % 11 == 10:
        storage.delete(f"{name}/{number % 7}")
print(refused, flush=True)
"""

HOLDER = """
import sys
from pathlib import Path
from paglets.persistence.filelock import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def storage(tmp_path: Path) -> ManagedStorage:
    return ManagedStorage(tmp_path / "root", quota_bytes=100)


def test_names() -> None:
    assert StorageQuotaError is errors.StorageQuotaError
    assert DEFAULT_PERSISTENT_STORAGE_QUOTA_BYTES == 10 * 1024 * 1024


def test_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ManagedStorage("~/x").root == tmp_path / "x"
    assert ManagedStorage("~/x").quota_bytes == DEFAULT_PERSISTENT_STORAGE_QUOTA_BYTES
    assert ManagedStorage(tmp_path, quota_bytes=-5).quota_bytes == 0
    assert ManagedStorage(tmp_path, quota_bytes=None).quota_bytes is None
    monkeypatch.chdir(tmp_path)
    assert ManagedStorage("x").root == tmp_path / "x"
    assert list(tmp_path.iterdir()) == []


def test_write_and_read(storage: ManagedStorage) -> None:
    written = storage.write_bytes("a/b/data.bin", b"123")
    assert written == storage.root / "a" / "b" / "data.bin"
    assert storage.read_bytes("a/b/data.bin") == storage.read_bytes(Path("a/b") / "data.bin") == b"123"
    assert storage.write_text("note", "grün").read_bytes() == "grün".encode()
    storage.write_text("note", "grün", encoding="latin-1")
    assert storage.read_bytes(written) == b"123"
    assert storage.read_bytes("note") == b"gr\xfcn"


def test_reading_what_is_not_there(storage: ManagedStorage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("absent")


def test_status(storage: ManagedStorage) -> None:
    assert storage.status() == StorageStatus(str(storage.root), 0, 100, 100)
    storage.write_bytes("a", bytes(30))
    storage.write_bytes("b/c", bytes(20))
    assert storage.status() == StorageStatus(str(storage.root), 50, 100, 50)
    assert ManagedStorage(storage.root, quota_bytes=None).status() == StorageStatus(str(storage.root), 50, None, None)
    assert ManagedStorage(storage.root, quota_bytes=10).status().available_bytes == 0


def test_the_quota_counts_all_files(storage: ManagedStorage) -> None:
    storage.write_bytes("a", bytes(60))
    with pytest.raises(StorageQuotaError, match="100 bytes"):
        storage.write_bytes("b", bytes(41))
    assert not (storage.root / "b").exists()
    storage.write_bytes("b", bytes(40))
    assert storage.status().available_bytes == 0


def test_an_overwritten_file_gives_its_size_back_first(storage: ManagedStorage) -> None:
    storage.write_bytes("a", b"x" * 90)
    storage.write_bytes("a", b"y" * 95)
    with pytest.raises(StorageQuotaError):
        storage.write_bytes("a", b"z" * 101)
    assert storage.read_bytes("a") == b"y" * 95


def test_a_refused_write_creates_no_directories(storage: ManagedStorage) -> None:
    with pytest.raises(StorageQuotaError):
        storage.write_bytes("new/dir/file", bytes(101))
    assert not storage.root.exists()


def test_without_quota_everything_fits(tmp_path: Path) -> None:
    storage = ManagedStorage(tmp_path / "root", quota_bytes=None)
    storage.write_bytes("a", bytes(1000))
    with pytest.raises(StorageQuotaError):
        ManagedStorage(storage.root, quota_bytes=0).write_bytes("b", b"")


def test_delete(storage: ManagedStorage) -> None:
    storage.delete("absent")
    assert not storage.root.exists()
    storage.write_bytes("a/b/c", b"1")
    storage.write_bytes("a/d", b"2")
    storage.delete("a/d")
    storage.delete("a/d")
    storage.delete("no/such/dir")
    assert storage.read_bytes("a/b/c") == b"1"
    storage.delete("a")
    assert list(storage.root.iterdir()) == []


def test_clear(storage: ManagedStorage) -> None:
    storage.clear()
    storage.write_bytes("a/b", b"1")
    storage.write_bytes("c", b"2")
    storage.clear()
    assert list(storage.root.iterdir()) == []
    assert storage.status().used_bytes == 0


def test_the_lock_is_no_file_of_the_storage(storage: ManagedStorage) -> None:
    storage.write_bytes("a", b"1")
    assert [path.name for path in storage.root.iterdir()] == ["a"]
    assert [path.name for path in storage.root.parent.glob(".*")] == [".root.lock"]


OUTSIDE = ["../x", "..", "a/../../x", "/etc/passwd", "", ".", "a/..", "x\0y", "/"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_outside_are_refused(storage: ManagedStorage, path: str) -> None:
    storage.write_bytes("keep", b"1")
    attempts: list[Callable[[], object]] = [
        lambda: storage.read_bytes(path),
        lambda: storage.write_bytes(path, b"evil"),
        lambda: storage.write_text(Path(path) if "\0" not in path else path, "evil"),
        lambda: storage.delete(path),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match="Storage path"):
            attempt()
    assert [found.name for found in storage.root.iterdir()] == ["keep"]
    with pytest.raises(ValueError, match="Storage path"):
        ManagedStorage(storage.root / "absent").delete(path)


def test_symbolic_links_do_not_lead_outside(storage: ManagedStorage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    storage.write_bytes("inside/file", b"1")
    (storage.root / "dir").symlink_to(outside)
    (storage.root / "file").symlink_to(outside / "secret")
    for path in ("dir/secret", "file", "dir/new", "dir"):
        with pytest.raises(ValueError, match="below the storage root"):
            storage.write_bytes(path, b"evil")
        with pytest.raises(ValueError, match="below the storage root"):
            storage.read_bytes(path)
    with pytest.raises(ValueError, match="below the storage root"):
        storage.delete("dir/secret")
    storage.delete("dir")
    storage.delete("file")
    assert (outside / "secret").read_bytes() == b"secret"
    assert [path.name for path in storage.root.iterdir()] == ["inside"]


def test_clear_and_status_do_not_follow_links(storage: ManagedStorage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "big").write_bytes(bytes(1000))
    storage.write_bytes("a", b"1")
    (storage.root / "dir").symlink_to(outside)
    (storage.root / "file").symlink_to(outside / "big")
    assert storage.status().used_bytes == 1
    storage.clear()
    assert (outside / "big").exists()


def test_a_link_inside_is_followed(storage: ManagedStorage) -> None:
    storage.write_bytes("real", b"1")
    (storage.root / "link").symlink_to("real")
    storage.write_bytes("link", b"22")
    assert (storage.root / "link").is_symlink()
    assert storage.read_bytes("real") == b"22"


def test_links_in_a_circle(storage: ManagedStorage) -> None:
    storage.write_bytes("a", b"1")
    (storage.root / "one").symlink_to("two")
    (storage.root / "two").symlink_to("one")
    with pytest.raises((ValueError, OSError)):
        storage.read_bytes("one")
    storage.clear()


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    storage = ManagedStorage(tmp_path / "root", quota_bytes=10)
    storage.write_bytes("a", bytes(8))
    storage.write_bytes("a", bytes(9))
    with pytest.raises(StorageQuotaError):
        storage.write_bytes("b", bytes(2))


# crashes


def test_a_failed_write_leaves_the_old_content(storage: ManagedStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes("a", b"old")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            storage.write_bytes("a", b"new")
    assert storage.read_bytes("a") == b"old"
    assert [path.name for path in storage.root.iterdir()] == ["a"]


def test_everything_is_on_disk_before_a_write_returns(storage: ManagedStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().suffix or 'directory'}")
        fsync(descriptor)

    def recorded_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    storage.write_bytes("first", b"1")
    monkeypatch.setattr(atomic.os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    storage.write_bytes("second", b"2")
    assert steps == ["fsync .part", "rename", "fsync directory"]


def test_what_a_killed_writer_left_does_not_count_and_goes(storage: ManagedStorage) -> None:
    storage.write_bytes("dir/a", bytes(50))
    left = storage.root / "dir" / ".paglets-0123456789abcdef.part"
    left.write_bytes(bytes(90))
    assert storage.status().used_bytes == 50
    with pytest.raises(ValueError, match="reserved"):
        storage.read_bytes("dir/.paglets-0123456789abcdef.part")
    storage.write_bytes("b", bytes(50))
    assert not left.exists()


# sharing


def test_writers_in_several_processes_never_exceed_the_quota(tmp_path: Path) -> None:
    root = tmp_path / "root"
    quota = 500
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root), name, str(quota)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two", "three")
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        refused = [int(writer.communicate(timeout=60)[0]) for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert sum(refused) > 0
    assert ManagedStorage(root, quota_bytes=quota).status().used_bytes <= quota
    assert not [path for path in root.rglob("*") if path.name.endswith(".part")]


def test_a_write_waits_for_the_lock(storage: ManagedStorage) -> None:
    storage.root.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(storage.root.with_name(".root.lock"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        writer = threading.Thread(target=storage.write_bytes, args=("a", b"1"))
        writer.start()
        writer.join(0.05)
        assert writer.is_alive()
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        writer.join(10)
        assert not writer.is_alive()
    assert storage.read_bytes("a") == b"1"


def test_threads_share_the_quota(storage: ManagedStorage) -> None:
    def write(name: str) -> None:
        for number in range(10):
            try:
                storage.write_bytes(f"{name}{number}", bytes(9))
            except StorageQuotaError:
                return

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert storage.status().used_bytes == 99


class StorageMachine(RuleBasedStateMachine):
    """The storage against a dict with a sum."""

    @initialize()
    def open(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.storage = ManagedStorage(Path(self.directory.name) / "root", quota_bytes=20)
        self.model: dict[str, bytes] = {}

    @rule(path=st.sampled_from(["a", "d/a", "d/b"]), data=st.binary(max_size=15))
    def write(self, path: str, data: bytes) -> None:
        total = sum(len(old) for name, old in self.model.items() if name != path) + len(data)
        if total > 20:
            with pytest.raises(StorageQuotaError):
                self.storage.write_bytes(path, data)
        else:
            self.storage.write_bytes(path, data)
            self.model[path] = data

    @rule(path=st.sampled_from(["a", "d/a", "d"]))
    def delete(self, path: str) -> None:
        self.storage.delete(path)
        self.model = {
            name: data for name, data in self.model.items() if name != path and not name.startswith(f"{path}/")
        }

    @rule()
    def clear(self) -> None:
        self.storage.clear()
        self.model = {}

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "storage"):
            return
        assert self.storage.status().used_bytes == sum(map(len, self.model.values()))
        for path, data in self.model.items():
            assert self.storage.read_bytes(path) == data

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            self.directory.cleanup()


StorageMachine.TestCase.settings = settings(
    max_examples=20, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_storage_machine = StorageMachine.TestCase
