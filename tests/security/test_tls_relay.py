"""A hub that speaks TLS itself, and hosts that prove themselves to it by certificate.

A certificate ends where TLS does, at the hub; hosts behind it know callers by their keys.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from paglets.core.errors import AuthenticationError, ForbiddenError
from paglets.core.messages import Message
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.runtime.relay import hub as relay_hub
from paglets.runtime.relay import wiring
from paglets.security.certificates import issue, make_ca
from paglets.security.roles import Role
from tests.agents.http_agents import Talker, TalkerState
from tests.security.support import add_key, audited
from tests.security.test_tls_hosts import LOOPBACK, authority, client_of, options
from tests.support import HostFactory, await_event, events_of, eventually, free_port, where

__all__ = ["authority"]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for hosts that will not come."""
    monkeypatch.setattr(relay_hub, "RETURN_SECONDS", 1.0)
    monkeypatch.setattr(wiring, "FIRST_LINK_SECONDS", 0.5)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str]:
    """Give the key file of connected hosts, and the key in it."""
    path = tmp_path / "keys.toml"
    return path, add_key(path, "hub", Role.OPERATE)


@pytest.fixture
def hub(hosts: HostFactory, authority: Path, keys: tuple[Path, str]) -> Host:
    """Give a hub that knows callers by certificate, and by one key."""
    port = free_port()
    address = f"https://127.0.0.1:{port}"
    return hosts("alpha", port=port, public_url=address, tls=options(authority, "alpha"), api_key=keys[1])


@pytest.fixture
def beta(hosts: HostFactory, authority: Path, hub: Host, keys: tuple[Path, str]) -> Host:
    """Give a host that is connected by its certificate: it has no key to show."""
    host = hosts("beta", connect_to=hub.address, tls=options(authority, "beta"), keys=keys[0])
    await_event(host, "relay-client-connected")
    return host


def test_a_link_by_certificate_carries_messages_and_moves(hub: Host, beta: Host) -> None:
    assert beta.address == f"{hub.address}/relay/hosts/beta"
    moved = hub.create(Talker, TalkerState(data=b"x" * 3_000_000)).dispatch(beta.address)
    assert where(moved, hub, beta) == ["beta"]
    assert moved.send(Message("count")) == 1
    back = hub.retract(beta.address, moved.agent_id)
    assert back.send(Message("count")) == 2
    assert where(back, hub, beta) == ["alpha"]
    eventually(lambda: ("cert:beta", "/relay/link") in lines(hub), "the link in the audit log")


def test_a_certificate_ends_at_the_hub(hub: Host, beta: Host, authority: Path, keys: tuple[Path, str]) -> None:
    proxy = beta.create(Talker)
    with client_of(authority, "observe-person") as client:
        assert client.get_json(f"{hub.address}/health")["name"] == "alpha"
        with pytest.raises(ForbiddenError):  # refused by the hub
            PagletProxy(beta.address, proxy.agent_id, client).send(Message("count"))
    with client_of(authority, "message-person") as client, pytest.raises(AuthenticationError):  # and by beta
        PagletProxy(beta.address, proxy.agent_id, client).send(Message("count"))
    with client_of(authority, "message-person", api_key=keys[1]) as client:
        assert PagletProxy(beta.address, proxy.agent_id, client).send(Message("count")) == 1


def test_nobody_takes_the_name_of_another_by_another_certificate(
    hosts: HostFactory, hub: Host, beta: Host, authority: Path
) -> None:
    thief = hosts("thief", connect_to=hub.address, tls=options(authority, "operate-person"))
    await_event(thief, "relay-client-connected")  # under its own name it may
    thief.stop()
    beta.stop()
    false = hosts.new("beta", connect_to=hub.address, tls=options(authority, "operate-person"))
    false.start_background()
    refused = await_event(false, "relay-client-error")
    assert "beta" in refused.error
    assert not events_of(false, "relay-client-connected")


@pytest.mark.parametrize("holder", ["nobody", "observe-person"])
def test_who_may_not_bring_paglets_gets_no_link(hosts: HostFactory, hub: Host, authority: Path, holder: str) -> None:
    host = hosts("gamma", connect_to=hub.address, tls=options(authority, holder))
    assert "refused the link" in await_event(host, "relay-client-error").error
    assert hub.client.get_json(f"{hub.address}/relay/diagnostics")["nodes"] == []


def test_a_hub_that_nobody_vouches_for_is_shown_nothing(hosts: HostFactory, hub: Host, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_ca(other)
    issue(other, "beta", addresses=LOOPBACK)
    host = hosts("beta", connect_to=hub.address, tls=options(other, "beta"))
    assert "certificate" in await_event(host, "relay-client-error").error.lower()


def lines(host: Host) -> set[tuple[str, str]]:
    """Return who did what, as the audit log of a host has it."""
    return {(entry["key"], entry["route"]) for entry in audited(host)}
