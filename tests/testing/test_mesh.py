"""The testing mesh: time, faults, repeatability, and what it says when it cannot go on."""

from __future__ import annotations

import random
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import (
    ConnectionLostError,
    HostError,
    HostUnreachableError,
    InvalidAgentError,
    PagletCrashedError,
    PagletError,
    RemoteTimeoutError,
    TransferError,
)
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy
from paglets.testing import MeshStuckError, PagletMesh, scheduler
from tests.agents.actor import Actor, ActorState
from tests.agents.conformist import Careful, Conformist, ConformistState
from tests.agents.courier import CONTENT, NAME, Courier
from tests.support import eventually, threads_of

BEFORE = (time.time, time.sleep, time.monotonic, uuid.uuid4, threading.Lock, threading.Thread.start)


@pytest.fixture
def mesh() -> Iterator[PagletMesh]:
    with PagletMesh("alpha", "beta", "gamma") as opened:
        yield opened


def tick(mesh: PagletMesh, proxy: Any) -> int:
    return int(mesh.send(proxy, "tick"))


def test_a_paglet_goes_round(mesh: PagletMesh) -> None:
    paglet = mesh.create("alpha", Conformist, ConformistState(count=4))
    assert tick(mesh, paglet) == 5
    for name in ("beta", "gamma", "alpha"):
        paglet = paglet.dispatch(name)
        assert mesh.where(paglet) == [name]
    assert mesh.state(paglet) == ConformistState(count=5)
    assert [event.host_name for event in mesh.events(kind="arrival")] == ["beta", "gamma", "alpha"]


def test_timers_ring_when_time_is_let_pass(mesh: PagletMesh) -> None:
    paglet = mesh.create("alpha", Conformist)
    mesh.send(paglet, "set_alarm", after=3600.0)
    mesh.advance(3599)
    assert mesh.send(paglet, "notes") == []
    mesh.advance(2)
    assert mesh.send(paglet, "notes") == ["rang on alpha"]
    mesh.send(paglet, "set_alarm", after=86400.0)
    paglet.dispatch("beta").deactivate()
    mesh.crash("beta")
    mesh.restart("beta")
    assert mesh.state_of(paglet) == "asleep"
    mesh.advance(86401)
    assert mesh.send(paglet, "notes")[1:] == ["rang on beta"]


def test_a_sleeper_wakes_at_its_time(mesh: PagletMesh) -> None:
    paglet = mesh.create("alpha", Conformist)
    paglet.deactivate(policy=DeactivationPolicy.after(600))
    assert mesh.state_of(paglet) == "asleep"
    mesh.advance(601)
    assert mesh.state_of(paglet) == "active"
    with pytest.raises(InvalidAgentError):
        mesh.state_of("nobody")


def test_time_is_virtual_in_paglets_and_in_the_test(mesh: PagletMesh) -> None:
    began, real = mesh.time, time.perf_counter()
    assert time.time() == began
    time.sleep(1000)
    assert time.time() == pytest.approx(began + 1000)
    paglet = mesh.create("alpha", Conformist)
    before = mesh.now
    assert mesh.send(paglet, "tick_slowly", seconds=8.0) == 1
    assert mesh.now - before >= 8
    assert time.perf_counter() - real < 60  # which is real here


def test_everything_is_put_back() -> None:
    state = random.getstate()
    with PagletMesh("alpha") as mesh:
        mesh.send(mesh.create("alpha", Conformist), "use_threads")
        assert time.time is not BEFORE[0]
        with pytest.raises(MeshStuckError, match="another testing mesh is open"):
            PagletMesh("beta")
        directory = mesh._directory
        assert directory.exists()
    assert (time.time, time.sleep, time.monotonic, uuid.uuid4, threading.Lock, threading.Thread.start) == BEFORE
    assert random.getstate() == state
    assert not directory.exists()
    mesh.close()
    with pytest.raises(HostError, match="closed"):
        mesh.advance(1)


def test_no_thread_is_left() -> None:
    before = len(sys._current_frames())
    with PagletMesh("alpha", "beta") as mesh:
        paglets = [mesh.create("alpha", Conformist, ConformistState(slow=True)) for _ in range(5)]
        mesh.send(paglets[0], "tick_slowly", seconds=1.0)
        mesh.crash("alpha")
        assert len(sys._current_frames()) > before
    eventually(lambda: len(sys._current_frames()) <= before, "the end of every thread")


@pytest.mark.parametrize("names", [(), ("alpha", "alpha"), ("test",)])
def test_names_of_hosts(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="name"):
        PagletMesh(*names)


