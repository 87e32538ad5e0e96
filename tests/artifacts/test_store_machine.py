"""The store of artifacts against a model, over any order of what clients, clocks and restarts do."""

from __future__ import annotations

import io
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from paglets.artifacts import ArtifactStore
from paglets.artifacts.errors import NoRoomError, NotStoredError, UploadConflictError
from tests.artifacts.contents import files, sha

CONTENTS = [b"", b"one", b"four", b"five!" * 10, b"x" * 60]
QUOTA = 150
KEYS = ["a" * 32, "b" * 64]


@dataclass
class Known:
    """An artifact of the model."""

    content: bytes
    owner: str
    expires_at: float


class StoreMachine(RuleBasedStateMachine):
    """Every artifact that was acknowledged, with its content, and every byte that counts."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="paglets-"))
        self.now = 1000.0
        self.known: dict[str, Known] = {}
        self.parts: dict[str, tuple[bytes, int, bool]] = {}
        self.store = self.opened()

    def opened(self) -> ArtifactStore:
        return ArtifactStore(self.directory / "store", host_url="http://h", quota_bytes=QUOTA, clock=lambda: self.now)

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    def used(self) -> int:
        unique = {known.content for known in self.known.values()}
        return sum(map(len, unique)) + sum(offset for _, offset, _ in self.parts.values())

    def fits(self, count: int) -> bool:
        """Tell whether there is room, which removes what has expired if there is none."""
        if count <= 0 or self.used() + count <= QUOTA:
            return True
        self.expire()
        return self.used() + count <= QUOTA

    def expire(self) -> None:
        self.known = {key: known for key, known in self.known.items() if not 0 < known.expires_at <= self.now}

    # creating

    @rule(
        target=ids,
        content=st.sampled_from(CONTENTS),
        owner=st.sampled_from(["", "o"]),
        seconds=st.sampled_from([0, 10]),
        declared=st.booleans(),
    )
    def create(self, content: bytes, owner: str, seconds: int, declared: bool) -> str:
        expires_at = self.now + seconds if seconds else 0.0
        try:
            ref = self.store.create_from_stream(
                io.BytesIO(content),
                size_bytes=len(content) if declared else -1,
                owner_agent_id=owner,
                expires_at=expires_at,
            ).ref
        except NoRoomError:
            assert not self.fits(len(content))
            return "0"
        assert self.fits(len(content))
        self.known[ref.artifact_id] = Known(content, owner, expires_at)
        return ref.artifact_id

    @rule(target=ids, content=st.sampled_from(CONTENTS))
    def create_of_what_is_here(self, content: bytes) -> str:
        here = self.store.blobs.has(sha(content))
        counted = any(known.content == content for known in self.known.values())
        try:
            ref = self.store.from_blob(sha(content), len(content)).ref
        except NotStoredError:
            assert not here
            return "0"
        except NoRoomError:
            assert not counted
            assert not self.fits(len(content))
            return "0"
        assert here
        assert counted or self.fits(len(content))
        self.known[ref.artifact_id] = Known(content, "", 0.0)
        return ref.artifact_id

    @rule(
        target=ids,
        key=st.sampled_from(KEYS),
        content=st.sampled_from(CONTENTS),
        portion=st.integers(0, 30),
        announce=st.booleans(),
    )
    def upload(self, key: str, content: bytes, portion: int, announce: bool) -> str:
        content, offset, announce = self.parts.get(key, (content, 0, announce))
        said = {"upload": key, "size_bytes": len(content), "expected_sha256": sha(content) if announce else None}
        try:
            with self.store.begin(offset=offset, **said) as writer:  # type: ignore[arg-type]
                writer.write(content[offset : offset + portion])
                done = writer.offset == len(content)
                ref = writer.finish().ref if done else None
        except NoRoomError:
            assert not self.fits(len(content) - offset)
            return "0"
        assert self.fits(len(content) - offset)
        if ref is None:
            self.parts[key] = (content, writer.offset, announce)
            return "0"
        self.parts.pop(key, None)
        self.known[ref.artifact_id] = Known(content, "", 0.0)
        return ref.artifact_id

    @rule(key=st.sampled_from(KEYS), offset=st.integers(0, 70))
    def upload_at_a_wrong_offset(self, key: str, offset: int) -> None:
        content, at, announce = self.parts.get(key, (b"x" * 60, 0, False))
        if offset == at:
            return
        said = {"upload": key, "size_bytes": len(content), "expected_sha256": sha(content) if announce else None}
        try:
            with self.store.begin(offset=offset, **said):  # type: ignore[arg-type]
                raise AssertionError("it began")
        except UploadConflictError:
            self.fits(max(len(content), offset) - at)
        except NoRoomError:
            assert not self.fits(max(len(content), offset) - at)

    # removing

    @rule(artifact_id=consumes(ids))
    def delete(self, artifact_id: str) -> None:
        self.store.delete(artifact_id)
        self.known.pop(artifact_id, None)

    @rule(owner=st.sampled_from(["", "o", "nobody"]))
    def delete_owner(self, owner: str) -> None:
        self.store.delete_owner(owner)
        self.known = {key: known for key, known in self.known.items() if known.owner != owner}

    @rule(seconds=st.integers(0, 11))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def clean_up(self) -> None:
        self.store.cleanup_temporary()
        self.expire()

    @rule()
    def clean_up_much_later(self) -> None:
        self.store.cleanup_temporary(now=1e11)
        self.parts.clear()
        self.known = {key: known for key, known in self.known.items() if not known.expires_at}

    # what happens to it

    @rule()
    def restart(self) -> None:
        self.store = self.opened()
        self.parts = {key: part for key, part in self.parts.items() if part[2]}

    @rule(artifact_id=ids)
    def read(self, artifact_id: str) -> None:
        known = self.known.get(artifact_id)
        try:
            with self.store.open_reader(artifact_id) as stream:
                found = stream.read()
        except NotStoredError:
            assert known is None or 0 < known.expires_at <= self.now
            return
        assert known is not None
        assert found == known.content

    @rule(artifact_id=ids)
    def export(self, artifact_id: str) -> None:
        known = self.known.get(artifact_id)
        target = self.directory / "exported"
        try:
            ref = self.store.export_to_path(artifact_id, target)
        except NotStoredError:
            assert known is None or 0 < known.expires_at <= self.now
            return
        assert known is not None
        assert target.read_bytes() == known.content
        assert ref.sha256 == sha(known.content)

    # what always holds

    @invariant()
    def the_list_is_right(self) -> None:
        found = {ref.artifact_id: Known(b"", ref.owner_agent_id, ref.expires_at) for ref in self.store.list()}
        assert {key: (known.owner, known.expires_at) for key, known in found.items()} == {
            key: (known.owner, known.expires_at) for key, known in self.known.items()
        }
        for ref in self.store.list():
            assert ref.sha256 == sha(self.known[ref.artifact_id].content)

    @invariant()
    def the_quota_is_right(self) -> None:
        assert self.store.used_bytes == self.used() <= QUOTA

    @invariant()
    def directories_are_right(self) -> None:
        contents = {sha(known.content) for known in self.known.values()}
        expected = {f"blobs/{name[:2]}/{name}" for name in contents}
        expected |= {f"metadata/{key}.json" for key in self.known}
        expected |= {f"tmp/{key}.{kind}" for key in self.parts for kind in ("part", "json")}
        assert set(files(self.directory / "store")) == expected


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
