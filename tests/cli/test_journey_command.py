"""The command that shows where a paglet was, over real moves, and what it says when a host does not answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paglets.cli.app import main
from paglets.config.env import DEFAULT_API_KEY_ENV
from paglets.runtime.host import Host
from tests.agents.http_agents import Talker
from tests.cli.conftest import Pair, Run
from tests.support import HostFactory


def events_of(out: str) -> list[tuple[str, str]]:
    return [(stage["host"], stage["event"]) for stage in json.loads(out)["stages"]]


def test_a_journey_over_two_hosts(pair: Pair, run: Run) -> None:
    pair.create("alpha", "walker")
    for target in ("beta", "alpha", "beta"):
        assert run("move", "walker", target)[0] == 0
    assert run("sleep", "walker", "--reason", "the night")[0] == 0
    assert run("wake", "walker")[0] == 0

    code, out, err = run("journey", "walk", "--json")

    payload = json.loads(out)
    assert (code, err) == (0, "")
    assert events_of(out) == [
        ("alpha", "created"), ("alpha", "departed"),
        ("beta", "arrived"), ("beta", "departed"),
        ("alpha", "arrived"), ("alpha", "departed"),
        ("beta", "arrived"), ("beta", "slept"), ("beta", "woke"),
    ]  # fmt: skip
    assert (payload["agent_id"], payload["host_url"], payload["gaps"]) == ("walker", pair.beta, [])
    assert (payload["complete"], sorted(payload["asked"])) == (True, sorted([pair.alpha, pair.beta]))
    epochs = [stage["epoch"] - payload["stages"][0]["epoch"] for stage in payload["stages"]]
    assert epochs == [0, 0, 1, 1, 2, 2, 3, 3, 3]


def test_a_journey_is_a_table_for_people(pair: Pair, run: Run) -> None:
    pair.create("alpha", "walker")
    run("move", "walker", "beta")
    code, out, _ = run("journey", "walker")
    lines = [line.split() for line in out.splitlines() if line.strip(" ─")]
    assert code == 0
    assert lines[0] == ["Talker", "walker"]
    assert [line[2:5] for line in lines[2:5]] == [
        ["0", "alpha", "created"],
        ["0", "alpha", "departed"],
        ["1", "beta", "arrived"],
    ]
    assert lines[3][5:7] == ["to", "beta"]
    assert lines[4][5:7] == ["from", "alpha"]
    assert lines[-1] == ["It", "is", "on", "beta,", f"{pair.beta}."]


def test_the_journey_of_a_paglet_that_ended(pair: Pair, run: Run) -> None:
    pair.create("alpha", "mortal-one")
    run("move", "mortal-one", "beta")
    run("rm", "--yes", "mortal-one")
    code, out, _ = run("journey", "mortal-one")
    assert code == 0
    assert out.rstrip().endswith("It has ended.")
    assert [line.split()[4] for line in out.splitlines() if " beta " in line] == ["departed", "arrived", "ended"]


def test_a_paglet_that_never_was_has_no_journey(run: Run) -> None:
    code, out, err = run("journey", "nobody")
    assert (code, out) == (1, "")
    assert err == "paglets journey: no paglet 'nobody' on alpha, beta, and none of them ever had it\n"


@pytest.fixture
def three(hosts: HostFactory) -> list[Host]:
    return [hosts(name) for name in ("left", "middle", "right")]


def test_a_host_that_does_not_answer_is_a_gap(
    three: list[Host], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a paglet that went from the left to the right, and no host any more between them
    monkeypatch.delenv(DEFAULT_API_KEY_ENV, raising=False)
    left, middle, right = three
    proxy: Any = left.create(Talker, agent_id="walker")
    for host in (middle, right):
        proxy = proxy.dispatch(host.address)
    gone = middle.address
    middle.stop()

    # When its journey is asked for where it is
    code = main(["journey", "walker", "--json", "--host", right.address])

    # Then there is a gap, and what lies behind it is found through its home
    captured = capsys.readouterr()
    payload = json.loads(captured.out)
    assert code == 1
    assert [gap["host_url"] for gap in payload["gaps"]] == [gone]
    assert payload["complete"] is False
    assert events_of(captured.out) == [("left", "created"), ("left", "departed"), ("right", "arrived")]
    assert captured.err.startswith("paglets journey: gap: ")
    assert captured.err.count("\n") == 1

    # And the same from its other end
    assert main(["journey", "walker", "--json", "--host", left.address]) == 1
    assert events_of(capsys.readouterr().out) == events_of(captured.out)
