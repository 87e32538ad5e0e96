"""Artifacts whose content is in a backend, with the disk of the host as the cache."""

from __future__ import annotations

import hashlib
import io
import logging
import random
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from paglets.artifacts.backends import BlobBackend, artifact_place, open_backend
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.depot_reader import DepotReader
from paglets.artifacts.errors import NotStoredError, WrongContentError
from paglets.artifacts.s3_location import S3Location
from paglets.artifacts.store import ArtifactStore
from paglets.core.errors import StorageUnavailableError
from tests.artifacts.memory_backend import PIECE, MemoryBackend

URL = "http://host:1"


def opened(root: Path, backend: BlobBackend | None, *, cache: int = 10**6, quota: int | None = None) -> ArtifactStore:
    blobs = BlobStore(root, cache_bytes=cache)
    return ArtifactStore(root, host_url=URL, blobs=blobs, backend=backend, quota_bytes=quota)


def made(store: ArtifactStore, content: bytes, name: str = "") -> str:
    return store.create_from_stream(io.BytesIO(content), name=name).ref.artifact_id


def content_of(store: ArtifactStore, artifact_id: str) -> bytes:
    with store.open_reader(artifact_id) as reader:
        return b"".join(iter(lambda: reader.read(1000), b""))


def forget(store: ArtifactStore) -> None:
    """Empty the cache of the host."""
    store.blobs.make_room(10**12)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


