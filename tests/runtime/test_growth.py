"""A host that has done much holds no more than one that has done little."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.remote.transfer import TransferTicket
from paglets.runtime.agents import AgentEntry
from paglets.runtime.arrival import Arrival
from paglets.runtime.departures.record import Departure
from paglets.runtime.host import Host
from paglets.runtime.place import Place
from paglets.runtime.receiving import Incoming
from tests.agents.actor import Actor, ActorState, Quiet
from tests.support import HostFactory, eventually

#: What a transfer is made of, whichever end of it.
KINDS = (Arrival, Departure, Incoming, TransferTicket)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    # What hundreds of tests before these have left is not searched again and again.
    gc.collect()
    gc.freeze()
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


def garbage() -> Counter[str]:
    """Count what of this package and its server only the garbage collector would free."""
    gc.collect()
    kinds = Counter(type(each).__qualname__ for each in gc.garbage if is_ours(each))
    gc.set_debug(0)
    gc.garbage.clear()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    return kinds


def is_ours(each: object) -> bool:
    return type(each).__module__.partition(".")[0] in ("paglets", "uvicorn", "httptools")


def paglets_in_memory() -> int:
    """Count what the hosts of this process know of a paglet or its process, garbage included."""
    return sum(1 for each in gc.get_objects() if isinstance(each, AgentEntry | Place))


def sleep_and_wake(pair: tuple[Host, Host], client: HostClient) -> None:
    proxy = PagletProxy(pair[0].address, SLEEPER, client)
    proxy.deactivate()
    proxy.activate()


def move_there_and_back(pair: tuple[Host, Host], client: HostClient) -> None:
    proxy = PagletProxy(pair[0].address, SLEEPER, client)
    for host in (pair[1], pair[0]):
        proxy.dispatch(host.address)


def create_and_dispose(pair: tuple[Host, Host], client: HostClient) -> None:
    reply = client.post_json(f"{pair[0].address}/agents", {"agent_class_name": "tests.agents.actor:Quiet"})
    PagletProxy(pair[0].address, reply["proxy"]["agent_id"], client).dispose()


def fail_to_move(pair: tuple[Host, Host], client: HostClient) -> None:
    with pytest.raises(PagletError):
        PagletProxy(pair[0].address, SLEEPER, client).dispatch("http://127.0.0.1:9")


def fail_in_a_handler(pair: tuple[Host, Host], client: HostClient) -> None:
    with pytest.raises(PagletError):
        PagletProxy(pair[0].address, SLEEPER, client).send(Message("nothing of the kind", {"padding": "x" * 100_000}))


def fail_at_a_local_caller(pair: tuple[Host, Host], _: HostClient) -> None:
    with pytest.raises(PagletError):
        pair[0].deliver_message(SLEEPER, Message("nothing of the kind", {}))


def upload(pair: tuple[Host, Host], client: HostClient, directory: Path) -> None:
    source = directory / "content"
    source.write_bytes(b"x" * 100_000)
    client.delete_artifact(client.upload_artifact(pair[0].address, source))


SLEEPER = "sleeper"
ROUNDS = 6
WORK = (
    sleep_and_wake,
    move_there_and_back,
    create_and_dispose,
    fail_to_move,
    fail_in_a_handler,
    fail_at_a_local_caller,
    upload,
)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Have the collector keep what it finds, and not look by itself."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.enable()
        gc.garbage.clear()


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_nothing_is_left_to_the_garbage_collector(
    work: Callable[..., None], pair: tuple[Host, Host], tmp_path: Path, uncollected: None
) -> None:
    alpha, _ = pair
    directory = (tmp_path,) if work is upload else ()
    before = paglets_in_memory()
    alpha.create(Quiet, agent_id=SLEEPER)
    with HostClient(timeout=20.0) as client:
        try:
            work(pair, client, *directory)
            garbage()
            for _ in range(ROUNDS):
                work(pair, client, *directory)
        finally:
            alpha.dispose(SLEEPER)

    eventually(lambda: paglets_in_memory() <= before, "everything about the paglets to be freed without the collector")
    left = garbage()

    # What something else in this process leaves behind at the same time, it does not leave behind each time.
    assert not {kind: count for kind, count in left.items() if count >= ROUNDS}
