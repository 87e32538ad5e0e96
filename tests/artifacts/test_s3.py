"""Blobs in object storage, with a real server that is killed, stopped and lied to."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from paglets.artifacts.backends import BlobBackend
from paglets.artifacts.errors import NotStoredError, WrongContentError
from paglets.artifacts.s3 import S3Backend
from paglets.artifacts.s3_location import S3Location
from paglets.core.errors import HostError, StorageUnavailableError
from tests.artifacts.s3_server import BUCKET, SECRET, S3Server

MB = 1024 * 1024
# As small as the server is told to accept.
PART = 128 * 1024
# A connection that is refused or broken is noticed at once; there is no need to be short of time.
IMPATIENT: dict[str, Any] = {"attempts": 2}


pytestmark = pytest.mark.usefixtures("credentials")


class Place:
    """One host's place in the bucket: what the backend under test sees, and what is really there."""

    def __init__(self, server: S3Server, store_id: str) -> None:
        self.server = server
        self.store_id = store_id
        self.prefix = f"some/prefix/{store_id}/"
        self.location = S3Location(BUCKET, "some/prefix", server.endpoint, "us-east-1")

    def opened(self, **options: Any) -> closing[S3Backend]:
        return closing(S3Backend(self.location, self.store_id, **{"part_bytes": PART, "step_bytes": PART, **options}))

    def uploads(self) -> list[Any]:
        return list(self.server.client.list_multipart_uploads(Bucket=BUCKET, Prefix=self.prefix).get("Uploads", ()))

    def key(self, sha256: str) -> str:
        return f"{self.prefix}{sha256[:2]}/{sha256}"

    def overwrite(self, sha256: str, content: bytes) -> None:
        self.server.client.put_object(Bucket=BUCKET, Key=self.key(sha256), Body=content)


@pytest.fixture
def place(server: S3Server, tmp_path: Path) -> Place:
    return Place(server, tmp_path.name)


@pytest.fixture
def backend(place: Place) -> Iterator[S3Backend]:
    with place.opened() as made:
        yield made


@pytest.fixture
def mortal_place(mortal: S3Server, place: Place) -> Place:
    """Give a place whose server the test may kill or pause."""
    assert place.server is mortal
    return place


