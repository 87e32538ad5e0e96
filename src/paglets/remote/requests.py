"""What requests to a host look like and what its answers mean; no input or output happens here.

The synchronous and the asynchronous client share all of this and differ only in how bytes travel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from paglets.artifacts import ArtifactRef
from paglets.core.context import ACTIVE, INACTIVE
from paglets.core.error_wire import HTTP_ERRORS, error_from_wire
from paglets.core.errors import (
    AuthenticationError,
    ConnectionLostError,
    HostUnreachableError,
    RemoteHostError,
    SerializationError,
)
from paglets.core.messages import ONEWAY, SYNCHRONOUS, Message
from paglets.core.terms import FIRST_ATTEMPT, DeliveryTerms
from paglets.core.text import one_line
from paglets.remote.json_text import decode_json, encode_json
from paglets.remote.movement import Piece, movement_pieces
from paglets.remote.pursuit import NotConnectedError
from paglets.remote.references import PagletProxyRef
from paglets.remote.transfer import TransferTicket
from paglets.remote.transport import MOVEMENT_CONTENT_TYPE
from paglets.serialization.codec import to_wire
from paglets.serialization.values import unpack

__all__ = [
    "DEFAULT_MAX_RESPONSE_BYTES",
    "DEFAULT_TIMEOUT_SECONDS",
    "REFUSED_HEADER",
    "RELAY_TIMEOUT_HEADER",
    "Parcel",
    "agent_url",
    "checked_key",
    "decode_answer",
    "decode_json",
    "decode_reply",
    "delivery",
    "dict_of",
    "encode_json",
    "field_of",
    "location_of",
    "matches_state",
    "move_payload",
    "movement_body",
    "operation_timeout",
    "quoted",
    "relay_terms",
    "terms_of",
    "with_artifact",
    "with_reply",
]

DEFAULT_TIMEOUT_SECONDS: Final = 10.0
RELAY_TIMEOUT_HEADER: Final = "Paglets-Timeout"
"""Seconds that an answer through a relay may take to begin, so that the relay can say what became of the request."""
REFUSED_HEADER: Final = "Paglets-Refused"
"""Why a paglet that was to arrive was refused, percent-encoded, for relays, which do not look into answers."""
DEFAULT_MAX_RESPONSE_BYTES: Final = 256 * 1024 * 1024

_MOVEMENTS: Final = frozenset({"dispatch", "clone", "retract"})
# Hooks, hashing and disks on two hosts come on top of what the ticket allows for the network.
_MOVEMENT_SLACK_SECONDS: Final = 10.0
_MAX_QUOTED_ERROR: Final = 300
_RELAY_MARK: Final = "/relay/hosts/"
_RELAY_GRACE_SECONDS: Final = 0.5
_NO_FIELDS: Final[dict[str, str]] = {}
# What a host takes as the time that a sender waits.
_MAX_TIMEOUT_SECONDS: Final = 86_400.0
# A proxy in between has these answers of its own: the host behind it may have had the request.
_GATEWAY_FAILURES: Final = frozenset({502, 503, 504})


# --- requests ---------------------------------------------------------------------------------------------------------


def movement_body(payload: dict[str, Any]) -> tuple[str, Iterator[Piece]]:
    """Return content type and pieces of a dict in the movement encoding; large binary values in it are not copied.

    A list of `paglets.remote.movement` parts under the key `parts` follows the dict, read while it is sent.

    :raises SerializationError: the encoding does not know a value.
    """
    parts = payload.get("parts")
    if isinstance(parts, list) and parts and all(hasattr(part, "pieces") for part in parts):
        header = {key: value for key, value in payload.items() if key != "parts"}
        return MOVEMENT_CONTENT_TYPE, movement_pieces(to_wire(header), parts)
    return MOVEMENT_CONTENT_TYPE, movement_pieces(to_wire(payload))


def checked_key(api_key: str) -> str:
    """Return an API key that can be sent as it is; raise `ValueError` without showing it if it cannot."""
    if not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("the API key holds characters that a header cannot carry")
    return api_key


def relay_terms(url: str, seconds: float) -> tuple[dict[str, str], float]:
    """Return the fields that tell a relay how long an answer is waited for, and how long to wait for the relay's word.

    :param seconds: that the answer may take; returned unchanged where the URL is no relay's.
    """
    if _RELAY_MARK not in url:
        return _NO_FIELDS, seconds
    return {RELAY_TIMEOUT_HEADER: f"{seconds:.3f}"}, seconds + _RELAY_GRACE_SECONDS


# --- answers ---------------------------------------------------------------------------------------------------------


def decode_reply(
    status: int, body: bytes, url: str, *, has_key: bool, decode: Callable[[bytes, str], Any] | None = None
) -> Any:
    """Return the decoded body of a good answer, raise what any other one says.

    :param has_key: the request carried an API key.
    :param decode: reads the body of a good answer, in place of JSON.
    :raises AuthenticationError: the host wants credentials; without a key the text says where to put one.
    :raises ConnectionLostError: a proxy answers for the host, which does not.
    :raises RemoteHostError: the answer is not JSON, or an error of unknown type.
    :raises PagletError: the error that the host named.
    """
    if 200 <= status < 300:
        return (decode or decode_answer)(body, url)
    raise _error(status, body, url, has_key=has_key)


def decode_answer(body: bytes, url: str) -> Any:
    """Return the decoded body of a good answer in JSON; raise `RemoteHostError` if it is none."""
    try:
        return decode_json(body)
    except ValueError as exc:
        raise RemoteHostError(f"{url} answered with something that is not JSON: {exc}") from exc


def _error(status: int, body: bytes, url: str, *, has_key: bool) -> Exception:
    try:
        payload = decode_json(body)
    except ValueError:
        payload = None
    if status == 401 and not has_key:
        return AuthenticationError(
            f"{url} requires an API key: set PAGLETS_API_KEY, or name another environment variable with --api-key-env"
        )
    if isinstance(payload, Mapping) and "error_type" in payload:
        error = error_from_wire(payload, unknown=RemoteHostError, table=HTTP_ERRORS)
        if payload.get("relay") is True and isinstance(error, HostUnreachableError):
            # Of the host that was asked, not of one that it passed something on to.
            return NotConnectedError(str(error))
        return error
    cls: type[Exception] = RemoteHostError
    if status == 401:
        cls = AuthenticationError
    elif status in _GATEWAY_FAILURES:
        cls = ConnectionLostError
    hint = " (redirects are not followed)" if 300 <= status < 400 else ""
    return cls(f"{url} answered HTTP {status}{hint}: {quoted(body)}")


def quoted(body: bytes) -> str:
    """Return the start of a stranger's text on one line without control characters."""
    return one_line(body[:_MAX_QUOTED_ERROR].decode(errors="replace")) or "no text"


