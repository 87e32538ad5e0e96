"""One transfer, seen from outside: a paglet is created at the source, watched until it is done, and ended."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from paglets.core.errors import HostError, InvalidAgentError, PagletError, RemoteHostError
from paglets.core.wire_fields import WireFields
from paglets.examples.file_grabber.agent import FileGrabberPaglet, FileGrabberState
from paglets.patterns import FileTransferMode, FileTransferRequest, FileTransferResult
from paglets.patterns.tasks import TaskClient, TaskSnapshot, TaskStatus
from paglets.remote import senders
from paglets.remote.admin import PagletsAdminClient, ServerRef, detect_lan_host, normalize_server_url
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.serialization.names import qualified_name

DEFAULT_REQUEST_TIMEOUT_SECONDS: Final = 60.0
#: How long a whole transfer may take. Its hosts are asked all the while whether they are still there.
_LONGEST_SECONDS: Final = 86_400.0
_WAIT_SECONDS: Final = 5.0

Snapshot = TaskSnapshot[FileTransferResult]


class StillThereError(HostError):
    """A paglet could not be ended; the text says where it may be."""


def find_remote(entry: ServerRef, name_or_url: str, client: HostClient) -> ServerRef:
    """Return the host at a URL, which must be one for the entry host too, or the one that this knows under a name.

    :raises RemoteHostError: it cannot be reached, is offline, or is not known.
    """
    if ":" in name_or_url:
        url = normalize_server_url(name_or_url)
        health = WireFields(client.get_json(f"{url}/health"), "health")
        return ServerRef(health.text("name"), url)
    known = [ref for ref in PagletsAdminClient([entry], client=client).list_hosts(entry) if ref.name == name_or_url]
    for ref in known:
        if ref.online:
            return ServerRef(ref.name, ref.url)
    if known:
        raise RemoteHostError(f"remote host {name_or_url!r} is known but offline")
    raise RemoteHostError(f"remote host {name_or_url!r} was not found from entry host {entry.name!r}")


def run_transfer(entry: ServerRef, remote: ServerRef, args: Any, *, client: HostClient) -> Snapshot:
    """Carry a file from the entry host to the remote one (`push`) or the other way (`pull`), and say how that ended.

    The paglet that does it is ended wherever it is then, also when this is interrupted; the file is whole at one host
    or at both all the while.

    :param args: `direction`, `source`, and if they differ from their defaults `dest`, `mode`, `dry`, `overwrite` and
        `request_timeout`, the seconds that a host may take to answer.
    :raises PagletError: a host does not answer any more, or the paglet could not be created.
    """
    patience = float(_given(args, "request_timeout", "timeout", default=DEFAULT_REQUEST_TIMEOUT_SECONDS))
    source, target = (entry, remote) if _direction(args) == "push" else (remote, entry)
    request = FileTransferRequest(
        str(_given(args, "source", "source_path", default="")),
        str(_given(args, "dest", "destination", "destination_path", default="")),
        target.url,
        FileTransferMode(_given(args, "mode", default=FileTransferMode.COPY)),
        bool(_given(args, "dry", "dry_run", default=False)),
        bool(_given(args, "overwrite", default=False)),
        source_label=source.name,
        destination_label=target.name,
    )
    with _paglet_at(source, [source, target], client) as proxy:
        tasks = TaskClient.for_paglet(proxy, FileGrabberPaglet)
        return _watched(tasks, request, [source, target], client, patience)


def _direction(args: Any) -> str:
    found = _given(args, "direction", "command", "action", default="")
    if found not in ("push", "pull"):
        raise ValueError(f"a file is pushed or pulled, not {found!r}")
    return str(found)


def _given(args: Any, *names: str, default: Any) -> Any:
    """Return the first of these that is there; scripts for older versions had names of their own."""
    values = (getattr(args, name, None) for name in names)
    return next((value for value in values if value is not None), default)


def _watched(
    tasks: TaskClient[FileTransferRequest, FileTransferResult],
    request: FileTransferRequest,
    servers: Sequence[ServerRef],
    client: HostClient,
    patience: float,
) -> Snapshot:
    # The answer to `start` comes when the paglet has arrived, however long its file takes.
    starting = senders.submit(lambda: tasks.start(request, timeout=_LONGEST_SECONDS))
    while not wait([starting], timeout=patience).done:
        for server in servers:
            client.get_json(f"{normalize_server_url(server.url)}/health", timeout=patience)
    snapshot: Snapshot = starting.result()
    while not snapshot.done:
        if snapshot.status is TaskStatus.NEW:
            raise HostError(f"the paglet at {snapshot.host_name} has forgotten the transfer; its host must have died")
        snapshot = tasks.wait(wait_timeout=min(_WAIT_SECONDS, patience), timeout=patience + _WAIT_SECONDS)
    return snapshot


# --- the paglet -------------------------------------------------------------------------------------------------------


@contextmanager
def _paglet_at(source: ServerRef, servers: Sequence[ServerRef], client: HostClient) -> Iterator[PagletProxy]:
    wire = PagletsAdminClient([source], client=client).create_agent(
        source, qualified_name(FileGrabberPaglet), qualified_name(FileGrabberState)
    )
    agent_id = wire["agent_id"]
    try:
        yield PagletProxy(normalize_server_url(source.url), agent_id, client)
    except BaseException as exc:
        try:
            _end(agent_id, servers, client)
        except StillThereError as left:
            exc.add_note(str(left))
        raise
    _end(agent_id, servers, client)


def _end(agent_id: str, servers: Sequence[ServerRef], client: HostClient) -> None:
    """End a paglet wherever it is.

    :raises StillThereError: a host could not be asked, so the paglet may be there.
    """
    left: list[str] = []
    for server in servers:
        try:
            # The client follows the paglet, so this is both hosts unless one cannot be asked.
            client.operate(normalize_server_url(server.url), agent_id, "dispose", {})
        except InvalidAgentError:
            continue
        except PagletError as exc:
            left.append(f"{server.name} ({exc})")
    if left:
        raise StillThereError(f"paglet {agent_id} may be left at {', '.join(left)}")


# --- paths ------------------------------------------------------------------------------------------------------------


def path_for(server: ServerRef, path: str) -> str:
    """Return a path as the paglet at a host is told: on this machine, relative ones mean the present directory.

    What begins with `~` or is absolute stays as it is, and so does everything for hosts of other machines. A slash at
    the end is kept.
    """
    if path.startswith("~") or Path(path).is_absolute() or not _is_here(server.url):
        return path
    slash = "/" if path in ("", ".") or path.endswith(("/", "\\")) else ""
    return f"{Path.cwd() / path}{slash}"


def _is_here(url: str) -> bool:
    host = urlsplit(normalize_server_url(url)).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback or host == detect_lan_host()
    except ValueError:
        return host == "localhost" or host == detect_lan_host()
