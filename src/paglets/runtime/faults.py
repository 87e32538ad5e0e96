"""Named points in the code at which a test has this process killed or stopped.

``PAGLETS_FAULT=name`` kills the process with SIGKILL when it reaches the point ``name``, ``name:3`` when it does so for
the third time. Without the variable `ARMED` is False and no point costs more than that look::

    if faults.ARMED:
        faults.reached("source.committed")
"""

from __future__ import annotations

import os
import signal

_SETTING = os.environ.get("PAGLETS_FAULT", "")
ARMED = bool(_SETTING)

_name, _, _count = _SETTING.partition(":")
_left = int(_count) if _count.isdecimal() else 1


def reached(name: str) -> None:
    """Kill this process if it is to die here."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
