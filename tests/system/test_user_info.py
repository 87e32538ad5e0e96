"""Notifications get to people: on a terminal, in a log, to web hooks, and across the death of a host."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from paglets.core.agent import PagletContext
from paglets.core.errors import HostError, PagletError
from paglets.core.events import PersistencyEvent
from paglets.core.messages import Message
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.patterns.notifications import NotificationSeverity
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.system import user_info
from paglets.system.user_info import NOTIFY_USER, USER_INFO, UserInfoAgent, UserInfoRequest, UserInfoState
from tests.agents.notices import Crier
from tests.cli.processes import Program
from tests.support import HostFactory, eventually

PATIENCE = 20.0


class Chat:
    """A server that takes web hooks, and refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.requests: queue.SimpleQueue[tuple[str, dict[str, str], dict[str, Any]]] = queue.SimpleQueue()
        self.answers: list[int] = []
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = chat.answers.pop(0) if chat.answers else 204
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "0")
                if status == 302:
                    self.send_header("Location", f"{chat.url}/elsewhere")
                self.end_headers()
                chat.requests.put((self.path, dict(self.headers), body))

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def next(self) -> dict[str, Any]:
        """Return the body of the next request."""
        return self.requests.get(timeout=PATIENCE)[2]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def chat() -> Iterator[Chat]:
    made = Chat()
    yield made
    made.close()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    factory = HostFactory(tmp_path_factory.mktemp("user-info"))
    variables = {"PAGLETS_NOTIFY_HEADERS": "Authorization: Bearer x", "TEST_HOOKS": ""}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            yield factory("alpha")
        finally:
            factory.close()


def serve(host: Host, **state: Any) -> PagletProxy:
    return host.create(UserInfoAgent, UserInfoState(desktop=False, **state))


def tell(proxy: PagletProxy, **request: Any) -> bool:
    return NOTIFY_USER.decode_reply(proxy.send(NOTIFY_USER.to_message(UserInfoRequest(**request)))).ok


def pending(host: Host, proxy: PagletProxy) -> list[dict[str, Any]]:
    with HostClient() as client:
        state = client.get_json(f"{host.address}/agents/{proxy.agent_id}/state")["state"]
    found: list[dict[str, Any]] = state["pending"]
    return found


# --- what it is -------------------------------------------------------------------------------------------------------


def test_what_the_class_declares() -> None:
    (spec,) = UserInfoAgent.RESIDENT_SERVICES
    assert (spec.contract, spec.scope, spec.lifecycle) == (USER_INFO, ServiceScope.MESH, ResidentLifecycle.LAZY)
    assert (spec.agent_id, spec.idle_timeout, USER_INFO.version) == ("service.user-info", 30.0, "1")
    assert USER_INFO.capabilities == ("notify",)
    assert all(hasattr(user_info, name) for name in user_info.__all__)


def test_a_line_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    request = UserInfoRequest("warning", "job", "text", "agent-1", "job-1", timestamp=1e9)
    assert UserInfoAgent().notify(request).ok is True
    assert UserInfoAgent().notify(UserInfoRequest(message="hello")).ok is True
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("] WARNING: job job=job-1 source=agent-1: text")
    assert first.startswith("[2001-09-09 ")
    assert second.endswith("] INFO: paglets: hello")


def test_too_many_are_held_back_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    agent = UserInfoAgent(UserInfoState(rate_per_minute=2))
    # They are taken all the same, so that the sender does not try the services of all other hosts.
    assert all(agent.notify(UserInfoRequest(source_agent_id="a", message="x")).ok for _ in range(4))
    assert agent.notify(UserInfoRequest(source_agent_id="b", message="other")).ok
    said = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    held_back = "WARNING: paglets: {} notifications were held back, because there were too many"
    assert said == ["INFO: paglets source=a: x"] * 2 + [held_back.format(2), "INFO: paglets source=b: other"]
    # What is left over is told before it sleeps or ends.
    for hook in (agent.on_deactivating, agent.on_disposing):
        agent.notify(UserInfoRequest(source_agent_id="a"))
        hook(PersistencyEvent("id", "alpha", "http://alpha"))
        hook(PersistencyEvent("id", "alpha", "http://alpha"))
        assert capsys.readouterr().err.partition("] ")[2] == held_back.format(1) + "\n"


