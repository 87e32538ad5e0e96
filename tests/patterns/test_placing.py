"""Where a file goes, whether it can, and that it is there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.artifacts import file_sha256
from paglets.core.errors import InsufficientStorageError, TransferError
from paglets.patterns import placing
from paglets.patterns.placing import Original, Placement, check_place, copy_file, planned_path, resolved_path
from paglets.patterns.transfer_models import format_bytes
from paglets.persistence.atomic import is_part_name

DATA = b"data" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "scratch"
    path.parent.mkdir()
    path.write_bytes(DATA)
    path.chmod(0o600)
    os.utime(path, (1_000_000, 1_000_000.25))
    return path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "planned"),
    [
        ("", "a.txt"),
        (".", "a.txt"),
        ("out/", "out/a.txt"),
        ("out\\", "out\\a.txt"),
        ("/", "/a.txt"),
        ("out", "out"),
        ("~/b.txt", "~/b.txt"),
        ("..", ".."),
    ],
)
def test_a_destination_is_planned_without_looking(destination: str, planned: str) -> None:
    assert planned_path(destination, "a.txt") == planned


def test_a_destination_is_resolved_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dir").mkdir()
    assert resolved_path("", "a.txt") == tmp_path / "a.txt"
    assert resolved_path("~", "a.txt") == tmp_path / "a.txt"
    assert resolved_path("~/dir", "a.txt") == tmp_path / "dir" / "a.txt"
    assert resolved_path("dir", "a.txt", check_existing_dir=False) == tmp_path / "dir"
    assert resolved_path("new/b", "a.txt") == tmp_path / "new" / "b"
    assert resolved_path("new/", "a.txt") == tmp_path / "new" / "a.txt"
    # As it was asked for, and as a host that does not know this one has planned it.
    for destination in ("new\\", planned_path("new\\", "a.txt"), "~\\new\\" if os.name == "nt" else "~/new\\"):
        assert resolved_path(destination, "a.txt") == tmp_path / "new" / "a.txt"
    assert resolved_path("\\", "a.txt") == Path("/a.txt").absolute()


@given(st.integers(-(2**70), 2**70))
def test_sizes_for_people_have_a_unit_and_at_most_four_digits(size: int) -> None:
    text = format_bytes(size)
    number, unit = text.split()
    assert unit in ("B", "KB", "MB", "GB", "TB")
    assert unit == "TB" or float(number) < 1024
    assert (unit == "B") == number.isdecimal()
    if 0 <= size < 2**50:
        factor = 1024 ** ["B", "KB", "MB", "GB", "TB"].index(unit)
        assert abs(float(number) - size / factor) <= 0.05 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (-1, "0 B"),
        (0, "0 B"),
        (7, "7 B"),
        (1023, "1023 B"),
        (1024, "1.0 KB"),
        (1536, "1.5 KB"),
        (1024**2 - 1, "1.0 MB"),
        (5 * 1024**3, "5.0 GB"),
        (1024**5, "1024.0 TB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_bytes(size) == text


# --- whether it can go there ------------------------------------------------------------------------------------------


def checked(destination: Path, scratch: Path, *, overwrite: bool = False, size: int = len(DATA)) -> None:
    before = sorted(scratch.parents[1].rglob("*"))
    try:
        check_place(destination, overwrite=overwrite, scratch=scratch, size=size)
    finally:
        assert sorted(scratch.parents[1].rglob("*")) == before


def test_a_free_place_is_found_free_and_nothing_is_changed(tmp_path: Path, scratch: Path) -> None:
    checked(tmp_path / "a", scratch)
    checked(tmp_path / "new" / "deep" / "a", scratch, size=2**70)  # nothing is copied on one file system


def test_what_is_there_already_is_refused(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "dir").mkdir()
    for name in ("file", "dangling"):
        with pytest.raises(FileExistsError, match=f"destination already exists: {tmp_path / name}"):
            checked(tmp_path / name, scratch)
        checked(tmp_path / name, scratch, overwrite=True)
    with pytest.raises(IsADirectoryError):
        checked(tmp_path / "dir", scratch, overwrite=True)
    with pytest.raises(NotADirectoryError, match="no directory"):
        checked(tmp_path / "file" / "deep" / "a", scratch)
    with pytest.raises(FileExistsError, match="the same file"):
        checked(scratch, scratch, overwrite=True)


def test_a_directory_that_cannot_be_written_to_is_refused(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere, so the system's answer is made up.
    monkeypatch.setattr(placing.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match=f"not writable: {tmp_path}"):
        checked(tmp_path / "new" / "a", scratch)


def test_a_lack_of_room_is_seen_before(scratch: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == scratch.stat().st_dev:
        pytest.skip("there is no second file system")
    checked(other / "a", scratch)
    with pytest.raises(InsufficientStorageError, match="no room"):
        checked(other / "a", scratch, size=2**60)


# --- copies -----------------------------------------------------------------------------------------------------------


def test_a_copy_is_whole_and_keeps_the_time(tmp_path: Path, scratch: Path) -> None:
    target = copy_file(scratch, tmp_path / "new" / "deep" / "a", overwrite=False, sha256=SHA256)
    assert target == tmp_path / "new" / "deep" / "a"
    assert (target.read_bytes(), target.stat().st_mtime) == (DATA, 1_000_000.25)
    assert names(target.parent) == ["a"]
    # Its permissions are those that new files get here, not those of the scratch file.
    (tmp_path / "plain").touch()
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert not target.samefile(scratch)


def test_a_copy_overwrites_only_when_told_to(tmp_path: Path, scratch: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    target.chmod(0o640)
    with pytest.raises(FileExistsError, match="destination already exists"):
        copy_file(scratch, target, overwrite=False)
    assert target.read_text() == "old"
    copy_file(scratch, target, overwrite=True)
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (DATA, 0o640)
    with pytest.raises(FileExistsError, match="the same file"):
        copy_file(target, target, overwrite=True)
    assert names(tmp_path) == ["a", "work"]


def test_a_copy_that_went_wrong_leaves_nothing(tmp_path: Path, scratch: Path) -> None:
    target = tmp_path / "a"
    with pytest.raises(TransferError, match="checksum"):
        copy_file(scratch, target, overwrite=False, sha256="0" * 64)
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "missing", target, overwrite=False)
    assert names(tmp_path) == ["work"]


def test_who_comes_second_loses(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody makes the destination between the look and the last step."""
    target = tmp_path / "a"
    real = placing._check

    def slow(part: Path, sha256: str) -> None:
        real(part, sha256)
        target.write_text("first")

    monkeypatch.setattr(placing, "_check", slow)
    with pytest.raises(FileExistsError, match="destination already exists"):
        copy_file(scratch, target, overwrite=False)
    assert (target.read_text(), names(tmp_path)) == ("first", ["a", "work"])


