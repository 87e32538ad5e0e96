"""The `paglets services` command: which services there are, who offers them, and how the managed ones do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlencode

import typer

from paglets.cli.console import duration_text, fail, one_line, table
from paglets.cli.options import (
    DEFAULT_TIMEOUT_SECONDS,
    FAILURE_EXIT,
    EntryOption,
    HostOption,
    JsonOption,
    KeyOption,
    TimeoutOption,
    Where,
    reported,
)
from paglets.core.errors import NotFoundError, PagletError, RemoteHostError

if TYPE_CHECKING:
    from rich.table import Table

    from paglets.cli.fleet import Fleet
    from paglets.remote.admin import ServerRef

EPILOG: Final = """
Examples:

  paglets services                     the services of all hosts

  paglets services server-info         who offers this one

  paglets services --host beta --wide  those of one host, with classes and operations

  paglets services --json | jq -r '.services[] | select(.resident.state == "failed") | .resident.error'

States of a managed service: declared (never started), starting, active, stopping, asleep, failed (it is tried again),
away (it moved to another host).
"""

_NOTHING: Final = "-"


@dataclass(frozen=True, slots=True)
class Offer:
    """One provider of a service, and the host that says so."""

    server: ServerRef
    record: dict[str, Any]
    resident: dict[str, Any] | None
    """How it is, of a service that its host manages."""

    def to_wire(self) -> dict[str, Any]:
        """Return what programs get."""
        return {**self.record, "host": self.server.name, "resident": self.resident}


def services(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="SERVICE", help="Only this service.", show_default=False)
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", "-w", help="Classes and operations as well, and nothing folded.")
    ] = False,
    json: JsonOption = False,
    entry: EntryOption = None,
    host: HostOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """List the services that paglets offer over all hosts of the mesh, or on one host."""
    command = context.command_path
    with reported(command):
        # Imported this late, so that help and mistakes need not wait for the clients to load.
        from paglets.cli.fleet import fleet_of, print_listing, report_missing

        with fleet_of(Where(entry, host, timeout, api_key_env)) as fleet:
            answers = fleet.ask(lambda server: _offers(fleet, server, name))
            offers: list[Offer] = [offer for _, given in answers.given for offer in given]
            listing = fleet.listing("services", [offer.to_wire() for offer in offers], answers)
            print_listing(listing, lambda: _table(offers, wide=wide), json=json, wide=wide)
            report_missing(command, answers)
        if name is not None and not offers:
            fail(command, f"nobody offers a service {name!r}", code=FAILURE_EXIT)


def _offers(fleet: Fleet, server: ServerRef, name: str | None) -> list[Offer]:
    from paglets.services.records import ServiceRecord

    url = f"{server.url.rstrip('/')}/services"
    offered = _list(fleet, url if name is None else f"{url}?{urlencode({'name': name})}")
    try:
        managed = _list(fleet, f"{url}/resident")
    except NotFoundError:
        managed = []  # an older host
    found = {(each.get("service_name"), each.get("agent_id")): each for each in managed}
    try:
        records = [ServiceRecord.from_wire(each) for each in offered]
    except (PagletError, TypeError, ValueError) as exc:
        raise RemoteHostError(f"malformed answer from {url}: {exc}") from exc
    return [Offer(server, record.to_wire(), found.get((record.name, record.proxy.agent_id))) for record in records]


def _list(fleet: Fleet, url: str) -> list[dict[str, Any]]:
    answer = fleet.client.get_json(url)
    found = answer.get("services") if isinstance(answer, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise RemoteHostError(f"malformed answer from {url}: no services in it")
    return found


def _table(offers: Sequence[Offer], *, wide: bool) -> Table:
    remarks = any(_remark(offer.resident or {}) for offer in offers)
    rows = []
    for offer in offers:
        record, resident = offer.record, offer.resident or {}
        row = [
            record["name"],
            record["proxy"]["agent_id"],
            offer.server.name,
            record["scope"],
            resident.get("lifecycle", _NOTHING),
            resident.get("state", "active"),
            resident.get("leases", _NOTHING),
            _idle(resident),
        ]
        if remarks:
            row.append(_remark(resident))
        if wide:
            row += [
                _timeout(resident),
                resident.get("class_name", _NOTHING),
                ", ".join(record["capabilities"]),
                record["host_url"],
            ]
        rows.append(row)
    columns = ["service", "provider", "host", "scope", "lifecycle", "state", "leases", "idle"]
    columns += ["remark"] if remarks else []
    columns += ["sleeps after", "class", "operations", "address"] if wide else []
    return table("Services", columns, rows, right={"leases", "idle", "sleeps after"})


def _idle(resident: dict[str, Any]) -> str:
    idle = resident.get("idle_seconds")
    return _NOTHING if idle is None else duration_text(idle)


def _timeout(resident: dict[str, Any]) -> str:
    return duration_text(resident["idle_timeout"]) if resident.get("lifecycle") == "lazy" else _NOTHING


def _remark(resident: dict[str, Any]) -> str:
    if resident.get("state") != "failed":
        return ""
    when = "with the next call"
    if resident.get("lifecycle") == "eager" or resident.get("leases"):
        when = f"in {duration_text(resident.get('retry_in') or 0.0)}"
    return f"tried again {when}: {one_line(resident.get('error') or 'unknown')}"
