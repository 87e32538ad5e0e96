"""Requests that wait for events: told at once, bounded in number and time, and in nobody's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from paglets.core.context_events import ContextEvent, ContextEventLog
from paglets.core.errors import OverloadedError
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.runtime.http.followers import MAX_FOLLOWERS, MAX_WAIT_SECONDS, Followers
from tests.runtime.http.wire import Wire, ask, get
from tests.support import HostFactory, eventually

LONG = 10.0


def emit(log: ContextEventLog, kind: str = "create") -> ContextEvent:
    return log.emit(kind=kind, host_name="alpha", host_address="http://alpha")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, LONG))


async def until_waiting(followers: Followers, count: int) -> None:
    for _ in range(1000):
        if followers.waiting == count:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{followers.waiting} requests wait, not {count}")


# --- without a host ---------------------------------------------------------------------------------------------------


def test_events_that_are_there_are_not_waited_for() -> None:
    log = ContextEventLog()
    first, second = emit(log), emit(log)
    followers = Followers(log)
    assert run(followers.events(0, limit=100, wait=LONG)) == [first, second]
    assert run(followers.events(1, limit=100, wait=0)) == [second]
    assert run(followers.events(2, limit=100, wait=0)) == []
    assert run(followers.events(0, limit=0, wait=LONG)) == []


def test_a_wait_ends_with_the_event_whichever_thread_emits_it() -> None:
    log = ContextEventLog()
    followers = Followers(log)

    async def follow() -> tuple[list[ContextEvent], list[ContextEvent]]:
        waits = [asyncio.create_task(followers.events(0, limit=100, wait=MAX_WAIT_SECONDS)) for _ in range(2)]
        await until_waiting(followers, 2)
        thread = threading.Thread(target=emit, args=(log,))
        thread.start()
        first, second = await asyncio.gather(*waits)
        thread.join()
        return first, second

    assert run(follow()) == (log.events_since(), log.events_since())
    assert followers.waiting == 0


def test_an_event_below_the_asked_for_does_not_end_the_wait() -> None:
    log = ContextEventLog()
    followers = Followers(log)

    async def follow() -> list[ContextEvent]:
        wait = asyncio.create_task(followers.events(1, limit=100, wait=MAX_WAIT_SECONDS))
        await until_waiting(followers, 1)
        emit(log)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not wait.done()
        emit(log)
        return await wait

    assert [event.event_id for event in run(follow())] == [2]


def test_a_wait_without_an_event_ends_with_nothing() -> None:
    log = ContextEventLog()
    followers = Followers(log)
    assert run(followers.events(0, limit=100, wait=0.01)) == []
    assert followers.waiting == 0


def test_a_wait_ends_when_nobody_is_interested_any_more() -> None:
    log = ContextEventLog()
    followers = Followers(log)

    async def gone() -> None:
        return None

    assert run(followers.events(0, limit=100, wait=MAX_WAIT_SECONDS, gone=gone)) == []
    assert followers.waiting == 0


def test_only_so_many_may_wait() -> None:
    log = ContextEventLog()
    followers = Followers(log, max_followers=1)

    async def follow() -> None:
        wait = asyncio.create_task(followers.events(0, limit=100, wait=MAX_WAIT_SECONDS))
        await until_waiting(followers, 1)
        with pytest.raises(OverloadedError, match="ask without wait, or later"):
            await followers.events(0, limit=100, wait=1)
        assert await followers.events(0, limit=100, wait=0) == []
        emit(log)
        assert len(await wait) == 1

    run(follow())


def test_the_log_signals_only_while_somebody_waits() -> None:
    signals = 0

    class Counting(Followers):
        def _signalled(self) -> None:
            nonlocal signals
            signals += 1
            super()._signalled()

    log = ContextEventLog()
    followers = Counting(log)
    emit(log)
    assert signals == 0

    async def follow() -> None:
        wait = asyncio.create_task(followers.events(1, limit=100, wait=MAX_WAIT_SECONDS))
        await until_waiting(followers, 1)
        emit(log)
        await wait

    run(follow())
    emit(log)
    assert signals == 1


# --- on a host --------------------------------------------------------------------------------------------------------


def newest(host: Host) -> int:
    return int(get(host, "/events?limit=1000")["events"][-1]["event_id"])


def test_a_follower_hears_of_an_event_when_it_happens(host: Host, talker: PagletProxy) -> None:
    since = newest(host)
    with Wire(host.address) as wire:
        wire.send(f"GET /events?since={since}&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        followed = eventually(lambda: _waiting(host), "a request that waits")
        assert followed == 1

        talker.deactivate()

        first = wire.reply().json()["events"][0]
        assert (first["event_id"], first["agent_id"]) == (since + 1, talker.agent_id)
    assert _waiting(host) == 0
    talker.activate()


def test_a_follower_that_hangs_up_waits_no_longer(host: Host) -> None:
    with Wire(host.address) as wire:
        wire.send(f"GET /events?since={newest(host)}&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        eventually(lambda: _waiting(host) == 1, "a request that waits")
    eventually(lambda: _waiting(host) == 0, "the end of the wait")


def test_the_stop_of_a_host_ends_every_wait(hosts: HostFactory) -> None:
    host = hosts("stopping")
    with Wire(host.address) as wire:
        wire.send(f"GET /events?since={newest(host)}&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        eventually(lambda: _waiting(host) == 1, "a request that waits")

        host.stop()

        reply = wire.reply()
        assert [event["kind"] for event in reply.json()["events"]] == ["context-shutdown"]
        assert reply.headers["connection"] == "close"


def test_too_many_followers_are_refused(host: Host) -> None:
    since = newest(host)
    request = f"GET /events?since={since}&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    wires = [Wire(host.address).send(request) for _ in range(MAX_FOLLOWERS)]
    try:
        eventually(lambda: _waiting(host) == MAX_FOLLOWERS, "so many requests that wait")
        refused = ask(host.address, "GET", f"/events?since={since}&wait=1")
        assert (refused.status, refused.error) == (429, "OverloadedError")
        assert get(host, f"/events?since={since}") == {"events": []}
    finally:
        for wire in wires:
            wire.sock.close()
    eventually(lambda: _waiting(host) == 0, "the end of every wait")


@pytest.mark.parametrize("wait", ["-1", "31", "soon", "nan"])
def test_a_wait_is_a_short_time(host: Host, wait: str) -> None:
    refused = ask(host.address, "GET", f"/events?since={newest(host)}&wait={wait}")
    assert (refused.status, refused.error) == (400, "SerializationError")
    assert "wait" in refused.text


def _waiting(host: Host) -> int:
    """Return how many requests wait, as the log of the host knows."""
    signals = host.events._signals
    return sum(signal.__self__.waiting for signal in signals)  # type: ignore[attr-defined]
