"""Processor use is real, for machines, containers and single processes, and nothing that hangs holds anybody up."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from paglets.system.server_info.cgroups import ContainerLimits
from paglets.system.server_info.disks import Disks
from paglets.system.server_info.meters import LONGEST_SECONDS, ProcessorMeter
from paglets.system.server_info.patience import MAX_HANGING, Patience
from paglets.system.server_info.processes import MAX_ARGUMENT_CHARACTERS, ProcessSampler
from tests.support import eventually
from tests.system.test_cgroups import V2, machine, write


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waited: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds


# --- processors -------------------------------------------------------------------------------------------------------


class Container(Clock):
    """A container with half a CPU, which uses a part of that while time passes."""

    def __init__(self, root: Path, busy: float) -> None:
        super().__init__()
        self.root = machine(root, "0::/\n", V2)
        self.busy = busy
        write(root, "sys/fs/cgroup/cpu.max", "50000 100000")
        self.pass_time(0.0)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        write(self.root, "sys/fs/cgroup/cpu.stat", f"usage_usec {int(self.now * 0.5 * self.busy * 1e6)}")

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.pass_time(seconds)


def test_a_container_is_as_busy_as_it_may_be(tmp_path: Path) -> None:
    container = Container(tmp_path, busy=0.8)
    meter = ProcessorMeter(ContainerLimits(tmp_path), clock=container, wait=container.wait)
    container.pass_time(5.0)
    assert meter.percent() == 80.0
    assert container.waited == []
    # Asked again at once it waits until there is something to tell, and as long as one wants it to.
    assert meter.percent() == 80.0
    assert meter.percent(2.0) == 80.0
    assert meter.percent(1e9) == 80.0
    assert container.waited == [0.1, 2.0, LONGEST_SECONDS]


def test_a_limit_that_changes_is_no_jump(tmp_path: Path) -> None:
    container = Container(tmp_path, busy=0.5)
    meter = ProcessorMeter(ContainerLimits(tmp_path), clock=container, wait=container.wait)
    container.pass_time(1.0)
    write(tmp_path, "sys/fs/cgroup/cpu.max", "max 100000")
    assert meter.percent() == 0.0
    assert 0.0 <= meter.percent() <= 100.0


def test_a_machine_is_busy_between_idle_and_all(tmp_path: Path) -> None:
    assert 0.0 <= ProcessorMeter(ContainerLimits(tmp_path)).percent() <= 100.0


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def busy_child() -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that does nothing but use a processor."""
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass", "paglets-test-burner"], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_a_busy_process_is_seen_to_be_busy_at_once(busy_child: subprocess.Popen[bytes]) -> None:
    sampler = ProcessSampler()
    (first,), more = sampler.sample("PAGLETS-TEST-burner", 10)
    assert (first.pid, more) == (busy_child.pid, False)
    assert first.cpu_percent > 0
    assert first.memory_rss_bytes > 0
    assert first.username == psutil.Process().username()
    (second,), _ = sampler.sample("paglets-test-burner", 10)
    assert second.cpu_percent > 0


def test_the_second_look_is_skipped_when_the_first_was_shortly_before(busy_child: subprocess.Popen[bytes]) -> None:
    clock = Clock()
    sampler = ProcessSampler(clock=clock, wait=clock.wait)
    sampler.sample("paglets-test-burner", 1)
    assert clock.waited == [0.25]
    clock.now += 2.0
    sampler.sample("paglets-test-burner", 1)
    assert clock.waited == [0.25]
    clock.now += 60.0
    sampler.sample("paglets-test-burner", 1)
    assert clock.waited == [0.25, 0.25]


def test_processes_come_by_memory_and_not_all() -> None:
    rows, more = ProcessSampler().sample("", 3)
    assert len(rows) <= 3
    assert more
    assert [row.memory_rss_bytes for row in rows] == sorted((row.memory_rss_bytes for row in rows), reverse=True)


def test_nobody_matches_what_is_nowhere() -> None:
    assert ProcessSampler().sample("no process is called " + "so" * 20, 3) == ([], False)


def test_long_command_lines_are_cut(busy_child: subprocess.Popen[bytes]) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "input()", "paglets-test-long", "x" * 2 * MAX_ARGUMENT_CHARACTERS], stdin=subprocess.PIPE
    )
    try:
        (row,), _ = ProcessSampler().sample("paglets-test-long", 1)
        assert sum(map(len, row.cmdline)) <= MAX_ARGUMENT_CHARACTERS + 1
    finally:
        child.communicate(b"\n")


# --- disks and what hangs ---------------------------------------------------------------------------------------------


def test_volumes_and_paths(tmp_path: Path) -> None:
    disks = Disks()
    (tmp_path / "file").write_text("x")
    assert "/" in disks.volumes()
    missing, file = str(tmp_path / "missing"), str(tmp_path / "file")
    found, errors = disks.read(["/", missing, file, "/", "a\0b"])
    assert list(found) == ["/", file]
    assert found["/"].total >= found["/"].used > 0
    assert found["/"].percent == round(100 * found["/"].used / (found["/"].used + found["/"].free), 2)
    assert errors[missing] == "No such file or directory"
    assert set(errors) == {missing, "a\0b"}
    assert disks.read([file], files=False) == ({}, {})


def test_what_hangs_is_given_up_and_not_begun_again() -> None:
    patience, gate, begun = Patience(), threading.Event(), []

    def hang() -> None:
        begun.append(1)
        gate.wait()

    with pytest.raises(TimeoutError, match=r"nfs: no answer within 0\.01 s"):
        patience.call("nfs", hang, 0.01)
    with pytest.raises(TimeoutError, match="nfs: an earlier call hangs"):
        patience.call("nfs", hang, 10.0)
    assert patience.statistics() == {"hanging": ["nfs"]}
    for number in range(MAX_HANGING - 1):
        with pytest.raises(TimeoutError):
            patience.call(str(number), hang, 0.001)
    with pytest.raises(TimeoutError, match="hangs"):
        patience.call("one more", lambda: 1, 10.0)
    assert len(begun) == MAX_HANGING
    gate.set()
    eventually(lambda: patience.statistics() == {"hanging": []}, "all calls to come back")
    assert patience.call("nfs", lambda: 7, 10.0) == 7


def test_what_a_call_raises_is_raised() -> None:
    with pytest.raises(PermissionError):
        Patience().call("x", lambda: (_ for _ in ()).throw(PermissionError("no")), 10.0)
