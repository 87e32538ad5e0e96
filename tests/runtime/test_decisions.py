"""Waiting until it is decided whether a paglet is here."""

from __future__ import annotations

import asyncio

import pytest

from paglets.core.errors import HostUnreachableError, OverloadedError
from paglets.runtime import decisions
from paglets.runtime.decisions import Decisions


def test_nobody_waits_for_a_paglet_that_is_not_on_its_way() -> None:
    asyncio.run(asyncio.wait_for(Decisions("alpha", lambda _: None).made("a"), 5.0))


def test_everybody_waits_for_the_decision() -> None:
    async def scenario() -> None:
        decided = asyncio.Event()
        waiting = Decisions("alpha", {"a": decided}.get)
        assert waiting.pending("a") and not waiting.pending("b")
        tasks = [asyncio.ensure_future(waiting.made("a")) for _ in range(3)]
        await waiting.made("b")
        await asyncio.wait(tasks, timeout=0.01)
        assert len(waiting) == 3
        decided.set()
        await asyncio.gather(*tasks)
        assert len(waiting) == 0

    asyncio.run(scenario())


def test_who_has_waited_long_enough_is_told_why() -> None:
    async def scenario() -> None:
        waiting = Decisions("alpha", {"a": asyncio.Event()}.get)
        with pytest.raises(HostUnreachableError, match="paglet a is on alpha depends on a host that does not answer"):
            await waiting.made("a", 0.0)
        assert len(waiting) == 0

    asyncio.run(scenario())


def test_no_more_wait_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MOST_WAITING", 1)

    async def scenario() -> None:
        waiting = Decisions("alpha", {"a": asyncio.Event()}.get)
        first = asyncio.ensure_future(waiting.made("a"))
        await asyncio.wait((first,), timeout=0.01)
        with pytest.raises(OverloadedError, match="too many wait"):
            await waiting.made("a")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert len(waiting) == 0

    asyncio.run(scenario())
