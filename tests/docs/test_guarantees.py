"""Every promise of the documentation names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def named_tests() -> list[tuple[str, str]]:
    return sorted(set(_TEST.findall(PAGE)))


@pytest.mark.parametrize(("path", "name"), named_tests(), ids=lambda part: part.rpartition("/")[2])
def test_the_tests_that_prove_a_promise_exist(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert any(function.startswith("test_") for function in functions)
    assert not name or name in functions


def test_every_promise_says_what_it_costs_where_it_ends_and_what_proves_it() -> None:
    promises = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
    assert len(promises) > 10
    for promise in promises:
        for part in ("- **Costs**", "- **Ends**", "- **Proved by**"):
            assert part in promise, (promise.splitlines()[0], part)
