"""Backups of a host's directory: a snapshot of one that runs, and an old copy whose paglets have moved on.

`docs/deployment.md` says what to do; here is that it works.
"""

from __future__ import annotations

import shutil

import pytest

from paglets.cli.app import main
from paglets.core.errors import InvalidAgentError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from tests.faults.cluster import Cluster
from tests.faults.judge import assert_good, judge, paglets_of
from tests.faults.workload import Call, load
from tests.support import eventually


def test_a_snapshot_of_a_running_host_has_everything_acknowledged(cluster: Cluster) -> None:
    """Nothing changes while the host stands still, as in a snapshot of the file system."""
    (alpha,) = cluster.start("alpha")
    agent_id = cluster.create(alpha)
    snapshot = cluster.directory / "snapshot"
    with load() as talk:
        senders = [talk.sender(name, cluster.proxy(alpha, agent_id)) for name in ("s", "t")]
        for sender in senders:
            talk.run(sender.name, lambda sender=sender: sender.say_on(Call))  # type: ignore[misc]
        eventually(lambda: all(sender.count > 20 for sender in senders), "some messages to be acknowledged")
        alpha.pause(with_paglets=True)
        shutil.copytree(alpha.directory, snapshot)
        alpha.kill()
        shutil.rmtree(alpha.directory)
        snapshot.rename(alpha.directory)
        said = [sender.count for sender in senders]
        alpha.start()
        eventually(lambda: all(sender.count > before + 5 for sender, before in zip(senders, said, strict=True)), "more")
        verdict = judge(cluster, talk.finish(), [agent_id])
    assert_good(verdict)


def test_what_moved_away_since_an_old_copy_is_ended_there_by_hand(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGLETS_DISCOVERY", "off")
    alpha, beta = cluster.start("alpha", "beta")
    agent_id = cluster.create(alpha)
    alpha.kill()  # as good for a copy as a stop in order: nobody writes any more
    shutil.copytree(alpha.directory, cluster.directory / "copy")
    alpha.start()
    moved = cluster.proxy(alpha, agent_id).dispatch(beta.url)
    assert moved.send(Message("add", {"sender": "s", "number": 1})) == 1
    alpha.kill()
    shutil.rmtree(alpha.directory)
    (cluster.directory / "copy").rename(alpha.directory)
    alpha.start()
    epochs = [
        each["epoch"]
        for host in (alpha, beta)
        for each in cluster.client.get_json(f"{host.url}/agents?state=all")["agents"]
    ]
    assert epochs[0] < epochs[1]
    # As documented: the one with the smaller epoch, on its own host.
    assert main(["rm", agent_id, "--host", alpha.url, "--yes"]) == 0
    assert agent_id not in paglets_of(cluster, alpha)
    assert paglets_of(cluster, beta)[agent_id].entries == ["s:1"]
    assert cluster.proxy(beta, agent_id).send(Message("add", {"sender": "s", "number": 2})) == 2
    assert f"ended on {alpha.name}" in capsys.readouterr().out
    with HostClient(timeout=20.0) as stranger:
        # The restored host does not know where it went, until it comes by again.
        old = PagletProxy(alpha.url, agent_id, stranger)
        with pytest.raises(InvalidAgentError):
            old.send(Message("add", {"sender": "s", "number": 3}))
        cluster.proxy(beta, agent_id).dispatch(alpha.url)
        assert old.send(Message("add", {"sender": "s", "number": 3})) == 3
