"""A table of which no character is lost, however little room there is."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

__all__ = ["WholeTable", "narrowed"]

TEXT_WIDTH: Final = 12
"""Columns of a terminal that a text keeps before the table is wider than the terminal, if its words are that long."""

_ROOMY: Final = (0, 1)
_TIGHT: Final = (0, 0, 0, 1)
_ANY_WIDTH: Final = 1 << 20


class WholeTable(Table):
    """A table with a title that narrows where it does not fit, and shows every character all the same.

    First its columns move together. Then texts are folded, the widest first, and on a terminal heads too. Figures never
    are: what still does not fit is wider than there is room; on a terminal, whose lines end, its lines are folded. Rich
    itself would cut off what is too much, and a figure without its last digit is another figure.
    """

    def __init__(self, title: str) -> None:
        super().__init__(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)

    def add(self, head: str, *, numeric: bool) -> None:
        """Add a column; a numeric one is aligned to the right, and never folded."""
        self.add_column(head, justify="right" if numeric else "left", overflow="fold")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the lines of the table."""
        width = self._fit(console, options)
        try:
            if width <= options.max_width:
                yield from super().__rich_console__(console, options)
            else:
                beyond = options.update_width(width)
                lines = Segment.split_lines(_segments(super().__rich_console__(console, beyond)))
                yield from _folded(lines, options.max_width if console.is_terminal else width)
        finally:
            # Whoever measures next is to be told how wide the content is.
            self.padding = _ROOMY
            for column in self.columns:
                column.width = None

    def _fit(self, console: Console, options: ConsoleOptions) -> int:
        """Set the widths of the columns, and return that of the table."""
        natural = [self._width(column, cell_len) for column in self.columns]
        for padding in (_ROOMY, _TIGHT):
            self.padding = padding
            beside = self.__rich_measure__(console, options.update_width(_ANY_WIDTH)).maximum - sum(natural)
            if sum(natural) + beside <= options.max_width:
                break
        room = options.max_width - beside
        widths = narrowed(natural, [self._least(column, _longest_word) for column in self.columns], room)
        if sum(widths) > room and console.is_terminal:
            folded = narrowed(natural, [self._least(column, lambda head: 1) for column in self.columns], room)
            widths = folded if sum(folded) <= room else widths
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        return sum(widths) + beside

    def _least(self, column: Column, of_head: Callable[[str], int]) -> int:
        if column.justify == "right":
            return self._width(column, of_head)
        longest = max((_longest_word(text.plain) for text in _texts(column)), default=1)
        return max(column.min_width or 1, of_head(str(column.header)), min(TEXT_WIDTH, longest))

    def _width(self, column: Column, of_head: Callable[[str], int]) -> int:
        return max(1, of_head(str(column.header)), *(text.cell_len for text in _texts(column)))


def narrowed(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return widths that fit into a room together, or the least ones if none do.

    The widest are narrowed first, to one width that is as great as it can be.

    :param natural: the widths if there is room.
    :param least: widths that none goes below.
    """

    def capped(cap: int) -> list[int]:
        return [max(lowest, min(full, cap)) for full, lowest in zip(natural, least, strict=True)]

    fitting = bisect_right(range(max(natural, default=0) + 1), room, key=lambda cap: sum(capped(cap)))
    return capped(fitting - 1)


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=1)


def _texts(column: Column) -> list[Text]:
    return [cell for cell in column.cells if isinstance(cell, Text)]


def _segments(rendered: RenderResult) -> Iterator[Segment]:
    return (part for part in rendered if isinstance(part, Segment))


def _folded(lines: Iterable[Sequence[Segment]], width: int) -> Iterator[Text]:
    """Give lines of which none is wider; no character is cut in two, nor left out."""
    for line in lines:
        whole = Text.assemble(*((segment.text, segment.style or "") for segment in line))
        whole.rstrip()
        ends = list(accumulate(map(len, chop_cells(whole.plain, width))))
        for piece in whole.divide(ends[:-1]):
            piece.no_wrap, piece.overflow = True, "ignore"
            yield piece
