"""The command that shows what happens, also as it happens."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paglets.cli.events import Selection, line_of
from paglets.cli.follow import Bookmark, Follower
from paglets.core.context_events import ContextEvent
from paglets.core.errors import RemoteHostError
from paglets.remote.admin import ServerRef
from tests.cli.conftest import Pair, Run
from tests.cli.processes import Program
from tests.support import HostFactory, eventually, free_port


def event(event_id: int, timestamp: float, kind: str = "create", **fields: Any) -> ContextEvent:
    return ContextEvent(event_id, kind, "alpha", "http://alpha", timestamp=timestamp, **fields)


# --- what happened ----------------------------------------------------------------------------------------------------


def test_events_of_all_hosts_in_order_of_time(pair: Pair, run: Run) -> None:
    for number, host in enumerate(("alpha", "beta", "alpha")):
        pair.create(host, f"event-{number}")
    code, out, err = run("events", "--kind", "create", "--agent", "event-")
    assert (code, err) == (0, "")
    told = [line.split()[1:] for line in out.splitlines()]
    assert told == [
        ["alpha", "create", "event-0", "Talker"],
        ["beta", "create", "event-1", "Talker"],
        ["alpha", "create", "event-2", "Talker"],
    ]


def test_events_as_json(pair: Pair, run: Run) -> None:
    pair.create("beta", "for-json")
    code, out, _ = run("events", "--json", "--agent", "for-json", "--host", "beta")
    payload = json.loads(out)
    assert (code, payload["errors"]) == (0, [])
    (created,) = [each for each in payload["events"] if each["kind"] == "create"]
    assert (created["agent_id"], created["host_name"], created["class_name"]) == (
        "for-json",
        "beta",
        "tests.agents.http_agents:Talker",
    )


def test_events_are_selected_by_kind_time_and_number(pair: Pair, run: Run) -> None:
    for number in range(3):
        pair.create("alpha", f"limited-{number}")
    _, out, _ = run("events", "--agent", "limited", "--kind", "create", "--limit", "2")
    assert [line.split()[3] for line in out.splitlines()] == ["limited-1", "limited-2"]
    assert run("events", "--agent", "limited", "--kind", "no-such-kind")[1] == ""
    assert len(run("events", "--agent", "limited", "--kind", "create", "--since", "1d")[1].splitlines()) == 3
    assert run("events", "--agent", "limited", "--since", "0.001s")[1] == ""


def test_events_refuses_what_is_no_time(run: Run) -> None:
    code, out, err = run("events", "--since", "recently")
    assert (code, out) == (2, "")
    assert "--since must be a time span" in err


def test_an_event_is_a_line_for_people() -> None:
    target = {"name": "beta", "address": "http://b", "seconds": 0.01, "state_bytes": 2048}
    moved = event(1, time.time(), "dispatch", agent_id="0123456789ab", class_name="m:Walker", data={"target": target})
    words = line_of(moved).split()
    assert words[0].count(":") == 2
    assert words[1:6] == ["alpha", "dispatch", "01234567", "Walker", "to"]
    assert line_of(event(1, 0.0)).split()[0] in ("01-01", "12-31")
    assert "\x1b" not in line_of(event(1, 0.0, error="\x1b[31m"))


def test_a_selection() -> None:
    chosen = Selection(frozenset({"create"}), "abc", 10.0)
    assert event(1, 10.0, agent_id="abcd") in chosen
    assert event(1, 9.0, agent_id="abcd") not in chosen
    assert event(1, 10.0, "dispose", agent_id="abcd") not in chosen
    assert event(1, 10.0, agent_id="xabc") not in chosen
    assert event(1, 10.0) not in chosen
    assert event(1, 0.0) in Selection()


# --- what is happening ------------------------------------------------------------------------------------------------


@pytest.fixture
def follow(two_hosts: Pair) -> Iterator[Callable[..., Program]]:
    """Give what follows the events of the two hosts as a process; it is gone after the test."""
    programs: list[Program] = []

    def begin(*options: str, entry: str | None = None) -> Program:
        programs.append(Program("events", "--follow", "--entry", entry or two_hosts.alpha, *options))
        return programs[-1]

    yield begin
    for program in programs:
        program.close()


def test_events_are_followed_until_an_interrupt(pair: Pair, follow: Callable[..., Program]) -> None:
    # Given somebody who follows, of whom the only sign is what they print
    program = follow("--json", "--kind", "create")
    early = appear(pair, program)

    # When something happens on both hosts
    pair.create("beta", "followed-1")
    first = program_line(program, early)
    pair.create("alpha", "followed-2")
    second = program_line(program, early)

    # Then it is told, a JSON object per line, and nothing else is
    assert (first["agent_id"], first["host_name"], first["kind"]) == ("followed-1", "beta", "create")
    assert (second["agent_id"], second["host_name"]) == ("followed-2", "alpha")

    # And an interrupt is the way to end it
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 0
    assert program.err == []


def appear(pair: Pair, program: Program) -> set[str]:
    """Create paglets on both hosts until the follower has told of one on each."""
    seen: set[str] = set()
    hosts: set[str] = set()
    made = 0

    def both_told() -> bool:
        nonlocal made
        for host in {"alpha", "beta"} - hosts:
            pair.create(host, f"early-{host}-{made}")
        made += 1
        for line in list(program.out):
            told = json.loads(line)
            seen.add(told["agent_id"])
            hosts.add(told["host_name"])
        return hosts == {"alpha", "beta"}

    eventually(both_told, "the events of both hosts", 30)
    return {f"early-{host}-{number}" for host in ("alpha", "beta") for number in range(made)}


def program_line(program: Program, early: set[str]) -> dict[str, Any]:
    """Return the next line about none of the first paglets."""
    while (told := program.json_line())["agent_id"] in early:
        continue
    return told


def test_following_begins_with_what_there_is_when_asked(pair: Pair, follow: Callable[..., Program]) -> None:
    pair.create("beta", "before-that")
    program = follow("--since", "1d", "--agent", "before-that")
    assert program.line().split()[1:4] == ["beta", "create", "before-that"]
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 0


def test_a_host_that_is_started_again_is_followed_on(hosts: HostFactory, follow: Callable[..., Program]) -> None:
    port = free_port()
    host = hosts("followed", port=port)
    program = follow("--since", "1d", "--json", "--host", host.address)
    assert program.json_line()["kind"] == "context-start"
    eventually(lambda: host.events._signals, "a request that waits for the next event")
    host.stop()
    told = [program.json_line()["kind"]]
    eventually(lambda: program.err, "the host missed")
    hosts("followed", port=port)
    told.append(program.json_line()["kind"])
    assert told == ["context-shutdown", "context-start"]
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 0
    assert [line.rpartition("; ")[2] for line in program.err] == ["trying on", "followed answers again"]


def test_a_host_that_joins_later_is_followed_from_its_start(hosts: HostFactory, follow: Callable[..., Program]) -> None:
    first = hosts("first", mesh=True)
    program = follow("--json", "--kind", "context-start", entry=first.address)
    eventually(lambda: first.events._signals, "a request that waits for the next event")
    hosts("second", mesh=True, peers=[first.address])
    told = program.json_line()
    assert (told["kind"], told["host_name"]) == ("context-start", "second")
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 0


def test_following_ends_when_the_key_is_refused(hosts: HostFactory, follow: Callable[..., Program]) -> None:
    host = hosts("locked", api_key="secret")
    program = follow("--host", host.address)
    assert program.wait() == 1
    assert "API key" in program.err[0]


# --- how far was read -------------------------------------------------------------------------------------------------


def test_a_bookmark_passes_on_each_event_once() -> None:
    mark = Bookmark()
    first = [event(1, 10.0), event(2, 11.0)]
    assert mark.advance(first) == first
    assert mark.advance([event(3, 11.0)]) == [event(3, 11.0)]
    # The same log again, and then that of a host that was started again.
    mark.restart()
    assert mark.advance([*first, event(3, 11.0), event(4, 12.0)]) == [event(4, 12.0)]
    mark.restart()
    assert mark.advance([event(1, 13.0)]) == [event(1, 13.0)]
    assert (mark.event_id, mark.timestamp) == (1, 13.0)
    assert mark.advance([]) == []


class Script:
    """A client whose host answers from a list, and ends the story after that."""

    def __init__(self, *answers: list[ContextEvent] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    async def events(self, host_url: str, *, since: int, limit: int, wait: float = 0.0) -> list[ContextEvent]:
        self.asked.append(since)
        if not self.answers:
            raise asyncio.CancelledError
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Notes:
    """A printer that keeps what it is given."""

    def __init__(self) -> None:
        self.shown: list[int] = []
        self.notes: list[str] = []

    def show(self, events: list[ContextEvent]) -> None:
        self.shown += [each.event_id for each in events]

    def note(self, text: str) -> None:
        self.notes.append(text)


def follow_script(script: Script, monkeypatch: pytest.MonkeyPatch, *, from_now: bool = False) -> Notes:
    monkeypatch.setattr("paglets.cli.follow.PACE_SECONDS", 0)
    monkeypatch.setattr("paglets.cli.follow.FIRST_RETRY_SECONDS", 0)
    notes = Notes()
    follower = Follower(script, ServerRef("alpha", "http://alpha"), Selection(), notes, "events")  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(follower.run(from_now=from_now))
    return notes


def test_events_that_were_dropped_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = follow_script(Script([event(1, 1.0)], [event(5, 5.0)]), monkeypatch)
    assert notes.shown == [1, 5]
    assert notes.notes == ["alpha: 3 events were dropped before they could be read"]


def test_what_was_before_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script([event(1, 1.0), event(2, 2.0)], [], [event(3, 3.0)])
    assert follow_script(script, monkeypatch, from_now=True).shown == [3]
    assert script.asked == [0, 2, 2, 3]


def test_a_break_loses_and_repeats_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lost = RemoteHostError("lost it")
    script = Script([event(1, 1.0), event(2, 2.0)], lost, lost, [event(2, 2.0)], [event(3, 3.0)])
    notes = follow_script(script, monkeypatch)
    assert notes.shown == [1, 2, 3]
    assert notes.notes == ["alpha answers again"]
    assert capsys.readouterr().err.count("lost it") == 1


def test_after_the_end_of_a_host_its_numbers_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script([event(7, 7.0, "context-shutdown")], [event(1, 8.0)])
    assert follow_script(script, monkeypatch).shown == [7, 1]
    assert script.asked == [0, 0, 1]


def test_a_host_that_was_started_again_unseen_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing for a while; then the last number is asked for, and the host has none so high.
    script = Script([event(7, 7.0)], [], [], [event(1, 8.0)])
    assert follow_script(script, monkeypatch).shown == [7, 1]
    assert script.asked == [0, 7, 6, 0, 1]
