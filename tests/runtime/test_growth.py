"""A host that has done much holds no more than one that has done little."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from paglets.core.errors import PagletError
from paglets.remote.transfer import TransferTicket
from paglets.runtime.arrival import Arrival
from paglets.runtime.departures.record import Departure
from paglets.runtime.host import Host
from paglets.runtime.receiving import Incoming
from tests.agents.actor import Actor, ActorState, Quiet
from tests.support import HostFactory, eventually

#: What a transfer is made of, whichever end of it.
KINDS = (Arrival, Departure, Incoming, TransferTicket)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    factory = HostFactory(Path(tmp_path_factory.mktemp("growth")))
    try:
        yield factory("growth-alpha"), factory("growth-beta")
    finally:
        factory.close()


def held() -> Counter[str]:
    gc.collect()
    objects = gc.get_objects()
    found = Counter(type(each).__name__ for each in objects if isinstance(each, KINDS))
    # Of hosts that are not of this test others may be left in the process; theirs do not change meanwhile.
    found["ended tasks"] = sum(1 for each in objects if isinstance(each, asyncio.Task) and each.done())
    return found


def test_nothing_of_a_move_is_held_when_it_is_settled(pair: tuple[Host, Host]) -> None:
    alpha, beta = pair
    proxy = alpha.create(Quiet)

    def there_and_back() -> None:
        for target in (beta, alpha):
            proxy.dispatch(target.address)

    there_and_back()
    before = eventually(lambda: now if not (now := held())["Departure"] and not now["Arrival"] else None, "a calm host")
    for _ in range(8):
        there_and_back()

    eventually(lambda: not held() - before, f"nothing more than {before}, now {held()}")
    proxy.dispose()


def test_nothing_of_a_refused_paglet_is_held(pair: tuple[Host, Host]) -> None:
    alpha, beta = pair
    fails = ActorState(plan={"arrival": ["fail no"] * 8}, blob=bytes(1024 * 1024))
    proxy = alpha.create(Actor, fails)

    def refused() -> None:
        with pytest.raises(PagletError, match="no"):
            proxy.dispatch(TransferTicket(beta.address))

    refused()
    before = eventually(lambda: now if not (now := held())["Departure"] and not now["Arrival"] else None, "a calm host")
    for _ in range(5):
        refused()

    eventually(lambda: not held() - before, f"nothing more than {before}, now {held()}")
    proxy.dispose()
