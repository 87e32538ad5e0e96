"""Fixtures of the tests in which hosts die."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster, Nursery, cluster_in
from tests.faults.proxy import Network


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Give the process that forks hosts."""
    nursery = Nursery()
    try:
        yield nursery
    finally:
        nursery.close()


@pytest.fixture
def cluster(nursery: Nursery, tmp_path: Path) -> Iterator[Cluster]:
    """Give an empty cluster whose hosts reach each other directly."""
    with cluster_in(tmp_path, nursery) as made:
        yield made


@pytest.fixture
def network() -> Iterator[Network]:
    """Give a network whose weather is fine."""
    made = Network()
    try:
        yield made
    finally:
        made.close()
