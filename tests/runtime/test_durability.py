"""What of a paglet is on disk when: before anybody hears of it, after its checkpoints, and with every message."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import InvalidAgentError, LifecycleError, PagletCrashedError, SerializationError
from paglets.core.messages import Message
from paglets.persistence.states import INLINE_BYTES
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.runtime.supervision import MOST_RECOVERIES
from tests.agents.hardy import Careful, Careless, Hardy, HardyState, Lively, LivelyCareful, LivelyCareless, do
from tests.faults.cluster import Cluster, HostProcess
from tests.support import Gate, HostFactory, eventually

LARGE = 2 * INLINE_BYTES
#: Seconds; so long that no checkpoint is taken in the background while a test lasts.
NEVER = 1e6
PRELOAD = ("tests.agents.hardy",)


def state_of(cluster: Cluster, host: HostProcess, agent_id: str) -> dict[str, Any]:
    state: dict[str, Any] = cluster.client.get_json(f"{host.url}/agents/{agent_id}/state")["state"]
    return state


def create(cluster: Cluster, host: HostProcess, cls: type[Hardy], **state: Any) -> PagletProxy:
    name = f"tests.agents.hardy:{cls.__name__}"
    body = {"agent_class_name": name, "state": state}
    return cluster.proxy(host, cluster.client.post_json(f"{host.url}/agents", body)["proxy"]["agent_id"])


def crash_image(host: Host, directory: Path) -> Path:
    """Return a directory with what the disk would have of a host that died now."""
    directory.mkdir()
    with (
        closing(sqlite3.connect(f"file:{host.persistence_dir / 'journal.db'}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(directory / "journal.db")) as target,
    ):
        source.backup(target)
    return directory


def kill_and_restart(host: HostProcess) -> None:
    host.kill()
    host.start()


def state_files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*.state") if path.is_file()]


def count_on_disk(host: Host, proxy: PagletProxy) -> int:
    """Return the count in the row of a paglet."""
    return stored(host, proxy).count


def stored(host: Host, proxy: PagletProxy) -> HardyState:
    """Return the state that a crash of the host would bring back."""
    from paglets.serialization.blob import decode_blob

    found = host._node.kernel.vault.awaken(proxy.agent_id)
    assert found is not None
    return decode_blob(HardyState, found.state.view())


def has_row(host: Host, proxy: PagletProxy) -> bool:
    with closing(sqlite3.connect(f"file:{host.persistence_dir / 'journal.db'}?mode=ro", uri=True)) as connection:
        return bool(connection.execute("SELECT 1 FROM paglets WHERE agent_id = ?", (proxy.agent_id,)).fetchone())


# --- the host dies ----------------------------------------------------------------------------------------------------


def test_what_comes_back_depends_on_the_class(cluster: Cluster) -> None:
    (host,) = cluster.start("alpha", preload=PRELOAD, checkpoint_interval=NEVER)
    kinds = {cls: create(cluster, host, cls) for cls in (Lively, LivelyCareful, LivelyCareless)}
    for cls, proxy in kinds.items():
        assert proxy.send(do("save what travels", "count")) == 1
        if cls is not LivelyCareless:
            assert proxy.send(do("checkpoint")) == 1
        assert proxy.send(Message("add")) == 2
    kill_and_restart(host)
    counts = {}
    for cls, proxy in kinds.items():
        if proxy.is_valid():
            proxy.send(do("read"))
            state = state_of(cluster, host, proxy.agent_id)
            assert state["notes"] == ["recovery", "what travels"]
            counts[cls] = state["count"]
    assert counts == {Lively: 1, LivelyCareful: 2}
    with pytest.raises(InvalidAgentError):
        kinds[LivelyCareless].send(Message("add"))


def test_a_message_wakes_its_receiver_again_that_slept_before_it_had_settled(
    hosts: HostFactory, tmp_path: Path
) -> None:
    host = hosts()
    run, handler = Gate(tmp_path, "run"), Gate(tmp_path, "handler")
    proxy = host.create(LivelyCareful, HardyState(plan={"run": [f"gate {run}"]}))
    run.await_entered()
    run.open()
    proxy.deactivate()
    host._node.kernel.config.run_settle_seconds = 60.0
    with ThreadPoolExecutor(2) as pool:
        waking = pool.submit(proxy.activate)
        run.await_entered()
        putting_to_sleep = pool.submit(proxy.send, do(f"gate {handler}", "rest"))
        handler.await_entered()
        message = Message("add")
        proxy.send_oneway(message)
        handler.open()
        putting_to_sleep.result(10)
        waking.result(10)
    eventually(
        lambda: message.message_id in [event.message_id for event in host.list_events() if "delivered" in event.kind],
        "the message handled",
    )
    run.await_entered()
    run.open()


@pytest.mark.parametrize(("times", "comes_back"), [(2, True), (MOST_RECOVERIES + 1, False)])
def test_a_recovery_over_which_the_process_dies_is_tried_again(
    cluster: Cluster, tmp_path: Path, times: int, comes_back: bool
) -> None:
    (host,) = cluster.start("alpha", preload=PRELOAD)
    deaths = tmp_path / "deaths"
    proxy = create(cluster, host, Lively, plan={"activation": [f"die_times {times} {deaths}"]})
    assert proxy.send(do("count 3", "checkpoint")) == 3
    kill_and_restart(host)
    if comes_back:
        assert proxy.send(Message("add")) == 4  # it waits for the paglet
        assert state_of(cluster, host, proxy.agent_id)["notes"] == ["recovery"]
    else:
        eventually(lambda: deaths.exists() and deaths.stat().st_size == times, "the last try")
        eventually(lambda: proxy.info()["crashed"], "the end of it")
        with pytest.raises(PagletCrashedError):
            proxy.send(Message("add"))
        proxy.activate()  # as of any other that has crashed
        assert proxy.send(Message("add")) == 4
    assert deaths.stat().st_size == times


def test_who_has_not_had_its_turn_to_come_back_is_brought_back_for_whoever_wants_to_move_it(
    hosts: HostFactory, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paglets.runtime.wakeups.STARTUP_CONCURRENCY", 1)
    monkeypatch.setattr("paglets.runtime.assembly.RESUME_SECONDS", 0.0)
    first, target = hosts("alpha"), hosts("gamma")
    ahead = first.create(Lively, HardyState(plan={"activation": [f"gate {gate}"]}))
    moved, slept, ended = (first.create(Lively) for _ in range(3))
    for proxy in (ahead, moved, slept, ended):
        assert proxy.send(do("count 2", "checkpoint")) == 2
    directory = crash_image(first, tmp_path / "image")
    first.stop()
    host = hosts("beta", persistence_dir=directory)
    gate.await_entered()
    assert host.dispatch(moved.agent_id, target.address).send(Message("add")) == 3
    assert not host.deactivate(slept.agent_id).is_active()
    host.dispose(ended.agent_id)
    gate.open()
    eventually(lambda: [agent["agent_id"] for agent in host.list_agents()] == [ahead.agent_id], "the one ahead")
    assert host.activate(slept.agent_id).send(Message("add")) == 3
    assert host.get_proxy(ended.agent_id, include_inactive=True) is None


def test_whoever_asks_for_a_checkpoint_gets_one(cluster: Cluster) -> None:
    """A handler, a thread of a handler, `run`, and the hook on creation, whose end is one anyway."""
    (host,) = cluster.start("alpha", preload=PRELOAD, checkpoint_interval=NEVER)
    wishes = {
        "handler": create(cluster, host, Hardy),
        "thread": create(cluster, host, Hardy),
        "run": create(cluster, host, Lively, plan={"run": ["count 5", "checkpoint"]}),
        "creation": create(cluster, host, Lively, plan={"creation": ["count 5", "checkpoint"]}),
        "activation": create(cluster, host, Lively, plan={"activation": ["count 5", "checkpoint"]}),
    }
    wishes["handler"].send(do("count 5", "checkpoint"))
    wishes["thread"].send(do("count 5", "thread checkpoint"))
    wishes["activation"].deactivate()
    wishes["activation"].activate()
    for proxy in wishes.values():
        assert proxy.send(Message("add")) == 6
    kill_and_restart(host)
    found = {name: state_of(cluster, host, proxy.agent_id)["count"] for name, proxy in wishes.items()}
    # The activation hook and `run` have counted once more.
    assert found == dict.fromkeys(wishes, 5) | {"activation": 10, "run": 10}


def test_many_paglets_come_back(cluster: Cluster) -> None:
    (host,) = cluster.start("alpha", preload=PRELOAD)
    proxies = [create(cluster, host, Careful, count=number) for number in range(200)]
    kill_and_restart(host)
    health = f"{host.url}/health"
    eventually(lambda: cluster.client.get_json(health)["active_count"] == 200, "all of them to be back", timeout=30.0)
    assert [proxy.send(Message("add")) for proxy in proxies] == list(range(1, 201))


def test_a_large_state_comes_back_and_the_replaced_one_is_dropped(cluster: Cluster) -> None:
    (host,) = cluster.start("alpha", preload=PRELOAD)
    proxies = [create(cluster, host, cls) for cls in (Careful, Hardy)]
    for _ in range(3):
        for proxy in proxies:
            proxy.send(do(f"grow {LARGE}", "count", "checkpoint"))
    blobs = [state_of(cluster, host, proxy.agent_id)["blob"] for proxy in proxies]
    eventually(lambda: len(state_files(host.directory)) == 2, "the files of replaced states to go")
    kill_and_restart(host)
    assert [state_of(cluster, host, proxy.agent_id)["blob"] for proxy in proxies] == blobs
    assert [proxy.send(Message("add")) for proxy in proxies] == [4, 4]
    for proxy in proxies:
        proxy.dispose()
    eventually(lambda: not state_files(host.directory), "the files of ended paglets to go")


def test_a_class_that_cannot_be_imported_waits_until_it_can(
    hosts: HostFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "passing_fashion.py"
    text = "from tests.agents.hardy import LivelyCareful\n\n\nclass Fashion(LivelyCareful):\n    pass\n"
    module.write_text(text)
    first = hosts("alpha")
    body = {"agent_class_name": "passing_fashion:Fashion"}
    agent_id = first.client.post_json(f"{first.address}/agents", body)["proxy"]["agent_id"]
    assert PagletProxy(first.address, agent_id, first.client).send(Message("add")) == 1
    directory = crash_image(first, tmp_path / "image")
    first.stop()
    module.unlink()
    host = hosts("beta", persistence_dir=directory)
    proxy = PagletProxy(host.address, agent_id, host.client)
    for _ in range(2):
        info = proxy.info()
        assert info["crashed"]
        assert "passing_fashion" in info["error"]
        with pytest.raises(PagletCrashedError, match="passing_fashion"):
            proxy.send(Message("add"))
        with pytest.raises(SerializationError, match="passing_fashion"):
            host.activate(agent_id)
    # What it was is there to be looked at.
    assert host.client.get_json(f"{host.address}/agents/{agent_id}/state")["state"]["count"] == 1
    module.write_text(text)
    host.activate(agent_id)
    assert proxy.send(Message("add")) == 2
    assert host.get_state(agent_id, HardyState).notes == ["revive"]


# --- the host stops ---------------------------------------------------------------------------------------------------


def test_a_stop_ends_what_is_active_and_a_shutdown_keeps_it(hosts: HostFactory) -> None:
    host = hosts()
    kinds = [host.create(cls) for cls in (Hardy, Careful, Careless)]
    for proxy in kinds:
        assert proxy.send(Message("add", {"by": 3})) == 3
    asleep = host.create(Hardy)
    asleep.deactivate()
    host.shutdown()
    host = hosts()
    assert [PagletProxy(host.address, proxy.agent_id, host.client).send(Message("add")) for proxy in kinds] == [4] * 3
    host.stop()
    host = hosts()
    assert host.list_agents() == []
    assert [found["agent_id"] for found in host.list_agents(active=False, inactive=True)] == [asleep.agent_id]
    assert not any(has_row(host, proxy) for proxy in kinds)


@pytest.mark.parametrize("cls", [Hardy, Careful])
def test_a_shutdown_in_the_middle_of_a_handler_keeps_what_was_accepted(
    hosts: HostFactory, gate: Gate, cls: type[Hardy]
) -> None:
    """What waits is handled after the next start. What the handler did is not kept, so its message is handled again,
    or is a dead letter where it may have been handled in part."""
    host = hosts(checkpoint_interval=NEVER)
    proxy = host.create(cls)
    in_hand = do("count 100", f"gate {gate}")
    proxy.send_oneway(in_hand)
    gate.await_entered()
    for _ in range(3):
        proxy.send_oneway(Message("add"))
    eventually(lambda: host.mailbox_status(proxy.agent_id)["queued_count"] == 3, "the messages to wait")
    host.shutdown()
    gate.open()
    gate.path.unlink()
    gate.path.touch()
    host = hosts()
    count = 3 if cls is Hardy else 103
    eventually(lambda: host.get_state(proxy.agent_id, HardyState).count == count, "what was accepted")
    node = host._node
    letters = [letter["message_id"] for letter in host._wait(lambda: node.letters.listing())]
    assert letters == ([in_hand.message_id] if cls is Hardy else [])


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_what_keeps_nothing_has_no_row_and_no_checkpoint(hosts: HostFactory) -> None:
    host = hosts(checkpoint_interval=0.01)
    proxy = host.create(Careless)
    with pytest.raises(LifecycleError, match="DURABILITY"):
        proxy.send(do("checkpoint"))
    with pytest.raises(LifecycleError, match="DURABILITY"):
        host.checkpoint(proxy.agent_id)
    assert not has_row(host, proxy)
    proxy.deactivate()
    assert has_row(host, proxy)
    assert proxy.send(Message("add")) == 1
    assert not has_row(host, proxy)


def rounds_of(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the id of a paglet with each of its checkpoints in the background."""
    checkpoints: Any = host._node.checkpoints
    take, rounds = checkpoints._take, []

    async def counted(entry: Any, place: Any) -> None:
        await take(entry, place)
        rounds.append(entry.agent_id)

    monkeypatch.setattr(checkpoints, "_take", counted)
    return rounds


