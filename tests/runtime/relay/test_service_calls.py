"""Calls and streams of services between hosts that nobody can call."""

from __future__ import annotations

from typing import Any

import pytest

from paglets.core.context import PagletContext
from paglets.core.runtime_values import ServiceScope
from paglets.services.contracts import StreamOperation
from paglets.services.directory import ServiceDirectory
from paglets.services.providers import Distance, distance
from tests.agents.feeds import FEED, FLOW, TURNS, WHO, Count, Feed, Number, Reader
from tests.runtime.relay.conftest import Trio
from tests.support import eventually


@pytest.mark.parametrize("stream", [TURNS, FLOW], ids=["turns", "flow"])
def test_a_stream_through_the_relay(trio: Trio, stream: StreamOperation[Count, Number]) -> None:
    feed = trio.far.create(Feed)
    reader = trio.laptop.create(Reader)
    try:
        assert reader.call(Reader.read, stream.name, 30) == list(range(30))
        handle = PagletContext(trio.laptop).require_contract(FEED, scope=ServiceScope.MESH)
        for item in handle.stream(stream, Count(1000)):
            if item.number == 10:
                break
        eventually(lambda: feed.call(Feed.counts)[1] == 2, "the generator to end")
        outside = ServiceDirectory(trio.hub.address, trio.client).require_contract(FEED, scope=ServiceScope.MESH)
        assert [item.number for item in outside.stream(stream, Count(20))] == list(range(20))
    finally:
        feed.dispose()
        reader.dispose()


def test_what_paglets_send_stays_packed_through_the_relay(trio: Trio) -> None:
    feed, reader = trio.far.create(Feed), trio.laptop.create(Reader)
    try:
        assert reader.call(Reader.read, TURNS.name, 3) == [0, 1, 2]
        words: Any = trio.laptop._node.ports.words
        assert trio.far.address in words._understood
    finally:
        feed.dispose()
        reader.dispose()


def test_a_pool_prefers_hosts_that_are_reached_directly(trio: Trio) -> None:
    relayed, direct = trio.far.create(Feed), trio.hub.create(Feed)
    try:
        pool = ServiceDirectory(trio.hub.address, trio.client).service(FEED, scope=ServiceScope.MESH)
        assert {pool.call(WHO).agent_id for _ in range(10)} == {direct.agent_id}
        assert {distance(record.host_url, trio.laptop.address) for record in pool.providers} == {
            Distance.DIRECT,
            Distance.RELAYED,
        }
        pool = PagletContext(trio.laptop).service(FEED, scope=ServiceScope.MESH)
        assert {pool.call(WHO).agent_id for _ in range(10)} == {direct.agent_id}
    finally:
        relayed.dispose()
        direct.dispose()
