"""Who may talk to a host: the key, shown before a byte of a body is read, and the names a host answers to."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Any

import pytest

from paglets.core.errors import AuthenticationError
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from paglets.runtime.http import keyring
from paglets.security.roles import Role
from tests.agents.http_agents import Talker
from tests.runtime.http.wire import Wire, ask
from tests.support import HostFactory

KEY = "clef-für-alle"
UNAUTHENTICATED = {"error_type": "AuthenticationError", "error": "Authentication required"}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Give a host that asks for a key."""
    factory = HostFactory(tmp_path_factory.mktemp("locked"))
    try:
        yield factory("locked", api_key=KEY, client=HostClient(api_key="plain"))
    finally:
        factory.close()


def bearer(key: str, scheme: str = "Bearer") -> dict[str, str]:
    # As the bytes that a client would send, which are not those of the text's own encoding in a header.
    return {"Authorization": f"{scheme} {key.encode().decode('latin-1')}"}


# --- the key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        bearer("clef-fur-alle"),
        bearer(KEY + "x"),
        bearer(KEY[:-1]),
        bearer(KEY, "Basic"),
        bearer(KEY, "Bearerx"),
        {"Authorization": KEY.encode().decode("latin-1")},
        {"Authorization": "Bearer \xff\xfe\x80"},
        {"X-Api-Key": "clef"},
    ],
)
def test_without_the_key_nothing_is_answered(locked: Host, headers: dict[str, str]) -> None:
    for method, path in (
        ("GET", "/health"),
        ("GET", "/schema"),
        ("GET", "/schema/openapi.json"),
        ("GET", "/nowhere"),
        ("POST", "/agents"),
        ("DELETE", "/agents/x"),
    ):
        reply = ask(locked.address, method, path, headers=headers)
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.headers["content-type"] == "application/json"
        assert reply.json() == UNAUTHENTICATED


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_has_no_case(locked: Host, scheme: str) -> None:
    for path in ("/health", "/schema", "/schema/openapi.json"):
        assert ask(locked.address, "GET", path, headers=bearer(KEY, scheme)).status == 200


def test_the_key_may_not_be_there_twice(locked: Host) -> None:
    key = bearer(KEY)["Authorization"].encode("latin-1")
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\nAuthorization: " + key + b"\r\n\r\n"
    with Wire(locked.address) as wire:
        reply = wire.send(head).reply()
    assert (reply.status, reply.error) == (400, "HostError")


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(keyring.hmac, "compare_digest", compare)
    keys = keyring.Keyring("secret")
    with pytest.raises(AuthenticationError):
        keys.caller(b"Bearer secreT")
    assert keys.caller(b"Bearer secret").role is Role.ADMIN
    assert compared == [(b"secreT", b"secret"), (b"secret", b"secret")]


