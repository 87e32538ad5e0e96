"""Ignore files, against git itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from paglets.examples.search.ignoring import rules_of_lines
from tests.effort import thorough
from tests.examples.search.local import names, plant

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git to compare with")


@pytest.fixture(autouse=True)
def no_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


def test_nested_files_with_negation(tmp_path: Path) -> None:
    plant(tmp_path, ["a.log", "keep.log", "sub/a.log", "sub/keep.log", "sub/deep/b.log", "build/x", "src/build/y", "z"])
    (tmp_path / ".gitignore").write_text("*.log\n!keep.log\n/build/\n")
    (tmp_path / "sub" / ".gitignore").write_text("keep.log\n!b.log\n")
    assert names(tmp_path, kind="file") == ["keep.log", "src/build/y", "sub/deep/b.log", "z"]
    assert len(names(tmp_path, kind="file", no_ignore=True)) == 8


def test_what_is_below_an_ignored_directory_cannot_come_back(tmp_path: Path) -> None:
    plant(tmp_path, ["out/a", "out/keep"])
    (tmp_path / ".gitignore").write_text("out/\n!out/keep\n")
    assert names(tmp_path) == []


def test_a_directory_that_comes_back_does_not_bring_its_content(tmp_path: Path) -> None:
    plant(tmp_path, ["src/a.c", "src/b.h", "c"])
    (tmp_path / ".gitignore").write_text("*\n!src/\n!*.h\n")
    assert names(tmp_path) == ["src", "src/b.h"]


def test_the_other_files_of_a_directory_count_more(tmp_path: Path) -> None:
    plant(tmp_path, ["a", "b", "c", "d"])
    (tmp_path / ".gitignore").write_text("a\nb\n")
    (tmp_path / ".ignore").write_text("!a\nc\n")
    (tmp_path / ".fdignore").write_text("!c\n")
    (tmp_path / "mine").write_text("d\n")
    assert names(tmp_path, ignore_files=["mine"]) == ["a", "c", "mine"]


def test_a_single_file_by_its_path(tmp_path: Path) -> None:
    plant(tmp_path / "tree", ["a", "sub/a", "b"])
    (tmp_path / "rules").write_text("/a\n")
    assert names(tmp_path / "tree", ignore_files=[str(tmp_path / "rules")], kind="file") == ["b", "sub/a"]


def test_what_a_user_ignores_everywhere(tmp_path: Path, no_settings: Path) -> None:
    plant(tmp_path, ["a.swp", "b.bak", "c"])
    (no_settings / ".config" / "git").mkdir(parents=True)
    (no_settings / ".config" / "git" / "ignore").write_text("*.swp\n")
    assert names(tmp_path) == ["b.bak", "c"]
    (no_settings / ".gitconfig").write_text("[core]\n\texcludesFile = ~/elsewhere\n")
    (no_settings / "elsewhere").write_text("*.bak\n")
    assert names(tmp_path) == ["a.swp", "c"]
    (tmp_path / ".gitignore").write_text("!b.bak\n")
    assert names(tmp_path) == ["a.swp", "b.bak", "c"]


def test_files_above_count_within_a_repository_alone(tmp_path: Path) -> None:
    plant(tmp_path, ["repo/sub/a.o", "repo/sub/b", "repo/sub/excluded"])
    (tmp_path / ".gitignore").write_text("b\n")
    (tmp_path / "repo" / ".gitignore").write_text("*.o\n")
    assert names(tmp_path / "repo" / "sub") == ["a.o", "b", "excluded"]
    plant(tmp_path / "repo", {".git/info/exclude": "/sub/excluded\n"})
    assert names(tmp_path / "repo" / "sub") == ["b"]
    assert names(tmp_path / "repo") == ["sub", "sub/b"]


def test_a_named_root_is_never_left_out(tmp_path: Path) -> None:
    plant(tmp_path, [".hidden/a", "b.log"])
    (tmp_path / ".gitignore").write_text("*.log\n.hidden\n")
    (tmp_path / ".git").mkdir()
    assert names(tmp_path / ".hidden") == ["a"]
    assert names(tmp_path / "b.log") == [str(tmp_path / "b.log")]


def test_lines_that_mean_nothing_are_passed_over(tmp_path: Path) -> None:
    plant(tmp_path, ["a", "b"])
    (tmp_path / ".gitignore").write_bytes(b"\xef\xbb\xbf# text\r\n\r\n!\r\n[z-a]\r\n\xff\xfe\r\nb\r\n")
    assert names(tmp_path) == ["a"]


def test_an_ignore_file_that_is_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    plant(tmp_path, ["a"])
    os.mkfifo(tmp_path / ".gitignore")
    assert names(tmp_path) == ["a"]


def test_rules_of_nothing_are_none() -> None:
    assert rules_of_lines([]) is None
    assert rules_of_lines(["", "# text"]) is None


_NAMES = ("a", "b", "ab", "a.b", "d", "dd")
_PARTS = st.sampled_from(["a", "b", "*", "a*", "?", "[ab]", "*.b", "d", "**", "dd", "[!a]", "a.b"])
_PATTERN = st.builds(
    lambda negated, anchored, parts, directory: f"{negated}{anchored}{'/'.join(parts)}{directory}",
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(_PARTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
)
_FILES = st.lists(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=3), min_size=1, max_size=8)
_RULES = st.lists(_PATTERN, max_size=4)


@needs_git
@settings(max_examples=thorough(40, 400), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=_FILES, top=_RULES, inner=_RULES)
@example(files=[["a", "a"], ["a", "d", "b"], ["b", "a", "b"]], top=["a/**/"], inner=[])
@example(files=[["a"], ["d", "b"], ["d", "dd", "b"]], top=["d/**/**/", "!/**/"], inner=["**/"])
def test_it_decides_as_git_does(files: list[list[str]], top: list[str], inner: list[str]) -> None:
    with TemporaryDirectory() as directory:
        root = Path(directory)
        _try_to_plant(root, ["/".join(parts) for parts in files])
        (root / ".gitignore").write_text("\n".join(top))
        if (root / "d").is_dir():
            (root / "d" / ".gitignore").write_text("\n".join(inner))
        git = ["git", "-C", directory]
        subprocess.run([*git, "init", "-q"], check=True)
        listed = subprocess.run(
            [*git, "ls-files", "--others", "--exclude-standard", "-z"], check=True, capture_output=True, text=True
        ).stdout
        wanted = sorted(name for name in listed.split("\0") if name and not Path(name).name.startswith("."))
        assert sorted(names(root, kind="file")) == wanted


def _try_to_plant(root: Path, paths: list[str]) -> None:
    for path in paths:
        target = root / path
        if any(parent.is_file() for parent in target.parents) or target.is_dir():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("x")
