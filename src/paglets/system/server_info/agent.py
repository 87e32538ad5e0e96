"""The service that tells how busy a machine is, and the paglet that asks the services of all hosts."""

from __future__ import annotations

import os
import platform
from dataclasses import astuple, dataclass, field, replace
from typing import Any, ClassVar, Final

from paglets.core.agent import NOT_HANDLED, Paglet, PagletState
from paglets.core.errors import HostError
from paglets.core.events import CreationEvent, PersistencyEvent
from paglets.core.messages import Message
from paglets.core.runtime_values import Durability, ResidentLifecycle, ServiceScope
from paglets.serialization.codec import to_wire
from paglets.services.contracts import EmptyPayload, ServiceContract, ServiceOperation
from paglets.services.resident import ResidentServiceSpec
from paglets.system.server_info.cgroups import ContainerLimits
from paglets.system.server_info.collecting import Collecting
from paglets.system.server_info.disks import Disks
from paglets.system.server_info.gpus import read_gpus
from paglets.system.server_info.meters import ProcessorMeter, memory, processors
from paglets.system.server_info.processes import ProcessSampler, sendable

MAX_PROCESSES: Final = 10_000


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """One GPU; None stands for what it does not tell. A MB has 1,048,576 bytes."""

    index: int
    name: str
    utilization_percent: float | None = None
    memory_used_mb: float | None = None
    memory_total_mb: float | None = None


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """How busy is the machine?"""

    interval: float = 0.0
    """Seconds over which CPU use is measured, at most ten; 0 since the last question."""
    include_gpu: bool = True


@dataclass(frozen=True, slots=True)
class LoadReply:
    """How busy the machine is, or the container that the host runs in."""

    host_name: str
    host_url: str
    cpu_percent: float
    load_average: list[float] = field(default_factory=list)
    """Over 1, 5 and 15 minutes, always of the whole machine; empty where the system has none."""
    memory_total_bytes: int = 0
    memory_used_bytes: int = 0
    memory_available_bytes: int = 0
    memory_percent: float = 0.0
    swap_total_bytes: int = 0
    swap_used_bytes: int = 0
    swap_percent: float = 0.0
    gpu_available: bool = False
    gpu_error: str | None = None
    """Why there is nothing about GPUs."""
    gpus: list[GpuInfo] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DiskRequest:
    """How full are volumes?"""

    paths: list[str] = field(default_factory=list)
    """Those that these paths are on, at most 256."""
    all_volumes: bool = True
    """Without paths: all that are mounted, instead of the root alone."""


@dataclass(frozen=True, slots=True)
class DiskUsageInfo:
    """How full one volume is."""

    path: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    percent_used: float


@dataclass(frozen=True, slots=True)
class DiskReply:
    """How full volumes are."""

    host_name: str
    host_url: str
    volumes: list[DiskUsageInfo] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    """Why a path could not be read."""


