"""Paglets that keep files: in their work directory, in the storage of their class, and with them on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler


@dataclass
class KeeperState(PagletState):
    seen: list[dict[str, str]] = field(default_factory=list)
    """What each registered file held when a hook on arrival looked at it."""
    refuse: bool = False
    look: bool = True
    """Whether hooks read the files."""


class Keeper(Paglet[KeeperState]):
    State = KeeperState

    def _look(self) -> None:
        if self.state.refuse:
            self.state.refuse = False
            raise RuntimeError("keeper refuses")
        if self.state.look:
            self.state.seen.append({ref.name: self.file_path(ref).read_text() for ref in self.registered_files()})

    def on_arrival(self, event: Any) -> None:
        self._look()

    def on_clone(self, event: Any) -> None:
        self._look()

    def on_activation(self, event: Any) -> None:
        self._look()

    @handler
    def accept(self) -> None:
        self.state.refuse = False

    # --- work directory

    @handler
    def scratch(self, name: str, text: str) -> str:
        path = self.work_dir() / name
        path.write_text(text)
        return str(path)

    @handler
    def scratched(self) -> list[str]:
        directory = self.work_dir(create=False)
        return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []

    # --- storage of the class

    @handler
    def store(self, name: str, data: bytes, quota: int | None = None) -> str:
        return str(self.persistent_storage(quota_bytes=quota).write_bytes(name, data))

    @handler
    def stored(self, name: str) -> bytes:
        return self.persistent_storage().read_bytes(name)

    @handler
    def storage_status(self) -> dict[str, Any]:
        status = self.persistent_storage().status()
        return {"root": status.root, "used": status.used_bytes, "quota": status.quota_bytes}

    @handler
    def clear(self, name: str = "") -> None:
        if name:
            self.persistent_storage().delete(name)
        else:
            self.persistent_storage().clear()

    # --- registered files

    @handler
    def take(self, path: str, name: str | None = None, mode: str = "copy") -> dict[str, Any]:
        return self.register_file(path, name=name, mode=mode).to_wire()

    @handler
    def make(self, name: str, text: str, mode: str = "copy") -> dict[str, Any]:
        """Write a file in the work directory and take it along."""
        path = self.work_dir() / name
        path.write_text(text)
        return self.register_file(path, mode=mode).to_wire()

    @handler
    def drop(self, name: str) -> None:
        self.unregister_file(name)

    @handler
    def files(self) -> list[dict[str, Any]]:
        return [ref.to_wire() for ref in self.registered_files()]

    @handler
    def read(self, name: str) -> str:
        return self.file_path(name).read_text()

    @handler
    def path_of(self, name: str) -> str:
        return str(self.file_path(name))

    @handler
    def go(self, to: str) -> dict[str, str]:
        return self.dispatch(to).to_wire()

    @handler
    def exists(self, path: str) -> bool:
        return Path(path).exists()


class OtherKeeper(Keeper):
    """A class of its own, with a storage of its own."""
