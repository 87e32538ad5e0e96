"""The envelope under the name by which the runtime publishes it."""

from __future__ import annotations

from paglets.persistence.envelope import PagletEnvelope

__all__ = ["PagletEnvelope"]
