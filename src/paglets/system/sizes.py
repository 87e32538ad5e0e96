"""Sizes as the older programs print them and as all take them: `17B`, `512.0M`; a K has 1,024 bytes."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = "BKMGTP"
_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([bkmgt]?)(?:(?<=[kmgt])b)?", re.IGNORECASE)


def size_text(value: float) -> str:
    """Return a number of bytes with one decimal and a unit of one letter, bytes without a decimal."""
    amount, unit = float(value), _UNITS[0]
    for unit in _UNITS:
        if abs(amount) < 1024 or unit == _UNITS[-1]:
            break
        amount /= 1024
    return f"{amount:.0f}B" if unit == "B" else f"{amount:.1f}{unit}"


def parse_size(text: str) -> int:
    """Return the bytes that a text like `512`, `64K`, `1.5g` or `2GB` stands for.

    :raises ValueError: it is no such text.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"a size is a number with B, K, M or G behind it, not {text!r}")
    return int(float(match[1]) * 1024 ** _UNITS.index(match[2].upper() or "B"))
