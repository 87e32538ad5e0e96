"""Where names are: in topic modules, not in packages, and importing them does nothing else."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGES = ["paglets"] + [
    f"paglets.{path.parent.name}"
    for path in sorted(SOURCE.glob("paglets/*/__init__.py"))
    if path.parent.name != "patterns"  # the one that hands on the names of its modules
]
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in SOURCE.glob("paglets/**/*.py")
    if path.name != "__init__.py"
)
NAMES = {
    "paglets.artifacts": "ArtifactRef ArtifactStore PagletFileRef ArtifactWriteResult file_sha256 copy_stream "
    "copy_path paglet_file_ref_from_path safe_target_filename ARTIFACT_COPY ARTIFACT_MOVE STREAM_CHUNK_BYTES",
    "paglets.core.agent": "Paglet PagletState PagletContext state_locked ACTIVE INACTIVE NOT_HANDLED",
    "paglets.core.context_events": "ContextEvent ContextEventLog ContextListener",
    "paglets.core.errors": "PagletError HostError InvalidAgentError NotHandledError RemoteHostError TransferError",
    "paglets.core.events": "PagletEvent CreationEvent MobilityEvent CloneEvent PersistencyEvent",
    "paglets.core.itinerary": "ItineraryPlan ItineraryTask TaskItineraryPlan ItineraryAgentMixin",
    "paglets.core.messages": "Message FutureReply ReplySet SYNCHRONOUS FUTURE ONEWAY NORMAL_PRIORITY",
    "paglets.core.runtime_values": "ServiceScope ResidentLifecycle ArrivalMode EnvelopeKind require_enum",
    "paglets.config.env": "resolve_api_key DEFAULT_API_KEY_ENV",
    "paglets.config.startup": "LaunchConfig load_launch_config sync_launch_config DEFAULT_LAUNCH_CONFIG_PATH",
    "paglets.examples.file_grabber": "FileGrabMode FileGrabRequest FileGrabResult FileGrabberPaglet FileGrabberState "
    "TaskStatus format_bytes",
    "paglets.examples.file_grabber.cli": "main run_transfer DEFAULT_REQUEST_TIMEOUT_SECONDS",
    "paglets.examples.search": "SEARCH_CLEANUP SEARCH_DRAIN SEARCH_START SEARCH_TYPES HostSearchSummary "
    "MeshSearchAgent MeshSearchState SearchDrainRequest SearchEvent SearchRequest SearchStartRequest run_local_search",
    "paglets.examples.search.agent": "MeshSearchState SearchStartRequest SearchSummaryReply SearchStartReply "
    "SearchDrainRequest SearchDrainReply SearchChildEventsRequest SearchChildEventsReply SearchChildDoneRequest "
    "MeshSearchAgent SEARCH_START SEARCH_DRAIN SEARCH_CHILD_EVENTS SEARCH_CHILD_DONE SEARCH_SUMMARY SEARCH_CLEANUP",
    "paglets.examples.search.cli": "main parse_size",
    "paglets.examples.search.local_search": "run_local_search",
    "paglets.examples.search.models": "SearchRequest SearchEvent HostSearchSummary DEFAULT_SEARCH_TIMEOUT_SECONDS "
    "DEFAULT_DRAIN_WAIT_SECONDS DEFAULT_BATCH_SIZE SEARCH_TYPES",
    "paglets.patterns": "ChildRoleState CursorDrainMixin FileMobilityMixin FileTransferArrival FileTransferEndpoint "
    "FileTransferMode FileTransferPlan FileTransferRequest FileTransferResult FileTransferSource FileTransferState "
    "MeshFanoutMixin MeshFanoutState NotificationMixin NotificationSeverity OperationClient OperationPaglet "
    "SingleFileTransferPaglet TaskClient TaskPaglet TaskSnapshot TaskState TaskStatus format_bytes",
    "paglets.patterns.coordination": "ChildRoleState MeshFanoutState MeshFanoutMixin CursorDrainMixin",
    "paglets.patterns.file_mobility": "FileTransferMode FileTransferRequest FileTransferEndpoint FileTransferResult "
    "FileTransferSource FileTransferPlan FileTransferArrival FileTransferState FileMobilityMixin format_bytes",
    "paglets.patterns.notifications": "NotificationSeverity NotificationMixin",
    "paglets.patterns.operations": "OperationPaglet OperationClient StateT ReqT RepT",
    "paglets.patterns.tasks": "TaskStatus TaskState TaskStartRequest TaskWaitRequest TaskStatusReply TaskSnapshot "
    "TaskPaglet TaskClient TASK_START TASK_STATUS TASK_WAIT RequestT ResultT StateT",
    "paglets.persistence.persistency": "DeactivationPolicy DeactivationRequest InactiveRecord QueuedMessage",
    "paglets.persistence.storage": "ManagedStorage StorageStatus StorageQuotaError",
    "paglets.remote.admin": "ServerRef AgentDiscoveryConfig ServerStatus AgentRecord ServiceSummary PagletsAdminClient "
    "normalize_server_url normalize_discovery_path default_agent_discovery_config detect_lan_host "
    "select_reachable_entry_server discover_mesh_entry_servers discover_lan_entry_servers "
    "DEFAULT_LAN_DISCOVERY_TIMEOUT_SECONDS DEFAULT_LAN_DISCOVERY_WORKERS",
    "paglets.remote.client": "HostClient",
    "paglets.remote.mesh": "HostRef MeshRegistry normalize_host_url encode_mesh_beacon decode_mesh_beacon",
    "paglets.remote.proxy": "PagletProxy",
    "paglets.remote.references": "PagletProxyRef",
    "paglets.remote.transfer": "TransferTicket",
    "paglets.runtime.envelope": "PagletEnvelope",
    "paglets.runtime.host": "Host HOST_CAPABILITIES DEFAULT_PERSISTENCE_ROOT",
    "paglets.runtime.mailbox": "MessageMailbox",
    "paglets.runtime.resources": "ResourceRegistry",
    "paglets.serialization.codec": "qualified_name resolve_qualified_name dataclass_to_wire dataclass_from_wire",
    "paglets.testing": "PagletMesh MeshStuckError",
    "paglets.tooling.discovery": "AgentClassRecord DiscoveryResult discover_agent_classes",
    "paglets.system.mesh_info": "GET_LANDSCAPE GET_SNAPSHOT MESH_INFO SELECT_TARGETS SYNC_MESH_INFO LandscapeReply "
    "LandscapeRequest MeshHostSnapshot MeshInfoAgent MeshInfoState MeshInfoSyncReply MeshInfoSyncRequest SnapshotReply "
    "SnapshotRequest TargetCandidate TargetSelectionReply TargetSelectionRequest",
    "paglets.system.mesh_info.agent": "DEFAULT_SAMPLE_INTERVAL_SECONDS DEFAULT_GOSSIP_INTERVAL_SECONDS "
    "DEFAULT_SAMPLE_TTL_SECONDS DEFAULT_PEER_BATCH_SIZE DEFAULT_SYNC_BATCH_SIZE MESH_INFO_LOOP_ERROR_KEY "
    "MESH_INFO_SYNC_TIMEOUT_SECONDS GET_SNAPSHOT GET_LANDSCAPE SYNC_MESH_INFO SELECT_TARGETS MESH_INFO",
    "paglets.system.mesh_info.cli": "main",
    "paglets.system.server_info": "GET_DISK GET_LOAD GET_SUMMARY LIST_PROCESSES SERVER_INFO DiskReply DiskRequest "
    "DiskUsageInfo GpuInfo LoadReply LoadRequest ProcessInfo ProcessListReply ProcessListRequest ServerInfoAgent "
    "ServerInfoState SummaryReply SystemInfoCollectorAgent SystemInfoCollectorState",
    "paglets.system.server_info.agent": "collect_gpu_info SERVER_INFO SystemInfoCollectorAgent",
    "paglets.system.server_info.cli": "main",
    "paglets.system.user_info": "NOTIFY_USER USER_INFO UserInfoAgent UserInfoReply UserInfoRequest UserInfoState",
    "paglets.services.contracts": "ServiceContract ServiceOperation ServiceHandle ServiceRecord ServiceRegistry",
}
#: Packages that are the public module of their topic; the others export nothing.
EXPORTING = ("paglets.artifacts", "paglets.patterns", "paglets.testing", "paglets.system.", "paglets.examples.")
FRESH_SECONDS = 60


def fresh(program: str, *arguments: str) -> Any:
    """Run a program in an interpreter of its own and return what it leaves in `result`.

    Nothing but that may be printed, to either stream.
    """
    code = f"import json, sys\nresult = None\n{program}\nsys.__stdout__.write('RESULT' + json.dumps(result))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        env={key: value for key, value in os.environ.items() if not key.startswith("COV_")}
        | {"PYTHONPATH": str(SOURCE)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=FRESH_SECONDS,
    )
    printed, _, result = done.stdout.partition("RESULT")
    assert (done.returncode, printed, done.stderr) == (0, "", "")
    return json.loads(result)


def test_the_root_package_exports_nothing() -> None:
    with pytest.raises(ImportError):
        from paglets import Host  # type: ignore[attr-defined]  # noqa: F401
    program = """
