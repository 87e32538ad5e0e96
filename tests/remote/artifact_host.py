"""The artifact and paglet routes of a host, in memory, for tests of clients."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.remote.scripted import Received, ScriptedHost, reply, response


class MemoryHost(ScriptedHost):
    """Store artifacts in a dict; answer what belongs to paglets from `routes`, which tests fill."""

    def __init__(self) -> None:
        super().__init__(self._route)
        self.blobs: dict[str, bytes] = {}
        self.refs: dict[str, dict[str, Any]] = {}
        self.routes: dict[tuple[str, str], Callable[[Received], bytes]] = {}
        self.tamper: Callable[[bytes], bytes] = lambda content: content
        """What becomes of content on its way into the store."""

    def _route(self, request: Received, _connection: socket.socket) -> bytes | None:
        parts = urlsplit(request.target)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if (made := self.routes.get((request.method, parts.path))) is not None:
            return made(request)
        match request.method, parts.path.strip("/").split("/"):
            case "POST", ["artifacts"]:
                return reply({"artifact": self._store(request.body, query)})
            case "GET", ["artifacts"]:
                owner = query.get("owner_agent_id")
                found = [ref for ref in self.refs.values() if owner in (None, ref["owner_agent_id"])]
                return reply({"artifacts": found})
            case "GET", ["artifacts", key, "metadata"] if key in self.refs:
                return reply({"artifact": self.refs[key]})
            case "GET", ["artifacts", key] if key in self.refs:
                sha256 = self.refs[key]["sha256"]
                return response(self.blobs[key], x_paglets_artifact_sha256=sha256)
            case "DELETE", ["artifacts", key]:
                self.refs.pop(key, None)
                self.blobs.pop(key, None)
                return reply({"ok": True})
        error = {"error_type": "TransferError", "error": f"No artifact at {parts.path}"}
        return reply(error, "400 Bad Request")

    def _store(self, body: bytes, query: dict[str, str]) -> dict[str, Any]:
        content = self.tamper(body)
        key = f"{len(self.refs) + 1:032x}"
        self.blobs[key] = content
        self.refs[key] = {
            "host_url": self.url,
            "artifact_id": key,
            "name": query["name"],
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "compression": query["compression"],
            "created_at": 1.0,
            "expires_at": float(query["expires_at"]),
            "owner_agent_id": query["owner_agent_id"],
        }
        return self.refs[key]

    def answer(self, method: str, path: str, value: Any, status: str = "200 OK") -> None:
        """Answer a route with a JSON value."""
        self.routes[method, path] = lambda _request: response(json.dumps(value).encode(), status)
