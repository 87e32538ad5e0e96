"""What every kind of mistake is answered with; bad input never makes the host fail."""

from __future__ import annotations

import math
from typing import Any

import pytest

from paglets.core.messages import Message
from paglets.remote.proxy import PagletProxy
from paglets.runtime import agents, post
from paglets.runtime.host import Host
from paglets.runtime.http.intake import DECODE_ON_LOOP_BYTES, decode_body
from tests.agents.http_agents import Talker
from tests.runtime.http.wire import Reply, ask
from tests.support import Gate

TALKER = "tests.agents.http_agents:Talker"


def refused(reply: Reply, status: int, error: str, text: str = "", *more: str) -> None:
    assert (reply.status, reply.error) == (status, error), reply.body
    assert set(reply.json()) == {"error_type", "error", *more}
    assert reply.headers["content-type"] == "application/json"
    assert text in reply.text


def test_unknown_routes(host: Host) -> None:
    for method, path in (("GET", "/nowhere"), ("POST", "/nowhere"), ("GET", "/"), ("GET", "/agents/x/y/z")):
        refused(ask(host.address, method, path), 404, "NotFoundError", f"No route for {method} {path}")


def test_unknown_methods_are_told_which_there_are(host: Host) -> None:
    for method in ("PUT", "DELETE", "PATCH", "POST"):
        reply = ask(host.address, method, "/health")
        refused(reply, 405, "HostError", f"{method} is not a method of /health")
        assert "GET" in reply.headers["allow"]
    refused(ask(host.address, "GET", "/agents/x/messages"), 405, "HostError")


def test_unknown_paglets(host: Host) -> None:
    routes: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("GET", "/state", None),
        ("POST", "/messages", {"message": {"kind": "x"}}),
        ("POST", "/messages", {"message": {"kind": "_deactivate"}}),
        ("POST", "/dispatch", {"target": "http://127.0.0.1:9"}),
        ("POST", "/clone", {}),
        ("POST", "/retract", {"target": "http://127.0.0.1:9"}),
        ("POST", "/deactivate", {}),
        ("POST", "/activate", None),
        ("POST", "/dispose", None),
        ("POST", "/services", {"name": "x"}),
    ]
    for method, tail, body in routes:
        refused(ask(host.address, method, f"/agents/nobody{tail}", body), 404, "InvalidAgentError")
    assert ask(host.address, "POST", "/agents/nobody/unadvertise-service", {"name": "x"}).json() == {"services": []}


def test_an_id_that_is_taken(host: Host, talker: PagletProxy) -> None:
    body = {"agent_class_name": TALKER, "agent_id": talker.agent_id}
    refused(ask(host.address, "POST", "/agents", body), 409, "ConflictError")
    talker.deactivate()
    refused(ask(host.address, "POST", "/agents", body), 409, "ConflictError")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-paglets-pickle",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/xml",
        "application/json-patch+json",
        "application/x-msgpack",
        "nonsense",
        "\xff",
    ],
)
def test_other_kinds_of_body(host: Host, talker: PagletProxy, content_type: str) -> None:
    for path in ("/agents", f"/agents/{talker.agent_id}/messages"):
        reply = ask(host.address, "POST", path, b"{}", {"Content-Type": content_type})
        refused(reply, 415, "UnsupportedMediaError", "", "refused")
    assert ask(host.address, "GET", "/health", headers={"Content-Type": content_type}).status == 415


def test_compressed_bodies_and_misplaced_movements(host: Host, talker: PagletProxy) -> None:
    messages = f"/agents/{talker.agent_id}/messages"
    squeezed = ask(host.address, "POST", messages, b"{}", {"Content-Encoding": "gzip"})
    refused(squeezed, 415, "UnsupportedMediaError", "", "refused")
    movement = ask(host.address, "POST", messages, b"PGLF", {"Content-Type": "application/x-paglets-movement"})
    refused(movement, 415, "UnsupportedMediaError", "", "refused")


