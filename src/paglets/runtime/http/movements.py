"""Movements: the one body that is streamed. Paglets arrive through here, and creations too large for JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from paglets.core.allowance import NO_LIMITS, Allowance
from paglets.core.errors import ForbiddenError, HostError, OverloadedError, SerializationError, UnsupportedMediaError
from paglets.persistence.envelope import PagletEnvelope
from paglets.protocol.transfer.model import TransferKind
from paglets.remote.movement import MovementReader, Sink
from paglets.remote.requests import REFUSED_HEADER, encode_json
from paglets.runtime.attachment import Attachment
from paglets.runtime.http.errors import ClientGoneError
from paglets.runtime.http.extensions import DIRECT_BODY
from paglets.runtime.http.gate import CALLER
from paglets.runtime.http.guards import GuardPolicy, Receive, Scope, Send, refuse, send_json
from paglets.runtime.http.intake import Intake, check_fields
from paglets.runtime.node import Node
from paglets.runtime.receiving import Incoming
from paglets.security.caller import Caller

#: Pieces of at most this size are written where they come in; a change of threads would take longer.
WRITE_ON_LOOP_BYTES = 32 * 1024
MOST_REFUSAL_TEXT = 500


class MovementEndpoint:
    """Serve ``POST /agents`` with a body of type ``application/x-paglets-movement``."""

    def __init__(self, node: Node, intake: Intake, policy: Callable[[], GuardPolicy]) -> None:
        self._node = node
        self._intake = intake
        self._policy = policy
        self.under_way = 0
        """Movements that are coming in."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the movement as it comes in, and answer."""
        policy = self._policy()
        reading = _Reading(self._node, self._intake, policy.max_buffered_bytes, scope)
        self.under_way += 1
        try:
            if scope["method"] != "POST" or scope["path"].rstrip("/") != "/agents":
                raise UnsupportedMediaError(f"{scope['method']} {scope['path'][:200]} takes no movement; send JSON")
            if self.under_way > policy.max_movements:
                raise OverloadedError(f"{policy.max_movements} movements are coming in already; send this one later")
            answer = await reading.run(receive)
            payload = encode_json(answer)
        except ClientGoneError:
            return
        except Exception as exc:
            error = exc if not isinstance(exc, OSError) else HostError(f"the movement cannot be stored here: {exc}")
            # With the connection, because the rest of the body would be taken for the next request.
            await refuse(send, error)
        else:
            await send_json(send, 200, payload, extra=_refusal(answer))
        finally:
            self.under_way -= 1
            await reading.discard()


class _Reading:
    """One movement that is being received."""

    def __init__(self, node: Node, intake: Intake, max_buffered_bytes: int, scope: Scope) -> None:
        self._node = node
        self._intake = intake
        self._max_buffered_bytes = max_buffered_bytes
        self._held = 0
        self._incoming: Incoming | None = None
        self._reader = MovementReader(self._open)
        self._by: Caller | None = scope.get(CALLER)
        self._take_directly = scope.get("extensions", {}).get(DIRECT_BODY)
        self._failure: Exception | None = None

    async def run(self, receive: Receive) -> dict[str, Any]:
        """Read to the end, and do what the header asks for."""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            piece = message.get("body", b"")
            if self._failure is not None:
                raise self._failure
            if piece:
                await self._take(piece)
            more = message.get("more_body", False)
        header = self._reader.finish()
        if self._incoming is not None:
            incoming, self._incoming = self._incoming, None
            return await self._node.arrivals.prepare(incoming)
        return {"proxy": await self._create(header)}

    async def _take(self, piece: bytes) -> None:
        reader = self._reader
        rest = memoryview(piece)
        if reader.header is None:
            self._intake.take(len(piece), self._max_buffered_bytes)
            self._held += len(piece)
            if not reader.feed_header(piece):
                return
            if self._held > WRITE_ON_LOOP_BYTES:
                header = await self._node.kernel.on_disk(reader.decode_header)
            else:
                header = reader.decode_header()
            rest = reader.open_parts(header)
            if self._take_directly is not None and reader.only_memory:
                # At once, before the loop turns: the next piece must find everything before it in place.
                reader.feed_parts(rest)
                reader.feed_parts(memoryview(self._take_directly(self._take_now)))
                return
        if len(rest) > WRITE_ON_LOOP_BYTES:
            await self._node.kernel.on_disk(reader.feed_parts, rest)
        else:
            reader.feed_parts(rest)

    def _take_now(self, piece: bytes) -> bool:
        """Take a piece of a state on the loop: it goes into memory, which is quicker than telling anybody about it."""
        try:
            self._reader.feed_parts(memoryview(piece))
        except Exception as exc:
            self._failure = exc
            return False
        return True

    async def discard(self) -> None:
        """Let go of what was received, and remove it if the movement came to nothing."""
        self._intake.release(self._held)
        # They lead back here, and so does the connection: what was received would wait for the garbage collector.
        del self._reader, self._take_directly
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.discard()

    def _open(self, header: dict[str, Any]) -> Sequence[Sink]:
        if "transfer" not in header:
            return []
        self._incoming, sinks = self._node.arrivals.open(header)
        self._incoming.by = self._by
        plan = self._incoming.plan
        if plan.kind is TransferKind.LOCAL or self._node.kernel.address.is_own(plan.source):
            # Such a move is trusted with the paths of this host's own files.
            raise ForbiddenError("a move inside one host does not come over the network")
        return sinks

    async def _create(self, header: dict[str, Any]) -> dict[str, str]:
        envelope = header.get("envelope")
        if envelope is not None:
            return await import_envelope(self._node, envelope, self._by)
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
            by=self._by,
            allowance=allowance_of(header.get("allowance")),
            cap=allowance_of(header.get("allowance_cap")) or NO_LIMITS,
        )


def allowance_of(wire: Any) -> Allowance | None:
    """Return an allowance that came with a request, None where none did.

    :raises SerializationError: it is malformed.
    """
    return None if wire is None else Allowance.from_wire(wire)


async def import_envelope(node: Node, wire: Any, by: Caller | None) -> dict[str, str]:
    """Take a paglet from an envelope with its state in plain values, all in one step.

    :raises HostError: the envelope is malformed.
    """
    if not isinstance(wire, dict):
        raise SerializationError("envelope: expected a dict")
    for name, value in wire.items():
        if isinstance(value, str):
            check_fields(value, f"envelope.{name}")
    try:
        envelope = PagletEnvelope.from_wire(wire)
    except (KeyError, TypeError, ValueError) as exc:
        raise HostError(f"malformed envelope: {exc}") from None
    return await node.import_envelope(envelope, by)


def _refusal(answer: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return what tells a relay, which does not look into answers, that a paglet was refused."""
    refused = answer.get("refused")
    if refused is None:
        return []
    return [(REFUSED_HEADER.lower().encode(), quote(str(refused["text"])[:MOST_REFUSAL_TEXT], safe=" ").encode())]


def _text(header: dict[str, Any], name: str) -> str:
    value = header.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SerializationError(f"{name}: expected text")
    return value
