"""A paglet that offers a service and then does not start."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.agent import Paglet, PagletState
from paglets.core.events import CreationEvent


@dataclass
class ChangesItsMindState(PagletState):
    """Nothing."""


class ChangesItsMind(Paglet[ChangesItsMindState]):
    """Advertise, then fail."""

    State = ChangesItsMindState

    def on_creation(self, event: CreationEvent) -> None:
        """Advertise a service and raise."""
        self.advertise_service("promises")
        raise RuntimeError("not after all")
