"""A paglet that notes every hook and does in each what its state tells it to."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest


@dataclass
class ActorState(PagletState):
    """What an actor has lived through, and what it is to do."""

    log: list[str] = field(default_factory=list)
    """Names of the hooks, in order."""
    places: list[str] = field(default_factory=list)
    """Names of the hosts on which they ran."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """The hooks' events, as plain values."""
    plan: dict[str, list[str]] = field(default_factory=dict)
    """What to do, by hook; every call of a hook takes the first entry: ``verb argument``, several joined by ``; ``."""
    count: int = 0
    heard: list[Any] = field(default_factory=list)
    blob: bytes = b""
    policy: dict[str, Any] | None = None


class Actor(Paglet[ActorState]):
    """Do what the state says."""

    State = ActorState

    def note(self, hook: str, event: Any = None) -> Any:
        """Write a hook down, then do what is planned for it."""
        with self.locked_state() as state:
            state.log.append(hook)
            state.places.append(self.context.name)
            if event is not None:
                state.events.append({"hook": hook, **asdict(event)})
            steps = state.plan.get(hook, [])
            step = steps.pop(0) if steps else ""
        return self.act(step)

    def act(self, steps: str) -> Any:
        """Do some steps and return what the last gave."""
        result: Any = None
        for step in filter(None, steps.split("; ")):
            verb, _, argument = step.partition(" ")
            result = getattr(self, f"act_{verb}")(argument)
        return result

    def act_fail(self, text: str) -> None:
        raise RuntimeError(text)

    def act_count(self, by: str) -> int:
        with self.locked_state() as state:
            state.count += int(by)
            return state.count

    def act_gate(self, path: str) -> None:
        Path(path).read_bytes()

    def act_exit(self, code: str) -> None:
        sys.exit(int(code))

    def act_kill(self, code: str) -> None:
        os._exit(int(code))

    def act_dispatch(self, target: str) -> dict[str, str]:
        return self.dispatch(target).to_wire()

    def act_trydispatch(self, target: str) -> str:
        try:
            self.dispatch(target)
        except PagletError as exc:
            with self.locked_state() as state:
                state.heard.append(f"{type(exc).__name__}: {exc}")
            return type(exc).__name__
        return "gone"

    def act_clone(self, target: str) -> dict[str, str]:
        return self.clone(target or None).to_wire()

    def act_deactivate(self, reason: str) -> dict[str, str]:
        return self.deactivate(reason=reason or "deactivate").to_wire()

    def act_dispose(self, _: str) -> str:
        self.context.host.dispose(self.agent_id)
        return "disposed"

    def act_resource(self, name: str) -> None:
        """Register a clean-up that notes its name; one called ``bad…`` fails, ``quiet…`` fails unheard."""

        def release() -> None:
            with self.locked_state() as state:
                state.log.append(f"release {name}")
            if name.startswith(("bad", "quiet")):
                raise RuntimeError(f"{name} is stuck")

        self.resources.register(name, release, suppress=name.startswith("quiet"))

    def on_creation(self, event: Any) -> None:
        self.note("creation", event)

    def on_dispatching(self, event: Any) -> None:
        self.note("dispatching", event)

    def on_arrival(self, event: Any) -> None:
        self.note("arrival", event)

    def on_reverting(self, event: Any) -> None:
        self.note("reverting", event)

    def on_cloning(self, event: Any) -> None:
        self.note("cloning", event)

    def on_clone(self, event: Any) -> None:
        self.note("clone", event)

    def on_cloned(self, event: Any) -> None:
        self.note("cloned", event)

    def on_deactivating(self, event: Any) -> None:
        self.note("deactivating", event)

    def on_activation(self, event: Any) -> None:
        self.note("activation", event)

    def on_disposing(self, event: Any) -> None:
        self.note("disposing", event)

    def run(self) -> None:
        self.note("run")

    def deactivation_policy(self, request: DeactivationRequest) -> DeactivationPolicy:
        if self.state.policy is None:
            return super().deactivation_policy(request)
        return DeactivationPolicy.from_wire(self.state.policy)

    @handler
    def add(self, by: int = 1) -> int:
        """Count."""
        with self.locked_state() as state:
            state.count += by
            return state.count

    @handler
    def do(self, steps: str) -> Any:
        """Do some steps."""
        return self.act(steps)

    @handler
    def hear(self, what: Any) -> int:
        """Remember something; return how much has been heard."""
        with self.locked_state() as state:
            state.heard.append(what)
            return len(state.heard)

    @handler
    def look(self) -> dict[str, Any]:
        """Return where the paglet is and what it has seen."""
        return {
            "host": self.context.name,
            "address": self.context.address,
            "pid": os.getpid(),
            "log": list(self.state.log),
            "heard": list(self.state.heard),
            "count": self.state.count,
            "size": len(self.state.blob),
        }


class Stubborn(Actor):
    """Decide on something that is no policy."""

    def deactivation_policy(self, request: DeactivationRequest) -> Any:
        return {"activate_on_message": True}


class Picky(Paglet[ActorState]):
    """Handle messages in one method, and decline what it does not know."""

    State = ActorState

    def handle_message(self, message: Message) -> Any:
        if message.kind == "echo":
            return {"args": message.args, "arg": message.arg, "sender": message.sender}
        if message.kind == "none":
            return None
        return self.not_handled()


class Quiet(Paglet[ActorState]):
    """Have no ``run``."""

    State = ActorState

    def on_dispatching(self, event: Any) -> None:
        for path in self.state.plan.pop("dispatching", []):
            Path(path).read_bytes()

    @handler
    def go(self, to: str) -> dict[str, str]:
        return self.dispatch(to).to_wire()

    @handler
    def add(self, by: int = 1) -> int:
        self.state.count += by
        return self.state.count


@dataclass
class NeedyState(PagletState):
    """A state that cannot be made from nothing."""

    name: str


class Needy(Paglet[NeedyState]):
    State = NeedyState

    @handler
    def name(self) -> str:
        return self.state.name