def history(seed: int) -> list[Any]:
    with PagletMesh("alpha", "beta", seed=seed) as mesh:
        paglets = [mesh.create("alpha", Actor) for _ in range(3)]
        mesh.lose(None, rate=0.1)
        mesh.lose(None, what="answer", rate=0.1)
        mesh.duplicate(None, rate=0.1)
        for number in range(12):
            for work in (lambda p: p.send(Message("add")), lambda p, n=number: p.dispatch(mesh.names[n % 2])):
                try:
                    work(paglets[number % 3])
                except PagletError:
                    continue
        mesh.heal()
        mesh.settle()
        assert [len(mesh.where(paglet)) for paglet in paglets] == [1, 1, 1]
        return [(each.timestamp, each.kind, each.host_name, each.agent_id, each.error) for each in mesh.events()]


def test_the_seed_decides_what_happens() -> None:
    first = history(1)
    assert len(first) > 50
    assert history(1) == first
    assert history(2) != first


@pytest.mark.parametrize("seed", range(6))
def test_what_was_acknowledged_was_done_once(seed: int) -> None:
    """The guarantee of `Durability.MESSAGE`, through lost and repeated requests, moves and crashes."""
    with PagletMesh("alpha", "beta", seed=seed) as mesh:
        choose = random.Random(seed)
        paglet = mesh.create("alpha", Careful)
        mesh.lose(None, rate=0.05)
        mesh.lose(None, what="answer", rate=0.1)
        mesh.duplicate(None, rate=0.1)
        answered = []
        for _ in range(25):
            what = choose.random()
            if what < 0.1:
                name = choose.choice(mesh.names)
                mesh.crash(name)
                mesh.restart(name)
            elif what < 0.3:
                try:
                    paglet.dispatch(choose.choice(mesh.names))
                except PagletError:
                    continue
            else:
                answered.append(tick(mesh, paglet))
        mesh.heal()
        assert answered == list(range(1, len(answered) + 1))
        assert len(mesh.where(paglet)) == 1


def test_a_crash_takes_what_was_not_on_disk(mesh: PagletMesh) -> None:
    fast, careful = mesh.create("beta", Conformist), mesh.create("beta", Careful)
    mesh.settle()
    assert [tick(mesh, fast), tick(mesh, careful)] == [1, 1]
    mesh.crash("beta")
    assert mesh.where(fast) == []
    with pytest.raises(HostError, match="beta does not run"):
        mesh.host("beta")
    with pytest.raises(HostUnreachableError):
        mesh.proxy("beta", fast.agent_id).send(Message("tick"), timeout=1)
    mesh.restart("beta")
    # The checkpoint was not due yet; of the other one every message is kept.
    assert [tick(mesh, fast), tick(mesh, careful)] == [1, 2]
    with pytest.raises(HostError, match="beta runs"):
        mesh.restart("beta")
    mesh.stop("beta")
    mesh.restart("beta")
    assert tick(mesh, fast) == 2


def test_a_partition_and_its_end(mesh: PagletMesh) -> None:
    paglet = mesh.create("alpha", Conformist)
    mesh.partition("alpha", "beta")
    began = mesh.now
    with pytest.raises(TransferError, match="No answer"):
        paglet.dispatch("beta")
    assert mesh.now - began >= 5
    assert mesh.where(paglet) == ["alpha"]
    paglet.dispatch("gamma")
    mesh.partition("test")
    with pytest.raises(RemoteTimeoutError):
        mesh.proxy("gamma", paglet.agent_id).send(Message("tick"), timeout=3)
    mesh.heal()
    assert mesh.where(mesh.proxy("gamma", paglet.agent_id).dispatch("beta")) == ["beta"]
    mesh.partition(["alpha", "gamma"], "beta")
    mesh.advance(300)
    assert not mesh.host("alpha").mesh.is_online("beta")
    assert mesh.host("alpha").mesh.is_online("gamma")
    mesh.heal()
    mesh.advance(300)
    assert mesh.host("alpha").mesh.is_online("beta")
    with pytest.raises(HostError, match="no host 'delta'"):
        mesh.partition("delta")


def test_moves_whose_words_are_lost(mesh: PagletMesh) -> None:
    for what in ("request", "answer"):
        for path in ("/agents", "/commit", "/settled"):
            paglet = mesh.create("alpha", Conformist)
            mesh.lose(what=what, sender="alpha", target="beta", path=path)
            moved = True
            try:
                paglet.dispatch("beta")
            except TransferError:
                moved = False
            mesh.settle()
            assert mesh.network.rules == []
            # A hand-over that was not decided is called off; one that was is told until it is heard.
            assert (moved, mesh.where(paglet)) == ((False, ["alpha"]) if path == "/agents" else (True, ["beta"]))
            assert tick(mesh, paglet) == 1


