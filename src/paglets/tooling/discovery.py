"""Which paglet classes there are in modules, files and directories, and what their states look like."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from paglets.core.agent import Paglet
from paglets.core.errors import PagletError, SerializationError
from paglets.remote.entry_hosts import AgentDiscoveryConfig
from paglets.serialization.codec import qualified_name, to_wire
from paglets.serialization.hints import class_plan
from paglets.serialization.kinds import MisfitError

__all__ = ["AgentClassRecord", "AgentDiscoveryConfig", "DiscoveryResult", "discover_agent_classes"]

#: Files of one directory that are looked at; what is beyond is an error in the result.
MAX_FILES: Final = 2_000

_path_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class AgentClassRecord:
    """One paglet class, and what a first state of it may say."""

    class_name: str
    """`module:qualname`."""
    state_class_name: str
    """`module:qualname`."""
    display_name: str
    description: str
    """First line of its docstring, empty where it has none."""
    state_template: dict[str, Any]
    """Wire form of every field that has a default."""
    required_state_fields: list[str]
    """The fields that a first state has to give."""


@dataclass(frozen=True, slots=True)
class DiscoveryResult:
    """What was found, and what could not be looked at."""

    agent_classes: list[AgentClassRecord]
    """By name, each once."""
    errors: list[str]
    """For people."""


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """A module that is looked at because of where its file is."""

    name: str
    file: Path
    root: Path
    """The directory that has to be on `sys.path` for it."""


def discover_agent_classes(config: AgentDiscoveryConfig, *, static: bool = False) -> DiscoveryResult:
    """Return the paglet classes that modules, files and directories define. Problems are told, never raised.

    This imports them, which runs their code and leaves them imported. With ``static`` they are only read: nothing is
    run, defaults that take more than a literal to tell are left out of the template, and a class that is made at run
    time is not found.
    """
    if static:
        from paglets.tooling.static_discovery import read_agent_classes

        return read_agent_classes(config)
    records: dict[str, AgentClassRecord] = {}
    errors: list[str] = []
    for name in config.modules:
        _look_into(_imported(name, name, errors), records, errors)
    for text in config.paths:
        for found in modules_at(text, errors.append):
            with _importable_from(found.root):
                module = _imported(found.name, str(found.file), errors)
            origin = getattr(module, "__file__", None)
            if module is not None and origin is not None and not _same_file(Path(origin), found.file):
                errors.append(f"Could not import {found.file}: a module {found.name!r} was imported from {origin}")
                continue
            _look_into(module, records, errors)
    return DiscoveryResult([records[name] for name in sorted(records)], errors)


# --- where modules are ------------------------------------------------------------------------------------------------


def modules_at(text: str, error: Callable[[str], None]) -> Iterator[ModuleFile]:
    """Give the modules of a file or a directory by name; names with a leading underscore are private and left out.

    :param error: is told what cannot be looked at.
    """
    path = Path(text).expanduser().resolve()
    if not path.exists():
        error(f"Discovery path does not exist: {text}")
    elif path.is_file():
        if path.suffix == ".py" and path.stem.isidentifier():
            yield ModuleFile(path.stem, path, path.parent)
        else:
            error(f"Discovery path is not an importable Python file: {text}")
    else:
        named = path.name.isidentifier()
        root, prefix = (path.parent, f"{path.name}.") if named else (path, "")
        if named and (path / "__init__.py").is_file():
            yield ModuleFile(path.name, path / "__init__.py", root)
        for count, (name, file) in enumerate(_modules_below(path), 1):
            if count > MAX_FILES:
                error(f"Discovery path has more than {MAX_FILES:,} modules, the rest was not looked at: {text}")
                return
            yield ModuleFile(prefix + name, file, root)


def _modules_below(directory: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(directory.iterdir()):
        name = path.stem if path.suffix == ".py" else path.name
        if name.startswith("_") or not name.isidentifier():
            continue
        if path.suffix == ".py" and path.is_file():
            yield name, path
        elif (init := path / "__init__.py").is_file():
            yield name, init
            yield from ((f"{name}.{inner}", file) for inner, file in _modules_below(path))


@contextmanager
def _importable_from(root: Path) -> Iterator[None]:
    with _path_lock:
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(str(root))


def _imported(name: str, source: str, errors: list[str]) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as exc:  # whatever the code of others raises
        errors.append(f"Could not import {source}: {type(exc).__name__}: {exc}")
        return None


def _same_file(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


# --- what is in them --------------------------------------------------------------------------------------------------


def _look_into(module: ModuleType | None, records: dict[str, AgentClassRecord], errors: list[str]) -> None:
    for cls in () if module is None else _classes_of(module):
        try:
            record = record_of(cls, errors.append)
        except (PagletError, MisfitError) as exc:
            errors.append(f"Could not describe {cls.__module__}:{cls.__qualname__}: {exc}")
        else:
            records.setdefault(record.class_name, record)


def _classes_of(module: ModuleType) -> Iterable[type[Paglet[Any]]]:
    found: dict[type[Paglet[Any]], None] = {}
    for value in tuple(vars(module).values()):
        if not isinstance(value, type) or not issubclass(value, Paglet) or value is Paglet:
            continue
        has_state = dataclasses.is_dataclass(getattr(value, "State", None))
        if value.__module__ == module.__name__ and has_state and not inspect.isabstract(value):
            found[value] = None
    return found


def record_of(cls: type[Paglet[Any]], error: Callable[[str], None]) -> AgentClassRecord:
    """Return what is to be known of a paglet class.

    :param error: is told of defaults that cannot be used.
    :raises SerializationError: the class cannot be imported by its name.
    :raises MisfitError: the annotations of its state cannot be resolved.
    """
    state_class = cls.state_class()
    name = qualified_name(cls)
    template: dict[str, Any] = {}
    required: list[str] = []
    declared = {field.name: field for field in dataclasses.fields(state_class)}
    for plan in class_plan(state_class).fields:
        if not plan.required:
            try:
                template[plan.name] = to_wire(_default_of(declared[plan.name]), plan.hint)
                continue
            except Exception as exc:  # a factory raises what it likes
                reason = str(exc) if isinstance(exc, SerializationError) else f"{type(exc).__name__}: {exc}"
                error(f"The default of {plan.name!r} in the state of {name} cannot be used: {reason}")
        required.append(plan.name)
    return AgentClassRecord(
        name, qualified_name(state_class), cls.__name__, first_line(cls.__doc__), template, required
    )


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def first_line(docstring: str | None) -> str:
    """Return the first line of a docstring, empty for none."""
    return next(iter((docstring or "").strip().splitlines()), "").strip()
