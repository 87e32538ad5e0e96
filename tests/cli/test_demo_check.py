"""The second count of the demonstration: it notices every wrong number, and forgives only what really changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from paglets.cli.demo_check import Verdict, Witness
from paglets.cli.demo_journey import Move, journey_differences, moves_of, visit_differences
from paglets.examples.survey.models import Counts, ShareReport, SurveyReport, Unit
from paglets.examples.survey.store import SurveyFile
from paglets.examples.survey.walk import walk

Meddle = Callable[[], None]
HOSTS = ("alpha", "beta", "gamma")


class Scene:
    """A small tree with a survey of it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "tree"
        self.result = directory / "survey.sqlite"
        for name in ("a/one.py", "a/two.txt", "b/three.py", "four"):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        (self.root / "empty").mkdir()
        (self.root / "link").symlink_to("four")
        self.database = directory / "witness.sqlite"

    def survey(self) -> SurveyReport:
        """Do what the paglets do."""
        counts = Counts()
        with SurveyFile(self.result) as result:
            for batch in walk(os.fsencode(self.root), [Unit(b"", deep=True)]):
                result.add(batch)
                counts += batch.counts
            result.finish(ShareReport("alpha", counts, 0.1))
            return result.report(10)

    def judged(
        self,
        *,
        before: Meddle = lambda: None,
        during: Meddle = lambda: None,
        report: Callable[[SurveyReport], SurveyReport] = lambda report: report,
        rows: str = "",
    ) -> Verdict:
        """Survey the tree with changes before, after, in the report and in the rows, and return the verdict."""
        with Witness(os.fsencode(self.root), [], self.database) as witness:
            witness.look("before")
            before()
            made = self.survey()
            during()
            witness.look("after")
            if rows:
                with closing(sqlite3.connect(self.result)) as connection, connection:
                    connection.execute(rows)
            return witness.judge(self.result, report(made))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Give a tree to survey."""
    return Scene(tmp_path)


def test_the_witness_counts_like_the_paglets(scene: Scene) -> None:
    with Witness(os.fsencode(scene.root), [], scene.database) as witness:
        seen = witness.look("before")
    assert seen == scene.survey().totals
    assert seen == Counts(files=4, bytes=31, directories=3, symlinks=1)


def test_what_did_not_change_adds_up(scene: Scene) -> None:
    assert scene.judged() == Verdict([], [], 0)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("UPDATE files SET bytes = bytes + 1 WHERE path = 'four'", "four is missing, or listed with another size"),
        ("DELETE FROM files WHERE path = 'four'", "four is missing"),
        ("INSERT INTO files VALUES ('a/more.py', '.py', 0)", "a/more.py is listed like that, but nobody else saw it"),
        ("INSERT INTO files SELECT * FROM files WHERE path = 'four'", "four is listed twice"),
    ],
)
def test_a_wrong_row_is_noticed(scene: Scene, rows: str, words: str) -> None:
    verdict = scene.judged(rows=rows)
    assert not verdict.sound
    assert [each for each in verdict.differences if words in each]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("files", "the file lists 4 files of 31 bytes, the report says 5"),
        ("bytes", "the types come to 4 files of 31 bytes, the report says 4 files of 32"),
        ("directories", "4 directories were counted where there are 3"),
        ("symlinks", "2 symlinks were counted where there are 1"),
        ("unreadable", "1 unreadable were counted where there are 0"),
    ],
)
def test_a_wrong_total_is_noticed(scene: Scene, field: str, words: str) -> None:
    def wrong(report: SurveyReport) -> SurveyReport:
        return replace(report, totals=replace(report.totals, **{field: getattr(report.totals, field) + 1}))

    verdict = scene.judged(report=wrong)
    assert [each for each in verdict.differences if words in each]


def test_a_wrong_largest_file_is_noticed(scene: Scene) -> None:
    verdict = scene.judged(report=lambda report: replace(report, largest=report.largest[1:] + report.largest[:1]))
    assert [each for each in verdict.differences if each.startswith("the largest files")]


def test_what_changed_before_the_survey_is_forgiven_and_named(scene: Scene) -> None:
    def grow() -> None:
        (scene.root / "four").write_bytes(b"longer than before")
        (scene.root / "a" / "two.txt").unlink()
        (scene.root / "b" / "new").write_bytes(b"new")

    assert scene.judged(before=grow) == Verdict([], ["a/two.txt", "b/new", "four"], 3)


def test_what_changed_after_the_survey_is_forgiven_and_named(scene: Scene) -> None:
    def shrink() -> None:
        (scene.root / "four").write_bytes(b"")
        (scene.root / "b" / "three.py").rename(scene.root / "a" / "three.py")
        (scene.root / "empty").rmdir()

    assert scene.judged(during=shrink) == Verdict([], ["a/three.py", "b/three.py", "four"], 3)


def test_what_came_and_went_is_forgiven(scene: Scene) -> None:
    passing, below = scene.root / "passing", scene.root / "a" / "passing"
    verdict = scene.judged(
        before=lambda: (passing.write_bytes(b"p"), below.write_bytes(b"p"), None)[2],
        during=lambda: (passing.unlink(), below.unlink(), None)[2],
    )
    assert verdict == Verdict([], [], 0)


def test_a_change_elsewhere_excuses_nothing(scene: Scene) -> None:
    verdict = scene.judged(
        before=lambda: (scene.root / "b" / "new").write_bytes(b"new") and None,
        rows="DELETE FROM files WHERE path = 'four'",
    )
    assert verdict.changed == ["b/new"]
    assert "four is missing, or listed with another size" in verdict.differences


def hop(kind: str, source: str, target: str, paglet: str = "s", files: int = 1) -> Move:
    """Return a move."""
    return Move(paglet, kind, source, target, 1.0, 10, files, files * 100)


WHOLE = [
    hop("clone", "alpha", "beta", "b", 0),
    hop("clone", "alpha", "gamma", "c", 0),
    hop("dispatch", "beta", "alpha", "b"),
    hop("dispatch", "gamma", "alpha", "c"),
    hop("dispatch", "alpha", "beta"),
    hop("dispatch", "beta", "gamma"),
    hop("dispatch", "gamma", "alpha"),
]


def test_a_whole_journey_is_right() -> None:
    assert list(journey_differences(WHOLE, "s", HOSTS)) == []


def test_a_wrong_journey_is_noticed() -> None:
    assert list(journey_differences(WHOLE[1:], "s", HOSTS))
    assert list(journey_differences([*WHOLE[:4], *reversed(WHOLE[4:])], "s", HOSTS))
    without = [*WHOLE[:-1], replace(WHOLE[-1], files=0, file_bytes=0)]
    assert list(journey_differences(without, "s", HOSTS)) == ["paglet s went from gamma to alpha without its file"]


def test_moves_are_told_by_their_source_and_ordered_by_arrival() -> None:
    def told(kind: str, paglet: str, source: str, target: str, at: float) -> dict[str, object]:
        where = {"name": target, "seconds": 0.01234, "state_bytes": 5, "files": 1, "file_bytes": 7}
        return {"kind": kind, "agent_id": paglet, "host_name": source, "timestamp": at, "data": {"target": where}}

    def arrived(paglet: str, host: str, at: float) -> dict[str, object]:
        return {"kind": "arrival", "agent_id": paglet, "host_name": host, "timestamp": at, "data": {"kind": "dispatch"}}

    events = [
        told("dispatch", "s", "beta", "gamma", 9.0),
        told("dispatch", "s", "alpha", "beta", 9.5),
        arrived("s", "beta", 1.0),
        arrived("s", "gamma", 2.0),
        {"kind": "dispose", "agent_id": "x", "host_name": "beta", "timestamp": 3.0, "data": {}},
    ]
    moves = moves_of(events)
    assert [(move.source, move.target) for move in moves] == [("alpha", "beta"), ("beta", "gamma")]
    assert moves[0] == Move("s", "dispatch", "alpha", "beta", 12.3, 5, 1, 7)


def test_a_missing_signature_is_noticed(scene: Scene) -> None:
    scene.survey()
    for host in ("beta", "gamma"):
        with SurveyFile(scene.result) as result:
            result.sign(host)
    assert list(visit_differences(scene.result, HOSTS))
    with SurveyFile(scene.result) as result:
        result.sign("alpha")
    assert list(visit_differences(scene.result, HOSTS)) == []
