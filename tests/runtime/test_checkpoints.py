"""In which order the states of one paglet get to the disk, and that half of a handler's work never does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import InsufficientStorageError
from paglets.core.messages import Message
from paglets.persistence.states import INLINE_BYTES
from paglets.remote.proxy import PagletProxy
from paglets.runtime.attachment import Attachment
from paglets.runtime.host import Host
from paglets.serialization.blob import decode_blob, encode_blob
from tests.agents.hardy import Asynchronous, Careful, Hardy, HardyState, Lively, LivelyCareful, do
from tests.runtime.full_disk import full_disk
from tests.support import Gate, HostFactory, eventually

NEVER = 1e6


def on_disk(host: Host, proxy: PagletProxy) -> HardyState:
    """Return the state that a crash of the host would bring back."""
    found = host._node.kernel.vault.awaken(proxy.agent_id)
    assert found is not None
    return decode_blob(HardyState, found.state.view())


def files(host: Host) -> list[str]:
    return sorted(str(path) for path in host.persistence_dir.rglob("*.state"))


def asks_for_a_checkpoint(host: Host, proxy: PagletProxy) -> bool:
    return host._node.kernel.agents.require(proxy.agent_id).calls_in_progress == 1


def test_run_of_one_that_keeps_every_message_waits_for_the_handler(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts(checkpoint_interval=NEVER)
    go, hold = Gate(tmp_path, "go"), Gate(tmp_path, "hold")
    plan = {"run": [f"gate {go}", "count 1000", "checkpoint", "note kept"]}
    proxy = host.create(LivelyCareful, HardyState(plan=plan))
    go.await_entered()
    reply = proxy.send_future(do("count 10", f"gate {hold}", "count 20"))
    hold.await_entered()
    go.open()
    eventually(lambda: asks_for_a_checkpoint(host, proxy), "run to ask for a checkpoint")
    assert on_disk(host, proxy).count == 0
    hold.open()
    assert reply.get_reply(10) == 1030
    eventually(lambda: host.get_state(proxy.agent_id, HardyState).notes == ["kept"], "the checkpoint")
    assert on_disk(host, proxy).count == 1030


def test_run_of_one_that_keeps_checkpoints_does_not_wait(hosts: HostFactory, tmp_path: Path) -> None:
    """It says what it wants; and a handler may wait for `run`."""
    host = hosts(checkpoint_interval=NEVER)
    go, hold = Gate(tmp_path, "go"), Gate(tmp_path, "hold")
    plan = {"run": [f"gate {go}", "count 1000", "checkpoint", "count 1000"]}
    proxy = host.create(Lively, HardyState(plan=plan))
    go.await_entered()
    reply = proxy.send_future(do(f"gate {hold}", "await_count 2000"))
    hold.await_entered()
    go.open()
    eventually(lambda: host.get_state(proxy.agent_id, HardyState).count == 2000, "run to go on")
    assert on_disk(host, proxy).count == 1000
    hold.open()
    assert reply.get_reply(10) == 2000


def test_coroutines_of_run_wait_for_the_handler_in_a_thread(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts(checkpoint_interval=NEVER)
    go, hold = Gate(tmp_path, "go"), Gate(tmp_path, "hold")
    other = host.create(Hardy)
    proxy = host.create(Asynchronous, HardyState(plan={"run": [str(go)], "tell": [other.agent_id]}))
    go.await_entered()
    reply = proxy.send_future(Message("hold", {"path": str(hold)}))
    hold.await_entered()
    go.open()
    eventually(lambda: asks_for_a_checkpoint(host, proxy), "run to ask for a checkpoint")
    assert on_disk(host, proxy).count == 0
    # Nor does what run sends wait for the handler, in whose outbox it has no place.
    eventually(lambda: host.get_state(other.agent_id, HardyState).count == 1, "the message of run")
    hold.open()
    reply.get_reply(10)
    eventually(lambda: on_disk(host, proxy).count == 31, "the checkpoint")
    (note,) = on_disk(host, proxy).notes
    assert "asyncio.to_thread" in note


@pytest.mark.parametrize("size", [0, INLINE_BYTES])
@pytest.mark.parametrize("cls", [Hardy, Careful])
def test_an_older_state_does_not_replace_a_newer_one(hosts: HostFactory, cls: type[Hardy], size: int) -> None:
    host = hosts(checkpoint_interval=NEVER)
    proxy = host.create(cls)
    node: Any = host._node
    entry = node.kernel.agents.require(proxy.agent_id)

    def keep(number: int, count: int) -> None:
        state = Attachment.of(encode_blob(HardyState(count=count, blob=b"b" * size)).segments)
        host._wait(lambda: node.checkpoints.keep(entry, entry.place, number, state))

    keep(2, 200)
    keep(1, 100)
    assert on_disk(host, proxy).count == 200
    keep(3, 300)
    with full_disk(host), pytest.raises(InsufficientStorageError):
        keep(5, 500)
    # What is newer did not get there, so this is the newest.
    keep(4, 400)
    assert on_disk(host, proxy).count == 400
    eventually(lambda: len(files(host)) == (1 if size else 0), "the files of the other states to go")


def test_a_message_that_changes_nothing_writes_no_state(hosts: HostFactory) -> None:
    host = hosts(checkpoint_interval=NEVER)
    proxy = host.create(Careful, HardyState(blob=b"b" * 2 * INLINE_BYTES))
    proxy.send(Message("add"))
    eventually(lambda: len(files(host)) == 1, "the file of the replaced state to go")
    before = files(host)
    for _ in range(3):
        proxy.send(do())
    assert files(host) == before
    proxy.send(Message("add"))
    eventually(lambda: len(files(host)) == 1, "the file of the replaced state to go")
    assert files(host) != before
