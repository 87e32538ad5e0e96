"""A paglet whose hooks raise what they are told to."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler


@dataclass
class RaisesState(PagletState):
    """Which hook raises what."""

    hook: str = ""
    error: str = ""


class Raises(Paglet[RaisesState]):
    """Raise in one hook."""

    State = RaisesState

    def _maybe(self, hook: str) -> None:
        if self.state.hook == hook:
            raise getattr(builtins, self.state.error)(f"{hook} says no")

    def on_dispatching(self, event: Any) -> None:
        """Maybe raise."""
        self._maybe("on_dispatching")

    def on_arrival(self, event: Any) -> None:
        """Maybe raise."""
        self._maybe("on_arrival")

    def on_reverting(self, event: Any) -> None:
        """Maybe raise."""
        self._maybe("on_reverting")

    def on_cloning(self, event: Any) -> None:
        """Maybe raise."""
        self._maybe("on_cloning")

    def on_clone(self, event: Any) -> None:
        """Maybe raise."""
        self._maybe("on_clone")

    @handler
    def arm(self, hook: str, error: str) -> None:
        """Say which hook raises what from now on."""
        self.state.hook, self.state.error = hook, error