def field_of(reply: Any, name: str, url: str) -> Any:
    """Return a field of an answer; raise `RemoteHostError` if there is none."""
    if not isinstance(reply, Mapping) or name not in reply:
        raise RemoteHostError(f"{url} answered without {name!r}")
    return reply[name]


def dict_of(reply: Any, url: str) -> dict[str, Any]:
    """Return an answer that must be an object; raise `RemoteHostError` if it is none."""
    if not isinstance(reply, dict):
        raise RemoteHostError(f"{url} answered with something that is no object")
    return reply


# --- paglets ---------------------------------------------------------------------------------------------------------


def agent_url(host_url: str, agent_id: str, operation: str = "") -> str:
    """Return the URL of a paglet, or of an operation on it."""
    base = f"{host_url.rstrip('/')}/agents/{agent_id if agent_id.isalnum() else quote(agent_id, safe='')}"
    return f"{base}/{operation}" if operation else base


class Parcel:
    """A message with how it is to be delivered.

    :param packed: its wire form, packed, in place of the message itself, which is unpacked if somebody asks for it.
    :param message_id: of a packed message.
    """

    __slots__ = ("_message", "activate_if_inactive", "message_id", "no_delay", "oneway", "packed")

    def __init__(
        self,
        message: Message | None,
        oneway: bool = False,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        *,
        packed: bytes = b"",
        message_id: str = "",
    ) -> None:
        self._message = message
        self.oneway = oneway
        self.activate_if_inactive = activate_if_inactive
        self.no_delay = no_delay
        self.packed = packed
        self.message_id = message_id if message is None else message.message_id

    @property
    def message(self) -> Message:
        """The message.

        :raises SerializationError: the packed one is malformed.
        """
        if self._message is None:
            self._message = Message.from_wire(unpack(self.packed))
        return self._message


