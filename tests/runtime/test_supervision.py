"""What becomes of a paglet whose process dies by itself, and of the messages that it had and was to get."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import ConflictError, InvalidAgentError, PagletCrashedError, PagletError
from paglets.core.messages import Message
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.runtime.supervision import reload_pause
from paglets.runtime.vault import Vault
from tests.agents.hardy import (
    Careful,
    Hardy,
    HardyState,
    Lively,
    LivelyCareful,
    LivelyCareless,
    Restarted,
    RestartedCareful,
    RestartedCareless,
    RestartedSlowly,
    do,
)
from tests.support import Gate, HostFactory, await_event, events_of, eventually

NEVER = 1e6


def state_of(host: Host, proxy: PagletProxy) -> HardyState:
    return host.get_state(proxy.agent_id, HardyState)


def notes_soon(host: Host, proxy: PagletProxy, note: str) -> None:
    """Wait until a paglet, which may die on the way, has noted something."""

    def noted() -> bool:
        try:
            return note in state_of(host, proxy).notes
        except PagletError:
            return False

    eventually(noted, f"the note {note!r}")


def crashed(proxy: PagletProxy) -> Callable[[], bool]:
    return lambda: bool(proxy.info()["crashed"])


def kill_process(proxy: PagletProxy) -> None:
    os.kill(proxy.info()["pid"], signal.SIGKILL)


def dead_letters(host: Host) -> list[dict[str, Any]]:
    node = host._node
    return host._wait(lambda: node.letters.listing())


def letters_soon(host: Host, count: int) -> list[dict[str, Any]]:
    eventually(lambda: len(dead_letters(host)) == count, f"{count} dead letters")
    return dead_letters(host)


def deaths_in(path: Path) -> int:
    return path.stat().st_size


def test_what_cannot_be_recorded_is_tried_at_once_and_then_less_and_less_often() -> None:
    pauses = [reload_pause(earlier) for earlier in (0, 1, 2, 3, 7, 8, 9, 10**9)]
    assert pauses == pytest.approx([0.0, 0.05, 0.1, 0.2, 3.2, 5.0, 5.0, 5.0])


# --- restarts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("death", ["kill", "exit", "run"])
def test_a_paglet_is_started_again_from_its_last_durable_state(hosts: HostFactory, gate: Gate, death: str) -> None:
    host = hosts(checkpoint_interval=NEVER)
    plan = {"run": [f"gate {gate}", "fail out of breath"]} if death == "run" else {}
    proxy = host.create(Restarted, HardyState(plan=plan))
    assert proxy.send(do("count 3", "checkpoint")) == 3
    assert proxy.send(Message("add")) == 4
    if death == "run":
        gate.await_entered()
        gate.open()
    elif death == "exit":
        with pytest.raises(PagletCrashedError, match="code 9"):
            proxy.send(do("die 9"))
    else:
        kill_process(proxy)
    awoken = await_event(host, "activate", agent_id=proxy.agent_id)
    assert awoken.data["reason"] == "restart"
    error = await_event(host, "paglet-crashed", agent_id=proxy.agent_id).error
    assert {"kill": "SIGKILL", "exit": "code 9", "run": "out of breath"}[death] in error
    state = state_of(host, proxy)
    assert (state.count, state.notes) == (3, ["restart"])
    assert not proxy.info()["crashed"]


def test_a_paglet_that_dies_too_often_stays_crashed_until_it_is_revived(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Restarted)
    for number in range(1, 5):
        eventually(lambda number=number: len(events_of(host, "activate")) == number - 1, "the restart")
        kill_process(proxy)
        eventually(lambda number=number: len(events_of(host, "paglet-crashed")) == number, "the death")
    assert [event.data.get("reason") for event in events_of(host, "activate")] == ["restart"] * 3
    assert proxy.info()["crashed"]
    with pytest.raises(PagletCrashedError, match="SIGKILL"):
        proxy.send(Message("add"))
    proxy.activate()
    assert proxy.send(Message("add")) == 1
    assert state_of(host, proxy).notes[-1] == "revive"
    # Revived by somebody, it has all its restarts again.
    kill_process(proxy)
    eventually(lambda: len(events_of(host, "activate")) == 5, "one more restart")
    assert proxy.send(Message("add")) >= 1


def test_a_restart_that_fails_is_one_more_death(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts()
    deaths = tmp_path / "deaths"
    for times, ends_crashed in ((2, False), (9, True)):
        deaths.write_bytes(b"")
        proxy = host.create(Restarted, HardyState(plan={"activation": [f"die_times {times} {deaths}"]}))
        kill_process(proxy)
        if ends_crashed:
            eventually(lambda: deaths_in(deaths) == 3, "three attempts")
            eventually(
                lambda proxy=proxy: len(events_of(host, "paglet-crashed", agent_id=proxy.agent_id)) == 4, "the last"
            )
            eventually(crashed(proxy), "the end of it")
            with pytest.raises(PagletCrashedError, match="restart failed"):
                proxy.send(Message("add"))
        else:
            await_event(host, "activate", agent_id=proxy.agent_id)
            assert proxy.send(Message("add")) == 1
            assert deaths_in(deaths) == 2


def test_messages_wait_for_the_restart(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    proxy = host.create(RestartedCareful, HardyState(plan={"activation": [f"gate {gate}"]}))
    assert proxy.send(Message("add")) == 1
    kill_process(proxy)
    gate.await_entered()
    with ThreadPoolExecutor(5) as pool:
        replies = [pool.submit(proxy.send, Message("add")) for _ in range(4)]
        oneway = pool.submit(proxy.send_oneway, do("note one-way"))
        gate.open()
        assert sorted(reply.result(10) for reply in replies) == [2, 3, 4, 5]
        oneway.result(10)
    eventually(lambda: "one-way" in state_of(host, proxy).notes, "the one-way message")


def test_messages_wait_for_the_restart_of_one_that_keeps_checkpoints(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(RestartedSlowly)
    kill_process(proxy)
    eventually(crashed(proxy), "the death")
    reply = proxy.send_future(Message("add"))
    proxy.send_oneway(do("note one-way"))
    # Whoever cannot wait for the back-off revives it.
    proxy.activate()
    assert reply.get_reply(10) == 1
    eventually(lambda: "one-way" in state_of(host, proxy).notes, "the one-way message")


def test_a_host_that_stops_does_not_wait_for_restarts(hosts: HostFactory) -> None:
    host = hosts()
    kept = host.create(RestartedSlowly)
    kept.send(do("count 2", "checkpoint"))
    kill_process(kept)
    eventually(crashed(kept), "the death")
    kept.send_oneway(do("count 3"))
    host.shutdown()
    host = hosts()
    eventually(lambda: state_of(host, kept).count == 5, "what was acknowledged")
    ended = PagletProxy(host.address, kept.agent_id, host.client)
    kill_process(ended)
    eventually(crashed(ended), "the second death")
    ended.send_oneway(do("count 7"))
    host.stop()
    host = hosts()
    assert host.list_agents(inactive=True) == []
    (letter,) = dead_letters(host)
    assert letter["agent_id"] == kept.agent_id


# --- the message in hand ----------------------------------------------------------------------------------------------


def test_a_message_that_kills_its_receiver_runs_again_three_times(hosts: HostFactory, tmp_path: Path) -> None:
    """Without the effects of the times before, and only for a paglet that keeps every message."""
    host = hosts()
    for oneway in (False, True):
        deaths = tmp_path / f"deaths-{oneway}"
        proxy = host.create(RestartedCareful)
        message = do("count 10", f"die_times 3 {deaths}", "note through")
        if oneway:
            proxy.send_oneway(message)
        else:
            assert proxy.send(message) == 10
        notes_soon(host, proxy, "through")
        assert deaths_in(deaths) == 3
        assert proxy.send(Message("add")) == 11
    assert dead_letters(host) == []


def test_a_message_that_always_kills_its_receiver_is_given_up(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts()
    deaths = tmp_path / "deaths"
    proxy = host.create(RestartedCareful)
    poison = do(f"die_times 1000 {deaths}")
    proxy.send_oneway(poison)
    proxy.send_oneway(do("note behind"))
    (letter,) = letters_soon(host, 1)
    assert letter["message_id"] == poison.message_id
    assert deaths_in(deaths) == 4
    notes_soon(host, proxy, "behind")
    with pytest.raises(PagletCrashedError):
        proxy.send(do(f"die_times 1000 {deaths}"))
    assert deaths_in(deaths) == 8
    assert proxy.send(Message("add")) == 1
    assert len(dead_letters(host)) == 1, "a sender that waited was told"


def test_a_restart_does_not_take_a_message_on_its_way_to_the_dead_letters_for_one_that_waits(
    hosts: HostFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a disk that is slow when the last death is noted."""
    read = threading.Event()
    bury, awaken = Vault.bury, Vault.awaken

    async def slowly(self: Vault, *letter: Any) -> None:
        read.clear()
        # A restart that reads meanwhile finds the message still waiting.
        self.journal.submit(lambda _: read.wait(0.5), lambda _value, _error: None)
        await bury(self, *letter)

    def reading(self: Vault, agent_id: str) -> Any:
        try:
            return awaken(self, agent_id)
        finally:
            read.set()

    host = hosts()
    monkeypatch.setattr(Vault, "bury", slowly)
    monkeypatch.setattr(Vault, "awaken", reading)
    deaths = tmp_path / "deaths"
    proxy = host.create(RestartedCareful)
    proxy.send_oneway(do(f"die_times 1000 {deaths}"))
    letters_soon(host, 1)
    proxy.send_oneway(do("note behind"))
    notes_soon(host, proxy, "behind")
    assert deaths_in(deaths) == 4
    assert len(dead_letters(host)) == 1


