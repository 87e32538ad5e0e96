"""How a host announces itself in one datagram."""

from __future__ import annotations

import json
from typing import Final

from paglets.core.errors import PagletError
from paglets.protocol.membership import HostRef

MESH_BEACON_KIND: Final = "paglets.remote.mesh.v1"


def encode_mesh_beacon(ref: HostRef) -> bytes:
    """Return the announcement of a host as one datagram."""
    return json.dumps({"kind": MESH_BEACON_KIND, "host": ref.to_wire()}, separators=(",", ":")).encode()


def decode_mesh_beacon(data: bytes) -> HostRef | None:
    """Return the announced host, or None for anything that is not an announcement."""
    try:
        payload = json.loads(data)
        if payload["kind"] != MESH_BEACON_KIND:
            return None
        return HostRef.from_wire(payload["host"])
    except (PagletError, ValueError, TypeError, LookupError, RecursionError):
        return None
