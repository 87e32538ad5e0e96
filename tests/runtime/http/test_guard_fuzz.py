"""Whatever the head of a request says, the guard answers with a refusal or lets a known caller through."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.runtime.http.gate import CALLER, Gate
from paglets.runtime.http.guards import Guard, GuardPolicy, send_json
from paglets.runtime.http.keyring import Keyring
from paglets.runtime.http.quotas import Quotas
from tests.effort import thorough
from tests.runtime.http.wire import refusal_fields

KEY = "the-key"
HOSTS = [b"localhost", b"127.0.0.1:8765", b"[::1]", b"evil.example", b"localhost@evil", b"", b"\xff", b"localhost:x"]
VALUES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"Bearer the-key", b"bearer  the-key ", b"Bearer the-kez", b"Basic the-key", b"Bearer"]),
    st.sampled_from(HOSTS),
    st.sampled_from([b"0", b"5", b"-1", b"99999999999999999999", b"1e9", b"chunked", b"identity", b"gzip"]),
    st.sampled_from([b"application/json", b"application/x-paglets-movement", b"text/plain", b"http://localhost"]),
)
NAMES = st.sampled_from(
    [
        b"host",
        b"authorization",
        b"origin",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
    ]
)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=8)
PATHS = st.one_of(
    st.sampled_from(
        ["/health", "/agents", "/agents/x/messages", "/artifacts", "/blobs/x", "/admin/drain", "//", "/p/x"]
    ),
    st.text(max_size=30).map(lambda text: "/" + text),
)


@settings(max_examples=thorough(133, 400), deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "X"]),
    PATHS,
    st.binary(max_size=20),
    HEADERS,
    st.booleans(),
)
def test_any_head(method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], good: bool) -> None:
    if good:
        headers = [*headers, (b"host", b"localhost"), (b"authorization", b"Bearer the-key")]
    reached: list[Any] = []
    sent: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        del receive
        reached.append(scope[CALLER])
        await send_json(send, 200, b"{}")

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    quotas = Quotas()
    policy = GuardPolicy(KEY, frozenset({"localhost"}), path_prefix="/p")
    guard = Guard(inner, lambda: policy, Gate(Keyring(KEY), quotas=quotas))
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": headers,
    }
    asyncio.run(guard(scope, receive, send))
    status = sent[0]["status"]
    if reached:
        assert status == 200
        (shown,) = [value for name, value in headers if name == b"authorization"]
        assert shown.split()[1:] == [b"the-key"]
        assert [name for name, _ in headers].count(b"host") == 1
    else:
        assert status in (400, 401, 403, 413, 415, 429)
        assert set(json.loads(sent[1]["body"])) == refusal_fields(status)
        # Somebody may have put it into another field, which is named in the refusal.
        misplaced = any(KEY.encode() in value for name, value in headers if name != b"authorization")
        assert misplaced or KEY not in sent[1]["body"].decode()
    assert quotas._active == 0
