"""The routes for messages that are withdrawn and for those that nobody received, and the clients' methods for them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from paglets.core.errors import NotFoundError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import DeadLetter
from paglets.persistence.tables import dead_letters
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.serialization.values import pack
from tests.agents.http_agents import TalkerState
from tests.runtime.http.wire import ask, get, post, say
from tests.support import Gate, eventually


@pytest.fixture(autouse=True)
def _no_letters(host: Host) -> None:
    post(host, "/dead-letters/clear")


def bury(host: Host, agent_id: str, kind: str = "count", **args: Any) -> int:
    """Put a message among the dead letters of a host."""
    message = Message(kind, args, message_id=f"message-{kind}")
    body = bytes(pack(QueuedMessage(message, oneway=True, queued_at=5.0).to_wire()))
    letter = DeadLetter(0, 7.0, agent_id, host.address, message.message_id, kind, "it ended", body)
    journal = host._running().node.kernel.journal
    return host._running().run(journal.write(lambda connection: dead_letters.add(connection, letter)))


def test_without_letters(host: Host) -> None:
    assert get(host, "/dead-letters") == {"dead_letters": [], "count": 0}
    assert post(host, "/dead-letters/retry") == {"accepted": [], "failed": [], "untried": 0}
    assert post(host, "/dead-letters/clear") == {"cleared": 0}


def test_letters_are_listed(host: Host) -> None:
    first, second = bury(host, "gone"), bury(host, "other", "put", data="x")
    listed = get(host, "/dead-letters")
    assert listed["count"] == 2
    assert listed["dead_letters"][0] == {
        "letter_id": first,
        "died_at": 7.0,
        "agent_id": "gone",
        "host_url": host.address,
        "message_id": "message-count",
        "kind": "count",
        "reason": "it ended",
        "size_bytes": listed["dead_letters"][0]["size_bytes"],
    }
    for query, found in (
        ("agent=other", [second]),
        (f"since={first}", [second]),
        ("limit=1", [first]),
        ("limit=0", []),
    ):
        assert [letter["letter_id"] for letter in get(host, f"/dead-letters?{query}")["dead_letters"]] == found


def test_a_letter_has_its_message(host: Host) -> None:
    number = bury(host, "gone", "put", data=b"\0")
    letter = get(host, f"/dead-letters/{number}")
    assert letter["message"]["args"] == {"data": {"__paglets_binary__": "bytes", "base64": "AA=="}}
    assert (letter["oneway"], letter["queued_at"], letter["kind"]) == (True, 5.0, "put")


def test_a_retry_delivers_and_removes(host: Host, talker: PagletProxy) -> None:
    number = bury(host, talker.agent_id, by=4)
    assert post(host, f"/dead-letters/{number}/retry") == {"ok": True}
    eventually(lambda: host.get_state(talker.agent_id, TalkerState).count == 4, "the message handled")
    assert get(host, "/dead-letters")["count"] == 0


def test_what_is_refused_again_stays(host: Host) -> None:
    number = bury(host, "gone")
    reply = ask(host.address, "POST", f"/dead-letters/{number}/retry")
    assert (reply.status, reply.error) == (404, "InvalidAgentError")
    report = post(host, "/dead-letters/retry", {"agent_id": "gone"})
    assert report["accepted"] == []
    (failure,) = report["failed"]
    assert (failure["letter_id"], failure["error_type"]) == (number, "InvalidAgentError")
    assert get(host, "/dead-letters")["count"] == 1


def test_some_are_retried_and_some_cleared(host: Host, talker: PagletProxy) -> None:
    numbers = [bury(host, talker.agent_id, by=1) for _ in range(2)]
    lost = bury(host, "gone")
    assert post(host, "/dead-letters/retry", {"limit": 1})["accepted"] == numbers[:1]
    assert post(host, "/dead-letters/retry", {"agent_id": talker.agent_id})["accepted"] == numbers[1:]
    assert post(host, f"/dead-letters/{lost}/clear") == {"ok": True}
    bury(host, "gone")
    assert post(host, "/dead-letters/clear", {"agent_id": "nobody"}) == {"cleared": 0}
    assert post(host, "/dead-letters/clear", {"agent_id": "gone"}) == {"cleared": 1}


def test_an_unknown_letter_is_not_found(host: Host) -> None:
    for method, path in (("GET", "77"), ("POST", "77/retry"), ("POST", "77/clear")):
        reply = ask(host.address, method, f"/dead-letters/{path}")
        assert (reply.status, reply.error) == (404, "NotFoundError")
    assert ask(host.address, "GET", "/dead-letters/first").status == 404


@pytest.mark.parametrize("query", ["since=-1", "limit=1001", "limit=few"])
def test_a_question_out_of_bounds_is_refused(host: Host, query: str) -> None:
    reply = ask(host.address, "GET", f"/dead-letters?{query}")
    assert (reply.status, reply.error) == (400, "SerializationError")


def test_a_message_that_could_not_be_delivered_becomes_a_letter(host: Host, talker: PagletProxy) -> None:
    # Given a message that waits for a paglet which sleeps
    talker.deactivate(policy=DeactivationPolicy(activate_on_message=False))
    talker.send_oneway(Message("count", {"by": 3}))

    # When the paglet ends
    host.dispose(talker.agent_id)

    # Then nobody will ever receive it, and that is not silent
    (letter,) = eventually(lambda: get(host, "/dead-letters")["dead_letters"], "the letter")
    assert (letter["agent_id"], letter["kind"]) == (talker.agent_id, "count")
    assert letter["reason"]


# --- withdrawing ------------------------------------------------------------------------------------------------------


def test_a_message_that_waits_is_withdrawn(host: Host, talker: PagletProxy, gate: Gate) -> None:
    path = f"/agents/{talker.agent_id}/messages"
    behind = say("count", by=5)
    behind["message"]["message_id"] = "second"
    with ThreadPoolExecutor() as threads:
        # Given a handler that runs, and a message behind it
        first = threads.submit(post, host, path, say("wait", gate=str(gate)))
        gate.await_entered()
        second = threads.submit(ask, host.address, "POST", path, behind)
        eventually(lambda: get(host, f"/agents/{talker.agent_id}")["mailbox"]["queued_count"], "a message that waits")

        # When that is withdrawn
        assert post(host, f"{path}/second/cancel") == {"cancelled": True}

        # Then its sender hears of it, it cannot be withdrawn twice, and the handler that runs is not disturbed
        assert (second.result().status, second.result().error) == (409, "MessageCancelledError")
        assert post(host, f"{path}/second/cancel") == {"cancelled": False}
        gate.open()
        assert first.result() == {"result": "waited"}
    assert host.get_state(talker.agent_id, TalkerState).count == 0


def test_an_unknown_message_is_not_withdrawn(host: Host, talker: PagletProxy) -> None:
    assert post(host, f"/agents/{talker.agent_id}/messages/nothing/cancel") == {"cancelled": False}


# --- the clients ------------------------------------------------------------------------------------------------------


def test_the_client_looks_after_letters(host: Host, talker: PagletProxy) -> None:
    with HostClient() as client:
        url = host.address
        number, other, lost = bury(host, talker.agent_id), bury(host, talker.agent_id), bury(host, "gone")
        assert [letter["letter_id"] for letter in client.dead_letters(url)] == [number, other, lost]
        assert client.dead_letters(url, agent_id="gone", since=lost) == []
        assert client.dead_letter(url, lost)["message"]["kind"] == "count"
        client.retry_dead_letter(url, number)
        assert client.retry_dead_letters(url, agent_id=talker.agent_id)["accepted"] == [other]
        client.clear_dead_letter(url, lost)
        with pytest.raises(NotFoundError):
            client.clear_dead_letter(url, lost)
        bury(host, "gone")
        assert client.clear_dead_letters(url, agent_id="gone") == 1
        assert client.cancel_message(url, talker.agent_id, "a b?c") is False


def test_the_async_client_looks_after_letters(host: Host, talker: PagletProxy) -> None:
    number, other, lost = bury(host, talker.agent_id), bury(host, talker.agent_id), bury(host, "gone")

    async def story() -> None:
        url = host.address
        async with AsyncHostClient() as client:
            assert [letter["letter_id"] for letter in await client.dead_letters(url)] == [number, other, lost]
            assert (await client.dead_letter(url, lost))["message"]["kind"] == "count"
            await client.retry_dead_letter(url, number)
            assert (await client.retry_dead_letters(url, agent_id=talker.agent_id))["accepted"] == [other]
            await client.clear_dead_letter(url, lost)
            with pytest.raises(NotFoundError):
                await client.clear_dead_letter(url, lost)
            assert await client.clear_dead_letters(url) == 0
            assert await client.cancel_message(url, talker.agent_id, "nothing") is False

    asyncio.run(story())
