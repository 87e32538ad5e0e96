"""The handbook of failures has every error, with what to do about it, and the statuses that hosts answer with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paglets.core import errors
from paglets.core.error_wire import http_status
from paglets.core.errors import PagletError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
EVERY = PAGE.partition("## Every error")[2]
ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, PagletError) and value.__module__ == errors.__name__
]
_ROW = re.compile(r"^\| `(?P<name>\w+)`(?P<status>[\d, ]*) \|(?P<cells>.*)\|$", re.MULTILINE)
ROWS = {match["name"]: match for match in _ROW.finditer(EVERY)}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_has_a_symptom_a_cause_and_a_cure(error: type[PagletError]) -> None:
    row = ROWS[error.__name__]
    cells = [cell.strip() for cell in row["cells"].split("|")]
    assert len(cells) == 3
    if error is not PagletError:
        assert all(cells), error.__name__
        assert http_status(error("")) in [int(status) for status in row["status"].split(",")]


def test_no_error_is_listed_that_is_none() -> None:
    assert set(ROWS) == {error.__name__ for error in ERRORS}


def test_every_symptom_has_a_cause_and_a_cure() -> None:
    tables = re.findall(r"^\| symptom \| cause \| cure \|\n\| --- .*\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for table in tables for row in table.splitlines()]
    assert len(rows) > 35
    assert [row for row in rows if len(row) != 3 or not all(row)] == []
