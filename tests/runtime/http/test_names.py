"""Ids and class names from strangers: none of them reaches beyond what it names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from paglets.remote.client import HostClient
from paglets.remote.movement import movement_pieces
from paglets.runtime.host import Host
from tests.runtime.http.wire import Reply, Wire, ask
from tests.support import HostFactory, eventually, leftovers, processes_of

TALKER = "tests.agents.http_agents:Talker"

STRANGE = [
    "..",
    ".",
    "../x",
    "..\\x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    ".hidden",
    "x\x00",
    "\x00",
    "x\n",
    "x y",
    "~",
    "~x~",
    "x" * 129,
    "x" * 5000,
    "ä",
    "\u202ex",
    "ａ",
    "Ⅳ",
    "x\u200b",
    "%2e%2e",
    "x;y",
    "x:y",
    "$HOME",
    "{x}",
    "<x>",
    "x?y",
    "x#y",
    "*",
]
RESERVED = ["con", "NUL", "com1", "aux.txt", "host.lock", "-rf", "__main__", "x.", "a..b", "schema", "X" * 128]


def tree(directory: Path) -> set[str]:
    """Return everything below a directory but the journal, which changes with every write."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.name.startswith("journal.db")}


@pytest.fixture(autouse=True)
def _nothing_else(host: Host) -> Iterator[None]:
    around = host.persistence_dir.parent
    before = tree(around)
    yield
    for summary in host.list_agents(active=True, inactive=True):
        host.dispose(summary["agent_id"])
    eventually(lambda: processes_of(host.name) == [], f"no process left: {processes_of(host.name)}")
    # The directories of paglets and classes that were here are the host's own; nothing else may have changed.
    own = ("work", "storage", "removed")
    changed = {path for path in tree(around) ^ before if Path(path).parts[1:2] not in [(name,) for name in own]}
    assert changed == set()
    assert leftovers(host) == []


def refused(reply: Reply) -> None:
    assert 400 <= reply.status < 500, reply.body
    assert set(reply.json()) == {"error_type", "error"}


# --- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent_id", STRANGE)
def test_strange_ids_in_urls(host: Host, agent_id: str) -> None:
    path = f"/agents/{quote(agent_id, safe='')}"
    requests: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("GET", "/state", None),
        ("POST", "/messages", {"message": {"kind": "count"}}),
        ("POST", "/activate", {}),
        ("POST", "/deactivate", {}),
        ("POST", "/dispose", {}),
        ("POST", "/clone", {}),
        ("POST", "/retract", {"target": "http://127.0.0.1:9"}),
        ("POST", "/services", {"name": "x"}),
    ]
    with Wire(host.address) as wire:
        for method, tail, body in requests:
            refused(wire.ask(method, path + tail, body))


@pytest.mark.parametrize("agent_id", STRANGE)
def test_strange_ids_for_new_paglets(host: Host, agent_id: str) -> None:
    body = {"agent_class_name": TALKER, "agent_id": agent_id}
    refused(ask(host.address, "POST", "/agents", body))
    movement = b"".join(movement_pieces(body))
    refused(ask(host.address, "POST", "/agents", movement, {"Content-Type": "application/x-paglets-movement"}))
    assert host.list_agents(active=True, inactive=True) == []


@pytest.mark.parametrize("agent_id", RESERVED)
def test_reserved_names_are_names_like_others(host: Host, agent_id: str) -> None:
    assert ask(host.address, "POST", "/agents", {"agent_class_name": TALKER, "agent_id": agent_id}).status == 200
    path = f"/agents/{quote(agent_id, safe='')}"
    assert ask(host.address, "POST", f"{path}/messages", {"message": {"kind": "count"}}).json() == {"result": 1}
    work = host.work_dir_for(agent_id)
    assert work.parent == host.persistence_dir / "work"
    assert ask(host.address, "POST", f"{path}/deactivate").status == 200
    assert ask(host.address, "POST", f"{path}/activate").status == 200
    assert ask(host.address, "GET", f"{path}/state").json()["state"]["count"] == 1
    assert ask(host.address, "POST", f"{path}/dispose").status == 200


def test_an_id_that_looks_like_another_is_another(host: Host) -> None:
    assert ask(host.address, "POST", "/agents", {"agent_class_name": TALKER, "agent_id": "paglet"}).status == 200
    for lookalike in ("pаglet", "PAGLET", "paglet%20", "paglet%00", "paglet.", "paglet%0a", "./paglet", "paglet%2f"):
        reply = ask(host.address, "GET", f"/agents/{quote(lookalike, safe='%/')}")
        assert reply.status == 404 or lookalike in ("paglet%2f",)
    for other in ("pаglet", "paglet ", "paglet\x00"):
        refused(ask(host.address, "POST", "/agents", {"agent_class_name": TALKER, "agent_id": other}))
    assert [summary["agent_id"] for summary in host.list_agents()] == ["paglet"]


@pytest.mark.parametrize(
    "target",
    [
        "/agents/../../etc/passwd",
        "/agents/..%2f..%2fetc%2fpasswd/state",
        "/agents/%2e%2e/%2e%2e/etc/passwd",
        "/schema/../../../etc/passwd",
        "/schema/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/%00",
        "/agents/x%",
        "/agents/%zz/state",
        "/agents/%ff%fe",
        "/agents/%ed%a0%80",
        "//agents//x",
        "/agents/x/messages/../state",
        "/" + "a/" * 5000,
    ],
)
def test_paths_lead_nowhere_else(host: Host, target: str) -> None:
    for method in ("GET", "POST"):
        reply = ask(host.address, method, target)
        refused(reply)
        assert b"root:" not in reply.body


