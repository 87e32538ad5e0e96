"""The parts of the user-info service that decide: texts, rates, what is posted when, and where to."""

from __future__ import annotations

import json
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paglets.core.errors import HostError
from paglets.system.user_info import outbox, webhooks
from paglets.system.user_info.desktop import desktop_command, show
from paglets.system.user_info.logfile import NotificationLog
from paglets.system.user_info.outbox import Delivery
from paglets.system.user_info.rates import MAX_SOURCES, RateLimit
from paglets.system.user_info.text import MAX_MESSAGE, cleaned, fields_of, line_of
from tests.remote.scripted import Received, ScriptedHost, response


def notice(**more: Any) -> dict[str, Any]:
    return fields_of(**({"severity": "info", "now": 1000.0} | more))


# --- text -------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=300), st.integers(1, 50))
def test_a_cleaned_text_is_one_line_that_no_terminal_obeys(text: str, longest: int) -> None:
    shown = cleaned(text, longest)
    assert len(shown) <= longest
    assert shown.isprintable()
    assert cleaned(shown, longest) == shown


def test_a_forged_line_stays_part_of_its_message() -> None:
    line = line_of(notice(message="done\n[2026-01-01 00:00:00] ERROR: paglets: \x1b[2Jgone", title="a\rb"))
    assert "\n" not in line
    assert line.endswith("INFO: a b: done [2026-01-01 00:00:00] ERROR: paglets: ?[2Jgone")


@pytest.mark.parametrize("timestamp", [0.0, -5.0, float("nan"), float("inf"), 1e300])
def test_what_is_no_time_is_now(timestamp: float) -> None:
    assert notice(timestamp=timestamp)["timestamp"] == 1000.0


def test_a_notification_is_bounded() -> None:
    found = notice(message="x" * 100_000, metadata={f"k{n}": "v" * 5000 for n in range(100)}, severity="")
    assert len(found["message"]) == MAX_MESSAGE
    assert len(json.dumps(found)) < 20_000
    assert found["severity"] == "INFO"


# --- rates ------------------------------------------------------------------------------------------------------------


