"""Python source as tables of names: which classes a module has, and what a name in it stands for. Nothing is run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

#: Source files that are read to follow imports, and the size of each.
MAX_MODULES: Final = 5_000
MAX_SOURCE_BYTES: Final = 4 * 1024 * 1024
_MOST_STEPS: Final = 50


@dataclass(eq=False)
class SourceModule:
    """One source file."""

    name: str
    is_package: bool
    tree: ast.Module

    @cached_property
    def classes(self) -> Mapping[str, ast.ClassDef]:
        """The classes of the module's top level, also below `if` and `try`."""
        return {node.name: node for node in _statements(self.tree.body) if isinstance(node, ast.ClassDef)}

    @cached_property
    def imports(self) -> Mapping[str, tuple[str, str]]:
        """Module and attribute for every imported name; the attribute is empty for a module."""
        found: dict[str, tuple[str, str]] = {}
        for node in _statements(self.tree.body):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    module = alias.name if alias.asname else alias.name.partition(".")[0]
                    found[alias.asname or module] = (module, "")
            elif isinstance(node, ast.ImportFrom):
                origin = self._origin(node)
                for alias in node.names:
                    if alias.name != "*":
                        found[alias.asname or alias.name] = (origin, alias.name)
        return found

    @cached_property
    def stars(self) -> tuple[str, ...]:
        """The modules of which every name is imported."""
        return tuple(
            self._origin(node)
            for node in _statements(self.tree.body)
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
        )

    @cached_property
    def aliases(self) -> Mapping[str, ast.expr]:
        """What module-level names are assigned."""
        return {
            target.id: node.value
            for node in _statements(self.tree.body)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        kept = parts[: len(parts) - node.level + (1 if self.is_package else 0)]
        return ".".join([*kept, node.module] if node.module else kept)


@dataclass(frozen=True)
class SourceClass:
    """A class in a source file."""

    module: SourceModule
    path: str
    """Its qualified name within the module."""
    node: ast.ClassDef = field(compare=False)

    @property
    def name(self) -> str:
        """`module:qualname`."""
        return f"{self.module.name}:{self.path}"

    def inner(self, name: str) -> SourceClass | None:
        """Return a class that is defined in this one."""
        for node in self.node.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return SourceClass(self.module, f"{self.path}.{name}", node)
        return None


class SourceTree:
    """Read source files as they are needed and follow names through them.

    :param error: is told of files that cannot be read.
    """

    def __init__(self, error: Callable[[str], None]) -> None:
        self._error = error
        self._modules: dict[str, SourceModule | None] = {}
        self._roots: list[Path] = []

    def add_root(self, root: Path) -> None:
        """Look for modules in a directory first."""
        if root not in self._roots:
            self._roots.insert(0, root)

    def read(self, name: str, file: Path) -> SourceModule | None:
        """Return the module in a file, None where it cannot be read."""
        try:
            if file.stat().st_size > MAX_SOURCE_BYTES:
                raise ValueError(f"more than {MAX_SOURCE_BYTES // 1024 // 1024} MB")
            tree = ast.parse(file.read_bytes(), str(file))
        except (OSError, SyntaxError, ValueError, RecursionError) as exc:
            self._error(f"Could not read {file}: {type(exc).__name__}: {exc}")
            self._modules[name] = None
            return None
        self._modules[name] = SourceModule(name, file.name == "__init__.py", tree)
        return self._modules[name]

    def module(self, name: str) -> SourceModule | None:
        """Return a module by name, None where there is no source of it."""
        if name in self._modules:
            return self._modules[name]
        file = self.file_of(name) if len(self._modules) < MAX_MODULES else None
        if file is None:
            self._modules[name] = None
            return None
        return self.read(name, file)

    def file_of(self, name: str) -> Path | None:
        """Return the source file of a module, looked for as an import would, without importing anything."""
        parts = name.split(".")
        # Of the standard library it is enough to know the names.
        if not all(part.isidentifier() for part in parts) or parts[0] in sys.stdlib_module_names:
            return None
        for root in (*self._roots, *(Path(entry or ".") for entry in sys.path)):
            package, plain = root.joinpath(*parts, "__init__.py"), root.joinpath(*parts[:-1], f"{parts[-1]}.py")
            for candidate in (package, plain):
                if candidate.is_file():
                    return candidate
        return None

    def resolve(self, module: SourceModule, dotted: str, within: SourceClass | None = None) -> SourceClass | str | None:
        """Return the class that a name stands for in a module; `module:name` where it has no source; None for neither.

        :param within: the class in whose body the name stands.
        """
        first, *rest = dotted.split(".")
        found: SourceClass | str | None = within.inner(first) if within is not None else None
        if found is None:
            found = self._lookup(module, first, 0)
        for part in rest:
            if isinstance(found, SourceClass):
                found = found.inner(part)
            elif found is not None and found.endswith(":"):
                found = self._attribute(found[:-1], part, 0)
            elif found is not None:
                found = f"{found}.{part}"
        return found

    def _lookup(self, module: SourceModule, name: str, steps: int) -> SourceClass | str | None:
        if steps > _MOST_STEPS:
            return None
        if name in module.classes:
            return SourceClass(module, name, module.classes[name])
        if name in module.imports:
            origin, attribute = module.imports[name]
            return self._attribute(origin, attribute, steps) if attribute else f"{origin}:"
        if name in module.aliases:
            target = dotted_of(module.aliases[name])
            if target is not None and target.partition(".")[0] != name:
                return self.resolve(module, target)
        for origin in module.stars:
            starred = self.module(origin)
            if starred is not None and (found := self._lookup(starred, name, steps + 1)) is not None:
                return found
        return None

    def _attribute(self, module_name: str, name: str, steps: int) -> SourceClass | str | None:
        module = self.module(module_name)
        found = None if module is None else self._lookup(module, name, steps + 1)
        if found is not None:
            return found
        if self.module(f"{module_name}.{name}") is not None:
            return f"{module_name}.{name}:"
        return f"{module_name}:{name}"


def dotted_of(node: ast.expr) -> str | None:
    """Return a name or dotted name as text, also of something generic like `Paglet[State]`; None for all else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted_of(node.value)
        return None if owner is None else f"{owner}.{node.attr}"
    return dotted_of(node.value) if isinstance(node, ast.Subscript) else None


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    for node in body:
        found.append(node)
        if isinstance(node, ast.If):
            found += _statements(node.body) + _statements(node.orelse)
        elif isinstance(node, ast.Try):
            found += _statements(node.body)
            for each in node.handlers:
                found += _statements(each.body)
            found += _statements(node.orelse)
    return found
