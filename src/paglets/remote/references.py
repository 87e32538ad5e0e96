"""A reference to a paglet that can be stored and sent: a proxy without the means to use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paglets.core.wire_fields import WireFields

if TYPE_CHECKING:
    from paglets.remote.proxy import PagletProxy


@dataclass(frozen=True, slots=True)
class PagletProxyRef:
    """Where a paglet was last known to be; may be a field of a paglet's state."""

    host_url: str
    agent_id: str

    @classmethod
    def from_proxy(cls, proxy: Any) -> PagletProxyRef:
        """Return the reference to what a proxy, or anything with its two addresses, stands for."""
        return cls(proxy.host_url, proxy.agent_id)

    @classmethod
    def from_wire(cls, payload: dict[str, Any]) -> PagletProxyRef:
        """Restore a reference.

        :raises SerializationError: host URL or agent id is missing or not a string.
        """
        fields = WireFields(payload, "paglet reference")
        return cls(fields.text("host_url"), fields.text("agent_id"))

    def to_wire(self) -> dict[str, str]:
        """Return the reference as plain values."""
        return {"host_url": self.host_url, "agent_id": self.agent_id}

    def resolve(self, context_or_client: Any = None) -> PagletProxy:
        """Return a proxy for the paglet; nothing is sent.

        :param context_or_client: a paglet context, whose host's client is used, or a host client; for anything else a
            fresh client is made.
        """
        # Both modules use references, so they cannot be imported while this one is.
        from paglets.remote.client import HostClient
        from paglets.remote.proxy import PagletProxy

        client = getattr(getattr(context_or_client, "host", None), "client", None)
        if client is None:
            client = context_or_client if isinstance(context_or_client, HostClient) else HostClient()
        return PagletProxy(self.host_url, self.agent_id, client)
