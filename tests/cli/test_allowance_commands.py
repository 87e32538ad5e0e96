"""`paglets create` and `paglets allowance`, with hosts that are processes of their own."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.conftest import Pair, Run
from tests.support import eventually

SPENDER = "tests.agents.spender:Spender"


def made(run: Run, *options: str) -> str:
    code, out, err = run("create", SPENDER, *options)
    assert (code, err) == (0, "")
    return out.strip()


def balance(run: Run, agent_id: str) -> dict[str, Any]:
    code, out, err = run("allowance", "show", agent_id, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)["allowance"]
    return found


def test_a_paglet_is_created_with_an_allowance(pair: Pair, run: Run) -> None:
    agent_id = made(run, "--max-hops", "3", "--max-clones", "2", "--lifetime", "2h", "--max-state", "64K")
    left = balance(run, agent_id)
    assert (left["hops_left"], left["clones_left"], left["max_state_bytes"]) == (3, 2, 65536)
    assert left["expires_at"] is not None
    code, out, _ = run("allowance", "show", agent_id[:8])
    assert code == 0
    assert f"Allowance of {agent_id} on alpha" in " ".join(out.split())
    assert "up to 64.0 KB" in out
    wide = run("ps", "--wide")[1]
    assert "3 hops, 2 clones, until" in wide


def test_where_and_as_what_it_is_created(pair: Pair, run: Run) -> None:
    code, out, _ = run("create", SPENDER, "--host", "beta", "--id", "chosen", "--state", '{"count": 7}', "--json")
    assert (code, json.loads(out)["agent_id"]) == (0, "chosen")
    assert pair.where("chosen") == ["beta"]
    assert pair.send("beta", "chosen", "add") == 8
    assert balance(run, "chosen")["hops_left"] is None
    assert "-" in run("ps", "--wide")[1]


def test_one_that_is_held_goes_on_when_it_is_granted_more(pair: Pair, run: Run) -> None:
    agent_id = made(run, "--max-hops", "0")
    code, _, err = run("move", agent_id, "beta")
    assert code == 1
    assert f"paglets allowance grant {agent_id} --hops" in err

    def held() -> bool:
        return balance(run, agent_id)["exceeded"] == "hops" and "asleep" in run("ps", "--all")[1]

    eventually(held, "the paglet to be held")
    assert "it sleeps until it is granted more: hops" in run("allowance", "show", agent_id)[1]
    assert "(held: hops)" in run("ps", "--all", "--wide")[1]
    assert run("wake", agent_id)[0] == 1
    code, _, err = run("allowance", "grant", agent_id, "--hops", "+1", "--wake")
    assert (code, err) == (0, "")
    assert run("move", agent_id, "beta")[0] == 0
    assert pair.where(agent_id) == ["beta"]
    assert balance(run, agent_id)["hops_left"] == 0


def test_what_can_be_granted(pair: Pair, run: Run) -> None:
    agent_id = made(run, "--max-state", "1M", "--lifetime", "1h")
    before = balance(run, agent_id)["expires_at"]
    options = ["--hops", "4", "--clones", "2", "--lifetime", "+1h", "--state", "+1M", "--json"]
    code, out, _ = run("allowance", "grant", agent_id, *options)
    left = json.loads(out)["allowance"]
    assert (code, left["hops_left"], left["clones_left"], left["max_state_bytes"]) == (0, 4, 2, 2 << 20)
    assert round(left["expires_at"] - before) == 3600
    run("allowance", "grant", agent_id, "--lifetime", "unlimited", "--state", "unlimited", "--hops", "-1")
    left = balance(run, agent_id)
    assert (left["hops_left"], left["expires_at"], left["max_state_bytes"]) == (3, None, None)


def test_mistakes_are_told_in_one_line(pair: Pair, run: Run) -> None:
    for arguments, code, text in (
        (["allowance", "grant", "nobody", "--hops", "many"], 2, "hops must be"),
        (["allowance", "grant", "nobody"], 2, "say what to grant"),
        (["allowance", "grant", "nobody", "--state", "huge"], 2, "--state must be a size"),
        (["allowance", "grant", "nobody", "--lifetime", "+soon"], 2, "--lifetime must be a time span"),
        (["allowance", "grant", "nobody", "--hops", "1"], 1, "no paglet 'nobody'"),
        (["allowance", "show", "nobody"], 1, "no paglet 'nobody'"),
        (["create", SPENDER, "--state", "[]"], 2, "must be a JSON object"),
        (["create", SPENDER, "--lifetime", "never"], 2, "--lifetime must be a time span"),
        (["create", "no.such:Class"], 1, "no.such"),
    ):
        got, out, err = run(*arguments)
        assert (got, out, err.count("\n")) == (code, "", 1), (arguments, err)
        assert text in err
    for command in (["allowance", "--help"], ["allowance", "grant", "--help"], ["create", "--help"], ["allowance"]):
        code, out, _ = run(*command, entry=False)
        assert code == 0 and "Examples:" in out
