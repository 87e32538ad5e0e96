"""Paglets that do what they are told, one step after the other, and tell afterwards what of it is left."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.errors import LifecycleError, PagletError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, RestartPolicy
from paglets.core.runtime_values import Durability
from paglets.remote.references import PagletProxyRef


def do(*steps: str, message_id: str = "") -> Message:
    """Return the message that has a paglet take some steps."""
    return Message("do", {"steps": list(steps)}, **({"message_id": message_id} if message_id else {}))


@dataclass
class HardyState(PagletState):
    """What a paglet has lived through, and what it is to do."""

    count: int = 0
    notes: list[str] = field(default_factory=list)
    blob: bytes = b""
    rings: list[dict[str, Any]] = field(default_factory=list)
    """The messages of its timers, as plain values."""
    plan: dict[str, list[str]] = field(default_factory=dict)
    """The steps to take by hook, or in ``run``."""


class Hardy(Paglet[HardyState]):
    """Keep checkpoints. It has neither hooks nor ``run``, so nothing but its handlers changes it."""

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

    def act_dispatch(self, url: str) -> None:
        self.dispatch(url)

    def act_die(self, code: str) -> None:
        os._exit(int(code or 1))

    def act_die_times(self, argument: str) -> None:
        """End the process, but only so many times in all: ``times file``; the file counts them."""
        times, path = argument.split(" ", 1)
        with Path(path).open("ab") as deaths:
            if deaths.tell() >= int(times):
                return
            deaths.write(b".")
        os._exit(7)

    def act_fail(self, text: str) -> None:
        raise RuntimeError(text)

    def act_thread(self, step: str) -> None:
        """Take a step on another thread and wait for that."""
        thread = threading.Thread(target=self.act, args=([step],))
        thread.start()
        thread.join()

    def act_background(self, step: str) -> None:
        """Take a step on another thread."""
        threading.Thread(target=self.act, args=([step],), daemon=True).start()

    def act_await_count(self, count: str) -> None:
        """Wait until the count is so high, which another thread sees to."""
        self.wait_state(lambda state: state.count >= int(count))

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

    def act_rest(self, _: str) -> None:
        """Sleep until there is a message."""
        self.deactivate()

    def act_save(self, text: str) -> None:
        """Write a file in the work directory and have it travel along."""
        path = self.work_dir() / "saved.txt"
        path.write_text(text)
        self.register_file(path)

    def act_scratch(self, text: str) -> None:
        """Write a file in the work directory that stays there."""
        (self.work_dir() / "scratch.txt").write_text(text)

    def act_read(self, _: str) -> None:
        self.act_note(self.file_path("saved.txt").read_text())

    def take_planned(self, hook: str) -> None:
        """Take the steps that are planned for a hook."""
        self.act(self.state.plan.get(hook, []))

    @handler
    def do(self, steps: list[str]) -> int:
        """Take some steps; return the count."""
        self.act(steps)
        return self.state.count

    @handler
    def add(self, by: int = 1) -> int:
        """Count."""
        self.act_count(str(by))
        return self.state.count

    @handler
    def set_timer(
        self,
        name: str,
        after: float | None = None,
        every: float | None = None,
        at: float | None = None,
        args: dict[str, Any] | None = None,
    ) -> None:
        """Have a timer ring."""
        self.remind(name, after=after, every=every, at=at, args=args)

    @handler
    def drop_timer(self, name: str) -> bool:
        """Have it ring no more."""
        return self.forget(name)

    @handler
    def ring(self, message: Message, **args: Any) -> None:
        """Write a ring down, then take the steps that it brings along."""
        with self.locked_state() as state:
            state.rings.append({"id": message.message_id, "args": args, **message.arg})
        self.act(args.get("steps", []))

    @handler
    def tick(self) -> None:
        """Count a tick of a timer: a handler that takes nothing."""
        self.act_count("1")


class Careful(Hardy):
    """Keep every message."""

    DURABILITY: ClassVar[Durability] = Durability.MESSAGE


class Careless(Hardy):
    """Keep nothing."""

    DURABILITY: ClassVar[Durability] = Durability.NONE


class _WithLife(Hardy):
    """Do something at every turn of its life, and note why it was activated."""

    def on_creation(self, event: Any) -> None:
        self.take_planned("creation")

    def on_activation(self, event: Any) -> None:
        self.act_note(event.reason)
        self.take_planned("activation")

    def on_arrival(self, event: Any) -> None:
        self.take_planned("arrival")

    def run(self) -> None:
        self.take_planned("run")


class Lively(_WithLife):
    """Keep checkpoints, and have a life beside messages."""


class LivelyCareful(_WithLife):
    """Keep every message, and have a life beside them."""

    DURABILITY: ClassVar[Durability] = Durability.MESSAGE


class LivelyCareless(_WithLife):
    """Keep nothing, and have a life beside messages."""

    DURABILITY: ClassVar[Durability] = Durability.NONE


class Asynchronous(Hardy):
    """Keep every message; its `run` and a handler are coroutines of one event loop."""

    DURABILITY: ClassVar[Durability] = Durability.MESSAGE

    async def run(self) -> None:
        try:
            self.checkpoint()
        except LifecycleError as exc:
            self.act_note(str(exc))
        for path in self.state.plan.get("run", []):
            await asyncio.to_thread(Path(path).read_bytes)
            self.act_count("1")
            for agent_id in self.state.plan.get("tell", []):
                PagletProxyRef(self.context.address, agent_id).resolve(self.context).send_oneway(Message("add"))
            await asyncio.to_thread(self.checkpoint)

    @handler
    async def hold(self, path: str) -> None:
        """Count ten, wait in a gate, and count twenty."""
        self.act_count("10")
        await asyncio.to_thread(Path(path).read_bytes)
        self.act_count("20")


QUICKLY = RestartPolicy(restarts=3, window=60.0, backoff=0.01)


class Restarted(_WithLife):
    """Keep checkpoints, and be restarted up to three times."""

    RESTART: ClassVar[RestartPolicy] = QUICKLY


class RestartedCareful(_WithLife):
    """Keep every message, and be restarted without end."""

    DURABILITY: ClassVar[Durability] = Durability.MESSAGE
    RESTART: ClassVar[RestartPolicy] = RestartPolicy(restarts=100, window=60.0, backoff=0.001, max_backoff=0.02)


class RestartedSlowly(_WithLife):
    """Keep checkpoints, and be restarted only after a long while."""

    RESTART: ClassVar[RestartPolicy] = RestartPolicy(restarts=3, window=60.0, backoff=1000.0, max_backoff=1000.0)


class RestartedCareless(_WithLife):
    """Keep nothing, so that there is nothing to restart from."""

    DURABILITY: ClassVar[Durability] = Durability.NONE
    RESTART: ClassVar[RestartPolicy] = QUICKLY
