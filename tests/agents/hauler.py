"""A paglet with a file of any size that it takes along."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.runtime_values import Durability

NAME = "freight"


@dataclass
class HaulerState(PagletState):
    """Nothing but the file."""


class Hauler(Paglet[HaulerState]):
    """Haul a file."""

    State = HaulerState
    DURABILITY: ClassVar[Durability] = Durability.MESSAGE

    @handler
    def pick_up(self, path: str) -> None:
        """Take a file along from now on; it leaves its place."""
        self.register_file(path, name=NAME, mode="move")

    @handler
    def digest(self) -> tuple[int, str]:
        """Return how large the file is, and its SHA-256."""
        path = self.file_path(NAME)
        with path.open("rb") as stream:
            return path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()
