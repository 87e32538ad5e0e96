"""What asks the operating system about its machine, imported by the functions that do ask.

Programs that only want to know what others found out need no such package.
"""

from __future__ import annotations

from paglets.core.packages import needing

with needing("psutil", "telling about a machine"):
    import psutil

__all__ = ["psutil"]
