"""A new project runs, is tested, and is written as a whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paglets.cli.app import main
from paglets.tooling import new_project as module
from paglets.tooling.new_project import ProjectError, new_project, package_of

SOURCE = Path(__file__).resolve().parents[2] / "src"


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{directory / 'src'}{os.pathsep}{SOURCE}"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=80,
    )


def test_it_runs_and_is_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "my-first", "--dir", str(tmp_path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["package"] == "my_first"
    project = Path(made["directory"])
    assert project == tmp_path / "my-first"
    assert set(made["files"]) >= {"pyproject.toml", ".gitignore", "launch.toml", "README.md", "tests/test_counter.py"}
    texts = [path.read_text() for path in project.rglob("*") if path.is_file()]
    assert not any("@package@" in text or "@project@" in text for text in texts)

    tests = run(project, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert (tests.returncode, "4 passed" in tests.stdout) == (0, True), tests.stdout + tests.stderr
    program = run(project, "-m", "my_first.main")
    assert (program.returncode, program.stderr) == (0, "")
    assert program.stdout.splitlines() == [
        "on alpha: 2",
        "on beta: 5",
        "{'count': 5, 'host': 'beta', 'visited': ['beta']}",
    ]
    checked = run(project, "-m", "paglets", "config", "check", "launch.toml", "--classes")
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    "name", ["", "1st", "a b", "../x", "a/b", "-a", "a-", "a--b", "class", "json", "paglets", "tests", "x" * 61, "ä"]
)
def test_names_that_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="cannot name a project"):
        new_project(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    assert main(["new", "mine", "--dir", str(tmp_path)]) == 1
    assert "exists already; choose another name or --dir" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "file"]
    with pytest.raises(ProjectError, match="is no directory"):
        new_project("other", tmp_path / "absent")


def test_nothing_is_left_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES", {**module.FILES, "more": "no-such-template"})
    with pytest.raises(FileNotFoundError):
        new_project("mine", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_package_of_a_name() -> None:
    assert [package_of(name) for name in ("One", "a-b_c", "x2")] == ["one", "a_b_c", "x2"]
