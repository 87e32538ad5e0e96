from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import (
    HostUnreachableError,
    InvalidAgentError,
    OverloadedError,
    PagletCrashedError,
    PagletError,
    RemoteHostError,
    RemoteTimeoutError,
    ServiceContractError,
    StreamInterruptedError,
)
from paglets.core.messages import ONEWAY
from paglets.services.streams.reading import SLACK_SECONDS, Reading
from paglets.services.streams.turns import TurnStream
from paglets.services.streams.wire import CLOSE, MOST_WAIT_SECONDS, NEXT, OPEN, PULL, Batch, Step
from tests.services.streams.test_turns import NUMBERS, Item, Source
from tests.services.test_providers import Clock


def reading(**options: Any) -> Reading[Item]:
    return Reading(NUMBERS, {}, window=8, **options)


def items(*wanted: int) -> list[dict[str, Any]]:
    return [{"number": number, "content": b""} for number in wanted]


def test_a_stream_is_opened_pulled_and_ended() -> None:
    stream = reading()
    assert stream.closing() is None
    opening = stream.opening()
    step = Step.from_wire(opening.arg, "numbers", window=100)
    assert (opening.kind, step.do, step.credit) == ("numbers", OPEN, 8)
    assert stream.take(Batch(tuple(items(0, 1)), turns=True).to_wire()) == [Item(0), Item(1)]
    message, seconds = stream.pull()
    assert (message.kind, message.arg["do"], message.arg["first"], seconds) == ("numbers", NEXT, 2, None)
    closing = stream.closing()
    assert closing is not None
    assert (closing.kind, closing.arg["do"], closing.message_type) == ("numbers", CLOSE, ONEWAY)
    assert stream.take(Batch(tuple(items(2)), 2, ended=True).to_wire()) == [Item(2)]
    assert stream.ended
    assert stream.closing() is None
    stream.finish()


def test_one_beside_the_mailbox_is_pulled_there() -> None:
    stream = reading()
    stream.take(Batch().to_wire())
    message, seconds = stream.pull()
    assert (message.kind, message.arg["wait"], seconds) == (PULL, MOST_WAIT_SECONDS, MOST_WAIT_SECONDS + SLACK_SECONDS)


def test_an_item_has_its_time_and_that_of_the_caller_does_not_count() -> None:
    clock = Clock()
    stream = reading(timeout=3.0, clock=clock)
    stream.take(Batch().to_wire())
    clock.now += 2.0
    assert stream.pull()[0].arg["wait"] == pytest.approx(1.0)
    clock.now += 1.0
    with pytest.raises(RemoteTimeoutError, match="no item of stream 'numbers' within 3 s, after 0"):
        stream.pull()
    stream.resume()
    assert stream.pull()[0].arg["wait"] == pytest.approx(3.0)


def test_an_error_is_raised_after_the_items() -> None:
    stream = reading()
    error = {"error_type": "OverloadedError", "error": "too much"}
    assert stream.take(Batch(tuple(items(0)), 0, ended=True, error=error).to_wire()) == [Item(0)]
    with pytest.raises(OverloadedError, match="too much"):
        stream.finish()


def test_an_unknown_error_is_that_of_a_far_host() -> None:
    stream = reading()
    stream.take(Batch((), 0, ended=True, error={"error_type": "Nonsense", "error": "x"}).to_wire())
    with pytest.raises(RemoteHostError):
        stream.finish()


@pytest.mark.parametrize(
    "reply",
    [
        None,
        "text",
        [],
        {},
        {"items": [], "first": 0},
        {"items": [], "first": 1, "ended": False},
        {"items": 3},
        {"items": [{"number": "many"}], "first": 0, "ended": False},
        {"items": [7], "first": 0, "ended": False},
    ],
)
def test_nonsense_is_a_contract_error(reply: Any) -> None:
    with pytest.raises(ServiceContractError):
        reading().take(reply)


@pytest.mark.parametrize("failure", [HostUnreachableError, InvalidAgentError, PagletCrashedError])
def test_a_lost_provider_is_an_interruption(failure: type[PagletError]) -> None:
    stream = reading()
    stream.take(Batch(tuple(items(0, 1))).to_wire())
    error = stream.failed(failure("gone"))
    assert isinstance(error, StreamInterruptedError)
    assert "after 2 items: gone" in str(error)
    assert stream.closing() is None


def test_other_failures_are_told_as_they_are() -> None:
    stream = reading()
    stream.take(Batch().to_wire())
    failure = OverloadedError("full")
    assert stream.failed(failure) is failure
    assert stream.closing() is not None
    interrupted = StreamInterruptedError("idle")
    assert stream.failed(interrupted) is interrupted
    assert stream.closing() is None


@pytest.mark.parametrize(
    "arg",
    [
        None,
        {},
        "x",
        {"do": "open"},
        {"do": "jump", "stream": "s", "credit": 1, "first": 0, "wait": 0},
        {"do": "next", "stream": "", "credit": 1, "first": 0, "wait": 0},
        {"do": "next", "stream": "s" * 65, "credit": 1, "first": 0, "wait": 0},
        {"do": "next", "stream": "s", "credit": True, "first": 0, "wait": 0},
    ],
)
def test_a_step_that_is_none(arg: Any) -> None:
    with pytest.raises(ServiceContractError, match=r"use the stream\(\) of a handle"):
        Step.from_wire(arg, "numbers", window=8)


def test_a_step_is_bounded_by_the_provider() -> None:
    step = Step.from_wire(Step(NEXT, "s", 10**9, 0, 10**9).to_wire(), "numbers", window=8)
    assert (step.credit, step.wait) == (8, MOST_WAIT_SECONDS)
    assert Step.from_wire(Step(NEXT, "s", -5, 0, -1.0).to_wire(), "numbers", window=8).credit == 1


@given(st.integers(0, 50), st.integers(1, 9), st.lists(st.booleans(), max_size=60))
def test_both_ends_together_lose_and_double_nothing(count: int, window: int, lost: list[bool]) -> None:
    """Answers are lost on the way, and the same pull is made again."""
    stream = TurnStream(NUMBERS, Source(count).items(), clock=Clock())
    reader: Reading[Item] = Reading(NUMBERS, {}, window=window)
    got: list[int] = []
    message = reader.opening()
    drops = iter(lost)
    while not reader.ended:
        step = Step.from_wire(message.arg, "numbers", window=window)
        reply = stream.advance(step).to_wire()
        if next(drops, False):
            reply = stream.advance(step).to_wire()
        got += [item.number for item in reader.take(reply)]
        if not reader.ended:
            message, _ = reader.pull()
    assert got == list(range(count))
