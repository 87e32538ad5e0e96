"""Which key brought how many paglets to a host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from paglets.core.errors import OverloadedError
from paglets.security.caller import Caller
from paglets.security.policy import Policy

_CROWDED: Final = 1000


class Holdings:
    """Count the paglets that callers with a bound have here.

    Whose a paglet is stands in its row, so that a host that starts again goes on counting. One that keeps no row ends
    with its host.

    :param is_here: tells whether a paglet is on this host, active or not.
    """

    def __init__(self, policy: Policy, is_here: Callable[[str], bool]) -> None:
        self._policy = policy
        self._is_here = is_here
        self._paglets: dict[str, set[str]] = {}
        self._crowded: dict[str, int] = {}
        """How many a caller without a bound may have counted before those that have left are looked for."""

    def add(self, caller: Caller, agent_id: str) -> None:
        """Count a paglet that is about to be here.

        :raises OverloadedError: the caller has as many as it may.
        """
        most = self._policy.most_paglets_of(caller)
        if most is None:
            return
        held = self._paglets.setdefault(caller.name, set())
        if len(held) >= most and agent_id not in held:
            # Only now: nobody has to be told of every paglet that leaves.
            self._keep_those_here(held)
        if len(held) >= most and agent_id not in held:
            raise OverloadedError(f"{caller.name!r} has {len(held)} paglets here, as many as it may")
        held.add(agent_id)

    def count(self, name: str, agent_id: str) -> None:
        """Count a paglet that is here whatever its holder may have: it was here before, or is a copy of one."""
        held = self._paglets.setdefault(name, set())
        held.add(agent_id)
        if len(held) > self._crowded.get(name, _CROWDED):
            # Nobody tells of one that leaves, so that what is kept of them must not grow with all that ever came.
            self._keep_those_here(held)
            self._crowded[name] = max(_CROWDED, 2 * len(held))

    def _keep_those_here(self, held: set[str]) -> None:
        held.intersection_update([each for each in held if self._is_here(each)])

    def discard(self, caller: Caller, agent_id: str) -> None:
        """Forget a paglet that did not come to live here."""
        self._paglets.get(caller.name, set()).discard(agent_id)
