from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import HostError
from paglets.persistence.directory import (
    DirectoryLock,
    safe_agent_dir,
    safe_class_key,
    safe_host_name,
    validate_agent_id,
)

HOLDER = """
import sys
from paglets.persistence.directory import DirectoryLock
lock = DirectoryLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("agent_id", ["a", "0" * 32, "service.mesh-info", "A_b-c.d", "x" * 128, "-", "a..b"])
def test_valid_agent_ids(agent_id: str) -> None:
    assert validate_agent_id(agent_id) == agent_id
    assert safe_agent_dir(agent_id) == agent_id


@pytest.mark.parametrize(
    "agent_id",
    ["", ".", "..", ".hidden", "a/b", "../x", "a\\b", "a b", "a\n", "ü", "x" * 129, "a\0", "~", None, 7, b"a"],
)
def test_invalid_agent_ids(agent_id: Any) -> None:
    with pytest.raises(HostError, match="Invalid agent id"):
        validate_agent_id(agent_id)
    with pytest.raises(HostError):
        safe_agent_dir(agent_id)


@pytest.mark.parametrize(("agent_id", "name"), [("NUL", "~NUL~"), ("con.txt", "~con.txt~"), ("x.", "~x.~")])
def test_ids_that_are_no_file_names_everywhere_are_marked(agent_id: str, name: str) -> None:
    assert safe_agent_dir(agent_id) == name


@given(st.lists(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,12}", fullmatch=True), unique=True))
def test_agent_directories_are_different_for_different_ids(agent_ids: list[str]) -> None:
    assert len({safe_agent_dir(agent_id) for agent_id in agent_ids}) == len(agent_ids)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alpha", "alpha"),
        ("lab 3/left", "lab_3_left"),
        ("Büro", "Büro"),
        ("", "host"),
        (".", "_."),
        ("..", "_.."),
        ("nul", "_nul"),
        ("a.b-c_d", "a.b-c_d"),
    ],
)
def test_safe_host_name(name: str, expected: str) -> None:
    assert safe_host_name(name) == expected


def test_safe_class_key() -> None:
    assert safe_class_key("pkg.mod:Outer.Inner") == "pkg.mod.Outer.Inner"
    assert safe_class_key("pkg:Weird[int]") == "pkg.Weird_int_"


@given(st.text(max_size=400))
def test_a_safe_name_is_one_path_component(name: str) -> None:
    safe = safe_host_name(name)
    assert safe
    assert safe not in (".", "..")
    assert len(safe.encode()) <= 200
    assert not set(safe) & set('/\\:*?"<>|\0')


def test_long_names_stay_different() -> None:
    assert safe_host_name("x" * 300) != safe_host_name("x" * 301)


# the lock


def test_a_directory_has_one_holder(tmp_path: Path) -> None:
    directory = tmp_path / "new"
    first, second = DirectoryLock(directory), DirectoryLock(directory)
    first.acquire()
    first.acquire()
    assert first.held
    with pytest.raises(HostError, match=f"in use by process {os.getpid()}"):
        second.acquire()
    assert not second.held

    first.release()
    first.release()
    second.acquire()
    second.release()


def test_lock_as_context_manager(tmp_path: Path) -> None:
    with DirectoryLock(str(tmp_path)) as lock:
        assert lock.held
        assert lock.path == tmp_path / "host.lock"
    assert not lock.held


def test_a_killed_holder_leaves_the_directory_free(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(HostError, match=f"process {holder.pid}"):
            DirectoryLock(tmp_path).acquire()
        holder.kill()
        holder.wait()
        with DirectoryLock(tmp_path):
            pass


def test_a_lock_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "host.lock").mkdir()
    with pytest.raises(HostError, match="Cannot open the host lock"):
        DirectoryLock(tmp_path).acquire()
