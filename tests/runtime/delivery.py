"""What the tests of deliveries share: proxies of other programs, senders under load, and what books must say then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from paglets.core.errors import InvalidAgentError, PagletError
from paglets.core.messages import Message
from paglets.core.terms import DeliveryTerms
from paglets.remote import requests
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.support import eventually

JOIN_SECONDS = 60.0


def note(entry: str, **options: Any) -> Message:
    """Return a message that makes an entry."""
    return Message("note", {"entry": entry}, **options)


def far(proxy: PagletProxy, client: HostClient) -> PagletProxy:
    """Return the proxy as another program has it."""
    return PagletProxy(proxy.host_url, proxy.agent_id, client)


def way_to(*proxies: PagletProxy) -> list[list[str]]:
    """Return proxies as plain values."""
    return [[proxy.host_url, proxy.agent_id] for proxy in proxies]


def book(client: HostClient, proxy: PagletProxy) -> list[str]:
    """Return the entries of a clerk, wherever it is."""
    return list(far(proxy, client).send(Message("book")))


def where_is(client: HostClient, host_url: str, agent_id: str) -> str:
    """Return where a host says that a paglet is; empty where it does not know, or it has ended."""
    try:
        return str(client.locate(host_url, agent_id).get("host_url") or "")
    except InvalidAgentError:
        return ""


def await_known(client: HostClient, host_url: str, agent_id: str, place: str) -> None:
    """Wait until a host knows that a paglet is at another."""
    eventually(lambda: where_is(client, host_url, agent_id) == place, f"{host_url} knows that it is at {place}")


def deliver_at(
    client: HostClient,
    host_url: str,
    agent_id: str,
    message: Message,
    *,
    oneway: bool = False,
    attempt: int = 1,
    timeout: float = 20.0,
    chain: tuple[str, ...] = (),
    no_delay: bool = False,
) -> dict[str, Any]:
    """Send one request and return the whole answer: nobody is followed, and nothing is repeated."""
    parcel = requests.Parcel(message, oneway, no_delay=no_delay)
    terms = DeliveryTerms(attempt, None if oneway else timeout, chain)
    url = requests.agent_url(host_url, agent_id, "messages")
    answer = client.post_json(url, requests.delivery(parcel, terms), timeout=timeout)
    assert isinstance(answer, dict)
    return answer


def dispatches(hosts: Sequence[Host], agent_id: str) -> list[Callable[[], object]]:
    """Return moves of a paglet that is on the first host: to each next one and back to the first."""
    targets = [*hosts[1:], hosts[0]]
    return [partial(here.dispatch, agent_id, there.address) for here, there in zip(hosts, targets, strict=True)]


@dataclass
class Sender:
    """One program that sends numbered entries to one clerk."""

    name: str
    proxy: PagletProxy
    count: int
    oneway_every: int = 2
    sent: list[str] = field(default_factory=list)
    """What was acknowledged, in order."""
    replies: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def send_all(self) -> None:
        """Send everything, each message when the one before was acknowledged."""
        with HostClient(timeout=60.0) as client:
            proxy = far(self.proxy, client)
            for number in range(self.count):
                entry = f"{self.name}:{number}"
                try:
                    if number % self.oneway_every:
                        proxy.send_oneway(note(entry))
                    else:
                        self.replies[entry] = proxy.send(note(entry))
                except PagletError as exc:
                    self.failures.append(f"{entry}: {type(exc).__name__}: {exc}")
                else:
                    self.sent.append(entry)


def under_load(
    proxies: Sequence[PagletProxy], senders: int, count: int, trouble: Callable[[int], None]
) -> list[Sender]:
    """Have senders send while trouble is made again and again; return them when all is sent.

    :param proxies: what the senders know the paglet by, in turn.
    :param trouble: gets the number of the round.
    """
    made = [Sender(f"s{number}", proxies[number % len(proxies)], count) for number in range(senders)]
    threads = [threading.Thread(target=sender.send_all) for sender in made]
    for thread in threads:
        thread.start()
    number = 0
    end = time.monotonic() + JOIN_SECONDS
    while any(thread.is_alive() for thread in threads):
        assert time.monotonic() < end, f"the senders do not come to an end: {[sender.sent[-1:] for sender in made]}"
        trouble(number)
        number += 1
        time.sleep(0.002)  # so that others get a turn
    for thread in threads:
        thread.join(JOIN_SECONDS)
    assert number > 1, "there was no trouble at all"
    return made


def check_book(senders: Sequence[Sender], entries: Sequence[str], *, stable: bool = True) -> None:
    """Check that everything that was acknowledged is in the book once, in order, and that replies tell the truth.

    :param stable: the state was never rolled back, so a reply is the place of its entry in the book.
    """
    failures = [failure for sender in senders for failure in sender.failures]
    assert failures == []
    for sender in senders:
        found = [entry for entry in entries if entry.startswith(f"{sender.name}:")]
        assert found == sender.sent, f"lost, doubled or out of order: {set(sender.sent) ^ set(found)} in {found}"
        assert len(sender.replies) == len(
            [number for number in range(sender.count) if not number % sender.oneway_every]
        )
        if stable:
            stale = {
                entry: (reply, entries.index(entry) + 1)
                for entry, reply in sender.replies.items()
                if entries.index(entry) + 1 != reply
            }
            assert stale == {}
