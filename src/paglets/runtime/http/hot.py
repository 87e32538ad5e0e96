"""The routes that are called all the time or by every host, without the framework around them.

They are documented with the others and are served there too, under unusual spellings of their paths; what they do is
written once, here.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

import msgspec

from paglets.core.runtime_values import ServiceScope
from paglets.remote.packed import decode_delivery, encode_answer
from paglets.remote.requests import encode_json
from paglets.runtime.http.bodies import DeliverBody, JoinBody, VoteBody
from paglets.runtime.http.errors import described
from paglets.runtime.http.guards import JSON_TYPE, MEDIA_TYPE, MESSAGE_TYPE, Scope, Send, send_json
from paglets.runtime.http.intake import decode_body
from paglets.runtime.node import Node
from paglets.runtime.posting import Posting
from paglets.serialization.values import unpack

#: Bodies above this size take longer than the framework does, and are decoded beside the event loop there.
MAX_BODY_BYTES = 64 * 1024
#: A longer id of a transfer is refused where the others are.
MAX_ID_LENGTH = 256
#: The same for names and capabilities of services.
MAX_NAME_LENGTH = 1024
_DONE = b'{"ok":true}'
_NOTHING = b'{"result":null}'


def posting_of(data: DeliverBody) -> Posting:
    """Return the message of a body in JSON.

    :raises SerializationError: it holds something that cannot travel.
    """
    return Posting.of(
        data.message.message(),
        oneway=data.oneway,
        activate_if_inactive=data.activate_if_inactive,
        no_delay=data.no_delay,
        terms=data.terms(),
        found={},
    )


async def _packed_posting(body: bytes) -> Posting:
    read = decode_delivery(body) if len(body) <= MAX_BODY_BYTES else await asyncio.to_thread(decode_delivery, body)
    return Posting.arrived(*read, found={})


async def deliver(node: Node, agent_id: str, posting: Posting, *, packed: bool = False) -> bytes:
    """Deliver a message and return the encoded answer with the handler's reply.

    :param packed: whether the answer is in the encoding of `paglets.remote.packed`.
    :raises PagletError: what the delivery or the handler ended in.
    """
    reply = await node.post.send(agent_id, posting)
    found = posting.found or {}
    if reply is None:
        if packed:
            return encode_answer(None, found)
        return encode_json({"result": None, **found}) if found else _NOTHING
    try:
        if packed:
            return encode_answer(reply.view(), found)
        return encode_json({"result": unpack(reply.view()), **found})
    finally:
        reply.close()


def health(node: Node) -> bytes:
    """Return the encoded answer of who this host is and how it does."""
    return encode_json(node.ports.health())


def join(node: Node, data: JoinBody) -> bytes:
    """Take up the host that asks and return the encoded answer: every known host, or what its gossip lacks."""
    return encode_json(node.ports.mesh.receive(msgspec.to_builtins(data)))


async def commit(node: Node, transfer_id: str, vote: str) -> bytes:
    """Let an arrived paglet live and return the encoded acknowledgement."""
    return encode_json(await node.arrivals.commit(transfer_id, vote))


def settle(node: Node, transfer_id: str, vote: str) -> bytes:
    """Forget a transfer and return the encoded answer."""
    node.arrivals.settled(transfer_id, vote)
    return _DONE


def services(node: Node, name: str | None, capability: str | None, scope: str) -> bytes:
    """Return the encoded answer of which services there are here.

    :param scope: ``mesh`` for those that are offered to it, ``local`` for all.
    """
    wanted = ServiceScope.MESH if scope == ServiceScope.MESH.value else None
    found = node.ports.services.lookup_all(name, capability, wanted)
    return encode_json({"services": [record.to_wire() for record in found]})


def _asked_by_a_host(query: bytes) -> dict[str, str] | None:
    """Return what another host wants to know of the services here, None if it is somebody else who asks.

    Hosts pass over one that does not answer within a second, which may be less than it takes to load the framework.
    """
    if not query.isascii():
        return None
    fields = parse_qsl(query.decode("ascii"), keep_blank_values=True)
    found = dict(fields)
    if found.get("scope") != ServiceScope.MESH.value or len(found) < len(fields):
        return None
    if not found.keys() <= {"scope", "name", "capability"} or max(map(len, found.values())) > MAX_NAME_LENGTH:
        return None
    return found


class HotRoutes:
    """Serve the routes of this module."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def serve(self, scope: Scope, body: bytes, send: Send) -> bool:
        """Serve a request if it is one of these routes; return whether it was."""
        path: str = scope["path"]
        packed = scope[MEDIA_TYPE] == MESSAGE_TYPE
        media_type = JSON_TYPE
        try:
            if path == "/health" and scope["method"] == "GET":
                answer = health(self._node)
            elif path.endswith("/messages") and scope["method"] == "POST":
                root, collection, agent_id, *rest = path.split("/", 3)
                if root or collection != "agents" or not agent_id or rest != ["messages"]:
                    return False
                if packed:
                    posting = await _packed_posting(body)
                    media_type = MESSAGE_TYPE
                elif len(body) <= MAX_BODY_BYTES:
                    posting = posting_of(decode_body(body, DeliverBody))
                    media_type = _wanted_type(scope)
                else:
                    return False
                answer = await deliver(self._node, agent_id, posting, packed=media_type == MESSAGE_TYPE)
            elif packed:
                return False
            elif path == "/hosts/join" and scope["method"] == "POST" and len(body) <= MAX_BODY_BYTES:
                answer = join(self._node, decode_body(body, JoinBody))
            elif path == "/services" and scope["method"] == "GET":
                asked = _asked_by_a_host(scope["query_string"])
                if asked is None:
                    return False
                answer = services(self._node, asked.get("name"), asked.get("capability"), asked["scope"])
            elif path.startswith("/transfers/") and scope["method"] == "POST" and len(body) <= MAX_BODY_BYTES:
                transfer_id, _, word = path.removeprefix("/transfers/").partition("/")
                if word not in ("commit", "settled") or not 0 < len(transfer_id) <= MAX_ID_LENGTH:
                    return False
                vote = decode_body(body, VoteBody).vote
                answer = (
                    await commit(self._node, transfer_id, vote)
                    if word == "commit"
                    else settle(self._node, transfer_id, vote)
                )
            else:
                return False
        except Exception as exc:
            status, wire = described(exc)
            await send_json(send, status, encode_json(wire))
        else:
            await send_json(send, 200, answer, media_type=media_type)
        return True


def _wanted_type(scope: Scope) -> bytes:
    """Return the type of the answer to a message in JSON: a host may say that it understands another one."""
    for name, value in scope["headers"]:
        if name == b"accept":
            return MESSAGE_TYPE if value.startswith(MESSAGE_TYPE) else JSON_TYPE
    return JSON_TYPE
