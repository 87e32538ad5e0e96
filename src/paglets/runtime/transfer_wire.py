"""What two hosts say to each other about a transfer, as plain values, and the two ways of saying it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from paglets.core.allowance import AllowanceBalance
from paglets.core.errors import NotFoundError, RemoteHostError, SerializationError
from paglets.protocol.transfer.model import Outcome, Refusal, RefusalReason, TransferKind, TransferPlan
from paglets.remote.client import HostClient
from paglets.remote.movement import BufferPart, Part

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from paglets.remote.aio import AsyncHostClient

#: Time that a short request about a transfer may take.
WORD_SECONDS = 10.0
#: A movement up to this size, all of it in memory, is sent from the loop.
SMALL_BYTES = 256 * 1024
_POST_PICKLE = HostClient.post_pickle


def plan_to_wire(plan: TransferPlan) -> dict[str, Any]:
    """Return a plan as plain values."""
    wire = {each.name: getattr(plan, each.name) for each in fields(plan)}
    wire["kind"] = plan.kind.value
    wire["carried"] = plan.carried.to_wire()
    wire["kept"] = None if plan.kept is None else plan.kept.to_wire()
    return wire


def plan_from_wire(wire: Any) -> TransferPlan:
    """Restore a plan that a peer sent.

    :raises SerializationError: it is malformed.
    """
    try:
        given = dict(wire)
        given["kind"] = TransferKind(given["kind"])
        given["carried"] = AllowanceBalance.from_wire(given.get("carried"))
        kept = given.get("kept")
        given["kept"] = None if kept is None else AllowanceBalance.from_wire(kept)
        plan = TransferPlan(**given)
    except (TypeError, ValueError, KeyError) as exc:
        raise SerializationError(f"malformed transfer plan: {exc}") from None
    texts: list[Any] = [plan.transfer_id, plan.agent_id, plan.source, plan.target, plan.origin_id]
    if not all(isinstance(text, str) and len(text) <= 2048 for text in texts) or not plan.transfer_id:
        raise SerializationError("malformed transfer plan: ids and addresses are texts")
    whole: list[Any] = [plan.epoch, plan.attempts]
    pause: Any = plan.retry_interval
    flags: list[Any] = [plan.activate, plan.by_itself]
    if not all(type(number) is int and number < 1 << 62 for number in whole) or type(pause) not in (int, float):
        raise SerializationError("malformed transfer plan: epoch, attempts and retry_interval are numbers")
    if not all(isinstance(flag, bool) for flag in flags) or not 0 <= pause < 1e9:
        raise SerializationError("malformed transfer plan: a flag or a pause is out of range")
    return plan


def refusal_to_wire(refusal: Refusal) -> dict[str, Any]:
    """Return a refusal as plain values."""
    return {"reason": refusal.reason.value, "text": refusal.text, "retryable": refusal.retryable}


def refusal_from_wire(wire: Any) -> Refusal:
    """Restore a refusal; a reason this version does not know counts as policy."""
    if not isinstance(wire, dict):
        raise RemoteHostError("malformed answer to PREPARE")
    try:
        reason = RefusalReason(str(wire.get("reason")))
    except ValueError:
        reason = RefusalReason.POLICY
    return Refusal(reason, str(wire.get("text", "")), bool(wire.get("retryable", False)))


class TransferLink(Protocol):
    """Say things about one transfer to the other host.

    A network between hosts, the same host without one, and later one long-lived connection per pair implement it.
    """

    async def missing(self, holder: str, contents: list[tuple[str, int]], *, seconds: float) -> list[tuple[str, int]]:
        """Ask which contents the target lacks, each with how much of it has arrived; it holds the others for so long.

        :param contents: checksums and sizes, 4,096 at most.
        """

    async def put(
        self,
        holder: str,
        sha256: str,
        source: Path,
        size: int,
        *,
        offset: int,
        progress: Callable[[int, int], None],
        timeout: float,
    ) -> None:
        """Bring one content to the target, from an offset on.

        :param progress: is told how many bytes of how many are done, on the loop.
        :param timeout: seconds that the target may stall.
        """

    async def prepare(
        self, header: dict[str, Any], parts: list[Part], *, attempt: int, timeout: float
    ) -> dict[str, Any]:
        """Send PREPARE and return the answer: ``{"vote"}``, ``{"refused"}``, ``{"missing"}`` or ``{"acked": true}``."""

    async def commit(self, transfer_id: str, vote: str) -> dict[str, Any]:
        """Send COMMIT and return ``{"acked": true, "location", "settling"}`` or ``{"unknown": true}``."""

    async def abort(self, transfer_id: str) -> None:
        """Send ABORT."""

    async def settled(self, transfer_id: str, vote: str) -> None:
        """Tell the target that it may forget the transfer."""

    async def location(self, transfer_id: str) -> dict[str, str] | None:
        """Wait until ``run`` has settled at the target; return where the paglet is then, None if it lives nowhere."""

    async def outcome(self, transfer_id: str, vote: str) -> Outcome:
        """Ask the source what became of a transfer."""


class HttpTransferLink:
    """Speak with another host over its HTTP routes.

    :param base_url: the other host.
    :param client: sends a large PREPARE; it may block for long, so it runs in ``movers``.
    :param words: sends everything short.
    """

    def __init__(
        self,
        base_url: str,
        *,
        loop: asyncio.AbstractEventLoop,
        client: HostClient,
        words: AsyncHostClient,
        movers: ThreadPoolExecutor,
    ) -> None:
        self._base_url = base_url
        self._loop = loop
        self._client = client
        self._words = words
        self._movers = movers

    def _url(self, transfer_id: str, part: str = "") -> str:
        tail = f"/{part}" if part else ""
        return f"{self._base_url}/transfers/{quote(transfer_id, safe='')}{tail}"

    async def missing(self, holder: str, contents: list[tuple[str, int]], *, seconds: float) -> list[tuple[str, int]]:
        """Ask which contents are missing."""
        return await self._words.missing_blobs(self._base_url, holder, contents, seconds=seconds, timeout=WORD_SECONDS)

    async def put(
        self,
        holder: str,
        sha256: str,
        source: Path,
        size: int,
        *,
        offset: int,
        progress: Callable[[int, int], None],
        timeout: float,
    ) -> None:
        """Send a content as the body of ``PUT /blobs``."""
        await self._words.put_blob(
            self._base_url, sha256, source, size, offset=offset, holder=holder, progress=progress, timeout=timeout
        )

    async def prepare(
        self, header: dict[str, Any], parts: list[Part], *, attempt: int, timeout: float
    ) -> dict[str, Any]:
        """Send PREPARE as the body of ``POST /agents``."""
        payload = {**header, "parts": parts}
        in_memory = all(isinstance(part, BufferPart) for part in parts)
        # A client that does something of its own with a movement is to see every one of them.
        usual = getattr(self._client.post_pickle, "__func__", None) is _POST_PICKLE
        if usual and in_memory and sum(part.nbytes for part in parts) <= SMALL_BYTES:
            # Nothing in it blocks: from the loop it goes without two changes of threads.
            return _as_dict(await self._words.post_movement(f"{self._base_url}/agents", payload, timeout=timeout))
        send = partial(self._client.post_pickle, f"{self._base_url}/agents", payload, timeout=timeout)
        return _as_dict(await self._loop.run_in_executor(self._movers, send))

    async def commit(self, transfer_id: str, vote: str) -> dict[str, Any]:
        """Send COMMIT."""
        try:
            return _as_dict(
                await self._words.post_json(self._url(transfer_id, "commit"), {"vote": vote}, timeout=WORD_SECONDS)
            )
        except NotFoundError:
            return {"unknown": True}

    async def abort(self, transfer_id: str) -> None:
        """Send ABORT."""
        await self._words.post_json(self._url(transfer_id, "abort"), {}, timeout=WORD_SECONDS)

    async def settled(self, transfer_id: str, vote: str) -> None:
        """Tell the target that it may forget the transfer."""
        await self._words.post_json(self._url(transfer_id, "settled"), {"vote": vote}, timeout=WORD_SECONDS)

    async def location(self, transfer_id: str) -> dict[str, str] | None:
        """Wait for the paglet's location after its ``run`` has settled."""
        reply = _as_dict(await self._words.get_json(self._url(transfer_id, "location"), timeout=WORD_SECONDS))
        location = reply.get("proxy")
        return location if isinstance(location, dict) else None

    async def outcome(self, transfer_id: str, vote: str) -> Outcome:
        """Ask the source what became of a transfer."""
        url = f"{self._url(transfer_id)}?vote={quote(vote, safe='')}"
        reply = _as_dict(await self._words.get_json(url, timeout=WORD_SECONDS))
        try:
            return Outcome(str(reply.get("outcome")))
        except ValueError:
            raise RemoteHostError(f"malformed answer from {self._base_url}: {reply!r}") from None


def _as_dict(reply: Any) -> dict[str, Any]:
    if not isinstance(reply, dict):
        raise RemoteHostError("malformed answer about a transfer")
    return reply
