"""What a client says to a relay, and makes of what the relay says."""

from __future__ import annotations

import json

import pytest

from paglets.core.errors import ConnectionLostError, HostUnreachableError, RemoteTimeoutError
from paglets.remote.pursuit import NotConnectedError
from paglets.remote.requests import RELAY_TIMEOUT_HEADER, decode_reply, relay_terms

RELAYED = "https://hub.example/paglets/relay/hosts/B/agents"


def test_a_relay_is_told_how_long_an_answer_is_waited_for_and_gets_a_moment_more() -> None:
    fields, seconds = relay_terms(RELAYED, 2.0)
    assert fields == {RELAY_TIMEOUT_HEADER: "2.000"}
    assert 2.0 < seconds < 3.0


def test_a_host_is_not() -> None:
    assert relay_terms("https://host.example/agents", 2.0) == ({}, 2.0)


def _answer(status: int, error_type: str, **fields: object) -> None:
    body = json.dumps({"error_type": error_type, "error": "because", **fields}).encode()
    decode_reply(status, body, RELAYED, has_key=True)


def test_an_absent_host_counts_as_one_that_could_not_be_connected_to() -> None:
    with pytest.raises(NotConnectedError, match="because"):
        _answer(503, "HostUnreachableError", relay=True)


def test_a_host_that_cannot_reach_a_third_one_does_not() -> None:
    with pytest.raises(HostUnreachableError) as failure:
        _answer(400, "HostUnreachableError")
    assert not isinstance(failure.value, NotConnectedError)


@pytest.mark.parametrize("error", [ConnectionLostError, RemoteTimeoutError])
def test_what_may_have_arrived_stays_what_it_is(error: type[Exception]) -> None:
    with pytest.raises(error):
        _answer(502, error.__name__, relay=True)


def test_what_a_proxy_says_of_a_dead_hub_may_have_arrived() -> None:
    with pytest.raises(ConnectionLostError):
        decode_reply(502, b"<html>Bad Gateway</html>", RELAYED, has_key=True)
