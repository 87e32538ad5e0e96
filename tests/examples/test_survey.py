"""The parts of the survey example that need no host: planning, walking, storing, and what its paglet answers."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.core.messages import Message
from paglets.examples.survey import walk as walking
from paglets.examples.survey.agent import SurveyPaglet
from paglets.examples.survey.models import Counts, ShareReport, Stage, SurveyState, Unit
from paglets.examples.survey.store import SurveyFile
from paglets.examples.survey.walk import Batch, plan_shares, type_of, walk
from paglets.serialization.codec import dataclass_from_wire, dataclass_to_wire


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a tree with 40 files in 14 directories, a link to a file, one to a directory and a pipe."""
    root = tmp_path / "tree"
    for outer in range(3):
        for inner in range(3):
            directory = root / f"d{outer}" / f"ü{inner}"
            directory.mkdir(parents=True)
            for number in range(4):
                (directory / f"f{number}.txt").write_bytes(b"x" * (outer * 100 + inner * 10 + number))
    (root / "empty").mkdir()
    (root / "deep").mkdir()
    for number in range(4):
        (root / "deep" / f"{number}.PY").write_bytes(b"y")
    (root / "link").symlink_to(root / "deep" / "0.PY")
    (root / "away").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    return root


def gathered(root: Path, units: list[Unit], **options: Any) -> tuple[list[tuple[str, str, int]], Counts]:
    """Walk units and return all rows, sorted, and the counts."""
    batches = list(walk(os.fsencode(root), units, **options))
    rows = sorted(row for batch in batches for row in batch.files)
    return rows, sum((batch.counts for batch in batches), Counts())


WHOLE = [Unit(b"", deep=True)]
TREE = Counts(
    files=40,
    bytes=sum(o * 100 + i * 10 + n for o in range(3) for i in range(3) for n in range(4)) + 4,
    directories=14,
    symlinks=2,
    others=1,
)


def test_a_walk_finds_everything_once_and_follows_no_link(tree: Path) -> None:
    rows, counts = gathered(tree, WHOLE)
    assert counts == TREE
    assert rows[0] == ("d0/ü0/f0.txt", ".txt", 0)
    assert ("deep/3.PY", ".py", 1) in rows
    assert len({path for path, _, _ in rows}) == 40


def test_batches_are_bounded_also_in_one_directory(tree: Path) -> None:
    batches = list(walk(os.fsencode(tree), WHOLE, batch_rows=3))
    assert max(len(batch.files) for batch in batches) == 3
    assert sum((batch.counts for batch in batches), Counts()) == TREE


@pytest.mark.parametrize("shares", [1, 2, 3, 7])
@pytest.mark.parametrize("units", [1, 2, 5, 100])
@pytest.mark.parametrize("entries", [1, 3, 1000])
def test_shares_cover_everything_exactly_once(
    tree: Path, monkeypatch: pytest.MonkeyPatch, shares: int, units: int, entries: int
) -> None:
    monkeypatch.setattr(walking, "UNITS_PER_SHARE", units)
    monkeypatch.setattr(walking, "MOST_ENTRIES", entries)
    parts = plan_shares(os.fsencode(tree), shares)
    assert len(parts) == shares

    found = [gathered(tree, part) for part in parts]

    assert sorted(row for rows, _ in found for row in rows) == gathered(tree, WHOLE)[0]
    assert sum((counts for _, counts in found), Counts()) == TREE
    assert plan_shares(os.fsencode(tree), shares) == parts


def test_a_plan_stays_small_whatever_the_directory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MOST_ENTRIES", 50)
    for number in range(60):
        (tmp_path / f"d{number:03}").mkdir()
    assert [len(part) for part in plan_shares(os.fsencode(tmp_path), 3)] == [1, 1, 1]


def test_what_is_to_be_skipped_is_neither_planned_nor_walked(tree: Path) -> None:
    skip = {os.fsencode(tree / "d1"), os.fsencode(tree / "d2" / "ü0")}
    rows, counts = gathered(tree, WHOLE, skip=skip)
    assert counts.directories == 14 - 4 - 1
    assert not [path for path, _, _ in rows if path.startswith(("d1", "d2/ü0"))]
    planned = [gathered(tree, part, skip=skip)[1] for part in plan_shares(os.fsencode(tree), 2, skip=skip)]
    assert sum(planned, Counts()) == counts


