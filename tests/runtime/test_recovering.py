"""A target that loses what it voted for gets it again: the commit stands, and the source still has the snapshot."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.agents.unruly import Unruly, UnrulyState
from tests.support import HostFactory, eventually, processes_of


@pytest.mark.parametrize("times", [1, 2])
def test_a_target_that_loses_its_vote_gets_the_paglet_again(
    hosts: HostFactory, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    source, target = hosts("source"), hosts("target")
    content = os.urandom(5_000_000)  # large enough to be a memory file
    proxy = source.create(Unruly, UnrulyState(content=content))
    arrivals: Any = target._node.arrivals
    commit, lost = arrivals.commit, []

    async def forgetful(transfer_id: str, vote: str) -> Any:
        if len(lost) < times:
            lost.append(vote)
            await arrivals._settlement.discard(arrivals._arrivals.pop(transfer_id), True)
        return await commit(transfer_id, vote)

    monkeypatch.setattr(arrivals, "commit", forgetful)
    proxy.dispatch(target.address)

    eventually(lambda: target.get_proxy(proxy.agent_id), "the paglet at its target")
    assert len(set(lost)) == times
    assert target.get_state(proxy.agent_id, UnrulyState).content == content
    assert source.get_proxy(proxy.agent_id, include_inactive=True) is None
    assert "transfer-fault" in [event.kind for event in source.list_events()]
    eventually(lambda: not processes_of("source"), "the process at the source to end")