@pytest.mark.parametrize("spelling", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
def test_spellings_of_the_type(host: Host, talker: PagletProxy, spelling: str) -> None:
    body = b'{"message": {"kind": "count"}}'
    reply = ask(host.address, "POST", f"/agents/{talker.agent_id}/messages", body, {"Content-Type": spelling})
    assert reply.status == 200


def test_a_message_that_nobody_handles(host: Host, talker: PagletProxy) -> None:
    reply = ask(host.address, "POST", f"/agents/{talker.agent_id}/messages", {"message": {"kind": "sing"}})
    refused(reply, 422, "NotHandledError")


@pytest.mark.parametrize("limit", [1, 3])
def test_a_full_mailbox(host: Host, gate: Gate, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(agents, "MAILBOX_MESSAGES", limit)
    talker = host.create(Talker)
    path = f"/agents/{talker.agent_id}/messages"
    talker.send_oneway(Message("wait", {"gate": str(gate)}))
    gate.await_entered()
    oneway = {"message": {"kind": "count"}, "oneway": True}

    answers = [ask(host.address, "POST", path, oneway) for _ in range(limit + 1)]

    assert [answer.status for answer in answers] == [200] * limit + [429]
    refused(answers[-1], 429, "OverloadedError", "mailbox", "refused")
    gate.open()
    host.dispose(talker.agent_id)


# --- bodies ----------------------------------------------------------------------------------------------------------

DEEP = 5000
MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "blank": b"  ",
    "no JSON": b"message",
    "cut off": b'{"message": {"kind": "count"',
    "two": b'{"message": {"kind": "count"}} {}',
    "single quotes": b"{'message': {'kind': 'count'}}",
    "a comma too many": b'{"message": {"kind": "count"},}',
    "comment": b'{"message": {"kind": "count"}} // yes',
    "NaN in other words": b'{"message": {"kind": "count", "arg": nan}}',
    "more than infinity": b'{"message": {"kind": "count", "arg": +Infinity}}',
    "NaN and a huge float": b'{"message": {"kind": "count", "arg": [NaN, 1e999]}}',
    "NaN and a huge integer": b'{"message": {"kind": "count", "arg": [NaN, ' + b"9" * 5000 + b"]}}",
    "NaN and a key twice": b'{"message": {"kind": "count", "args": {"x": [{"a": NaN, "a": NaN}]}}}',
    "NaN and cut off": b'{"message": {"kind": "count", "arg": NaN}',
    "NaN deep": b'{"message": {"kind": "count", "arg": [NaN, ' + b"[" * DEEP + b"]" * DEEP + b"]}}",
    "huge float": b'{"message": {"kind": "count", "arg": 1e999}}',
    "huge integer": b'{"message": {"kind": "count", "arg": ' + b"9" * 5000 + b"}}",
    "leading zero": b'{"message": {"kind": "count", "arg": 007}}',
    "deep lists": b'{"message": {"kind": "count", "arg": ' + b"[" * DEEP + b"]" * DEEP + b"}}",
    "deep objects": b'{"message": {"kind": "count", "arg": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}}",
    "only opened": b"[" * 100_000,
    "invalid UTF-8": b'{"message": {"kind": "\xff\xfe"}}',
    "overlong UTF-8": b'{"message": {"kind": "\xc0\xaf"}}',
    "surrogate in UTF-8": b'{"message": {"kind": "\xed\xa0\x80"}}',
    "BOM": b'\xef\xbb\xbf{"message": {"kind": "count"}}',
    "UTF-16": '{"message": {"kind": "count"}}'.encode("utf-16"),
    "lone surrogate as field": b'{"message": {"kind": "count"}, "\\udfff": 1}',
    "lone surrogate and invalid UTF-8": b'{"message": {"kind": "count", "args": {"\\udfff": "\xff"}}}',
    "lone surrogate, cut off": b'{"message": {"kind": "count", "arg": "\\ud8"}}',
    "lone surrogate as base64": b'{"message": {"kind": "k", "arg": '
    b'{"__paglets_binary__": "bytes", "base64": "\\ud800"}}}',
    "control character": b'{"message": {"kind": "a\x01b"}}',
    "key twice": b'{"message": {"kind": "count", "kind": "leave"}}',
    "key twice, compact": b'{"message":{"kind":"count","kind":"leave"}}',
    "key twice, deep": b'{"message": {"kind": "count", "args": {"x": [{"a": 1, "b": 2, "a": 3}]}}}',
    "key twice, escaped": b'{"message": {"kind": "count"}, "oneway": true, "one\\u0077ay": false}',
    "bad base64": b'{"message": {"kind": "count", "arg": {"__paglets_binary__": "bytes", "base64": "!"}}}',
    "base64 of a number": b'{"message": {"kind": "count", "arg": {"__paglets_binary__": "bytes", "base64": 4}}}',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_json(host: Host, talker: PagletProxy, name: str) -> None:
    # With a slash at the end it takes the way through the framework; both must say the same.
    answers = [
        ask(host.address, "POST", f"/agents/{talker.agent_id}/messages{end}", MALFORMED[name], {"Content-Type": ""})
        for end in ("", "/")
    ]
    for answer in answers:
        refused(answer, 400, "SerializationError")
    assert answers[0].body == answers[1].body
    creation = ask(host.address, "POST", "/agents", MALFORMED[name])
    # How deep is too deep depends on the interpreter; what it takes here is a creation without a class.
    refused(creation, 400, "HostError" if creation.error == "HostError" and "deep" in name else "SerializationError")
    assert host.mailbox_status(talker.agent_id)["delivered_count"] == 0


WRONG: dict[str, tuple[Any, str]] = {
    "no object": ([], "object"),
    "no message": ({}, "message"),
    "message is text": ({"message": "count"}, "$.message"),
    "no kind": ({"message": {}}, "kind"),
    "kind is a number": ({"message": {"kind": 1}}, "$.message.kind"),
    "kind is empty": ({"message": {"kind": ""}}, "$.message.kind"),
    "kind is long": ({"message": {"kind": "x" * 2000}}, "$.message.kind"),
    "kind is bytes": ({"message": {"kind": {"__paglets_binary__": "bytes", "base64": ""}}}, "$.message.kind"),
    "args is a list": ({"message": {"kind": "count", "args": []}}, "$.message.args"),
    "priority is text": ({"message": {"kind": "count", "priority": "5"}}, "$.message.priority"),
    "priority is negative": ({"message": {"kind": "count", "priority": -1}}, "$.message.priority"),
    "priority is huge": ({"message": {"kind": "count", "priority": 2**32}}, "$.message.priority"),
    "priority is a fraction": ({"message": {"kind": "count", "priority": 1.5}}, "$.message.priority"),
    "type is unknown": ({"message": {"kind": "count", "message_type": 3}}, "$.message.message_type"),
    "time is text": ({"message": {"kind": "count", "timestamp": "now"}}, "$.message.timestamp"),
    "id is a number": ({"message": {"kind": "count", "message_id": 5}}, "$.message.message_id"),
    "oneway is text": ({"message": {"kind": "count"}, "oneway": "yes"}, "$.oneway"),
    "oneway is a number": ({"message": {"kind": "count"}, "oneway": 1}, "$.oneway"),
    "no_delay is null": ({"message": {"kind": "count"}, "no_delay": None}, "$.no_delay"),
    "kind is NaN": ({"message": {"kind": math.nan}}, "$.message.kind"),
    "kind is half a character": ({"message": {"kind": "\ud800"}}, "$.message.kind"),
    "id is half a character": ({"message": {"kind": "count", "message_id": "a\udce9"}}, "$.message.message_id"),
    "time is NaN": ({"message": {"kind": "count", "timestamp": math.nan}}, "$.message.timestamp"),
    "time limit is infinite": ({"message": {"kind": "count"}, "timeout": math.inf}, "$.timeout"),
    "half a character in the chain": ({"message": {"kind": "count"}, "chain": ["x", "\udce9"]}, "$.chain[1]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_types_are_answered_with_the_name_of_the_field(host: Host, talker: PagletProxy, name: str) -> None:
    body, field = WRONG[name]
    answers = [ask(host.address, "POST", f"/agents/{talker.agent_id}/messages{end}", body) for end in ("", "/")]
    for answer in answers:
        refused(answer, 400, "SerializationError", field)
    assert answers[0].body == answers[1].body
    assert host.mailbox_status(talker.agent_id)["delivered_count"] == 0


def test_wrong_types_elsewhere(host: Host, talker: PagletProxy) -> None:
    own = f"/agents/{talker.agent_id}"
    cases: list[tuple[str, Any, str]] = [
        ("/agents", {"agent_class_name": 5}, "$.agent_class_name"),
        ("/agents", {"agent_class_name": TALKER, "state": []}, "$.state"),
        ("/agents", {"agent_class_name": TALKER, "agent_id": ["x"]}, "$.agent_id"),
        ("/agents", {"envelope": "x"}, "$.envelope"),
        (f"{own}/dispatch", {"ticket": {"destination": 5}}, "$.ticket.destination"),
        (f"{own}/dispatch", {"ticket": {"destination": "x", "retries": -1}}, "$.ticket.retries"),
        (f"{own}/dispatch", {"ticket": {"destination": "x", "timeout": 1e9}}, "$.ticket.timeout"),
        (f"{own}/dispatch", {"target": 5}, "$.target"),
        (f"{own}/clone", [], "object"),
        (f"{own}/retract", {}, "target"),
        (f"{own}/deactivate", {"request": "now"}, "$.request"),
        (f"{own}/services", {"name": "x", "ttl": "long"}, "$.ttl"),
        (f"{own}/services", {"name": "x", "capabilities": [5]}, "$.capabilities[0]"),
        ("/admin/git-update", {"target_hash": 5}, "$.target_hash"),
    ]
    for path, body, field in cases:
        refused(ask(host.address, "POST", path, body), 400, "SerializationError", field)
    for path in ("/agents", f"{own}/retract", "/hosts/join"):
        refused(ask(host.address, "POST", path), 400, "SerializationError", "a JSON body is missing")
    envelope = ask(host.address, "POST", "/agents", {"envelope": {"kind": "dispatch"}})
    assert (envelope.status, envelope.error) == (400, "SerializationError")
    refused(ask(host.address, "POST", "/agents", {}), 400, "HostError", "agent_class_name")
    refused(ask(host.address, "POST", f"{own}/deactivate", {"request": {"reason": 5}}), 400, "SerializationError")


def test_a_choice_that_is_none_is_named_as_it_was_written(host: Host) -> None:
    for path, said in (
        ("/agents?state=bogus", "state: 'bogus' is none of active, inactive, all"),
        ("/services?scope=bogus", "scope: 'bogus' is none of local, mesh"),
    ):
        refused(ask(host.address, "GET", path), 400, "SerializationError", said)


def test_a_blank_choice_is_the_usual_one(host: Host, talker: PagletProxy) -> None:
    sleeper = host.create(Talker)
    sleeper.deactivate()
    usual, every = (ask(host.address, "GET", f"/agents?state={state}").json() for state in ("active", "all"))
    assert [each["agent_id"] for each in usual["agents"]] == [talker.agent_id]
    assert {each["agent_id"] for each in every["agents"]} == {talker.agent_id, sleeper.agent_id}
    for path in ("/agents", "/agents?state="):
        assert [each["agent_id"] for each in ask(host.address, "GET", path).json()["agents"]] == [talker.agent_id]
    assert ask(host.address, "GET", "/services?scope=").json() == ask(host.address, "GET", "/services").json()
    sleeper.dispose()


def test_unknown_fields_are_ignored(host: Host, talker: PagletProxy) -> None:
    body = {"message": {"kind": "count", "colour": "red"}, "later": [{}]}
    assert ask(host.address, "POST", f"/agents/{talker.agent_id}/messages", body).json() == {"result": 1}


def test_a_large_body_is_checked_as_strictly() -> None:
    filler = b"[" + b",".join([b'{"a":1}'] * (DECODE_ON_LOOP_BYTES // 8)) + b"]"
    assert len(decode_body(filler, list)) == DECODE_ON_LOOP_BYTES // 8
    with pytest.raises(Exception, match="'a' is there more than once"):
        decode_body(filler[:-1] + b',{"a":1,"a":2}]', list)


def test_large_malformed_bodies_are_refused_too(host: Host, talker: PagletProxy) -> None:
    padding = b'"' + b"x" * DECODE_ON_LOOP_BYTES + b'"'
    for body in (
        b'{"message": {"kind": "count", "arg": ' + padding + b'}, "oneway": 5}',
        b'{"message": {"kind": "count", "kind": "leave", "arg": ' + padding + b"}}",
        b'{"message": {"kind": "count", "arg": ' + padding,
    ):
        refused(ask(host.address, "POST", f"/agents/{talker.agent_id}/messages", body), 400, "SerializationError")


# --- handlers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "wire"),
    [
        ("HostError", 400, "HostError"),
        ("TransferError", 400, "TransferError"),
        ("ConflictError", 409, "ConflictError"),
        ("ValueError", 400, "RemoteHostError"),
        ("KeyError", 400, "HostError"),
        ("RuntimeError", 400, "HostError"),
        ("ZeroDivisionError", 400, "HostError"),
    ],
)
def test_what_a_handler_raises(host: Host, talker: PagletProxy, error: str, status: int, wire: str) -> None:
    body = {"message": {"kind": "raise", "args": {"error": error}}}
    for end in ("", "/"):
        reply = ask(host.address, "POST", f"/agents/{talker.agent_id}/messages{end}", body)
        refused(reply, status, wire, "said so")


def test_a_reply_that_nothing_can_carry(host: Host, talker: PagletProxy) -> None:
    body = {"message": {"kind": "give", "args": {"what": "object"}}}
    for end in ("", "/"):
        reply = ask(host.address, "POST", f"/agents/{talker.agent_id}/messages{end}", body)
        refused(reply, 400, "SerializationError")


@pytest.mark.parametrize(
    ("what", "text"), [("nan", b"NaN"), ("infinity", b'{"deep":[Infinity]}'), ("surrogate", b'"half \\ud800"')]
)
def test_a_reply_that_only_python_writes_so(host: Host, talker: PagletProxy, what: str, text: bytes) -> None:
    body = {"message": {"kind": "give", "args": {"what": what}}}
    for end in ("", "/"):
        reply = ask(host.address, "POST", f"/agents/{talker.agent_id}/messages{end}", body)
        assert (reply.status, reply.body) == (200, b'{"result":' + text + b"}")


def test_wrong_arguments_for_a_handler(host: Host, talker: PagletProxy) -> None:
    for args in ({"by": "x"}, {"by": 1, "more": 2}):
        body = {"message": {"kind": "count", "args": args}}
        reply = ask(host.address, "POST", f"/agents/{talker.agent_id}/messages", body)
        assert reply.status == 400, reply.body


def test_a_failure_of_the_host_is_said_and_logged(
    host: Host, talker: PagletProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(post.Posting, "of", broken)
    for end in ("", "/"):
        caplog.clear()
        body = {"message": {"kind": "count"}}
        reply = ask(host.address, "POST", f"/agents/{talker.agent_id}/messages{end}", body)
        refused(reply, 500, "RemoteHostError", "a bug")
        assert [record.name for record in caplog.records] == ["paglets.http"]
    caplog.clear()
