"""One advertised provider of a service."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from paglets.core.runtime_values import ServiceScope, enum_from_wire, require_enum
from paglets.core.wire_fields import WireFields
from paglets.remote.references import PagletProxyRef


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """One advertised provider; times are Unix seconds.

    :raises TypeError: `scope` is not a `ServiceScope` member.
    """

    name: str
    proxy: PagletProxyRef
    capabilities: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    scope: ServiceScope = ServiceScope.LOCAL
    host_name: str = ""
    host_url: str = ""
    advertised_at: float = field(default_factory=time.time)
    expires_at: float | None = None

    def __post_init__(self) -> None:
        require_enum(self.scope, ServiceScope, "scope")

    @property
    def expired(self) -> bool:
        """Whether the advertisement has run out."""
        return self.expires_at is not None and self.expires_at <= time.time()

    def matches(self, name: str, capability: str | None = None) -> bool:
        """Return whether this is an unexpired provider of the service, with the capability if one is given."""
        return self.name == name and not self.expired and (capability is None or capability in self.capabilities)

    def to_wire(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return {
            "name": self.name,
            "proxy": self.proxy.to_wire(),
            "capabilities": list(self.capabilities),
            "metadata": dict(self.metadata),
            "scope": self.scope.value,
            "host_name": self.host_name,
            "host_url": self.host_url,
            "advertised_at": self.advertised_at,
            "expires_at": self.expires_at,
        }

    @classmethod
    def from_wire(cls, payload: dict[str, Any]) -> ServiceRecord:
        """Restore a record; all but `name` and `proxy` may be missing.

        :raises SerializationError: a required field is missing, or one has the wrong type.
        :raises TypeError: the scope is not a string.
        :raises ValueError: the scope is not a known one.
        """
        fields = WireFields(payload, "service record")
        scope = fields.get("scope")
        advertised_at = fields.number_or_none("advertised_at")
        return cls(
            name=fields.text("name"),
            proxy=PagletProxyRef.from_wire(fields.mapping("proxy")),
            capabilities=fields.texts_or_empty("capabilities"),
            metadata=fields.mapping_or_empty("metadata"),
            scope=ServiceScope.LOCAL if scope is None else enum_from_wire(scope, ServiceScope, "scope"),
            host_name=fields.text_or("host_name", ""),
            host_url=fields.text_or("host_url", ""),
            advertised_at=time.time() if advertised_at is None else advertised_at,
            expires_at=fields.number_or_none("expires_at"),
        )
