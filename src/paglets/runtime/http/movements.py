"""Movements: the one body that is streamed. Paglets arrive through here, and creations whose state is too large for JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from paglets.core.error_wire import http_status
from paglets.core.errors import HostError, NotFoundError, SerializationError
from paglets.persistence.envelope import PagletEnvelope
from paglets.remote.movement import MovementReader, Sink
from paglets.remote.requests import encode_json
from paglets.runtime.arrival import Incoming
from paglets.runtime.attachment import Attachment
from paglets.runtime.http.guards import Receive, Scope, Send, SlowClientError, refuse
from paglets.runtime.node import Node


class MovementEndpoint:
    """Serve ``POST /agents`` with a body of type ``application/x-paglets-movement``."""

    def __init__(self, node: Callable[[], Node]) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the movement as it comes in, and answer."""
        node = self._node()
        reading = _Reading(node)
        try:
            if scope["method"] != "POST" or scope["path"] != "/agents":
                raise NotFoundError(f"No route for a movement to {scope['path']}")
            payload = await reading.run(receive)
        except SlowClientError as exc:
            reading.discard()
            await refuse(send, exc)
        except Exception as exc:
            reading.discard()
            if http_status(exc) >= 500 and not isinstance(exc, OSError):
                raise
            error = exc if not isinstance(exc, OSError) else HostError(f"the files cannot be stored here: {exc}")
            await refuse(send, error)
        else:
            await _reply(send, 200, payload)


class _Reading:
    """One movement that is being received."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._incoming: Incoming | None = None

    async def run(self, receive: Receive) -> dict[str, Any]:
        reader = MovementReader(self._open)
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise SerializationError("the sender left before the movement was complete")
            body = message.get("body", b"")
            if body:
                reader.feed(body)
            more = message.get("more_body", False)
        header = reader.finish()
        if self._incoming is not None:
            incoming, self._incoming = self._incoming, None
            return await self._node.arrivals.prepare(incoming)
        return {"proxy": await self._create(header)}

    def discard(self) -> None:
        """Remove what was received of a movement that came to nothing."""
        if self._incoming is not None:
            self._incoming.discard(self._node.files)

    def _open(self, header: dict[str, Any]) -> Sequence[Sink]:
        if "transfer" not in header:
            return []
        self._incoming, sinks = self._node.arrivals.open(header)
        return sinks

    async def _create(self, header: dict[str, Any]) -> dict[str, str]:
        envelope = header.get("envelope")
        if isinstance(envelope, dict):
            try:
                return await self._node.import_envelope(PagletEnvelope.from_wire(envelope))
            except (KeyError, TypeError, ValueError) as exc:
                raise HostError(f"malformed envelope: {exc}") from None
        blob = header.get("state_blob")
        state = header.get("state")
        if blob is not None and not isinstance(blob, bytes | bytearray | memoryview):
            raise SerializationError("state_blob: expected bytes")
        if state is not None and not isinstance(state, dict):
            raise SerializationError("state: expected a dict")
        return await self._node.create(
            _text(header, "agent_class_name"),
            _text(header, "state_class_name"),
            state if blob is None else Attachment.of([bytes(blob)]),
            init=header.get("init"),
            agent_id=_text(header, "agent_id") or None,
        )


def _text(header: dict[str, Any], name: str) -> str:
    value = header.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SerializationError(f"{name}: expected text")
    return value


async def _reply(send: Send, status: int, payload: dict[str, Any]) -> None:
    body = encode_json(payload)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


