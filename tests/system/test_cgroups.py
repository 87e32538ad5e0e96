"""The limits of a container are found wherever its kernel puts them, and the tightest counts."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.system.server_info.cgroups import ContainerLimits, MemoryLimit
from paglets.system.server_info.meters import memory, processors

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)
GB = 1 << 30


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def machine(root: Path, groups: str, mounts: str) -> Path:
    write(root, "proc/self/cgroup", groups)
    write(root, "proc/self/mountinfo", mounts)
    return root


def test_without_groups_there_are_no_limits(tmp_path: Path) -> None:
    limits = ContainerLimits(tmp_path)
    assert (limits.cpus(), limits.memory(), limits.cpu_seconds()) == (None, None, None)


def test_the_second_version(tmp_path: Path) -> None:
    machine(tmp_path, "0::/\n", V2)
    group = "sys/fs/cgroup/"
    write(tmp_path, group + "cpu.max", "150000 100000\n")
    write(tmp_path, group + "cpu.stat", "usage_usec 2500000\nuser_usec 1\n")
    write(tmp_path, group + "memory.max", f"{GB}\n")
    write(tmp_path, group + "memory.current", f"{GB // 2}\n")
    write(tmp_path, group + "memory.stat", f"anon 5\ninactive_file {GB // 4}\n")
    limits = ContainerLimits(tmp_path)
    assert (limits.cpus(), limits.cpu_seconds()) == (1.5, 2.5)
    assert limits.memory() == MemoryLimit(GB, 3 * GB // 4)


def test_no_limit_in_the_second_version(tmp_path: Path) -> None:
    machine(tmp_path, "0::/a\n", V2)
    write(tmp_path, "sys/fs/cgroup/a/cpu.max", "max 100000\n")
    write(tmp_path, "sys/fs/cgroup/a/memory.max", "max\n")
    limits = ContainerLimits(tmp_path)
    assert (limits.cpus(), limits.memory()) == (None, None)


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    machine(tmp_path, "0::/outer/middle/inner\n", V2)
    for group, cpus, limit, used in (
        ("outer", 400, 8, 1),
        ("outer/middle", 50, 4, 3.5),
        ("outer/middle/inner", 200, 2, 1),
    ):
        write(tmp_path, f"sys/fs/cgroup/{group}/cpu.max", f"{cpus}000 100000")
        write(tmp_path, f"sys/fs/cgroup/{group}/cpu.stat", f"usage_usec {cpus}000000")
        write(tmp_path, f"sys/fs/cgroup/{group}/memory.max", str(limit * GB))
        write(tmp_path, f"sys/fs/cgroup/{group}/memory.current", str(int(used * GB)))
    limits = ContainerLimits(tmp_path)
    assert (limits.cpus(), limits.cpu_seconds()) == (0.5, 50.0)
    # The inner group may use least, and the middle one has least left.
    assert limits.memory() == MemoryLimit(2 * GB, GB // 2)


def test_the_first_version(tmp_path: Path) -> None:
    machine(tmp_path, "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/docker/x\n", V1)
    cpu, mem = "sys/fs/cgroup/cpu,cpuacct/docker/", "sys/fs/cgroup/memory/docker/"
    write(tmp_path, cpu + "cpu.cfs_quota_us", "-1")
    write(tmp_path, cpu + "cpu.cfs_period_us", "100000")
    write(tmp_path, cpu + "cpuacct.usage", "9000000000")
    write(tmp_path, cpu + "x/cpu.cfs_quota_us", "25000")
    write(tmp_path, cpu + "x/cpu.cfs_period_us", "100000")
    write(tmp_path, cpu + "x/cpuacct.usage", "3000000000")
    write(tmp_path, mem + "memory.limit_in_bytes", "9223372036854771712")
    write(tmp_path, mem + "x/memory.limit_in_bytes", str(2 * GB))
    write(tmp_path, mem + "x/memory.usage_in_bytes", str(GB))
    write(tmp_path, mem + "x/memory.stat", f"total_inactive_file {GB // 2}")
    limits = ContainerLimits(tmp_path)
    assert (limits.cpus(), limits.cpu_seconds()) == (0.25, 3.0)
    assert limits.memory() == MemoryLimit(2 * GB, 3 * GB // 2)


@pytest.mark.parametrize(
    ("group", "inner"),
    [("/docker/x", "/docker/x"), ("/../elsewhere", "/"), ("/docker/x", "/another")],
    ids=["mounted from within", "outside of the namespace", "not below the mount"],
)
def test_a_group_that_is_seen_from_within(tmp_path: Path, group: str, inner: str) -> None:
    machine(tmp_path, f"0::{group}\n", V2.replace(" / /sys", f" {inner} /sys"))
    write(tmp_path, "sys/fs/cgroup/cpu.max", "100000 100000")
    assert ContainerLimits(tmp_path).cpus() == 1.0


def test_a_mount_point_with_a_blank(tmp_path: Path) -> None:
    machine(tmp_path, "0::/a\n", V2.replace("/sys/fs/cgroup", r"/sys/fs/c\040group"))
    write(tmp_path, "sys/fs/c group/a/cpu.max", "100000 100000")
    assert ContainerLimits(tmp_path).cpus() == 1.0


@given(st.text(max_size=200), st.text(max_size=200), st.text(alphabet="0123456789 max-\n.", max_size=40))
def test_whatever_the_kernel_writes_it_is_no_failure(groups: str, mounts: str, limit: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        root = machine(Path(directory), "0::/\n" + groups.replace("\x00", ""), V2 + mounts.replace("\x00", ""))
        write(root, "sys/fs/cgroup/cpu.max", limit)
        write(root, "sys/fs/cgroup/memory.max", limit)
        limits = ContainerLimits(root)
        cpus = limits.cpus()
        assert cpus is None or cpus > 0
        limits.memory()
        limits.cpu_seconds()


def test_limits_are_what_this_process_may_use(tmp_path: Path) -> None:
    machine(tmp_path, "0::/\n", V2)
    write(tmp_path, "sys/fs/cgroup/cpu.max", "50000 100000")
    write(tmp_path, "sys/fs/cgroup/memory.max", str(GB))
    write(tmp_path, "sys/fs/cgroup/memory.current", str(GB // 4))
    limits = ContainerLimits(tmp_path)
    cpus, usable = processors(limits), memory(limits)
    assert (cpus.usable, cpus.limit, cpus.machine) == (1, 0.5, psutil.cpu_count())
    assert (usable.total, usable.used, usable.available, usable.percent) == (GB, GB // 4, 3 * GB // 4, 25.0)


def test_limits_beyond_the_machine_are_none(tmp_path: Path) -> None:
    machine(tmp_path, "0::/\n", V2)
    write(tmp_path, "sys/fs/cgroup/cpu.max", "99900000 100000")
    write(tmp_path, "sys/fs/cgroup/memory.max", str(1 << 60))
    limits = ContainerLimits(tmp_path)
    assert processors(limits).limit is None
    assert memory(limits).total == psutil.virtual_memory().total