def test_an_answer_that_is_lost_is_asked_for_again(mesh: PagletMesh) -> None:
    careful, fast = mesh.create("alpha", Careful), mesh.create("alpha", Conformist)
    for paglet in (careful, fast):
        mesh.lose(2, what="answer", path="/messages")
        assert tick(mesh, paglet) == 1
    mesh.lose(what="answer", path="/deactivate")
    with pytest.raises(ConnectionLostError):
        fast.deactivate()
    assert mesh.state_of(fast) == "asleep"
    mesh.duplicate(path="/messages")
    assert [tick(mesh, careful), tick(mesh, careful)] == [2, 3]


def test_messages_take_time(mesh: PagletMesh) -> None:
    paglet = mesh.create("alpha", Conformist)
    mesh.delay(2.0, "test", "alpha")
    began = mesh.now
    tick(mesh, paglet)
    assert 4.0 <= mesh.now - began < 4.1
    with pytest.raises(ValueError, match="between two"):
        mesh.delay(1, "alpha")


def test_a_process_that_is_killed(mesh: PagletMesh) -> None:
    paglet = mesh.create("alpha", Actor)
    mesh.kill(paglet)
    with pytest.raises(PagletCrashedError, match="SIGKILL"):
        mesh.send(paglet, "add")
    assert mesh.state_of(paglet) == "crashed"
    paglet.activate()
    assert mesh.send(paglet, "add") == 1
    with pytest.raises(InvalidAgentError):
        mesh.kill("nobody")


def test_files_travel(mesh: PagletMesh) -> None:
    paglet = mesh.create("alpha", Courier).dispatch("beta")
    assert mesh.send(paglet, "unpack") == {NAME: CONTENT}


def test_large_files_travel(mesh: PagletMesh, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_text("x" * (5 * 1024 * 1024))
    paglet = mesh.create("alpha", Courier)
    mesh.host("alpha").register_file_for(paglet.agent_id, path)
    assert len(mesh.send(paglet.dispatch("beta"), "unpack")["large"]) == path.stat().st_size
    artifact = mesh.client.upload_artifact(mesh.url("gamma"), path)
    mesh.client.download_artifact(artifact, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_host_crashes_in_the_middle_of_a_call(mesh: PagletMesh) -> None:
    paglet = mesh.create("alpha", Careful)
    reply = paglet.send_future(Message("tick_slowly", {"seconds": 5.0}))
    mesh.advance(3)
    mesh.crash("alpha")
    mesh.restart("alpha")
    assert reply.get_reply(500) == 1  # sent again, under its old id


def test_what_blocks_for_real_is_named(mesh: PagletMesh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "gate")
    monkeypatch.setattr(scheduler, "STUCK_SECONDS", 0.3)
    paglet = mesh.create("alpha", Actor)
    with pytest.raises(MeshStuckError, match="act_gate"):
        mesh.send(paglet, "do", steps=f"gate {tmp_path / 'gate'}")
    os.close(os.open(tmp_path / "gate", os.O_WRONLY))
    monkeypatch.setattr(scheduler, "STUCK_SECONDS", 30.0)
    mesh.scheduler.wait_for_baton()


def test_a_failure_says_how_to_repeat_it() -> None:
    def fail() -> None:
        with PagletMesh("alpha", seed=7):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as caught:
        fail()
    assert "PagletMesh('alpha', seed=7)" in caught.value.__notes__[0]


def test_until_and_settle_give_up(mesh: PagletMesh) -> None:
    with pytest.raises(TimeoutError):
        mesh.until(lambda: False, most=5)
    paglet = mesh.create("alpha", Conformist)
    paglet.send_oneway(Message("tick_slowly", {"seconds": 500.0}))
    with pytest.raises(MeshStuckError, match="not quiet"):
        mesh.settle(5)
    mesh.settle(600)
    assert mesh.state(paglet).count == 1
    with pytest.raises(ValueError, match="time passes"):
        mesh.advance(-1)


def test_hosts_can_be_used_as_hosts(mesh: PagletMesh) -> None:
    host = mesh.host("alpha")
    assert host.name == "alpha"
    assert [ref.name for ref in host.list_hosts(online_only=True)] == ["alpha", "beta", "gamma"]
    proxy = host.create(Actor, ActorState(count=3))
    assert host.get_state(proxy.agent_id, ActorState).count == 3
    assert mesh.client.get_json(f"{host.address}/health")["active_count"] == 1
    replies = mesh.call(lambda: host.multicast_message("look").wait_for_all_replies(5))
    assert replies is True


def test_no_thread_of_a_host_outlives_its_mesh() -> None:
    with PagletMesh("lingering", "lasting") as mesh:
        # Files of a paglet that has left are removed on a thread of their own.
        paglet = mesh.create("lingering", Courier).dispatch(mesh.url("lasting"))
        paglet.dispose()
        assert threads_of("lasting")
        mesh.crash("lasting")
        assert not threads_of("lasting")
    assert not threads_of("lingering")
