"""Where in a TOML text each key and value stands, for errors that name the line.

`tomllib` keeps no positions. This walks over a text that `tomllib` has accepted already, so it only has to know where
things end, not whether they are right.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Keys = tuple[str | int, ...]
"""The way to a value: names of tables and keys, and positions in arrays."""

_SPACE: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN: Final = re.compile(r"[^,\]}#\r\n]*")
_STRING_ENDS: Final = {
    '"""': re.compile(r'(?:\\.|(?!""").)*"{3,5}', re.DOTALL),
    "'''": re.compile(r"(?:(?!''').)*'{3,5}", re.DOTALL),
    '"': re.compile(r'(?:\\.|[^"\\])*"', re.DOTALL),
    "'": re.compile(r"[^']*'"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a text; both count from 1."""

    line: int
    column: int


def places_in(text: str) -> dict[Keys, Place]:
    """Return where the key of every value is, and the header of every table; items of arrays have their own place.

    :raises tomllib.TOMLDecodeError: the text is no TOML.
    :raises RecursionError: it is nested too deep.
    """
    tomllib.loads(text)
    # As tomllib reads it.
    return _Walker(text.replace("\r\n", "\n")).walk()


def nearest_place(places: Mapping[Keys, Place], keys: Keys) -> Place | None:
    """Return where a value is, or else the innermost thing around it that is there."""
    for length in range(len(keys), 0, -1):
        if (found := places.get(keys[:length])) is not None:
            return found
    return None


class _Walker:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._line_start = 0
        self._counted = 0
        self._places: dict[Keys, Place] = {}
        self._lengths: dict[Keys, int] = {}

    def walk(self) -> dict[Keys, Place]:
        table: Keys = ()
        while True:
            self._skip_space()
            if self._at >= len(self._text):
                return self._places
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text[self._at] == "[":
                table = self._header(1)
            else:
                self._pair(table)

    def _header(self, brackets: int) -> Keys:
        place = self._place()
        self._at += brackets
        *outer, last = self._key()
        keys: Keys = ()
        for name in outer:
            keys = self._inside((*keys, name))
        keys = (*keys, last)
        if brackets == 2:
            number = self._lengths.get(keys, 0)
            self._lengths[keys] = number + 1
            self._places.setdefault(keys, place)
            keys = (*keys, number)
        self._places[keys] = place
        self._skip_space()
        self._at += brackets
        return keys

    def _inside(self, keys: Keys) -> Keys:
        """Return the last table of an array of tables, or what is no such array as it is."""
        length = self._lengths.get(keys)
        return keys if length is None else (*keys, length - 1)

    def _pair(self, table: Keys) -> None:
        self._skip_space()
        place = self._place()
        keys = table
        for name in self._key():
            keys = (*keys, name)
            self._places.setdefault(keys, place)
        self._at += 1  # the equals sign
        self._value(keys)

    def _key(self) -> list[str]:
        names = []
        while True:
            self._skip_space()
            names.append(self._name())
            self._skip_space()
            if not self._text.startswith(".", self._at):
                return names
            self._at += 1

    def _name(self) -> str:
        bare = _BARE.match(self._text, self._at)
        if bare is not None:
            self._at = bare.end()
            return bare[0]
        start = self._at
        self._string(self._text[start])
        (name,) = tomllib.loads(f"{self._text[start : self._at]} = 0")
        return str(name)

    def _string(self, quotes: str) -> None:
        start = self._at + len(quotes)
        ended = _STRING_ENDS[quotes].match(self._text, start)
        self._at = len(self._text) if ended is None else ended.end()

    def _value(self, keys: Keys) -> None:
        self._skip_space()
        for quotes in _STRING_ENDS:
            if self._text.startswith(quotes, self._at):
                self._string(quotes)
                return
        match self._text[self._at : self._at + 1]:
            case "[":
                self._array(keys)
            case "{":
                self._inline_table(keys)
            case _:
                plain = _PLAIN.match(self._text, self._at)
                self._at = len(self._text) if plain is None else plain.end()

    def _array(self, keys: Keys) -> None:
        self._at += 1
        number = 0
        while not self._ended("]"):
            self._places[(*keys, number)] = self._place()
            self._value((*keys, number))
            number += 1

    def _inline_table(self, keys: Keys) -> None:
        self._at += 1
        while not self._ended("}"):
            self._pair(keys)

    def _ended(self, bracket: str) -> bool:
        """Go past what separates items; tell whether that was the end."""
        while True:
            self._skip_space()
            if self._at >= len(self._text):
                return True
            if self._text[self._at] == ",":
                self._at += 1
            elif self._text[self._at] == bracket:
                self._at += 1
                return True
            else:
                return False

    def _skip_space(self) -> None:
        space = _SPACE.match(self._text, self._at)
        if space is not None:
            self._at = space.end()

    def _place(self) -> Place:
        # Counted on from where it was counted last: a file has many places.
        self._line += self._text.count("\n", self._counted, self._at)
        self._line_start = self._text.rfind("\n", 0, self._at) + 1
        self._counted = self._at
        return Place(self._line, self._at - self._line_start + 1)