def test_paglets_find_it(host: Host, tmp_path: Path) -> None:
    log = tmp_path / "notices.jsonl"
    service = serve(host, log_file=str(log))
    assert PagletContext(host).lookup_contract(USER_INFO) is not None
    crier = host.create(Crier)
    assert crier.call(Crier.cry, NotificationSeverity.ERROR.value, "title", "text", "job-1") is True
    (line,) = log.read_text().splitlines()
    found = json.loads(line)
    assert found.pop("timestamp") > 0
    assert found == {
        "severity": "ERROR",
        "title": "title",
        "message": "text",
        "source_agent_id": crier.agent_id,
        "job_id": "job-1",
        "metadata": {"k": "v"},
    }
    service.dispose()
    crier.dispose()


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"webhooks": ["nonsense"]}, "must be a URL"),
        ({"log_file": "x"}, "absolute path"),
        ({"webhook_timeout": 0.0}, "webhook_timeout"),
        ({"rate_per_minute": 0.0}, "rate_per_minute"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(host: Host, state: dict[str, Any], text: str) -> None:
    with pytest.raises(HostError, match=text):
        serve(host, **state)


def test_other_messages_are_declined(host: Host) -> None:
    service = serve(host)
    with pytest.raises(PagletError, match="does not handle"):
        service.send(Message("hello"))
    service.dispose()


# --- web hooks --------------------------------------------------------------------------------------------------------


def test_a_web_hook_gets_it(host: Host, chat: Chat) -> None:
    service = serve(host, webhooks=[f"{chat.url}/hook"])
    assert tell(service, severity="error", title="t", message="m", metadata={"k": "v"})
    path, headers, body = chat.requests.get(timeout=PATIENCE)
    assert (path, headers["Authorization"], headers["Content-Type"]) == ("/hook", "Bearer x", "application/json")
    assert headers["Idempotency-Key"] == body["id"]
    assert (body["severity"], body["title"], body["message"], body["metadata"]) == ("ERROR", "t", "m", {"k": "v"})
    assert (body["host_name"], body["host_url"]) == ("alpha", host.address)
    assert body["text"].endswith("ERROR: t: m")
    eventually(lambda: pending(host, service) == [], "nothing to be pending")
    service.dispose()


def test_a_web_hook_that_fails_gets_it_later_and_in_order(host: Host, chat: Chat) -> None:
    chat.answers = [503, 429]
    service = serve(host, webhooks=[chat.url])
    assert tell(service, message="first")
    assert tell(service, message="second")
    got = [chat.next() for _ in range(4)]
    assert [body["message"] for body in got] == ["first", "first", "first", "second"]
    assert len({body["id"] for body in got}) == 2
    eventually(lambda: pending(host, service) == [], "nothing to be pending")
    service.dispose()


@pytest.mark.parametrize("answer", [400, 302])
def test_what_a_web_hook_refuses_is_given_up(host: Host, chat: Chat, answer: int) -> None:
    chat.answers = [answer]
    service = serve(host, webhooks=[chat.url])
    assert tell(service, message="bad")
    assert tell(service, message="good")
    assert [chat.next()["message"] for _ in range(2)] == ["bad", "good"]
    eventually(lambda: pending(host, service) == [], "nothing to be pending")
    assert chat.requests.empty()
    service.dispose()


def test_a_web_hook_that_is_down_holds_up_no_other(host: Host, chat: Chat) -> None:
    service = serve(host, webhooks=["http://127.0.0.1:9/", chat.url])
    assert tell(service, message="one")
    assert tell(service, message="two")
    assert [chat.next()["message"] for _ in range(2)] == ["one", "two"]
    eventually(
        lambda: [each["target"] for each in pending(host, service)] == ["http://127.0.0.1:9/"] * 2, "two to wait"
    )
    service.dispose()


def test_what_is_pending_outlives_sleep(host: Host, chat: Chat) -> None:
    chat.answers = [503]
    service = serve(host, webhooks=[chat.url])
    assert tell(service, message="patience")
    assert chat.next()["message"] == "patience"
    service.deactivate()
    # What wakes it by itself when nobody calls.
    service.activate()
    assert chat.next()["message"] == "patience"
    eventually(lambda: pending(host, service) == [], "nothing to be pending")
    service.dispose()


def test_what_was_taken_outlives_a_host_that_is_killed(chat: Chat, tmp_path: Path) -> None:
    chat.answers = [503] * 1000
    options = ["--name", "alpha", "--port", "0", "--persistence-dir", str(tmp_path / "alpha"), "--json", "--no-mesh"]
    options += ["--launch-config", str(tmp_path / "launch.toml"), "--no-sync-launch-config", "--log-level", "error"]
    secret = {"PAGLETS_NOTIFY_WEBHOOKS": f"{chat.url}/secret"}
    agent = "paglets.system.user_info.agent:UserInfoAgent"
    with HostClient() as client:
        program = Program("host", *options, **secret)
        try:
            address = program.json_line()["address"]
            body = {"agent_class_name": agent, "agent_id": "service.user-info", "state": {"desktop": False}}
            client.post_json(f"{address}/agents", body)
            assert tell(PagletProxy(address, "service.user-info", client), message="remember")
            state = client.get_json(f"{address}/agents/service.user-info/state")["state"]
            # A URL that is a secret is in no state.
            assert "/secret" not in json.dumps(state)
            os.kill(program.process.pid, signal.SIGKILL)
            program.process.wait()
        finally:
            program.close()
        chat.answers.clear()
        while not chat.requests.empty():
            chat.requests.get()
        again = Program("host", *options, **secret)
        try:
            again.json_line()
            path, _, got = chat.requests.get(timeout=PATIENCE)
            assert (path, got["message"]) == ("/secret", "remember")
        finally:
            again.close()
