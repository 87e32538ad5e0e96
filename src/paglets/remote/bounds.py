"""The bounds of what requests carry, whatever they are encoded in."""

from __future__ import annotations

from typing import Annotated

import msgspec

from paglets.core.terms import MAX_CHAIN, MAX_HOPS

__all__ = ["Attempt", "Chain", "Hops", "MessageType", "Name", "Priority", "Seconds", "ShortText"]

ShortText = Annotated[str, msgspec.Meta(max_length=4096)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
#: Priorities are ordinary integers, but bounded so that they fit every encoding.
Priority = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
MessageType = Annotated[int, msgspec.Meta(ge=0, le=2)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86400.0)]
Attempt = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Chain = Annotated[list[ShortText], msgspec.Meta(max_length=MAX_CHAIN)]
Hops = Annotated[int, msgspec.Meta(ge=0, le=MAX_HOPS)]
