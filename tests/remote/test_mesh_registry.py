from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import HostError, RemoteHostError, SerializationError
from paglets.remote import code_version, mesh
from paglets.remote.mesh import (
    HostRef,
    MeshRegistry,
    decode_mesh_beacon,
    encode_mesh_beacon,
    resolve_code_version,
)


class Network:
    """Registries that reach each other by URL, without sockets."""

    def __init__(self) -> None:
        self.hosts: dict[str, FakeHost] = {}
        self.aliases: dict[str, str] = {}
        self.down: set[str] = set()
        self.requests: list[str] = []
        self.answers: dict[str, Any] = {}
        self.gate: Callable[[str], None] = lambda url: None

    def host(self, name: str, **options: Any) -> FakeHost:
        made = FakeHost(self, name, **options)
        self.hosts[made.address] = made
        return made

    def call(self, url: str, payload: dict[str, Any] | None, timeout: float | None) -> Any:
        assert timeout is not None
        assert 0 < timeout <= mesh.REQUEST_TIMEOUT_SECONDS
        self.gate(url)
        self.requests.append(url)
        if url in self.answers:
            answer = self.answers[url]
            if isinstance(answer, BaseException):
                raise answer
            return json.loads(json.dumps(answer))
        for suffix in ("/health", "/hosts/join"):
            if url.endswith(suffix):
                base = url.removesuffix(suffix)
        base = self.aliases.get(base, base)
        if base in self.down or base not in self.hosts:
            raise RemoteHostError(f"Could not reach {base}: refused")
        host = self.hosts[base]
        if payload is None:
            return host.health()
        return json.loads(json.dumps(host.mesh.receive(json.loads(json.dumps(payload)))))

    # the client of every host
    def get_json(self, url: str, *, timeout: float | None = None) -> Any:
        return self.call(url, None, timeout)

    def post_json(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        return self.call(url, payload, timeout)


class FakeHost:
    def __init__(self, network: Network, name: str, *, relay_mode: bool = False, **options: Any) -> None:
        self.name = name
        self.address = f"http://{name}:1"
        self.client = network
        self.tags = ("x",)
        self.host_properties = {"rack": "3"}
        self.relay_mode = relay_mode
        self.counts = (0, 0)
        self.now = 0.0
        self.update_requests: list[tuple[str, dict[str, Any]]] = []
        self.mesh = MeshRegistry(self, **{"code_version": "v1", "clock": lambda: self.now, **options})

    def agent_counts(self) -> tuple[int, int]:
        return self.counts

    def health(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "address": self.address,
            "code_version": self.mesh.code_version,
            "active_count": self.counts[0],
            "inactive_count": self.counts[1],
            "capabilities": [],
            "tags": list(self.tags),
            "properties": self.host_properties,
        }

    def request_peer_git_update(self, url: str, **options: Any) -> None:
        self.update_requests.append((url, options))

    def online(self) -> list[str]:
        return [ref.name for ref in self.mesh.hosts(online_only=True)]


@pytest.fixture
def network() -> Network:
    return Network()


def ref(name: str = "beta", **changes: Any) -> HostRef:
    values: dict[str, Any] = {
        "name": name,
        "url": f"http://{name}:1",
        "code_version": "v1",
        "online": True,
        "last_seen": 100.0,
        "active_count": 0,
        "inactive_count": 0,
    }
    return HostRef(**{**values, **changes})


# the own record


def test_the_own_record_is_current(network: Network) -> None:
    alpha = network.host("alpha")
    alpha.counts = (3, 4)
    (own,) = alpha.mesh.hosts()
    assert (own.name, own.url, own.online, own.active_count, own.inactive_count) == (
        "alpha",
        "http://alpha:1",
        True,
        3,
        4,
    )
    assert (own.tags, own.properties, own.code_version) == (("x",), {"rack": "3"}, "v1")
    assert abs(own.last_seen - time.time()) < 60
    assert alpha.mesh.hosts(include_self=False) == []
    assert alpha.mesh.lookup("alpha") is not None
    assert alpha.mesh.is_online("http://alpha:1/")
    assert alpha.mesh.resolve_url("alpha") == "http://alpha:1"


def test_options_have_floors(network: Network) -> None:
    registry = MeshRegistry(
        network.host("alpha"),
        code_version="v",
        multicast=False,
        lan_discovery=False,
        lan_discovery_interval=0,
        gossip_interval=0,
        offline_after=0,
    )
    assert (registry.lan_discovery_interval, registry.gossip_interval, registry.offline_after) == (1.0, 0.05, 0.1)
    assert (registry.multicast, registry.lan_discovery, registry.enabled) == (False, False, True)
    assert (registry.code_version, registry.version_warning) == ("v", None)
    assert registry.discover_lan_once(force=True) == []


# joining


def test_join_makes_both_know_each_other_and_their_friends(network: Network) -> None:
    alpha, beta, gamma = (network.host(name) for name in ("alpha", "beta", "gamma"))
    beta.mesh.join(gamma.address)
    known = alpha.mesh.join("beta:1/")
    assert [found.name for found in known] == ["alpha", "beta", "gamma"]
    assert beta.online() == ["alpha", "beta", "gamma"]
    assert network.requests[-2:] == ["http://beta:1/health", "http://beta:1/hosts/join"]


def test_join_of_a_dead_host(network: Network) -> None:
    alpha = network.host("alpha")
    network.host("beta")
    alpha.mesh.join("beta:1")
    network.down.add("http://beta:1")
    known = alpha.mesh.join("beta:1")
    assert [(found.name, found.online) for found in known] == [("alpha", True), ("beta", False)]
    assert "refused" in str(known[1].error)
    assert [found.name for found in alpha.mesh.join("http://nobody:1")] == ["alpha", "beta"]


@pytest.mark.parametrize(
    "answer",
    [None, [], "text", {}, {"name": "b", "code_version": "v1"}, ValueError("boom"), OSError("down"), KeyError("x")],
)
def test_nonsense_from_a_peer_marks_it_offline(network: Network, answer: Any) -> None:
    alpha, beta = network.host("alpha"), network.host("beta")
    alpha.mesh.join(beta.address)
    network.answers["http://beta:1/health"] = answer
    alpha.mesh.gossip_once()
    found = alpha.mesh.lookup("beta")
    assert found is not None
    assert not found.online
    assert found.error


def test_unreadable_friends_of_a_peer_are_skipped(network: Network) -> None:
    alpha, beta = network.host("alpha"), network.host("beta")
    network.answers["http://beta:1/hosts/join"] = {
        "hosts": ["junk", {}, {"name": "x"}, ref("gamma").to_wire(), beta.mesh.refresh_self().to_wire()]
    }
    alpha.mesh.join(beta.address)
    assert alpha.online() == ["alpha", "beta", "gamma"]


def test_what_others_tell_of_oneself_is_ignored(network: Network) -> None:
    alpha, beta = network.host("alpha"), network.host("beta")
    network.answers["http://beta:1/hosts/join"] = {"hosts": [ref("alpha", online=False, active_count=99).to_wire()]}
    alpha.mesh.join(beta.address)
    own = alpha.mesh.lookup("alpha")
    assert own is not None
    assert (own.online, own.active_count) == (True, 0)


# gossip


def test_two_seeded_hosts_know_each_other_after_a_round_each(network: Network) -> None:
    alpha = network.host("alpha", peers=["beta:1"])
    beta = network.host("beta", peers=["http://alpha:1/"])
    alpha.mesh.gossip_once()
    beta.mesh.gossip_once()
    assert alpha.online() == beta.online() == ["alpha", "beta"]


def test_a_stopped_peer_is_offline_after_one_round(network: Network) -> None:
    alpha, beta = network.host("alpha", peers=["beta:1"]), network.host("beta")
    alpha.mesh.gossip_once()
    network.down.add(beta.address)
    alpha.mesh.gossip_once()
    found = alpha.mesh.lookup("beta")
    assert found is not None
    assert (found.online, alpha.mesh.is_online("beta")) == (False, False)
    assert found.error == "Could not reach http://beta:1: refused"
    network.down.clear()
    alpha.mesh.gossip_once()
    assert alpha.mesh.is_online("beta")


def test_a_round_visits_everybody_once(network: Network) -> None:
    alpha = network.host("alpha", peers=[f"h{number}:1" for number in range(20)])
    for number in range(20):
        network.host(f"h{number}")
    alpha.mesh.gossip_once()
    assert sorted(url for url in network.requests if url.endswith("/health")) == sorted(
        f"http://h{number}:1/health" for number in range(20)
    )
    assert len(alpha.online()) == 21


def test_a_silent_peer_grows_stale(network: Network) -> None:
    alpha, beta = network.host("alpha", offline_after=5.0), network.host("beta")
    alpha.mesh.join(beta.address)
    alpha.now = 4.9
    assert alpha.mesh.is_online("beta")
    alpha.now = 5.0
    found = alpha.mesh.lookup("beta")
    assert found is not None
    assert (found.online, found.error) == (False, "stale mesh peer")


def test_a_seed_under_another_address_is_visited_only_while_its_host_is_offline(network: Network) -> None:
    alpha, beta = network.host("alpha", peers=["localhost:7"]), network.host("beta")
    network.aliases["http://localhost:7"] = beta.address
    alpha.mesh.gossip_once()
    assert alpha.online() == ["alpha", "beta"]
    network.requests.clear()
    alpha.mesh.gossip_once()
    assert network.requests == ["http://beta:1/health", "http://beta:1/hosts/join"]


def test_a_peer_that_answers_only_at_another_address_is_not_online(network: Network) -> None:
    alpha, beta = network.host("alpha"), network.host("beta")
    alpha.mesh.join(beta.address)
    network.answers["http://beta:1/health"] = RemoteHostError("no route")
    alpha.mesh.gossip_once()
    network.aliases["http://localhost:7"] = beta.address
    alpha.mesh.join("localhost:7")
    assert alpha.online() == ["alpha"]


def test_a_seed_that_is_this_host(network: Network) -> None:
    alpha = network.host("alpha", peers=["localhost:7", "http://alpha:1/"])
    network.aliases["http://localhost:7"] = alpha.address
    alpha.mesh.gossip_once()
    alpha.mesh.gossip_once()
    assert [found.name for found in alpha.mesh.hosts()] == ["alpha"]
    assert network.requests == ["http://localhost:7/health"]


# versions


def test_hosts_of_different_versions_do_not_join(network: Network) -> None:
    alpha, beta = network.host("alpha"), network.host("beta", code_version="v2")
    alpha.mesh.join(beta.address)
    beta.mesh.join(alpha.address)
    assert alpha.online() == ["alpha"]
    assert beta.online() == ["beta"]
    assert alpha.update_requests == [(beta.address, {"health": beta.health()})]
    assert beta.update_requests == [(alpha.address, {"health": alpha.health()})]
    assert not any(url.endswith("/join") for url in network.requests)


def test_who_is_left_out_is_told_once_and_remembered(network: Network) -> None:
    told: list[HostRef] = []
    alpha = network.host("alpha", left_out=told.append)
    beta = network.host("beta", code_version="v2")
    for _ in range(2):
        alpha.mesh.join(beta.address)
    assert [(found.url, found.code_version) for found in told] == [(beta.address, "v2")]
    assert alpha.mesh.left_out() == told
    # What others say of one that is gone is no news.
    assert alpha.mesh.register(ref("gone", code_version="v2", online=False)) is None
    assert len(told) == 1
    with pytest.raises(HostError, match=r"'beta' is not known after 0 s: it is left out, .*'v2'"):
        alpha.mesh.wait_for_host("beta", timeout=0)
    beta.mesh.code_version = "v3"
    alpha.mesh.join(beta.address)
    assert [found.code_version for found in told] == ["v2", "v3"]
    beta.mesh.code_version = "v1"
    alpha.mesh.join(beta.address)
    assert alpha.online() == ["alpha", "beta"]
    assert alpha.mesh.left_out() == []


def test_a_host_that_takes_the_other_version_leaves_nobody_out(network: Network) -> None:
    alpha, beta = network.host("alpha"), network.host("beta", code_version="v2")
    alpha.mesh.join(beta.address)
    alpha.mesh.code_version = "v2"
    assert alpha.mesh.left_out() == []


def test_a_mismatching_ref_asks_for_an_update(network: Network) -> None:
    alpha = network.host("alpha")
    assert alpha.mesh.register(ref(code_version="v2")) is None
    assert alpha.update_requests == [("http://beta:1", {"validate_health": True, "report_unreachable": False})]
    assert [found.name for found in alpha.mesh.hosts()] == ["alpha"]


def test_in_relay_mode_a_mismatching_host_is_kept_offline(network: Network) -> None:
    alpha, beta = network.host("alpha", relay_mode=True), network.host("beta", code_version="v2")
    assert alpha.mesh.register(ref("gamma", code_version="v3")) is None
    alpha.mesh.join(beta.address)
    offline = [(found.name, found.online, found.error) for found in alpha.mesh.hosts(include_self=False)]
    assert offline == [
        ("beta", False, "code version 'v2' != 'v1'"),
        ("gamma", False, "code version 'v3' != 'v1'"),
    ]
    assert alpha.update_requests == []


def test_a_host_without_updates(network: Network) -> None:
    alpha: Any = network.host("alpha")
    alpha.request_peer_git_update = None
    assert alpha.mesh.register(ref(code_version="v2")) is None


def test_a_failing_update_request_harms_nobody(network: Network) -> None:
    alpha: Any = network.host("alpha")

    def fail(url: str, **options: Any) -> None:
        raise HostError("git is gone")

    alpha.request_peer_git_update = fail
    assert alpha.mesh.register(ref(code_version="v2")) is None


# being told


def test_register_returns_what_is_known(network: Network) -> None:
    alpha = network.host("alpha")
    registered = alpha.mesh.register(ref(url="http://beta:1/", tags=(" GPU",)))
    assert registered == ref(tags=("gpu",))
    assert alpha.mesh.lookup("beta") == alpha.mesh.lookup("http://beta:1/") == registered
    told_of_itself = alpha.mesh.register_wire(ref("alpha", active_count=99).to_wire())
    assert told_of_itself is not None
    assert (told_of_itself.name, told_of_itself.active_count) == ("alpha", 0)
    assert alpha.mesh.peer_urls() == ["http://beta:1"]
    assert alpha.mesh.peer_urls(include_known=False) == []


def test_an_unreadable_payload_is_refused(network: Network) -> None:
    alpha = network.host("alpha")
    with pytest.raises(SerializationError, match="name"):
        alpha.mesh.register_wire({"url": "http://x:1", "code_version": "v1"})


def test_mark_offline_keeps_last_seen(network: Network) -> None:
    alpha = network.host("alpha")
    alpha.mesh.register(ref(last_seen=12.0))
    alpha.mesh.mark_offline("http://beta:1/", "unplugged")
    assert alpha.mesh.lookup("beta") == ref(last_seen=12.0, online=False, error="unplugged")
    alpha.mesh.mark_offline("http://unknown:1", "who?")
    assert len(alpha.mesh.hosts()) == 2


def test_seeds(network: Network) -> None:
    alpha = network.host("alpha")
    alpha.mesh.add_seed("beta:1/")
    alpha.mesh.add_seed("http://alpha:1/")
    alpha.mesh.register(ref("gamma"))
    assert alpha.mesh.peer_urls() == ["http://beta:1", "http://gamma:1"]
    assert alpha.mesh.peer_urls(include_known=False) == ["http://beta:1"]
    with pytest.raises(ValueError, match="Not a host URL"):
        alpha.mesh.add_seed(" ")


def test_lookup_of_the_unknown(network: Network) -> None:
    alpha = network.host("alpha")
    assert alpha.mesh.lookup("nobody") is None
    assert alpha.mesh.lookup("") is None
    assert not alpha.mesh.is_online("nobody")
    assert alpha.mesh.resolve_url("nobody:5/") == "http://nobody:5"


def test_hosts_are_sorted_by_name_and_url(network: Network) -> None:
    alpha = network.host("alpha")
    for name, url in (("c", "http://2:1"), ("c", "http://1:1"), ("b", "http://9:1")):
        alpha.mesh.register(ref(name, url=url))
    assert [(found.name, found.url) for found in alpha.mesh.hosts(include_self=False)] == [
        ("b", "http://9:1"),
        ("c", "http://1:1"),
        ("c", "http://2:1"),
    ]


def test_a_new_address_replaces_the_own_record(network: Network) -> None:
    alpha, beta = network.host("alpha"), network.host("beta")
    alpha.mesh.join(beta.address)
    alpha.address = "http://alpha-new:1"
    network.hosts[alpha.address] = alpha
    own = alpha.mesh.local_address_changed("http://alpha:1/")
    assert own.url == "http://alpha-new:1"
    alpha.mesh.gossip_once()  # beta still tells of the old address
    assert [found.url for found in alpha.mesh.hosts()] == ["http://alpha-new:1", "http://beta:1"]


# waiting


def test_wait_for_a_host_that_is_there(network: Network) -> None:
    alpha, beta = network.host("alpha"), network.host("beta")
    alpha.mesh.join(beta.address)
    network.requests.clear()
    assert alpha.mesh.wait_for_host("beta", timeout=0).name == "beta"
    assert network.requests == []


def test_wait_for_host_finds_a_host_by_url_and_by_name(network: Network) -> None:
    alpha, beta, gamma = (network.host(name) for name in ("alpha", "beta", "gamma"))
    assert alpha.mesh.wait_for_host("http://beta:1", timeout=5).name == "beta"
    beta.mesh.join(gamma.address)
    assert alpha.mesh.wait_for_host("gamma", timeout=5).url == "http://gamma:1"


def test_wait_for_host_sees_who_registers_meanwhile(network: Network) -> None:
    alpha = network.host("alpha", clock=time.monotonic, peers=["seed:1"])
    asked = threading.Event()
    network.answers["http://seed:1/health"] = RemoteHostError("not yet")
    found: list[HostRef] = []
    network.gate = lambda url: asked.set()
    waiter = threading.Thread(target=lambda: found.append(alpha.mesh.wait_for_host("beta", timeout=30, interval=20)))
    waiter.start()
    assert asked.wait(5)
    alpha.mesh.register(ref("beta"))
    waiter.join(5)
    assert not waiter.is_alive()
    assert [waited.name for waited in found] == ["beta"]


def test_wait_for_host_says_why_it_gave_up(network: Network) -> None:
    alpha, beta = network.host("alpha", clock=time.monotonic), network.host("beta")
    alpha.mesh.join(beta.address)
    network.down.add(beta.address)
    alpha.mesh.gossip_once()
    with pytest.raises(HostError, match=r"'beta' is not online after 0\.02 s: Could not reach"):
        alpha.mesh.wait_for_host("beta", timeout=0.02, interval=0.01)
    with pytest.raises(HostError, match="'gamma' is not known"):
        alpha.mesh.wait_for_host("gamma", timeout=0)
    with pytest.raises(HostError, match=r"'http://delta:1' is not known .* refused"):
        alpha.mesh.wait_for_host("http://delta:1", timeout=0.02, interval=0.01)


# the background


@pytest.fixture
def started() -> Iterator[Callable[[FakeHost], FakeHost]]:
    running: list[FakeHost] = []

    def start(host: FakeHost) -> FakeHost:
        running.append(host)
        host.mesh.start()
        return host

    yield start
    for host in running:
        host.mesh.stop()


def mesh_threads(name: str) -> list[str]:
    """Return the names of the threads that make rounds; those of single contacts end by themselves."""
    return [thread.name for thread in threading.enumerate() if thread.name == f"paglets-mesh-{name}"]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.002)
    return True