@dataclass(frozen=True, slots=True)
class ProcessListRequest:
    """Which processes are there?"""

    query: str = ""
    """Part of the name or of the command line, in any case."""
    limit: int = 25
    include_args: bool = False
    """Whether command lines are told; they may hold secrets."""


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process."""

    pid: int
    name: str
    status: str
    username: str
    cpu_percent: float
    """Of one CPU, over the last moments; more than 100 with several threads."""
    memory_rss_bytes: int
    memory_percent: float
    cmdline: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ProcessListReply:
    """Processes, those with most memory first."""

    host_name: str
    host_url: str
    query: str
    processes: list[ProcessInfo] = field(default_factory=list)
    truncated: bool = False
    """Whether there are more."""


@dataclass(frozen=True, slots=True)
class SummaryReply:
    """What kind of machine this is. CPUs and memory are those that the host may use."""

    host_name: str
    host_url: str
    platform: str
    python_version: str
    boot_time: float
    """Unix seconds."""
    cpu_count_logical: int
    cpu_count_physical: int | None
    memory_total_bytes: int
    service_agent_id: str
    cpu_limit: float | None = None
    """CPUs that the container may use at the same time; None without a limit."""
    cpu_count_machine: int = 0
    """Logical CPUs of the whole machine; 0 when an older service did not say."""


GET_LOAD: Final = ServiceOperation("load", LoadRequest, LoadReply)
GET_DISK: Final = ServiceOperation("df", DiskRequest, DiskReply)
LIST_PROCESSES: Final = ServiceOperation("plist", ProcessListRequest, ProcessListReply)
GET_SUMMARY: Final = ServiceOperation("summary", EmptyPayload, SummaryReply)
SERVER_INFO: Final = ServiceContract("server-info", (GET_LOAD, GET_DISK, LIST_PROCESSES, GET_SUMMARY))


def collect_gpu_info() -> tuple[list[GpuInfo], str | None]:
    """Return the GPUs, and why there are none to tell of; takes two seconds at most."""
    readings, error = read_gpus()
    return [GpuInfo(*astuple(reading)) for reading in readings], error


@dataclass
class ServerInfoState(PagletState):
    """Where the service can be found."""

    service_scope: ServiceScope = ServiceScope.MESH


class ServerInfoAgent(Paglet[ServerInfoState]):
    """Tell how busy this machine is, how full its volumes are, and what runs on it."""

    State = ServerInfoState
    DURABILITY = Durability.NONE  # it remembers nothing that is worth a disk
    RESIDENT_SERVICES: ClassVar[tuple[ResidentServiceSpec, ...]] = (
        ResidentServiceSpec(
            SERVER_INFO,
            scope=ServiceScope.MESH,
            lifecycle=ResidentLifecycle.LAZY,
            agent_id="service.server-info",
            idle_timeout=30.0,
        ),
    )

    def __init__(self, state: ServerInfoState | None = None, *, agent_id: str | None = None) -> None:
        super().__init__(state, agent_id=agent_id)
        self._limits = ContainerLimits()
        self._processors = ProcessorMeter(self._limits)
        self._processes = ProcessSampler()
        self._disks = Disks()

    def on_creation(self, event: CreationEvent) -> None:
        """Offer the service."""
        self.advertise_contract(SERVER_INFO, scope=self.state.service_scope)

    def on_activation(self, event: PersistencyEvent) -> None:
        """Offer the service again, where nobody has kept the offer."""
        self.advertise_contract(SERVER_INFO, scope=self.state.service_scope)

    def handle_message(self, message: Message) -> Any:
        """Answer the operations of the contract."""
        return SERVER_INFO.route(
            message,
            {
                GET_LOAD: self.get_load,
                GET_DISK: self.get_disk,
                LIST_PROCESSES: self.list_processes,
                GET_SUMMARY: self.get_summary,
            },
            default=NOT_HANDLED,
        )

    def get_load(self, request: LoadRequest) -> LoadReply:
        """Return how busy processors, memory, swap and GPUs are."""
        from paglets.system.server_info.machine import psutil

        cpu_percent = self._processors.percent(request.interval)
        usable, swap = memory(self._limits), psutil.swap_memory()
        gpus, gpu_error = collect_gpu_info() if request.include_gpu else ([], None)
        return LoadReply(
            host_name=self.context.name,
            host_url=self.context.address,
            cpu_percent=cpu_percent,
            load_average=_load_average(),
            memory_total_bytes=usable.total,
            memory_used_bytes=usable.used,
            memory_available_bytes=usable.available,
            memory_percent=usable.percent,
            swap_total_bytes=swap.total,
            swap_used_bytes=swap.used,
            swap_percent=swap.percent,
            gpu_available=bool(gpus),
            gpu_error=gpu_error,
            gpus=gpus,
        )

    def get_disk(self, request: DiskRequest) -> DiskReply:
        """Return how full the volumes are."""
        paths = request.paths or (self._disks.volumes() if request.all_volumes else ["/"])
        found, errors = self._disks.read(paths, files=bool(request.paths))
        return DiskReply(
            host_name=self.context.name,
            host_url=self.context.address,
            volumes=[DiskUsageInfo(sendable(path), *usage) for path, usage in found.items()],
            errors={sendable(path): sendable(text) for path, text in errors.items()},
        )

    def list_processes(self, request: ProcessListRequest) -> ProcessListReply:
        """Return the processes that match, those with most memory first."""
        rows, truncated = self._processes.sample(request.query, min(max(1, request.limit), MAX_PROCESSES))
        total = memory(self._limits).total
        return ProcessListReply(
            host_name=self.context.name,
            host_url=self.context.address,
            query=request.query,
            processes=[
                ProcessInfo(
                    pid=row.pid,
                    name=row.name,
                    status=row.status,
                    username=row.username,
                    cpu_percent=row.cpu_percent,
                    memory_rss_bytes=row.memory_rss_bytes,
                    memory_percent=round(100 * row.memory_rss_bytes / total, 2) if total else 0.0,
                    cmdline=row.cmdline if request.include_args else [],
                )
                for row in rows
            ],
            truncated=truncated,
        )

    def get_summary(self, request: EmptyPayload) -> SummaryReply:
        """Return what kind of machine this is."""
        from paglets.system.server_info.machine import psutil

        cpus = processors(self._limits)
        return SummaryReply(
            host_name=self.context.name,
            host_url=self.context.address,
            platform=platform.platform(),
            python_version=platform.python_version(),
            boot_time=psutil.boot_time(),
            cpu_count_logical=cpus.usable,
            cpu_count_physical=psutil.cpu_count(logical=False),
            memory_total_bytes=memory(self._limits).total,
            service_agent_id=self.agent_id,
            cpu_limit=cpus.limit,
            cpu_count_machine=cpus.machine,
        )


def _load_average() -> list[float]:
    return [round(each, 2) for each in os.getloadavg()] if hasattr(os, "getloadavg") else []


# --- all hosts --------------------------------------------------------------------------------------------------------


@dataclass
class SystemInfoCollectorState(PagletState):
    """What is asked, what the hosts answered, and which have not."""

    role: str = "parent"
    operation: str = ""
    request: dict[str, Any] = field(default_factory=dict)
    timeout: float = 5.0
    parent_host_url: str = ""
    parent_agent_id: str = ""
    target_host_name: str = ""
    target_host_url: str = ""
    deadline: float = 0.0
    """Unix seconds by the clock of the host that the paglet is on."""
    pending_hosts: list[str] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


class SystemInfoCollectorAgent(Collecting, Paglet[SystemInfoCollectorState]):
    """Send clones to all hosts, which ask the server-info service there, and gather what they bring out."""

    State = SystemInfoCollectorState
    DURABILITY = Durability.NONE  # whoever asks again gets newer figures

    def ask_local_service(self, timeout: float) -> dict[str, Any]:
        """Return the encoded reply of the service of the present host.

        :raises PagletError: there is none, or it does not answer, or has no such operation.
        """
        operation = SERVER_INFO.operation_for(self.state.operation)
        if operation is None:
            raise HostError(f"server-info has no operation {self.state.operation!r}")
        handle = self.require_contract(SERVER_INFO)
        request = operation.decode_request(self.state.request)
        if not isinstance(request, LoadRequest) or request.interval <= 0:
            found: dict[str, Any] = to_wire(handle.call(operation, request, timeout=timeout))
            return found
        # Measured here, on the same machine: the service answers nobody else while it measures.
        cpu_percent = ProcessorMeter(ContainerLimits()).percent(request.interval)
        reply = handle.call(GET_LOAD, replace(request, interval=0.0), timeout=max(0.1, timeout - request.interval))
        measured: dict[str, Any] = to_wire(replace(reply, cpu_percent=cpu_percent))
        return measured

    def knows(self, operation: str) -> bool:
        """Return whether the service has such an operation."""
        return SERVER_INFO.operation_for(operation) is not None
