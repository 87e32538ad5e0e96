"""Whether an arriving paglet may live here."""

from __future__ import annotations

import time
from dataclasses import replace

from paglets.core.errors import ForbiddenError, HostError, OverloadedError, SerializationError
from paglets.persistence.envelope import DECLARED_STATE
from paglets.protocol.transfer import participant
from paglets.protocol.transfer.model import Refusal, RefusalReason, TransferKind, TransferPlan
from paglets.runtime.arrivals.record import Arrival, Undecided
from paglets.runtime.kernel import Kernel
from paglets.runtime.receiving import Incoming
from paglets.runtime.sleep import Dormitory
from paglets.runtime.whereabouts import Whereabouts


class AdmissionDesk:
    """Judge arriving paglets by class, source, size, allowance and epoch."""

    def __init__(self, kernel: Kernel, dormitory: Dormitory, whereabouts: Whereabouts, undecided: Undecided) -> None:
        self._kernel = kernel
        self._dormitory = dormitory
        self._whereabouts = whereabouts
        self._undecided = undecided

    async def judge(self, arrival: Arrival, plan: TransferPlan) -> Refusal | None:
        """Return why a paglet may not live here, None where it may; its balance is in the record then."""
        incoming = arrival.incoming
        envelope = incoming.envelope if incoming is not None else None
        if incoming is None or envelope is None:
            return Refusal(RefusalReason.POLICY, "no envelope came with it")
        if self._kernel.closing:
            return Refusal(RefusalReason.POLICY, f"host {self._kernel.config.name} is shutting down", retryable=True)
        if self._kernel.draining and plan.kind is not TransferKind.LOCAL:
            return Refusal(RefusalReason.POLICY, f"host {self._kernel.config.name} is draining")
        try:
            names = envelope.agent_class_name, envelope.state_class_name
            if self._kernel.check_classes(*names, by=incoming.by):
                if not plan.activate:
                    raise ForbiddenError(
                        f"class {names[1]!r} may not be used here: it is not allowed by its name, and to see whether "
                        f"it is the state that {names[0]!r} declares, the paglet would have to arrive awake"
                    )
                # Goes to disk with it, and so to every start.
                incoming.envelope = replace(envelope, metadata={**envelope.metadata, DECLARED_STATE: True})
            if incoming.by is not None:
                self._kernel.check_arrival(incoming.by, plan, incoming.state.attachment.nbytes, envelope)
        except OverloadedError as exc:
            return Refusal(RefusalReason.POLICY, str(exc), retryable=True)
        except ForbiddenError as exc:
            return Refusal(RefusalReason.CLASS_NOT_ALLOWED, str(exc))
        except (SerializationError, HostError) as exc:
            return Refusal(RefusalReason.POLICY, str(exc))
        refusal = self._judge_allowance(arrival, plan, incoming)
        if refusal is not None:
            return refusal
        entry = self._kernel.agents.get(plan.agent_id)
        older = self._undecided.get(plan.agent_id)
        if older is not None and older is not arrival and older.entry is entry:
            entry = None  # an inert copy, which lives nowhere yet
        live = entry.epoch if entry is not None else None
        if entry is None and plan.agent_id in self._dormitory:
            live = -1  # an inactive paglet of that id: a conflict whatever its epoch
        departed = await self._whereabouts.departed(plan.agent_id)
        undecided = self._undecided.get(plan.agent_id)  # as of now: the question before took a while
        return participant.judge_epoch(
            plan,
            live=live,
            departed=None if departed is None else departed.epoch,
            undecided=None if undecided is None or undecided is arrival else undecided.transfer_id,
        )

    def _judge_allowance(self, arrival: Arrival, plan: TransferPlan, incoming: Incoming) -> Refusal | None:
        """Work out what an arriving paglet has left here, whatever its source says; refuse one that has nothing."""
        now = time.time()
        balance = replace(plan.carried, exceeded=None)
        if incoming.by is not None:
            balance = balance.capped(self._kernel.config.policy.allowance_of(incoming.by), now)
        arrival.balance = balance
        if incoming.recovering:
            return None  # it was handed over to this host, and sleeps here if it may not live
        excess = balance.over(now) or balance.too_large(incoming.state.attachment.nbytes)
        return None if excess is None else Refusal(RefusalReason.POLICY, str(excess.error(plan.agent_id)))