def test_a_source_that_floods_is_held_back_and_others_are_not() -> None:
    limit = RateLimit(10, now=0.0)
    assert [limit.admits("noisy", now=0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert limit.admits("quiet", now=0.0)
    assert (limit.take_held_back(), limit.take_held_back()) == (2, 0)
    # One comes back every six seconds.
    assert [limit.admits("noisy", now=6.1) for _ in range(2)] == [True, False]


def test_other_names_do_not_help() -> None:
    limit = RateLimit(10, now=0.0)
    assert sum(limit.admits(str(number), now=0.0) for number in range(1000)) == 50
    assert len(limit._sources) == MAX_SOURCES


# --- outbox -----------------------------------------------------------------------------------------------------------


class Posting(RuleBasedStateMachine):
    """However targets fail, each gets what it gets in order, and what is young is not lost while there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.made = 1000.0, 0
        self.pending: list[Delivery] = []
        self.lost: list[str] = []
        self.got: dict[str, list[int]] = {"a": [], "b": []}

    @rule(whom=st.sampled_from("ab"))
    def put(self, whom: str) -> None:
        self.made += 1
        new = Delivery(str(self.made), whom, created_at=self.now, next_at=self.now)
        self.pending, lost = outbox.with_new(self.pending, [new])
        self.lost += [each.delivery_id for each in lost]

    @rule(seconds=st.floats(0.0, 400.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(works=st.booleans(), jitter=st.floats(0.0, 1.0), pause=st.one_of(st.none(), st.floats(0.0, 1e9)))
    def post(self, works: bool, jitter: float, pause: float | None) -> None:
        for each in outbox.due(self.pending, now=self.now):
            if works:
                self.got[each.target].append(int(each.delivery_id))
                self.pending = outbox.without(self.pending, each)
                continue
            self.pending, given_up = outbox.after_failure(self.pending, each, now=self.now, jitter=jitter, pause=pause)
            if given_up:
                assert self.now - each.created_at >= outbox.GIVE_UP_SECONDS
                self.lost.append(each.delivery_id)

    @invariant()
    def nothing_is_lost_or_out_of_order(self) -> None:
        assert all(numbers == sorted(set(numbers)) for numbers in self.got.values())
        assert sum(map(len, self.got.values())) + len(self.pending) + len(self.lost) == self.made
        assert len(self.pending) <= outbox.MAX_PENDING
        wait = outbox.seconds_to_next(self.pending, now=self.now)
        assert (wait is None) == (not self.pending)
        assert wait is None or wait <= outbox.LONGEST_PAUSE_SECONDS


TestPosting = Posting.TestCase


def test_pauses_grow_and_are_spread() -> None:
    pending = [Delivery("1", "a", created_at=0.0)]
    pauses = []
    for _ in range(12):
        pending, given_up = outbox.after_failure(pending, pending[0], now=0.0, jitter=1.0)
        pauses.append(pending[0].next_at)
        assert not given_up
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert outbox.after_failure(pending, pending[0], now=0.0, jitter=0.0)[0][0].next_at == 150.0
    assert outbox.after_failure(pending, pending[0], now=90_000.0, jitter=0.0) == ([], True)


def test_the_oldest_goes_when_there_is_no_room() -> None:
    everything = [Delivery(str(number), "a") for number in range(outbox.MAX_PENDING)]
    kept, lost = outbox.with_new(everything, [Delivery("new", "a")])
    assert [each.delivery_id for each in lost] == ["0"]
    assert kept[-1].delivery_id == "new"


# --- targets ----------------------------------------------------------------------------------------------------------


def test_secret_urls_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKS", "https://chat/secret1  http://chat/secret2")
    found = webhooks.targets(["https://open/x"], "HOOKS")
    assert found == {
        "https://open/x": "https://open/x",
        "HOOKS[0]": "https://chat/secret1",
        "HOOKS[1]": "http://chat/secret2",
    }
    assert [webhooks.name_of(target) for target in found] == ["open", "HOOKS[0]", "HOOKS[1]"]
    assert webhooks.targets([], "") == {}


@pytest.mark.parametrize("url", ["ftp://x/", "x", "http://", "file:///etc/passwd", "http://[::1"])
def test_what_is_no_web_hook(url: str) -> None:
    with pytest.raises(HostError, match="must be a URL"):
        webhooks.targets([url], "")


def test_there_are_not_too_many() -> None:
    with pytest.raises(HostError, match="17 web hooks are too many"):
        webhooks.targets([f"http://x/{number}" for number in range(17)], "")


@pytest.mark.parametrize("text", ['{"Authorization": "Bearer x", "X-A": "1"}', "Authorization: Bearer x\n\nX-A:1\n"])
def test_headers(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HEADERS", text)
    assert webhooks.headers("HEADERS") == {"Authorization": "Bearer x", "X-A": "1"}


@pytest.mark.parametrize("text", ["no colon", "{", '{"a": 1}', '{"a": "b\\r\\nc: d"}', "a b: c", ": x"])
def test_what_are_no_headers(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HEADERS", text)
    with pytest.raises(HostError, match="HEADERS"):
        webhooks.headers("HEADERS")


def test_a_body_that_is_too_large_loses_its_metadata() -> None:
    small, large = Delivery("1", "a", {"metadata": {"k": "v"}}), Delivery("2", "a", {"metadata": {"k": "v" * 70_000}})
    assert json.loads(webhooks.encoded(small)) == {"id": "1", "metadata": {"k": "v"}}
    assert json.loads(webhooks.encoded(large)) == {"id": "2", "metadata": {}}


# --- posting ----------------------------------------------------------------------------------------------------------


def posted(url: str, *, timeout: float = 10.0) -> webhooks.Attempt:
    (attempt,) = webhooks.post_all([Delivery("1", "hook", {"message": "x"})], {"hook": url}, {"X-A": "b"}, timeout)
    return attempt


def test_what_is_posted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with ScriptedHost(response(b"thanks")) as server:
        assert posted(f"{server.url}/secret").verdict is webhooks.Verdict.DELIVERED
        (request,) = server.requests
    assert (request.method, request.target, request.json) == ("POST", "/secret", {"id": "1", "message": "x"})
    assert (request.headers["idempotency-key"], request.headers["x-a"]) == ("1", "b")
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("answer", "verdict", "reason", "pause"),
    [
        (response(b"", "302 Found", location="http://127.0.0.1:1/"), webhooks.Verdict.REFUSED, "it answered 302", None),
        (response(b"", "429 Slow", retry_after="7"), webhooks.Verdict.LATER, "it answered 429", 7.0),
        (b"SMTP\r\n\r\n", webhooks.Verdict.LATER, "RemoteProtocolError", None),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nendless", webhooks.Verdict.DELIVERED, "", None),
    ],
)
def test_what_an_answer_means(answer: bytes, verdict: webhooks.Verdict, reason: str, pause: float | None) -> None:
    with ScriptedHost(answer) as server:
        attempt = posted(server.url)
    assert (attempt.verdict, attempt.reason, attempt.pause) == (verdict, reason, pause)


def test_a_target_that_answers_too_slowly() -> None:
    release = threading.Event()

    def drip(_request: Received, connection: socket.socket) -> None:
        while not release.wait(0.02):
            connection.sendall(b"H")

    with ScriptedHost(drip) as server:
        try:
            attempt = posted(server.url, timeout=0.2)
        finally:
            release.set()
    assert (attempt.verdict, attempt.reason) == (webhooks.Verdict.LATER, "no answer within 0.2 s")


def test_a_target_that_is_not_there_or_not_wanted_any_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/secret"
    attempt = posted(url)
    assert (attempt.verdict, attempt.reason) == (webhooks.Verdict.LATER, "ConnectError")
    (attempt,) = webhooks.post_all([Delivery("1", "gone")], {}, {}, 1.0)
    assert attempt.verdict is webhooks.Verdict.REFUSED


# --- log and desktop --------------------------------------------------------------------------------------------------


def test_the_log_has_a_line_for_each_and_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "new" / "notices.jsonl"
    log = NotificationLog(str(path), max_bytes=1024, backups=2)
    for number in range(60):
        log.write(notice(message=f"number {number} \x1b[31m é\n"))
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "notices.jsonl",
        "notices.jsonl.1",
        "notices.jsonl.2",
    ]
    lines = path.read_text(encoding="ascii").splitlines()
    assert json.loads(lines[-1])["message"] == "number 59 ?[31m é"
    assert all(file.stat().st_size <= 1024 for file in path.parent.iterdir())


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.log").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        NotificationLog(str(tmp_path / "x.log"), max_bytes=1024, backups=1).write(notice())


@pytest.mark.parametrize(
    ("path", "max_bytes", "backups"),
    [("relative.log", 4096, 1), ("/home/x/.bashrc", 4096, 1), ("/x.log", 10, 1), ("/x.log", 4096, 0)],
)
def test_logs_that_make_no_sense(path: str, max_bytes: int, backups: int) -> None:
    with pytest.raises(HostError, match="log_"):
        NotificationLog(path, max_bytes=max_bytes, backups=backups)


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give what `notify-send` was called with, on a desktop."""
    called = tmp_path / "called"
    tool = tmp_path / "notify-send"
    tool.write_text(f'#!/bin/sh\nfor each in "$@"; do echo "$each"; done > {called}\n[ "$4" != fail ]\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("sys.platform", "linux")
    return called


def test_a_desktop_shows_it(desktop: Path) -> None:
    command = desktop_command("ERROR", "--help", "it's $(over)")
    assert command is not None
    assert show(command) == ""
    assert desktop.read_text().splitlines() == [
        "--urgency=critical",
        "--app-name=paglets",
        "--",
        "--help",
        "it's $(over)",
    ]
    assert show(desktop_command("INFO", "fail", "x") or []) == "exit code 1"
    assert show(["/nowhere/notify-send"]) == "No such file or directory"


def test_without_a_desktop_or_a_tool_nothing_is_shown(desktop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert desktop_command("INFO", "a", "b") is None
    (desktop.parent / "bus").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(desktop.parent))
    assert desktop_command("INFO", "a", "b") is not None
    monkeypatch.setenv("PATH", "/nowhere")
    assert desktop_command("INFO", "a", "b") is None


def test_a_script_gets_the_text_as_arguments(desktop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert desktop_command("INFO", "a", "b") is None
    (desktop.parent / "osascript").write_text("#!/bin/sh\n")
    (desktop.parent / "osascript").chmod(0o755)
    command = desktop_command("INFO", 'a" & do shell script "x', "b")
    assert command is not None
    assert command[-2:] == ['a" & do shell script "x', "b"]
    assert not any("do shell" in word for word in command[:-2])
