"""The synchronous client: what it sends, what it makes of answers, and what it leaves behind."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.artifacts import ArtifactRef
from paglets.core import errors
from paglets.core.messages import Message
from paglets.remote import client as client_module
from paglets.remote import content_calls
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.remote.movement import BufferPart, FilePart, MovementReader
from paglets.remote.transport import MOVEMENT_CONTENT_TYPE, load_http_pickle_payload
from tests.remote.artifact_host import MemoryHost
from tests.remote.scripted import Received, ScriptedHost, reply, response


@pytest.fixture
def client() -> Iterator[HostClient]:
    with HostClient() as made:
        yield made


@pytest.fixture
def host() -> Iterator[MemoryHost]:
    with MemoryHost() as made:
        yield made


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_get_json_returns_what_the_host_says(client: HostClient) -> None:
    with ScriptedHost(reply({"a": [1, 2.5, None, True, "ü"]})) as host:
        assert client.get_json(host.url + "/x?y=1") == {"a": [1, 2.5, None, True, "ü"]}
        request = host.requests[0]
    assert (request.method, request.target, request.headers["accept"]) == ("GET", "/x?y=1", "application/json")
    assert "authorization" not in request.headers
    assert "content-length" not in request.headers


def test_post_json_sends_json(client: HostClient) -> None:
    with ScriptedHost(response()) as host:
        assert client.post_json(host.url, {"a": 1, "b": "ü"}) is None
        request = host.requests[0]
    assert (request.method, request.target, request.json) == ("POST", "/", {"a": 1, "b": "ü"})
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "value",
    [b"\x00\xff", bytearray(b"xy"), [b"a", {"b": b"c"}], {"n": 2**70, "f": -1.5, "t": "\u2028\x00", "e": {}, "l": []}],
)
def test_values_come_back_as_they_went(client: HostClient, value: Any) -> None:
    with ScriptedHost(lambda request, _connection: response(request.body)) as host:
        assert client.post_json(host.url, {"value": value}) == {"value": value}


def test_what_json_lacks_is_made_into_what_it_has(client: HostClient) -> None:
    with ScriptedHost(lambda request, _connection: response(request.body)) as host:
        odd: dict[Any, Any] = {"t": (1, 2), "s": {3, 1}, 4: "key", None: True}
        got = client.post_json(host.url, odd)
    assert got == {"t": [1, 2], "s": [1, 3], "4": "key", "None": True}


@pytest.mark.parametrize("value", [object(), [object()], 10**5000], ids=type)
def test_what_json_cannot_express_is_refused_before_sending(client: HostClient, value: Any) -> None:
    with ScriptedHost(response()) as host:
        with pytest.raises(errors.SerializationError):
            client.post_json(host.url, {"value": value})
        assert not host.requests


def test_values_beyond_json_come_back_as_they_went(client: HostClient) -> None:
    value = [float("nan"), float("inf"), -float("inf"), "caf\udce9", {"\ud800": b"\xff"}]
    with ScriptedHost(lambda request, _connection: response(request.body)) as host:
        assert repr(client.post_json(host.url, {"value": value})) == repr({"value": value})
        assert b"NaN" in host.requests[0].body


def test_nesting_without_end_is_refused(client: HostClient) -> None:
    value: dict[str, Any] = {}
    value["value"] = value
    with pytest.raises(errors.SerializationError):
        client.post_json("http://127.0.0.1:1", value)


def test_a_key_can_be_assigned_and_is_sent(client: HostClient) -> None:
    with ScriptedHost(reply(1)) as host:
        client.api_key = "secret"
        client.get_json(host.url)
        assert host.requests[0].headers["authorization"] == "Bearer secret"


def test_a_key_cannot_smuggle_a_header(client: HostClient) -> None:
    client.api_key = "secret\r\nX-Other: 1"
    with pytest.raises(ValueError, match="API key") as caught:
        client.get_json("http://127.0.0.1:1")
    assert "secret" not in str(caught.value)


def test_a_url_cannot_smuggle_a_header(client: HostClient) -> None:
    with ScriptedHost(reply(1)) as host:
        client.get_json(host.url + "/a b\r\nX-Other: 1/\u00fc?q=a b")
        assert "x-other" not in host.requests[0].headers
        assert host.requests[0].target == "/a%20bX-Other:%201/%C3%BC?q=a%20b"


def test_post_pickle_streams_the_movement_encoding(client: HostClient) -> None:
    payload = {"envelope": {"state": {"data": b"x" * 3_000_000, "n": 1}}, "flag": True}
    with ScriptedHost(reply({"proxy": 1})) as host:
        assert client.post_pickle(host.url + "/agents", payload) == {"proxy": 1}
        request = host.requests[0]
    assert request.headers["content-type"] == MOVEMENT_CONTENT_TYPE
    assert request.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in request.headers
    assert max(request.chunks) <= 1024 * 1024
    headers = {"Content-Type": MOVEMENT_CONTENT_TYPE, "Content-Length": str(len(request.body))}
    assert load_http_pickle_payload(headers, io.BytesIO(request.body)) == payload


def test_parts_follow_the_movement_they_belong_to(client: HostClient, tmp_path: Path) -> None:
    class Sink(bytearray):
        def write(self, piece: memoryview) -> None:
            self.extend(piece)

        def finish(self) -> None: ...

    (tmp_path / "file").write_bytes(b"f" * 2_500_000)
    sinks = [Sink(), Sink()]
    parts = [BufferPart(memoryview(b"state")), FilePart(tmp_path / "file", 2_500_000)]
    with ScriptedHost(reply({})) as host:
        client.post_pickle(host.url, {"kind": "dispatch", "pair": (1, 2), "parts": parts})
        request = host.requests[0]
    reader = MovementReader(lambda _header: sinks)
    reader.feed(request.body)
    assert reader.finish() == {"kind": "dispatch", "pair": [1, 2], "parts": [5, 2_500_000]}
    assert (bytes(sinks[0]), len(sinks[1])) == (b"state", 2_500_000)


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AuthenticationError", errors.AuthenticationError),
        ("ForbiddenError", errors.ForbiddenError),
        ("InvalidAgentError", errors.InvalidAgentError),
        ("HostError", errors.HostError),
        ("LifecycleError", errors.LifecycleError),
        ("NotHandledError", errors.NotHandledError),
        ("PagletCrashedError", errors.PagletCrashedError),
        ("PagletInactiveError", errors.PagletInactiveError),
        ("RemoteHostError", errors.RemoteHostError),
        ("SerializationError", errors.SerializationError),
        ("ServiceContractError", errors.ServiceContractError),
        ("ServiceNotFoundError", errors.ServiceNotFoundError),
        ("StorageQuotaError", errors.StorageQuotaError),
        ("TransferError", errors.TransferError),
        ("ResourceCleanupError", errors.LifecycleError),
        ("SomethingElse", errors.RemoteHostError),
        ("SystemExit", errors.RemoteHostError),
    ],
)
def test_errors_of_a_host_keep_their_class(client: HostClient, name: str, expected: type[Exception]) -> None:
    with ScriptedHost(reply({"error_type": name, "error": "why"}, "400 Bad Request")) as host:
        with pytest.raises(errors.PagletError, match="why") as caught:
            client.get_json(host.url)
        assert type(caught.value) is expected
        # The connection survives an error that was answered.
        with pytest.raises(errors.PagletError):
            client.get_json(host.url)
        assert host.connections == 1


@pytest.mark.parametrize("body", [b"<html>Bad\r\n\x1b[31mGateway</html>", b"", b"[1]", b'{"detail": "x"}', b"\xff"])
def test_an_error_without_a_name_is_a_remote_host_error(client: HostClient, body: bytes) -> None:
    host = ScriptedHost(response(body, "502 Bad Gateway"))
    with host, pytest.raises(errors.RemoteHostError, match="502") as caught:
        client.get_json(host.url)
    assert str(caught.value).isprintable()


def test_a_redirect_is_not_followed(client: HostClient) -> None:
    with ScriptedHost(reply(1)) as other, ScriptedHost(response(b"", "307 Moved", location=other.url)) as host:
        with pytest.raises(errors.RemoteHostError, match="redirects are not followed"):
            client.post_json(host.url, {})
        assert not other.requests


def test_a_401_without_a_key_says_where_to_put_one(client: HostClient) -> None:
    body = {"error_type": "AuthenticationError", "error": "Authentication required"}
    with ScriptedHost(reply(body, "401 Unauthorized", www_authenticate="Bearer")) as host:
        with pytest.raises(errors.AuthenticationError, match="set PAGLETS_API_KEY") as caught:
            client.get_json(host.url)
        assert "--api-key-env" in str(caught.value)
        client.api_key = "wrong"
        with pytest.raises(errors.AuthenticationError, match=r"^Authentication required$"):
            client.get_json(host.url)


def test_an_answer_that_is_not_json_is_a_remote_host_error(client: HostClient) -> None:
    with ScriptedHost(response(b"{nope")) as host, pytest.raises(errors.RemoteHostError, match="not JSON"):
        client.get_json(host.url)


def test_an_answer_that_is_not_http_is_a_remote_host_error(client: HostClient) -> None:
    with ScriptedHost(b"SSH-2.0-OpenSSH_9.6\r\n") as host, pytest.raises(errors.RemoteHostError, match=host.url):
        client.get_json(host.url)


def test_an_answer_above_the_limit_is_a_remote_host_error() -> None:
    with (
        ScriptedHost(reply("x" * 1000)) as host,
        HostClient(max_response_bytes=500) as client,
        pytest.raises(errors.RemoteHostError, match="500"),
    ):
        client.get_json(host.url)


def test_a_closed_port_is_a_remote_host_error_that_names_the_url(client: HostClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/health"
    with pytest.raises(errors.RemoteHostError, match=f"Could not reach {url}: "):
        client.get_json(url)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "127.0.0.1:8765",
        "",
        "http://",
        "http://127.0.0.1:99999/",
        "http://user:secret@127.0.0.1/",
        "http://" + "a" * 70 + ".invalid/",
        "http://[::1",
        "http://a b/",
    ],
)
def test_a_url_that_cannot_be_called_is_a_remote_host_error(client: HostClient, url: str) -> None:
    with pytest.raises(errors.RemoteHostError, match="Could not reach"):
        client.get_json(url)


def test_no_answer_in_time_is_both_kinds_of_error(client: HostClient) -> None:
    release = threading.Event()

    def answer(_request: Received, _connection: socket.socket) -> bytes | None:
        release.wait(10)
        return None

    with ScriptedHost(answer) as host:
        try:
            with pytest.raises(errors.RemoteTimeoutError, match=r"0\.1 s") as caught:
                client.get_json(host.url, timeout=0.1)
        finally:
            release.set()
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, errors.RemoteHostError)


def test_the_timeout_of_the_client_is_the_default(client: HostClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client.timeout = 0.1
        with pytest.raises(errors.RemoteTimeoutError):
            client.get_json(f"http://127.0.0.1:{silent.getsockname()[1]}/")


# --- paglets ----------------------------------------------------------------------------------------------------------


def test_deliver_posts_the_message_and_returns_the_result(client: HostClient, host: MemoryHost) -> None:
    host.answer("POST", "/agents/a%2Fb%20c/messages", {"result": {"n": 1}})
    message = Message("increment", {"by": 2})
    got = client.deliver(host.url + "/", "a/b c", message, activate_if_inactive=False, no_delay=True)
    assert got == {"n": 1}
    assert host.requests[0].json == {
        "message": message.to_wire(),
        "oneway": False,
        "activate_if_inactive": False,
        "no_delay": True,
        "timeout": 10.0,
    }


def test_an_answer_without_result_is_a_remote_host_error(client: HostClient, host: MemoryHost) -> None:
    host.answer("POST", "/agents/a/messages", [1])
    with pytest.raises(errors.RemoteHostError, match="result"):
        client.deliver(host.url, "a", Message("x"))


def test_a_move_may_take_longer_than_other_calls(host: MemoryHost) -> None:
    from paglets.remote.requests import operation_timeout
    from paglets.remote.transfer import TransferTicket

    ticket = TransferTicket("beta", timeout=20.0, retries=2, retry_interval=1.0).to_wire()
    assert operation_timeout("dispatch", {"ticket": ticket}, 10.0) >= 20.0 * 3 + 2.0
    assert operation_timeout("retract", {"target": "http://x"}, 1.0) > 10.0
    assert operation_timeout("clone", {"target": None}, 500.0) == 500.0
    assert operation_timeout("dispose", {}, 3.0) == 3.0


def test_operate_and_info_return_objects(client: HostClient, host: MemoryHost) -> None:
    host.answer("POST", "/agents/a/activate", {"proxy": {"host_url": "u", "agent_id": "a"}})
    host.answer("GET", "/agents/a", {"active": True})
    assert client.operate(host.url, "a", "activate", {}) == {"proxy": {"host_url": "u", "agent_id": "a"}}
    assert client.agent_info(host.url, "a") == {"active": True}
    host.answer("GET", "/agents/a", None)
    with pytest.raises(errors.RemoteHostError):
        client.agent_info(host.url, "a")


# --- artifacts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(b"content" * 100_000)
    return path


def test_an_artifact_goes_up_and_comes_down(client: HostClient, host: MemoryHost, source: Path, tmp_path: Path) -> None:
    ref = client.upload_artifact(
        host.url, source, owner_agent_id="me", name="ä b&c.bin", compression="zstd", expires_at=5.0
    )
    assert host.requests[0].headers["content-length"] == str(source.stat().st_size)
    assert (ref.name, ref.owner_agent_id, ref.compression, ref.expires_at) == ("ä b&c.bin", "me", "zstd", 5.0)
    assert ref.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert client.list_artifacts(host.url, owner_agent_id="me") == [ref]
    assert client.list_artifacts(host.url, owner_agent_id="you") == []
    assert client.list_artifacts(host.url) == [ref]
    assert client.artifact_metadata(host.url, ref.artifact_id) == ref

    target = tmp_path / "new" / "deep" / "target.bin"
    assert client.download_artifact(ref, target) == ref
    assert target.read_bytes() == source.read_bytes()
    assert list(target.parent.iterdir()) == [target]
    assert client.download_artifact(host.url, target, ref.artifact_id, move=True) == ref
    assert not host.refs
    client.delete_artifact(ref)
    assert host.connections == 1


def test_an_upload_takes_the_file_name_by_default(client: HostClient, host: MemoryHost, source: Path) -> None:
    assert client.upload_artifact(host.url, str(source)).name == "source.bin"


def test_an_empty_file_is_an_artifact(client: HostClient, host: MemoryHost, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    ref = client.upload_artifact(host.url, tmp_path / "empty")
    assert client.download_artifact(ref, tmp_path / "copy").size_bytes == 0
    assert (tmp_path / "copy").read_bytes() == b""


def test_an_expected_checksum_goes_to_the_host(client: HostClient, host: MemoryHost, source: Path) -> None:
    expected = hashlib.sha256(source.read_bytes()).hexdigest()
    assert client.upload_artifact(host.url, source, expected_sha256=expected).sha256 == expected
    assert f"sha256={expected}" in host.requests[0].target
    client.upload_artifact(host.url, source)
    assert "sha256=" not in host.requests[1].target


@pytest.mark.parametrize("tamper", [lambda content: content[:-1], lambda content: b"X" + content[1:]])
def test_an_upload_that_arrives_changed_is_deleted(
    client: HostClient, host: MemoryHost, source: Path, tamper: Any
) -> None:
    host.tamper = tamper
    with pytest.raises(errors.TransferError):
        client.upload_artifact(host.url, source)
    assert not host.refs


def test_a_missing_source_is_a_transfer_error(client: HostClient, host: MemoryHost, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(errors.TransferError, match="Not a file"):
            client.upload_artifact(host.url, path)
    assert not host.requests


def test_a_refused_upload_raises_what_the_host_says(client: HostClient, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as stream:
        stream.truncate(50_000_000)

    def answer(_request: Received, connection: socket.socket) -> None:
        connection.sendall(reply({"error_type": "PayloadTooLargeError", "error": "too big"}, "413 Too Large"))

    with ScriptedHost(answer, read_body=False) as host, pytest.raises(errors.PayloadTooLargeError, match="too big"):
        client.upload_artifact(host.url, big)


@pytest.mark.parametrize("method", ["download_artifact", "delete_artifact"])
def test_a_url_without_id_is_a_value_error(client: HostClient, method: str, tmp_path: Path) -> None:
    arguments = ["http://127.0.0.1:1", tmp_path / "x"] if method == "download_artifact" else ["http://127.0.0.1:1"]
    with pytest.raises(ValueError, match=f"{method}.*artifact_id"):
        getattr(client, method)(*arguments)


@pytest.mark.parametrize("damage", ["short", "long", "changed", "cut", "unknown", "header"])
def test_a_failed_download_leaves_nothing_behind(
    client: HostClient,
    host: MemoryHost,
    source: Path,
    tmp_path: Path,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(content_calls, "_FIRST_PAUSE_SECONDS", 0.001)
    ref = client.upload_artifact(host.url, source)
    content = host.blobs[ref.artifact_id]
    path = ("GET", f"/artifacts/{ref.artifact_id}")
    match damage:
        case "short":
            host.blobs[ref.artifact_id] = content[:-5]
        case "long":
            host.blobs[ref.artifact_id] = content + b"x"
        case "changed":
            host.blobs[ref.artifact_id] = b"X" + content[1:]
        case "cut":
            cut = f"HTTP/1.1 200 OK\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n".encode()
            host.routes[path] = lambda _request: cut + content[:1000]
        case "unknown":
            host.refs.clear()
        case "header":
            host.routes[path] = lambda _request: response(content, x_paglets_artifact_sha256="0" * 64)
    target = tmp_path / "out" / "target.bin"
    target.parent.mkdir()
    target.write_bytes(b"old")
    expected = errors.RemoteHostError if damage == "cut" else errors.TransferError
    with pytest.raises(expected):
        client.download_artifact(ref, target, move=True)
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == b"old"
    assert damage == "unknown" or ref.artifact_id in host.refs


TARGETS = {
    "directory": ("directory", "directory is a directory; name a file in it"),
    "nothing": ("", r"\. is a directory; name a file in it"),
    "below a file": ("file/target", r"its directory cannot be made: .*\(.*file\)"),
    "deep below a file": ("file/sub/target", r"its directory cannot be made: .*\(.*file.sub\)"),
    "a pipe": ("pipe", "pipe is no regular file, and is not replaced"),
    "a link to a pipe": ("link", "link is no regular file, and is not replaced"),
    "a name that is too long": ("x" * 300, r"cannot be written: .*\(.*x{300}\)"),
}


@pytest.mark.parametrize("what", TARGETS)
@pytest.mark.parametrize("kind", ["client", "coroutine"])
def test_a_download_that_cannot_be_written(
    client: HostClient,
    host: MemoryHost,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    kind: str,
) -> None:
    ref = client.upload_artifact(host.url, source)
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    monkeypatch.chdir(tmp_path)
    before = sorted((path, path.lstat().st_mode) for path in tmp_path.rglob("*"))
    target, said = TARGETS[what]

    async def download() -> None:
        async with AsyncHostClient() as other:
            await other.download_artifact(ref, target, move=True)

    with pytest.raises(errors.TransferError, match=f"^Artifact {ref.artifact_id} cannot be written: .*") as caught:
        if kind == "client":
            client.download_artifact(ref, target, move=True)
        else:
            asyncio.run(download())
    assert re.search(said, str(caught.value))
    assert ".paglets" not in str(caught.value)
    assert sorted((path, path.lstat().st_mode) for path in tmp_path.rglob("*")) == before
    assert list(host.refs) == [ref.artifact_id]


def test_what_goes_wrong_for_whoever_is_told_of_the_progress_is_theirs(
    client: HostClient, host: MemoryHost, source: Path, tmp_path: Path
) -> None:
    ref = client.upload_artifact(host.url, source)

    def told(done: int, total: int) -> None:
        raise BrokenPipeError("nobody reads this")

    with pytest.raises(BrokenPipeError, match="nobody reads this"):
        client.download_artifact(ref, tmp_path / "target", progress=told)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("artifact_id", ["metadata", "../x", "..", ".", " ", "0g", "0" * 129, "a/../b", "\ud800"])
def test_an_id_that_would_make_another_route_is_refused_before_it_is_sent(
    client: HostClient, host: MemoryHost, tmp_path: Path, artifact_id: str
) -> None:
    for call in (
        lambda: client.artifact_metadata(host.url, artifact_id),
        lambda: client.download_artifact(host.url, tmp_path / "x", artifact_id),
        lambda: client.read_artifact(host.url, artifact_id),
        lambda: client.delete_artifact(host.url, artifact_id),
    ):
        with pytest.raises(errors.TransferError, match="invalid artifact id"):
            call()
    assert host.requests == []


def test_references_of_a_host_without_url_get_the_called_one(client: HostClient, host: MemoryHost) -> None:
    host.answer("GET", "/artifacts", {"artifacts": [{"artifact_id": "1", "host_url": ""}]})
    assert client.list_artifacts(host.url + "/") == [ArtifactRef(host_url=host.url, artifact_id="1")]
    host.answer("GET", "/artifacts", {"artifacts": [{"name": "no id"}]})
    with pytest.raises(errors.RemoteHostError, match="artifact"):
        client.list_artifacts(host.url)


def test_urlparse_can_be_looked_up_here() -> None:
    assert client_module.urlparse("http://h:1/p").port == 1


def test_a_closed_client_still_works() -> None:
    with ScriptedHost(reply(1)) as host:
        client = HostClient()
        client.get_json(host.url)
        client.close()
        assert client.get_json(host.url) == 1