def delivery(parcel: Parcel, terms: DeliveryTerms) -> dict[str, Any]:
    """Return the body of a message delivery."""
    return {
        "message": parcel.message.to_wire(),
        "oneway": parcel.oneway,
        "activate_if_inactive": parcel.activate_if_inactive,
        "no_delay": parcel.no_delay,
        **terms.to_wire(),
    }


def terms_of(parcel: Parcel, seconds: float, attempt: int = 1, before: DeliveryTerms = FIRST_ATTEMPT) -> DeliveryTerms:
    """Return the terms of one attempt to deliver a parcel.

    :param seconds: how long the sender still waits; a one-way message has no such limit, it is accepted once and for
        all.
    :param before: terms with the chain and the hops to be passed on.
    """
    limit = None if parcel.oneway or not seconds > 0 else min(seconds, _MAX_TIMEOUT_SECONDS)
    return DeliveryTerms(attempt, limit, before.chain, before.hops)


def with_reply(message: Message) -> Message:
    """Return a message that does not say of itself that nobody waits for its reply."""
    return replace(message, message_type=SYNCHRONOUS) if message.message_type == ONEWAY else message


def move_payload(target: str | TransferTicket | None) -> dict[str, Any]:
    """Return the body of a dispatch or clone; no target means the host that the paglet is on."""
    return {"ticket": target.to_wire()} if isinstance(target, TransferTicket) else {"target": target}


def location_of(reply: Mapping[str, Any], host_url: str) -> PagletProxyRef:
    """Return the location that the answer to an operation holds; raise `RemoteHostError` if it holds none."""
    try:
        return PagletProxyRef.from_wire(field_of(reply, "proxy", host_url))
    except SerializationError as exc:
        raise RemoteHostError(f"{host_url} answered with an unreadable location: {exc}") from exc


def matches_state(active: bool | None, state: int | bool) -> bool:
    """Tell whether a paglet that is active, inactive or unknown (None) is in a state given as mask or bool."""
    if active is None:
        return False
    # Before the mask: a bool is an int.
    if isinstance(state, bool):
        return active is state
    return bool(state & (ACTIVE if active else INACTIVE))


def with_artifact(message: Message, arg_name: str, artifact: ArtifactRef) -> Message:
    """Return a copy of a message with the reference to an artifact as one more argument."""
    return replace(message, args={**message.args, arg_name: artifact.to_wire()})


def operation_timeout(operation: str, payload: Mapping[str, Any], default: float) -> float:
    """Return how many seconds to wait for an operation on a paglet.

    The answer to a move comes when the target has the paglet, so it takes what the ticket allows for every attempt and
    for asking the target first.
    """
    if operation not in _MOVEMENTS:
        return default
    wire = payload.get("ticket")
    ticket = TransferTicket.from_wire(wire) if isinstance(wire, dict) else TransferTicket("")
    allowed = ticket.timeout * (ticket.retries + 2) + ticket.retry_interval * ticket.retries
    return max(default, allowed + _MOVEMENT_SLACK_SECONDS)
