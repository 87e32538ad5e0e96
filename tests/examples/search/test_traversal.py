"""Which files are looked at."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from paglets.examples.search.models import SEARCH_TYPES
from tests.examples.search.local import found, names, plant, search

TREE = ["b/x.py", "b/y.txt", "a.py", "c/d/e/deep.py", ".hidden/z.py", ".dot.py", "B.TXT"]


def test_order_is_depth_first_and_by_name(tmp_path: Path) -> None:
    plant(tmp_path, TREE)
    assert names(tmp_path) == ["B.TXT", "a.py", "b", "b/x.py", "b/y.txt", "c", "c/d", "c/d/e", "c/d/e/deep.py"]
    assert names(tmp_path, hidden=True, kind="file")[:3] == [".dot.py", ".hidden/z.py", "B.TXT"]


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({"kind": "dir"}, ["b", "c", "c/d", "c/d/e"]),
        ({"max_depth": 1}, ["B.TXT", "a.py", "b", "c"]),
        ({"max_depth": 0}, []),
        ({"extensions": ["txt"]}, ["B.TXT", "b/y.txt"]),
        ({"extensions": [".PY"], "max_depth": 2}, ["a.py", "b/x.py"]),
        ({"globs": ["*.py"]}, ["a.py", "b/x.py", "c/d/e/deep.py"]),
        ({"globs": ["b/*"]}, ["b/x.py", "b/y.txt"]),
        ({"globs": ["b"]}, ["b", "b/x.py", "b/y.txt"]),
        ({"globs": ["!c", "!*.txt"], "kind": "file"}, ["B.TXT", "a.py", "b/x.py"]),
        ({"globs": ["*.py", "!deep*"]}, ["a.py", "b/x.py"]),
        ({"type_names": ["py"]}, ["a.py", "b/x.py", "c/d/e/deep.py"]),
        ({"type_not_names": ["py"], "kind": "file"}, ["B.TXT", "b/y.txt"]),
        ({"pattern": "^b"}, ["b"]),
        ({"pattern": "^b", "ignore_case": True}, ["B.TXT", "b"]),
        ({"pattern": "d/e/", "full_path": True}, ["c/d/e/deep.py"]),
        ({"pattern": ".py", "fixed_strings": True, "max_depth": 1}, ["a.py"]),
    ],
)
def test_names(tmp_path: Path, fields: dict[str, object], result: list[str]) -> None:
    assert names(plant(tmp_path, TREE), **fields) == result


def test_paths_begin_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, ["sub/a"])
    monkeypatch.chdir(tmp_path)
    assert found(".", mode="find", kind="file") == ["sub/a"]
    events, _ = search("./sub", mode="find")
    assert [event.path for event in events] == ["./sub/a"]
    events, _ = search("sub/", mode="find")
    assert [event.path for event in events] == ["sub/a"]
    events, _ = search("sub", mode="find", absolute_path=True)
    assert [event.path for event in events] == [str(tmp_path / "sub" / "a")]
    monkeypatch.setenv("HOME", str(tmp_path))
    events, _ = search("~/sub", mode="find")
    assert [event.path for event in events] == [str(tmp_path / "sub" / "a")]


def test_several_roots_and_one_that_is_missing(tmp_path: Path) -> None:
    plant(tmp_path, ["a", "b"])
    missing = str(tmp_path / "missing")
    events, summary = search("", "needle", paths=[str(tmp_path / "b"), missing, str(tmp_path / "a")])
    assert [(event.event, Path(event.path).name) for event in events] == [
        ("match", "b"),
        ("error", "missing"),
        ("match", "a"),
    ]
    assert summary.errors == [f"{missing}: path does not exist"]


def test_links(tmp_path: Path) -> None:
    plant(tmp_path, ["real/a"])
    (tmp_path / "to-dir").symlink_to("real")
    (tmp_path / "to-file").symlink_to("real/a")
    (tmp_path / "broken").symlink_to("nowhere")
    assert found(tmp_path, "needle") == ["real/a"]
    assert found(tmp_path, "needle", follow=True) == ["real/a", "to-dir/a", "to-file"]
    assert names(tmp_path, kind="symlink") == ["broken", "to-dir", "to-file"]
    assert names(tmp_path, kind="symlink", follow=True) == ["broken"]
    # What was named is looked at, link or not.
    assert found(tmp_path / "to-dir", "needle") == ["a"]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    plant(tmp_path, ["one/a", "two/b"])
    (tmp_path / "one" / "two").symlink_to(tmp_path / "two")
    (tmp_path / "two" / "one").symlink_to(tmp_path / "one")
    (tmp_path / "one" / "self").symlink_to(".")
    events, summary = search(tmp_path, "needle", follow=True)
    assert [event.path.removeprefix(f"{tmp_path}/") for event in events if event.event == "match"] == [
        "one/a",
        "one/two/b",
        "two/b",
        "two/one/a",
    ]
    assert len(summary.errors) == 4
    assert all("not followed" in error for error in summary.errors)


def test_files_that_are_none_are_left_alone(tmp_path: Path) -> None:
    plant(tmp_path, ["a"])
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        events, summary = search(tmp_path, "needle")
        assert (len(events), summary.files_seen, summary.errors) == (1, 1, [])
        assert names(tmp_path) == ["a", "pipe", "socket"]
        assert names(tmp_path, kind="file") == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    plant(tmp_path, ["closed/a", "file", "open"])
    (tmp_path / "closed").chmod(0)
    (tmp_path / "file").chmod(0)
    try:
        events, summary = search(tmp_path, "needle")
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert summary.errors == [f"{tmp_path}/closed: permission denied", f"{tmp_path}/file: permission denied"]
    assert [event.event for event in events] == ["error", "error", "match"]


def test_a_file_that_vanishes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, ["a", "b"])
    real = os.open

    def vanishing(path: str, flags: int) -> int:
        if str(path).endswith("/a"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", vanishing)
    events, summary = search(tmp_path, "needle")
    assert summary.errors == [f"{tmp_path}/a: no such file or directory"]
    assert [event.event for event in events] == ["error", "match"]


def test_a_directory_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, ["closed/a", "open/b"])
    real = os.scandir

    def refusing(path: str) -> object:
        if path.endswith("/closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    events, summary = search(tmp_path, "needle")
    assert summary.errors == [f"{tmp_path}/closed: permission denied"]
    assert [event.event for event in events] == ["error", "match"]


def test_errors_are_bounded(tmp_path: Path) -> None:
    events, summary = search("", paths=[f"{tmp_path}/{number}" for number in range(150)])
    assert (len(events), len(summary.errors), summary.errors[-1]) == (100, 101, "and 50 more errors")


def test_names_that_are_no_text_are_found(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT), "w") as stream:
        stream.write("needle\n")
    events, _ = search(tmp_path, "needle")
    assert [event.path for event in events] == [f"{tmp_path}/caf\ufffd.txt"]


def test_an_unknown_type_is_an_error(tmp_path: Path) -> None:
    _, summary = search(tmp_path, "x", type_names=["cobol"])
    assert "unknown file type 'cobol'" in summary.errors[0]


def test_types() -> None:
    assert SEARCH_TYPES["py"] == SEARCH_TYPES["python"] == ("*.py",)
    assert SEARCH_TYPES["cpp"] == ("*.cc", "*.cpp", "*.cxx", "*.hh", "*.hpp", "*.hxx")
    names = ["c", "cpp", "css", "go", "html", "java", "js", "json", "md", "py", "python", "rs", "sh", "text", "toml"]
    assert set(SEARCH_TYPES) == {*names, "ts", "txt", "yaml"}
