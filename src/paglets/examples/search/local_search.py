"""Search the files of this machine, and hand on what is found while the search goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from typing import Any, Final

from paglets.examples.search.bounds import MOST_SLOW_FILES, PIECE_SECONDS, SlowPatternError, TimeBound, Unbounded
from paglets.examples.search.contents import FileSearch
from paglets.examples.search.lines import Line, LineSearch
from paglets.examples.search.matching import pattern_of
from paglets.examples.search.models import (
    DEFAULT_BATCH_SIZE,
    FIND,
    GREP,
    KINDS,
    MAX_BATCH_SIZE,
    MAX_RESULTS_PER_HOST,
    HostSearchSummary,
    SearchRequest,
)
from paglets.examples.search.reading import BINARY_PROBE_BYTES, BLOCK_BYTES, Room
from paglets.examples.search.results import Emit, Outbox, cut, shown
from paglets.examples.search.traversal import FILE, Found, Traversal, reason

#: The most errors of one host that are told.
MAX_ERRORS: Final = 100


def run_local_search(
    request: SearchRequest,
    *,
    host_name: str,
    host_url: str,
    emit: Emit | None = None,
) -> HostSearchSummary:
    """Search and return what it came to.

    Nothing that is met on the way ends the search: it is among the errors of the summary, and an event. A pattern may
    take as long as it likes here; the paglet searches in a process in which it may not.

    :param emit: takes events, in order, at most `request.batch_size` at once; the first of them at once.
    """
    return LocalSearch(request, host_name=host_name, host_url=host_url, emit=emit).run()


def checked(request: SearchRequest) -> SearchRequest:
    """Return a request that makes sense.

    :raises ValueError: it does not; the text names the field.
    """
    if request.mode not in (GREP, FIND):
        raise ValueError(f"mode must be {GREP} or {FIND}, not {request.mode!r}")
    if request.kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {request.kind!r}")
    for name in ("before_context", "after_context", "max_count", "max_file_size", "max_results_per_host"):
        if getattr(request, name) < 0:
            raise ValueError(f"{name} must not be negative")
    if request.max_depth is not None and request.max_depth < 0:
        raise ValueError("max_depth must not be negative")
    return request


class _TruncatedError(Exception):
    """There are as many results as may be."""


class _GivenUpError(Exception):
    """The search makes no sense any more."""


class LocalSearch:
    """One search on one machine.

    :param bound: how long a pattern may take for a piece of a file.
    """

    def __init__(
        self,
        request: SearchRequest,
        *,
        host_name: str,
        host_url: str,
        emit: Emit | None = None,
        bound: TimeBound | None = None,
    ) -> None:
        self._request = request
        self._host_name = host_name
        self._host_url = host_url
        self._bound: TimeBound = Unbounded() if bound is None else bound
        batch_size = min(request.batch_size, MAX_BATCH_SIZE) if request.batch_size > 0 else DEFAULT_BATCH_SIZE
        self._outbox = Outbox(emit, batch_size)
        asked = request.max_results_per_host
        self._most_results = min(asked, MAX_RESULTS_PER_HOST) if asked > 0 else MAX_RESULTS_PER_HOST
        self._results = 0
        self._slow_files = 0
        self._truncated = False
        self._started = time.monotonic()
        self._room = Room()
        self._errors: list[str] = []
        self._left_out = 0
        self._seen = self._searched = self._matched = self._matches = self._paths = 0

    def run(self) -> HostSearchSummary:
        """Search to the end, and return what it came to."""
        for _ in self.steps():
            pass
        return self.summary()

    def steps(self) -> Generator[None]:
        """Search in steps of a few milliseconds at most, one file or a piece of a large one each.

        Whoever stops in between closes the iterator.
        """
        try:
            checked(self._request)
            yield from self._search()
        except _TruncatedError:
            self._truncated = True
        except _GivenUpError as exc:
            self._note(str(exc))
        except LookupError:
            self._note(f"unknown encoding: {self._request.encoding}")
        except ValueError as exc:  # the pattern, or the request as a whole
            self._note(str(exc))
        self._outbox.flush()

    def summary(self) -> HostSearchSummary:
        """Return what the search has come to so far."""
        more = [f"and {self._left_out} more errors"] if self._left_out else []
        return HostSearchSummary(
            self._host_name,
            self._host_url,
            files_seen=self._seen,
            files_searched=self._searched,
            files_matched=self._matched,
            matches=self._matches,
            paths_matched=self._paths,
            errors=[*self._errors, *more],
            truncated=self._truncated,
            duration_seconds=time.monotonic() - self._started,
        )

    def _search(self) -> Iterator[None]:
        request, outbox = self._request, self._outbox
        search = FileSearch(pattern_of(request), request)
        traversal = Traversal(request, self._report)
        finds = request.mode == FIND
        for path in request.paths:
            root = os.path.expanduser(path)  # noqa: PTH111 - pathlib drops a leading `./`, which was written
            if request.absolute_path:
                root = os.path.abspath(root)  # noqa: PTH100 - resolve() would follow links
            for found in traversal.entries(root):
                if finds:
                    self._look_at(found, search)
                elif found.kind == FILE:
                    within = self._look_into(found.path, search)
                    if within is not None:
                        yield from within
                if self._results:
                    outbox.flush_old()
                    self._stop_if_full()
                yield

    # --- names --------------------------------------------------------------------------------------------------------

    def _look_at(self, found: Found, search: FileSearch) -> None:
        self._seen += 1
        request = self._request
        if not found.listed or (request.kind != "any" and found.kind != request.kind):
            return
        if search.suffixes and not found.name.lower().endswith(search.suffixes):
            return
        if not search.pattern.regex.search(found.path if request.full_path else found.name):
            return
        self._paths += 1
        self._result("file", found.path)

    # --- contents -----------------------------------------------------------------------------------------------------

    def _look_into(self, path: str, search: FileSearch) -> Iterator[None] | None:
        """Look into a file; what is returned has to be gone through, and goes through its lines."""
        request, room = self._request, self._room
        self._seen += 1
        try:
            descriptor = room.open(path)
        except OSError as exc:
            self._report(path, reason(exc))
            return None
        done = True
        try:
            if request.max_file_size and os.fstat(descriptor).st_size > request.max_file_size:
                return None
            size = room.fill(descriptor)
            if search.probes and room.content.find(b"\0", 0, min(size, BINARY_PROBE_BYTES)) >= 0:
                return None
            self._searched += 1
            if size == BLOCK_BYTES or search.pattern.may_match(room.content, size):
                done = False
                return self._through(path, descriptor, bytes(room.content[:size]), search)
        except OSError as exc:
            self._report(path, reason(exc))
            return None
        finally:
            if done:
                os.close(descriptor)
        if request.files_without_match:
            self._sum_up(path, 0)
        return None

    def _through(self, path: str, descriptor: int, first: bytes, search: FileSearch) -> Iterator[None]:
        lines = LineSearch(search.pattern, self._request)
        pieces = search.pieces(descriptor, first)
        told = whole = False
        try:
            for piece, was_cut in pieces:
                if was_cut and not told:
                    told = True
                    self._report(path, "has a very long line, of which only the beginning is searched")
                for line in self._bounded(search.lines_of(piece, lines)):
                    self._show(path, line)
                    if self._results >= self._most_results:
                        lines.stop()  # what follows the last result still belongs to it
                if lines.ended:
                    break
                yield
            whole = True
        except OSError as exc:
            self._report(path, reason(exc))
        except SlowPatternError:
            self._leave_out_slow(path)
        except _TruncatedError:
            self._matched += lines.matched > 0
            raise
        finally:
            self._matches += lines.matched
            os.close(descriptor)
        if whole or lines.matched:
            self._sum_up(path, lines.matched)

    def _leave_out_slow(self, path: str) -> None:
        self._slow_files += 1
        if self._slow_files >= MOST_SLOW_FILES:
            raise _GivenUpError(
                f"the pattern takes too long: given up after {MOST_SLOW_FILES} files; write it simpler"
            ) from None
        self._report(path, f"the pattern takes longer than {PIECE_SECONDS:g} s; the rest of this file is left out")

    def _bounded(self, lines: Iterator[Line]) -> Iterator[Line]:
        """Yield lines; from one to the next is bounded, what is done with one is not."""
        bound = self._bound
        while True:
            bound.begin()
            try:
                line = next(lines, None)
            finally:
                bound.end()
            if line is None:
                return
            yield line

    def _show(self, path: str, line: Line) -> None:
        request = self._request
        if request.count or request.files_with_matches or request.files_without_match:
            return
        if line.match is None:
            text, _ = cut(line.text, 0)
            self._event(
                "context",
                path,
                line_number=line.number,
                text=text,
                context=line.context,
                truncated=len(text) < len(line.text),
            )
            return
        matches = line.match.re.finditer(line.text) if request.only_matching else (line.match,)
        for match in matches:
            if request.only_matching and not match[0]:
                continue
            text, offset = cut(line.text, match.start())
            begin, end = match.start() - offset, min(match.end() - offset, len(text))
            self._result(
                "match",
                path,
                line_number=line.number,
                column=match.start() + 1,
                text=text,
                match_text=text[begin:end],
                match_start=begin,
                match_end=end,
                truncated=len(text) < len(line.text),
            )

    def _sum_up(self, path: str, matched: int) -> None:
        request = self._request
        if request.files_without_match:
            if not matched:
                self._matched += 1
                self._result("file", path)
            return
        if not matched:
            return
        self._matched += 1
        if request.files_with_matches:
            self._result("file", path)
        elif request.count:
            self._result("count", path, count=matched)

    # --- what comes out -----------------------------------------------------------------------------------------------

    def _stop_if_full(self) -> None:
        if self._results >= self._most_results:
            raise _TruncatedError

    def _result(self, event: str, path: str, **fields: Any) -> None:
        self._stop_if_full()
        self._results += 1
        self._event(event, path, **fields)

    def _event(self, event: str, path: str, **fields: Any) -> None:
        self._outbox.add(event, self._host_name, self._host_url, shown(path), **fields)

    def _report(self, path: str, why: str) -> None:
        if len(self._errors) < MAX_ERRORS:
            self._errors.append(f"{shown(path)}: {why}")
            self._event("error", path, message=why)
        else:
            self._left_out += 1

    def _note(self, message: str) -> None:
        """Take down an error that is about no path."""
        self._errors.append(message)
        self._outbox.add("error", self._host_name, self._host_url, "", message=message)