@pytest.mark.parametrize("transfer_id", ["..%2fx", "%00", "x" * 300, "%2e%2e", "~", "%F0%9F%92%A9"])
def test_strange_ids_of_transfers(host: Host, transfer_id: str) -> None:
    for method, tail, body in (
        ("POST", "/commit", {"vote": "x"}),
        ("POST", "/abort", {}),
        ("GET", "/state", None),
    ):
        refused(ask(host.address, method, f"/transfers/{transfer_id}{tail}", body))
    for tail in ("", "/location"):
        reply = ask(host.address, "GET", f"/transfers/{transfer_id}{tail}")
        assert reply.status in (200, 400, 404)
        if reply.status == 200:
            assert reply.json() in ({"outcome": "aborted"}, {"proxy": None})


# --- class names -----------------------------------------------------------------------------------------------------

CLASSES = {
    "tests.agents.nowhere:Talker": 400,
    "nowhere_at_all:Talker": 400,
    "tests.agents.http_agents:Nobody": 400,
    "tests.agents.http_agents:NotAPaglet": 400,
    "tests.agents.http_agents:TalkerState": 400,
    "tests.agents.http_agents:TALKER": 400,
    "tests.agents.http_agents:Talker.State": 400,
    "tests.agents.http_agents:Talker.count": 400,
    "tests.agents.http_agents:Paglet": 400,
    "tests.agents.http_agents:os.system": 400,
    "tests.agents.http_agents:Refuser": 400,
    "tests.agents.import_fails:Talker": 400,
    "tests.agents.import_exits:Talker": 400,
    "__main__:Talker": 400,
    "__mp_main__:Talker": 403,
    "os:system": 403,
    "builtins:object": 403,
    "builtins:eval": 403,
    "subprocess:Popen": 403,
    "importlib:import_module": 403,
    "pathlib:Path": 403,
    "": 400,
    "Talker": 400,
    ":Talker": 400,
    "tests.agents.http_agents:": 400,
    "tests.agents.http_agents": 400,
    "tests.agents.http_agents::Talker": 400,
    "tests.agents.http_agents:Talker:State": 400,
    "tests.agents.http_agents:Talker()": 400,
    "tests.agents.http_agents: Talker": 400,
    " tests.agents.http_agents:Talker": 400,
    "tests/agents/http_agents:Talker": 400,
    "../tests.agents.http_agents:Talker": 400,
    ".tests.agents.http_agents:Talker": 400,
    "tests..agents:Talker": 400,
    "tests.agents.http_agents:Talker\n": 400,
    "tests.agents.http_agents:Talker\x00": 400,
    "tests.agents.http_agents:__class__": 400,
    "tests.agents.http_agents:Talker.__init__.__globals__": 400,
    "x" * 600 + ":Talker": 400,
}


@pytest.mark.parametrize("class_name", CLASSES)
def test_classes_that_are_none(host: Host, class_name: str) -> None:
    for body in (
        {"agent_class_name": class_name, "agent_id": "refused"},
        {"agent_class_name": class_name, "state_class_name": class_name, "agent_id": "refused"},
    ):
        reply = ask(host.address, "POST", "/agents", body)
        refused(reply)
        assert reply.status == CLASSES[class_name], reply.body
        assert ask(host.address, "GET", "/agents/refused").status == 404
    assert host.agent_counts() == (0, 0)


@pytest.mark.parametrize(
    "state_class", ["os:system", "builtins:dict", "tests.agents.http_agents:Talker", "x", "__main__:X"]
)
def test_classes_of_state_that_are_none(host: Host, state_class: str) -> None:
    refused(ask(host.address, "POST", "/agents", {"agent_class_name": TALKER, "state_class_name": state_class}))
    assert host.agent_counts() == (0, 0)


def test_state_that_does_not_fit(host: Host) -> None:
    for state in ({"count": "many"}, {"data": "text"}, {"count": 1.5}):
        refused(ask(host.address, "POST", "/agents", {"agent_class_name": TALKER, "state": state}))
    assert host.agent_counts() == (0, 0)


def test_the_host_imports_nothing_itself(hosts: HostFactory) -> None:
    host = hosts("aloof")
    client = HostClient()
    body = {"agent_class_name": "tests.agents.actor:Actor", "agent_id": "imported-there"}
    before = "tests.agents.actor" in sys.modules
    client.post_json(f"{host.address}/agents", body)
    assert ("tests.agents.actor" in sys.modules) is before
    client.close()


def test_only_allowed_classes(hosts: HostFactory) -> None:
    host = hosts("choosy", allow=["tests.agents.http_agents:Parrot"])
    assert ask(host.address, "POST", "/agents", {"agent_class_name": TALKER}).status == 403
    parrot = {"agent_class_name": "tests.agents.http_agents:Parrot"}
    assert ask(host.address, "POST", "/agents", parrot).status == 200
    parrot["state_class_name"] = "tests.agents.http_agents:TalkerState"  # which it declares
    assert ask(host.address, "POST", "/agents", parrot).status == 200
    # Of these nothing is imported: the first would end the process, the second is in the module of the class.
    for other in ("tests.agents.import_exits:Nothing", "tests.agents.http_agents:OtherState"):
        named = ask(host.address, "POST", "/agents", parrot | {"state_class_name": other, "agent_id": "refused"})
        assert (named.status, named.error) == (403, "ForbiddenError")
        assert b"is not the state that Parrot declares, 'tests.agents.http_agents:TalkerState'" in named.body
    assert ask(host.address, "GET", "/agents/refused").status == 404
