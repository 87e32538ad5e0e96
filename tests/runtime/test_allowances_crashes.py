"""Hosts that are killed in the middle of a move or a clone charge for it once, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from paglets.core.errors import PagletError
from tests.faults.cluster import Cluster, HostProcess
from tests.support import eventually

SPENDER = "tests.agents.spender:Spender"
CAREFUL = "tests.agents.spender:CarefulSpender"
PRELOAD = ("tests.agents.spender",)
KB = 1024


def create(cluster: Cluster, host: HostProcess, class_name: str = CAREFUL, **allowance: Any) -> str:
    body = {"agent_class_name": class_name, "allowance": allowance}
    return str(cluster.client.post_json(f"{host.url}/agents", body)["proxy"]["agent_id"])


def balances(cluster: Cluster, *hosts: HostProcess) -> dict[str, dict[str, Any]]:
    """Return what every paglet has left, wherever it is."""
    found: dict[str, dict[str, Any]] = {}
    for host in hosts:
        for summary in cluster.client.get_json(f"{host.url}/agents?state=all")["agents"]:
            assert summary["agent_id"] not in found, "nobody is on two hosts"
            found[summary["agent_id"]] = summary["allowance"]
    return found


def ask_to_die(cluster: Cluster, host: HostProcess, url: str, payload: dict[str, Any]) -> None:
    """Ask a host, one of whose own or whose partner is about to die of it."""
    try:
        cluster.client.post_json(url, payload, timeout=10.0)
    except PagletError:
        return  # what became of it is what the test looks at


@pytest.mark.parametrize(
    ("name", "point", "moved"),
    [
        ("alpha", "source.voted", False),
        ("alpha", "source.committed", True),
        ("beta", "target.prepared", False),
        ("beta", "target.activated", True),
    ],
)
def test_a_hop_is_charged_once_or_not_at_all(cluster: Cluster, name: str, point: str, moved: bool) -> None:
    alpha, beta = cluster.add("alpha", preload=PRELOAD), cluster.add("beta", preload=PRELOAD)
    cluster.start_all([alpha, beta], {name: point})
    agent_id = create(cluster, alpha, max_hops=5)
    ask_to_die(cluster, alpha, f"{alpha.url}/agents/{agent_id}/dispatch", {"target": beta.url})
    dying = cluster.hosts[name]
    dying.await_end()
    dying.start()

    def settled() -> Any:
        found = balances(cluster, alpha, beta).get(agent_id)
        return found if found is not None and (found["hops_used"] == 1) is moved else None

    left = eventually(settled, f"the paglet after {point}", 30.0)
    assert (left["hops_used"], left["hops_left"]) == ((1, 4) if moved else (0, 5))


@pytest.mark.parametrize(("point", "cloned"), [("source.voted", False), ("source.committed", True)])
def test_a_clone_is_there_and_paid_for_or_neither(cluster: Cluster, point: str, cloned: bool) -> None:
    alpha, beta = cluster.add("alpha", preload=PRELOAD), cluster.add("beta", preload=PRELOAD)
    cluster.start_all([alpha, beta], {"alpha": point})
    agent_id = create(cluster, alpha, max_hops=5, max_clones=6)
    ask_to_die(cluster, alpha, f"{alpha.url}/agents/{agent_id}/clone", {"target": beta.url})
    alpha.await_end()
    alpha.start()

    def settled() -> Any:
        found = balances(cluster, alpha, beta)
        return found if agent_id in found and len(found) == 1 + cloned else None

    found = eventually(settled, f"the paglets after {point}", 30.0)
    original = found.pop(agent_id)
    assert (original["hops_used"], original["clones_left"]) == (0, 3 if cloned else 6)
    assert [(each["hops_used"], each["clones_left"]) for each in found.values()] == ([(1, 2)] if cloned else [])


def test_grants_and_what_is_held_survive_a_kill(cluster: Cluster) -> None:
    (alpha,) = cluster.start("alpha", preload=PRELOAD)
    held, busy = create(cluster, alpha, max_hops=0), create(cluster, alpha, SPENDER, max_state_bytes=16 * KB)
    with pytest.raises(PagletError):
        cluster.client.post_json(f"{alpha.url}/agents/{held}/dispatch", {"target": "http://127.0.0.1:9"})
    eventually(lambda: not cluster.client.agent_info(alpha.url, held)["active"], "the paglet to sleep")
    grant = {"hops": "+7", "lifetime": 900}
    told = cluster.client.post_json(f"{alpha.url}/agents/{busy}/allowance", grant)["allowance"]
    alpha.kill()
    alpha.start()
    found = balances(cluster, alpha)
    assert found[busy] == told
    assert found[held]["exceeded"] == "hops"
    with pytest.raises(PagletError, match="may not move to another host"):
        cluster.client.post_json(f"{alpha.url}/agents/{held}/activate", {})


def test_time_goes_on_while_the_host_is_dead(cluster: Cluster) -> None:
    (alpha,) = cluster.start("alpha", preload=PRELOAD)
    agent_id = create(cluster, alpha, lifetime=0.5)
    alpha.kill()
    alpha.start()

    def held() -> Any:
        summary = cluster.client.agent_info(alpha.url, agent_id)
        return not summary["active"] and summary["allowance"]["exceeded"] == "lifetime"

    eventually(held, "its time to be over")
    alpha.kill()
    alpha.start()
    assert held()
    cluster.client.post_json(f"{alpha.url}/agents/{agent_id}/allowance", {"lifetime": "unlimited"})
    cluster.client.post_json(f"{alpha.url}/agents/{agent_id}/activate", {})
    assert cluster.client.agent_info(alpha.url, agent_id)["active"]