def test_a_reachable_peer_is_known_when_start_returns(
    network: Network, started: Callable[[FakeHost], FakeHost]
) -> None:
    network.host("beta")
    alpha = started(network.host("alpha", peers=["beta:1"], clock=time.monotonic))
    assert alpha.online() == ["alpha", "beta"]


def test_the_background_gossips_and_stops(network: Network, started: Callable[[FakeHost], FakeHost]) -> None:
    beta = network.host("beta")
    alpha = started(network.host("alpha", peers=["beta:1"], gossip_interval=0.05, clock=time.monotonic))
    beta.counts = (5, 0)

    def sees_count() -> bool:
        found = alpha.mesh.lookup("beta")
        return found is not None and found.active_count == 5

    assert eventually(sees_count)
    assert mesh_threads("alpha") == ["paglets-mesh-alpha"]
    alpha.mesh.start()
    alpha.mesh.stop()
    alpha.mesh.stop()
    assert mesh_threads("alpha") == []
    alpha.mesh.start()
    assert mesh_threads("alpha") == ["paglets-mesh-alpha"]


def test_start_does_not_wait_for_a_seed_that_does_not_answer(
    network: Network, started: Callable[[FakeHost], FakeHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh, "FIRST_ROUND_SECONDS", 0.05)
    network.host("beta")
    release, hangs = threading.Event(), threading.Event()

    def gate(url: str) -> None:
        if url.startswith("http://hole:1"):
            hangs.set()
            release.wait(10)
            raise RemoteHostError("timed out")

    network.gate = gate
    try:
        alpha = started(network.host("alpha", peers=["beta:1", "hole:1"], clock=time.monotonic))
        assert hangs.wait(5)
        assert eventually(lambda: alpha.mesh.is_online("beta"))
        assert not release.is_set()
    finally:
        release.set()


def test_stop_ends_a_long_pause_at_once(network: Network, started: Callable[[FakeHost], FakeHost]) -> None:
    alpha = started(network.host("alpha", gossip_interval=3600.0))
    alpha.mesh.stop()
    assert mesh_threads("alpha") == []


def test_a_round_that_fails_does_not_end_the_gossip(network: Network, started: Callable[[FakeHost], FakeHost]) -> None:
    beta = network.host("beta")
    alpha: Any = network.host("alpha", peers=["beta:1"], gossip_interval=0.05, clock=time.monotonic)
    failing = threading.Event()
    counts = alpha.agent_counts

    def agent_counts() -> tuple[int, int]:
        if threading.current_thread() is threading.main_thread() or failing.is_set():
            return counts()
        failing.set()
        raise RuntimeError("host is busy")

    alpha.agent_counts = agent_counts
    started(alpha)
    assert failing.is_set()
    assert eventually(lambda: alpha.mesh.is_online(beta.name))


def test_a_disabled_mesh_does_not_gossip(network: Network) -> None:
    alpha = network.host("alpha", enabled=False, peers=["beta:1"])
    alpha.mesh.start()
    assert mesh_threads("alpha") == []
    assert network.requests == []
    alpha.mesh.stop()


def test_a_round_is_bounded(network: Network) -> None:
    alpha = network.host("alpha", peers=[f"h{number}:1" for number in range(50)])
    assert len(alpha.mesh._roster.due(mesh.PEERS_PER_ROUND)) == mesh.PEERS_PER_ROUND


def test_many_threads(network: Network) -> None:
    alpha = network.host("alpha")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(50):
                alpha.mesh.register(ref(f"h{number}", last_seen=float(turn)))
                alpha.mesh.hosts()
                alpha.mesh.mark_offline(f"http://h{number}:1", "x")
                assert not alpha.mesh.is_online(f"h{number}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# beacons


def test_beacon_round_trip() -> None:
    announced = ref(tags=("a",), properties={"k": "v"})
    data = encode_mesh_beacon(announced)
    assert json.loads(data) == {"kind": "paglets.remote.mesh.v1", "host": announced.to_wire()}
    assert decode_mesh_beacon(data) == announced


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b'{"kind": "other", "host": {}}',
        b'{"kind": "paglets.remote.mesh.v1"}',
        b'{"kind": "paglets.remote.mesh.v1", "host": {"name": "x"}}',
        b"[" * 5000,
    ],
)
def test_anything_else_is_no_beacon(data: bytes) -> None:
    assert decode_mesh_beacon(data) is None


