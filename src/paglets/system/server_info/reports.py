"""Asking all hosts from outside, and their answers as tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple

from paglets.core.errors import RemoteTimeoutError
from paglets.core.messages import Message
from paglets.remote.admin import PagletsAdminClient, ServerRef
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.remote.requests import dict_of
from paglets.serialization.codec import qualified_name
from paglets.system.server_info.agent import SystemInfoCollectorAgent, SystemInfoCollectorState

WAIT_SECONDS: Final = 0.5
SLACK_SECONDS: Final = 5.0

SizeText = Callable[[float], str]


def collect(
    client: HostClient, entry: ServerRef, operation: str, request: dict[str, Any], *, timeout: float
) -> dict[str, Any]:
    """Return what the hosts of a mesh answer: the summary of a collector, which lives no longer than this call.

    :param operation: an operation of the server-info service.
    :param timeout: seconds for the answers, beside those over which a request has something measured.
    :raises PagletError: the collector could not do its work. Hosts that do not answer are in its `errors`.
    """
    names = qualified_name(SystemInfoCollectorAgent), qualified_name(SystemInfoCollectorState)
    created = PagletsAdminClient([entry], client=client).create_agent(entry, *names, {"timeout": timeout})
    collector = PagletProxy(entry.url, created["agent_id"], client)
    timeout += float(request.get("interval", 0.0))
    limit = timeout + SLACK_SECONDS
    give_up = time.monotonic() + limit
    try:
        order = {"operation": operation, "request": request, "timeout": timeout}
        collector.send(Message("collect", order), timeout=limit)
        while time.monotonic() < give_up:
            answer = dict_of(collector.send(Message("drain", {"wait_timeout": WAIT_SECONDS}), timeout=limit), entry.url)
            if answer["done"]:
                return dict_of(answer["summary"], entry.url)
        raise RemoteTimeoutError(f"the collector on {entry.name} does not come to an end")
    finally:
        collector.dispose()


class Report(NamedTuple):
    """A table, and what went wrong."""

    columns: list[str]
    rows: list[list[str]]
    right: set[str]
    errors: dict[str, str]


def report_of(summary: dict[str, Any], size: SizeText) -> Report:
    """Return the summary of a collector as a table, sorted by host.

    :param size: writes a number of bytes.
    """
    columns, right, rows_of = _REPORTS[summary["operation"]]
    results = sorted(summary["results"].items())
    rows = [[host, *row] for host, told in results for row in rows_of(told["result"], size)]
    return Report(columns, rows, right, dict(summary["errors"]))


def _load(result: dict[str, Any], size: SizeText) -> list[list[str]]:
    load = " ".join(f"{each:.2f}" for each in result["load_average"]) or "-"
    gpus = ", ".join(_gpu(each, size) for each in result["gpus"]) or "-"
    return [[*(_percent(result[f"{part}_percent"]) for part in ("cpu", "memory", "swap")), load, gpus]]


def _gpu(gpu: dict[str, Any], size: SizeText) -> str:
    busy, used, total = gpu["utilization_percent"], gpu["memory_used_mb"], gpu["memory_total_mb"]
    memory = "" if used is None or total is None else f" {size(used * 1024**2)}/{size(total * 1024**2)}"
    return ("?" if busy is None else f"{busy:.0f}%") + memory


def _disks(result: dict[str, Any], size: SizeText) -> list[list[str]]:
    rows = [
        [
            each["path"],
            size(each["total_bytes"]),
            size(each["used_bytes"]),
            size(each["free_bytes"]),
            _percent(each["percent_used"]),
        ]
        for each in result["volumes"]
    ]
    return rows + [[path, f"error: {text}", "", "", ""] for path, text in sorted(result["errors"].items())]


def _processes(result: dict[str, Any], size: SizeText) -> list[list[str]]:
    return [
        [
            str(each["pid"]),
            size(each["memory_rss_bytes"]),
            _percent(each["memory_percent"]),
            _percent(each["cpu_percent"]),
            each["status"],
            " ".join(each["cmdline"]) or each["name"],
        ]
        for each in result["processes"]
    ]


def _summary(result: dict[str, Any], size: SizeText) -> list[list[str]]:
    logical, limit = result["cpu_count_logical"], result.get("cpu_limit")
    cpus = f"{logical}" if limit is None else f"{limit:g} of {result['cpu_count_machine']}"
    booted = datetime.fromtimestamp(result["boot_time"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return [[cpus, size(result["memory_total_bytes"]), booted, result["platform"]]]


def _percent(value: float) -> str:
    return f"{value:.1f}"


_Rows = Callable[[dict[str, Any], SizeText], list[list[str]]]
_REPORTS: Final[dict[str, tuple[list[str], set[str], _Rows]]] = {
    "load": (["host", "cpu%", "mem%", "swap%", "load", "gpu"], {"cpu%", "mem%", "swap%"}, _load),
    "df": (["host", "path", "size", "used", "free", "use%"], {"size", "used", "free", "use%"}, _disks),
    "plist": (
        ["host", "pid", "rss", "mem%", "cpu%", "status", "name"],
        {"pid", "rss", "mem%", "cpu%"},
        _processes,
    ),
    "summary": (["host", "cpu", "mem", "booted", "platform"], {"cpu", "mem"}, _summary),
}
