"""Find matching lines in the text of one file, with the lines around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from paglets.examples.search.matching import LinePattern
from paglets.examples.search.models import MAX_CONTEXT_LINES, SearchRequest

BEFORE: Final = "before"
AFTER: Final = "after"


@dataclass(frozen=True, slots=True)
class Line:
    """A line to be shown: one that matches, or one of context."""

    number: int
    text: str
    match: re.Match[str] | None = None
    context: str = ""


class LineSearch:
    """Go through one file, a piece of text after the other.

    Every line is shown once: what follows one match and precedes another is context of the former.
    """

    def __init__(self, pattern: LinePattern, request: SearchRequest) -> None:
        self._search = pattern.regex.search
        self._needle = pattern.line_needle
        plain = not (request.count or request.files_with_matches or request.files_without_match)
        contexts = plain and not request.only_matching
        self._before = min(request.before_context, MAX_CONTEXT_LINES) if contexts else 0
        self._after = min(request.after_context, MAX_CONTEXT_LINES) if contexts else 0
        self._most = 1 if request.files_with_matches or request.files_without_match else request.max_count
        self.matched = 0
        """Matching lines so far."""
        self._passed = 0
        self._shown = 0
        self._after_until = 0
        self._tail: list[str] = []

    @property
    def needs_text(self) -> bool:
        """Whether a piece without any match is wanted as text all the same, for the lines around matches elsewhere."""
        return self._before > 0 or self._after_until > self._passed

    @property
    def ended(self) -> bool:
        """Whether nothing that follows can be shown."""
        return self._is_full() and self._after_until <= self._passed

    def _is_full(self) -> bool:
        return 0 < self._most <= self.matched

    def stop(self) -> None:
        """Look for no further match."""
        self._most = self.matched

    def skip(self, lines: int) -> None:
        """Leave out so many lines that do not match."""
        self._passed += lines

    def lines_of(self, text: str) -> Iterator[Line]:
        """Yield what is to be shown of the next piece of text, which ends with a line."""
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        if not self._is_full():
            needle, search = self._needle, self._search
            for index, line in enumerate(lines):
                if needle and needle not in line:
                    continue
                match = search(line)
                if match is None:
                    continue
                self.matched += 1
                yield from self._around(lines, index)
                yield Line(self._passed + index + 1, line, match)
                self._shown = self._passed + index + 1
                self._after_until = self._shown + self._after
                if self._is_full():
                    break
        yield from self._trailing(lines, len(lines))
        if self._before:
            self._tail = [*self._tail, *lines[-self._before :]][-self._before :]
        self._passed += len(lines)

    def _around(self, lines: list[str], index: int) -> Iterator[Line]:
        """Yield the lines between the last match and this one that belong to either."""
        yield from self._trailing(lines, index)
        if not self._before:
            return
        number = self._passed + index + 1
        begin = max(self._shown + 1, number - self._before, self._passed + 1 - len(self._tail))
        for each in range(begin, number):
            offset = each - self._passed - 1
            yield Line(each, lines[offset] if offset >= 0 else self._tail[offset], context=BEFORE)
        self._shown = max(self._shown, number - 1) if begin < number else self._shown

    def _trailing(self, lines: list[str], end: int) -> Iterator[Line]:
        """Yield the lines before position `end` that follow the last match closely enough."""
        if self._after_until <= self._shown:
            return
        begin = max(self._shown, self._passed)
        until = min(self._after_until, self._passed + end)
        for offset, text in enumerate(islice(lines, begin - self._passed, until - self._passed)):
            yield Line(begin + offset + 1, text, context=AFTER)
        self._shown = max(self._shown, until)