def test_constants() -> None:
    assert mesh.MESH_BEACON_KIND == "paglets.remote.mesh.v1"
    assert (mesh.MESH_MULTICAST_GROUP, mesh.MESH_MULTICAST_PORT) == ("239.42.74.53", 48765)
    assert (mesh.MESH_LAN_DISCOVERY_INTERVAL_SECONDS, mesh.MESH_LAN_DISCOVERY_TIMEOUT_SECONDS) == (10.0, 0.25)
    assert mesh.MESH_LAN_DISCOVERY_WORKERS == 64


# the code version


@pytest.fixture
def no_version_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAGLETS_MESH_VERSION", raising=False)


def test_code_version_by_override_and_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGLETS_MESH_VERSION", " from-env ")
    assert resolve_code_version(" given ") == ("given", None)
    assert resolve_code_version(" ") == ("from-env", None)
    assert resolve_code_version() == ("from-env", None)


def git(directory: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout.strip()


@pytest.mark.usefixtures("no_version_variable")
def test_code_version_from_the_checkout_of_the_package_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "src" / "paglets"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "a project of somebody else")
    monkeypatch.setattr(code_version.paglets, "__file__", str(package / "__init__.py"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))

    code_version._git_head.cache_clear()
    version, warning = resolve_code_version()
    assert version.startswith("paglets-")
    assert version.endswith("-no-git")
    assert warning is not None
    assert version in warning

    monkeypatch.delenv("GIT_DIR")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "its own checkout")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    code_version._git_head.cache_clear()
    assert resolve_code_version() == (git_head_of(tmp_path, monkeypatch), None)
    code_version._git_head.cache_clear()


def git_head_of(directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("GIT_DIR")
    return git(directory, "rev-parse", "HEAD")


@pytest.mark.usefixtures("no_version_variable")
def test_code_version_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_version.shutil, "which", lambda name: None)
    code_version._git_head.cache_clear()
    version, warning = resolve_code_version()
    code_version._git_head.cache_clear()
    assert version.endswith("-no-git")
    assert warning is not None
