"""Paglets that carry files, and say what they have of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paglets.artifacts import read_content
from paglets.core.agent import Paglet, PagletState, handler


@dataclass
class PorterState(PagletState):
    """Nothing but the files."""


class Porter(Paglet[PorterState]):
    """Carry files."""

    State = PorterState

    @handler
    def take(self, path: str, mode: str = "copy") -> dict[str, Any]:
        """Carry a file or directory."""
        return self.register_file(path, mode=mode).to_wire()

    @handler
    def make(self, name: str, text: str) -> None:
        """Write a file in the work directory, and carry it."""
        path = self.work_dir() / name
        path.write_text(text)
        self.register_file(path)

    @handler
    def carried(self) -> dict[str, str]:
        """Return the checksum of what is there of each file, by name."""
        return {ref.name: read_content(Path(self.file_path(ref))).sha256 for ref in self.registered_files()}

    @handler
    def noted(self) -> dict[str, str]:
        """Return the checksum that is noted of each file, by name."""
        return {ref.name: ref.sha256 for ref in self.registered_files()}
