"""The audit log: every line is whole, the files are bounded and private, a flood washes nothing away."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from paglets.runtime.http.audit import REFUSALS_PER_SECOND, AuditLog, audit_files


def entries(path: Path, kept: int = 4) -> list[dict[str, Any]]:
    files = [each for each in audit_files(path, kept) if each.exists()]
    return [json.loads(line) for each in files for line in each.read_text().splitlines()]


def test_lines_are_written_in_order_and_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def run() -> None:
        log = AuditLog(path, clock=lambda: 1000.0)
        log.record(outcome=200, refused=False, key="a", target="x" * 500)
        log.record(outcome=401, refused=True, key="\ud800\n")
        await log.close()

    asyncio.run(run())
    first, second = entries(path)
    assert first == {"time": 1000.0, "key": "a", "target": "x" * 200, "status": 200}
    assert (second["key"], second["status"]) == ("?\n", 401)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_files_are_bounded_and_the_newest_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def run() -> None:
        log = AuditLog(path, max_bytes=1000, kept=2)
        for number in range(100):
            log.record(outcome=200, refused=False, number=str(number))
        await log.close()
        log.record(outcome=200, refused=False, number="100")
        await log.close()

    asyncio.run(run())
    assert sorted(each.name for each in tmp_path.iterdir()) == ["audit.log", "audit.log.1", "audit.log.2"]
    assert all(each.stat().st_size <= 1000 for each in tmp_path.iterdir())
    numbers = [int(entry["number"]) for entry in entries(path, 2)]
    assert numbers == list(range(numbers[0], 101))


def test_a_flood_of_refusals_is_counted_and_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    now = [1000.0]

    async def run() -> None:
        log = AuditLog(path, clock=lambda: now[0])
        for _ in range(REFUSALS_PER_SECOND + 1000):
            log.record(outcome=401, refused=True)
        log.record(outcome=200, refused=False, key="admin")
        now[0] = 1001.0
        log.record(outcome=401, refused=True)
        await log.close()

    asyncio.run(run())
    found = entries(path)
    assert len(found) == REFUSALS_PER_SECOND + 2
    assert found[-2] == {"time": 1000.0, "key": "admin", "status": 200, "not_listed": 1000}
    assert found[-1] == {"time": 1001.0, "status": 401}


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()
    told: list[str] = []

    async def run() -> None:
        log = AuditLog(directory / "audit.log", on_fault=told.append)
        (directory / "audit.log").unlink()
        directory.rmdir()
        log.record(outcome=200, refused=False)
        await log.close()

    asyncio.run(run())
    assert len(told) == 1
    assert "cannot be written" in told[0]
    with pytest.raises(OSError, match="No such file"):
        AuditLog(directory / "audit.log")
