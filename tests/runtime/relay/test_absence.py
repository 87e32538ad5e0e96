"""What whoever asks is told of connected hosts that are away, silent or busy, and what becomes of the paglet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from queue import Queue

import pytest

from paglets.core.errors import (
    AuthenticationError,
    ConflictError,
    ConnectionLostError,
    HostError,
    HostUnreachableError,
    NotFoundError,
    RemoteHostError,
    TransferError,
)
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.pursuit import NotConnectedError
from paglets.remote.senders import submit
from paglets.remote.transfer import TransferTicket
from paglets.runtime.host import Host
from tests.agents.actor import Actor
from tests.agents.ledger_agent import Ledger, LedgerState
from tests.runtime.relay.conftest import KEY, RelayFactory
from tests.runtime.relay.scripted import ScriptedHost
from tests.support import Gate, await_event, events_of, eventually, where


@contextmanager
def caller(timeout: float = 10.0) -> Iterator[HostClient]:
    with HostClient(timeout, api_key=KEY) as client:
        yield client


def test_a_host_that_never_connected(relays: RelayFactory) -> None:
    hub = relays.hub()
    with caller() as client, pytest.raises(NotConnectedError, match="Relay target 'B' is not connected"):
        client.get_json(f"{hub.address}/relay/hosts/B/health")


def test_a_host_that_is_no_hub_says_that_nobody_is_there(relays: RelayFactory) -> None:
    """Not that it does not know the route: a source would take that for a target which forgot the transfer."""
    host = relays("plain", api_key=KEY)
    with caller() as client:
        with pytest.raises(NotConnectedError, match="is not connected"):
            client.post_json(f"{host.address}/relay/hosts/B/transfers/x/commit", {"vote": "y"})
        with pytest.raises(NotFoundError, match="not polled"):
            client.post_json(f"{host.address}/relay/connect", {"health": {}})
    with pytest.raises(HostError, match="no relay hub"), ScriptedHost(host.address, "B"):
        pass


def test_an_offline_target_keeps_the_paglet_at_its_source(relays: RelayFactory) -> None:
    hub, far, laptop = relays.trio()
    proxy = laptop.create(Actor)
    for host in (hub, laptop):
        host.mesh.stop()  # which would ask for B as well, and be told instead
    far.stop()
    await_event(hub, "relay-disconnected")
    with pytest.raises(TransferError, match=r"Relay target 'B' is offline/not polling \(last seen \d+\.\ds ago\)"):
        proxy.dispatch("B")
    assert where(proxy, laptop) == ["L"]
    assert proxy.send(Message("add")) == 1
    assert {event.data["stage"] for event in events_of(hub, "relay-target-offline")} == {"relay-preflight"}
    (node,) = [node for node in _nodes(hub) if node["name"] == "B"]
    assert (node["online"], node["active_polls"]) == (False, 0)


def test_a_message_to_an_offline_host_fails_when_the_time_is_over(relays: RelayFactory) -> None:
    hub, far, _ = relays.trio()
    proxy = far.create(Actor)
    far.shutdown()
    await_event(hub, "relay-disconnected")
    with caller() as client, pytest.raises(HostUnreachableError, match="offline/not polling") as failure:
        client.deliver(proxy.host_url, proxy.agent_id, Message("add"), timeout=1.0)
    assert isinstance(failure.value, RemoteHostError)


def test_a_target_that_does_not_answer_in_time(relays: RelayFactory) -> None:
    hub = relays.hub()
    source = relays.connected("L", hub)
    proxy = source.create(Actor)
    with ScriptedHost(hub.address, "B", answers={"/health": source.health()}) as silent:
        with pytest.raises(TransferError, match=r"timed out|No answer"):  # a hub that is late itself says nothing
            proxy.dispatch(TransferTicket(f"{hub.address}/relay/hosts/B", timeout=1.0))
        assert where(proxy, source) == ["L"]
        assert "dispatching" in proxy.send(Message("look"))["log"]
        event = await_event(hub, "relay-delivery-timeout")
        assert (event.data["stage"], event.data["kind"]) == ("relay-ack", "envelope")
        assert events_of(hub, "relay-delivery-enqueued")
        # What was not answered in time is taken back.
        silent.await_reset("/agents")
    assert events_of(hub, "transfer-failed")[0].data["stage"] == "relay-ack"


def test_requests_that_wait_are_counted_and_bounded(relays: RelayFactory, gate: Gate) -> None:
    hub = relays.hub(relay_queue_limit=1)
    far = relays.connected("B", hub)
    proxy = far.create(Actor)
    with caller() as client:
        future = _send_into(gate, client, proxy.host_url, proxy.agent_id)
        gate.await_entered()
        (node,) = _nodes(hub)
        assert (node["queue_depth"], node["in_flight"]) == (1, 1)
        with pytest.raises(NotConnectedError, match="too many requests under way"):
            client.get_json(f"{far.address}/health")
        gate.open()
        future.result(10)
        eventually(lambda: _nodes(hub)[0]["in_flight"] == 0, "nothing is under way")
        assert client.get_json(f"{far.address}/health")["name"] == "B"


def _send_into(gate: Gate, client: HostClient, host_url: str, agent_id: str) -> Future[object]:
    return submit(lambda: client.deliver(host_url, agent_id, Message("do", {"steps": f"gate {gate}"})))


def test_a_link_that_is_full_is_told_once_and_not_as_offline(relays: RelayFactory) -> None:
    hub = relays.hub(relay_queue_limit=4)
    with ScriptedHost(hub.address, "B"), ExitStack() as asking:

        def begin(number: int) -> list[socket.socket]:
            request = "POST /relay/hosts/B/agents/x/messages"
            begun = [asking.enter_context(closing(_raw(hub, request))) for _ in range(number)]
            eventually(lambda: _nodes(hub)[0]["in_flight"] == 4, "four requests that wait")
            return begun

        def end(begun: list[socket.socket]) -> None:
            for connection in begun:
                connection.close()
            eventually(lambda: _nodes(hub)[0]["in_flight"] == 4 - len(begun), "the end of some of them")

        def refused(**fields: str) -> None:
            with closing(_raw(hub, "POST /relay/hosts/B/agents", **fields)) as connection:
                answer = connection.recv(65536)
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"too many requests under way" in answer

        held = begin(4)
        for _ in range(3):
            refused()
        (event,) = events_of(hub, "relay-queue-full")
        assert event.data == {"target": "B", "kind": "creation", "stage": "relay-queue", "queue_depth": 4}
        assert "too many requests under way" in event.error
        # One place that is free for a moment changes nothing.
        end(held[:1])
        held[:1] = begin(1)
        refused()
        assert len(events_of(hub, "relay-queue-full")) == 1
        end(held[:2])
        begin(2)
        assert events_of(hub, "transfer-failed") == []
        refused(**{"Content-Type": "application/x-paglets-movement"})
        assert len(events_of(hub, "relay-queue-full")) == 2
        (failed,) = events_of(hub, "transfer-failed")
        assert failed.data == {"destination": "B", "stage": "relay-queue"}
        assert events_of(hub, "relay-target-offline") == []


def test_an_answer_without_a_limit_is_waited_for_as_long_as_the_hub_says(relays: RelayFactory) -> None:
    hub = relays.hub(relay_delivery_timeout=0.2)
    with ScriptedHost(hub.address, "B"), closing(_raw(hub, "GET /relay/hosts/B/health")) as connection:
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"Relay delivery to 'B' timed out after 0.2s" in answer


def test_a_link_that_breaks_under_a_request_may_have_carried_it(relays: RelayFactory) -> None:
    hub = relays.hub()
    with ScriptedHost(hub.address, "B") as host, caller() as client:
        host.on_request = host.drop
        with pytest.raises(ConnectionLostError, match="The link to relay target 'B' broke"):
            client.post_json(f"{hub.address}/relay/hosts/B/agents/x/dispose", {})


def test_a_request_that_the_host_did_not_look_at_was_not_sent(relays: RelayFactory) -> None:
    hub = relays.hub()
    with ScriptedHost(hub.address, "B") as host, caller() as client:
        host.on_request = host.refuse
        with pytest.raises(NotConnectedError, match="did not take the request"):
            client.post_json(f"{hub.address}/relay/hosts/B/agents/x/dispose", {})


def test_a_request_waits_for_a_link_that_is_back_at_once(relays: RelayFactory) -> None:
    hub = relays.hub()
    far = relays.connected("B", hub)
    _cut(far)
    await_event(hub, "relay-disconnected")
    with caller() as client:
        assert client.get_json(f"{far.address}/health")["name"] == "B"
    assert events_of(far, "relay-client-error")[0].error
    assert [node["online"] for node in _nodes(hub)] == [True]


def test_nothing_is_left_of_requests_whose_link_breaks_again_and_again(relays: RelayFactory) -> None:
    hub = relays.hub()
    far = relays.connected("B", hub)
    proxies = [far.create(Ledger) for _ in range(4)]
    threads, each, cuts = 8, 25, 4
    replies: Queue[int] = Queue()

    def send(number: int, client: HostClient) -> None:
        proxy = proxies[number % len(proxies)]
        for index in range(each):
            body = {"sender": str(number), "number": index}
            replies.put(client.deliver(proxy.host_url, proxy.agent_id, Message("add", body), timeout=40.0))

    with caller() as client:
        sending = [submit(lambda number=number: send(number, client)) for number in range(threads)]
        for _ in range(cuts):
            for _ in range(threads * each // (cuts + 1)):
                replies.get(timeout=40)
            _cut(far)
        for future in sending:
            future.result(60)
    for number, proxy in enumerate(proxies):
        entries = far.get_state(proxy.agent_id, LedgerState).entries
        for sender in range(number, threads, len(proxies)):
            assert [e for e in entries if e.startswith(f"{sender}:")] == [f"{sender}:{n}" for n in range(each)]
    eventually(lambda: _nodes(hub)[0]["in_flight"] == _nodes(hub)[0]["queue_depth"] == 0, "nothing is under way")
    relay = far._running()._relay
    assert relay._connector is not None
    assert relay._connector._session is not None
    session = relay._connector._session
    # Gossip is off: nobody asks anything now.
    eventually(lambda: far._running().call(lambda: session.statistics().serving) == 0, "no stream is left")
    assert relay._inside is not None
    assert not relay._inside._tasks


def test_a_silent_link_is_given_up_by_both_ends(relays: RelayFactory) -> None:
    hub = relays.hub(relay_offline_after=0.6)
    with ScriptedHost(hub.address, "B", deaf=True):
        event = await_event(hub, "relay-disconnected")
    assert "nothing was heard" in event.error


def test_a_new_link_of_the_same_host_takes_the_place_of_the_old(relays: RelayFactory) -> None:
    hub = relays.hub()
    with ScriptedHost(hub.address, "B") as old, ScriptedHost(hub.address, "B", answers={"/health": {"name": "new"}}):
        assert "newer link" in old.await_end()
        with caller() as client:
            assert client.get_json(f"{hub.address}/relay/hosts/B/health") == {"name": "new"}


def test_a_name_belongs_to_whoever_had_it_first(relays: RelayFactory) -> None:
    hub = relays.hub()
    table = hub._running()._relay.hub
    with ScriptedHost(hub.address, "B"):
        eventually(lambda: _nodes(hub), "the hub knows B")
        with pytest.raises(ConflictError, match="another key"):
            table.admit("B", b"somebody else's")
        with pytest.raises(HostError, match="409"), ScriptedHost(hub.address, "A"):
            pass


def test_a_link_needs_the_key_and_a_name(relays: RelayFactory) -> None:
    hub = relays.hub()
    for name, key, status in (("B", "wrong", "401"), ("B", "", "401"), ("", KEY, "400")):
        with pytest.raises(HostError, match=status), ScriptedHost(hub.address, name, key=key):
            pass
    with caller() as client, pytest.raises(HostError, match="WebSocket"):
        client.get_json(f"{hub.address}/relay/link?name=B")
    with HostClient(api_key="wrong") as client, pytest.raises(AuthenticationError):
        client.get_json(f"{hub.address}/relay/hosts/B/health")
    assert _nodes(hub) == []


def test_a_host_that_calls_itself_otherwise_is_dropped(relays: RelayFactory) -> None:
    hub = relays.hub()
    with ScriptedHost(hub.address, "B", said="C") as host:
        host.await_end()
    assert _nodes(hub) == []


def test_nonsense_on_a_link_ends_it(relays: RelayFactory) -> None:
    hub = relays.hub()
    with ScriptedHost(hub.address, "B") as host:
        host.send(b"\xff" * 40)
        host.await_end()
    assert "unknown kind" in await_event(hub, "relay-disconnected").error
    assert _nodes(hub)[0]["online"] is False


def test_a_connected_host_that_cannot_reach_its_hub_keeps_trying(relays: RelayFactory) -> None:
    port_holder = relays.hub()
    address, port = port_holder.address, port_holder.port
    port_holder.stop()
    far = relays("B", api_key=KEY, connect_to=address)
    assert await_event(far, "relay-client-error").error
    hub = relays.hub("again", port=port)
    assert hub.address == address
    await_event(far, "relay-client-connected")


def test_a_refused_key_is_told(relays: RelayFactory) -> None:
    hub = relays.hub()
    far = relays("B", api_key="wrong", connect_to=hub.address)
    assert "401" in await_event(far, "relay-client-error").error


def _nodes(hub: Host) -> list[dict[str, object]]:
    with caller() as client:
        nodes: list[dict[str, object]] = client.get_json(f"{hub.address}/relay/diagnostics")["nodes"]
    return nodes


def _cut(host: Host) -> None:
    """Have the connection of a link closed under it."""
    assembly = host._running()

    async def cut() -> None:
        connector = assembly._relay._connector
        assert connector is not None
        assert connector._session is not None
        assert connector._session.wire is not None
        connector._session.wire.abort("cut by the test")
        await asyncio.sleep(0)

    assembly.run(cut())


def _raw(hub: Host, request: str, **fields: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", hub.port), timeout=10)
    known = {"Host": "127.0.0.1", "Authorization": f"Bearer {KEY}"}
    lines = [f"{name}: {value}" for name, value in (known | fields).items()]
    connection.sendall("\r\n".join([f"{request} HTTP/1.1", *lines, "", ""]).encode())
    return connection
