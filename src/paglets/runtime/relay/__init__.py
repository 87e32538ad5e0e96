"""The relay: hosts that cannot be called are reached through one that can, their hub.

A connected host opens a link to its hub (`Connector`) and is asked over it; whoever wants it asks the hub at
``/relay/hosts/<name>/`` (`RelayGateway`), which passes both request and answer on as they come (`Hub`).
Record 0009 says why.
"""

from __future__ import annotations

from paglets.runtime.relay.hub import Hub, RelaySettings
from paglets.runtime.relay.nodes import RelayDelivery, RelayNode, relay_error_from_ack

__all__ = ["Hub", "RelayDelivery", "RelayNode", "RelaySettings", "relay_error_from_ack"]
