"""Texts of strangers, and of systems that keep any bytes for a text."""

from __future__ import annotations

__all__ = ["has_lone_surrogates", "one_line", "without_controls"]


def without_controls(text: str) -> str:
    """Return a text with a question mark for each character that a terminal or a log would obey, line ends included."""
    return "".join(char if char.isprintable() else "?" for char in text)


def one_line(text: str) -> str:
    """Return a text with white space collapsed and without control characters, which it may have from anywhere."""
    return without_controls(" ".join(text.split()))


def has_lone_surrogates(text: str) -> bool:
    """Tell whether a text has half of a surrogate pair, as names from `os.listdir` may; UTF-8 has no such thing."""
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)
