"""The `paglets hosts` command: which hosts there are, and how they do."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paglets.cli.console import one_line, print_json, print_shown, table
from paglets.cli.options import (
    DEFAULT_TIMEOUT_SECONDS,
    FAILURE_EXIT,
    EntryOption,
    JsonOption,
    KeyOption,
    TimeoutOption,
    Where,
    clock_text,
    reported,
)
from paglets.cli.rounds import REFRESH_SECONDS, EveryOption, WatchOption, watch

if TYPE_CHECKING:
    from rich.table import Table

    from paglets.cli.fleet import Fleet
    from paglets.protocol.membership import HostRef
    from paglets.remote.admin import ServerRef

EPILOG: Final = """
Examples:

  paglets hosts                   the hosts of the mesh, as one of them sees it

  paglets hosts --entry beta      as beta sees it

  paglets hosts --watch           renewed every 2 s until Ctrl-C

  paglets hosts --json | jq -r '.hosts[] | select(.state != "online") | .name'

Each host that counts as online is asked as well: "silent" is one that does not answer here. "left out" is one that is
there and runs other code, and so is no member of this mesh. The exit code is 1 when a host is offline or silent.
"""

_SHORT_VERSION: Final = 12


@dataclass(frozen=True, slots=True)
class _Seen:
    """A host, as another one knows it, and as it answered."""

    ref: HostRef
    health: dict[str, Any] | None = None
    latency_ms: float | None = None
    error: str = ""
    left_out: bool = False

    @property
    def state(self) -> str:
        if self.left_out:
            return "left out"
        if not self.ref.online:
            return "offline"
        if self.health is None:
            return "silent"
        return "draining" if self.health.get("draining") else "online"

    @property
    def well(self) -> bool:
        return self.state in ("online", "draining", "left out")

    def to_wire(self) -> dict[str, Any]:
        wire = self.ref.to_wire() | {"state": self.state, "latency_ms": self.latency_ms, "error": self.error or None}
        if self.health is not None:
            wire |= {key: self.health[key] for key in ("active_count", "inactive_count") if key in self.health}
        return wire


def hosts(
    context: typer.Context,
    wide: Annotated[bool, typer.Option("--wide", "-w", help="Versions, tags and properties as well.")] = False,
    again: WatchOption = False,
    every: EveryOption = REFRESH_SECONDS,
    json: JsonOption = False,
    entry: EntryOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    api_key_env: KeyOption = None,
) -> None:
    """List the hosts of the mesh, and how they do."""
    with reported(context.command_path):
        # Imported this late, so that help and mistakes need not wait for the clients to load.
        from paglets.cli.fleet import fleet_of

        with fleet_of(Where(entry, None, timeout, api_key_env)) as fleet:
            if again:
                watch(
                    lambda: _look(fleet),
                    draw=lambda seen: [_table(seen, fleet, wide=wide)],
                    wire=lambda seen: _payload(seen, fleet),
                    json=json,
                    every=every,
                )
                return
            seen = _look(fleet)
            if json:
                print_json(_payload(seen, fleet))
            else:
                print_shown(_table(seen, fleet, wide=wide), whole=wide)
        if not all(each.well for each in seen):
            raise typer.Exit(FAILURE_EXIT)


def _entry(fleet: Fleet) -> ServerRef:
    return fleet.entry or fleet.servers[0]


def _look(fleet: Fleet) -> list[_Seen]:
    from paglets.cli.fleet import Fleet, servers_of

    entry = _entry(fleet)
    refs = fleet.admin.list_hosts(entry)
    servers = {server.name: server for server in servers_of(refs, entry)}

    def ask(server: ServerRef) -> tuple[dict[str, Any], float]:
        began = time.perf_counter()
        health = fleet.client.get_json(f"{server.url}/health")
        return dict(health), (time.perf_counter() - began) * 1000

    answers = Fleet(fleet.client, list(servers.values())).ask(ask)
    healths = {server.url: answer for server, answer in answers.given}
    errors = {server.url: str(error) for server, error in answers.missing}
    seen = []
    for ref in refs:
        url = entry.url if ref.name == entry.name else ref.url
        health, latency = healths.get(url, (None, None))
        seen.append(_Seen(ref, health, latency, errors.get(url, "") if ref.online else ref.error or "no news of it"))
    seen += _left_out(healths.get(entry.url, ({}, 0.0))[0], {ref.url for ref in refs})
    return sorted(seen, key=lambda each: (each.ref.name, each.ref.url))


def _left_out(health: dict[str, Any], listed: Collection[str]) -> Iterator[_Seen]:
    """Give the hosts that the entry host keeps out of the mesh, as its health names them."""
    from paglets.protocol.membership import HostRef

    others = health.get("left_out")
    for told in others if isinstance(others, list) else ():
        ref = HostRef.from_wire({**told, "online": False} if isinstance(told, dict) else {})
        if ref.url not in listed:
            error = f"code version {ref.code_version}, not {health.get('code_version')}"
            yield _Seen(ref, error=error, left_out=True)


def _payload(seen: Sequence[_Seen], fleet: Fleet) -> dict[str, Any]:
    return {"entry": _entry(fleet).name, "hosts": [each.to_wire() for each in seen]}


def _table(seen: Sequence[_Seen], fleet: Fleet, *, wide: bool) -> Table:
    rows = []
    for each in seen:
        health = each.health or {}
        row = [
            each.ref.name,
            each.state,
            health.get("active_count", "-"),
            health.get("inactive_count", "-"),
            "-" if each.latency_ms is None else f"{each.latency_ms:.1f} ms",
            each.ref.url,
            _remark(each),
        ]
        if wide:
            row[-1:-1] = [
                each.ref.code_version[:_SHORT_VERSION],
                ", ".join(each.ref.tags),
                ", ".join(f"{key}={value}" for key, value in sorted(each.ref.properties.items())),
            ]
        rows.append(row)
    columns = ["host", "state", "active", "asleep", "answer", "address", "remark"]
    if wide:
        columns[-1:-1] = ["version", "tags", "properties"]
    title = f"Hosts, as {_entry(fleet).name} knows them"
    return table(title, columns, rows, right={"active", "asleep", "answer"})


def _remark(seen: _Seen) -> str:
    if seen.state == "offline":
        return one_line(
            f"last seen {clock_text(seen.ref.last_seen)}; {seen.error}" if seen.ref.last_seen else seen.error
        )
    remarks = [one_line(seen.error)] if seen.error else []
    if (seen.health or {}).get("insecure"):
        remarks.append("open to anybody")
    return "; ".join(remarks)
