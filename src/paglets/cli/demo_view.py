"""What the demonstration shows: how far the survey has come, and what came out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from paglets.cli.console import bytes_text, console, duration_text, err_console, print_table, printable
from paglets.cli.demo_check import Verdict
from paglets.cli.demo_journey import Move
from paglets.examples.survey.models import Counts, SurveyProgress, SurveyReport

LINE_SECONDS: Final = 1.0
MOST_TYPES: Final = 15
MOST_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything there is to tell in the end."""

    path: str
    hosts: list[dict[str, Any]]
    survey: str
    """Id of the original paglet."""
    seconds: float
    """From the creation of the paglet until it was home again."""
    report: SurveyReport
    journey: list[Move]
    verdict: Verdict
    output: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "path": self.path,
            "hosts": self.hosts,
            "paglet": self.survey,
            "seconds": round(self.seconds, 3),
            "totals": asdict(self.report.totals),
            "shares": [asdict(share) for share in self.report.shares],
            "journey": [asdict(move) for move in self.journey],
            "largest": [asdict(each) for each in self.report.largest],
            "types": [asdict(each) for each in self.report.types],
            "unreadable": self.report.unreadable,
            "check": {
                "sound": self.verdict.sound,
                "differences": self.verdict.differences,
                "changed": self.verdict.changed,
                "changed_count": self.verdict.changed_count,
            },
            "output": self.output,
        }


class View(Protocol):
    """Whatever follows a survey."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def say(self, text: str) -> None:
        """Tell what happens now."""

    def show(self, progress: SurveyProgress) -> None:
        """Show how far the walks have come."""

    def expect(self, counts: Counts) -> None:
        """Learn how much there is to find."""


class QuietView:
    """Show nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def show(self, progress: SurveyProgress) -> None:
        """Do nothing."""

    def expect(self, counts: Counts) -> None:
        """Do nothing."""


class PlainView(QuietView):
    """Write a line now and then, for a log or a pipe."""

    def __init__(self) -> None:
        self._expected = 0
        self._last = time.monotonic()
        self._merged: list[str] = []

    def say(self, text: str) -> None:
        """Write the text."""
        err_console.print(text, markup=False, soft_wrap=True)

    def expect(self, counts: Counts) -> None:
        """Learn how much there is to find."""
        self._expected = counts.files

    def show(self, progress: SurveyProgress) -> None:
        """Write how many files were found, at most once a second, and every result that came home."""
        for host in progress.merged[len(self._merged) :]:
            self.say(f"{host}: {progress.walked[host].files:,} files, merged")
        self._merged = progress.merged
        if time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            found = sum(counts.files for counts in progress.walked.values())
            self.say(f"{found:,} of {self._expected:,} files")


class LiveView(QuietView):
    """Keep a bar for the whole and a line per host up to date on a terminal."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[found]}", markup=False),
            TimeElapsedColumn(),
            console=err_console,
            transient=True,
        )
        self._whole = self._bars.add_task("starting three hosts", total=None, found="")
        self._hosts: dict[str, TaskID] = {host: self._bars.add_task(host, total=None, found="") for host in hosts}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Describe the whole with the text."""
        self._bars.update(self._whole, description=text)

    def expect(self, counts: Counts) -> None:
        """Give the bar its length."""
        self._bars.update(self._whole, total=max(1, counts.files))

    def show(self, progress: SurveyProgress) -> None:
        """Move the bars."""
        found = Counts()
        for host, counts in progress.walked.items():
            found += counts
            done = host in progress.merged
            text = _found(counts) + (", merged" if done else "")
            self._bars.update(self._hosts[host], found=text, total=1 if done else None, completed=1 if done else 0)
        self._bars.update(self._whole, completed=found.files, found=_found(found))


def _found(counts: Counts) -> str:
    return f"{counts.files:,} files, {bytes_text(counts.bytes)}"


def print_outcome(outcome: Outcome) -> None:
    """Print the tables and the lines below them."""
    report, totals = outcome.report, outcome.report.totals
    print_table(
        "Journey",
        ("paglet", "brings", "from", "to", "ms", "moved", "files"),
        (_move_cells(move, outcome.survey) for move in outcome.journey),
        right=("ms", "moved", "files"),
    )
    print_table(
        "Largest files",
        ("size", "path"),
        ((bytes_text(each.bytes), each.path) for each in report.largest),
        right=("size",),
    )
    shown = [(each.type, f"{each.files:,}", bytes_text(each.bytes)) for each in report.types[:MOST_TYPES]]
    rest = report.types[MOST_TYPES:]
    if rest:
        files, size = sum(each.files for each in rest), sum(each.bytes for each in rest)
        shown.append((f"{len(rest)} more", f"{files:,}", bytes_text(size)))
    print_table("By type", ("type", "files", "size"), shown, right=("files", "size"))
    _line(f"{_found(totals)} in {totals.directories:,} directories of {outcome.path}")
    extra = {"symbolic links, not followed": totals.symlinks, "sockets, pipes and devices": totals.others}
    _line("; ".join(f"{count:,} {what}" for what, count in extra.items() if count))
    if totals.unreadable:
        _named(f"{totals.unreadable:,} could not be read", report.unreadable, totals.unreadable)
    if outcome.verdict.changed_count:
        changed = outcome.verdict.changed_count
        _named(f"{changed:,} changed meanwhile", outcome.verdict.changed, changed)
    hosts = len(outcome.hosts)
    _line(f"surveyed by paglets on {hosts} hosts in {duration_text(outcome.seconds)}; counted a second way: it adds up")
    _line(f"result: {outcome.output}")


def _move_cells(move: Move, survey: str) -> tuple[str, ...]:
    original = move.paglet == survey
    return (
        "survey" if original else f"clone {move.paglet[:6]}",
        "itself" if move.kind == "clone" else "the result" if original else "its share",
        move.source,
        move.target,
        f"{move.milliseconds:.1f}",
        bytes_text(move.state_bytes + move.file_bytes),
        str(move.files),
    )


def _named(what: str, names: Iterable[str], count: int) -> None:
    shown = list(names)[:MOST_SHOWN]
    _line(f"{what}:")
    for name in shown:
        _line(f"  - {printable(name)}")
    if count > len(shown):
        _line(f"  and {count - len(shown):,} more")


def _line(text: str) -> None:
    if text:
        console.print(text, markup=False, soft_wrap=True)
