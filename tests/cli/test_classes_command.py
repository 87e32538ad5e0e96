from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from paglets.cli.app import main

SOURCE = '''
from dataclasses import dataclass
from paglets.core.agent import Paglet

@dataclass
class ClerkState:
    owner: str
    count: int = 3

class Clerk(Paglet):
    """Keep books."""
    State = ClerkState
'''


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clerk_of_test.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    sys.modules.pop("clerk_of_test", None)


@pytest.mark.parametrize("arguments", [["clerk_of_test"], ["clerk_of_test.py"], ["clerk_of_test", "--static"]])
def test_the_table_says_what_a_first_state_needs(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classes", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert any("clerk_of_test:Clerk" in line and "Keep books." in line for line in captured.out.splitlines())
    assert "owner (required), count = 3" in captured.out


def test_json_and_what_could_not_be_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classes", "clerk_of_test", "absent_module", "--static", "--json"]) == 1
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert [each["class_name"] for each in answer["classes"]] == ["clerk_of_test:Clerk"]
    assert answer["classes"][0]["state_template"] == {"count": 3}
    assert len(answer["errors"]) == 1
    assert captured.err.startswith("paglets classes: Could not find the source of module 'absent_module'")
