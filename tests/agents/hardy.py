"""Paglets that do what they are told, one step after the other, and tell afterwards what of it is left."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, RestartPolicy
from paglets.core.runtime_values import Durability
from paglets.remote.references import PagletProxyRef


@dataclass
class HardyState(PagletState):
    """What a paglet has lived through, and the steps that its ``run`` takes."""

    count: int = 0
    notes: list[str] = field(default_factory=list)
    blob: bytes = b""
    rings: list[dict[str, Any]] = field(default_factory=list)
    """The timer messages that came: name, message id, facts."""
    run: list[str] = field(default_factory=list)
    wakes: list[str] = field(default_factory=list)
    """The steps of the activation hook."""


class Hardy(Paglet[HardyState]):
    """Keep checkpoints. Has neither hooks nor ``run``, so nothing but its handlers changes it."""

    State = HardyState

    def act(self, steps: list[str]) -> None:
        """Take steps: ``verb argument``."""
        for step in steps:
            verb, _, argument = step.partition(" ")
            getattr(self, f"act_{verb}")(argument)

    def act_count(self, by: str) -> None:
        with self.locked_state() as state:
            state.count += int(by or 1)

    def act_note(self, text: str) -> None:
        with self.locked_state() as state:
            state.notes.append(text)

    def act_grow(self, nbytes: str) -> None:
        with self.locked_state() as state:
            state.blob = os.urandom(int(nbytes))

    def act_checkpoint(self, _: str) -> None:
        self.checkpoint()

    def act_try(self, step: str) -> None:
        """Take a step and note its error."""
        try:
            self.act([step])
        except (PagletError, ValueError) as exc:
            self.act_note(f"{type(exc).__name__}: {exc}")

    def act_gate(self, path: str) -> None:
        Path(path).read_bytes()

    def act_gate_once(self, path: str) -> None:
        """Wait in a gate, unless this was done before, in whatever process."""
        with self.only_once(path) as first:
            if first:
                self.act_gate(path)

    def act_die(self, code: str) -> None:
        os._exit(int(code or 1))

    def act_die_times(self, argument: str) -> None:
        """End the process, so many times in all: ``times file``, where the file counts."""
        times, path = argument.split(" ", 1)
        with Path(path).open("ab") as deaths:
            if deaths.tell() >= int(times):
                return
            deaths.write(b".")
        os._exit(7)

    def act_fail(self, text: str) -> None:
        raise RuntimeError(text)

    def act_in_thread(self, step: str) -> None:
        """Take a step on another thread and wait for it."""
        thread = threading.Thread(target=lambda: self.act([step]))
        thread.start()
        thread.join()

    def act_remind(self, argument: str) -> None:
        """Set a timer that rings once: ``name seconds``."""
        name, seconds = argument.split()
        self.remind(name, after=float(seconds))

    def act_every(self, argument: str) -> None:
        """Set a timer that rings again and again: ``name seconds``."""
        name, seconds = argument.split()
        self.remind(name, every=float(seconds))

    def act_sleep(self, _: str) -> None:
        self.deactivate(policy=DeactivationPolicy(activate_on_message=False))

    @handler
    def do(self, *steps: str) -> int:
        """Take some steps; return the count."""
        self.act(list(steps))
        return self.state.count