@pytest.mark.parametrize("cls", [Restarted, Hardy])
def test_a_one_way_message_in_hand_of_one_that_keeps_checkpoints_is_a_dead_letter(
    hosts: HostFactory, cls: type[Hardy], tmp_path: Path
) -> None:
    host = hosts()
    deaths = tmp_path / "deaths"
    proxy = host.create(cls)
    fatal = do(f"die_times 1000 {deaths}")
    proxy.send_oneway(fatal)
    (letter,) = letters_soon(host, 1)
    assert letter["message_id"] == fatal.message_id
    assert deaths_in(deaths) == 1
    with pytest.raises(PagletCrashedError):
        proxy.send(do("die 3")) if cls is Restarted else proxy.send(Message("add"))


def test_every_caller_gets_one_answer(hosts: HostFactory, tmp_path: Path) -> None:
    """While the process dies under several of them: none gets two, none waits for ever, and no reply is made up."""
    host = hosts()
    proxy = host.create(RestartedCareful)
    asked = 40

    def ask(number: int) -> Any:
        path = tmp_path / f"deaths-{number}"
        steps = [f"die_times 1 {path}"] if number % 8 == 0 else []
        return proxy.send(do("count 1", *steps))

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(ask, range(asked)))
    assert sorted(replies) == list(range(1, asked + 1))
    assert state_of(host, proxy).count == asked


