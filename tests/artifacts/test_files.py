from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets import artifacts
from paglets.artifacts import (
    ArtifactRef,
    PagletFileRef,
    copy_path,
    copy_stream,
    file_sha256,
    paglet_file_ref_from_path,
    safe_target_filename,
    streams,
    unique_target_names,
)
from paglets.core.errors import SerializationError, TransferError


def test_constants_are_the_documented_ones() -> None:
    assert (artifacts.ARTIFACT_COPY, artifacts.ARTIFACT_MOVE) == ("copy", "move")
    assert artifacts.ARTIFACT_STATUS_FAILED == "failed"
    assert artifacts.DEFAULT_ARTIFACT_MAX_BYTES == 1024**3
    assert artifacts.DEFAULT_ARTIFACT_STORAGE_QUOTA_BYTES == 10 * 1024**3
    assert artifacts.DEFAULT_ARTIFACT_SPOOL_TTL_SECONDS == 86400
    assert artifacts.STREAM_CHUNK_BYTES == 1024 * 1024


def test_artifact_ref_round_trip() -> None:
    ref = ArtifactRef("http://h:1", "ab12", "data.bin", 7, "ff" * 32, "gzip", 1.5, 2.5, "owner")
    assert ArtifactRef.from_wire(ref.to_wire()) == ref
    assert set(ref.to_wire()) == set(ArtifactRef.__dataclass_fields__)


def test_artifact_ref_needs_only_its_id() -> None:
    assert ArtifactRef.from_wire({"artifact_id": "ab"}) == ArtifactRef("", "ab")
    with pytest.raises(KeyError, match="artifact_id"):
        ArtifactRef.from_wire({"host_url": "http://h"})


def test_artifact_ref_of_wrong_types_is_refused_by_field() -> None:
    with pytest.raises(SerializationError, match="size_bytes"):
        ArtifactRef.from_wire({"artifact_id": "ab", "size_bytes": "many"})


def test_checksums_are_lower_case() -> None:
    assert ArtifactRef.from_wire({"artifact_id": "a", "sha256": "ABCD"}).sha256 == "abcd"


def test_file_ref_round_trip() -> None:
    ref = PagletFileRef("data", mode="move", source_path="/a", size_bytes=3, status="available", last_error="none")
    assert PagletFileRef.from_wire(ref.to_wire()) == ref
    assert set(ref.to_wire()) == set(PagletFileRef.__dataclass_fields__)


def test_file_ref_mode() -> None:
    assert PagletFileRef.from_wire({"name": "n", "mode": "MOVE"}).mode == "move"
    assert PagletFileRef.from_wire({"name": "n"}).mode == "copy"
    with pytest.raises(TransferError, match="link"):
        PagletFileRef.from_wire({"name": "n", "mode": "link"})
    with pytest.raises(KeyError, match="name"):
        PagletFileRef.from_wire({"mode": "copy"})


def test_file_ref_from_path(tmp_path: Path) -> None:
    original = tmp_path / "real.txt"
    original.write_bytes(b"payload")
    link = tmp_path / "link.txt"
    link.symlink_to(original)

    ref = paglet_file_ref_from_path(link, name=None, mode="Copy", host_name="alpha", host_url="http://a:1")

    assert (ref.name, ref.mode, ref.status) == ("real.txt", "copy", "registered")
    assert ref.source_path == ref.current_path == str(original.resolve())
    assert (ref.size_bytes, ref.sha256) == (7, hashlib.sha256(b"payload").hexdigest())
    assert (ref.source_host_name, ref.current_host_url) == ("alpha", "http://a:1")
    assert ref.source_modified_at == original.stat().st_mtime
    assert ref.source_created_at > 0


@pytest.mark.parametrize(("name", "mode"), [("", "copy"), ("  ", "copy"), ("x", "steal")])
def test_file_ref_from_path_refuses_bad_names_and_modes(tmp_path: Path, name: str, mode: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"")
    with pytest.raises(TransferError):
        paglet_file_ref_from_path(path, name=name, mode=mode, host_name="a", host_url="u")