def test_names_that_are_no_text_are_found_and_shown(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff.bin")).write_bytes(b"12")
    (tmp_path / os.fsdecode(b"dir\xfe")).mkdir()
    (tmp_path / os.fsdecode(b"dir\xfe") / "x").write_bytes(b"3")
    rows, _ = gathered(tmp_path, WHOLE)
    assert rows == [("bad\\xff.bin", ".bin", 2), ("dir\\xfe/x", "(none)", 1)]


def test_what_cannot_be_listed_is_counted_and_named_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: bytes) -> Any:
        if path.endswith(b"/deep"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    batches = [batch for part in plan_shares(os.fsencode(tree), 3) for batch in walk(os.fsencode(tree), part)]
    counts = sum((batch.counts for batch in batches), Counts())
    assert (counts.files, counts.directories, counts.unreadable) == (36, 14, 1)
    assert [each for batch in batches for each in batch.unreadable] == [("deep", "Permission denied")]


def test_what_disappears_meanwhile_was_never_there(tree: Path) -> None:
    steps: Iterator[Batch] = walk(os.fsencode(tree), [Unit(b"gone", deep=True), *WHOLE])
    assert sum((batch.counts for batch in steps), Counts()) == TREE


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("a.py", ".py"),
        ("A.TAR.GZ", ".gz"),
        (".profile", "(none)"),
        ("..x", "(none)"),
        ("a.", "(none)"),
        ("a", "(none)"),
    ],
)
def test_types(name: str, type_: str) -> None:
    assert type_of(name) == type_


def stored(
    path: Path, host: str, *rows: tuple[str, str, int], unreadable: tuple[tuple[str, str], ...] = ()
) -> ShareReport:
    """Write a share into a file."""
    counts = Counts(files=len(rows), bytes=sum(size for _, _, size in rows), unreadable=len(unreadable))
    report = ShareReport(host, counts, 0.5)
    with SurveyFile(path) as result:
        result.add(Batch(list(rows), list(unreadable), counts))
        result.finish(report)
    return report


def test_shares_are_merged_and_reported(tmp_path: Path) -> None:
    one = stored(tmp_path / "1", "alpha", ("a.py", ".py", 5), ("b", "(none)", 9), unreadable=(("x", "no"),))
    two = stored(tmp_path / "2", "beta", ("c.py", ".py", 7))
    with SurveyFile(tmp_path / "all") as result:
        result.merge(tmp_path / "1")
        result.merge(tmp_path / "2")
        report = result.report(2)
    assert report.shares == [one, two]
    assert report.totals == Counts(files=3, bytes=21, unreadable=1)
    assert [(each.path, each.bytes) for each in report.largest] == [("b", 9), ("c.py", 7)]
    assert [(each.type, each.files, each.bytes) for each in report.types] == [(".py", 2, 12), ("(none)", 1, 9)]
    assert report.unreadable == ["x: no"]


def test_a_share_that_comes_twice_changes_nothing(tmp_path: Path) -> None:
    stored(tmp_path / "1", "alpha", ("a.py", ".py", 5))
    with SurveyFile(tmp_path / "all") as result:
        result.merge(tmp_path / "1")
        with pytest.raises(sqlite3.IntegrityError):
            result.merge(tmp_path / "1")
        assert result.report(1).totals.files == 1


def test_a_signature_says_whether_the_result_is_sound(tmp_path: Path) -> None:
    stored(tmp_path / "1", "alpha", ("a.py", ".py", 5))
    with SurveyFile(tmp_path / "1") as result:
        result.sign("beta")
    with sqlite3.connect(tmp_path / "1") as connection:
        assert connection.execute("SELECT host, files, sound FROM visits").fetchall() == [("beta", 1, 1)]
    connection.close()


def test_the_paglet_answers_without_a_host() -> None:
    paglet = SurveyPaglet(SurveyState(root=b"/x", hosts=["alpha", "beta"]))
    paglet.handle_message(Message("note", {"host": "beta", "counts": {"files": 3, "bytes": 10}}))
    progress = paglet.progress()
    assert progress.stage is Stage.PLAN
    assert progress.walked == {"beta": Counts(files=3, bytes=10)}
    assert progress.merged == []


def test_the_state_travels_as_it_is() -> None:
    state = SurveyState(
        root=b"/x\xff", stage=Stage.TOUR, walked={"a": Counts(files=1)}, own=ShareReport("a", Counts(), 1.5)
    )
    assert dataclass_from_wire(SurveyState, dataclass_to_wire(state)) == state
