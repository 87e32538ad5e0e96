"""Patterns: what matches a line, and what bytes a file must have so that one of its lines can match."""

from __future__ import annotations

import codecs
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from paglets.examples.search.models import SearchRequest

#: Encodings in which every ASCII character is its own byte, and such a byte is nothing else: all of these, and every
#: one-byte code page.
_ASCII_COMPATIBLE: Final = ("utf-8", "utf-8-sig", "ascii", "latin-1", "iso8859-1")
#: With case ignored, Python takes characters beyond ASCII for these as well: the Kelvin sign, the long s, and the i
#: with and without dot of the Turkish alphabet.
_FOLDED_BEYOND_ASCII: Final = frozenset("kKsSiI")
_REPLACEMENT: Final = 0xFFFD
_SHORTEST_NEEDLE: Final = 2
_MOST_NEEDLES: Final = 16
#: What may stand in front of a regular expression without being part of what it matches: groups like `(?i)`, which are
#: allowed nowhere else, and comments; where `x` is among the flags also blanks and comments to the end of a line.
_PREAMBLE: Final = re.compile(r"(?:\(\?[aiLmsux]+\)|\(\?#[^)]*\))*")
_VERBOSE_PREAMBLE: Final = re.compile(r"(?:\(\?[aiLmsux]+\)|\(\?#[^)]*\)|[ \t\n\r\v\f]|#[^\n]*)*")


class InvalidPatternError(ValueError):
    """The pattern is no regular expression."""


@dataclass(frozen=True, slots=True)
class LinePattern:
    """A pattern, and a cheap test that comes before it."""

    regex: re.Pattern[str]
    needles: tuple[bytes, ...] = ()
    """A file without any of these has no match; none if nothing is known."""
    folded: bool = False
    """The needles are lower-case, and are looked for in lower-case bytes."""
    line_needle: str = ""
    """A line without this does not match; empty if nothing is known."""

    def may_match(self, content: bytes | bytearray, end: int) -> bool:
        """Tell whether the first `end` bytes can hold a match."""
        needles = self.needles
        if not needles:
            return True
        if self.folded:
            lower = content[:end].lower()
            return any(needle in lower for needle in needles)
        if len(needles) == 1:  # asked once for each file
            return content.find(needles[0], 0, end) >= 0
        return any(content.find(needle, 0, end) >= 0 for needle in needles)


def pattern_of(request: SearchRequest) -> LinePattern:
    """Return the pattern that a request asks for.

    :raises InvalidPatternError: it is no regular expression.
    :raises LookupError: there is no such encoding.
    """
    source = re.escape(request.pattern) if request.fixed_strings else request.pattern
    ignore_case = request.ignore_case or (request.smart_case and not _has_upper(request))
    flags = re.IGNORECASE if ignore_case else 0
    try:
        regex = re.compile(source, flags)  # as it was written, so that the text of an error is about that
        if request.word_regexp:
            regex = _of_words(regex)
        needles = _needles(source, flags, request.encoding)
    except (re.error, OverflowError, RecursionError) as exc:
        raise InvalidPatternError(f"invalid regular expression: {exc}") from exc
    folded = bool(regex.flags & re.IGNORECASE)
    line_needle = needles[0].decode() if len(needles) == 1 and not folded and needles[0].isascii() else ""
    return LinePattern(regex, needles, folded, line_needle)


def is_ascii_compatible(encoding: str) -> bool:
    """Tell whether lines can be told apart, and ASCII text found, without decoding.

    :raises LookupError: there is no such encoding, or none for text.
    """
    name = codecs.lookup(encoding).name
    if name in _ASCII_COMPATIBLE:
        return True
    try:
        # A code page: every byte is one character, and the lower half is ASCII.
        return bytes(range(128)).decode(name) == "".join(map(chr, range(128))) and all(
            len(bytes([high, 65]).decode(name, "replace")) == 2 and bytes([high, 65]).decode(name, "replace")[1] == "A"
            for high in range(128, 256)
        )
    except UnicodeError:
        return False


def _has_upper(request: SearchRequest) -> bool:
    written = request.pattern if request.fixed_strings else re.sub(r"\\.", "", request.pattern)
    return any(char.isupper() for char in written)


def _of_words(regex: re.Pattern[str]) -> re.Pattern[str]:
    """Return a pattern that matches whole words alone."""
    verbose = regex.flags & re.VERBOSE
    # What the preamble says is among the flags of the pattern.
    body = (_VERBOSE_PREAMBLE if verbose else _PREAMBLE).sub("", regex.pattern, count=1)
    if verbose:
        body += "\n"  # a comment at the end would go on behind it
    return re.compile(rf"(?<!\w)(?:{body})(?!\w)", regex.flags)


# --- what a match must contain ----------------------------------------------------------------------------------------


def _needles(source: str, flags: int, encoding: str) -> tuple[bytes, ...]:
    """Return byte strings of which every match contains one, as long ones as are easily found."""
    if not is_ascii_compatible(encoding):
        return ()
    try:
        # The interpreter's own parser, which has no public name. Without it every line is looked at.
        parsed = importlib.import_module("re._parser").parse(source, flags)
    except ImportError:
        return ()
    folded = bool(parsed.state.flags & re.IGNORECASE)
    found = _best(_Reader(folded, utf8=codecs.lookup(encoding).name.startswith("utf-8")).required(parsed))
    return tuple(needle.lower() for needle in found) if folded else found


_Choice = tuple[bytes, ...]


class _Reader:
    """Read a parsed pattern."""

    def __init__(self, folded: bool, *, utf8: bool) -> None:
        self._folded = folded
        self._utf8 = utf8

    def required(self, items: Any) -> list[_Choice]:
        """Return choices; every match contains one string of each."""
        choices: list[_Choice] = []
        run = bytearray()
        for code, argument in items:
            literal = self._literal(argument) if str(code) == "LITERAL" else b""
            if literal:
                run += literal
                continue
            if run:
                choices.append((bytes(run),))
                run.clear()
            choices += self._inside(str(code), argument)
        if run:
            choices.append((bytes(run),))
        return choices

    def _inside(self, code: str, argument: Any) -> list[_Choice]:
        if code == "SUBPATTERN":
            _, added, removed, body = argument
            return [] if added or removed else self.required(body)
        if code in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, _, body = argument
            return self.required(body) if least else []
        if code == "ATOMIC_GROUP":
            return self.required(argument)
        if code == "BRANCH":
            return self._of_branches(argument[1])
        return []

    def _of_branches(self, branches: Sequence[Any]) -> list[_Choice]:
        together: list[bytes] = []
        for branch in branches:
            best = _best(self.required(branch))
            if not best:
                return []
            together += best
        return [tuple(together)]

    def _literal(self, number: int) -> bytes:
        char = chr(number)
        if number < 128:
            return b"" if self._folded and char in _FOLDED_BEYOND_ASCII else char.encode()
        if self._folded or not self._utf8 or number == _REPLACEMENT or 0xD800 <= number < 0xE000:
            return b""
        return char.encode()


def _best(choices: Sequence[_Choice]) -> _Choice:
    """Return the choice whose shortest string is the longest, if that is long enough to say something."""
    usable = [choice for choice in choices if 0 < len(choice) <= _MOST_NEEDLES]
    best = max(usable, key=lambda choice: (min(map(len, choice)), -len(choice)), default=())
    return best if best and min(map(len, best)) >= _SHORTEST_NEEDLE else ()