def test_a_state_that_is_as_it_was_is_not_written_again(hosts: HostFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    host = hosts(checkpoint_interval=0.01)
    rounds = rounds_of(host, monkeypatch)
    with_run = host.create(Lively, HardyState(blob=b"x" * LARGE, plan={"run": ["await_count 100"]}))
    proxy = host.create(Hardy)
    for other in (with_run, proxy):
        assert other.send(Message("add", {"by": 5})) == 5
        eventually(lambda other=other: count_on_disk(host, other) == 5, "a checkpoint")
    eventually(lambda: rounds.count(proxy.agent_id) >= 1, "the round after the message")
    units = host._node.kernel.journal.statistics().units
    files = state_files(host.persistence_dir)
    seen = len(rounds)
    eventually(lambda: len(rounds) >= seen + 5, "five more rounds")
    assert set(rounds[seen:]) == {with_run.agent_id}, "only what may change by itself is asked again"
    assert proxy.send(do()) == 5
    eventually(lambda: proxy.agent_id in rounds[seen:], "the round after a message that changed nothing")
    assert host._node.kernel.journal.statistics().units == units
    assert state_files(host.persistence_dir) == files
    assert len(files) == 1


def test_run_is_checkpointed_while_it_lives(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts(checkpoint_interval=0.02)
    gates = [Gate(tmp_path, name) for name in ("first", "second")]
    plan = ["count 3", f"gate {gates[0]}", "count 4", f"gate {gates[1]}", "count 5"]
    proxy = host.create(Lively, HardyState(plan={"run": plan}))
    for gate, count in zip(gates, (3, 7), strict=True):
        gate.await_entered()
        eventually(lambda count=count: count_on_disk(host, proxy) == count, f"{count} on disk")
        gate.open()
    eventually(lambda: count_on_disk(host, proxy) == 12, "what run did last")


def test_half_of_a_handlers_work_is_no_checkpoint(
    hosts: HostFactory, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = hosts(checkpoint_interval=0.01)
    rounds = rounds_of(host, monkeypatch)
    proxy = host.create(Hardy)
    proxy.send(Message("add"))
    eventually(lambda: count_on_disk(host, proxy) == 1, "a checkpoint")
    eventually(lambda: rounds, "its round to end")
    reply = proxy.send_future(do("count 10", f"gate {gate}", "count 20"))
    gate.await_entered()
    # The next checkpoint is asked for, and waits.
    host._node.kernel.loop.call_soon_threadsafe(
        host._node.checkpoints.touch, host._node.kernel.agents.require(proxy.agent_id)
    )
    entry: Any = host._node.kernel.agents.require(proxy.agent_id)
    eventually(lambda: entry.checkpoint_due is None, "the checkpoint to be due")
    assert count_on_disk(host, proxy) == 1
    assert len(rounds) == 1
    gate.open()
    assert reply.get_reply(10) == 31
    eventually(lambda: count_on_disk(host, proxy) == 31, "the whole of it")


def test_a_checkpoint_that_is_asked_for_from_outside_waits_for_the_handler(hosts: HostFactory, gate: Gate) -> None:
    host = hosts(checkpoint_interval=NEVER)
    proxy = host.create(Hardy)
    reply = proxy.send_future(do("count 10", f"gate {gate}", "count 20"))
    gate.await_entered()
    assert count_on_disk(host, proxy) == 0
    gate.open()
    reply.get_reply(10)
    host.checkpoint(proxy.agent_id)
    assert count_on_disk(host, proxy) == 30
