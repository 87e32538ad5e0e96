"""``paglets drain`` with hosts that are processes of their own."""

from __future__ import annotations

import json

from tests.cli.conftest import Pair, Run


def test_a_host_is_emptied_and_opened_again(pair: Pair, run: Run) -> None:
    for agent_id in ("first-one", "second-one"):
        pair.create("alpha", agent_id)
    code, out, err = run("drain", "alpha", "--to", "beta")
    assert (code, out, err) == (0, "alpha: 2 moved, 0 asleep, 0 stayed\n", "")
    assert {line.split()[3] for line in run("ps")[1].splitlines() if "Talker" in line} == {"beta"}
    code, _, err = run("move", "first-one", "alpha")
    assert code == 1
    assert "alpha is draining" in err
    assert run("drain", "alpha", "--undo") == (0, "alpha takes paglets in again\n", "")
    assert run("move", "first-one", "alpha")[0] == 0


def test_everything_sleeps_and_programs_can_read_it(pair: Pair, run: Run) -> None:
    pair.create("alpha", "sleeper-to-be")
    code, out, err = run("drain", "alpha", "--sleep", "--json")
    report = json.loads(out)
    assert (code, err, report["host"], report["moved"], report["stayed"]) == (0, "", "alpha", [], [])
    assert [entry["agent_id"] for entry in report["asleep"]] == ["sleeper-to-be"]
    run("drain", "alpha", "--undo")


def test_what_excludes_each_other_is_a_wrong_command_line(pair: Pair, run: Run) -> None:
    code, out, err = run("drain", "alpha", "--sleep", "--undo")
    assert (code, out) == (2, "")
    assert "exclude each other" in err
    assert run("drain", "nobody")[0] == 1