def test_an_artifact_is_in_the_backend_before_it_is_acknowledged(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    content = noise(10_000)
    artifact_id = made(store, content)
    sha256 = hashlib.sha256(content).hexdigest()
    assert backend.objects == {sha256: content}
    assert store.used_bytes == 10_000
    assert store.blobs.cached_bytes == 10_000
    assert content_of(store, artifact_id) == content
    assert backend.reads == []


def test_what_the_cache_no_longer_has_is_fetched_once(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    content = noise(3 * PIECE + 5)
    artifact_id = made(store, content)
    forget(store)
    assert store.blobs.used_bytes == 0

    assert content_of(store, artifact_id) == content
    assert content_of(store, artifact_id) == content
    assert len(backend.reads) == 1
    assert store.blobs.cached_bytes == len(content)


def test_a_content_larger_than_the_cache_is_passed_on_and_verified(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend, cache=PIECE)
    content = noise(3 * PIECE)
    artifact_id = made(store, content)
    assert store.blobs.used_bytes == 0
    assert content_of(store, artifact_id) == content
    assert store.blobs.used_bytes == 0
    backend.objects = {sha256: noise(3 * PIECE, seed=2) for sha256 in backend.objects}
    with pytest.raises(WrongContentError):
        content_of(store, artifact_id)


def test_a_part_is_read_without_the_rest(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    content = noise(10 * PIECE)
    artifact_id = made(store, content)
    forget(store)
    with store.open_reader(artifact_id) as reader:
        assert isinstance(reader, DepotReader)
        reader.begin(5 * PIECE, 5 * PIECE + 100)
        assert reader.seek(5 * PIECE) == 5 * PIECE
        assert reader.read() == content[5 * PIECE : 5 * PIECE + 100]
        assert reader.read(10) == b""
        assert reader.seek(-10, io.SEEK_END) == 10 * PIECE - 10
        assert reader.tell() == 10 * PIECE - 10
    assert backend.reads == [(5 * PIECE, 100)]
    assert store.blobs.used_bytes == 0


def test_a_reader_has_no_descriptor_and_may_be_left(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    artifact_id = made(store, noise(10 * PIECE))
    forget(store)
    with store.open_reader(artifact_id) as reader:
        assert reader.read(10)
        with pytest.raises(io.UnsupportedOperation):
            reader.fileno()
    assert store.blobs.used_bytes == 0
    assert list((tmp_path / "tmp").iterdir()) == []


def test_seeking_reads_what_a_file_would(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    content = noise(3 * PIECE)
    artifact_id = made(store, content)
    forget(store)
    chance = random.Random(7)
    with store.open_reader(artifact_id) as reader, io.BytesIO(content) as file:
        for _ in range(200):
            position, count = chance.randrange(4 * PIECE), chance.randrange(2 * PIECE)
            assert reader.seek(position) == file.seek(position)
            assert b"".join(iter(lambda: reader.read(count - reader.tell() + position), b"")) == file.read(count)  # noqa: B023


def test_wrong_bytes_in_the_backend_are_noticed(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    content = noise(3 * PIECE)
    artifact_id = made(store, content)
    forget(store)
    for wrong in (bytes(3 * PIECE), content[:-1]):
        backend.objects = dict.fromkeys(backend.objects, wrong)
        got = bytearray()
        with store.open_reader(artifact_id) as reader, pytest.raises(WrongContentError):
            while piece := reader.read(PIECE):
                got += piece
        assert len(got) < len(content)
        with pytest.raises(WrongContentError):
            store.export_to_path(artifact_id, tmp_path / "out")
        with pytest.raises(WrongContentError):
            store.blob_path(artifact_id)
    assert not (tmp_path / "out").exists()
    assert store.blobs.used_bytes == 0
    assert store.ref(artifact_id).size_bytes == len(content)
    backend.objects = dict.fromkeys(backend.objects, content)
    assert content_of(store, artifact_id) == content


def test_a_content_that_is_gone_is_no_reason_to_forget_the_artifact(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    artifact_id = made(store, noise(100))
    forget(store)
    backend.objects.clear()
    with pytest.raises(NotStoredError):
        content_of(store, artifact_id)
    assert store.list()


def test_an_upload_brings_back_what_somebody_removed(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    content = noise(100)
    first = made(store, content)
    forget(store)
    for left in ({}, dict.fromkeys(backend.objects, content[:50])):
        backend.objects = left
        made(store, content)
        forget(store)
        assert content_of(store, first) == content


def test_a_path_is_fetched_and_stays(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend, cache=0)
    content = noise(3 * PIECE)
    artifact_id = made(store, content)
    path = store.blob_path(artifact_id)
    forget(store)
    store.cleanup_temporary()
    assert path.read_bytes() == content
    store.delete(artifact_id)
    store.cleanup_temporary(now=2.0**33)
    assert not path.exists()


def test_a_backend_that_is_down_acknowledges_nothing(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    backend.down = True
    with pytest.raises(StorageUnavailableError):
        made(store, noise(100))
    assert store.list() == []
    assert (store.used_bytes, store.blobs.used_bytes) == (0, 0)
    assert list((tmp_path / "metadata").iterdir()) == []
    backend.down = False
    artifact_id = made(store, noise(100))
    forget(store)
    backend.down = True
    with pytest.raises(StorageUnavailableError):
        content_of(store, artifact_id)
    with pytest.raises(StorageUnavailableError):
        store.blob_path(artifact_id)
    assert store.list()


def test_what_arrived_although_the_answer_was_lost_is_removed(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    backend.loses_answers = True
    with pytest.raises(StorageUnavailableError):
        made(store, noise(100))
    assert store.list() == []
    assert backend.objects
    backend.loses_answers = False
    store.cleanup_temporary()
    assert backend.objects == {}


def test_one_content_is_stored_once_and_stays_for_the_last_artifact(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    first, second = made(store, noise(100)), made(store, noise(100))
    assert backend.puts == 1
    store.delete(first)
    forget(store)
    assert content_of(store, second) == noise(100)
    store.delete(second)
    assert backend.objects == {}
    assert store.blobs.used_bytes == 0


def test_deleting_works_while_the_backend_is_down(
    tmp_path: Path, backend: MemoryBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    store = opened(tmp_path, backend)
    artifact_id = made(store, noise(100))
    backend.down = True
    store.delete(artifact_id)
    assert store.list() == []
    store.cleanup_temporary()
    assert "down" in caplog.text
    backend.down = False
    assert backend.objects
    store.cleanup_temporary()
    assert backend.objects == {}


def test_artifacts_survive_a_restart_without_their_content_on_disk(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    artifact_id = made(store, noise(100), "a")
    forget(store)

    again = opened(tmp_path, backend)
    assert [ref.name for ref in again.list()] == ["a"]
    assert again.used_bytes == 100
    assert list(again.problems) == []
    assert content_of(again, artifact_id) == noise(100)
    again.delete(artifact_id)
    assert backend.objects == {}


def test_what_a_crash_left_in_the_backend_goes_after_the_restart(tmp_path: Path, backend: MemoryBackend) -> None:
    artifact_id = made(opened(tmp_path, backend), noise(100))
    backend.objects["0" * 64] = b"stored, and the process died before the metadata was written"
    again = opened(tmp_path, backend)
    again.cleanup_temporary()
    assert len(backend.objects) == 1
    forget(again)
    assert content_of(again, artifact_id) == noise(100)


def test_artifacts_of_the_disk_are_brought_in_by_the_clean_up(tmp_path: Path, backend: MemoryBackend) -> None:
    before = opened(tmp_path, None)
    artifact_id, other = made(before, noise(100)), made(before, noise(200, seed=2))

    store = opened(tmp_path, backend, cache=0)
    assert content_of(store, artifact_id) == noise(100)
    backend.down = True
    store.cleanup_temporary()
    assert store.blobs.used_bytes == 300
    backend.down = False
    store.cleanup_temporary()
    assert len(backend.objects) == 2
    assert store.blobs.used_bytes == 0
    assert content_of(opened(tmp_path, backend), other) == noise(200, seed=2)


def test_without_its_backend_an_artifact_says_where_its_content_is(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend, cache=250)
    far, kept = made(store, noise(200, seed=2)), made(store, noise(100))
    for other in (None, MemoryBackend("memory://other")):
        again = opened(tmp_path, other)
        assert len(again.list()) == 2
        with pytest.raises(NotStoredError, match=r"memory://one"):
            content_of(again, far)
        assert content_of(again, kept) == noise(100)
    again = opened(tmp_path, backend)
    assert content_of(again, far) == noise(200, seed=2)


def test_a_content_is_not_lost_between_the_last_artifact_and_a_new_one(tmp_path: Path, backend: MemoryBackend) -> None:
    store = opened(tmp_path, backend)
    content = noise(1000)
    artifact_id = made(store, content)
    start = threading.Barrier(2)
    created: list[str] = []

    def create() -> None:
        start.wait()
        created.append(made(store, content))

    for _ in range(50):
        thread = threading.Thread(target=create)
        thread.start()
        start.wait()
        store.delete(artifact_id)
        thread.join()
        artifact_id = created.pop()
        assert list(backend.objects.values()) == [content]
        forget(store)
        assert content_of(store, artifact_id) == content


def test_closing_the_store_closes_the_backend(tmp_path: Path, backend: MemoryBackend) -> None:
    opened(tmp_path, backend).close()
    assert backend.closed
    opened(tmp_path / "plain", None).close()


def test_the_place_of_artifacts(tmp_path: Path) -> None:
    assert artifact_place(str(tmp_path)) == tmp_path
    assert artifact_place("~/artifacts") == Path.home() / "artifacts"
    assert artifact_place("s3://bucket/x") == S3Location("bucket", "x")
    for text in ("", " ", "a\0b", "ftp://host/x", "file:///tmp"):
        with pytest.raises(ValueError, match=r"object storage|directory"):
            artifact_place(text)


def test_a_store_keeps_its_id(tmp_path: Path) -> None:
    location = S3Location("bucket", "prefix", "http://127.0.0.1:1")
    places = []
    for root in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        backend = open_backend(location, root)
        places.append(backend.location)
        backend.close()
    assert places[0] == places[1] != places[2]
    (tmp_path / "a" / "store-id").write_bytes(b"\xff torn")
    backend = open_backend(location, tmp_path / "a")
    assert backend.location != places[0]
    backend.close()


class Artifacts(RuleBasedStateMachine):
    """Artifacts come and go while the backend fails, the cache is emptied and the host is started again."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.directory = _Directory()
        self.backend = MemoryBackend()
        self.model: dict[str, bytes] = {}
        self.store = opened(self.directory.path, self.backend, cache=5000)

    def teardown(self) -> None:
        self.directory.remove()

    @rule(target=ids, seed=st.integers(0, 3), size=st.sampled_from([0, 1, 3000, 9000]))
    def create(self, seed: int, size: int) -> str:
        content = noise(size, seed)
        try:
            artifact_id = made(self.store, content)
        except StorageUnavailableError:
            assert self.backend.down or self.backend.loses_answers
            return ""
        self.model[artifact_id] = content
        return artifact_id

    @rule(artifact_id=ids)
    def read(self, artifact_id: str) -> None:
        if artifact_id not in self.model:
            return
        try:
            assert content_of(self.store, artifact_id) == self.model[artifact_id]
        except StorageUnavailableError:
            assert self.backend.down

    @rule(artifact_id=consumes(ids))
    def delete(self, artifact_id: str) -> None:
        if self.model.pop(artifact_id, None) is not None:
            self.store.delete(artifact_id)

    @rule(down=st.booleans(), loses_answers=st.booleans())
    def break_or_mend(self, down: bool, loses_answers: bool) -> None:
        self.backend.down, self.backend.loses_answers = down, loses_answers

    @rule()
    def empty_cache(self) -> None:
        forget(self.store)

    @rule()
    def restart(self) -> None:
        self.store = opened(self.directory.path, self.backend, cache=5000)

    @rule()
    def clean_up(self) -> None:
        self.store.cleanup_temporary()
        if not self.backend.down:
            assert set(self.backend.objects.values()) == set(self.model.values())

    @invariant()
    def nothing_acknowledged_is_missing(self) -> None:
        assert {ref.artifact_id for ref in self.store.list()} == set(self.model)
        assert set(self.model.values()) <= set(self.backend.objects.values())
        assert self.store.used_bytes == sum(map(len, set(self.model.values())))
        assert list(self.store.problems) == []


class _Directory:
    def __init__(self) -> None:
        self._made = tempfile.TemporaryDirectory()
        self.path = Path(self._made.name)

    def remove(self) -> None:
        self._made.cleanup()


TestArtifacts = Artifacts.TestCase
TestArtifacts.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
