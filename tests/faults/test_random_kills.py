"""Hosts that are killed at random, under load. ``python -m tests.faults.long_run`` does this for as long as wanted."""

from __future__ import annotations

import pytest

from tests.effort import thorough
from tests.faults.chaos import run_round
from tests.faults.cluster import Cluster


@pytest.mark.parametrize("seed", range(1, 1 + thorough(1, 4)))
def test_hosts_that_are_killed_under_load_lose_and_double_nothing(cluster: Cluster, seed: int) -> None:
    cluster.start("alpha", "beta", "gamma")
    report = run_round(cluster, seed, kills=12)
    if not report.verdict:
        pytest.fail("\n".join([*(": ".join(row) for row in report.rows()), str(report.verdict)]), pytrace=False)
    assert report.kills >= 12
    assert report.moves > 0
    assert report.recoveries > 0
