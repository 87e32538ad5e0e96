"""A group of commands whose modules are imported when a command is called, and not to list it."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from paglets.cli.plain_values import take_plain_values
from paglets.cli.usage import say_which

__all__ = ["LazyCommand", "LazyGroup", "collect_as_usual", "lazy_group", "plainly", "seldom_collected", "uncollected"]

_USUAL: Final = gc.get_threshold()
_SELDOM: Final = 50_000


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command, or a group of them, as far as the list of commands needs to know it."""

    name: str
    module: str
    """Where it is defined: as function of its name, or as `typer.Typer` called `app`."""
    help: str
    """The first line of its help, which a test compares with what the module says."""
    panel: str
    """Under which heading it is listed."""
    epilog: str = "EPILOG"
    """What the module calls the text below its help; a group knows its own."""

    def outline(self) -> TyperCommand:
        """Return a command that can be listed and not be called."""
        return TyperCommand(self.name, help=self.help, rich_help_panel=self.panel)

    def load(self) -> Any:
        """Import the module and return the command itself."""
        with uncollected():
            module = importlib.import_module(self.module)
        holder = typer.Typer(add_completion=False, rich_markup_mode="rich")
        group = getattr(module, "app", None)
        if group is None:
            made = holder.command(self.name, epilog=getattr(module, self.epilog), rich_help_panel=self.panel)
            made(getattr(module, self.name))
        else:
            holder.add_typer(group, rich_help_panel=self.panel)
        return plainly(typer.main.get_group(holder).commands[self.name])


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for garbage seldom inside: a command imports, prints and ends, and leaves next to none."""
    usual = gc.get_threshold()
    gc.set_threshold(_SELDOM, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def collect_as_usual() -> None:
    """Have a program that goes on for long look for garbage as often as others do."""
    gc.set_threshold(*_USUAL)


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage inside: what an import makes stays, and looking through it takes a tenth of a start."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def plainly(command: Any) -> Any:
    """Return a command that converts plain values by itself and names itself in errors, as do those below it."""
    take_plain_values(command)
    say_which(command)
    below = getattr(command, "commands", None)
    if isinstance(below, dict):
        for each in below.values():
            plainly(each)
    return command


class _Commands(MutableMapping[str, Any]):
    """The commands of a group by name, each made when it is asked for."""

    def __init__(self, entries: tuple[LazyCommand, ...]) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._entries[name].load()
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._entries[name]
        self._loaded.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._loaded

    def __iter__(self) -> Iterator[str]:
        return iter({**self._entries, **self._loaded})

    def __len__(self) -> int:
        return len({**self._entries, **self._loaded})


class LazyGroup(TyperGroup):
    """A group that lists its commands from `ENTRIES`, and imports the one that is called."""

    ENTRIES: ClassVar[tuple[LazyCommand, ...]] = ()

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands(self.ENTRIES)
        self._listed: dict[str, TyperCommand] | None = None

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands in the order of the table."""
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or only its outline while the commands are being listed; None if there is none."""
        if self._listed is not None:
            return self._listed.get(cmd_name)
        return self.commands.get(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of the group."""
        with self._listing():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return what the shell may offer."""
        with self._listing():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _listing(self) -> Iterator[None]:
        self._listed = {entry.name: entry.outline() for entry in self.ENTRIES}
        try:
            yield
        finally:
            self._listed = None


def lazy_group(*entries: LazyCommand) -> type[LazyGroup]:
    """Return the class of a group with these commands."""
    return type("LazyGroupOfCommands", (LazyGroup,), {"ENTRIES": entries})
