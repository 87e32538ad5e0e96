"""Starting paglet processes."""

from __future__ import annotations

from paglets.runtime import platform
from paglets.runtime.launch.base import Launcher
from paglets.runtime.launch.zygote import shared_launcher


def default_launcher() -> Launcher:
    """Return the fork server that all hosts of this process share, or the spawn launcher where forking is not safe."""
    if platform.can_fork():
        return shared_launcher()
    from paglets.runtime.launch.spawn import SpawnLauncher

    return SpawnLauncher()
