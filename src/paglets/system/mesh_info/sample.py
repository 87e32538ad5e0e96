"""How the own host does, put together from its services."""

from __future__ import annotations

import time
from typing import Any, Final

from paglets.core.agent import Paglet
from paglets.core.errors import RemoteTimeoutError
from paglets.system.server_info.agent import GET_LOAD, GET_SUMMARY, SERVER_INFO, LoadReply, LoadRequest, SummaryReply
from paglets.system.server_info.disks import Disks

SERVICE_SECONDS: Final = 2.0
SUMMARY_SECONDS: Final = 60.0


class LocalSampler:
    """Asks the server-info service of the host that a paglet is on, and looks at its work directory and host."""

    def __init__(self) -> None:
        self._disks = Disks()
        self._summary: SummaryReply | None = None
        self._summary_at = 0.0
        self._load: LoadReply | None = None
        self._load_at = 0.0

    def sample(self, paglet: Paglet[Any], *, include_gpu: bool, patience: float = 0.0) -> dict[str, Any]:
        """Return the fields of a snapshot but its time; what fails is told in `errors`, and its fields are missing.

        :param patience: for so many seconds the last load counts where the service is busy: it answers one question
            after the other, and one may have it measure for a while.
        """
        health = paglet.context.host.health()
        found: dict[str, Any] = {
            "host_name": paglet.context.name,
            "host_url": paglet.context.address,
            "code_version": str(health.get("code_version", "")),
            "active_count": int(health.get("active_count", 0)),
            "inactive_count": int(health.get("inactive_count", 0)),
            "host_tags": tuple(health.get("tags", ())),
            "host_properties": dict(health.get("properties", {})),
        }
        errors: list[str] = []
        load = summary = None
        try:
            load = self._how_busy(paglet, include_gpu, patience)
        except Exception as exc:  # one part that fails must not hide the others
            errors.append(f"load: {exc}")
        try:
            summary = self._what_it_is(paglet)
        except Exception as exc:  # likewise
            errors.append(f"summary: {exc}")
        found |= _figures(load, summary)
        try:
            found |= self._work_disk(str(paglet.work_dir()))
        except Exception as exc:  # likewise
            errors.append(f"work-disk: {exc}")
        return found | {"errors": errors}

    def _how_busy(self, paglet: Paglet[Any], include_gpu: bool, patience: float) -> LoadReply:
        try:
            self._load = paglet.require_contract(SERVER_INFO).call(
                GET_LOAD, LoadRequest(include_gpu=include_gpu), timeout=SERVICE_SECONDS
            )
        except RemoteTimeoutError:
            if self._load is None or time.monotonic() - self._load_at > patience:
                raise
        else:
            self._load_at = time.monotonic()
        return self._load

    def _what_it_is(self, paglet: Paglet[Any]) -> SummaryReply:
        # It hardly ever changes; only the limits of a container do at times.
        if self._summary is None or time.monotonic() - self._summary_at > SUMMARY_SECONDS:
            self._summary = paglet.require_contract(SERVER_INFO).call(GET_SUMMARY, timeout=SERVICE_SECONDS)
            self._summary_at = time.monotonic()
        return self._summary

    def _work_disk(self, path: str) -> dict[str, Any]:
        usages, errors = self._disks.read([path])
        if path not in usages:
            raise OSError(errors[path])
        usage = usages[path]
        return {
            "work_path": path,
            "work_total_bytes": usage.total,
            "work_free_bytes": usage.free,
            "work_percent_used": usage.percent,
        }


def _figures(load: LoadReply | None, summary: SummaryReply | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if summary is not None:
        found |= {
            "platform": summary.platform,
            "cpu_count_logical": summary.cpu_count_logical,
        }
    if load is not None:
        found |= {
            "cpu_percent": load.cpu_percent,
            "load_average": load.load_average,
            "memory_total_bytes": load.memory_total_bytes,
            "memory_available_bytes": load.memory_available_bytes,
            "memory_percent": load.memory_percent,
            "swap_percent": load.swap_percent,
        }
    if load is not None and summary is not None and load.load_average:
        found["load_per_cpu"] = load_per_cpu(load.load_average[0], load.cpu_percent, summary)
    return found


def load_per_cpu(load: float, cpu_percent: float, summary: SummaryReply) -> float:
    """Return the load of one minute per CPU.

    That load is always of the whole machine. In a container with a limit it says how the machine does, and how much of
    the limit is used says how the container does; the worse counts.
    """
    if summary.cpu_limit is None:
        return round(load / max(1, summary.cpu_count_logical), 4)
    machine = load / max(1, summary.cpu_count_machine or summary.cpu_count_logical)
    return round(max(machine, cpu_percent / 100), 4)
