"""What lists of processes show: a name for the processes of paglets, where the package for it is installed."""

from __future__ import annotations

__all__ = ["set_title"]

try:
    from setproctitle import setproctitle as set_title
except ImportError:

    def set_title(title: str) -> None:
        """Leave the name as it is: it is for people who look, and nothing depends on it."""
