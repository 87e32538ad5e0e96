"""The commands for messages that nobody received, with letters that hosts really have."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from paglets.cli.app import main
from paglets.config.env import DEFAULT_API_KEY_ENV
from paglets.core.messages import Message
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import DeadLetter
from paglets.persistence.tables import dead_letters
from paglets.runtime.host import Host
from paglets.serialization.values import pack
from tests.agents.http_agents import Talker, TalkerState
from tests.support import HostFactory, eventually

Dead = Callable[..., tuple[int, str, str]]


def bury(host: Host, agent_id: str, kind: str = "count", **args: Any) -> int:
    """Put a message among the dead letters of a host."""
    message = Message(kind, args)
    body = bytes(pack(QueuedMessage(message, oneway=True).to_wire()))
    letter = DeadLetter(0, 1e9, agent_id, host.address, message.message_id, kind, "it ended", body)
    node = host._running().node
    return host._running().run(node.kernel.journal.write(lambda connection: dead_letters.add(connection, letter)))


@pytest.fixture
def alpha(hosts: HostFactory) -> Host:
    return hosts("alpha")


@pytest.fixture
def both(hosts: HostFactory, alpha: Host) -> list[Host]:
    """Give two hosts that know each other."""
    beta = hosts("beta", mesh=True, peers=[alpha.address])
    # Without a mesh of its own the first one is told.
    alpha.mesh.register(beta.mesh.refresh_self())
    return [alpha, beta]


@pytest.fixture
def dead(alpha: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dead:
    """Give what runs a command about dead letters and returns exit code, output and errors."""
    monkeypatch.delenv(DEFAULT_API_KEY_ENV, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def begin(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["dead", *arguments, "--entry", alpha.address])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return begin


def count_of(host: Host, agent_id: str) -> int:
    return host.get_state(agent_id, TalkerState).count


def test_letters_of_all_hosts_are_listed(both: list[Host], dead: Dead) -> None:
    ids = [bury(host, f"gone-{host.name}") for host in both]
    code, out, err = dead("list")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines() if "gone-" in line]
    assert [(line[0], *line[3:]) for line in lines] == [
        (f"{host.name}/{number}", f"gone-{host.name}", "count", "it", "ended")
        for host, number in zip(both, ids, strict=True)
    ]
    _, out, _ = dead("list", "--json", "--agent", "gone-beta")
    (letter,) = json.loads(out)["dead_letters"]
    assert (letter["letter"], letter["host"], letter["reason"]) == (f"beta/{ids[1]}", "beta", "it ended")


def test_a_letter_is_shown_with_its_message(alpha: Host, dead: Dead) -> None:
    number = bury(alpha, "gone", "put", data=b"\0", text="hello")
    code, out, _ = dead("show", str(number), "--json")
    shown = json.loads(out)
    assert code == 0
    assert (shown["letter"], shown["agent_id"], shown["message"]["kind"]) == (f"alpha/{number}", "gone", "put")
    assert shown["message"]["args"]["text"] == "hello"
    _, out, _ = dead("show", f"alpha/{number}")
    for words in (f"alpha/{number}", "gone at", "it ended", "put (", '"hello"', "base64"):
        assert words in out


def test_a_retry_delivers_and_removes(alpha: Host, dead: Dead) -> None:
    alpha.create(Talker, agent_id="talker-one")
    number = bury(alpha, "talker-one", by=6)
    assert dead("retry", f"alpha/{number}") == (0, f"alpha/{number} delivered again\n", "")
    eventually(lambda: count_of(alpha, "talker-one") == 6, "the message handled")
    assert json.loads(dead("list", "--json")[1])["dead_letters"] == []


def test_a_retry_that_fails_keeps_the_letter(alpha: Host, dead: Dead) -> None:
    number = bury(alpha, "gone")
    code, out, err = dead("retry", str(number))
    assert (code, out) == (1, "")
    assert err.startswith(f"paglets dead retry: alpha/{number}: ")
    assert "gone" in err
    assert len(json.loads(dead("list", "--json")[1])["dead_letters"]) == 1


def test_all_are_retried_and_what_failed_is_said(both: list[Host], dead: Dead) -> None:
    alpha, beta = both
    beta.create(Talker, agent_id="talker-one")
    numbers = bury(beta, "talker-one", by=1), bury(alpha, "gone"), bury(beta, "talker-one", by=2)
    code, out, err = dead("retry", "--all", "--json")
    report = json.loads(out)
    assert code == 1
    assert report["accepted"] == [f"beta/{numbers[0]}", f"beta/{numbers[2]}"]
    assert [failure["letter"] for failure in report["failed"]] == [f"alpha/{numbers[1]}"]
    assert err.count("\n") == 1
    eventually(lambda: count_of(beta, "talker-one") == 3, "both messages handled")
    dead("clear", "--all", "--yes")
    assert dead("retry", "--all") == (0, "there are no dead letters\n", "")


def test_letters_are_cleared_one_by_one_or_all(both: list[Host], dead: Dead) -> None:
    alpha, beta = both
    first, second = bury(alpha, "gone"), bury(alpha, "other")
    bury(beta, "gone")
    assert dead("clear", f"alpha/{first}") == (0, f"alpha/{first} cleared\n", "")
    assert dead("clear", "--all", "--agent", "gone", "--yes") == (0, "1 cleared\n", "")
    left = json.loads(dead("list", "--json")[1])["dead_letters"]
    assert [letter["letter"] for letter in left] == [f"alpha/{second}"]
    assert json.loads(dead("clear", "--all", "--yes", "--json")[1]) == {"cleared": 1, "failed": []}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "77"], 1, "there is no dead letter 77"),
        (["show", "gamma/1"], 1, "no host is named 'gamma'"),
        (["show", "alpha/x"], 2, "HOST/NUMBER"),
        (["retry"], 2, "name the letters, or say --all"),
        (["retry", "alpha/1", "--all"], 2, "name the letters, or say --all"),
        (["retry", "alpha/1", "--agent", "x"], 2, "--agent goes with --all"),
        (["clear", "--all"], 2, "add --yes"),
        (["clear", "alpha/77"], 1, "alpha/77: there is no dead letter 77"),
    ],
)
def test_what_cannot_be_done_is_one_line(dead: Dead, arguments: list[str], code: int, words: str) -> None:
    found, out, err = dead(*arguments)
    assert (found, out) == (code, "")
    assert err.count("\n") == 1
    assert err.startswith(f"paglets dead {arguments[0]}: ")
    assert words in err


def test_a_bare_number_needs_one_host(both: list[Host], dead: Dead) -> None:
    number = bury(both[1], "gone")
    code, _, err = dead("show", str(number))
    assert code == 2
    assert f"HOST/{number}, or --host" in err
    assert dead("show", str(number), "--host", "beta", "--json")[0] == 0


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for command in ("list", "show", "retry", "clear"):
        assert command in shown.out
