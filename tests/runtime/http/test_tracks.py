"""The routes by which a paglet is found, and the clients' methods for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from paglets.core.errors import InvalidAgentError
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.remote.journey import follow_journey
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.http_agents import Talker
from tests.runtime.http.wire import ask, get, post
from tests.support import HostFactory, eventually

TALKER = "tests.agents.http_agents:Talker"


def test_the_journey_of_a_paglet_that_never_moved(host: Host, talker: PagletProxy) -> None:
    talker.deactivate()
    journey = get(host, f"/agents/{talker.agent_id}/journey")
    assert set(journey) == {"agent_id", "entries", "previous", "next"}
    assert (journey["agent_id"], journey["previous"], journey["next"]) == (talker.agent_id, None, None)
    created, slept = journey["entries"]
    assert (created["event"], slept["event"], slept["cause"]) == ("created", "slept", "deactivate")
    assert set(created) == {
        "at", "event", "epoch", "host", "host_url", "peer", "peer_name", "cause", "size_bytes", "seconds",
        "transfer_id", "class_name",
    }  # fmt: skip
    assert (created["host"], created["host_url"], created["class_name"]) == (host.name, host.address, TALKER)
    assert created["epoch"] == slept["epoch"] == get(host, f"/agents/{talker.agent_id}")["epoch"]
    assert created["size_bytes"] > 0


def test_a_stranger_has_no_entries(host: Host) -> None:
    assert get(host, "/agents/nobody/journey") == {"agent_id": "nobody", "entries": [], "previous": None, "next": None}


def test_the_pieces_of_a_move_fit(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Talker, agent_id="walker").dispatch(beta.address)

    left, there = get(alpha, "/agents/walker/journey"), get(beta, "/agents/walker/journey")

    assert [entry["event"] for entry in left["entries"]] == ["created", "departed"]
    assert [entry["event"] for entry in there["entries"]] == ["arrived"]
    departed, arrived = left["entries"][1], there["entries"][0]
    assert departed["transfer_id"] == arrived["transfer_id"] != ""
    assert (departed["peer"], departed["peer_name"]) == (beta.address, "beta")
    assert (arrived["peer"], arrived["peer_name"]) == (alpha.address, "alpha")
    assert departed["size_bytes"] == arrived["size_bytes"] > 0
    assert left["next"] == {"host_url": beta.address, "name": "beta", "epoch": arrived["epoch"]}
    assert there["previous"] == {"host_url": alpha.address, "name": "alpha", "epoch": departed["epoch"]}
    assert arrived["epoch"] == departed["epoch"] + 1
    assert (left["previous"], there["next"]) == (None, None)
    proxy.dispose()


def test_where_a_paglet_is(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    alpha.create(Talker, agent_id="walker")
    here = get(alpha, "/agents/walker/location")
    assert (here["agent_id"], here["host_url"], here["here"], here["ended"]) == ("walker", alpha.address, True, False)
    assert here["home"] == alpha.address

    alpha.proxy_for(alpha.address, "walker").dispatch(beta.address)
    told = eventually(
        lambda: where if (where := get(alpha, "/agents/walker/location"))["host_url"] == beta.address else None,
        "the home told of the move",
    )
    assert (told["here"], told["epoch"]) == (False, here["epoch"] + 1)

    beta.dispose("walker")
    ended = eventually(
        lambda: where if (where := get(alpha, "/agents/walker/location"))["ended"] else None, "the home told of the end"
    )
    assert (ended["host_url"], ended["here"]) == (None, False)


def test_nobody_is_nowhere(host: Host) -> None:
    reply = ask(host.address, "GET", "/agents/nobody/location")
    assert (reply.status, reply.error) == (404, "InvalidAgentError")


def test_a_home_believes_the_latest_news(host: Host) -> None:
    def where() -> Any:
        return get(host, "/agents/far-away/location")["host_url"]

    assert post(host, "/homes/far-away", {"epoch": 5, "host_url": "http://127.0.0.1:9"}) == {"ok": True}
    assert where() == "http://127.0.0.1:9"
    assert post(host, "/homes/far-away", {"epoch": 4, "host_url": "http://127.0.0.1:8"}) == {"ok": True}
    assert where() == "http://127.0.0.1:9"
    assert post(host, "/homes/far-away", {"epoch": 6, "host_url": None}) == {"ok": True}
    assert where() is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "epoch"),
        ({"epoch": -1}, "epoch"),
        ({"epoch": "soon"}, "epoch"),
        ({"epoch": 1, "host_url": "file:///etc/passwd"}, "host_url"),
        ({"epoch": 1, "host_url": 7}, "host_url"),
    ],
)
def test_news_that_are_none_are_refused(host: Host, body: dict[str, Any], field: str) -> None:
    reply = ask(host.address, "POST", "/homes/far-away", body)
    assert (reply.status, reply.error) == (400, "SerializationError")
    assert field in reply.text


# --- the clients ------------------------------------------------------------------------------------------------------


def test_both_clients_ask_the_same(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    alpha.create(Talker, agent_id="walker").dispatch(beta.address)
    with HostClient() as client:
        journey = client.journey(alpha.address, "walker")
        place = client.locate(beta.address, "walker")
        events = client.events(beta.address, limit=1)
        with pytest.raises(InvalidAgentError):
            client.locate(alpha.address, "nobody")

    async def ask_again() -> tuple[Any, Any, Any]:
        async with AsyncHostClient() as other:
            return (
                await other.journey(alpha.address, "walker"),
                await other.locate(beta.address, "walker"),
                await other.events(beta.address, limit=1),
            )

    assert asyncio.run(ask_again()) == (journey, place, events)
    assert [entry["event"] for entry in journey["entries"]] == ["created", "departed"]
    assert place["here"] is True
    assert [event.kind for event in events] == ["context-start"]


def test_a_journey_is_followed_from_both_ends(hosts: HostFactory) -> None:
    alpha, beta, gamma = (hosts(name) for name in ("alpha", "beta", "gamma"))
    proxy: Any = alpha.create(Talker, agent_id="walker")
    for target in (beta, gamma, beta):
        proxy = proxy.dispatch(target.address)
    with HostClient() as client:
        journeys = [follow_journey(client, host.address, "walker") for host in (alpha, beta, gamma)]
    for journey in journeys:
        assert [(stage.host, stage.event) for stage in journey.stages] == [
            ("alpha", "created"), ("alpha", "departed"), ("beta", "arrived"), ("beta", "departed"),
            ("gamma", "arrived"), ("gamma", "departed"), ("beta", "arrived"),
        ]  # fmt: skip
        assert (journey.complete, journey.gaps, journey.host_url) == (True, [], beta.address)
        assert sorted(journey.asked) == sorted(host.address for host in (alpha, beta, gamma))
