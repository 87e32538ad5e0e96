"""The routes of a relay: links come in here, and requests for connected hosts go out on them.

Whoever gets here has passed the guard: he may do what he asks for, also before a connection becomes a link.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import msgspec

from paglets.core.errors import (
    ConnectionLostError,
    HostError,
    HostUnreachableError,
    NotFoundError,
    PagletError,
    RemoteTimeoutError,
)
from paglets.protocol.link import Headers, ResetCode
from paglets.remote.requests import REFUSED_HEADER, RELAY_TIMEOUT_HEADER
from paglets.runtime.http.errors import ClientGoneError, described
from paglets.runtime.http.extensions import UPGRADE
from paglets.runtime.http.gate import CALLER, SWITCHED
from paglets.runtime.http.guards import MOVEMENT_TYPE, Application, Receive, Scope, Send, refuse, send_json
from paglets.runtime.http.intake import Intake, replay
from paglets.runtime.relay.hub import Hub, NotReachedError, QueueFullError
from paglets.runtime.relay.inside import end_to_end
from paglets.runtime.relay.patience import MOST_BODY_BYTES, may_be_in_body, timeout_in
from paglets.runtime.relay.session import LinkStream, StreamLostError
from paglets.security.caller import Caller

LINK_PATH: Final = "/relay/link"
HOSTS: Final = b"/relay/hosts/"
_NAMES: Final = "/relay/names/"
_RELEASE: Final = "/release"
_TIMEOUT: Final = RELAY_TIMEOUT_HEADER.lower().encode()
_REFUSED: Final = REFUSED_HEADER.lower().encode()
_MOST_SECONDS: Final = 86_400.0
_GONE: Final = frozenset({"connect", "poll", "ack"})
#: What may say in its body how long it is waited for.
_TIMED: Final = frozenset({"message", "creation"})


class RelayGateway:
    """Serve everything under ``/relay/``.

    :param local: serves what is for the hub itself under its relay address.
    """

    def __init__(self, hub: Hub, local: Application) -> None:
        self._hub = hub
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path: str = scope["path"]
        try:
            if path.startswith("/relay/hosts/"):
                await self._pass_on(scope, receive, send)
            elif path == LINK_PATH and scope["method"] == "GET":
                await self._open_link(scope)
            elif path == "/relay/diagnostics" and scope["method"] == "GET":
                await send_json(send, 200, msgspec.json.encode({"nodes": self._hub.diagnostics()}))
            elif path == "/relay/names" and scope["method"] == "GET":
                await send_json(send, 200, msgspec.json.encode({"names": self._hub.names()}))
            elif path.startswith(_NAMES) and path.endswith(_RELEASE) and scope["method"] == "POST":
                await self._release(scope, receive)
                await send_json(send, 200, b'{"ok":true}')
            elif path.split("/")[2] in _GONE:
                raise NotFoundError(f"this hub is not polled: a connected host opens a link at {LINK_PATH}")
            else:
                raise NotFoundError(f"No route for {scope['method']} {path[:200]}")
        except PagletError as exc:
            await _tell(send, exc)

    # --- links --------------------------------------------------------------------------------------------------------

    async def _open_link(self, scope: Scope) -> None:
        """Turn a connection into a link.

        :raises PagletError: it cannot be one.
        """
        headers: Headers = scope["headers"]
        name = parse_qs(scope["query_string"].decode("latin-1")).get("name", [""])[0]
        if not 0 < len(name) <= 200 or not name.isprintable():
            raise HostError("a link needs the name of the host: ?name=")
        upgrade = scope.get("extensions", {}).get(UPGRADE)
        fields = dict(headers)
        if upgrade is None or fields.get(b"upgrade", b"").lower() != b"websocket":
            raise HostError("a link is opened by a WebSocket handshake, version 13")
        # Only where there are links: most hosts have none, and the library takes a while to load.
        from paglets.runtime.relay.wire import Wire

        # By name: the keys of one caller are exchanged while its hosts are connected.
        caller: Caller = scope[CALLER]
        credential = hashlib.sha256(f"{caller.role} {caller.name}".encode()).digest()
        await self._hub.claim(name, credential)
        session = self._hub.session(name, credential)
        head = b"GET / HTTP/1.1\r\n" + b"".join(b"%s: %s\r\n" % field for field in headers) + b"\r\n"
        wire = Wire.server(head, session)
        session.wire = wire
        if not upgrade(wire):
            raise HostError("the connection cannot become a link: something followed the request")
        scope[SWITCHED] = True

    async def _release(self, scope: Scope, receive: Receive) -> None:
        """Let a name belong to nobody."""
        while (await receive()).get("more_body", False):
            continue
        raw: bytes = scope["raw_path"]
        name = unquote(raw.decode("latin-1").removeprefix(_NAMES).removesuffix(_RELEASE))
        await self._hub.release(name)

    # --- requests -----------------------------------------------------------------------------------------------------

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes = scope["raw_path"]
        quoted, slash, rest = raw.removeprefix(HOSTS).partition(b"/")
        name, path = unquote(quoted.decode("latin-1")), (slash + rest).decode("latin-1") or "/"
        if not raw.startswith(HOSTS) or not name:
            raise NotFoundError("a host has an address of the form /relay/hosts/NAME")
        if path == "/relay" or path.startswith("/relay/"):
            raise NotFoundError("a connected host is no hub")
        if name == self._hub.name:
            own = {**scope, "path": unquote(path), "raw_path": path.encode("latin-1")}
            await self._local(own, receive, send)
            return
        query: bytes = scope["query_string"]
        target = f"{path}?{query.decode('latin-1')}" if query else path
        await _Passage(self._hub, scope, name, target).run(receive, send)


class _Passage:
    """One request on its way to a connected host and back."""

    def __init__(self, hub: Hub, scope: Scope, name: str, target: str) -> None:
        self._hub = hub
        self._scope = scope
        self._name = name
        self._target = target
        self._method: str = scope["method"]
        self._fields = dict(scope["headers"])
        self._kind = _kind_of(self._method, target.partition("?")[0], self._fields)
        self._seconds = self._limit()
        self._uploaded = False
        self._id = ""

    async def run(self, receive: Receive, send: Send) -> None:
        """Pass the request on and the answer back.

        :raises PagletError: there is no answer; what that means is in its class.
        """
        hub, name = self._hub, self._name
        # Clients of this project say it in a header where the body is small, so none of theirs is looked into.
        if _TIMEOUT not in self._fields and self._kind in _TIMED and may_be_in_body(self._fields):
            try:
                # Its length was announced, and the server holds it to that.
                body = await Intake().read(receive, limit=MOST_BODY_BYTES, total=MOST_BODY_BYTES)
            except ClientGoneError:
                return
            receive = replay(body, receive)
            said = timeout_in(body)
            self._seconds = self._seconds if said is None else said
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            session = await hub.reach(name, seconds=self._seconds)
            stream = hub.ask(name, session, self._method, self._target, self._headers())
        except QueueFullError as exc:
            self._report_full(exc)
            raise
        except NotReachedError as exc:
            self._report_absence(exc)
            raise
        except ValueError as exc:
            raise HostError(f"the request cannot be passed on: {exc}") from exc
        self._report("relay-delivery-enqueued", timeout=self._seconds, queue_depth=hub.queue_depth(name))
        uploading = loop.create_task(self._upload(stream, receive))
        # After the task has had its first turn: a body that is here already goes in the same message.
        loop.call_soon(stream.flush)
        self._report("relay-delivery-dispatched")
        try:
            left = None if self._seconds is None else max(0.0, self._seconds - (loop.time() - began))
            try:
                async with asyncio.timeout(left):
                    status, headers = await stream.answered()
            except TimeoutError:
                self._report_timeout()
                raise hub.timed_out(name, self._seconds or 0.0) from None
            except StreamLostError as exc:
                failure = hub.failure(name, exc)
                self._report("relay-delivery-ack", ok=False, error=str(failure))
                raise failure from None
            finally:
                hub.answered(name)
            why = _why_not(status, headers)
            self._report("relay-delivery-ack", ok=why is None, error=why)
            with suppress(StreamLostError):
                # Otherwise the answer breaks off, and so does the connection to whoever asked.
                await self._give_back(stream, status, headers, send)
        finally:
            uploading.cancel()
            hub.over(name)
            stream.reset(ResetCode.CANCELLED, "whoever asked does not wait any more")

    async def _upload(self, stream: LinkStream, receive: Receive) -> None:
        """Send the body of the request, then see whether whoever asked stays."""
        with suppress(StreamLostError):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    stream.reset(ResetCode.CANCELLED, "whoever asked has gone")
                    return
                self._uploaded = not message.get("more_body", False)
                await stream.write(message.get("body", b""), end=self._uploaded)

    async def _give_back(self, stream: LinkStream, status: int, headers: Headers, send: Send) -> None:
        fields = end_to_end(headers)
        if not self._uploaded:
            # Nobody reads the rest of the request: it would be taken for the next one.
            fields.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": fields})
        while True:
            piece = await stream.read()
            more = not stream.at_end and bool(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
            if not more:
                return

    def _headers(self) -> Headers:
        """Return the fields that the connected host gets."""
        given: Headers = self._scope["headers"]
        fields = [field for field in end_to_end(given) if field[0] not in (b"expect", b"forwarded", _TIMEOUT)]
        if b"transfer-encoding" in self._fields:
            # That a body of unknown length follows is worth knowing; how it is cut is not.
            fields.append((b"transfer-encoding", b"chunked"))
        client = self._scope.get("client")
        if client:
            shown = f'"[{client[0]}]"' if ":" in client[0] else client[0]
            before = [value for key, value in given if key == b"forwarded"]
            fields.append((b"forwarded", b", ".join([*before, f"for={shown}".encode("ascii", "replace")])))
        return fields

    def _limit(self) -> float | None:
        try:
            seconds = float(self._fields[_TIMEOUT])
        except (KeyError, ValueError):
            return self._hub.settings.delivery_timeout
        return min(max(seconds, 0.0), _MOST_SECONDS) if seconds == seconds else None

    # --- events -------------------------------------------------------------------------------------------------------

    def _report(self, kind: str, **data: Any) -> None:
        if self._kind == "api":
            return  # gossip and questions, all the time
        self._id = self._id or uuid.uuid4().hex
        error = data.get("error")
        self._hub.emit(
            kind,
            data={"delivery_id": self._id, "target": self._name, "kind": self._kind, "stage": "relay-queue", **data},
            error=error,
        )

    def _report_timeout(self) -> None:
        data = {"target": self._name, "kind": self._kind, "stage": "relay-ack", "timeout": self._seconds}
        text = f"Relay delivery to {self._name!r} timed out"
        self._hub.emit("relay-delivery-timeout", data=data, error=text)
        self._report_failed_transfer("relay-ack", text)

    def _report_absence(self, error: NotReachedError) -> None:
        preflight = self._target.partition("?")[0] == "/health"
        first = self._hub.first_time_offline(self._name)
        if self._kind == "api" and not first:
            return
        stage = "relay-preflight" if preflight else "relay-queue"
        data = {"target": self._name, "kind": self._kind, "stage": stage, "last_seen_age": self._hub.age(self._name)}
        self._hub.emit("relay-target-offline", data=data, error=str(error))
        self._report_failed_transfer(stage, str(error))

    def _report_full(self, error: QueueFullError) -> None:
        """Tell that a host which is there has too much to do: once, not again for each attempt of all who ask."""
        if self._hub.first_time_full(self._name):
            data = {
                "target": self._name,
                "kind": self._kind,
                "stage": "relay-queue",
                "queue_depth": self._hub.queue_depth(self._name),
            }
            self._hub.emit("relay-queue-full", data=data, error=str(error))
        self._report_failed_transfer("relay-queue", str(error))

    def _report_failed_transfer(self, stage: str, error: str) -> None:
        if self._kind == "envelope":
            self._hub.emit("transfer-failed", data={"destination": self._name, "stage": stage}, error=error)


def _why_not(status: int, headers: Headers) -> str | None:
    """Return why a connected host did not do what it was asked to, None where it did."""
    if status >= 400:
        return f"answered with status {status}"
    refused = next((value for key, value in headers if key.lower() == _REFUSED), None)
    return None if refused is None else unquote(refused.decode("ascii", "replace"))


def _kind_of(method: str, path: str, fields: dict[bytes, bytes]) -> str:
    parts = path.strip("/").split("/")
    match method, parts:
        case "POST", ["agents"]:
            moved = fields.get(b"content-type", b"").partition(b";")[0].strip().lower() == MOVEMENT_TYPE
            return "envelope" if moved else "creation"
        case "POST", ["agents", _, "messages"]:
            return "message"
        case "POST", ["artifacts"]:
            return "artifact-import"
        case "GET", ["artifacts", _]:
            return "artifact-export"
    return "api"


async def _tell(send: Send, error: PagletError) -> None:
    """Answer with an error; one of the relay's own says so, since the host behind it has had no word in it."""
    status = _STATUS.get(type(error))
    if status is None:
        await refuse(send, error)
        return
    _, wire = described(error)
    body: MutableMapping[str, Any] = {**wire, "relay": True}
    await send_json(send, status, msgspec.json.encode(body), closing=True)


_STATUS: Final[dict[type[PagletError], int]] = {
    NotReachedError: 503,
    QueueFullError: 503,
    HostUnreachableError: 503,
    ConnectionLostError: 502,
    RemoteTimeoutError: 504,
}
