"""What handlers of durable paglets send: after their effects are on disk, in order, until it is accepted, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import InsufficientStorageError, OverloadedError
from paglets.core.messages import Message
from paglets.persistence.tables import outbox
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime import outbox as outbox_of_host
from paglets.runtime import recorder
from paglets.runtime.host import Host
from tests.agents.clerk import Clerk, ClerkState, Drowsy, LightClerk
from tests.faults.cluster import Cluster
from tests.faults.judge import journal_counts
from tests.runtime.delivery import book, far, note, way_to
from tests.support import HostFactory, await_event, eventually

CLERK = "tests.agents.clerk:Clerk"


def unsent(host: Host) -> int:
    """Count the messages in the outbox of a host."""
    return journal_counts(host.persistence_dir)["outbox"]


def tell(entry: str, *to: PagletProxy, **options: Any) -> Message:
    return Message("tell", {"to": way_to(*to), "entry": entry, **options})


def test_everybody_is_reached_wherever_they_are(hosts: HostFactory) -> None:
    alpha, beta, gamma = (hosts(name) for name in ("alpha", "beta", "gamma"))
    sender = alpha.create(Clerk)
    near, asleep, moved, returned, there, deaf = (alpha.create(LightClerk) for _ in range(6))
    far_away = beta.create(Clerk)
    alpha.deactivate(asleep.agent_id)
    deaf.send(Message("deafen"))
    alpha.deactivate(deaf.agent_id)
    alpha.dispatch(moved.agent_id, beta.address)
    beta.dispatch(moved.agent_id, gamma.address)
    alpha.dispatch(returned.agent_id, beta.address)
    beta.dispatch(returned.agent_id, alpha.address)
    alpha.dispatch(there.agent_id, beta.address)
    everybody = (near, asleep, moved, returned, there, far_away, sender)
    assert sender.send(tell("news", *everybody, deaf)) == 1
    with HostClient() as client:
        for proxy in everybody:
            eventually(lambda proxy=proxy: "news" in book(client, proxy), "the news")
        eventually(lambda: unsent(alpha) == 0, "an empty outbox")
        deaf.activate()
        assert book(client, deaf) == ["news"]
        assert book(client, sender) == ["told news", "news"]


def test_what_is_sent_to_a_host_that_is_away_arrives_in_order(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    sender, other = alpha.create(Clerk), alpha.create(Clerk)
    receivers = [beta.create(agent_class) for agent_class in (Clerk, LightClerk)]
    port = beta.port
    beta.shutdown()
    sender.send(tell("a", *receivers, other, times=30))
    sender.send(tell("b", *receivers, times=30))
    with HostClient() as client:
        # Who is there need not wait for who is not.
        eventually(lambda: len(book(client, other)) == 30, "the messages to the other")
        assert unsent(alpha) == 120
        beta = hosts("beta", port=port)
        expected = [f"{name}:{number}" for name in "ab" for number in range(30)]
        for receiver in receivers:
            eventually(lambda receiver=receiver: len(book(client, receiver)) == 60, "all messages", 30.0)
            assert book(client, receiver) == expected
        eventually(lambda: unsent(alpha) == 0, "an empty outbox")
        assert client.dead_letters(alpha.address) == []


def test_what_nobody_takes_is_a_dead_letter_until_somebody_decides(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    sender = alpha.create(Clerk)
    gone, unknown = beta.create(Clerk), PagletProxy(alpha.address, "unknown", alpha.client)
    beta.dispose(gone.agent_id)
    assert sender.send(tell("lost", gone, unknown)) == 1
    with HostClient() as client:
        eventually(lambda: len(client.dead_letters(alpha.address)) == 2, "both letters")
        assert unsent(alpha) == 0
        letters = {letter["agent_id"]: letter for letter in client.dead_letters(alpha.address)}
        assert set(letters) == {gone.agent_id, "unknown"}
        # One can be delivered by now.
        alpha.create(LightClerk, agent_id="unknown")
        client.retry_dead_letter(alpha.address, letters["unknown"]["letter_id"])
        eventually(lambda: book(client, unknown) == ["lost"], "the letter")
        client.clear_dead_letter(alpha.address, letters[gone.agent_id]["letter_id"])
        assert client.dead_letters(alpha.address) == []


@pytest.mark.parametrize("dies", [outbox_of_host.MOST_CRASHES, 1000])
def test_a_receiver_whose_process_is_killed_while_it_wakes_is_woken_again(
    hosts: HostFactory, tmp_path: Path, dies: int
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    sender = alpha.create(Clerk)
    receiver = beta.create(Drowsy, ClerkState(deaths=str(tmp_path / "deaths"), dies=dies))
    beta.deactivate(receiver.agent_id)
    sender.send(tell("news", receiver))
    sender.send(tell("more", receiver))
    with HostClient() as client:
        if dies == outbox_of_host.MOST_CRASHES:
            eventually(lambda: unsent(alpha) == 0, "an empty outbox")
            assert client.dead_letters(alpha.address) == []
            assert book(client, receiver) == ["news", "more"]
        else:
            # The second is not tried as often: by then its receiver is taken for crashed.
            eventually(lambda: len(client.dead_letters(alpha.address)) == 2, "both letters")
            assert (tmp_path / "deaths").stat().st_size == outbox_of_host.MOST_CRASHES + 2


def test_nothing_leaves_where_the_handler_could_not_be_recorded(
    hosts: HostFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = hosts()
    sender, receiver = host.create(Clerk), host.create(Clerk)
    with HostClient() as client:
        proxy = far(sender, client)
        assert proxy.send(note("before")) == 1

        def full(*_: Any) -> Any:
            raise InsufficientStorageError("no room")

        with monkeypatch.context() as patched:
            patched.setattr(recorder, "_unit", full)
            with pytest.raises(InsufficientStorageError):
                proxy.send(tell("never", receiver))
        await_event(host, "paglet-crashed", agent_id=sender.agent_id)
        # It goes on from what is on disk.
        assert proxy.send(tell("then", receiver)) == 2
        eventually(lambda: book(client, receiver) == ["then"], "what was sent afterwards")
        assert book(client, sender) == ["before", "told then"]


def test_a_message_that_was_accepted_is_not_sent_again_because_the_disk_is_full(
    hosts: HostFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = hosts()
    sender, receiver = host.create(Clerk), host.create(LightClerk)
    failures = ["one", "two"]
    done = outbox.done

    def sometimes_full(connection: Any, position: int) -> None:
        if failures:
            raise InsufficientStorageError(failures.pop())
        done(connection, position)

    monkeypatch.setattr(outbox, "done", sometimes_full)
    sender.send(tell("a", receiver))
    sender.send(tell("b", receiver))
    with HostClient() as client:
        eventually(lambda: book(client, receiver) == ["a", "b"], "both")
        eventually(lambda: unsent(host) == 0, "an empty outbox")
        assert failures == []
        assert book(client, receiver) == ["a", "b"]


def test_a_handler_that_runs_again_has_no_second_effect_elsewhere(hosts: HostFactory, tmp_path: Path) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    one, near, far_away = alpha.create(Clerk), alpha.create(Clerk), beta.create(Clerk)
    with HostClient() as client:
        for number, other in enumerate((near, far_away)):
            args = {
                "url": other.host_url,
                "agent_id": other.agent_id,
                "entry": "asked",
                "once": str(tmp_path / f"consult {number}"),
            }
            # What it was told the first time is what it is told again.
            assert far(one, client).send(Message("consult", args)) == [1, 2]
            assert book(client, other) == ["asked:0", "asked:1"]
            assert far(one, client).send(tell("told", other, once=str(tmp_path / f"tell {number}"))) == number + 1
            eventually(lambda other=other: book(client, other)[2:] == ["told"], "one message")


def test_an_outbox_that_is_full_says_so_to_the_handler(hosts: HostFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paglets.runtime.outbox.MOST_MESSAGES", 5)
    alpha, beta = hosts("alpha"), hosts("beta")
    sender, near = alpha.create(Clerk), alpha.create(Clerk)
    receiver = beta.create(LightClerk)
    port = beta.port
    beta.shutdown()
    sender.send(tell("early", receiver, times=5))
    with HostClient() as client:
        for proxy in (sender, near):
            with pytest.raises(OverloadedError):
                far(proxy, client).send(tell("too much", near))
        # Everything else goes on.
        assert far(near, client).send(note("goes on")) == 1
        args = {"url": near.host_url, "agent_id": near.agent_id, "kind": "note", "args": {"entry": "asked"}}
        assert far(sender, client).send(Message("ask", args)) == ["reply", 2]
        hosts("beta", port=port)
        eventually(lambda: unsent(alpha) == 0, "an empty outbox", 30.0)
        assert far(sender, client).send(tell("late", receiver)) == 2
        eventually(lambda: len(book(client, receiver)) == 6, "all messages")


def test_what_was_recorded_leaves_after_a_death_of_the_host(cluster: Cluster) -> None:
    alpha, beta = cluster.start("alpha", "beta")
    sender, receiver = cluster.create(alpha, CLERK), cluster.create(beta, CLERK)
    there = PagletProxy(beta.url, receiver, cluster.client)
    beta.kill()
    PagletProxy(alpha.url, sender, cluster.client).send(tell("kept", there, times=10))
    alpha.kill()
    cluster.start_all([alpha, beta])
    eventually(lambda: len(book(cluster.client, there)) == 10, "what was kept", 30.0)
    eventually(lambda: journal_counts(alpha.directory)["outbox"] == 0, "an empty outbox")
    assert book(cluster.client, there) == [f"kept:{number}" for number in range(10)]
