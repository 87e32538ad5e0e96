"""A paglet that carries a file along a route, as fast as it can."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler

NAME = "parcel.txt"
CONTENT = "fragile"


@dataclass
class CourierState(PagletState):
    """Where it still has to go."""

    route: list[str] = field(default_factory=list)
    outside: str = ""
    """Path of a file beside the work directory that it takes along as well."""


class Courier(Paglet[CourierState]):
    """Go to one host after the other, without a pause."""

    State = CourierState

    def on_creation(self, event: Any) -> None:
        parcel = self.work_dir() / NAME
        parcel.write_text(CONTENT)
        self.register_file(parcel, mode="move")
        if self.state.outside:
            self.register_file(self.state.outside, name="outside", mode="move")

    def run(self) -> None:
        if self.state.route:
            with self.locked_state() as state:
                target = state.route.pop(0)
            self.dispatch(target)

    @handler
    def unpack(self) -> dict[str, str]:
        """Return what the registered files hold."""
        return {ref.name: self.file_path(ref).read_text() for ref in self.registered_files()}
