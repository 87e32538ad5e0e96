"""Programs where packages are missing that only parts of them need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paglets.remote.client import HostClient
from tests.cli.processes import Program, all_gone
from tests.support import Gate

ROOT = Path(__file__).resolve().parents[2]
MISSING = ("psutil", "setproctitle", "pathspec")

Start = Callable[..., Program]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Give a path for modules on which these packages cannot be imported, by no process."""
    absent = tmp_path / "absent"
    absent.mkdir()
    for name in MISSING:
        (absent / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name={name!r})\n")
    return os.pathsep.join([str(absent), str(ROOT / "src"), str(ROOT)])


@pytest.fixture
def start(path: str) -> Iterator[Start]:
    """Give what starts a program there; it is gone after the test."""
    programs: list[Program] = []

    def begin(*arguments: str) -> Program:
        programs.append(Program(*arguments, PYTHONPATH=path))
        return programs[-1]

    yield begin
    for program in programs:
        program.close()


@pytest.fixture
def host(start: Start, tmp_path: Path) -> Program:
    """Give a host with the services of the bundled launch configuration."""
    given = ["--name", "alpha", "--port", "0", "--persistence-dir", str(tmp_path / "alpha"), "--mesh-version", "test"]
    return start("host", *given, "--launch-config", str(tmp_path / "launch.toml"), "--json", "--log-level", "error")


def test_paglets_run_and_what_cannot_be_done_says_what_to_install(host: Program, start: Start, tmp_path: Path) -> None:
    # Given a host, which starts and runs paglets
    address = host.json_line()["address"]
    with HostClient() as client:
        reply = client.post_json(f"{address}/agents", {"agent_class_name": "tests.agents.actor:Quiet"})
        assert client.agent_info(address, reply["proxy"]["agent_id"])["active"] is True

    def said(*arguments: str) -> tuple[int, list[str], list[str]]:
        program = start(*arguments, "--entry", address)
        return program.wait(), program.out, program.err

    # Then machines cannot be told about
    code, out, err = said("sys", "load", "--no-gpu")
    assert (code, err) == (1, [])
    advice = "which is not installed here: pip install"
    assert out[-1] == f"- alpha: telling about a machine needs the package psutil, {advice} psutil"
    # And files are searched, but for those whose ignore files would have to be obeyed
    files = tmp_path / "files"
    files.mkdir()
    (files / "notes.txt").write_text("a hello\n")
    code, out, err = said("search", "grep", "hello", str(files))
    assert (code, len(out), err) == (0, 1, [])
    (files / ".gitignore").write_text("*.o\n")
    code, out, err = said("search", "grep", "hello", str(files))
    assert (code, out) == (1, [])
    (line,) = err
    assert line.endswith(f"leaving out what ignore files name needs the package pathspec, {advice} pathspec")
    assert said("search", "grep", "hello", str(files), "--no-ignore")[0] == 0

    # And it stops in order
    children = host.children()
    host.process.send_signal(signal.SIGTERM)
    assert host.wait() == 0
    assert host.err == []
    all_gone(children)


def test_a_second_signal_ends_a_host_with_its_paglets(host: Program, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    address = host.json_line()["address"]
    with HostClient() as client:
        reply = client.post_json(f"{address}/agents", {"agent_class_name": "tests.agents.actor:Actor"})
        url = f"{address}/agents/{reply['proxy']['agent_id']}/messages"
        client.post_json(url, {"message": {"kind": "do", "args": {"steps": f"gate {gate}"}}, "oneway": True})
    gate.await_entered()
    children = host.children()
    host.process.send_signal(signal.SIGTERM)
    while host.process.poll() is None:
        host.process.send_signal(signal.SIGTERM)
    assert host.wait() == 128 + signal.SIGTERM
    assert not [line for line in host.err if "Traceback" in line]
    all_gone(children)
    gate.open()


@pytest.mark.parametrize(
    "module",
    [
        "paglets.cli.host_run",
        "paglets.runtime.launch.zygote_main",
        "paglets.system.mesh_info.agent",
        "paglets.system.server_info.agent",
        "paglets.system.server_info.reports",
        "paglets.testing.interpose",
        "paglets.examples.search.agent",
    ],
)
def test_nothing_is_needed_to_be_imported(module: str, path: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"], env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE
    )
    assert done.returncode == 0, done.stderr.decode()
