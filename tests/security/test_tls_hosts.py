"""TLS between clients and hosts, and between hosts: a CA of one's own, certificates as keys, and their change."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.core.errors import AuthenticationError, ConflictError, ForbiddenError, HostError, RemoteHostError
from paglets.core.messages import Message
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from paglets.security.certificates import issue, make_ca, paths_of, serial_of
from paglets.security.key_file import change_key_file
from paglets.security.roles import Role
from paglets.security.tls import (
    CA_FILE_VARIABLE,
    CLIENT_CERT_VARIABLE,
    CLIENT_KEY_VARIABLE,
    TlsOptions,
    caller_of_certificate,
    client_context,
)
from tests.agents.http_agents import Talker, TalkerState
from tests.runtime.http.test_movement_bodies import body_of, prepare, state_blob
from tests.security.support import add_key, audited, look_again
from tests.support import HostFactory, events_of, eventually, where

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of a CA with certificates of two hosts and of people of every role."""
    directory = tmp_path_factory.mktemp("tls")
    make_ca(directory)
    for name in ("alpha", "beta"):
        issue(directory, name, addresses=LOOPBACK)
    issue(directory, "elsewhere", addresses=["10.9.8.7", "elsewhere.example"])
    for role in Role:
        issue(directory, f"{role}-person", role=role)
    issue(directory, "nobody", addresses=LOOPBACK, role=None)
    return directory


def options(authority: Path, name: str, *, mutual: bool = True) -> TlsOptions:
    ca = paths_of(authority, "ca")[0]
    return TlsOptions(*paths_of(authority, name), client_ca=ca if mutual else None, ca=ca)


def client_of(authority: Path, name: str | None = None, **more: Any) -> HostClient:
    pair = (None, None) if name is None else paths_of(authority, name)
    return HostClient(ssl_context=client_context(paths_of(authority, "ca")[0], *pair), **more)


# --- certificates -----------------------------------------------------------------------------------------------------


def test_keys_are_private_and_a_ca_is_made_once(authority: Path) -> None:
    for name in ("ca", "alpha"):
        certificate, key = paths_of(authority, name)
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert b"PRIVATE" not in certificate.read_bytes()
    assert stat.S_IMODE(authority.stat().st_mode) == 0o700
    with pytest.raises(ConflictError, match="CA"):
        make_ca(authority)


@pytest.mark.parametrize("name", ["ca", "alpha-key", "../x", "", "a b"])
def test_names_that_would_overwrite_or_leave(authority: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"name|1 to 64"):
        issue(authority, name)


@pytest.mark.parametrize("address", ["http://x", "a b", "x/y", "", "-x", "x" * 300, "*"])
def test_addresses_that_are_none(authority: Path, address: str) -> None:
    with pytest.raises(ValueError, match="neither an address nor a name"):
        issue(authority, "fresh", addresses=[address])
    assert not paths_of(authority, "fresh")[0].exists()


def test_there_must_be_a_ca(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="paglets keys ca"):
        issue(tmp_path, "alpha")


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "serialNumber": st.text(max_size=10),
            "subject": st.lists(
                st.lists(
                    st.tuples(
                        st.sampled_from(["commonName", "organizationalUnitName", "x"]),
                        st.sampled_from(
                            ["", "a", "paglets-role:root", "paglets-role:", "admin", "paglets-role: admin"]
                        ),
                    ),
                    max_size=2,
                ),
                max_size=4,
            ),
        },
    )
)
def test_a_certificate_without_one_true_role_is_nobody(certificate: dict[str, Any]) -> None:
    assert caller_of_certificate(certificate, frozenset()) is None


def test_two_roles_are_none() -> None:
    def subject(*roles: str) -> dict[str, Any]:
        units = [(("organizationalUnitName", f"paglets-role:{role}"),) for role in roles]
        return {"subject": ((("commonName", "a"),), *units), "serialNumber": "0AFF"}

    one = caller_of_certificate(subject("observe"), frozenset())
    assert one is not None
    assert (one.name, one.role) == ("cert:a", Role.OBSERVE)
    assert caller_of_certificate(subject("observe", "admin"), frozenset()) is None
    assert caller_of_certificate(subject("observe"), frozenset({"aff"})) is None


