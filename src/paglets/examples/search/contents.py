"""What is the same for all files whose contents are searched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from paglets.examples.search.lines import Line, LineSearch
from paglets.examples.search.matching import LinePattern, is_ascii_compatible
from paglets.examples.search.models import SearchRequest
from paglets.examples.search.reading import line_blocks, text_blocks

_BOM: Final = b"\xef\xbb\xbf"


class FileSearch:
    """A pattern, and how contents are read for it."""

    def __init__(self, pattern: LinePattern, request: SearchRequest) -> None:
        self.pattern = pattern
        self.encoding = request.encoding.lower().replace("_", "-")
        self._raw = is_ascii_compatible(request.encoding)
        # UTF-16 is full of them.
        self.probes = not request.text and (self._raw or not self.encoding.startswith(("utf-16", "utf-32")))
        self.suffixes = tuple(f".{extension.lower().removeprefix('.')}" for extension in request.extensions)

    def pieces(self, descriptor: int, first: bytes) -> Iterator[tuple[bytes | str, bool]]:
        """Yield the pieces of a file, and whether the last line of each was cut."""
        if self._raw:
            yield from line_blocks(descriptor, first.removeprefix(_BOM) if self.encoding == "utf-8" else first)
        else:
            yield from text_blocks(descriptor, first, self.encoding)

    def lines_of(self, piece: bytes | str, lines: LineSearch) -> Iterator[Line]:
        """Yield the lines of a piece that are to be shown."""
        if isinstance(piece, str):
            yield from lines.lines_of(piece)
        elif lines.needs_text or self.pattern.may_match(piece, len(piece)):
            yield from lines.lines_of(piece.decode(self.encoding, "replace"))
        else:
            lines.skip(piece.count(b"\n"))
