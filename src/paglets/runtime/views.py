"""What a host tells about its paglets: summaries and states, active and inactive alike."""

from __future__ import annotations

from typing import Any

from paglets.core.allowance import AllowanceBalance
from paglets.core.context import INACTIVE
from paglets.core.errors import InvalidAgentError, PagletError
from paglets.persistence.tables import queued
from paglets.runtime.agents import AgentEntry, Phase
from paglets.runtime.kernel import Kernel
from paglets.runtime.sleep import Dormitory
from paglets.serialization.blob import decode_blob_plain


class Views:
    """Describe the paglets of one host as plain values."""

    def __init__(self, kernel: Kernel, dormitory: Dormitory) -> None:
        self._kernel = kernel
        self._dormitory = dormitory

    def summary(self, agent_id: str) -> dict[str, Any]:
        """Return the summary of a paglet.

        :raises InvalidAgentError: it is unknown here.
        """
        entry = self._kernel.agents.get(agent_id)
        sleeper = self._dormitory.summary(agent_id)
        # One that is about to wake sleeps until it has.
        if entry is not None and (sleeper is None or entry.phase is not Phase.STARTING):
            return self._active_summary(entry)
        if sleeper is None:
            raise InvalidAgentError(f"no paglet {agent_id} on {self._kernel.config.name}")
        return self._common(agent_id, sleeper.agent_class_name, sleeper.state_class_name, active=False) | {
            "deactivated_at": sleeper.deactivated_at,
            "deactivation_policy": sleeper.policy.to_wire(),
            "epoch": sleeper.epoch,
            **_allowance(sleeper.balance),
        }

    def _common(self, agent_id: str, class_name: str, state_class_name: str, *, active: bool) -> dict[str, Any]:
        return {
            "agent_id": agent_id,
            "class_name": class_name,
            "state_class_name": state_class_name,
            "host": self._kernel.config.name,
            "address": self._kernel.address(),
            "active": active,
        }

    def _active_summary(self, entry: AgentEntry) -> dict[str, Any]:
        place = entry.place
        return self._common(entry.agent_id, entry.class_name, entry.state_class_name, active=entry.active) | {
            "pid": entry.crashed_pid if entry.crashed else (place.pid if place is not None else None),
            "crashed": entry.crashed,
            "exitcode": entry.exitcode,
            "error": entry.error,
            "mailbox": None if entry.crashed else mailbox_counts(entry),
            "resources": dict(entry.resources),
            "epoch": entry.epoch,
            "home": entry.home,
            "durability": entry.durability.value,
            **_allowance(entry.balance),
        }

    async def state_payload(self, agent_id: str) -> dict[str, Any]:
        """Return the state of a paglet as plain values, with its summary.

        :raises InvalidAgentError: it is unknown here.
        """
        entry = self._kernel.agents.get(agent_id)
        if entry is not None:
            if entry.crashed and entry.last_state is not None:
                blob = entry.last_state
            elif entry.durable and entry.phase in (Phase.CRASHED, Phase.STARTING):
                # It was so already when this host started, or is about to be brought back.
                blob = (await self._dormitory.record(agent_id)).state
            else:
                blob = await self._kernel.state_blob(entry)
            return self._active_summary(entry) | {"state": decode_blob_plain(blob.view())}
        found = await self._dormitory.record(agent_id)
        record = found.record
        common = self._common(agent_id, record.agent_class_name, record.state_class_name, active=False)
        return common | {
            "state": decode_blob_plain(found.state.view()),
            "deactivation_policy": record.policy.to_wire(),
            "queued_message_count": len(found.waiting),
            "epoch": record.epoch,
            **_allowance(record.balance),
        }

    async def list_agents(
        self, *, active: bool = True, inactive: bool = False, include_state: bool = False
    ) -> list[dict[str, Any]]:
        """Return summaries: the active (and crashed) paglets in order of creation, then the inactive ones, which have
        `queued_message_count` as well."""
        kernel = self._kernel
        # First, since the rest must see one moment.
        waiting = await kernel.on_disk(kernel.journal.read, queued.counts) if inactive else {}
        found = [self._active_summary(entry) for entry in self._kernel.agents.visible()] if active else []
        if inactive:
            found += [
                self.summary(agent_id) | {"queued_message_count": waiting.get(agent_id, 0)}
                for agent_id in kernel.agent_ids(INACTIVE, self._dormitory.agent_ids)
            ]
        if include_state:
            for summary in found:
                try:
                    summary.update(await self.state_payload(summary["agent_id"]))
                except PagletError as exc:
                    summary["state_error"] = str(exc)
        return found


def _allowance(balance: AllowanceBalance) -> dict[str, Any]:
    """Return what a summary says of an allowance, nothing where nothing is limited."""
    return {"allowance": balance.to_wire()} if balance.limits or balance.exceeded is not None else {}


def mailbox_counts(entry: AgentEntry) -> dict[str, int]:
    """Return the four counters of a mailbox."""
    statistics = entry.mailbox.statistics()
    return {
        "queued_count": statistics.queued,
        "in_flight_count": statistics.in_flight,
        "delivered_count": statistics.delivered,
        "failed_count": statistics.failed,
    }