# --- crashed for good -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Lively, LivelyCareful])
def test_a_crashed_paglet_is_seen_after_a_restart_of_its_host(hosts: HostFactory, cls: type[Hardy]) -> None:
    host = hosts(checkpoint_interval=NEVER)
    revived, disposed = host.create(cls), host.create(cls)
    for proxy in (revived, disposed):
        proxy.send(do("count 4", *([] if cls is LivelyCareful else ["checkpoint"])))
        with pytest.raises(PagletCrashedError):
            proxy.send(do("count 5", "die 6"))
    await_event(host, "paglet-crashed", agent_id=disposed.agent_id)
    host.shutdown()
    host = hosts()
    assert host.health()["active_count"] == 0
    for proxy in (revived, disposed):
        here = PagletProxy(host.address, proxy.agent_id, host.client)
        info = here.info()
        assert info["crashed"]
        assert "code 6" in info["error"]
        assert host.client.get_json(f"{host.address}/agents/{here.agent_id}/state")["state"]["count"] == 4
        with pytest.raises(PagletCrashedError, match="code 6"):
            here.send(Message("add"))
    again = host.activate(revived.agent_id)
    assert again.send(Message("add")) == 5
    assert state_of(host, again).notes == ["revive"]
    host.dispose(disposed.agent_id)
    assert host.get_proxy(disposed.agent_id, include_inactive=True) is None
    host.shutdown()
    host = hosts()
    assert [summary["agent_id"] for summary in host.list_agents(inactive=True)] == [revived.agent_id]


def test_messages_accepted_before_a_paglet_crashed_for_good_are_handled_when_it_is_revived(
    hosts: HostFactory, gate: Gate
) -> None:
    host = hosts()
    proxy = host.create(Careful)
    proxy.send_oneway(do(f"gate {gate}", "die 5"))
    gate.await_entered()
    for number in range(3):
        proxy.send_oneway(do(f"note {number}"))
    gate.open()
    eventually(crashed(proxy), "the death")
    assert dead_letters(host) == []
    host.shutdown()
    host = hosts()
    # The message that killed it is the first again, and kills it again.
    with ThreadPoolExecutor(1) as pool:
        activated = pool.submit(host.activate, proxy.agent_id)
        gate.await_entered()
        gate.open()
        activated.result(10)
    assert events_of(host, "paglet-crashed")
    assert dead_letters(host) == []
    host.dispose(proxy.agent_id)
    letters = letters_soon(host, 4)
    assert {letter["agent_id"] for letter in letters} == {proxy.agent_id}


@pytest.mark.parametrize("cls", [LivelyCareless, RestartedCareless])
def test_what_keeps_nothing_cannot_be_revived(hosts: HostFactory, cls: type[Hardy]) -> None:
    host = hosts()
    proxy = host.create(cls)
    with pytest.raises(PagletCrashedError):
        proxy.send(do("die 2"))
    eventually(crashed(proxy), "the death")
    with pytest.raises(ConflictError, match="none"):
        proxy.activate()
    assert proxy.info()["crashed"]
    proxy.dispose()
    assert not proxy.is_valid()
    with pytest.raises(InvalidAgentError):
        proxy.activate()
