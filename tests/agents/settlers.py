"""Paglets that are there when their host gets another address."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.runtime_values import Durability


@dataclass
class SettlerState(PagletState):
    gate: str = ""
    """Where it waits while it is created; empty for nowhere."""
    heard: list[Any] = field(default_factory=list)


class Settler(Paglet[SettlerState]):
    """Take its time to begin, and tell its address."""

    State = SettlerState

    def on_creation(self, event: Any) -> None:
        del event
        if self.state.gate:
            Path(self.state.gate).read_bytes()

    @handler
    def address(self) -> str:
        return self.context.address


class Fleeting(Settler):
    """One of which nothing is on disk."""

    DURABILITY = Durability.NONE
