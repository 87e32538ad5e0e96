"""Hosts that find each other by what they announce, over the loopback interface of this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from paglets.remote import admin
from paglets.remote.announcement import SERVICE_TYPE, Announcement
from paglets.remote.client import HostClient
from paglets.remote.discovery import DISCOVERY_ENV, announced_hosts
from paglets.runtime.host import Host
from tests.support import HostFactory, eventually

KEY = "a key that these hosts share"


def takes_multicast() -> bool:
    """Return whether a datagram to the group of multicast DNS comes back on the loopback interface."""
    group, loopback = socket.inet_aton("224.0.0.251"), socket.inet_aton("127.0.0.1")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        try:
            receiver.bind(("", 0))
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + loopback)
            receiver.settimeout(1)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
            sender.sendto(b"here", ("224.0.0.251", receiver.getsockname()[1]))
            return receiver.recv(10) == b"here"
        except OSError:
            return False


pytestmark = pytest.mark.skipif(not takes_multicast(), reason="the loopback interface takes no multicast here")

Starting = Callable[..., Host]


@pytest.fixture
def version() -> str:
    """Give a version that no other host of this machine has."""
    return uuid4().hex


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> Iterator[Starting]:
    """Give what starts hosts that announce themselves and make contact within their own circle."""
    monkeypatch.delenv(DISCOVERY_ENV)
    factory = HostFactory(tmp_path)

    def started(name: str, **options: object) -> Host:
        return factory(name, **{"mesh": True, "mesh_version": version, **options})

    try:
        yield started
    finally:
        factory.close()


def test_hosts_find_each_other_and_notice_an_end(start: Starting) -> None:
    alpha, beta = start("alpha"), start("beta", mesh_offline_after=0.5)
    for one, other in ((alpha, beta), (beta, alpha)):
        assert one.mesh.wait_for_host(other.name).url == other.address
    gone = alpha.address
    eventually(lambda: gone in beta.mesh.peer_urls(include_known=False), "the announcement of alpha")
    alpha.stop()
    eventually(lambda: gone not in beta.mesh.peer_urls(include_known=False), "the announcement to be taken back")
    eventually(lambda: not beta.mesh.is_online("alpha"), "alpha to count as offline")


def test_a_key_goes_only_to_who_has_it(start: Starting) -> None:
    stranger, open_ = start("stranger", api_key="another key"), start("open")
    alpha, beta = start("alpha", api_key=KEY), start("beta", api_key=KEY)
    assert alpha.mesh.wait_for_host("beta").url == beta.address
    assert beta.mesh.wait_for_host("alpha").url == alpha.address
    # Once every announcement was heard, there is nothing to wait for but what must not come.
    heard: set[str] = set()

    def all_heard() -> bool:
        heard.update(each.name for each in announced_hosts(timeout=1.0, key=None))
        return {"stranger", "open", "alpha", "beta"} <= heard

    eventually(all_heard, "all announcements")
    assert set(alpha.mesh.peer_urls()) == {beta.address}
    assert stranger.mesh.peer_urls() == open_.mesh.peer_urls() == []


def test_hosts_of_another_version_are_left_alone(start: Starting) -> None:
    alpha, other = start("alpha"), start("other", mesh_version=uuid4().hex)
    third = start("third")
    assert alpha.mesh.wait_for_host("third").url == third.address
    assert other.mesh.peer_urls() == []
    url, version = other.address, other.mesh.code_version

    def noted() -> bool:
        # Other hosts of this machine may announce themselves as well.
        return (url, version) in [(ref.url, ref.code_version) for ref in alpha.mesh.left_out()]

    eventually(noted, "the announcement of the other version")
    assert url not in alpha.mesh.peer_urls()
    other.stop()
    eventually(lambda: not noted(), "the announcement to be taken back")


def test_switches(start: Starting) -> None:
    silent = start("silent", mesh_multicast=False)
    deaf = start("deaf", mesh_lan_discovery=False)
    alpha = start("alpha")
    assert alpha.mesh.wait_for_host("deaf").url == deaf.address
    assert deaf.mesh.peer_urls(include_known=False) == []
    assert not alpha.mesh.lookup("silent") and silent.mesh.peer_urls() == []
    assert silent.mesh.discover_lan_once() == []
    found: set[str] = set()

    def both_found() -> bool:
        found.update(ref.name for ref in silent.mesh.discover_lan_once(force=True))
        return found == {"alpha", "deaf"}

    eventually(both_found, "the two that announce themselves")


def test_a_first_host_is_found_by_commands(start: Starting, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"host-{uuid4().hex[:8]}"
    host = start(name, api_key=KEY)
    alike = start(f"{name}-other", api_key="another key")
    monkeypatch.setattr(admin, "_ENTRY_PORT", 1)  # nobody is where commands look first
    monkeypatch.setattr(admin, "_MESH_DISCOVERY_SECONDS", 2.0)  # for busy machines
    with HostClient(api_key=KEY) as client:
        found = admin.select_reachable_entry_server(entry_name=name, client=client)
        assert (found.name, found.url) == (name, host.address)
        with pytest.raises(ValueError, match="No paglets host named") as caught:
            admin.select_reachable_entry_server(entry_name=alike.name, client=client)
    assert alike.address not in str(caught.value)
    eventually(
        lambda: (
            [each.url for each in admin.discover_lan_entry_servers(ports=[alike.port], timeout=1.0)] == [alike.address]
        ),
        "the one on that port",
    )
    assert admin.discover_mesh_entry_servers(timeout=0.5, api_key="no key of anybody") == []


def test_a_false_announcement_changes_nothing(start: Starting) -> None:
    from zeroconf import ServiceInfo, Zeroconf

    alpha = start("alpha", api_key=KEY)
    texts = [
        {},
        {"name": "x"},
        {"name": "x", "url": "http://127.0.0.1:1", "version": alpha.mesh.code_version},
        {"name": "x", "url": "\x00", "version": alpha.mesh.code_version, "sig": "f" * 64},
        Announcement("x", "http://127.0.0.1:1", alpha.mesh.code_version).texts("a key of somebody else"),
    ]
    with Zeroconf(interfaces=["127.0.0.1"]) as zeroconf:
        for number, properties in enumerate(texts):
            instance = f"{uuid4().hex[:8]}-{number}.{SERVICE_TYPE}"
            info = ServiceInfo(
                SERVICE_TYPE,
                instance,
                port=1,
                properties=properties,
                server=f"x{number}.local.",
                addresses=[socket.inet_aton("127.0.0.1")],
            )
            zeroconf.register_service(info, cooperating_responders=True)
        beta = start("beta", api_key=KEY)
        assert alpha.mesh.wait_for_host("beta").url == beta.address
        assert alpha.mesh.peer_urls() == [beta.address]


def test_an_environment_can_switch_it_off(start: Starting, monkeypatch: pytest.MonkeyPatch) -> None:
    start("alpha")
    assert start("gamma").mesh.wait_for_host("alpha")
    monkeypatch.setenv(DISCOVERY_ENV, "off")
    beta = start("beta")
    assert announced_hosts(timeout=60, key=None) == []
    assert beta.mesh.peer_urls() == []
