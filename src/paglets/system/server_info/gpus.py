"""What the GPUs of NVIDIA do: through NVML where its Python package is installed, else through `nvidia-smi`."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from paglets.system.server_info.patience import Patience

GPU_SECONDS: Final = 2.0
_MB: Final = 1024 * 1024
_QUERY: Final = "index,name,utilization.gpu,memory.used,memory.total"
_LONGEST_ERROR: Final = 200

_patience: Final = Patience()


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU; None stands for what it does not tell."""

    index: int
    name: str
    utilization_percent: float | None
    memory_used_mb: float | None
    memory_total_mb: float | None


def read_gpus(seconds: float = GPU_SECONDS) -> tuple[list[GpuReading], str | None]:
    """Return the GPUs, and why there are none to tell of.

    :param seconds: how long it may take.
    """
    try:
        nvml = importlib.import_module("pynvml")  # the extra `gpu`
    except ImportError:
        return _ask_tool(seconds)
    try:
        found = _patience.call("NVML", lambda: _ask_nvml(nvml), seconds)
    except TimeoutError as exc:
        return [], str(exc)  # the tool would ask the same driver
    except nvml.NVMLError:
        return _ask_tool(seconds)
    return found, None if found else "no GPU found"


def _ask_nvml(nvml: Any) -> list[GpuReading]:
    nvml.nvmlInit()
    try:
        return [_reading(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()


def _reading(nvml: Any, index: int) -> GpuReading:
    device = nvml.nvmlDeviceGetHandleByIndex(index)

    def told(question: Callable[[Any], Any]) -> Any:
        try:
            return question(device)
        except nvml.NVMLError:
            return None  # one that is divided, or old, does not tell everything

    name = told(nvml.nvmlDeviceGetName)
    utilization = told(nvml.nvmlDeviceGetUtilizationRates)
    memory = told(nvml.nvmlDeviceGetMemoryInfo)
    return GpuReading(
        index,
        # Older versions of the package give bytes.
        name.decode(errors="replace") if isinstance(name, bytes) else str(name or "GPU"),
        None if utilization is None else float(utilization.gpu),
        None if memory is None else memory.used / _MB,
        None if memory is None else memory.total / _MB,
    )


def _ask_tool(seconds: float) -> tuple[list[GpuReading], str | None]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [], "nvidia-smi not found"
    try:
        done = subprocess.run(
            [tool, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi: no answer within {seconds:g} s"
    except OSError as exc:
        return [], f"nvidia-smi: {exc.strerror or exc}"
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        return [], said[:_LONGEST_ERROR] or f"nvidia-smi ended with exit code {done.returncode}"
    found = [_row(line) for line in done.stdout.splitlines() if line.strip()]
    readings = [each for each in found if each is not None]
    if len(readings) < len(found):
        return readings, "nvidia-smi printed what is not understood"
    return readings, None if readings else "no GPU found"


def _row(line: str) -> GpuReading | None:
    # A name may have a comma in it, the others not.
    index, _, rest = line.partition(",")
    cells = [cell.strip() for cell in rest.rsplit(",", 3)]
    if not index.strip().isdecimal() or len(cells) != 4:
        return None
    return GpuReading(int(index), cells[0], *map(_figure, cells[1:]))


def _figure(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None  # `[N/A]`, `[Not Supported]`
