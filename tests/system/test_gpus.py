"""GPUs are found through NVML or `nvidia-smi`, and it is said why there are none."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from paglets.system.server_info.agent import GpuInfo, collect_gpu_info
from paglets.system.server_info.gpus import read_gpus
from tests.support import eventually

MB = 1024 * 1024


class FakeNvml(ModuleType):
    """What this code uses of `pynvml`, for two GPUs of which the second tells little."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.open = 0
        self.broken = False
        self.gate: threading.Event | None = None

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise self.NVMLError("Driver Not Loaded")
        if self.gate is not None:
            self.gate.wait()
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, device: int) -> Any:  # noqa: N802
        return ["NVIDIA H200", b"Tesla K80"][device]

    def nvmlDeviceGetUtilizationRates(self, device: int) -> Any:  # noqa: N802
        if device:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(gpu=37, memory=5)

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:  # noqa: N802
        if device:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(total=141 * 1024 * MB, used=1536 * MB, free=0)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    yield fake
    assert fake.open == 0


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give the only directory on the path; without NVML unless a test has that as well."""
    if not isinstance(sys.modules.get("pynvml"), FakeNvml):
        monkeypatch.setitem(sys.modules, "pynvml", None)
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def install(tools: Path, script: str) -> None:
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tools / "nvidia-smi").chmod(0o755)


def test_nvml_tells_what_each_gpu_tells(nvml: FakeNvml) -> None:
    assert collect_gpu_info() == (
        [GpuInfo(0, "NVIDIA H200", 37.0, 1536.0, 141 * 1024.0), GpuInfo(1, "Tesla K80", None, None, None)],
        None,
    )


def test_a_driver_that_hangs_is_given_up(nvml: FakeNvml) -> None:
    nvml.gate = threading.Event()
    assert read_gpus(0.01) == ([], "NVML: no answer within 0.01 s")
    nvml.gate.set()
    # It is asked again once the first call has come back.
    found = eventually(lambda: read_gpus(10.0)[0], "the driver to answer")
    assert len(found) == 2


def test_the_tool_is_asked_where_nvml_does_not_work(nvml: FakeNvml, tools: Path) -> None:
    nvml.broken = True
    assert collect_gpu_info() == ([], "nvidia-smi not found")
    install(tools, 'echo "0, NVIDIA A10, 5, 100, 24000"')
    assert collect_gpu_info() == ([GpuInfo(0, "NVIDIA A10", 5.0, 100.0, 24000.0)], None)


def test_the_real_package_is_understood() -> None:
    """With a driver or without: whatever this machine has, it is GPUs or a reason."""
    assert importlib.import_module("pynvml").NVMLError
    found, error = collect_gpu_info()
    assert bool(found) == (error is None)


def test_no_tool(tools: Path) -> None:
    assert collect_gpu_info() == ([], "nvidia-smi not found")


def test_the_tool_is_asked_for_what_is_needed(tools: Path) -> None:
    install(
        tools,
        '[ "$1" = --query-gpu=index,name,utilization.gpu,memory.used,memory.total ] || exit 9\n'
        'echo "0, NVIDIA A10, rev. 2, [N/A], [Not Supported], 24000"\necho "1, B, 12.5, 1, 2"',
    )
    assert collect_gpu_info() == (
        [GpuInfo(0, "NVIDIA A10, rev. 2", None, None, 24000.0), GpuInfo(1, "B", 12.5, 1.0, 2.0)],
        None,
    )


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo No devices were found; exit 6", "No devices were found"),
        ("exit 9", "nvidia-smi ended with exit code 9"),
        ("true", "no GPU found"),
        ("echo Hello", "nvidia-smi printed what is not understood"),
    ],
)
def test_a_tool_that_has_nothing_to_tell(tools: Path, script: str, error: str) -> None:
    install(tools, script)
    assert collect_gpu_info() == ([], error)


def test_a_tool_that_hangs_is_ended(tools: Path) -> None:
    install(tools, "read line < /dev/zero")
    assert read_gpus(0.1) == ([], "nvidia-smi: no answer within 0.1 s")
