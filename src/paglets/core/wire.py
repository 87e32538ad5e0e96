"""Names for the plain values that cross a process or host boundary."""

from __future__ import annotations

from typing import Any, TypeAlias

WireValue: TypeAlias = Any
WirePayload: TypeAlias = dict[str, Any]
WireList: TypeAlias = list[Any]
