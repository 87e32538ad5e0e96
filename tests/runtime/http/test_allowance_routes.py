"""The routes for allowances: who may use them, and what they refuse."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from paglets.core.allowance import Allowance, AllowanceGrant
from paglets.core.errors import ForbiddenError, InvalidAgentError, SerializationError
from paglets.remote.admin import PagletsAdminClient, ServerRef
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from paglets.security.roles import Role
from tests.agents.spender import Spender
from tests.runtime.http.wire import ask, get, post
from tests.security.support import add_key, audited, bearer
from tests.support import HostFactory, eventually

SPENDER = "tests.agents.spender:Spender"
NOTHING = {
    "hops_used": 0,
    "hops_left": None,
    "clones_used": 0,
    "clones_left": None,
    "expires_at": None,
    "max_state_bytes": None,
    "exceeded": None,
}


def test_looking_and_granting(host: Host) -> None:
    made = post(host, "/agents", {"agent_class_name": SPENDER, "allowance": {"max_hops": 2}})["proxy"]
    path = f"/agents/{made['agent_id']}/allowance"
    assert get(host, path) == {"agent_id": made["agent_id"], "allowance": {**NOTHING, "hops_left": 2}}
    granted = post(host, path, {"hops": "+3", "clones": 4, "state": "unlimited"})
    assert granted["allowance"] == {**NOTHING, "hops_left": 5, "clones_left": 4} == get(host, path)["allowance"]


@pytest.mark.parametrize(
    "body",
    [{}, {"hops": "more"}, {"hops": -1}, {"hops": 1.5}, {"hop": 1}, {"lifetime": -1}, {"hops": None}, {"state": [1]},
     {"hops": "+" + "9" * 40}],
)  # fmt: skip
def test_a_grant_that_is_none(host: Host, body: dict[str, object]) -> None:
    proxy = host.create(Spender, allowance=Allowance(max_hops=2))
    assert ask(host.address, "POST", f"/agents/{proxy.agent_id}/allowance", body).status == 400
    assert host.allowance(proxy.agent_id).hops_left == 2


@pytest.mark.parametrize("allowance", [{"max_hop": 1}, {"max_hops": -1}, {"lifetime": "long"}, [], 3])
def test_an_allowance_that_is_none(host: Host, allowance: object) -> None:
    body = {"agent_class_name": SPENDER, "agent_id": "unlucky", "allowance": allowance}
    assert ask(host.address, "POST", "/agents", body).status == 400
    with HostClient() as client, pytest.raises(SerializationError):
        client.post_pickle(f"{host.address}/agents", body)
    assert host.get_proxy("unlucky", include_inactive=True) is None


def test_an_envelope_carries_its_allowance(host: Host) -> None:
    envelope = {
        "kind": "dispatch",
        "agent_id": "carried",
        "agent_class_name": SPENDER,
        "state_class_name": "tests.agents.spender:SpenderState",
        "state": {},
        "source_host_name": "far",
        "source_host_address": "http://10.0.0.9:1",
        "target_host_name": "",
        "target_host_address": "",
        "metadata": {"allowance": {"hops_used": 3, "hops_left": 1}},
    }
    post(host, "/agents", {"envelope": envelope})
    assert get(host, "/agents/carried/allowance")["allowance"] == {**NOTHING, "hops_used": 3, "hops_left": 1}
    envelope["agent_id"], envelope["metadata"] = "forged", {"allowance": {"hops_left": "many"}}
    assert ask(host.address, "POST", "/agents", {"envelope": envelope}).status == 400


def test_clients(host: Host) -> None:
    admin = PagletsAdminClient([ServerRef("h", host.address)])
    made = admin.create_agent(admin.servers[0], SPENDER, "", agent_id="by-admin", allowance=Allowance(max_clones=1))
    (record,) = [each for each in admin.list_agents(admin.servers[0]) if each.agent_id == made["agent_id"]]
    assert admin.allowance(record).clones_left == 1
    assert admin.grant_allowance(record, AllowanceGrant(clones="+1")).clones_left == 2
    admin.client.close()

    async def ask_again() -> None:
        async with AsyncHostClient() as client:
            assert (await client.allowance(host.address, "by-admin")).clones_left == 2
            found = await client.grant_allowance(host.address, "by-admin", AllowanceGrant(hops=1))
            assert found.hops_left == 1
            with pytest.raises(InvalidAgentError):
                await client.allowance(host.address, "nobody")

    asyncio.run(asyncio.wait_for(ask_again(), 30))


def test_granting_is_for_those_who_look_after_the_host(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    keys = {role: add_key(path, str(role), role) for role in Role}
    host = hosts("locked", keys=path)
    proxy = host.create(Spender, allowance=Allowance(max_hops=1))
    route = f"/agents/{proxy.agent_id}/allowance"
    assert ask(host.address, "GET", route, headers=bearer(keys[Role.OBSERVE])).status == 200
    for role in (Role.OBSERVE, Role.MESSAGE, Role.OPERATE):
        refused = ask(host.address, "POST", route, {"hops": "+1"}, bearer(keys[role]))
        assert (refused.status, refused.error) == (403, ForbiddenError.__name__)
    assert ask(host.address, "POST", route, {"hops": "+1"}, bearer(keys[Role.ADMIN])).status == 200
    assert host.allowance(proxy.agent_id).hops_left == 2

    def lines() -> list[tuple[object, ...]]:
        found = [line for line in audited(host) if line["route"] == "/agents/{}/allowance"]
        return [(line["key"], line["target"], line["status"]) for line in found]

    expected = [(str(role), proxy.agent_id, 403) for role in (Role.OBSERVE, Role.MESSAGE, Role.OPERATE)]
    eventually(lambda: lines() == [*expected, ("admin", proxy.agent_id, 200)], "the lines of the audit log")
