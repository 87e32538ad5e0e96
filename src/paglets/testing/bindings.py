"""Find where modules hold functions of the standard library under names of their own, to replace them there too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import CellType, FunctionType, ModuleType
from typing import Any

from paglets.core.agent import Paglet

Undo = Callable[[], None]


def rebind(replacements: dict[Any, Any]) -> list[Undo]:
    """Replace functions wherever this package, or a module with paglets, has bound them early.

    That is in globals (`from time import sleep`), defaults of parameters (`clock=time.monotonic`), and in what
    dataclasses remember of their fields (`default_factory=time.time`).

    :param replacements: the new function for each.
    :return: what puts each of them back.
    """
    undo: list[Undo] = []
    for module in _modules():
        for name, value in list(vars(module).items()):
            if _is_one(value, replacements):
                setattr(module, name, replacements[value])
                undo.append(_setter(module, name, value))
        for function in _functions_of(module):
            undo += _rebind_function(function, replacements)
    return undo


def _modules() -> list[ModuleType]:
    names = {name for name in sys.modules if name == "paglets" or name.startswith("paglets.")}
    waiting: list[type[Any]] = [Paglet]
    while waiting:
        cls = waiting.pop()
        names.add(cls.__module__)
        waiting += cls.__subclasses__()
    # Not this: it holds the originals to give them to others.
    ours = __name__.rpartition(".")[0]
    return [sys.modules[name] for name in sorted(names) if name in sys.modules and not name.startswith(ours)]


def _functions_of(module: ModuleType) -> Iterator[FunctionType]:
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType):
            yield value
        elif isinstance(value, type):
            for inner in list(vars(value).values()):
                function = getattr(inner, "__func__", inner)
                if isinstance(function, FunctionType):
                    yield function


def _rebind_function(function: FunctionType, replacements: dict[Any, Any]) -> list[Undo]:
    undo: list[Undo] = []
    defaults = function.__defaults__
    if defaults is not None and any(_is_one(value, replacements) for value in defaults):
        function.__defaults__ = tuple(_replaced(value, replacements) for value in defaults)
        undo.append(_setter(function, "__defaults__", defaults))
    by_name = function.__kwdefaults__
    if by_name is not None and any(_is_one(value, replacements) for value in by_name.values()):
        function.__kwdefaults__ = {name: _replaced(value, replacements) for name, value in by_name.items()}
        undo.append(_setter(function, "__kwdefaults__", by_name))
    for cell in function.__closure__ or ():
        value = _content(cell)
        if _is_one(value, replacements):
            cell.cell_contents = replacements[value]
            undo.append(_setter(cell, "cell_contents", value))
    return undo


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _is_one(value: Any, replacements: dict[Any, Any]) -> bool:
    return callable(value) and type(value).__name__ in _KINDS and value in replacements


_KINDS = frozenset({"builtin_function_or_method", "function", "method", "type"})


def _replaced(value: Any, replacements: dict[Any, Any]) -> Any:
    return replacements[value] if _is_one(value, replacements) else value


def _setter(owner: Any, name: str, value: Any) -> Undo:
    return lambda: setattr(owner, name, value)
