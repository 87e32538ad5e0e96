"""How results look on a terminal, and as lines of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from paglets.cli.console import printable

_PLACE: Final = "35"
_NUMBER: Final = "32"
_MARK: Final = "36"
_MATCH: Final = "1;31"


@dataclass(frozen=True, slots=True)
class Style:
    """What of a result is shown, and how."""

    line_number: bool = True
    column: bool = True
    only_matching: bool = False
    color: bool = False
    escaped: bool = False
    """Escape what a terminal would obey, in the text of lines as well; in names it always is."""


def lines_of(events: Iterable[dict[str, Any]], style: Style) -> list[str]:
    """Return results as lines; errors are none."""
    return [_line(event, style) for event in events if event["event"] != "error"]


def _line(event: dict[str, Any], style: Style) -> str:
    kind = event["event"]
    mark = "-" if kind == "context" else ":"
    parts = [_painted(event["host_name"], _PLACE, style), _painted(printable(event["path"]), _PLACE, style)]
    if kind == "count":
        parts.append(str(event["count"]))
    elif kind in ("match", "context"):
        if style.line_number:
            parts.append(_painted(str(event["line_number"]), _NUMBER, style))
        if style.column and kind == "match":
            parts.append(_painted(str(event["column"]), _NUMBER, style))
        parts.append(_text(event, style))
    return _painted(mark, _MARK, style).join(parts)


def _text(event: dict[str, Any], style: Style) -> str:
    text, begin, end = event["text"], event["match_start"], event["match_end"]
    if event["event"] != "match":
        return _safe(text, style)
    if style.only_matching:
        return _painted(_safe(event["match_text"], style), _MATCH, style)
    if not style.color:
        return _safe(text, style)
    before, match, after = (_safe(part, style) for part in (text[:begin], text[begin:end], text[end:]))
    return f"{before}{_painted(match, _MATCH, style)}{after}"


def _safe(text: str, style: Style) -> str:
    if not style.escaped or text.isprintable():
        return text
    return "\t".join(printable(part) for part in text.split("\t"))


def _painted(text: str, color: str, style: Style) -> str:
    return f"\x1b[{color}m{text}\x1b[m" if style.color and text else text


def write_lines(lines: Iterable[str]) -> None:
    """Write lines to standard output at once, so that whoever reads sees them as they come."""
    joined = "".join(f"{line}\n" for line in lines)
    if not joined:
        return
    # What the encoding of the output cannot express must not end a search.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(joined.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def json_lines(events: Iterable[dict[str, Any]]) -> list[str]:
    """Return events as JSON, one per line."""
    return [json.dumps(event) for event in events]
