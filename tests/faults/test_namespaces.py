"""Hosts with addresses of their own and real packets between them; ``python -m tests.faults.namespaces`` is longer.

Skipped where namespaces are not permitted, also where services are required: they are a matter of privileges, which
nothing can install.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.faults.cluster import ROOT
from tests.faults.namespaces import NO_NAMESPACES


@pytest.fixture(scope="module")
def report() -> dict[str, dict[str, float]]:
    """Run everything once, with few hosts and short times."""
    times = ["--seconds", "2", "--offline-after", "3", "--interval", "0.3"]
    command = [sys.executable, "-P", "-m", "tests.faults.namespaces", "--hosts", "5", *times, "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110)
    if done.returncode == NO_NAMESPACES:
        pytest.skip(done.stderr.strip())
    assert done.stdout, done.stderr
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def test_nothing_is_wrong(report: dict[str, object]) -> None:
    """Nobody healthy was missed, no ghost was seen, both sides of a partition were, and all of it healed."""
    assert report["problems"] == []


def test_it_was_put_to_the_test(report: dict[str, dict[str, float]]) -> None:
    assert report["formation"]["hosts"] == 5
    assert report["rough weather"]["packets lost"] > 0
    assert report["paglet"]["moves"] > 5
    assert report["paglet"]["messages acknowledged"] > 5
    assert report["paglet"]["owners at the end"] == 1
