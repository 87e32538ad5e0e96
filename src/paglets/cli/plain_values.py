"""Values of options that need no library to be understood: text, numbers, paths, choices, and lists of text.

Typer has pydantic check every value, those that nobody gave included. Importing that, and building a checker for each
option, takes longer than most commands do. Here the plain cases are decided; all others, and every value that may be
wrong, go the usual way, so that what is accepted and what is said of errors stays the same.
"""

from __future__ import annotations

import os
import re
from enum import Enum
from pathlib import Path
from typing import Any, Final

__all__ = ["UnclearError", "plain_value", "take_plain_values"]

_WHOLE: Final = re.compile(r"-?(0|[1-9]\d{0,14})")
_DECIMAL: Final = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?")
#: Attributes of an option that change what becomes of a path.
_PATH_RULES: Final = ("exists", "writable", "resolve_path", "allow_dash", "path_type")


class UnclearError(Exception):
    """The value is not one of the plain cases."""


class _Plainly:
    """Convert the values of one parameter; looks to Typer like what it makes itself."""

    def __init__(self, usual: Any, annotation: Any, rules: Any) -> None:
        self._usual = usual
        self._annotation = annotation
        self._rules = rules

    def __call__(self) -> _Plainly:
        return self

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a value of the parameter's type.

        :raises typer.BadParameter: it is none.
        """
        several = param.multiple or param.nargs == -1
        try:
            if value is None:
                return () if several else None
            if several:
                if isinstance(value, str) or self._annotation != list[str]:
                    raise UnclearError
                return [plain_value(each, str, self._rules) for each in value]
            return plain_value(value, self._annotation, self._rules)
        except UnclearError:
            return self._usual().coerce(value, param=param, ctx=ctx)


def plain_value(value: Any, annotation: Any, rules: Any) -> Any:
    """Return a value that certainly is what Typer would make of it.

    :param rules: what the option says of its values: Typer's `ParameterInfo`.
    :raises UnclearError: it may be another, or none.
    """
    if rules.parser is not None:
        raise UnclearError
    if annotation is str and type(value) is str:
        return value
    if annotation is int and not rules.clamp and (type(value) is int or _matches(_WHOLE, value)):
        return _within(int(value), rules)
    if annotation is float and not rules.clamp and (type(value) is float or _matches(_DECIMAL, value)):
        return _within(float(value), rules)
    if annotation is Path and not any(getattr(rules, name, None) for name in _PATH_RULES):
        return _path(value, rules)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        for each in annotation:
            if value is each or (type(value) is str and value == each.value):
                return each
    raise UnclearError


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return type(value) is str and pattern.fullmatch(value) is not None


def _within(value: float, rules: Any) -> float:
    if (rules.min is not None and value < rules.min) or (rules.max is not None and value > rules.max):
        raise UnclearError
    return value


def _path(value: Any, rules: Any) -> Path:
    if not isinstance(value, str | Path) or not (rules.file_okay and rules.dir_okay):
        raise UnclearError
    path = Path(value)
    try:
        readable = not path.exists() or os.access(path, os.R_OK)
    except OSError as exc:  # a name that is too long, for one
        raise UnclearError from exc
    if not readable or "\0" in str(path):
        raise UnclearError
    return path


def take_plain_values(command: Any) -> None:
    """Have a command of Typer convert plain values by itself.

    A Typer that checks values in another way is left as it is.
    """
    usual = command.get_params

    def get_params(context: Any) -> Any:
        # Among them is the one for --help, which the command makes when it is first asked.
        params = usual(context)
        for param in params:
            _convert_plainly(param)
        return params

    command.get_params = get_params


def _convert_plainly(param: Any) -> None:
    usual: Any = getattr(param, "get_runtime_param", None)
    type_: Any = getattr(param, "type_descriptor", None)
    if usual is None or isinstance(usual, _Plainly):
        return
    if hasattr(type_, "annotation") and hasattr(type_, "parameter_info"):
        param.get_runtime_param = _Plainly(usual, type_.annotation, type_.parameter_info)
