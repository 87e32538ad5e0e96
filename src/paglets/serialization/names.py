"""Names of classes on the wire, and which of them a stranger may make this process import.

A qualified name is `module:Qual.Name`. Its syntax is checked before anything is imported, and code that acts for a
remote caller asks a `ClassPolicy` first: importing a module runs it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_origin

from paglets.core.errors import ForbiddenError, SerializationError

_MAX_NAME_LENGTH = 512
_MAIN_MODULES = frozenset({"__main__", "__mp_main__"})


def qualified_name(obj: type | object) -> str:
    """Return the `module:Qual.Name` of a class, or of the class of an instance.

    :param obj: a class, a parametrised generic class or any instance.
    :raises SerializationError: the class was defined inside a function and cannot be imported.
    """
    origin = get_origin(obj)
    cls = obj if isinstance(obj, type) else origin if isinstance(origin, type) else type(obj)
    name = f"{cls.__module__}:{cls.__qualname__}"
    if "<locals>" in cls.__qualname__:
        raise SerializationError(f"class {name} is defined inside a function; move it to module level to let it travel")
    return name


def validate_qualified_name(name: str) -> tuple[str, str]:
    """Check the syntax of a qualified name without importing anything.

    :return: the module name and the dotted path of the class in it.
    :raises SerializationError: the text is not `module:Qual.Name`.
    """
    if not isinstance(name, str):
        raise SerializationError(f"a qualified name is text, not {type(name).__name__}")
    if len(name) > _MAX_NAME_LENGTH:
        raise SerializationError(f"a qualified name has at most {_MAX_NAME_LENGTH} characters, this one {len(name)}")
    module, colon, path = name.partition(":")
    if not colon or not _is_dotted(module) or not _is_dotted(path):
        raise SerializationError(f"{name!r} is not a qualified name; write it as 'module:Class'")
    return module, path


def resolve_qualified_name(name: str) -> Any:
    """Import the module of a qualified name and return what the name stands for.

    This runs the module's code; check names from outside with a `ClassPolicy` first.

    :raises SerializationError: bad syntax, an import that fails for whatever reason, or a missing attribute.
    """
    module_name, path = validate_qualified_name(name)
    try:
        target: Any = import_module(module_name)
    except (Exception, SystemExit) as error:
        raise SerializationError(f"cannot import {module_name!r} for {name!r}: {_reason(error)}") from error
    for part in path.split("."):
        try:
            target = getattr(target, part)
        except Exception as error:
            raise SerializationError(f"cannot resolve {name!r}: {_reason(error)}") from error
    return target


def resolve_class(name: str) -> type:
    """Return the class of a qualified name, and only a class that calls itself by that very name.

    A name that reaches a class of another module through an import in between is refused, so that a policy that
    allowed the name allowed the class.

    :raises SerializationError: the name does not resolve, to no class, or to a class of another name.
    """
    target = resolve_qualified_name(name)
    if not isinstance(target, type):
        raise SerializationError(f"{name!r} is not a class but {type(target).__name__}")
    own_name = f"{target.__module__}:{target.__qualname__}"
    if own_name != name:
        raise SerializationError(f"{name!r} is another name of {own_name!r}; use that one")
    return target


@dataclass(frozen=True)
class ClassPolicy:
    """Which classes may be imported because a message named them."""

    allow: tuple[str, ...] | None = None
    """Patterns: `pkg` (that module and all below), `pkg.*` (only those below), `pkg.mod:Cls` (one class and the
    classes nested in it), `pkg.mod:*` (all of exactly that module). None allows everything except `__main__`, the
    standard library and builtins."""

    def __post_init__(self) -> None:
        allow: Any = self.allow
        if allow is None:
            return
        if isinstance(allow, str):
            raise ValueError(f"allow takes a tuple of patterns, not the text {allow!r}")
        object.__setattr__(self, "allow", tuple(allow))
        for pattern in allow:
            if not _is_pattern(pattern):
                forms = "'pkg', 'pkg.*', 'pkg.mod:Class' or 'pkg.mod:*'"
                raise ValueError(f"{pattern!r} is no class pattern; write {forms}")

    def allows(self, name: str) -> bool:
        """Return whether the class of this name may be imported.

        :raises SerializationError: the name is malformed.
        """
        module, path = validate_qualified_name(name)
        if self.allow is None:
            top = module.partition(".")[0]
            return top not in _MAIN_MODULES and top not in sys.stdlib_module_names
        return any(_matches(pattern, module, path) for pattern in self.allow)

    def check(self, name: str) -> None:
        """Raise unless the class of this name may be imported.

        :raises ForbiddenError: the policy does not allow it; the text says how to allow it.
        :raises SerializationError: the name is malformed.
        """
        if self.allows(name):
            return
        module = name.partition(":")[0]
        reason = (
            "classes of __main__ and of the standard library are never allowed by default"
            if self.allow is None
            else f"only {', '.join(self.allow) or 'nothing'} is allowed"
        )
        raise ForbiddenError(
            f"class {name!r} may not be used here: {reason}; allow it by adding {module!r} or {name!r} "
            "to the allowed classes of this host"
        )


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _is_pattern(pattern: object) -> bool:
    if not isinstance(pattern, str):
        return False
    module, colon, path = pattern.partition(":")
    if colon:
        return _is_dotted(module) and (path == "*" or _is_dotted(path))
    return _is_dotted(module.removesuffix(".*"))


def _matches(pattern: str, module: str, path: str) -> bool:
    allowed_module, colon, allowed_path = pattern.partition(":")
    if colon:
        return module == allowed_module and (
            allowed_path == "*" or path == allowed_path or path.startswith(allowed_path + ".")
        )
    if allowed_module.endswith(".*"):
        return module.startswith(allowed_module.removesuffix("*"))
    return module == allowed_module or module.startswith(allowed_module + ".")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