before = set(sys.modules)
import paglets
result = [sorted(set(sys.modules) - before), [name for name in vars(paglets) if not name.startswith("__")]]
"""
    assert fresh(program) == [["paglets"], []]


@pytest.mark.parametrize("name", ["host", "messages", "admin", "serde", "serialization.serde"])
def test_there_is_no_flat_module(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"paglets.{name}")


def test_packages_export_nothing() -> None:
    program = """
import importlib
result = {}
for package in sys.argv[1:]:
    names = [name for name in vars(importlib.import_module(package)) if not name.startswith("__")]
    result[package] = [name for name in names if f"{package}.{name}" not in sys.modules]
"""
    bare = [package for package in PACKAGES if not package.startswith(EXPORTING)]
    assert {"paglets.core", "paglets.remote", "paglets.runtime"} <= set(bare)
    assert fresh(program, *bare) == {package: [] for package in bare}


@pytest.mark.parametrize("module", NAMES)
def test_a_topic_module_has_its_names(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


def test_a_star_import_gives_what_a_module_promises() -> None:
    broken = []
    for name in MODULES:
        module = importlib.import_module(name)
        broken += [f"{name}.{promised}" for promised in getattr(module, "__all__", ()) if not hasattr(module, promised)]
    assert broken == []


def test_importing_every_module_does_nothing_else(tmp_path: Path) -> None:
    program = """
import importlib, os, threading
os.chdir(sys.argv[1])
os.environ["HOME"] = sys.argv[1]
for name in sys.argv[2:]:
    importlib.import_module(name)
import psutil
result = [threading.active_count(), len(psutil.Process().children()), os.listdir()]
"""
    assert fresh(program, str(tmp_path), *MODULES) == [1, 0, []]


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("core", "serialization protocol persistence remote services config runtime patterns cli tooling examples"),
        ("protocol", "persistence remote services config runtime patterns cli tooling examples"),
        ("core serialization protocol persistence remote services", "config runtime patterns cli tooling examples"),
        ("config", "runtime patterns cli tooling examples"),
        ("patterns", "runtime cli tooling examples"),
    ],
    ids=["core", "protocol", "remote", "config", "patterns"],
)
def test_lower_layers_import_none_above_them(lower: str, upper: str) -> None:
    program = """
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
result = sorted(name for name in sys.modules if name.startswith("paglets."))
"""
    wanted = [module for module in MODULES if module.split(".")[1] in lower.split()]
    assert wanted
    loaded = fresh(program, *wanted)
    assert [name for name in loaded if name.split(".")[1] in upper.split()] == []