class Listener:
    """A server that answers one connection after the other with given bytes.

    :param answers: those that are left when the test ends are not asked for; the last one is repeated.
    :param trickle: bytes that follow every answer without an end.
    """

    def __init__(self, *answers: bytes, trickle: bytes = b"") -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._answers, self._trickle = answers, trickle
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        with suppress(OSError), socket.create_connection(self._socket.getsockname()):
            pass
        self._thread.join()
        self._socket.close()

    def _work(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection, suppress(OSError):
                if self._closed.is_set():
                    return
                self.requests.append(connection.recv(65536))
                connection.sendall(self._answers[min(len(self.requests), len(self._answers)) - 1])
                while self._trickle and not self._closed.wait(0.02):
                    connection.sendall(self._trickle)


def part_head(start: int, end: int, size: int) -> bytes:
    return (
        f"HTTP/1.1 206 Partial Content\r\nContent-Length: {end - start}\r\n"
        f"Content-Range: bytes {start}-{end - 1}/{size}\r\n\r\n"
    ).encode()


def blob(tmp_path: Path, size: int, seed: int = 1) -> tuple[str, Path, bytes]:
    content = random.Random(seed).randbytes(size)
    sha256 = hashlib.sha256(content).hexdigest()
    path = tmp_path / f"{sha256}.blob"
    path.write_bytes(content)
    return sha256, path, content


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 3 * PART - 1])
def test_a_blob_comes_back_whole_and_in_parts(backend: S3Backend, place: Place, tmp_path: Path, size: int) -> None:
    checked: BlobBackend = backend
    sha256, path, content = blob(tmp_path, size)
    assert checked.size(sha256) is None
    checked.put(sha256, path)
    assert checked.size(sha256) == size
    assert list(checked.blobs()) == [(sha256, size)]

    assert b"".join(checked.read(sha256)) == content
    for start, length in [(0, 0), (0, min(size, 10)), (size // 2, size - size // 2), (max(0, size - 1), min(size, 1))]:
        assert b"".join(checked.read(sha256, start, length)) == content[start : start + length]
    assert b"".join(checked.read(sha256, size // 3)) == content[size // 3 :]

    checked.delete(sha256)
    checked.delete(sha256)
    assert checked.size(sha256) is None
    assert list(checked.blobs()) == []
    assert not place.uploads()


def test_pieces_are_bounded(place: Place, tmp_path: Path) -> None:
    sha256, path, content = blob(tmp_path, 9 * MB)
    with closing(S3Backend(place.location, place.store_id)) as backend:
        backend.put(sha256, path)
        pieces = list(backend.read(sha256))
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= MB


def test_storing_a_blob_again_changes_nothing(backend: S3Backend, tmp_path: Path) -> None:
    sha256, path, content = blob(tmp_path, 1000)
    backend.put(sha256, path)
    backend.put(sha256, path)
    assert b"".join(backend.read(sha256)) == content
    assert list(backend.blobs()) == [(sha256, 1000)]


def test_many_blobs_are_listed_page_by_page(
    backend: S3Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = set()
    for seed in range(7):
        sha256, path, _ = blob(tmp_path, 10 + seed, seed)
        backend.put(sha256, path)
        stored.add((sha256, 10 + seed))
    ask = backend._ask
    monkeypatch.setattr(backend, "_ask", lambda *names, **values: ask(*names, **{**values, "MaxKeys": 3}))
    assert set(backend.blobs()) == stored


def test_what_others_keep_below_the_prefix_is_not_listed(place: Place, backend: S3Backend, tmp_path: Path) -> None:
    sha256, path, _ = blob(tmp_path, 10)
    backend.put(sha256, path)
    place.overwrite("readme.txt", b"not a blob")
    with closing(S3Backend(place.location, f"{place.store_id}-of-another")) as other:
        assert list(other.blobs()) == []
        assert other.size(sha256) is None
        other.put(sha256, path)
        other.delete(sha256)
    assert list(backend.blobs()) == [(sha256, 10)]


def test_an_absent_blob_is_told_from_a_failure(backend: S3Backend) -> None:
    absent = "0" * 64
    with pytest.raises(NotStoredError):
        list(backend.read(absent))
    with pytest.raises(NotStoredError):
        list(backend.read(absent, 0, 5))
    with pytest.raises(NotStoredError):
        list(backend.read(absent, 0, 3 * PART))


def test_a_missing_bucket_is_a_failure_and_no_absence(place: Place, tmp_path: Path) -> None:
    sha256, path, _ = blob(tmp_path, 10)
    with closing(S3Backend(S3Location("no-such-bucket", "", place.server.endpoint), "store")) as backend:
        for action in (
            lambda: backend.put(sha256, path),
            lambda: backend.size(sha256),
            lambda: list(backend.blobs()),
            lambda: backend.sweep(),
        ):
            with pytest.raises(StorageUnavailableError, match="no such bucket"):
                action()


def test_a_shorter_object_is_noticed(place: Place, backend: S3Backend, tmp_path: Path) -> None:
    sha256, path, content = blob(tmp_path, 1000)
    backend.put(sha256, path)
    place.overwrite(sha256, content[:500])
    with pytest.raises(WrongContentError, match=r"500 of the 1000 bytes"):
        list(backend.read(sha256, 0, 1000))
    with pytest.raises(WrongContentError, match="shorter than the blob"):
        list(backend.read(sha256, 600, 400))


# failures


def spoil_second(request: Any, **_about: Any) -> None:
    """Have the server refuse the request for the second part."""
    if "partNumber=2" in request.url or request.headers.get("Range", b"").startswith(f"bytes={PART}-".encode()):
        request.headers["Authorization"] = "AWS4-HMAC-SHA256 nonsense"


def test_wrong_credentials_are_refused_and_not_told(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "some-other-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
    sha256, path, _ = blob(tmp_path, 10)
    with place.opened() as backend:
        with pytest.raises(StorageUnavailableError, match="refuses the credentials") as caught:
            backend.put(sha256, path)
        assert "paglets-tests" in str(caught.value)
    for secret in ("some-other-secret", "a-session-token"):
        assert secret not in caplog.text
        assert secret not in str(caught.value) + str(caught.value.__cause__)
    with place.opened() as backend, pytest.raises(StorageUnavailableError):
        list(backend.blobs())


def test_right_credentials_are_not_told_either(
    backend: S3Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sha256, path, _ = blob(tmp_path, 10)
    backend.put(sha256, path)
    assert SECRET not in caplog.text
    assert SECRET not in backend.location + repr(backend)


def test_without_credentials_it_is_said_where_they_come_from(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with place.opened() as backend, pytest.raises(StorageUnavailableError, match="AWS_ACCESS_KEY_ID"):
        backend.size("0" * 64)


def test_credentials_come_from_the_shared_file_as_well(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access_key = os.environ["AWS_ACCESS_KEY_ID"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "storage")
    lines = f"[storage]\naws_access_key_id={access_key}\naws_secret_access_key={SECRET}\n"
    (tmp_path / "credentials").write_text(lines)
    with place.opened() as backend:
        assert backend.size("0" * 64) is None


def test_a_dead_server_stores_nothing_and_is_used_again_later(mortal_place: Place, tmp_path: Path) -> None:
    sha256, path, content = blob(tmp_path, 1000)
    with mortal_place.opened(**IMPATIENT) as backend:
        backend.put(sha256, path)
        mortal_place.server.kill()
        other, other_path, _ = blob(tmp_path, 2000, seed=2)
        with pytest.raises(StorageUnavailableError, match=r"cannot be reached|too slow"):
            backend.put(other, other_path)
        with pytest.raises(StorageUnavailableError, match=r"cannot be reached|too slow"):
            list(backend.read(sha256))

        mortal_place.server.start()
        assert b"".join(backend.read(sha256)) == content
        assert list(backend.blobs()) == [(sha256, 1000)]


def test_a_server_that_dies_in_the_middle_shows_no_half_object(mortal_place: Place, tmp_path: Path) -> None:
    sha256, path, content = blob(tmp_path, 3 * PART)
    with mortal_place.opened(**IMPATIENT) as backend:
        sent = threading.Lock()

        def die_with_the_second_part(**_about: Any) -> None:
            with sent:
                count.append(1)
                if len(count) == 2:
                    mortal_place.server.kill()

        count: list[int] = []
        backend._connected().meta.events.register("before-send.s3.UploadPart", die_with_the_second_part)
        with pytest.raises(StorageUnavailableError):
            backend.put(sha256, path)

        mortal_place.server.start()
        assert backend.size(sha256) is None
        assert list(backend.blobs()) == []
        assert len(mortal_place.uploads()) == 1
        assert backend.sweep() == 1
        assert mortal_place.uploads() == []
        assert backend.sweep() == 0

        backend.put(sha256, path)
        assert b"".join(backend.read(sha256)) == content


_KILLED_SENDER = """
import sys, os, signal
from pathlib import Path
from paglets.artifacts.errors import NotStoredError, WrongContentError
from paglets.artifacts.s3 import S3Backend
from paglets.artifacts.s3_location import S3Location

backend = S3Backend(S3Location.parse(sys.argv[1]), sys.argv[2], part_bytes=128 * 1024)

def die(**_about):
    os.kill(os.getpid(), signal.SIGKILL)

backend._connected().meta.events.register("before-send.s3.CompleteMultipartUpload", die)
backend.put(sys.argv[3], Path(sys.argv[4]))
"""


def test_a_sender_that_dies_in_the_middle_leaves_parts_that_the_sweep_removes(place: Place, tmp_path: Path) -> None:
    sha256, path, _ = blob(tmp_path, PART + 1)
    command = [sys.executable, "-c", _KILLED_SENDER, str(place.location), place.store_id, sha256, str(path)]
    assert subprocess.run(command, timeout=60).returncode == -9
    assert len(place.uploads()) == 1
    with place.opened() as successor:
        assert successor.size(sha256) is None
        assert list(successor.blobs()) == []
        assert successor.sweep() == 1
    assert place.uploads() == []


def test_the_sweep_leaves_an_upload_that_is_under_way(backend: S3Backend, place: Place, tmp_path: Path) -> None:
    sha256, path, content = blob(tmp_path, PART + 1)
    swept: list[int] = []
    backend._connected().meta.events.register(
        "before-send.s3.CompleteMultipartUpload", lambda **_about: swept.append(backend.sweep())
    )
    backend.put(sha256, path)
    assert swept == [0]
    assert b"".join(backend.read(sha256)) == content


def test_a_part_that_is_refused_ends_the_upload(backend: S3Backend, place: Place, tmp_path: Path) -> None:
    sha256, path, _ = blob(tmp_path, 3 * PART)
    backend._connected().meta.events.register("before-send.s3.UploadPart", spoil_second)
    with pytest.raises(StorageUnavailableError):
        backend.put(sha256, path)
    assert place.uploads() == []
    assert backend.size(sha256) is None


def test_bytes_that_change_on_the_way_are_refused_by_the_server(backend: S3Backend, tmp_path: Path) -> None:
    sha256, path, _ = blob(tmp_path, 1000)

    def change_the_file(**_about: Any) -> None:
        path.write_bytes(bytes(1000))

    backend._connected().meta.events.register("before-send.s3.PutObject", change_the_file)
    with pytest.raises(StorageUnavailableError):
        backend.put(sha256, path)
    assert backend.size(sha256) is None


def test_a_server_that_does_not_answer_is_given_up(mortal_place: Place, tmp_path: Path) -> None:
    sha256, path, _ = blob(tmp_path, 1000)
    with mortal_place.opened() as patient:
        patient.put(sha256, path)
    with mortal_place.opened(read_timeout=0.3, attempts=2) as backend:
        mortal_place.server.pause()
        with pytest.raises(StorageUnavailableError, match=r"in time|too slow"):
            backend.put(sha256, path)
        with pytest.raises(StorageUnavailableError, match=r"in time"):
            list(backend.read(sha256, 0, 1000))


def test_a_server_that_trickles_is_given_up() -> None:
    with closing(Listener(part_head(0, MB, MB), trickle=b"x" * 100)) as listener:
        location = S3Location(BUCKET, "", listener.endpoint)
        with (
            closing(S3Backend(location, "store", read_timeout=0.3, least_rate=10 * MB)) as backend,
            pytest.raises(StorageUnavailableError, match="too slow"),
        ):
            list(backend.read("0" * 64, 0, MB))


def test_a_connection_that_breaks_again_and_again_is_given_up() -> None:
    with closing(Listener(part_head(0, 10, 10))) as listener:
        with (
            closing(S3Backend(S3Location(BUCKET, "", listener.endpoint), "store", **IMPATIENT)) as backend,
            pytest.raises(StorageUnavailableError),
        ):
            list(backend.read("0" * 64, 0, 10))
        assert len(listener.requests) == IMPATIENT["attempts"]


def test_a_read_goes_on_where_its_connection_broke() -> None:
    answers = (part_head(10, 30, 30) + b"first", part_head(15, 30, 30), part_head(15, 30, 30) + b"second, the end")
    with closing(Listener(*answers)) as listener:
        with closing(S3Backend(S3Location(BUCKET, "", listener.endpoint), "store")) as backend:
            assert b"".join(backend.read("0" * 64, 10, 20)) == b"firstsecond, the end"
        assert [b"bytes=10-29" in listener.requests[0], b"bytes=15-29" in listener.requests[1]] == [True, True]
        assert len(listener.requests) == 3


def test_a_read_over_several_connections_ends_with_the_first_that_fails(backend: S3Backend, tmp_path: Path) -> None:
    sha256, path, content = blob(tmp_path, 3 * PART)
    backend.put(sha256, path)
    backend._connected().meta.events.register("before-send.s3.GetObject", spoil_second)
    got = bytearray()
    with pytest.raises(StorageUnavailableError):
        for piece in backend.read(sha256):
            got += piece
    assert content.startswith(got)


def test_a_read_may_be_left(backend: S3Backend, tmp_path: Path) -> None:
    sha256, path, content = blob(tmp_path, 3 * PART)
    backend.put(sha256, path)
    with closing(backend.read(sha256)) as pieces:
        assert content.startswith(next(pieces))


def test_after_closing_it_says_so_and_no_thread_is_left(place: Place, tmp_path: Path) -> None:
    sha256, path, _ = blob(tmp_path, PART + 1)
    with place.opened() as backend:
        backend.put(sha256, path)
    with pytest.raises(HostError, match="closed"):
        backend.put(sha256, path)
    with pytest.raises(HostError, match="closed"):
        list(backend.read(sha256))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("paglets-s3")]
