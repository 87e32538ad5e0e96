"""Put the code that every paglet runs side by side in memory before the fork.

Calling a function changes the reference count of its code object, and with it the page on which that lies, which the
child then has to itself. Functions are spread over all that was imported, so each of them costs a page of its own. A
copy of what is run, made in one go, takes up far fewer.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable
from types import CodeType, FrameType, FunctionType
from typing import Any


def gather(run: Callable[[], object], also: Iterable[Callable[..., Any]] = ()) -> int:
    """Give every Python function that `run` calls a copy of its code, one after the other; return how many.

    It is called before the interpreter specialises the code, which it would have to do again, and where no other thread
    runs.

    :param also: functions that are called as well, but not by `run`.
    """
    called = dict.fromkeys(function.__code__ for function in also if isinstance(function, FunctionType))

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called[frame.f_code] = None

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    functions: dict[CodeType, list[FunctionType]] = {code: [] for code in called}
    for candidate in gc.get_objects():
        if type(candidate) is FunctionType and candidate.__code__ in functions:
            functions[candidate.__code__].append(candidate)
    # All are made before one of the old ones is let go, whose place the next would take.
    copies = [(code.replace(), using) for code, using in functions.items() if using]
    for copy, using in copies:
        for function in using:
            function.__code__ = copy
    return len(copies)
