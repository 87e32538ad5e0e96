"""Routes that are loaded when they are asked for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from paglets.runtime.http.late import LateRoutes

_ASK: Any = ({}, None, None)


def test_they_are_made_once_for_all_who_ask_at_the_same_time() -> None:
    made = 0
    release = threading.Event()
    served: list[object] = []

    async def routes(*asked: object) -> None:
        served.append(asked)

    def make() -> Any:
        nonlocal made
        made += 1
        assert release.wait(10)
        return routes

    async def main() -> None:
        late = LateRoutes(make)
        first, second = (asyncio.create_task(late(*_ASK)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()  # the other is served all the same
        with pytest.raises(asyncio.CancelledError):
            await first
        release.set()
        await second
        await late(*_ASK)

    asyncio.run(main())
    assert made == 1
    assert served == [_ASK, _ASK]


def test_after_a_failure_the_next_request_tries_again() -> None:
    outcomes: list[Exception | None] = [MemoryError("for now"), None]

    async def routes(*_: object) -> None: ...

    def make() -> Any:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return routes

    async def main() -> None:
        late = LateRoutes(make)
        with pytest.raises(MemoryError):
            await late(*_ASK)
        await late(*_ASK)

    asyncio.run(main())
    assert outcomes == []


_HOST = """
import sys
from paglets.remote.client import HostClient
from paglets.runtime.host import Host

loaded = lambda: "litestar" in sys.modules
host = Host("late", persistence_dir=sys.argv[1], mesh=False)
host.start_background()
with HostClient() as client:
    record = {"name": "other", "code_version": host.mesh.code_version, "url": "http://127.0.0.1:9"}
    client.get_json(host.address + "/health")
    client.post_json(host.address + "/hosts/join", record)
    client.get_json(host.address + "/services?name=feed&scope=mesh")
    before = loaded()
    client.get_json(host.address + "/agents")
    print(before, loaded())
host.stop()
"""


def test_a_host_serves_what_is_hot_without_the_framework(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HOST, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["False", "True"], done.stderr
