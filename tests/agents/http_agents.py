"""Paglets that the tests of the HTTP interface talk to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.errors import ConflictError, HostError, TransferError


@dataclass
class TalkerState(PagletState):
    """What a talker holds."""

    count: int = 0
    data: bytes = b""
    begun: str = ""


@dataclass
class OtherState(TalkerState):
    """A state that no class here declares."""


class Talker(Paglet[TalkerState]):
    """Answer, fail or wait as asked."""

    State = TalkerState

    def on_creation(self, event: Any) -> None:
        self.state.begun = repr(event.init)

    @handler
    def count(self, by: int = 1) -> int:
        with self.locked_state() as state:
            state.count += by
            return state.count

    @handler
    def take(self, data: bytes) -> dict[str, Any]:
        self.state.data = data
        return {"size": len(data), "nested": [{"data": data}, {"again": bytearray(data)}]}

    @handler(kind="raise")
    def fail(self, error: str) -> None:
        classes = {
            "HostError": HostError,
            "TransferError": TransferError,
            "ConflictError": ConflictError,
            "ValueError": ValueError,
            "KeyError": KeyError,
            "RuntimeError": RuntimeError,
            "ZeroDivisionError": ZeroDivisionError,
        }
        raise classes[error]("said so")

    @handler
    def give(self, what: str) -> Any:
        if what == "nan":
            return float("nan")
        if what == "infinity":
            return {"deep": [float("inf")]}
        if what == "surrogate":
            return "half \ud800"
        if what == "object":
            return object()
        return what

    @handler
    def wait(self, gate: str) -> str:
        with Path(gate).open("rb") as pipe:
            pipe.read()
        return "waited"

    @handler
    def leave(self, code: int) -> None:
        os._exit(code)


class Parrot(Paglet[TalkerState]):
    """Return every message as it came."""

    State = TalkerState

    def handle_message(self, message: Any) -> Any:
        return {"kind": message.kind, "args": message.args, "arg": message.arg, "sender": message.sender}


@dataclass
class BearerState(PagletState):
    """A state that takes anything."""

    load: Any = None
    name: str = ""
    number: float = 0.0


class Bearer(Paglet[BearerState]):
    """Keep what it is given, and tell what it has."""

    State = BearerState

    def on_creation(self, event: Any) -> None:
        if event.init is not None:
            self.state.load = event.init

    @handler
    def bear(self, load: Any) -> Any:
        self.state.load = load
        return load

    @handler
    def swell(self, digits: int) -> None:
        self.state.load = 10**digits

    @handler
    def sleep(self, reason: str) -> None:
        self.deactivate(reason=reason, metadata={"reason": reason})

    @handler
    def complain(self, text: str) -> None:
        raise HostError(text)


class NotAPaglet:
    """A class that no host runs."""


class Refuser(Paglet[TalkerState]):
    """Does not want to live."""

    State = TalkerState

    def on_creation(self, event: Any) -> None:
        raise RuntimeError("not today")
