"""Who gets into a running host, as what, and how often: real hosts, real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from paglets.core.errors import HostError, OverloadedError
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from paglets.runtime.http.access import ACCESS
from paglets.runtime.http.connection import ServerLimits
from paglets.runtime.http.gate import Gate
from paglets.runtime.http.guards import Guard, GuardPolicy
from paglets.runtime.http.keyring import Keyring
from paglets.runtime.http.quotas import Quotas
from paglets.runtime.relay import hub as relay_hub
from paglets.security.key_file import change_key_file
from paglets.security.roles import Role
from tests.agents.http_agents import Talker
from tests.runtime.http.wire import Listener, Served, Wire, ask, in_threads, say
from tests.security.support import TALKER, add_key, audited, bearer, look_again
from tests.support import Gate as Barrier
from tests.support import HostFactory, events_of, eventually

ROLES = (Role.OBSERVE, Role.MESSAGE, Role.OPERATE, Role.ADMIN)


# --- binding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0", "", ["127.0.0.1", "0.0.0.0"]])
def test_a_host_that_strangers_reach_does_not_start_without_a_key(hosts: HostFactory, address: str | list[str]) -> None:
    host = hosts.new(host=address)
    with pytest.raises(HostError, match="`paglets keys new NAME") as caught:
        host.start_background()
    assert "\n" not in str(caught.value)
    assert not host.running
    assert not events_of(host)


def test_it_starts_with_a_key_or_when_told_that_this_is_meant(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    key = add_key(path, "watcher", Role.OBSERVE)
    for name, options in (("one", {"api_key": key}), ("filed", {"keys": path})):
        host = hosts(name, host="0.0.0.0", **options)
        local = f"http://127.0.0.1:{host.port}"
        assert ask(local, "GET", "/health").status == 401
        assert "insecure" not in ask(local, "GET", "/health", headers=bearer(key)).json()
    meant = hosts("meant", host="0.0.0.0", insecure=True)
    assert ask(f"http://127.0.0.1:{meant.port}", "GET", "/health").json()["insecure"] is True


def test_loopback_needs_nothing(hosts: HostFactory) -> None:
    for address in ("127.0.0.1", "localhost"):
        host = hosts(f"near-{address[0]}", host=address)
        assert "insecure" not in host.health()


def test_a_key_file_that_others_may_read_keeps_a_host_from_starting(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    add_key(path, "watcher", Role.OBSERVE)
    path.chmod(0o644)
    with pytest.raises(HostError, match="chmod 600"):
        hosts.new(keys=path).start_background()


# --- roles ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, dict[Role, str], Path]]:
    factory = HostFactory(tmp_path_factory.mktemp("locked"))
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys = {role: add_key(path, str(role), role) for role in ROLES}
    try:
        yield factory("locked", keys=path, api_key="classic"), keys, path
    finally:
        factory.close()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_opens_its_routes_and_no_others(locked: tuple[Host, dict[Role, str], Path], role: Role) -> None:
    host, keys, _ = locked
    for template, methods in ACCESS.items():
        for method, needed in methods.items():
            if method == "HEAD" or (template.startswith("/admin") and role is Role.ADMIN):
                continue  # an answer without its body, and what would be done
            reply = ask(host.address, method, template.replace("{}", "nobody"), b"{}", bearer(keys[role]))
            refused = reply.status == 403 and "needs the role" in reply.text
            assert refused is (role < needed), (method, template, reply.status)
            assert reply.status != 401


@pytest.mark.parametrize("role", ROLES)
def test_a_role_passes_a_hub_only_where_it_may(
    locked: tuple[Host, dict[Role, str], Path], role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_hub, "RETURN_SECONDS", 0.01)  # nobody comes
    host, keys, _ = locked
    for target in ("locked", "nobody"):  # the hub itself by its relay address, and what would be behind it
        for method, path, needed in (
            ("GET", "/health", Role.OBSERVE),
            ("POST", "/agents/x/messages", Role.MESSAGE),
            ("POST", "/agents/x/dispose", Role.OPERATE),
            ("GET", "/agents/x%2Fstate", Role.MESSAGE),
            ("GET", "/of-another-version", Role.ADMIN),
        ):
            reply = ask(host.address, method, f"/relay/hosts/{target}{path}", b"{}", bearer(keys[role]))
            refused = reply.status == 403 and "needs the role" in reply.text
            assert refused is (role < needed), (method, target, path, reply.status, reply.text)
            assert reply.status != 401


def test_the_one_key_of_old_opens_everything(locked: tuple[Host, dict[Role, str], Path]) -> None:
    host, _, _ = locked
    for template, methods in ACCESS.items():
        for method in methods:
            if method != "HEAD" and not template.startswith("/admin"):
                reply = ask(host.address, method, template.replace("{}", "nobody"), b"{}", bearer("classic"))
                assert reply.status != 401
                assert "needs the role" not in reply.body.decode()


def test_who_may_only_see_sees_no_state(locked: tuple[Host, dict[Role, str], Path]) -> None:
    host, keys, _ = locked
    agent_id = host.create(Talker).agent_id
    for query in ("include_state=1", "include%5Fstate=true", "state=all&include_state=yes"):
        assert ask(host.address, "GET", f"/agents?{query}", headers=bearer(keys[Role.OBSERVE])).status == 403
        reply = ask(host.address, "GET", f"/agents?{query}", headers=bearer(keys[Role.MESSAGE]))
        assert reply.json()["agents"][0]["state"]
    seen = ask(host.address, "GET", "/agents", headers=bearer(keys[Role.OBSERVE])).json()["agents"]
    assert [each["agent_id"] for each in seen] == [agent_id]
    assert "state" not in seen[0]
    host.dispose(agent_id)


def test_a_body_of_somebody_who_may_not_is_not_read(locked: tuple[Host, dict[Role, str], Path]) -> None:
    host, keys, _ = locked
    head = f"POST /agents HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {keys[Role.MESSAGE]}\r\n"
    for more in ("Content-Type: application/json", "Content-Type: application/x-paglets-movement"):
        with Wire(host.address) as wire:
            reply = wire.send(f"{head}{more}\r\nContent-Length: 100000000\r\n\r\n".encode()).reply()
            assert reply.status == 403
            assert wire.ended()


# --- keys that change -------------------------------------------------------------------------------------------------


def test_keys_change_while_a_host_runs(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    host = hosts("rotating", keys=path)
    assert ask(host.address, "GET", "/health").status == 200
    old = add_key(path, "laptop", Role.OBSERVE)

    def status(key: str | None = None) -> int:
        return ask(host.address, "GET", "/health", headers={} if key is None else bearer(key)).status

    # Without anybody's help, within about a second.
    eventually(lambda: status() == 401, "the key file to be taken up")
    assert status(old) == 200
    new = add_key(path, "laptop", Role.OBSERVE)
    look_again(host)
    assert (status(old), status(new)) == (200, 200)
    now = time.time()
    change_key_file(path, lambda content: replace(content, keys=(content.keys[0].ended(now), *content.keys[1:])))
    look_again(host)
    assert (status(old), status(new)) == (401, 200)
    path.write_text("[[keys]\n")
    look_again(host)
    look_again(host)
    assert (status(old), status(new)) == (401, 200)
    assert len(events_of(host, "keys-fault")) == 1
    path.unlink()
    look_again(host)
    assert (status(), status(old), status(new)) == (401, 401, 401)


def test_a_connection_does_not_outlive_its_key(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    key = add_key(path, "laptop", Role.OBSERVE)
    host = hosts("cutting", keys=path)
    with Wire(host.address) as wire:
        assert wire.ask("GET", "/health", headers=bearer(key)).status == 200
        change_key_file(path, lambda content: replace(content, keys=tuple(each.ended(1.0) for each in content.keys)))
        look_again(host)
        assert wire.ask("GET", "/health", headers=bearer(key)).status == 401
        assert wire.ended()


# --- limits -----------------------------------------------------------------------------------------------------------


def test_too_many_requests_are_answered_with_429_and_when_to_come_again(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    slow = add_key(path, "slow", Role.OBSERVE, requests_per_second=0.01)
    other = add_key(path, "other", Role.OBSERVE)
    host = hosts("limited", keys=path)
    assert ask(host.address, "GET", "/health", headers=bearer(slow)).status == 200
    reply = ask(host.address, "GET", "/health", headers=bearer(slow))
    assert (reply.status, reply.error) == (429, "OverloadedError")
    assert 90 <= int(reply.headers["retry-after"]) <= 100
    assert ask(host.address, "GET", "/health", headers=bearer(other)).status == 200
    with HostClient(api_key=slow) as client, pytest.raises(OverloadedError, match="'slow' may send"):
        client.get_json(f"{host.address}/health")


def test_a_key_has_so_many_connections(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    key = add_key(path, "few", Role.OBSERVE, connections=2)
    host = hosts("seated", keys=path)
    with Wire(host.address) as one, Wire(host.address) as two:
        for wire in (one, two, one):
            assert wire.ask("GET", "/health", headers=bearer(key)).status == 200
        assert ask(host.address, "GET", "/health", headers=bearer(key)).status == 429
    eventually(lambda: ask(host.address, "GET", "/health", headers=bearer(key)).status == 200, "a free connection")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("media", ["application/json", "application/x-paglets-movement"])
def test_bytes_on_their_way_are_bounded(hosts: HostFactory, tmp_path: Path, media: str, chunked: bool) -> None:
    path = tmp_path / "keys.toml"
    key = add_key(path, "thin", Role.OPERATE, bytes_in_flight=10_000)
    host = hosts("thin", keys=path)
    head = f"POST /agents HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: {media}\r\n"
    with Wire(host.address) as wire:
        if chunked:
            wire.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            wire.send(b"4e24\r\n" + b"PGLF" + b"\0" * 20_000)
        else:
            wire.send(f"{head}Content-Length: 10001\r\n\r\n".encode())
        reply = wire.reply()
    assert (reply.status, reply.error) == (413, "PayloadTooLargeError")
    assert ask(host.address, "POST", "/agents", {"agent_class_name": "no:Such"}, bearer(key)).status == 400


def test_one_caller_s_flood_leaves_the_others_answered(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    flooding = add_key(path, "flooding", Role.ADMIN)
    other = add_key(path, "other", Role.OBSERVE)
    policy = GuardPolicy(None, frozenset({"localhost"}))
    gate = Gate(Keyring(None, [path]), quotas=Quotas(max_requests=20))
    with Served(Guard(Listener(), lambda: policy, gate)) as served:
        waiting = [Wire(served.address) for _ in range(30)]
        for wire in waiting:
            wire.send(f"GET /silent HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {flooding}\r\n\r\n".encode())
        eventually(lambda: served.requests == 10, "half of the requests to be let in")
        assert ask(served.address, "GET", "/", headers=bearer(flooding)).status == 429
        assert ask(served.address, "GET", "/", headers=bearer(other)).status == 200
        for wire in waiting:
            wire.sock.close()
        eventually(lambda: served.requests == 0, "the flood to end")
        assert ask(served.address, "GET", "/", headers=bearer(flooding)).status == 200


def test_messages_that_wait_are_a_flood_as_well(hosts: HostFactory, tmp_path: Path, gate: Barrier) -> None:
    path = tmp_path / "keys.toml"
    flooding, other = (add_key(path, name, Role.MESSAGE) for name in ("flooding", "other"))
    host = hosts("flooded", keys=path)
    busy, idle = host.create(Talker), host.create(Talker)
    served = threading.Thread(
        target=lambda: ask(
            host.address, "POST", f"/agents/{busy.agent_id}/messages", say("wait", gate=str(gate)), bearer(flooding)
        )
    )
    served.start()
    gate.await_entered()
    replies = in_threads(
        lambda _: ask(host.address, "POST", f"/agents/{idle.agent_id}/messages", say("count"), bearer(other)).status, 8
    )
    assert replies == [200] * 8
    gate.open()
    served.join()


def test_one_address_cannot_take_all_connections() -> None:
    with Served(Listener(), ServerLimits(max_connections=10, max_connections_per_address=3)) as served:
        kept = [Wire(served.address) for _ in range(3)]
        assert kept[-1].ask("GET", "/").status == 200
        with Wire(served.address) as one_more:
            assert one_more.reply().status == 503
            assert one_more.ended()
        kept.pop().sock.close()
        eventually(lambda: served.connections == 2, "a connection to end")
        assert ask(served.address, "GET", "/").status == 200
        for wire in kept:
            wire.sock.close()


# --- the audit log ----------------------------------------------------------------------------------------------------


def test_refused_and_privileged_requests_are_written_down(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    operator, watcher = add_key(path, "operator", Role.OPERATE), add_key(path, "watcher", Role.OBSERVE)
    host = hosts("written", keys=path)
    ask(host.address, "GET", "/health", headers=bearer(watcher))  # neither
    ask(host.address, "GET", "/health")
    ask(host.address, "POST", "/agents/some-id/dispose", headers=bearer(watcher))
    body = {"agent_class_name": TALKER, "agent_id": "made", "init": "private"}
    ask(host.address, "POST", "/agents?note=private", body, bearer(operator))
    ask(host.address, "POST", "/agents/made/dispose", None, bearer(operator))
    ask(host.address, "GET", "/health", headers={**bearer(watcher), "Host": "evil.example"})
    ask(host.address, "GET", f"/nowhere/{watcher}", headers=bearer("wrong"))
    eventually(lambda: len(audited(host)) >= 6, "the lines")
    fields = ("key", "method", "route", "target", "status")
    found = [tuple(entry[field] for field in fields) for entry in audited(host)]
    assert found == [
        ("", "GET", "/health", "", 401),
        ("watcher", "POST", "/agents/{}/dispose", "some-id", 403),
        ("operator", "POST", "/agents", "", 200),
        ("operator", "POST", "/agents/{}/dispose", "made", 200),
        ("", "GET", "", "", 403),
        ("", "GET", "", "", 401),
    ]
    assert {entry["peer"] for entry in audited(host)} == {"127.0.0.1"}
    text = (host.persistence_dir / "audit.log").read_text()
    assert "private" not in text
    assert "pgl_" not in text