# --- clients ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def alpha(hosts: HostFactory, authority: Path) -> Host:
    return hosts("alpha", tls=options(authority, "alpha"))


def test_clients_verify_a_host_and_prove_themselves(alpha: Host, authority: Path) -> None:
    assert alpha.address.startswith("https://127.0.0.1:")
    url = f"{alpha.address}/health"
    with client_of(authority, "observe-person") as client:
        assert client.get_json(url)["name"] == "alpha"
        with pytest.raises(ForbiddenError, match="'cert:observe-person' has the role observe"):
            client.post_json(f"{alpha.address}/agents", {"agent_class_name": "a:B"})
    for name in (None, "nobody"):
        with client_of(authority, name) as client, pytest.raises(AuthenticationError):
            client.get_json(url)
    with HostClient(ssl_context=client_context(None)) as stranger, pytest.raises(RemoteHostError, match="CERTIFICATE"):
        stranger.get_json(url)


def test_async_clients_do_the_same(alpha: Host, authority: Path) -> None:
    context = client_context(paths_of(authority, "ca")[0], *paths_of(authority, "message-person"))

    async def ask() -> Any:
        async with AsyncHostClient(ssl_context=context) as client:
            return await client.get_json(f"{alpha.address}/health")

    assert asyncio.run(ask())["name"] == "alpha"


