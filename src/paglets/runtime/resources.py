"""Resources of a paglet under the name by which the runtime publishes them."""

from __future__ import annotations

from paglets.core.resources import Cleanup, ResourceCleanupError, ResourceRegistration, ResourceRegistry

__all__ = ["Cleanup", "ResourceCleanupError", "ResourceRegistration", "ResourceRegistry"]
