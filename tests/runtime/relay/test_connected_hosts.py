"""Hosts that nobody can call take part in everything through their hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from paglets.core.errors import ForbiddenError, InvalidAgentError, TransferError
from paglets.core.messages import Message
from paglets.core.runtime_values import ServiceScope
from tests.agents.actor import Actor, ActorState
from tests.agents.courier import CONTENT, NAME, Courier, CourierState
from tests.runtime.relay.conftest import KEY, Trio
from tests.support import await_event, events_of, eventually, where


def test_everybody_is_known_by_name_and_address(trio: Trio) -> None:
    assert trio.far.address == f"{trio.hub.address}/relay/hosts/B"
    assert trio.far.bind_hosts == []
    for host in (trio.hub, trio.far, trio.laptop):
        assert {ref.name: ref.url for ref in host.list_hosts()} == {
            "A": trio.hub.address,
            "B": trio.far.address,
            "L": trio.laptop.address,
        }
    health = trio.client.get_json(f"{trio.far.address}/health")
    assert (health["name"], health["address"]) == ("B", trio.far.address)


def test_a_paglet_moves_by_name_and_is_found_in_both_directions(trio: Trio) -> None:
    proxy = trio.laptop.create(Actor)
    assert trio.client.deliver(proxy.host_url, proxy.agent_id, Message("add", {"by": 2})) == 2
    there = proxy.dispatch("B")
    assert there.host_url == trio.far.address
    assert where(there, trio.hub, trio.far, trio.laptop) == ["B"]
    assert events_of(trio.hub, "arrival", agent_id=proxy.agent_id) == []
    assert there.send(Message("add", {"by": 3})) == 5
    assert proxy.send(Message("add", {"by": 1})) == 6
    back = there.dispatch("L")
    assert back.host_url == trio.laptop.address
    assert trio.hub.proxy_for(back.host_url, back.agent_id).send(Message("add")) == 7
    back.dispose()
    assert where(there, trio.hub, trio.far, trio.laptop) == []


def test_a_paglet_moves_between_hub_and_connected_host(trio: Trio) -> None:
    proxy = trio.hub.create(Actor)
    there = proxy.dispatch("L")
    assert there.host_url == trio.laptop.address
    assert there.dispatch("A").host_url == trio.hub.address


def test_files_go_along(trio: Trio) -> None:
    proxy = trio.laptop.create(Courier, CourierState()).dispatch("B")
    assert proxy.send(Message("unpack")) == {NAME: CONTENT}


def test_a_paglet_goes_round_by_itself(trio: Trio) -> None:
    route = ["B", "A", "L", "B"]
    proxy = trio.laptop.create(Courier, CourierState(route=route))
    await_event(trio.hub, "arrival", agent_id=proxy.agent_id)
    eventually(lambda: where(proxy, trio.far, trio.laptop, trio.hub) == ["B"], "the courier rests at B")
    eventually(lambda: len(events_of(trio.far, "arrival", agent_id=proxy.agent_id)) == 2, "it came to B twice")
    assert proxy.send(Message("unpack")) == {NAME: CONTENT}


def test_remote_creation_and_retraction(trio: Trio) -> None:
    proxy = trio.laptop.create_remote("B", Actor)
    assert where(proxy, trio.far) == ["B"]
    assert proxy.send(Message("add")) == 1
    assert trio.laptop.retract("B", proxy.agent_id).host_url == trio.laptop.address
    assert proxy.send(Message("add")) == 2


def test_services_are_found_through_the_hub(trio: Trio) -> None:
    provider = trio.far.create(Actor)
    trio.far.advertise_service(provider.agent_id, "weather", scope=ServiceScope.MESH)
    found = trio.laptop.lookup_services("weather", scope=ServiceScope.MESH)
    assert [record.host_url for record in found] == [trio.far.address]


def test_artifacts_go_up_and_down(trio: Trio, tmp_path: Path) -> None:
    content = bytes(range(256)) * 12_000
    source = tmp_path / "source"
    source.write_bytes(content)
    ref = trio.client.upload_artifact(trio.far.address, source, compress="never")
    assert ref.host_url == trio.far.address
    assert trio.client.download_artifact(ref, tmp_path / "target") == ref
    assert (tmp_path / "target").read_bytes() == content
    assert trio.client.read_artifact(ref, start=1_000_000, length=10) == content[1_000_000:1_000_010]
    trio.client.delete_artifact(ref)
    assert trio.client.list_artifacts(trio.far.address) == []


def test_diagnostics_show_who_is_connected_and_no_secret(trio: Trio) -> None:
    answer = trio.client.get_json(f"{trio.hub.address}/relay/diagnostics")
    assert [node["name"] for node in answer["nodes"]] == ["B", "L"]
    for node in answer["nodes"]:
        assert set(node) == {
            "name",
            "online",
            "last_seen",
            "last_seen_age",
            "active_polls",
            "queue_depth",
            "in_flight",
            "last_error",
        }
        assert (node["online"], node["active_polls"]) == (True, 1)
    assert KEY not in str(answer)


def test_deliveries_leave_events(trio: Trio) -> None:
    proxy = trio.far.create(Actor)
    earlier = len(events_of(trio.hub, "relay-delivery-enqueued"))
    trio.client.deliver(proxy.host_url, proxy.agent_id, Message("add"))
    (begun,) = events_of(trio.hub, "relay-delivery-enqueued")[earlier:]
    (_,) = events_of(trio.hub, "relay-delivery-dispatched")[earlier:]
    (over,) = events_of(trio.hub, "relay-delivery-ack")[earlier:]
    assert (begun.data["target"], begun.data["kind"], begun.data["timeout"]) == ("B", "message", 10.0)
    assert (over.data["delivery_id"], over.data["ok"]) == (begun.data["delivery_id"], True)


def test_a_paglet_that_is_refused_is_no_delivery(trio: Trio) -> None:
    proxy = trio.laptop.create(Actor, ActorState(plan={"arrival": ["fail no, 50\u00a0%"]}))
    earlier = len(events_of(trio.hub, "relay-delivery-ack"))
    with pytest.raises(TransferError, match="no, 50"):
        trio.laptop.dispatch(proxy.agent_id, "B")
    refused = events_of(trio.hub, "relay-delivery-ack")[earlier]
    assert (refused.data["kind"], refused.data["ok"]) == ("envelope", False)
    assert "no, 50\u00a0%" in str(refused.error)
    earlier = len(events_of(trio.hub, "relay-delivery-ack"))
    with pytest.raises(InvalidAgentError):
        trio.client.deliver(trio.far.address, "nobody", Message("add"))
    (unknown,) = events_of(trio.hub, "relay-delivery-ack")[earlier:]
    assert (unknown.data["ok"], unknown.error) == (False, "answered with status 404")


def test_nobody_in_relay_mode_updates_from_git(trio: Trio) -> None:
    for host in (trio.hub, trio.far):
        with pytest.raises(ForbiddenError, match="relay mode"):
            trio.client.post_json(f"{host.address}/admin/git-update", {"target_hash": "x"})
