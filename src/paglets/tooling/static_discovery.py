"""Which paglet classes source files define, found by reading them: no line of them is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, Final

from paglets.remote.entry_hosts import AgentDiscoveryConfig
from paglets.tooling.discovery import AgentClassRecord, DiscoveryResult, first_line, modules_at
from paglets.tooling.static_names import SourceClass, SourceModule, SourceTree, dotted_of

_PAGLET: Final = "paglets.core.agent:Paglet"
_DATACLASS: Final = "dataclasses:dataclass"
_FIELD: Final = "dataclasses:field"
_ABSTRACT_ROOTS: Final = frozenset({"abc:ABC"})
_ABSTRACT_META: Final = frozenset({"abc:ABCMeta"})
_ENUM_MODULE: Final = "enum:"
_FACTORIES: Final[dict[str, Any]] = {
    "list": [],
    "tuple": [],
    "set": [],
    "frozenset": [],
    "dict": {},
    "str": "",
    "int": 0,
    "float": 0.0,
    "bool": False,
}
_UNKNOWN: Final = object()
_MOST_BASES: Final = 1_000


def read_agent_classes(config: AgentDiscoveryConfig) -> DiscoveryResult:
    """Return the paglet classes in the source of modules, files and directories; see `discover_agent_classes`."""
    errors: list[str] = []
    tree = SourceTree(errors.append)
    reader = _Reader(tree)
    records: dict[str, AgentClassRecord] = {}
    for name in config.modules:
        file = tree.file_of(name)
        if file is None:
            errors.append(f"Could not find the source of module {name!r}")
        else:
            reader.look_into(tree.module(name), records)
    for text in config.paths:
        for found in modules_at(text, errors.append):
            tree.add_root(found.root)
            reader.look_into(tree.read(found.name, found.file), records)
    return DiscoveryResult([records[name] for name in sorted(records)], errors)


class _Reader:
    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree

    def look_into(self, module: SourceModule | None, records: dict[str, AgentClassRecord]) -> None:
        if module is None:
            return
        for name, node in module.classes.items():
            cls = SourceClass(module, name, node)
            order = self._order(cls)
            state = self._state_of(order)
            if _PAGLET not in _names(order) or cls.name == _PAGLET or state is None or self._is_abstract(order):
                continue
            template, required = self._fields(state)
            docstring = ast.get_docstring(node)
            records.setdefault(
                cls.name, AgentClassRecord(cls.name, state.name, name, first_line(docstring), template, required)
            )

    def _order(self, cls: SourceClass) -> list[SourceClass | str]:
        """Return a class and its bases; each behind its subclasses, nearest first."""
        found: list[SourceClass | str] = []
        waiting: list[SourceClass | str] = [cls]
        for _ in range(_MOST_BASES):  # source may say that two classes extend one another
            if not waiting:
                break
            each = waiting.pop(0)
            if each in found:
                found.remove(each)
            found.append(each)
            if isinstance(each, SourceClass):
                waiting += self._bases(each)
        return found

    def _bases(self, cls: SourceClass) -> list[SourceClass | str]:
        names = [dotted for base in cls.node.bases if (dotted := dotted_of(base)) is not None]
        bases = [self._tree.resolve(cls.module, name) for name in names]
        return [base for base in bases if base is not None and base != cls]

    def _state_of(self, order: list[SourceClass | str]) -> SourceClass | None:
        for cls in order:
            if not isinstance(cls, SourceClass):
                continue
            named: SourceClass | str | None = cls.inner("State")
            for node in cls.node.body:
                if (value := _assigned(node, "State")) is not None and (dotted := dotted_of(value)) is not None:
                    named = self._tree.resolve(cls.module, dotted, cls)
            if isinstance(named, SourceClass):
                return named if self._is_dataclass(named) else None
        return None

    def _is_dataclass(self, cls: SourceClass) -> bool:
        return any(self._decorated(each) for each in self._order(cls) if isinstance(each, SourceClass))

    def _decorated(self, cls: SourceClass) -> bool:
        for decorator in cls.node.decorator_list:
            dotted = dotted_of(decorator.func if isinstance(decorator, ast.Call) else decorator)
            if dotted is not None and self._stands_for(cls.module, dotted, _DATACLASS):
                return True
        return False

    def _stands_for(self, module: SourceModule, dotted: str, name: str) -> bool:
        found = self._tree.resolve(module, dotted)
        if isinstance(found, SourceClass):
            return found.name == name
        return found == name

    def _is_abstract(self, order: list[SourceClass | str]) -> bool:
        sources = [each for each in order if isinstance(each, SourceClass)]
        metas = [
            self._tree.resolve(each.module, dotted)
            for each in sources
            for keyword in each.node.keywords
            if keyword.arg == "metaclass" and (dotted := dotted_of(keyword.value)) is not None
        ]
        names = _names(order) | _names([meta for meta in metas if meta is not None])
        if not names & (_ABSTRACT_ROOTS | _ABSTRACT_META):
            return False
        decided: set[str] = set()
        for each in sources:
            for node in each.node.body:
                for name in _bound_names(node):
                    if name not in decided and _is_abstract_method(node):
                        return True
                    decided.add(name)
        return False

    # --- states -------------------------------------------------------------------------------------------------------

    def _fields(self, state: SourceClass) -> tuple[dict[str, Any], list[str]]:
        values: dict[str, Any] = {}
        required: dict[str, bool] = {}
        for cls in reversed(self._order(state)):
            if not isinstance(cls, SourceClass) or not self._decorated(cls):
                continue
            for node in cls.node.body:
                if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                    continue
                if _is_class_level(node.annotation):
                    continue
                name = node.target.id
                required.setdefault(name, False)
                required[name], values[name] = self._default(cls, node.value)
        template = {name: values[name] for name in required if not required[name] and values[name] is not _UNKNOWN}
        return template, [name for name, needed in required.items() if needed]

    def _default(self, cls: SourceClass, node: ast.expr | None) -> tuple[bool, Any]:
        """Return whether a field has no default, and the wire form of its default."""
        if node is None:
            return True, _UNKNOWN
        if not (isinstance(node, ast.Call) and (called := dotted_of(node.func)) is not None):
            return False, self._value(cls, node)
        if not self._stands_for(cls.module, called, _FIELD):
            return False, _UNKNOWN
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if "default" in given:
            return False, self._value(cls, given["default"])
        if "default_factory" in given:
            return False, self._made(cls, given["default_factory"])
        return True, _UNKNOWN

    def _made(self, cls: SourceClass, factory: ast.expr) -> Any:
        if isinstance(factory, ast.Lambda):
            return self._value(cls, factory.body)
        dotted = dotted_of(factory)
        if dotted is None:
            return _UNKNOWN
        target = self._tree.resolve(cls.module, dotted, cls)
        if target is None:
            made = _FACTORIES.get(dotted, _UNKNOWN)
            return type(made)(made) if isinstance(made, (list, dict)) else made
        if isinstance(target, SourceClass) and self._is_dataclass(target):
            template, required = self._fields(target)
            return _UNKNOWN if required else template
        return _UNKNOWN

    def _value(self, cls: SourceClass, node: ast.expr) -> Any:
        try:
            return _plain(ast.literal_eval(node))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return self._enum_value(cls, node)

    def _enum_value(self, cls: SourceClass, node: ast.expr) -> Any:
        if not isinstance(node, ast.Attribute) or (owner := dotted_of(node.value)) is None:
            return _UNKNOWN
        target = self._tree.resolve(cls.module, owner, cls)
        if not isinstance(target, SourceClass):
            return _UNKNOWN
        if not any(name.startswith(_ENUM_MODULE) for name in _names(self._order(target))):
            return _UNKNOWN
        for member in target.node.body:
            if (value := _assigned(member, node.attr)) is not None:
                try:
                    return _plain(ast.literal_eval(value))
                except (ValueError, TypeError, SyntaxError):
                    return _UNKNOWN
        return _UNKNOWN


def _names(order: list[SourceClass | str]) -> set[str]:
    return {each.name if isinstance(each, SourceClass) else each for each in order}


def _assigned(node: ast.stmt, name: str) -> ast.expr | None:
    if isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == name for each in node.targets):
        return node.value
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
        return node.value
    return None


def _bound_names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _is_abstract_method(node: ast.stmt) -> bool:
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    return any((dotted_of(each) or "").rpartition(".")[2] == "abstractmethod" for each in node.decorator_list)


def _is_class_level(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        text = annotation.value.partition("[")[0]
    else:
        text = dotted_of(annotation) or ""
    return text.rpartition(".")[2] in ("ClassVar", "InitVar")


def _plain(value: Any) -> Any:
    """Return a literal in its wire form.

    :raises ValueError: it has none that could be told without its type.
    """
    if isinstance(value, (set, frozenset)):
        try:
            return [_plain(item) for item in sorted(value)]
        except TypeError:
            return [_plain(item) for item in value]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if not isinstance(value, (str, int, float, bool, bytes, type(None))):
        raise ValueError(f"{type(value).__name__} has no wire form here")
    return value
