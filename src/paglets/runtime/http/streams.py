"""Bodies of any size on their way from a client to the disk and back, in constant memory."""

from __future__ import annotations

from typing import BinaryIO, Final

from paglets.artifacts.depot_reader import DepotReader
from paglets.core.errors import HostError
from paglets.runtime.content_threads import ContentThreads
from paglets.runtime.http.errors import ClientGoneError
from paglets.runtime.http.extensions import ANSWER_SENT, BODY_TAKEN, INLET, OUTLET
from paglets.runtime.http.guards import Receive, Scope, Send
from paglets.runtime.http.passage import Take

#: What is gathered of a body that comes in pieces, before a thread is troubled with it.
GATHERED_BYTES: Final = 1024 * 1024
_SENT_BYTES: Final = 256 * 1024

Headers = list[tuple[bytes, bytes]]


async def receive_content(scope: Scope, receive: Receive, take: Take, threads: ContentThreads) -> None:
    """Have the body of a request taken as it comes, piece by piece and on one thread at a time.

    :param take: called with each piece; what it raises ends this.
    :raises ClientGoneError: the client left before the end.
    :raises SlowClientError: it took too long.
    """
    extensions = scope.get("extensions", {})
    length = content_length(scope)
    inlet = extensions[INLET]() if length is not None and INLET in extensions else None
    if length is None or inlet is None:
        await _receive_pieces(receive, take, threads)
        return
    passage, gathered = inlet
    try:
        if gathered:
            await threads.move(take, gathered)
        await passage.receive(length - len(gathered), take, threads.moving)
    except BaseException:
        passage.close()
        raise
    passage.close()
    extensions[BODY_TAKEN]()


async def _receive_pieces(receive: Receive, take: Take, threads: ContentThreads) -> None:
    gathered: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            gathered.append(piece)
            size += len(piece)
        if gathered and (size >= GATHERED_BYTES or not more):
            whole = gathered[0] if len(gathered) == 1 else b"".join(gathered)
            gathered, size = [], 0
            await threads.move(take, whole)


def content_length(scope: Scope) -> int | None:
    """Return the announced length of a body, None where there is none or it comes in chunks."""
    found = None
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            found = int(value)
    return found


async def send_content(
    scope: Scope,
    send: Send,
    stream: BinaryIO,
    threads: ContentThreads,
    *,
    status: int,
    headers: Headers,
    start: int,
    end: int,
) -> None:
    """Answer with part of an open file; an answer that cannot be completed ends with the connection.

    :param headers: with the length of the part.
    """
    extensions = scope.get("extensions", {})
    far = isinstance(stream, DepotReader)
    outlet = extensions[OUTLET](status, headers) if OUTLET in extensions and not far else None
    if outlet is None:
        await _send_pieces(send, stream, threads, status=status, headers=headers, start=start, end=end)
        return
    passage, head = outlet
    whole = False
    try:
        await passage.send(head, stream.fileno(), start, end - start, threads.moving)
        whole = True
    except (ClientGoneError, HostError):
        # The head is out: nothing is left to say, and the length that was announced says the rest.
        whole = False
    finally:
        passage.close()
        extensions[ANSWER_SENT](whole)


async def _send_pieces(
    send: Send, stream: BinaryIO, threads: ContentThreads, *, status: int, headers: Headers, start: int, end: int
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    run = threads.reach if isinstance(stream, DepotReader) else threads.look
    await run(stream.seek, start)
    while start < end:
        piece = await run(stream.read, min(_SENT_BYTES, end - start))
        if not piece:
            raise HostError("the content became shorter while it was sent")
        start += len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
