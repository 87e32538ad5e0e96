"""The commands that list paglets and act on them, with hosts that are processes of their own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from paglets.cli.options import ENTRY_VARIABLE
from paglets.cli.send import named_arguments
from paglets.core.errors import RemoteHostError
from paglets.remote.client import HostClient
from tests.cli.conftest import ACTOR, Pair, Run
from tests.cli.processes import environment
from tests.support import eventually, free_port

ROOT = Path(__file__).resolve().parents[2]


def one_line(err: str) -> str:
    assert err.count("\n") == 1, err
    return err


# --- ps ---------------------------------------------------------------------------------------------------------------


def test_ps_lists_the_paglets_of_all_hosts(pair: Pair, run: Run) -> None:
    pair.create("alpha", "talker-one")
    pair.create("beta", "0123456789abcdef0123456789abcdef")
    code, out, err = run("ps")
    assert (code, err) == (0, "")
    title, head, *lines = [line.split() for line in out.splitlines() if line.strip(" ─")]
    assert title == ["Paglets"]
    assert head == ["id", "class", "state", "host", "waiting", "remark"]
    assert sorted(lines) == [
        ["01234567", "Talker", "active", "beta", "0"],
        ["talker-one", "Talker", "active", "alpha", "0"],
    ]


def test_ps_shows_the_services_of_hosts_when_asked(pair: Pair, run: Run) -> None:
    pair.create("alpha", "talker-one")
    pair.create("beta", "watcher", "paglets.system.server_info.agent:ServerInfoAgent")
    listed = {
        options: [line.split()[0] for line in run("ps", *options)[1].splitlines() if "active" in line]
        for options in ((), ("--services",))
    }
    assert listed == {(): ["talker-one"], ("--services",): ["talker-one", "watcher"]}


def test_ps_shows_sleeping_paglets_when_asked(pair: Pair, run: Run) -> None:
    for agent_id in ("sleeper", "waker"):
        pair.create("alpha", agent_id)
    run("sleep", "sleeper")
    listed = {
        options: [line.split()[:3] for line in run("ps", *options)[1].splitlines() if "Talker" in line]
        for options in ((), ("--all",), ("--inactive",))
    }
    awake, asleep = ["waker", "Talker", "active"], ["sleeper", "Talker", "asleep"]
    assert listed == {(): [awake], ("--all",): [awake, asleep], ("--inactive",): [asleep]}


def test_ps_shows_what_crashed_and_why(pair: Pair, run: Run) -> None:
    pair.create("beta", "crasher")
    assert run("send", "crasher", "leave", "code:=3")[0] == 1
    _, out, _ = run("ps")
    (line,) = [line for line in out.splitlines() if "crasher" in line]
    assert line.split()[:4] == ["crasher", "Talker", "crashed", "beta"]
    assert "3" in line


def test_ps_of_one_host_by_name_or_url(pair: Pair, run: Run) -> None:
    pair.create("alpha", "first")
    pair.create("beta", "second")
    for host in ("beta", pair.beta):
        _, out, _ = run("ps", "--host", host, "--json")
        assert [each["agent_id"] for each in json.loads(out)["paglets"]] == ["second"]


def test_ps_as_json_has_whole_summaries(pair: Pair, run: Run) -> None:
    pair.create("alpha", "talker-one")
    code, out, err = run("ps", "--json", "--all")
    payload = json.loads(out)
    assert (code, err, set(payload)) == (0, "", {"paglets", "offline", "errors"})
    (summary,) = payload["paglets"]
    assert summary["agent_id"] == "talker-one"
    assert summary["class_name"] == "tests.agents.http_agents:Talker"
    assert (summary["server_name"], summary["host_url"], summary["active"]) == ("alpha", pair.alpha, True)
    assert (payload["offline"], payload["errors"]) == ([], [])


def test_ps_wide_folds_nothing(pair: Pair, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    agent_id = pair.create("alpha", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = run("ps", "--wide")
    (line,) = [line for line in out.splitlines() if agent_id in line]
    assert line.split()[1:4] == ["tests.agents.http_agents:Talker", "active", "alpha"]
    assert line.split()[-1] == pair.alpha


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--all", "--inactive"], "exclude each other"),
        (["--watch"], "--watch draws on a terminal"),
        (["--api-key-env", "PAGLETS_NO_SUCH"], "'PAGLETS_NO_SUCH' is not set"),
        (["--timeout", "0"], "--timeout"),
    ],
)
def test_ps_refuses_what_makes_no_sense(run: Run, options: list[str], words: str) -> None:
    code, out, err = run("ps", *options)
    assert (code, out) == (2, "")
    assert one_line(err).startswith("paglets ps: ")
    assert words in err


def test_ps_watch_renews_the_table_until_interrupted(pair: Pair) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "paglets", "ps", "--watch", "--entry", pair.alpha],
        stdin=follower, stdout=follower, stderr=subprocess.PIPE, cwd=ROOT, env=environment(TERM="xterm"),
    )  # fmt: skip
    os.close(follower)
    shown = ""

    def sees(text: str) -> bool:
        nonlocal shown
        shown += os.read(leader, 65536).decode(errors="replace")
        return text in shown

    try:
        eventually(lambda: sees("waiting"), "the first table")
        pair.create("beta", "late-comer")
        eventually(lambda: sees("late-comer"), "the paglet in a later table", 30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, b"")
    finally:
        process.kill()
        process.communicate()
        os.close(leader)


# --- which paglet -----------------------------------------------------------------------------------------------------


def test_a_paglet_is_found_by_the_beginning_of_its_id_on_any_host(pair: Pair, run: Run) -> None:
    pair.create("alpha", "abcd1111")
    pair.create("beta", "abce2222")
    assert run("send", "abce", "count")[:2] == (0, "1\n")
    assert run("send", "abcd1", "count")[:2] == (0, "1\n")
    assert pair.send("alpha", "abcd1111", "count") == 2


def test_a_whole_id_is_not_taken_for_the_beginning_of_another(pair: Pair, run: Run) -> None:
    for agent_id in ("abc", "abcd", "abcde"):
        pair.create("alpha", agent_id)
    assert run("send", "abcd", "count", "by:=5")[1] == "5\n"
    assert run("send", "abc", "count", "by:=7")[1] == "7\n"


def test_several_that_are_meant_are_listed(pair: Pair, run: Run) -> None:
    pair.create("alpha", "abcd1111")
    pair.create("beta", "abcd2222")
    code, out, err = run("send", "abcd", "count")
    assert (code, out) == (1, "")
    assert one_line(err) == (
        "paglets send: 'abcd' may be abcd1111 (Talker on alpha), abcd2222 (Talker on beta); write more of the id\n"
    )


def test_of_many_that_are_meant_some_are_listed(pair: Pair, run: Run) -> None:
    for number in range(12):
        pair.create("alpha", f"many-{number}")
    _, _, err = run("send", "many", "count")
    assert "many-9 (Talker on alpha) and 2 more" in err


def test_one_id_on_two_hosts_needs_the_host(pair: Pair, run: Run) -> None:
    pair.create("alpha", "twin")
    pair.create("beta", "twin")
    code, _, err = run("send", "twin", "count")
    assert code == 1
    assert "choose one with --host" in one_line(err)
    assert run("send", "twin", "count", "by:=3", "--host", "beta")[1] == "3\n"


def test_an_unknown_paglet_is_an_error(pair: Pair, run: Run) -> None:
    code, out, err = run("wake", "nobody")
    assert (code, out) == (1, "")
    assert one_line(err) == "paglets wake: no paglet 'nobody' on alpha, beta\n"
    pair.create("alpha", "abcd1111")
    assert "at least 4 characters" in run("wake", "abc")[2]


# --- which hosts ------------------------------------------------------------------------------------------------------


def test_without_a_host_it_is_said_where_was_looked(run: Run) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    code, out, err = run("ps", "--entry", nowhere, entry=False)
    assert (code, out) == (1, "")
    assert one_line(err).startswith("paglets ps: No paglets host answered.")
    assert nowhere in err
    assert "--entry" in err


def test_the_entry_host_may_be_in_the_environment(pair: Pair, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.create("beta", "talker-one")
    monkeypatch.setenv(ENTRY_VARIABLE, pair.beta)
    assert "talker-one" in run("ps", entry=False)[1]
    # What is said is more than what is around.
    monkeypatch.setenv(ENTRY_VARIABLE, f"http://127.0.0.1:{free_port()}")
    assert "talker-one" in run("ps")[1]


def test_an_unknown_host_is_an_error(run: Run) -> None:
    code, _, err = run("ps", "--host", "gamma")
    assert code == 1
    assert one_line(err) == "paglets ps: host 'gamma' is not known to alpha; it knows alpha, beta\n"


# --- send -------------------------------------------------------------------------------------------------------------


def test_send_prints_text_as_it_is_and_other_replies_as_json(pair: Pair, run: Run) -> None:
    pair.create("alpha", "talker-one")
    assert run("send", "talker-one", "give", "what=hello there")[:2] == (0, "hello there\n")
    assert run("send", "talker-one", "count", "by:=2")[:2] == (0, "2\n")
    pair.create("alpha", "parrot", "tests.agents.http_agents:Parrot")
    _, out, _ = run("send", "parrot", "any kind", "a=1", "b:=[1, null]", "c=x=y", "--arg", '{"deep": [true]}')
    heard = json.loads(out)
    assert (heard["kind"], heard["args"]) == ("any kind", {"a": "1", "b": [1, None], "c": "x=y"})
    assert heard["arg"] == {"deep": [True]}


def test_send_prints_what_the_output_cannot_carry_as_an_escape(pair: Pair, run: Run) -> None:
    pair.create("alpha", "talker-one")
    assert run("send", "talker-one", "give", "what=caf\udce9 \u00e9\nline") == (0, "caf\\udce9 \u00e9\nline\n", "")
    code, out, _ = run("send", "talker-one", "give", "what=nan", "--json")
    assert (code, repr(json.loads(out)["reply"])) == (0, "nan")


def test_send_as_json(pair: Pair, run: Run) -> None:
    pair.create("beta", "talker-one")
    code, out, err = run("send", "talker-one", "count", "--json")
    payload = json.loads(out)
    assert (code, err) == (0, "")
    assert payload.pop("message_id")
    assert payload == {"agent_id": "talker-one", "host_url": pair.beta, "reply": 1}


def test_send_without_waiting_for_a_reply(pair: Pair, run: Run) -> None:
    pair.create("beta", "talker-one")
    code, out, _ = run("send", "talker-one", "count", "by:=8", "--oneway")
    assert code == 0
    assert out.startswith("sent ")
    eventually(lambda: pair.send("beta", "talker-one", "count", by=0) == 8, "the message handled")


def test_send_shows_the_error_of_the_paglet(pair: Pair, run: Run) -> None:
    pair.create("alpha", "talker-one")
    code, out, err = run("send", "talker-one", "raise", "error=RuntimeError")
    assert (code, out) == (1, "")
    assert "said so" in one_line(err)
    assert run("send", "talker-one", "no-such-handler")[0] == 1


def test_send_no_wake_lets_a_sleeper_sleep(pair: Pair, run: Run) -> None:
    pair.create("alpha", "sleeper")
    run("sleep", "sleeper")
    code, out, _ = run("send", "sleeper", "count", "--no-wake")
    assert (code, json.loads(out)["queued"]) == (0, True)
    assert pair.client.agent_info(pair.alpha, "sleeper")["active"] is False


def test_send_stops_waiting_in_time(pair: Pair, run: Run, tmp_path: Path) -> None:
    pair.create("alpha", "talker-one")
    os.mkfifo(tmp_path / "gate")
    code, _, err = run("send", "talker-one", "wait", f"gate={tmp_path / 'gate'}", "--timeout", "0.3")
    assert code == 1
    assert "0.3 s" in one_line(err)
    with (tmp_path / "gate").open("wb"):
        pass


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x"], "NAME=TEXT or NAME:=JSON, not 'x'"),
        (["=x"], "NAME=TEXT"),
        (["a=1", "a:=2"], "'a' is given twice"),
        (["a:=x"], "a is no JSON"),
        (["a:=NaN"], "NaN is not a JSON number"),
        (["--arg", "{"], "--arg is no JSON"),
    ],
)
def test_send_refuses_what_is_no_argument(run: Run, arguments: list[str], words: str) -> None:
    code, out, err = run("send", "talker-one", "count", *arguments)
    assert (code, out) == (2, "")
    assert words in one_line(err)


def test_named_arguments() -> None:
    assert named_arguments(["a=", "b:=1.5", "c=:=", 'd:="=="']) == {"a": "", "b": 1.5, "c": ":=", "d": "=="}


def test_ps_counts_the_messages_that_wait_for_a_sleeper(pair: Pair, run: Run) -> None:
    pair.create("alpha", "sleeper")
    pair.create("alpha", "dreamer")
    for agent_id in ("sleeper", "dreamer"):
        run("sleep", agent_id, "--messages-wait")
    for _ in range(2):
        run("send", "sleeper", "count", "--oneway")
    waiting = {line.split()[0]: line.split()[4] for line in run("ps", "--inactive")[1].splitlines() if "Talker" in line}
    assert waiting == {"sleeper": "2", "dreamer": "0"}


# --- move, sleep, wake ------------------------------------------------------------------------------------------------


def test_move_to_a_host_by_name_and_back_by_url(pair: Pair, run: Run) -> None:
    pair.create("alpha", "mover")
    pair.send("alpha", "mover", "count", by=4)
    assert run("move", "move", "beta") == (0, "mover moved from alpha to beta\n", "")
    assert pair.where("mover") == ["beta"]
    code, out, err = run("move", "mover", pair.alpha, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"agent_id": "mover", "from": pair.beta, "host_url": pair.alpha}
    assert pair.send("alpha", "mover", "count", by=0) == 4


def test_a_move_that_fails_leaves_the_paglet_where_it_was(pair: Pair, run: Run) -> None:
    pair.create("alpha", "mover")
    code, out, err = run("move", "mover", "gamma")
    assert (code, out) == (1, "")
    assert one_line(err) == "paglets move: no host is named 'gamma'; there are alpha, beta, or give a URL\n"
    nowhere = f"http://127.0.0.1:{free_port()}"
    code, out, err = run("move", "mover", nowhere)
    assert (code, out) == (1, "")
    assert nowhere in one_line(err)
    assert pair.where("mover") == ["alpha"]


def test_sleep_and_wake(pair: Pair, run: Run) -> None:
    pair.create("beta", "sleeper")
    code, out, _ = run("sleep", "sleeper", "--reason", "the night")
    assert code == 0
    assert out.startswith("sleeper sleeps on beta")
    assert pair.client.agent_info(pair.beta, "sleeper")["active"] is False
    assert run("wake", "sleeper") == (0, "sleeper is awake on beta\n", "")
    assert pair.client.agent_info(pair.beta, "sleeper")["active"] is True
    run("sleep", "sleeper")
    assert json.loads(run("wake", "sleeper", "--json")[1]) == {"agent_id": "sleeper", "host_url": pair.beta}


def test_sleep_says_the_terms(pair: Pair, run: Run) -> None:
    pair.create("alpha", "sleeper", ACTOR)
    code, out, _ = run("sleep", "sleeper", "--until", "2099-01-31T07:30", "--messages-wait")
    assert (code, out) == (0, "sleeper sleeps on alpha until 2099-01-31 07:30:00\n")
    state = pair.client.get_json(f"{pair.alpha}/agents/sleeper/state")
    moment = datetime(2099, 1, 31, 7, 30).astimezone().timestamp()
    assert state["deactivation_policy"]["activate_at"] == moment
    (told,) = [each for each in state["state"]["events"] if each["hook"] == "deactivating"]
    assert told["reason"] == "deactivate"
    run("wake", "sleeper")
    assert run("sleep", "sleeper")[1] == "sleeper sleeps on alpha until a message comes\n"
    run("wake", "sleeper")
    _, out, _ = run("sleep", "sleeper", "--for", "10m", "--json")
    agreed = json.loads(out)
    assert set(agreed) == {"agent_id", "host_url", "policy"}
    assert agreed["policy"]["activate_on_message"] is True
    assert agreed["policy"]["activate_at"] > time.time()


def test_a_sleeper_wakes_in_time(pair: Pair, run: Run) -> None:
    pair.create("alpha", "sleeper")
    assert run("sleep", "sleeper", "--for", "0.2s")[0] == 0
    eventually(lambda: pair.client.agent_info(pair.alpha, "sleeper")["active"], "the paglet awake")


def test_a_crashed_paglet_is_woken(pair: Pair, run: Run) -> None:
    pair.create("beta", "crasher")
    pair.send("beta", "crasher", "count", by=3)
    run("send", "crasher", "leave", "code:=3")
    assert run("wake", "crasher") == (0, "crasher is awake on beta\n", "")
    assert pair.client.agent_info(pair.beta, "crasher")["active"] is True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--for", "soon"], "--for must be a time span"),
        (["--until", "2020-01-01"], "--until must be in the future"),
        (["--until", "noon"], "--until must be a time"),
        (["--for", "1m", "--until", "12:00"], "exclude each other"),
    ],
)
def test_sleep_refuses_what_is_no_time(run: Run, options: list[str], words: str) -> None:
    code, out, err = run("sleep", "sleeper", *options)
    assert (code, out) == (2, "")
    assert words in one_line(err)


def test_sleep_of_a_sleeper_is_an_error(pair: Pair, run: Run) -> None:
    pair.create("alpha", "sleeper")
    run("sleep", "sleeper")
    code, _, err = run("sleep", "sleeper")
    assert code == 1
    assert "sleeper" in one_line(err)


# --- rm ---------------------------------------------------------------------------------------------------------------


def test_rm_ends_several(pair: Pair, run: Run) -> None:
    pair.create("alpha", "first-one")
    pair.create("beta", "second-one")
    pair.create("beta", "third-one")
    run("sleep", "second-one")
    assert run("rm", "--yes", "first", "second", "second-one") == (
        0,
        "first-one ended on alpha\nsecond-one ended on beta\n",
        "",
    )
    assert (pair.ids("alpha"), pair.ids("beta")) == ([], ["third-one"])


def test_rm_ends_nothing_when_one_is_not_found(pair: Pair, run: Run) -> None:
    pair.create("alpha", "first-one")
    code, out, err = run("rm", "--yes", "first-one", "nobody")
    assert (code, out) == (1, "")
    assert "no paglet 'nobody'" in one_line(err)
    assert pair.ids("alpha") == ["first-one"]


def test_rm_asks_first(pair: Pair, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.create("alpha", "first-one")
    code, out, err = run("rm", "first-one")
    assert (code, out) == (2, "")
    assert "add --yes" in one_line(err)

    answers: list[str] = []

    def confirm(question: str) -> bool:
        answers.append(question)
        return len(answers) > 1

    monkeypatch.setattr("typer.confirm", confirm)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    code, out, _ = run("rm", "first-one")
    assert (code, out) == (1, "first-one (Talker on alpha)\n")
    assert pair.ids("alpha") == ["first-one"]
    assert run("rm", "first-one")[0] == 0
    assert pair.ids("alpha") == []
    assert answers == ["End this paglet for good?"] * 2


def test_rm_as_json_says_what_failed(pair: Pair, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.create("alpha", "first-one")
    pair.create("beta", "second-one")
    original = HostClient.operate

    def operate(self: HostClient, host_url: str, agent_id: str, *rest: Any, **more: Any) -> dict[str, Any]:
        if agent_id == "first-one":
            raise RemoteHostError("lost it")
        return original(self, host_url, agent_id, *rest, **more)

    monkeypatch.setattr(HostClient, "operate", operate)
    code, out, err = run("rm", "--yes", "--json", "first-one", "second-one")
    assert code == 1
    assert json.loads(out) == {
        "removed": ["second-one"],
        "failed": [{"agent_id": "first-one", "error": "lost it"}],
    }
    assert one_line(err) == "paglets rm: first-one: lost it\n"
