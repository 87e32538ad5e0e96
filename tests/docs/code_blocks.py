"""Find the code blocks of a Markdown page, and say what each one is for.

A page is one session, read from top to bottom:

- a block whose title is a file name (```` ```python title="counter.py" ````) is written to that file;
- a `python` block without a title runs in the page's session, with the names of the blocks before it;
- a `sh` block without a title runs in a shell; a variable that it exports is there for later ones too;
- a `sh` block titled `Machine NAME` holds one `paglets host` command, which runs until the page ends. From then on
  `http://NAME:8765` stands for its address. A second block of that name starts a host that was killed at the same port;
- a `text` block titled `Output` is what the block before it prints; `...` stands for anything;
- blocks of other languages are to be read only, and so is one that follows `<!-- not tested: REASON -->`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

_FENCE: Final = re.compile(r"(?P<indent> *)(?P<marks>`{3,})(?P<language>[\w+-]*)(?P<options>[^`]*)")
_OPTIONS: Final = re.compile(r'(?: (?:title="(?P<title>[^"]+)"|hl_lines="[^"]*"|linenums="[^"]*"))*\s*')
_UNTESTED: Final = re.compile(r"<!-- not tested: (?P<reason>.+) -->")
_FILE_NAME: Final = re.compile(r"[\w-]+(\.[\w-]+)+|Containerfile")
_MACHINE: Final = re.compile(r"Machine (?P<name>\w+)")
_RUNNABLE: Final = ("python", "sh")


class Use(Enum):
    """What a block is for."""

    FILE = "file"
    SESSION = "session"
    SHELL = "shell"
    HOST = "host"
    OUTPUT = "output"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced code block."""

    language: str
    title: str
    source: str
    line: int
    """Number of the line after the opening fence."""
    untested: str = ""
    """Why it is not tested; empty where it is."""

    @property
    def use(self) -> Use:
        """What the block is for.

        :raises ValueError: nobody could say.
        """
        if self.untested or (self.language not in _RUNNABLE and not self.title):
            return Use.READ
        if not self.title:
            return Use.SESSION if self.language == "python" else Use.SHELL
        if self.language == "text" and self.title == "Output":
            return Use.OUTPUT
        if self.language == "sh" and _MACHINE.fullmatch(self.title):
            return Use.HOST
        if _FILE_NAME.fullmatch(self.title):
            return Use.FILE
        raise ValueError(f"line {self.line}: a {self.language} block titled {self.title!r} has no meaning")

    @property
    def machine(self) -> str:
        """Name of the host that a `paglets host` block runs."""
        match = _MACHINE.fullmatch(self.title)
        return match["name"] if match else ""


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page in order.

    :raises ValueError: a block never ends, or has options that are not understood.
    """
    blocks: list[Block] = []
    lines = page.splitlines()
    number = 0
    untested = ""
    while number < len(lines):
        match = _FENCE.fullmatch(lines[number])
        number += 1
        if match is None:
            reason = _UNTESTED.fullmatch(lines[number - 1].strip())
            # The marker holds for the block that follows it directly, blank lines aside.
            if reason is not None:
                untested = reason["reason"]
            elif lines[number - 1].strip():
                untested = ""
            continue
        options = _OPTIONS.fullmatch(match["options"])
        if options is None:
            raise ValueError(f"line {number}: options {match['options'].strip()!r} are not understood")
        first = number
        closing = match["indent"] + match["marks"]
        while number < len(lines) and lines[number] != closing:
            number += 1
        if number == len(lines):
            raise ValueError(f"line {first}: the block never ends")
        source = "\n".join(line.removeprefix(match["indent"]) for line in lines[first:number]) + "\n"
        blocks.append(Block(match["language"], options["title"] or "", source, first + 1, untested))
        untested = ""
        number += 1
    return blocks