def test_the_environment_says_what_to_trust_and_to_show(
    alpha: Host, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = paths_of(authority, "observe-person")
    monkeypatch.setenv(CA_FILE_VARIABLE, str(paths_of(authority, "ca")[0]))
    monkeypatch.setenv(CLIENT_CERT_VARIABLE, str(certificate))
    monkeypatch.setenv(CLIENT_KEY_VARIABLE, str(key))

    async def ask() -> Any:
        async with AsyncHostClient() as client:
            return await client.get_json(f"{alpha.address}/health")

    with HostClient() as client:
        assert client.get_json(f"{alpha.address}/health") == asyncio.run(ask())


def test_content_goes_encrypted_both_ways(alpha: Host, authority: Path, tmp_path: Path) -> None:
    # Large enough for the ways past parser and loop, which plain connections have.
    content = bytes(range(256)) * 40_000
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    with client_of(authority, "message-person") as client:
        ref = client.upload_artifact(alpha.address, source)
        client.download_artifact(ref, target)
        for _ in range(3):
            client.get_json(f"{alpha.address}/health")
        # What TLS itself sends after the handshake is no answer, and no reason to let go of a connection.
        assert client.connections.statistics().opened == 1
    assert target.read_bytes() == content


def test_a_key_counts_beside_certificates(hosts: HostFactory, authority: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    key = add_key(path, "laptop", Role.OBSERVE)
    host = hosts("alpha", tls=options(authority, "alpha"), keys=path)
    with client_of(authority, api_key=key) as client:
        assert client.get_json(f"{host.address}/health")["name"] == "alpha"
    # Whoever shows a wrong key is not saved by a certificate.
    with client_of(authority, "admin-person", api_key="wrong") as client, pytest.raises(AuthenticationError):
        client.get_json(f"{host.address}/health")


def test_a_revoked_certificate_is_refused(hosts: HostFactory, authority: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    host = hosts("alpha", tls=options(authority, "alpha"), keys=path)
    with client_of(authority, "observe-person") as client:
        assert client.get_json(f"{host.address}/health")
        serial = serial_of(authority, "observe-person")
        assert serial is not None
        change_key_file(path, lambda content: replace(content, revoked_certificates=(serial,)))
        look_again(host)
        with pytest.raises(AuthenticationError):
            client.get_json(f"{host.address}/health")


def test_a_certificate_of_another_ca_is_no_key(alpha: Host, authority: Path, tmp_path: Path) -> None:
    make_ca(tmp_path)
    issue(tmp_path, "admin-person", role=Role.ADMIN)
    context = client_context(paths_of(authority, "ca")[0], *paths_of(tmp_path, "admin-person"))
    with HostClient(ssl_context=context) as client, pytest.raises(RemoteHostError):
        client.get_json(f"{alpha.address}/health")


def test_plain_http_and_old_tls_get_nothing(alpha: Host, authority: Path) -> None:
    with socket.create_connection(("127.0.0.1", alpha.port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"alpha" not in plain.recv(4096)
    context = client_context(paths_of(authority, "ca")[0])
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_new_certificate_is_served_without_a_restart(hosts: HostFactory, tmp_path: Path) -> None:
    make_ca(tmp_path)
    issue(tmp_path, "alpha", addresses=LOOPBACK)
    host = hosts("alpha", tls=options(tmp_path, "alpha"))

    def serial() -> str:
        context = client_context(paths_of(tmp_path, "ca")[0])
        with (
            socket.create_connection(("127.0.0.1", host.port), timeout=10) as connected,
            context.wrap_socket(connected, server_hostname="localhost") as secured,
        ):
            found = secured.getpeercert()
            assert found is not None
            return str(found["serialNumber"]).lower().lstrip("0")

    assert serial() == serial_of(tmp_path, "alpha")
    issue(tmp_path, "alpha", addresses=LOOPBACK)
    eventually(lambda: serial() == serial_of(tmp_path, "alpha"), "the new certificate to be taken up")
    before = serial()
    paths_of(tmp_path, "alpha")[0].write_text("nonsense")
    look_again(host)
    look_again(host)
    assert serial() == before
    assert len(events_of(host, "certificate-fault")) == 1


def test_files_that_do_not_fit_are_named(hosts: HostFactory, authority: Path, tmp_path: Path) -> None:
    mixed = TlsOptions(paths_of(authority, "alpha")[0], paths_of(authority, "beta")[1])
    with pytest.raises(HostError, match="cannot be used"):
        hosts.new("mixed", tls=mixed)
    with pytest.raises(HostError, match="cannot be used"):
        client_context(tmp_path / "absent.pem")


# --- hosts ------------------------------------------------------------------------------------------------------------


def test_paglets_move_between_hosts_that_know_each_other_by_certificate(hosts: HostFactory, authority: Path) -> None:
    alpha = hosts("alpha", tls=options(authority, "alpha"))
    beta = hosts("beta", tls=options(authority, "beta"))
    proxy = alpha.create(Talker, TalkerState(data=b"x" * 3_000_000))
    there = proxy.dispatch(beta.address)
    assert where(there, alpha, beta) == ["beta"]
    assert there.send(Message("count")) == 1
    back = alpha.retract(beta.address, there.agent_id)
    assert back.send(Message("count")) == 2
    assert where(back, alpha, beta) == ["alpha"]
    eventually(lambda: audited(beta), "the audit log to be written")
    assert {entry["key"] for entry in audited(beta)} == {"cert:alpha"}


def test_a_host_cannot_bring_a_paglet_in_the_name_of_another(hosts: HostFactory, authority: Path) -> None:
    """The certificate says under which addresses its holder is reached; a source beyond these is a lie."""
    alpha = hosts("alpha", tls=options(authority, "alpha"))
    with client_of(authority, "elsewhere") as client:
        body = {**prepare(), "parts": []}
        refused = post_movement(client, alpha, body_of(prepare(source="https://127.0.0.1:9"), state_blob()))
        assert "was not issued for" in refused["refused"]["text"]
        taken = post_movement(client, alpha, body_of(prepare("other", source="https://10.9.8.7:9"), state_blob()))
        assert "vote" in taken
        envelope = {**body["envelope"], "source_host_address": "https://127.0.0.1:9", "state": {}}
        with pytest.raises(ForbiddenError, match="was not issued for"):
            client.post_json(f"{alpha.address}/agents", {"envelope": envelope})
        client.post_json(f"{alpha.address}/transfers/transfer-other/abort", {})
    eventually(lambda: alpha.list_agents() == [], "the paglet to be given up")


def post_movement(client: HostClient, host: Host, body: bytes) -> dict[str, Any]:
    answer = client._call("POST", f"{host.address}/agents", body, "application/x-paglets-movement", 10.0)
    assert isinstance(answer, dict)
    return answer
