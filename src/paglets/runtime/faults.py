"""Named points in the code at which a test has this process killed or stopped.

``PAGLETS_FAULT=name`` kills the process with SIGKILL when it reaches the point ``name``, ``name:3`` when it does so for
the third time, ``name:1:stop`` stops it with SIGSTOP instead. Several, separated by commas, may be set. Without the
variable `ARMED` is False and no point costs more than that look::

    if faults.ARMED:
        faults.reached("source.committed")
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Final

VARIABLE: Final = "PAGLETS_FAULT"

_SIGNALS: Final = {"kill": "SIGKILL", "stop": "SIGSTOP"}  # by name, since not every system has them


@dataclass(slots=True)
class _Fault:
    left: int
    """How often the point may still be reached, the last time included."""
    signal_name: str


ARMED = False
_faults: dict[str, _Fault] = {}


def arm(setting: str) -> None:
    """Replace what was set by ``setting``, in the form of the variable; an empty one disarms every point.

    :raises ValueError: it has another form.
    """
    global ARMED
    faults: dict[str, _Fault] = {}
    for part in filter(None, setting.split(",")):
        name, _, terms = part.partition(":")
        count, _, what = terms.partition(":")
        if (count and not count.isdecimal()) or (what or "kill") not in _SIGNALS:
            raise ValueError(f"{VARIABLE} takes name[:count[:kill or stop]], not {part!r}")
        faults[name] = _Fault(int(count or 1), _SIGNALS[what or "kill"])
    _faults.clear()
    _faults.update(faults)
    ARMED = bool(faults)


def reached(name: str) -> None:
    """Kill or stop this process if that is to happen here."""
    fault = _faults.get(name)
    if fault is None:
        return
    fault.left -= 1
    if fault.left == 0:
        os.kill(os.getpid(), getattr(signal, fault.signal_name))


arm(os.environ.get(VARIABLE, ""))
