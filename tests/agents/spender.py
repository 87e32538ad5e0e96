"""Paglets that use up what they are allowed, and tell what is left."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.allowance import Allowance
from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.core.runtime_values import Durability


@dataclass
class SpenderState(PagletState):
    """What a spender has and what it saw."""

    count: int = 0
    blob: bytes = b""
    seen: list[dict[str, Any]] = field(default_factory=list)
    """What was left, by hook."""
    grow_on: str = ""
    """The hook in which it grows by `grow_by` bytes."""
    grow_by: int = 0
    spawn_on_cloning: bool = False


class Spender(Paglet[SpenderState]):
    """Do what it is told. Its state is stored at every lifecycle step."""

    State = SpenderState

    def note(self, hook: str) -> None:
        """Note what is left, and grow where that is planned."""
        self.state.seen.append({"hook": hook, **self.allowance.to_wire()})
        if self.state.grow_on == hook:
            self.state.blob += os.urandom(self.state.grow_by)

    def on_cloning(self, event: Any) -> None:
        if self.state.spawn_on_cloning:
            self.spawn()

    def on_creation(self, event: Any) -> None:
        self.note("creation")

    def on_arrival(self, event: Any) -> None:
        self.note("arrival")

    def on_clone(self, event: Any) -> None:
        self.note("clone")

    def on_activation(self, event: Any) -> None:
        self.note("activation")

    @handler
    def add(self, by: int = 1) -> int:
        """Count."""
        self.state.count += by
        return self.state.count

    @handler
    def grow(self, nbytes: int) -> int:
        """Make the state larger; return the size of the blob."""
        self.state.count += 1
        self.state.blob = os.urandom(nbytes)
        return nbytes

    @handler
    def tell_and_grow(self, other: str, nbytes: int) -> int:
        """Send another paglet a message, then make the state larger."""
        proxy = self.context.get_proxy(other)
        if proxy is None:
            raise LookupError(other)
        proxy.send_oneway(add())
        return self.grow(nbytes)

    @handler
    def save(self) -> str:
        """Take a checkpoint."""
        self.checkpoint()
        return "saved"

    @handler
    def move(self, url: str) -> Any:
        """Move."""
        return self.dispatch(url).to_wire()

    @handler
    def copy(self, url: str = "") -> str:
        """Make a clone and return its id."""
        return self.clone(url or None).agent_id

    @handler
    def persist(self, url: str, times: int) -> list[str]:
        """Try to move again and again; return the errors."""
        errors = []
        for _ in range(times):
            try:
                self.dispatch(url)
            except PagletError as exc:
                errors.append(type(exc).__name__)
        return errors

    @handler
    def left(self) -> dict[str, Any]:
        """Return what is left."""
        return self.allowance.to_wire()

    @handler
    def spawn(self, url: str = "", max_clones: int | None = None) -> str:
        """Create another spender and return its id."""
        allowance = None if max_clones is None else Allowance(max_clones=max_clones)
        return self.context.create_paglet(Spender, host_url=url or None, allowance=allowance).agent_id

    @handler
    def help_yourself(self, url: str) -> str:
        """Try to raise its own allowance with the key of its host; return the error."""
        try:
            self.context.host.client.post_json(f"{url}/agents/{self.agent_id}/allowance", {"hops": "unlimited"})
        except PagletError as exc:
            return type(exc).__name__
        return "granted"

    @handler
    def gate(self, path: str) -> str:
        """Wait at a gate."""
        Path(path).read_bytes()
        return "through"


class CarefulSpender(Spender):
    """Every message with its effects on disk."""

    DURABILITY = Durability.MESSAGE


class CarelessSpender(Spender):
    """Nothing on disk while it is active."""

    DURABILITY = Durability.NONE


class FrugalSpender(Spender):
    """Limited by its class."""

    ALLOWANCE = Allowance(max_hops=2, max_clones=3)


def add(by: int = 1) -> Message:
    """Return the message that counts."""
    return Message("add", {"by": by})
