"""The storage of a class while several of its paglets, each in a process of its own, use it at the same time."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from paglets.core.errors import PagletCrashedError
from paglets.core.messages import Message
from paglets.persistence.storage import ManagedStorage
from paglets.runtime.host import Host
from tests.agents.scribe import Scribe
from tests.support import HostFactory, eventually

QUOTA = 100_000


def storage_of(host: Host, agent_id: str) -> ManagedStorage:
    return host.persistent_storage_for(agent_id, quota_bytes=QUOTA)


def sizes_of(root: Path) -> list[int]:
    """Return the sizes of the files of a storage, finished or not."""
    sizes = []
    for path in root.rglob("*"):
        try:
            sizes.append(path.stat().st_size if path.is_file() else 0)
        except FileNotFoundError:  # replaced meanwhile
            continue
    return sizes


def test_writers_share_a_quota_and_readers_see_whole_files(hosts: HostFactory) -> None:
    """The writers replace one file together and a file each, the sizes of which go up and down around the quota."""
    host = hosts()
    scribes = [host.create(Scribe) for _ in range(4)]
    reader = host.create(Scribe)
    storage = storage_of(host, reader.agent_id)
    storage.write_bytes("shared", b"\x00" * 100)
    orders = []
    for number, scribe in enumerate(scribes):
        sizes = [(number * 7_919 + turn * 13_007) % 40_000 + 1 for turn in range(40)]
        for name in ("shared", f"own-{number}"):
            message = Message("write", {"name": name, "value": number, "sizes": sizes, "quota": QUOTA})
            orders.append((scribe, message))
    with ThreadPoolExecutor(len(orders) + 1) as pool:
        writing = [pool.submit(scribe.send, message, timeout=60.0) for scribe, message in orders]
        reading = pool.submit(reader.send, Message("read", {"name": "shared", "times": 300}), timeout=60.0)
        most = 0
        while wait(writing, timeout=0.0).not_done:
            most = max(most, storage.status().used_bytes)
        written = [done.result() for done in writing]
        assert reading.result() == []
    assert 0 < most <= QUOTA
    assert all(written)
    assert sum(written) < len(orders) * 40, "the quota was never reached"
    assert storage.status().used_bytes == sum(sizes_of(storage.root)) <= QUOTA
    for path in storage.root.iterdir():
        assert len(set(path.read_bytes())) == 1, path


def test_a_writer_that_dies_leaves_a_whole_file_and_no_lock(hosts: HostFactory) -> None:
    host = hosts()
    heir = host.create(Scribe)
    storage = storage_of(host, heir.agent_id)
    for number in range(1, 6):
        scribe = host.create(Scribe)
        order = Message("write_for_ever", {"name": "shared", "value": number, "size": 60_000})
        future = scribe.send_future(order)
        shared = storage.root / "shared"
        eventually(
            lambda shared=shared, number=number: shared.exists() and shared.read_bytes()[:1] == bytes([number]),
            "the first write",
        )
        os.kill(scribe.info()["pid"], signal.SIGKILL)
        with pytest.raises(PagletCrashedError):
            future.get_reply(10)
        assert set(shared.read_bytes()) == {number}
        # What it had begun does not count, and goes with the next write.
        sizes = [QUOTA - 60_000]
        assert heir.send(Message("write", {"name": "other", "value": 9, "sizes": sizes, "quota": QUOTA})) == 1
        assert sorted(sizes_of(storage.root)) == [40_000, 60_000]
