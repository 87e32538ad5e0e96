"""A host that was told `auto` follows its machine to another address, and its paglets stay reachable."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import HostUnreachableError, InsufficientStorageError, TransferError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.remote.references import PagletProxyRef
from paglets.runtime import options
from paglets.runtime.attachment import EMPTY, Attachment
from paglets.runtime.frames import Frame, FrameType, Op
from paglets.runtime.host import Host
from paglets.runtime.http.server import bind
from paglets.runtime.worker.main import Worker
from paglets.serialization.blob import blob_from_wire
from paglets.serialization.values import pack
from paglets.services.registry import ServiceRegistry
from tests.agents.actor import Actor
from tests.agents.inside import Insider
from tests.agents.services import CONTRACT, Painter
from tests.agents.settlers import Fleeting, Settler, SettlerState
from tests.agents.talk import Talker
from tests.runtime.http.wire import Wire, ask
from tests.support import Gate, HostFactory, await_event, events_of, eventually

FIRST, SECOND = "127.0.0.1", "127.0.0.2"
QUIET: dict[str, Any] = {"mesh_multicast": False, "mesh_lan_discovery": False}


@dataclass
class Machine:
    """The machine that hosts believe to run on."""

    address: str = FIRST
    looks: int = 0

    def lan_address(self) -> str:
        self.looks += 1
        return self.address

    def await_looks(self, count: int = 2) -> None:
        """Wait until that many looks at the address have begun from now on, so that all but the last have ended."""
        wanted = self.looks + count
        eventually(lambda: self.looks >= wanted, "looks at the address")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(options, "lan_address", made.lan_address)
    return made


def started(hosts: HostFactory, name: str = "alpha", **given: Any) -> Host:
    return hosts(name, **{"host": "auto", "bind_watch_interval": 0.1, **QUIET, **given})


def url_of(host: Host, address: str) -> str:
    return f"http://{address}:{host.port}"


def move(host: Host, machine: Machine, address: str) -> Any:
    """Give the machine another address, wait until the host is there, and return the event."""
    count = len(events_of(host, "context-rebind"))
    machine.address = address
    return eventually(lambda: events_of(host, "context-rebind")[count:], "the host to follow")[0]


def refuses(url: str) -> bool:
    """Tell whether nobody listens at a URL."""
    try:
        ask(url, "GET", "/health")
    except ConnectionRefusedError:
        return True
    return False


def unheld(proxy: PagletProxy, url: str, client: HostClient) -> PagletProxy:
    """Return a proxy as another program has it, by some URL of its host."""
    return PagletProxy(url, proxy.agent_id, client)


# --- the host itself


def test_a_host_follows_its_machine(hosts: HostFactory, machine: Machine) -> None:
    host = started(hosts)
    port, former = host.port, host.address
    assert (host.bind_hosts, former) == ([FIRST], f"http://{FIRST}:{port}")
    event = move(host, machine, SECOND)
    assert event.data == {"old_address": former, "new_address": host.address, "bind_hosts": [SECOND]}
    assert event.error is None
    assert event.host_address == host.address == f"http://{SECOND}:{port}"
    assert (host.bind_hosts, host.bind_host, host.public_host, host.port) == ([SECOND], SECOND, SECOND, port)
    assert ask(host.address, "GET", "/health").json()["address"] == host.address
    assert refuses(former)
    assert [ref.url for ref in host.list_hosts()] == [host.address]
    machine.await_looks(3)
    assert len(events_of(host, "context-rebind")) == 1
    back = move(host, machine, FIRST)
    assert (back.data["old_address"], back.data["new_address"]) == (f"http://{SECOND}:{port}", former)
    assert host.address == former
    assert refuses(f"http://{SECOND}:{port}")
    assert host.own_url.is_own(f"http://{SECOND}:{port}")


def test_addresses_that_were_named_stay(hosts: HostFactory, machine: Machine) -> None:
    host = started(hosts, host=["127.0.0.3", "auto"])
    address = host.address
    assert host.bind_hosts == ["127.0.0.3", FIRST]
    with Wire(address) as kept:
        event = move(host, machine, SECOND)
        assert event.data == {"old_address": address, "new_address": address, "bind_hosts": ["127.0.0.3", SECOND]}
        assert kept.ask("GET", "/health").json()["address"] == address
    assert host.address == address
    assert not host.own_url.former
    assert refuses(url_of(host, FIRST))
    for url in (address, url_of(host, SECOND)):
        assert ask(url, "GET", "/health").status == 200


def test_a_host_behind_a_proxy_keeps_its_url(hosts: HostFactory, machine: Machine) -> None:
    host = started(hosts, public_url="https://hub.example/paglets", api_key="k")
    event = move(host, machine, SECOND)
    assert event.data["old_address"] == event.data["new_address"] == host.address == "https://hub.example/paglets"
    # It reaches itself by its own socket, where that is now.
    assert host.client.get_json(f"{host.address}/health")["address"] == host.address
    assert refuses(url_of(host, FIRST))


def test_a_host_at_all_addresses_is_announced_by_the_new_one(hosts: HostFactory, machine: Machine) -> None:
    host = started(hosts, host="0.0.0.0", insecure=True)
    talker = host.create(Talker)
    event = move(host, machine, SECOND)
    assert event.data["new_address"] == host.address == url_of(host, SECOND)
    assert host.bind_hosts == ["0.0.0.0"]
    assert talker.send(Message("hear", {"what": 1})) == 1
    assert ask(url_of(host, FIRST), "GET", "/health").json()["address"] == host.address


def test_a_host_with_given_addresses_looks_at_nothing(hosts: HostFactory, machine: Machine) -> None:
    host = started(hosts, host=FIRST)
    assert machine.looks == 0
    assert host._running()._lan_watch is None


def test_a_start_takes_the_address_of_that_moment(hosts: HostFactory, machine: Machine) -> None:
    host = started(hosts)
    host.stop()
    machine.address = SECOND
    host.start_background()
    assert host.bind_hosts == [SECOND]
    assert ask(host.address, "GET", "/health").json()["address"] == url_of(host, SECOND)


# --- what stands in the way


def test_an_address_that_cannot_be_had_is_tried_again(hosts: HostFactory, machine: Machine) -> None:
    host = started(hosts)
    address = host.address
    with bind([SECOND], host.port)[0]:
        machine.address = SECOND
        event = await_event(host, "context-rebind-failed")
        assert "is in use" in event.error
        assert event.data == {"bind_hosts": [FIRST]}
        machine.await_looks(3)
        assert len(events_of(host, "context-rebind-failed")) == 1
        assert (host.address, host.bind_hosts) == (address, [FIRST])
        assert ask(address, "GET", "/health").json()["address"] == address
    eventually(lambda: events_of(host, "context-rebind"), "the host to follow")
    assert host.address == url_of(host, SECOND)
    assert refuses(address)


def test_a_host_without_a_key_does_not_become_public_by_itself(hosts: HostFactory, machine: Machine) -> None:
    host = started(hosts)
    machine.address = "192.0.2.7"
    event = await_event(host, "context-rebind-failed")
    assert event.error.startswith("refusing to listen on 192.0.2.7 without a key")
    assert host.bind_hosts == [FIRST]
    assert host.open_to_strangers is False


def test_an_address_that_the_machine_does_not_have_is_not_taken(hosts: HostFactory, machine: Machine) -> None:
    host = started(hosts, insecure=True)
    machine.address = "192.0.2.7"
    assert await_event(host, "context-rebind-failed").error.startswith("cannot listen on 192.0.2.7")
    assert host.bind_hosts == [FIRST]
    assert host.open_to_strangers is False
    assert ask(host.address, "GET", "/health").status == 200


def test_what_makes_a_look_fail_is_told_once_and_ends_nothing(
    hosts: HostFactory, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = started(hosts)

    def broken() -> str:
        machine.looks += 1
        raise OSError("no resolver")

    monkeypatch.setattr(options, "lan_address", broken)
    assert await_event(host, "context-rebind-failed").error == "OSError: no resolver"
    machine.await_looks(3)
    assert len(events_of(host, "context-rebind-failed")) == 1
    monkeypatch.setattr(options, "lan_address", machine.lan_address)
    move(host, machine, SECOND)


def test_rows_that_could_not_be_written_are_written_later(
    hosts: HostFactory, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, other = started(hosts), hosts("beta", host="127.0.0.9", **QUIET)
    made = host.create(Talker)
    host.dispatch(made.agent_id, other.address)
    vault = host._node.kernel.vault
    settle_in, full = vault.settle_in, threading.Event()
    full.set()

    async def settle(entries: Any) -> None:
        if full.is_set():
            raise InsufficientStorageError("the disk is full")
        await settle_in(entries)

    monkeypatch.setattr(vault, "settle_in", settle)
    move(host, machine, SECOND)
    assert await_event(host, "context-rebind-failed").error == "the disk is full"
    assert noted_address(host) == url_of(host, FIRST)
    full.clear()
    eventually(lambda: noted_address(host) == host.address, "the rows to be written")
    assert len(events_of(host, "context-rebind")) == 1


def noted_address(host: Host) -> str:
    """Return the address of a host as its journal has it."""
    journal = host._node.kernel.journal
    return str(journal.read(lambda c: c.execute("SELECT value FROM facts WHERE name = 'address'").fetchone()[0]))


@pytest.fixture
def held(hosts: HostFactory, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Host, Any]]:
    """Give a host that is in the middle of a move, and what lets it go on."""
    host = started(hosts)
    go_on, entered = threading.Event(), threading.Event()
    told = host.mesh.local_address_changed

    def tell(previous_url: str) -> Any:
        entered.set()
        assert go_on.wait(60)
        return told(previous_url)

    monkeypatch.setattr(host.mesh, "local_address_changed", tell)
    machine.address = SECOND
    assert entered.wait(60)
    yield host, go_on
    go_on.set()


def test_a_stop_lets_a_move_finish(held: tuple[Host, Any]) -> None:
    host, go_on = held
    watch = host._running()._lan_watch
    assert watch is not None
    stopping = threading.Thread(target=host.stop)
    stopping.start()
    eventually(lambda: watch._watching is not None and watch._watching.done(), "the stop to begin")
    assert not watch._moving.done()  # type: ignore[union-attr]
    go_on.set()
    stopping.join(60)
    assert not stopping.is_alive()
    kinds = [event.kind for event in host.list_events()]
    assert kinds.index("context-rebind") < kinds.index("context-shutdown")
    assert "context-rebind-failed" not in kinds
    for address in (FIRST, SECOND):
        assert refuses(url_of(host, address))
    host.start_background()
    assert host.bind_hosts == [SECOND]


def test_a_stop_does_not_wait_for_a_name_server(
    hosts: HostFactory, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = started(hosts)
    asked, answer = threading.Event(), threading.Event()

    def slow() -> str:
        asked.set()
        answer.wait(60)
        return SECOND

    monkeypatch.setattr(options, "lan_address", slow)
    assert asked.wait(60)
    assert ask(host.address, "GET", "/health").status == 200  # nor does anybody else
    try:
        host.stop()
        assert not answer.is_set()
        assert not events_of(host, "context-rebind")
    finally:
        answer.set()


# --- paglets


def test_old_and_new_proxies_reach_a_paglet(hosts: HostFactory, machine: Machine) -> None:
    host = started(hosts)
    talker, sleeper, asker = host.create(Talker), host.create(Talker), host.create(Talker)
    sleeper.deactivate()
    former = host.address
    old = [PagletProxy(former, proxy.agent_id, host.client) for proxy in (talker, sleeper)]
    move(host, machine, SECOND)
    new = host.get_proxy(talker.agent_id)
    assert new is not None
    assert new.host_url == host.address
    opened = host.client.connections.statistics().opened
    assert [proxy.send(Message("hear", {"what": 1})) for proxy in (*old, new)] == [1, 1, 2]
    assert host.client.connections.statistics().opened == opened  # it is the host itself, by either
    assert old[0].info()["address"] == host.address
    with HostClient() as client:
        assert unheld(talker, host.address, client).send(Message("hear", {"what": 2})) == 3
        with pytest.raises(HostUnreachableError):
            unheld(talker, former, client).send(Message("hear", {"what": 3}), timeout=1)
    # From paglet to paglet, by either URL.
    for number, url in enumerate((former, host.address), start=4):
        what = {"host_url": url, "agent_id": talker.agent_id, "kind": "hear", "args": {"what": "other"}}
        assert asker.send(Message("ask", what)) == ["reply", number]
    # Operations, by the old one.
    assert old[0].deactivate().host_url == host.address
    assert old[0].activate().host_url == host.address
    copy = old[0].clone()
    assert copy.host_url == host.address
    assert host.dispatch(talker.agent_id, former).host_url == host.address  # a move to where it is
    assert old[0].send(Message("hear", {"what": 6})) == 6
    old[0].dispose()
    assert host.get_proxy(talker.agent_id, include_inactive=True) is None


def test_a_paglet_that_runs_learns_of_the_new_address(hosts: HostFactory, machine: Machine) -> None:
    host = started(hosts)
    insider = host.create(Insider)
    former = host.address
    assert insider.call(Insider.who)["address"] == former
    move(host, machine, SECOND)
    # The notice goes another way than the message, which may be first.
    eventually(lambda: insider.call(Insider.who)["address"] == host.address, "the paglet to know")
    assert insider.call(Insider.proxies, insider.agent_id, PagletProxyRef("http://far:1", "x"))["self"] == {
        "host_url": host.address,
        "agent_id": insider.agent_id,
    }
    # A URL that it has kept still is that of its host.
    assert insider.call(Insider.create, 1, former)["host_url"] == host.address
    assert host.create(Insider).call(Insider.who)["address"] == host.address


def test_a_paglet_that_starts_meanwhile_has_the_new_address(hosts: HostFactory, machine: Machine, gate: Gate) -> None:
    host = started(hosts)
    made: list[PagletProxy] = []
    creating = threading.Thread(target=lambda: made.append(host.create(Settler, SettlerState(gate=str(gate)))))
    creating.start()
    gate.await_entered()
    move(host, machine, SECOND)
    gate.open()
    creating.join(60)
    assert made[0].host_url == host.address
    eventually(lambda: made[0].call(Settler.address) == host.address, "the paglet to know")
    assert host.client.locate(host.address, made[0].agent_id)["home"] == host.address


def test_what_the_host_says_before_a_paglet_starts_counts() -> None:
    told: list[str] = []

    class Silent:
        """The end of a line on which nothing comes back."""

        def reply(self, *_: Any) -> None:
            told.append("started")

        def fail(self, _: Any, payload: bytes) -> None:
            raise AssertionError(payload)

    worker = Worker()
    worker._endpoint = Silent()  # type: ignore[assignment]
    order = {
        "title": "paglets-test",
        "agent_id": "early",
        "agent_class_name": "tests.agents.talk:Talker",
        "state_class_name": "tests.agents.talk:TalkState",
        "declared_state": False,
        "host_name": "alpha",
        "host_address": "http://127.0.0.1:1",
        "hook": "",
        "event": {},
    }
    worker._notice(Frame(FrameType.NOTICE, Op.ADDRESS, 0, 0, b"http://127.0.0.2:1", EMPTY))
    state = Attachment.of([blob_from_wire({}).tobytes()])
    worker.execute(Frame(FrameType.REQUEST, Op.START, 1, 0, pack(order), state))
    assert told == ["started"]
    assert worker._agent.context.address == "http://127.0.0.2:1"
    worker._notice(Frame(FrameType.NOTICE, Op.ADDRESS, 0, 0, b"http://127.0.0.3:1", EMPTY))
    assert worker._agent.context.address == "http://127.0.0.3:1"


def test_a_request_under_way_is_answered(hosts: HostFactory, machine: Machine, gate: Gate) -> None:
    host = started(hosts)
    talker = host.create(Talker)
    former = host.address
    path = f"/agents/{talker.agent_id}/messages"
    with Wire(former) as waiting:
        body = {"message": {"kind": "gate", "args": {"path": str(gate)}}}
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(waiting.ask("POST", path, body)))
        asking.start()
        gate.await_entered()
        move(host, machine, SECOND)
        assert refuses(former)
        gate.open()
        asking.join(60)
        assert answers[0].json() == {"result": "through"}
        # The connection goes on, too.
        assert waiting.ask("GET", "/health").json()["address"] == host.address


def test_messages_that_were_accepted_are_delivered(hosts: HostFactory, machine: Machine, gate: Gate) -> None:
    host = started(hosts)
    talker = host.create(Talker)
    talker.send_oneway(Message("gate", {"path": str(gate)}))
    gate.await_entered()
    for number in range(3):
        talker.send_oneway(Message("hear", {"what": number}))
    move(host, machine, SECOND)
    gate.open()
    eventually(lambda: host.mailbox_status(talker.agent_id)["delivered_count"] == 4, "the mailbox to be empty")
    assert host.get_proxy(talker.agent_id).send(Message("hear", {"what": 3})) == 5  # type: ignore[union-attr]


@pytest.mark.parametrize("agent_class", [Settler, Fleeting])
def test_homes_elsewhere_learn_where_their_paglets_are(
    hosts: HostFactory, machine: Machine, agent_class: type[Any]
) -> None:
    host, home = started(hosts), hosts("beta", host="127.0.0.9", **QUIET)
    made = home.create(agent_class)
    home.dispatch(made.agent_id, host.address)
    move(host, machine, SECOND)
    with HostClient() as client:
        eventually(
            lambda: client.locate(home.address, made.agent_id)["host_url"] == host.address, "the home to be told"
        )


def test_a_paglet_keeps_its_home_under_its_new_address(hosts: HostFactory, machine: Machine) -> None:
    host, other = started(hosts), hosts("beta", host="127.0.0.9", **QUIET)
    stays, leaves, sleeps = (host.create(Talker) for _ in range(3))
    sleeps.deactivate()
    away = host.create(Talker)
    host.dispatch(away.agent_id, other.address)
    former = host.address
    move(host, machine, SECOND)
    with HostClient() as client:
        assert client.locate(host.address, stays.agent_id)["home"] == host.address
        host.activate(sleeps.agent_id)
        assert client.locate(host.address, sleeps.agent_id)["home"] == host.address
        host.dispatch(leaves.agent_id, other.address)
        assert client.locate(other.address, leaves.agent_id)["home"] == host.address
        assert client.locate(host.address, leaves.agent_id)["host_url"] == other.address
    # One that left before is found through this host, also by who asks for it at the former address.
    assert PagletProxy(former, away.agent_id, host.client).send(Message("hear", {"what": 1})) == 1
    asker = host.create(Talker)
    what = {"host_url": former, "agent_id": away.agent_id, "kind": "hear", "args": {"what": 2}}
    assert asker.send(Message("ask", what)) == ["reply", 2]
    PagletProxy(former, away.agent_id, host.client).deactivate()
    assert other.get_proxy(away.agent_id) is None


def test_services_artifacts_and_leases_move_along(hosts: HostFactory, machine: Machine, tmp_path: Path) -> None:
    host = started(hosts)
    host.create(Painter)
    record = host.lookup_service(CONTRACT.name)
    assert record is not None
    source = tmp_path / "source"
    source.write_bytes(b"content")
    kept = host.client.upload_artifact(host.address, source)
    former = host.address
    move(host, machine, SECOND)
    found = host.lookup_service(CONTRACT.name)
    assert found is not None
    assert (found.host_url, found.proxy.host_url) == (host.address, host.address)
    assert (found.advertised_at, found.metadata) == (record.advertised_at, record.metadata)
    (shown,) = HostClient().get_json(f"{host.address}/services")["services"]
    assert shown["host_url"] == host.address
    assert kept.host_url == former
    assert host.client.read_artifact(kept) == b"content"
    assert host.client.artifact_metadata(former, kept.artifact_id).host_url == host.address
    host.client.delete_artifact(kept)
    # What nobody took for a call of the host itself goes by its socket, where that is now.
    assert host.client.get_json(f"{former}/health")["address"] == host.address


def test_records_of_other_hosts_stay_as_they_are() -> None:
    registry = ServiceRegistry()
    for number, url in enumerate(("http://a:1/", "http://b:1")):
        registry.advertise(host_name="h", host_url=url, name="s", proxy=PagletProxyRef(url, f"p{number}"))
    registry.move("http://a:1", "http://c:1")
    assert [(record.host_url, record.proxy.host_url) for record in registry.lookup_all()] == [
        ("http://c:1", "http://c:1"),
        ("http://b:1", "http://b:1"),
    ]


# --- other hosts


def acquaint(*hosts: Host) -> None:
    for host in hosts:
        for other in hosts:
            if other is not host:
                host.join_mesh(other.mesh.refresh_self().to_wire())


def test_peers_learn_the_new_address(hosts: HostFactory, machine: Machine) -> None:
    options = {**QUIET, "mesh": True, "mesh_gossip_interval": 0.05}
    beta = hosts("beta", host="127.0.0.9", **options)
    alpha = started(hosts, peers=[beta.address], **options)
    eventually(lambda: beta.mesh.is_online(alpha.address), "beta to know alpha")
    former = alpha.address
    move(alpha, machine, SECOND)
    eventually(lambda: beta.mesh.is_online(alpha.address), "beta to know the new address")
    eventually(lambda: not beta.mesh.is_online(former), "beta to miss the old one")
    assert beta.mesh.resolve_url("alpha") == alpha.address
    made = beta.create(Talker)
    moved = beta.dispatch(made.agent_id, "alpha")
    assert moved.host_url == alpha.address
    assert made.send(Message("hear", {"what": 1})) == 1


def test_a_former_address_that_another_host_has_is_its_address(hosts: HostFactory, machine: Machine) -> None:
    alpha = started(hosts)
    talker = alpha.create(Actor)
    former = alpha.address
    move(alpha, machine, SECOND)
    assert alpha.own_url.is_own(former)
    beta = hosts("beta", host=FIRST, port=alpha.port, **QUIET)
    assert beta.address == former
    acquaint(alpha, beta)
    assert not alpha.own_url.is_own(former)
    assert alpha.client.get_json(f"{former}/health")["name"] == "beta"
    moved = alpha.dispatch(talker.agent_id, former)
    assert moved.host_url == former
    assert beta.get_proxy(talker.agent_id) is not None
    assert alpha.get_proxy(talker.agent_id) is None
    # And the way back, which a move inside one host could not take.
    assert beta.dispatch(talker.agent_id, alpha.address).host_url == alpha.address


def test_a_move_inside_one_host_does_not_come_over_the_network(hosts: HostFactory, machine: Machine) -> None:
    alpha, beta = started(hosts), hosts("beta", host="127.0.0.9", **QUIET)
    made = beta.create(Talker)
    former = alpha.address
    move(alpha, machine, SECOND)
    # It would be trusted with the paths of this host's files, under a former address too.
    beta.own_url._present = lambda: former
    with pytest.raises(TransferError, match="does not come over the network"):
        beta.dispatch(made.agent_id, url_of(alpha, SECOND))
