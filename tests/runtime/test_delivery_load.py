"""Many senders, while the receiver moves, sleeps or dies: everything acknowledged is handled once, and in order."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

import psutil
import pytest

from paglets.core.errors import ConflictError, InvalidAgentError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.clerk import Clerk, LightClerk
from tests.runtime.delivery import book, check_book, dispatches, under_load
from tests.support import HostFactory, events_of, eventually

SENDERS = 8


def both(*classes: type[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("agent_class", classes, ids=[agent_class.__name__ for agent_class in classes])


def all_entries(client: HostClient, proxy: PagletProxy, count: int) -> list[str]:
    """Wait until the one-way messages have been handled as well, and return everything."""
    return eventually(
        lambda: entries if len(entries := book(client, proxy)) >= count else [], f"{count} entries", timeout=30.0
    )


def process_of(host: Host, agent_id: str) -> int:
    """Return the process id of a paglet, 0 where it has none at present."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            if title.startswith(f"paglet:{host.name}:") and agent_id in title:
                return process.pid if process.status() != psutil.STATUS_ZOMBIE else 0
    return 0


@both(Clerk, LightClerk)
def test_a_paglet_that_moves_back_and_forth_handles_everything_once(hosts: HostFactory, agent_class: type[Any]) -> None:
    row = [hosts(name) for name in ("alpha", "beta", "gamma")]
    made = row[0].create(agent_class)
    moves = dispatches(row, made.agent_id)
    proxies = [PagletProxy(host.address, made.agent_id, made.client) for host in row]
    # A host that never had it knows nothing of it.
    for move in moves:
        move()
    senders = under_load(proxies, SENDERS, 20, lambda number: moves[number % len(moves)]())
    with HostClient() as client:
        check_book(senders, all_entries(client, made, SENDERS * 20))
    assert len(events_of(row[0], "dispatch")) > 1


@both(Clerk, LightClerk)
def test_a_paglet_that_sleeps_again_and_again_handles_everything_once(
    hosts: HostFactory, agent_class: type[Any]
) -> None:
    host = hosts()
    made = host.create(agent_class)

    def sleep(number: int) -> None:
        del number
        with suppress(InvalidAgentError, ConflictError):  # it sleeps already
            host.deactivate(made.agent_id)

    senders = under_load([made], SENDERS, 6, sleep)
    with HostClient() as client:
        check_book(senders, all_entries(client, made, SENDERS * 6))
    assert len(events_of(host, "activate")) > 1


def test_a_handler_that_goes_to_sleep_leaves_no_sender_without_reply(hosts: HostFactory) -> None:
    host = hosts()
    made = host.create(Clerk)

    def rest(number: int) -> None:
        made.send(Message("rest", {"entry": f"rest {number}"}), timeout=30.0)

    senders = under_load([made], 4, 4, rest)
    with HostClient() as client:
        entries = all_entries(client, made, 4 * 4)
        check_book(senders, [entry for entry in entries if not entry.startswith("rest")], stable=False)
        rests = [entry for entry in entries if entry.startswith("rest")]
        assert rests == [f"rest {number}" for number in range(len(rests))]


def test_a_paglet_whose_process_dies_again_and_again_handles_everything_once(hosts: HostFactory) -> None:
    host = hosts()
    made = host.create(Clerk)

    handled = 0

    def kill(number: int) -> None:
        nonlocal handled
        del number
        # A message of which its receiver dies again and again is given up in the end.
        now = host.mailbox_status(made.agent_id)["delivered_count"]
        process = process_of(host, made.agent_id) if now >= handled + 4 else 0
        if process:
            handled = now
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    senders = under_load([made], SENDERS, 15, kill)
    with HostClient() as client:
        check_book(senders, all_entries(client, made, SENDERS * 15))
    assert len(events_of(host, "paglet-crashed")) > 1
