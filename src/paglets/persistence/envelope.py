"""Everything that makes up one paglet while it is not running: on its way, or asleep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from paglets.core.runtime_values import EnvelopeKind, enum_from_wire, require_enum
from paglets.core.wire import WirePayload
from paglets.core.wire_fields import WireFields

DECLARED_STATE: Final = "declared_state"
"""In `metadata` once a host has taken it: the state has to be what the class of the paglet declares, because a class of
this name may not be imported there."""


@dataclass(slots=True)
class PagletEnvelope:
    """A paglet's identity and state, where it comes from and where it goes.

    Class names are ``module:qualname``. `clone_of` is the id of the original of a clone. `metadata` carries what the
    move needs besides: ``transfer_ticket`` and ``registered_files``.

    :raises TypeError: `kind` is not an `EnvelopeKind` member.
    """

    kind: EnvelopeKind
    agent_id: str
    agent_class_name: str
    state_class_name: str
    state: dict[str, Any]
    source_host_name: str
    source_host_address: str
    target_host_name: str
    target_host_address: str
    clone_of: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_enum(self.kind, EnvelopeKind, "envelope kind")

    def to_wire(self) -> WirePayload:
        """Return the envelope as plain values; the state is not copied."""
        return {
            "kind": self.kind.value,
            "agent_id": self.agent_id,
            "agent_class_name": self.agent_class_name,
            "state_class_name": self.state_class_name,
            "state": self.state,
            "source_host_name": self.source_host_name,
            "source_host_address": self.source_host_address,
            "target_host_name": self.target_host_name,
            "target_host_address": self.target_host_address,
            "clone_of": self.clone_of,
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_wire(cls, payload: WirePayload) -> PagletEnvelope:
        """Restore an envelope; only `clone_of` and `metadata` may be missing.

        :raises SerializationError: a field is missing or has the wrong type.
        :raises TypeError: the kind is not a string.
        :raises ValueError: the kind is not a known one.
        """
        fields = WireFields(payload, "paglet envelope")
        return cls(
            kind=enum_from_wire(fields.required("kind"), EnvelopeKind, "envelope kind"),
            agent_id=fields.text("agent_id"),
            agent_class_name=fields.text("agent_class_name"),
            state_class_name=fields.text("state_class_name"),
            state=fields.mapping("state"),
            source_host_name=fields.text("source_host_name"),
            source_host_address=fields.text("source_host_address"),
            target_host_name=fields.text("target_host_name"),
            target_host_address=fields.text("target_host_address"),
            clone_of=fields.text_or_none("clone_of"),
            metadata=fields.mapping_or_empty("metadata"),
        )
