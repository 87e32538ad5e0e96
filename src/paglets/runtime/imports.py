"""Take paglets that come as one document, without a source that would hold its own copy meanwhile."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace
from typing import Any, Final

from paglets.artifacts.store import ArtifactStore
from paglets.core.allowance import AllowanceBalance
from paglets.core.errors import ConflictError, ForbiddenError, SerializationError, TransferError
from paglets.core.runtime_values import ArrivalMode, EnvelopeKind
from paglets.persistence.envelope import DECLARED_STATE, PagletEnvelope
from paglets.protocol.transfer.model import RefusalReason, TransferKind, TransferPlan
from paglets.remote.transfer import TransferTicket
from paglets.runtime.arrival import ArrivalDesk
from paglets.runtime.attachment import Attachment
from paglets.runtime.content_threads import ContentThreads
from paglets.runtime.creation import first_epoch
from paglets.runtime.kernel import Kernel
from paglets.runtime.receiving import Incoming, StateSink
from paglets.runtime.shipment import SLOW_BYTES_PER_SECOND
from paglets.runtime.transfer_wire import refusal_from_wire
from paglets.runtime.uploaded_files import UploadedFiles
from paglets.security.caller import Caller
from paglets.serialization.blob import blob_from_wire

#: How long a paglet may take to arrive, beside what a slow disk needs for its files.
PREPARE_SECONDS: Final = 60.0

_ERRORS: Final = {RefusalReason.CONFLICT: ConflictError, RefusalReason.CLASS_NOT_ALLOWED: ForbiddenError}


class ImportDesk:
    """Take paglets from envelopes into one host; runs on its loop.

    :param store: has the files that were uploaded for them.
    """

    def __init__(self, kernel: Kernel, arrivals: ArrivalDesk, store: ArtifactStore, threads: ContentThreads) -> None:
        self._kernel = kernel
        self._arrivals = arrivals
        self._store = store
        self._threads = threads
        self._under_way: set[str] = set()

    async def take(self, envelope: PagletEnvelope, by: Caller | None = None) -> dict[str, str]:
        """Take a paglet from an envelope that carries its state in plain values, prepared and committed in one step.

        Its registered files are artifacts of this host that it owns. They are deleted when the paglet is here; where
        it does not come, they stay for the next attempt.

        :param by: who brought it over the network.
        :raises AllowanceExceededError: it has no time left, or a state that is larger than allowed.
        :raises ConflictError: its id is taken here, or is being taken by another request.
        :raises ForbiddenError: its class or its source is not allowed here.
        :raises OverloadedError: whoever brought it has as many paglets here as allowed.
        :raises PayloadTooLargeError: its state or a file is larger than allowed.
        :raises SerializationError: its ticket or its list of files is malformed.
        :raises TransferError: it cannot live here.
        """
        if envelope.agent_id in self._under_way:
            # There is no source that would see to it that one transfer at a time is under way.
            raise ConflictError(f"paglet {envelope.agent_id} is being imported by another request; see how that ends")
        self._under_way.add(envelope.agent_id)
        try:
            return await self._take(envelope, by)
        finally:
            self._under_way.discard(envelope.agent_id)

    async def _take(self, envelope: PagletEnvelope, by: Caller | None) -> dict[str, str]:
        metadata: dict[str, Any] = {}
        activate = _arrival_mode(envelope) is ArrivalMode.ACTIVATE
        if by is not None:
            self._kernel.config.policy.check_source(envelope.source_host_address, by)
            names = envelope.agent_class_name, envelope.state_class_name
            if self._kernel.check_classes(*names, by=by):
                if not activate:
                    raise ForbiddenError(
                        f"class {names[1]!r} may not be used here: it is not allowed by its name, and to see whether "
                        f"it is the state that {names[0]!r} declares, the paglet would have to arrive awake"
                    )
                metadata[DECLARED_STATE] = True
            self._kernel.holdings.add(by, envelope.agent_id)
        carried = AllowanceBalance.from_wire(envelope.metadata.get("allowance"))
        if by is not None:
            carried = carried.capped(self._kernel.config.policy.allowance_of(by), time.time())
        plan = TransferPlan(
            transfer_id=uuid.uuid4().hex,
            kind=TransferKind(
                TransferKind.DISPATCH if envelope.kind is EnvelopeKind.ACTIVATION else envelope.kind.value
            ),
            agent_id=envelope.agent_id,
            epoch=0 if envelope.kind is EnvelopeKind.CLONE else first_epoch(),
            source=self._kernel.address(),  # whoever asks after a crash what became of it hears that it came to nothing
            target=self._kernel.address(),
            origin_id=envelope.clone_of or "",
            activate=activate,
            carried=carried,
        )
        state = StateSink()
        state.attachment = Attachment.of([blob_from_wire(envelope.state).tobytes()])
        if by is not None:
            self._kernel.config.policy.check_state(state.attachment.nbytes)
        files = UploadedFiles.of(envelope, self._store)
        if by is not None:
            for ref in files.refs:
                self._kernel.config.policy.check_file(ref.name, ref.size_bytes)
        if files.refs:
            await self._threads.with_store(self._store, files.fetch, self._store)
        bare = replace(envelope, state={}, metadata=metadata)
        incoming = Incoming(plan, 1, False, bare, state, StateSink(), list(files.refs), files.load)
        vote = await self._prepare(incoming, PREPARE_SECONDS + files.nbytes / SLOW_BYTES_PER_SECOND)
        if not (await self._arrivals.commit(plan.transfer_id, vote)).get("acked"):
            raise TransferError(f"paglet {plan.agent_id} was called off while it arrived; send it again")
        if files.refs:
            for problem in await self._threads.with_store(self._store, files.delete, self._store):
                self._kernel.emit("transfer-fault", agent_id=plan.agent_id, error=problem)
        location = await self._arrivals.location(plan.transfer_id)
        self._arrivals.settled(plan.transfer_id, vote)
        return location or self._kernel.proxy_wire(plan.agent_id)

    async def _prepare(self, incoming: Incoming, seconds: float) -> str:
        """Have a paglet arrive and return the vote.

        :raises PagletError: it does not.
        """
        plan = incoming.plan
        try:
            async with asyncio.timeout(seconds):
                answer = await self._arrivals.prepare(incoming)
        except TimeoutError:
            self._arrivals.abort(plan.transfer_id)
            raise TransferError(
                f"paglet {plan.agent_id} did not arrive within {seconds:.0f} s and was called off"
            ) from None
        if "missing" in answer:
            raise TransferError(
                f"Could not import registered files of paglet {plan.agent_id}: a content has gone; send it again"
            )
        if "vote" not in answer:
            refusal = refusal_from_wire(answer.get("refused"))
            raise _ERRORS.get(refusal.reason, TransferError)(refusal.text or "the paglet was refused")
        return str(answer["vote"])


def _arrival_mode(envelope: PagletEnvelope) -> ArrivalMode:
    """Return how the ticket of an envelope, where it has one, wants the paglet to arrive.

    :raises SerializationError: the ticket is malformed.
    """
    wire = envelope.metadata.get("transfer_ticket")
    if wire is None:
        return ArrivalMode.ACTIVATE
    try:
        return TransferTicket.from_wire(wire).arrival_mode
    except (TypeError, ValueError) as exc:
        raise SerializationError(f"malformed transfer ticket: {exc}") from None
