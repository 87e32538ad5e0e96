"""For tests of programs made of paglets: `PagletMesh`, a mesh of hosts in this process with virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paglets.testing.mesh import PagletMesh as PagletMesh
    from paglets.testing.scheduler import MeshStuckError as MeshStuckError

__all__ = ["MeshStuckError", "PagletMesh"]

_HOMES = {"PagletMesh": "paglets.testing.mesh", "MeshStuckError": "paglets.testing.scheduler"}


def __getattr__(name: str) -> Any:
    # Late: the pytest plugin is in this package, and is imported by every run of every user.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
