"""What a type checker says about calls and patterns: nothing about right ones, the right thing about wrong ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

RIGHT = ("right_calls.py", "right_patterns.py", "right_services.py")
WRONG = ("wrong_calls.py", "wrong_patterns.py", "wrong_services.py")

_ERROR = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[\w-]+)\]$")
_MARK = re.compile(r"# error: (?P<code>[\w-]+)$")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, str]]]:
    """Return the errors by file name, as pairs of line number and code."""
    mypy = pytest.importorskip("mypy.api")
    arguments = [
        f"--config-file={ROOT / 'pyproject.toml'}",
        f"--cache-dir={tmp_path_factory.mktemp('mypy')}",
        # What is wrong elsewhere is not the matter here.
        "--follow-imports=silent",
        "--no-error-summary",
        "--no-pretty",
        *(str(HERE / name) for name in (*RIGHT, *WRONG)),
    ]
    output, trouble, _status = mypy.run(arguments)
    assert not trouble
    errors: dict[str, list[tuple[int, str]]] = {name: [] for name in (*RIGHT, *WRONG)}
    for line in output.splitlines():
        if (match := _ERROR.match(line)) is not None:
            errors[Path(match["file"]).name].append((int(match["line"]), match["code"]))
        else:
            assert ": note: " in line, line
    return errors


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", RIGHT)
def test_right_calls_have_no_errors(found: dict[str, list[tuple[int, str]]], name: str) -> None:
    assert found[name] == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", WRONG)
def test_every_wrong_call_has_its_error_and_no_other(found: dict[str, list[tuple[int, str]]], name: str) -> None:
    lines = (HERE / name).read_text().splitlines()
    marked = [(number, match["code"]) for number, line in enumerate(lines, 1) if (match := _MARK.search(line))]
    assert len(marked) > 15
    assert found[name] == marked