@pytest.fixture(params=["links", "no links"])
def linking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a test with hard links and on a file system that has none."""
    if request.param == "no links":

        def refuse(*_: Any) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(placing.os, "link", refuse)
        return False
    return True


# --- savings that go on after a crash ---------------------------------------------------------------------------------


def placement(scratch: Path, destination: Path, **changes: Any) -> Placement:
    values = {"overwrite": False, "sha256": SHA256, "key": "paglet", "take": True} | changes
    return Placement(scratch, destination, **values)


@pytest.mark.parametrize("take", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_is_saved(tmp_path: Path, scratch: Path, linking: bool, take: bool, overwrite: bool) -> None:
    saving = placement(scratch, tmp_path / "new" / "a", take=take, overwrite=overwrite)
    if overwrite:
        saving.destination.parent.mkdir()
        saving.destination.write_text("old")
    for _ in range(2):  # whoever does not know whether it was done does it again
        if not linking and saving.destination.exists() and not overwrite:
            break
        saving.save()
        assert saving.destination.read_bytes() == DATA
    assert saving.destination.stat().st_mtime == 1_000_000.25
    assert saving.destination.samefile(scratch) == (take and linking)
    (tmp_path / "plain").touch()
    assert saving.destination.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert saving.is_published == (linking and not overwrite)
    saving.forget()
    saving.forget()
    assert names(tmp_path / "new") == ["a"]
    assert is_part_name(saving.part.name)


def test_what_somebody_else_has_put_there_is_not_taken_for_the_own_file(
    tmp_path: Path, scratch: Path, linking: bool
) -> None:
    saving = placement(scratch, tmp_path / "a")
    saving.destination.write_bytes(DATA)  # not even if it is the same
    with pytest.raises(FileExistsError):
        saving.save()
    saving.part.write_bytes(DATA)  # the rest of an attempt that was killed
    with pytest.raises(FileExistsError):
        saving.save()
    saving.forget()
    assert names(tmp_path) == ["a", "work"]


def test_an_attempt_that_was_killed_is_begun_again(tmp_path: Path, scratch: Path) -> None:
    saving = placement(scratch, tmp_path / "a")
    saving.part.write_bytes(DATA[:10])
    saving.save()
    assert saving.destination.read_bytes() == DATA


def test_what_is_not_what_came_gets_no_name(tmp_path: Path, scratch: Path) -> None:
    saving = placement(scratch, tmp_path / "a", sha256="0" * 64)
    with pytest.raises(TransferError, match="checksum"):
        saving.save()
    saving.forget()
    assert names(tmp_path) == ["work"]
    assert scratch.exists()


def test_a_scratch_file_that_must_stay_is_not_shared(tmp_path: Path, scratch: Path) -> None:
    with pytest.raises(FileExistsError, match="the same file"):
        placement(scratch, scratch, take=False, overwrite=True).save()
    saving = placement(scratch, tmp_path / "a", take=False)
    saving.save()
    scratch.write_text("changed")
    assert saving.destination.read_bytes() == DATA


def test_a_link_that_fails_for_another_reason_is_an_error(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(placing.os, "link", refuse)
    for take in (True, False):
        with pytest.raises(OSError, match="No space left"):
            placement(scratch, tmp_path / "a", take=take).save()


def test_a_file_is_saved_on_another_file_system(scratch: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == scratch.stat().st_dev:
        pytest.skip("there is no second file system")
    target = other / f"paglets-test-{os.getpid()}"
    saving = placement(scratch, target)
    try:
        saving.save()
        saving.forget()
        assert (target.read_bytes(), scratch.read_bytes()) == (DATA, DATA)
    finally:
        target.unlink(missing_ok=True)


# --- originals --------------------------------------------------------------------------------------------------------


def original(path: Path) -> Original:
    status = path.stat()
    return Original(str(path), status.st_size, file_sha256(path), placing.birth_of(status), status.st_mtime)


def test_an_original_is_deleted_once(scratch: Path) -> None:
    known = original(scratch)
    known.remove()
    assert not scratch.exists()
    known.remove()


def rewritten(path: Path) -> None:
    path.write_bytes(DATA[::-1])


def grown(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def replaced_by_the_same(path: Path) -> None:
    """As when both hosts share a disk, and the file was saved where it came from."""
    status = path.stat()
    fresh = path.with_name("fresh")
    fresh.write_bytes(path.read_bytes())
    while fresh.stat().st_ctime <= status.st_ctime:  # the clock of a file system has ticks
        os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
    fresh.replace(path)


def rewritten_with_the_old_times(path: Path) -> None:
    status = path.stat()
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [rewritten, grown, replaced_by_the_same, rewritten_with_the_old_times])
def test_an_original_that_has_changed_is_kept(scratch: Path, change: Callable[[Path], None]) -> None:
    known = original(scratch)
    change(scratch)
    with pytest.raises(TransferError, match="has changed since it was sent, and was kept"):
        known.remove()
    assert scratch.exists()
