"""Every threat of the security page says what stops it and what remains, and names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize(("path", "name"), sorted(set(_TEST.findall(PAGE))), ids=lambda part: part.rpartition("/")[2])
def test_the_tests_of_a_threat_exist(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert any(function.startswith("test_") for function in functions)
    assert not name or name in functions


def test_every_threat_says_what_stops_it_what_remains_and_what_proves_it() -> None:
    threats = re.split(r"^### ", PAGE.partition("## Threats")[2].partition("\n## ")[0], flags=re.MULTILINE)[1:]
    assert len(threats) > 15
    for threat in threats:
        for part in ("- **Stopped by**", "- **Remains**", "- **Proved by**"):
            assert part in threat, (threat.splitlines()[0], part)
        assert _TEST.search(threat), threat.splitlines()[0]