def test_file_ref_from_path_refuses_directories_and_absent_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(TransferError, match="Not a file"):
            paglet_file_ref_from_path(path, name=None, mode="copy", host_name="a", host_url="u")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("report.csv", "report.csv"),
        ("a b/c.txt", "a_b_c.txt"),
        ("../../etc/passwd", "etc_passwd"),
        ("..", "artifact"),
        ("", "artifact"),
        ("___", "artifact"),
        ("_x_", "x"),
        ("grün.txt", "grün.txt"),
        ("NUL", "_NUL"),
        ("con.txt", "_con.txt"),
        ("com1.tar.gz", "_com1.tar.gz"),
        ("console.txt", "console.txt"),
    ],
)
def test_safe_target_filename(name: str, expected: str) -> None:
    assert safe_target_filename(name) == expected


def test_a_long_name_keeps_its_extension() -> None:
    safe = safe_target_filename("ü" * 300 + ".csv")
    assert len(safe.encode()) <= 200
    assert safe.endswith(".csv")


@given(st.text(max_size=300))
def test_safe_target_filename_is_one_safe_component(name: str) -> None:
    safe = safe_target_filename(name)
    assert safe
    assert len(safe.encode()) <= 200
    assert not safe.startswith(".")
    assert all(character.isalnum() or character in "._-" for character in safe)
    assert safe_target_filename(safe) == safe


def test_names_that_meet_get_numbers_before_the_extension() -> None:
    assert unique_target_names(["a b.txt", "a_b.txt", "A_B.TXT", "other"]) == [
        "a_b.txt",
        "a_b-2.txt",
        "A_B-3.TXT",
        "other",
    ]
    assert unique_target_names(["x", "x", "x-2"]) == ["x", "x-2", "x-2-2"]


@given(
    st.lists(st.sampled_from(["a b", "a_b", "A_b", "a/b", "a_b-2", "ü.t", "Ü.t", "x" * 400, "x" * 399]), max_size=12)
)
def test_unique_target_names_are_unique_and_stable(names: list[str]) -> None:
    targets = unique_target_names(names)
    assert len({target.casefold() for target in targets}) == len(names)
    assert all(len(target.encode()) <= 200 for target in targets)
    for length in range(len(names)):
        assert unique_target_names(names[:length]) == targets[:length]


@given(st.binary(max_size=5000))
def test_copy_stream_counts_and_hashes(data: bytes) -> None:
    target = io.BytesIO()
    assert copy_stream(io.BytesIO(data), target, expected_bytes=len(data)) == (
        len(data),
        hashlib.sha256(data).hexdigest(),
    )
    assert target.getvalue() == data


@pytest.mark.parametrize("expected", [2, 4])
def test_copy_stream_refuses_another_length(expected: int) -> None:
    with pytest.raises(TransferError, match=str(expected)):
        copy_stream(io.BytesIO(b"abc"), io.BytesIO(), expected_bytes=expected)


class EndlessStream:
    def __init__(self) -> None:
        self.reads = 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        return bytes(size)


def test_copy_stream_does_not_follow_an_endless_source() -> None:
    source = EndlessStream()
    with pytest.raises(TransferError, match="more than"):
        copy_stream(source, io.BytesIO(), expected_bytes=10)
    assert source.reads == 1


def test_copy_path_creates_parents_and_replaces(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"new" * 1000)
    target = tmp_path / "deep" / "er" / "target"

    copy_path(source, target)
    assert target.read_bytes() == source.read_bytes()
    source.write_bytes(b"newer")
    copy_path(str(source), str(target))

    assert file_sha256(target) == hashlib.sha256(b"newer").hexdigest()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_copy_path_of_a_directory_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="Not a file"):
        copy_path(tmp_path, tmp_path / "x" / "y")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_copy_keeps_the_old_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"new")
    target = tmp_path / "target"
    target.write_bytes(b"old")

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(streams.shutil, "copyfileobj", disk_full)
    with pytest.raises(OSError, match="No space"):
        copy_path(source, target)

    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
