"""Take paglets that come as one document, without a source that would hold its own copy meanwhile."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import Any

from paglets.core.allowance import AllowanceBalance
from paglets.core.errors import ConflictError, ForbiddenError, TransferError
from paglets.core.runtime_values import EnvelopeKind
from paglets.persistence.envelope import DECLARED_STATE, PagletEnvelope
from paglets.protocol.transfer.model import RefusalReason, TransferKind, TransferPlan
from paglets.remote.movement import BufferPart
from paglets.runtime.arrival import ArrivalDesk
from paglets.runtime.creation import first_epoch
from paglets.runtime.kernel import Kernel
from paglets.runtime.local_link import LocalTransferLink
from paglets.runtime.transfer_wire import plan_to_wire, refusal_from_wire
from paglets.security.caller import Caller
from paglets.serialization.blob import blob_from_wire


class ImportDesk:
    """Take paglets from envelopes into one host; runs on its loop."""

    def __init__(self, kernel: Kernel, arrivals: ArrivalDesk, link: LocalTransferLink) -> None:
        self._kernel = kernel
        self._arrivals = arrivals
        self._link = link

    async def take(self, envelope: PagletEnvelope, by: Caller | None = None) -> dict[str, str]:
        """Take a paglet from an envelope that carries its state in plain values, prepared and committed in one step.

        :param by: who brought it over the network.
        :raises AllowanceExceededError: it has no time left, or a state that is larger than allowed.
        :raises ConflictError: its id is taken here.
        :raises ForbiddenError: its class or its source is not allowed here.
        :raises OverloadedError: whoever brought it has as many paglets here as allowed.
        :raises PayloadTooLargeError: its state is larger than allowed.
        :raises TransferError: it cannot live here.
        """
        metadata: dict[str, Any] = {}
        if by is not None:
            self._kernel.config.policy.check_source(envelope.source_host_address, by)
            names = envelope.agent_class_name, envelope.state_class_name
            if self._kernel.check_classes(*names, by=by):
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
            carried=carried,
        )
        header = {
            "envelope": replace(envelope, state={}, metadata=metadata).to_wire(),
            "transfer": {"plan": plan_to_wire(plan), "attempt": 1, "recovering": False},
        }
        blob = blob_from_wire(envelope.state).tobytes()
        if by is not None:
            self._kernel.config.policy.check_state(len(blob))
        answer = await self._link.prepare(header, [BufferPart(memoryview(blob))], attempt=1, timeout=60.0)
        if "vote" not in answer:
            refusal = refusal_from_wire(answer.get("refused"))
            errors = {RefusalReason.CONFLICT: ConflictError, RefusalReason.CLASS_NOT_ALLOWED: ForbiddenError}
            raise errors.get(refusal.reason, TransferError)(refusal.text or "the paglet was refused")
        await self._link.commit(plan.transfer_id, str(answer["vote"]))
        location = await self._arrivals.location(plan.transfer_id)
        self._arrivals.settled(plan.transfer_id, str(answer["vote"]))
        return location or self._kernel.proxy_wire(plan.agent_id)
