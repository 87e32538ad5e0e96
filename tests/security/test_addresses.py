"""Patterns of hosts, and a key that is shown to some hosts only."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.core.errors import PagletError, RemoteHostError
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.runtime.http.guards import send_json
from paglets.security.addresses import BoundKey, fits, key_for, origin_of
from paglets.security.policy import Policy
from tests.agents.http_agents import Talker
from tests.effort import thorough
from tests.runtime.http.wire import Served
from tests.support import HostFactory


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("http://10.0.0.*:8765", "http://10.0.0.7:8765"),
        ("http://10.*:*", "http://10.1.2.3:5/relay/hosts/x"),
        ("https://beta.example", "https://BETA.example:443/"),
        ("https://*.lab.example:*", "https://a-1.lab.example:8765"),
        ("http://[::1]:*", "http://[0:0:0:0:0:0:0:1]:80"),
        ("http://[fd00:*]:8765", "http://[fd00::7]:8765"),
        ("http://127.0.0.1:8765/", "http://127.0.0.1:8765"),
    ],
)
def test_what_fits(pattern: str, url: str) -> None:
    assert fits([pattern], url)


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("http://10.0.0.*:8765", "http://10.0.0.7:8766"),
        ("http://10.0.0.*:8765", "https://10.0.0.7:8765"),
        ("http://10.0.0.*:8765", "http://10.0.0.evil.example:8765"),
        ("http://10.0.0.*:8765", "http://10.0.0.1:8765@evil.example:8765"),
        ("http://10.0.0.*:*", "http://10.0.0.1:80@evil.example:8765"),
        ("http://10.0.0.*:*", "http://evil.example/http://10.0.0.7:8765"),
        ("http://10.0.0.*:*", "http://evil.example#10.0.0.7:8765"),
        ("https://*.lab.example", "https://evil.example/.lab.example"),
        ("https://*.lab.example", "https://a.b.lab.example"),
        ("https://beta.example", "https://beta.example:8765"),
        ("https://beta.example", "https://beta.example.evil"),
        ("https://beta.example", "https://betaxexample"),
        ("*", "http://beta.example"),
        ("http://*", "ftp://beta.example"),
        ("http://*:*", "http://["),
        ("http://*:*", "http://x:99999"),
        ("http://*:*", "http://x\n"),
        ("http://*:*", ""),
    ],
)
def test_what_does_not(pattern: str, url: str) -> None:
    assert not fits([pattern], url)


@settings(max_examples=thorough(100, 300), deadline=None)
@given(st.text(max_size=60), st.text(alphabet="htps:/[]*.@#?x1-", max_size=40))
def test_no_text_is_more_than_its_own_host(url: str, pattern: str) -> None:
    fits([pattern], url)
    origin = origin_of(url)
    assert not fits(["http://10.0.0.*:*"], url) or (origin is not None and origin[0].startswith("http://10.0.0."))


class Recorder:
    """An application that notes what key it was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        del receive
        self.shown.append(dict(scope["headers"]).get(b"authorization", b"").decode())
        await send_json(send, 404, b'{"error_type":"NotFoundError","error":"nothing"}')


def test_clients_show_a_bound_key_where_it_belongs() -> None:
    recorder = Recorder()

    async def ask(key: str, url: str) -> None:
        async with AsyncHostClient(api_key=key) as client:
            with suppress(PagletError):
                await client.get_json(url)

    with Served(recorder) as served:
        for hosts in (["http://127.0.0.1:*"], ["http://10.*:*"], []):
            key = BoundKey("secret", hosts)
            assert "secret" not in repr(key)
            with HostClient(api_key=key) as client, suppress(PagletError):
                client.get_json(f"{served.address}/x")
            asyncio.run(ask(key, f"{served.address}/x"))
    assert recorder.shown == ["Bearer secret"] * 2 + [""] * 2 + ["Bearer secret"] * 2
    assert key_for(None, "http://x") is None
    assert key_for("plain", "nonsense") == "plain"


def test_nobody_can_have_a_host_show_its_key_elsewhere(hosts: HostFactory) -> None:
    """Whoever may name a URL to a host could otherwise have its key sent to a machine of theirs."""
    recorder = Recorder()
    host = hosts("careful", api_key="secret", policy=Policy(hosts=("http://10.0.0.*:*",)))
    agent_id = host.create(Talker).agent_id
    with Served(recorder) as elsewhere, HostClient(api_key="secret") as client:
        for path, body in (
            (f"/agents/{agent_id}/dispatch", {"target": elsewhere.address}),
            (f"/agents/{agent_id}/retract", {"target": elsewhere.address}),
            (f"/agents/{agent_id}/clone", {"target": elsewhere.address}),
        ):
            with pytest.raises(PagletError):
                client.post_json(f"{host.address}{path}", body)
        with pytest.raises(RemoteHostError):
            host.client.get_json("http://127.0.0.1:9/health")
    assert len(recorder.shown) >= 3
    assert set(recorder.shown) == {""}
