"""What a host is to its directory and its processes, whichever way it ends."""

from __future__ import annotations

import pytest

from paglets.core.errors import PagletError
from paglets.core.messages import Message
from tests.faults.cluster import Cluster, HostStartError, processes_of_sessions
from tests.support import eventually


def test_a_killed_host_takes_its_paglets_along_and_comes_back_at_its_place(cluster: Cluster) -> None:
    (alpha,) = cluster.start("alpha")
    cluster.create(cluster.hosts["alpha"])
    before, port = alpha.pid, alpha.port
    assert len(processes_of_sessions({before})) > 2
    alpha.kill()
    assert alpha.deaths == [-9]
    eventually(lambda: not processes_of_sessions({before}), "everything of the killed host to be gone")
    with pytest.raises(PagletError):
        cluster.client.get_json(f"{alpha.url}/health", timeout=2.0)
    alpha.start()
    assert alpha.port == port
    assert alpha.pid != before
    assert cluster.client.get_json(f"{alpha.url}/health")["name"] == alpha.name


def test_two_hosts_do_not_share_a_directory(cluster: Cluster) -> None:
    """A second host on the directory of a running one is refused, and disturbs nothing."""
    (alpha,) = cluster.start("alpha")
    agent_id = cluster.create(cluster.hosts["alpha"])
    intruder = cluster.add("intruder", directory=alpha.directory)
    with pytest.raises(HostStartError, match=r"is in use by process \d+"):
        intruder.start()
    assert cluster.proxy(alpha, agent_id).send(Message("add", {"sender": "s", "number": 1})) == 1
