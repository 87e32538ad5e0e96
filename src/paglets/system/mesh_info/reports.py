"""Asking the mesh-info service of a host from outside, and its answers as tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from paglets.core.errors import ServiceNotFoundError
from paglets.remote.admin import PagletsAdminClient, ServerRef
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.services.contracts import RepT, ReqT, ServiceOperation
from paglets.system.mesh_info.agent import MESH_INFO, LandscapeReply, MeshHostSnapshot, TargetSelectionReply
from paglets.system.mesh_info.selection import ELIGIBLE, FALLBACK, FRESH

SizeText = Callable[[float], str]

_NUMBERS: Final = {"age", "score", "cpu%", "load/cpu", "ram free", "work free", "active", "inactive"}
NO_ELIGIBLE: Final = "no host is eligible; shown are some that are not, see rejected"


def ask(
    client: HostClient,
    entry: ServerRef,
    operation: ServiceOperation[ReqT, RepT],
    request: ReqT,
    *,
    timeout: float,
) -> RepT:
    """Return what the mesh-info service of a host answers.

    :param timeout: seconds that it may take.
    :raises ServiceNotFoundError: the host has no such service.
    :raises PagletError: it does not answer.
    """
    found = PagletsAdminClient([entry], client=client).list_services(entry, name=MESH_INFO.name)
    fitting = next((each for each in found if each.capabilities == MESH_INFO.capabilities), None)
    if fitting is None:
        raise ServiceNotFoundError(f"No {MESH_INFO.name!r} service advertised on {entry.name}")
    service = PagletProxy(entry.url, fitting.agent_id, client)
    # What is stored for a service that stays asleep is answered with a receipt, which is no reply.
    return operation.decode_reply(service.send(operation.to_message(request), no_delay=True, timeout=timeout))


class Report(NamedTuple):
    """A table."""

    columns: list[str]
    rows: list[list[str]]
    right: set[str]


def landscape_report(reply: LandscapeReply, size: SizeText, *, texts: bool = True) -> Report:
    """Return hosts as a table.

    :param texts: whether its last column tells what could not be found out, or only how much.
    """
    rows = [
        [
            host.host_name,
            _age(reply.generated_at, host),
            *_cells(host, size),
            "; ".join(host.errors) if texts else str(len(host.errors)),
        ]
        for host in reply.hosts
    ]
    return Report(["host", "age", *_COLUMNS, "errors"], rows, _NUMBERS if texts else _NUMBERS | {"errors"})


def landscape_errors(reply: LandscapeReply) -> dict[str, str]:
    """Return what went wrong with hosts, and what could not be found out about them, by name."""
    found = dict(reply.errors)
    for host in reply.hosts:
        if host.errors:
            found[host.host_name] = "; ".join(
                [*([found[host.host_name]] if host.host_name in found else []), *host.errors]
            )
    return found


def targets_report(reply: TargetSelectionReply, size: SizeText) -> Report:
    """Return targets as a table."""
    rows = [
        [target.snapshot.host_name, f"{target.score:.3f}", *_cells(target.snapshot, size)] for target in reply.targets
    ]
    return Report(["host", "score", *_COLUMNS], rows, _NUMBERS)


def target_remarks(reply: TargetSelectionReply) -> dict[str, str]:
    """Return what is special about targets, by name."""
    special = {
        target.snapshot.host_name: [reason for reason in target.reasons if reason not in (FRESH, ELIGIBLE)]
        for target in reply.targets
    }
    return {name: ": ".join(reasons) for name, reasons in special.items() if reasons}


def is_fallback(reply: TargetSelectionReply) -> bool:
    """Return whether the targets are hosts that do not do."""
    return any(FALLBACK in target.reasons for target in reply.targets)


_COLUMNS: Final = ("cpu%", "load/cpu", "ram free", "work free", "active", "inactive")


def _cells(host: MeshHostSnapshot, size: SizeText) -> list[str]:
    return [
        f"{host.cpu_percent:.1f}",
        f"{host.load_per_cpu:.2f}",
        size(host.memory_available_bytes),
        size(host.work_free_bytes),
        str(host.active_count),
        str(host.inactive_count),
    ]


def _age(now: float, host: MeshHostSnapshot) -> str:
    return f"{max(0.0, now - host.observed_at):.1f}s"
