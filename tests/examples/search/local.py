"""What tests of the local search share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paglets.examples.search.local_search import run_local_search
from paglets.examples.search.models import HostSearchSummary, SearchEvent, SearchRequest


def search(root: Path | str, pattern: str = "", **fields: Any) -> tuple[list[SearchEvent], HostSearchSummary]:
    """Search below a directory, and return all events with the summary."""
    events: list[SearchEvent] = []
    request = SearchRequest(pattern=pattern, **{"paths": [str(root)], **fields})
    summary = run_local_search(request, host_name="alpha", host_url="http://alpha", emit=events.extend)
    return events, summary


def found(root: Path | str, pattern: str = "", **fields: Any) -> list[str]:
    """Return the paths of the results below a directory, without what they begin with, in order, each once."""
    events, _ = search(root, pattern, **fields)
    paths = [event.path.removeprefix(f"{root}/") for event in events if event.event != "error"]
    return list(dict.fromkeys(paths))


def names(root: Path, **fields: Any) -> list[str]:
    """Return what `find` finds."""
    return found(root, mode="find", **fields)


def plant(root: Path, files: Iterable[str] | dict[str, str]) -> Path:
    """Write files, with their paths or a text each; what ends with a slash is an empty directory."""
    for name in files:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[name] if isinstance(files, dict) else f"needle in {name}\n", encoding="utf-8")
    return root