@pytest.mark.parametrize("content_type", ["application/json", "application/x-paglets-movement", "text/plain"])
@pytest.mark.parametrize("length", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
def test_the_body_of_a_stranger_is_not_read(locked: Host, content_type: str, length: str) -> None:
    head = f"POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n{length}\r\n\r\n"
    with Wire(locked.address) as wire:
        reply = wire.send(head.encode()).reply()  # the body is never sent
        assert wire.ended()
    assert reply.status == 401
    assert reply.json() == UNAUTHENTICATED
    assert reply.headers["connection"] == "close"


def test_a_stranger_is_not_told_to_continue(locked: Host) -> None:
    head = b"POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with Wire(locked.address) as wire:
        assert wire.send(head).reply().status == 401


def test_clients_and_the_key(hosts: HostFactory) -> None:
    host = hosts("keyed", api_key="secret")
    agent_id = host.create(Talker).agent_id
    for key, hint in ((None, "set PAGLETS_API_KEY"), ("wrong", "Authentication required")):
        client = HostClient(api_key=key)
        with pytest.raises(AuthenticationError, match=hint):
            client.get_json(f"{host.address}/health")
        with pytest.raises(AuthenticationError, match=hint):
            client.post_pickle(f"{host.address}/agents", {"state_blob": b"x" * 2_000_000})
        client.close()
    client = HostClient(api_key="secret")
    assert client.get_json(f"{host.address}/agents")["agents"][0]["agent_id"] == agent_id
    client.close()


# --- names and origins -----------------------------------------------------------------------------------------------


def raw(host: Host, head: str) -> Any:
    with Wire(f"http://127.0.0.1:{host.port}") as wire:
        return wire.send(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n").reply()


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1", "127.0.0.1:1", "localhost", "LOCALHOST:80", "[::1]", "[::1]:8000", "10.9.8.7", "[fe80::1%25eth0]"],
)
def test_addresses_and_own_names_are_answered(host: Host, name: str) -> None:
    reply = raw(host, f"GET /health HTTP/1.1\nHost: {name}")
    assert reply.status == 200 if "%" not in name else reply.status in (200, 403)


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "evil.example@127.0.0.1",
        "evil.example#127.0.0.1",
        "evil.example/127.0.0.1",
        "[::1",
        "[::1]evil",
        "[evil.example]",
        "::1",
        "127.1",
        "0x7f.1",
        "127.0.0.1:port",
        "127.0.0.1 evil.example",
        "127.0.0.1, evil.example",
        "\xff",
        "",
    ],
)
def test_other_names_are_refused(host: Host, name: str) -> None:
    reply = raw(host, f"GET /health HTTP/1.1\nHost: {name}")
    assert (reply.status, reply.error) == (403, "ForbiddenError")


def test_a_name_is_needed_where_browsers_send_one(host: Host) -> None:
    reply = raw(host, "GET /health HTTP/1.1")
    assert (reply.status, reply.error) == (400, "HostError")
    twice = raw(host, "GET /health HTTP/1.1\nHost: localhost\nHost: localhost")
    assert (twice.status, twice.error) == (400, "HostError")
    old = raw(host, "GET /health HTTP/1.0")
    assert (old.status, old.headers["connection"]) == (200, "close")
    assert raw(host, "GET /health HTTP/1.0\nHost: evil.example").status == 403


def test_a_whole_url_as_target_counts_instead_of_the_header(host: Host) -> None:
    assert raw(host, "GET http://localhost/health HTTP/1.1\nHost: evil.example").status == 200
    assert raw(host, "GET http://127.0.0.1:9/health HTTP/1.1\nHost: localhost").status == 200
    for target in ("http://evil.example/health", "http://evil.example:80/health", "http://evil.example"):
        assert raw(host, f"GET {target} HTTP/1.1\nHost: localhost").status in (400, 403)
    assert raw(host, "CONNECT evil.example:443 HTTP/1.1\nHost: localhost").status in (400, 403, 404, 405)
    assert raw(host, "OPTIONS * HTTP/1.1\nHost: localhost").status in (400, 404, 405)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example:443",
        "null",
        "",
        "http://localhost",
        "http://127.0.0.1:1",
        "http://[",
        "http://localhost.evil.example",
        "file://",
        "\xff",
    ],
)
def test_pages_of_other_sites_are_refused(host: Host, origin: str) -> None:
    for method in ("GET", "POST"):
        reply = ask(host.address, method, "/agents", headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
        assert (reply.status, reply.error) == (403, "ForbiddenError")
        assert "access-control-allow-origin" not in reply.headers


def test_its_own_page_is_answered(host: Host) -> None:
    for name in (f"127.0.0.1:{host.port}", "localhost:80"):
        origin = f"http://{name.upper()}"
        assert ask(host.address, "GET", "/health", headers={"Origin": origin, "Host": name}).status == 200


def test_a_preflight_gets_no_permission(host: Host) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    reply = ask(host.address, "OPTIONS", "/agents", headers=headers)
    assert reply.status == 403
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_forwarding_headers_change_nothing(hosts: HostFactory) -> None:
    host = hosts("forwarded")
    headers = {"Host": "evil.example", "X-Forwarded-Host": "localhost", "Forwarded": "host=localhost"}
    assert ask(host.address, "GET", "/health", headers=headers).status == 403
