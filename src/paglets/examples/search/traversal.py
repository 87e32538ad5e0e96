"""Go through directory trees in a fixed order, and leave out what is not to be looked at."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from paglets.examples.search.ignoring import IGNORE_FILES, IgnoreRules, rules_above, rules_of_directory, rules_of_lines
from paglets.examples.search.models import SEARCH_TYPES, SearchRequest

FILE: Final = "file"
DIRECTORY: Final = "dir"
SYMLINK: Final = "symlink"
OTHER: Final = "other"

Report = Callable[[str, str], None]
"""Takes a path, and why it could not be looked at."""


class Found(NamedTuple):
    """An entry of a tree."""

    path: str
    name: str
    kind: str
    listed: bool = True
    """False for a directory that was only gone through: globs or types ask for something else."""


@dataclass(slots=True)
class _Level:
    """A directory whose entries are being looked at."""

    entries: list[os.DirEntry[str]]
    """What is still to be looked at, the next one last."""
    rules: IgnoreRules | None
    depth: int
    identities: frozenset[tuple[int, int]] = frozenset()
    """Device and inode of this directory and those around it, where links are followed."""


@dataclass(slots=True)
class Filters:
    """Which entries are wanted, by their names."""

    chosen: IgnoreRules | None = None
    """Globs of which one must match a file."""
    excluded: IgnoreRules | None = None
    """Globs of which none may match."""
    types: re.Pattern[str] | None = None
    types_not: re.Pattern[str] | None = None
    active: bool = field(init=False)
    """Whether any of them says anything about files."""

    def __post_init__(self) -> None:
        self.active = any((self.chosen, self.excluded, self.types, self.types_not))

    @classmethod
    def of(cls, request: SearchRequest) -> Filters:
        """Return what a request wants.

        :raises ValueError: it names a type that is not in `SEARCH_TYPES`.
        """
        wanted = [glob for glob in request.globs if not glob.startswith("!")]
        unwanted = [glob[1:] for glob in request.globs if glob.startswith("!")]
        types, types_not = _type_pattern(request.type_names), _type_pattern(request.type_not_names)
        return cls(rules_of_lines(_literal(wanted)), rules_of_lines(_literal(unwanted)), types, types_not)

    def wants_file(self, relative: str, name: str) -> bool:
        """Tell whether a file is wanted, by its path below where the search began."""
        if self.types is not None and not self.types.match(name):
            return False
        if self.types_not is not None and self.types_not.match(name):
            return False
        if self.excluded is not None and self.excluded.matches_any(relative):
            return False
        return self.chosen is None or _below(self.chosen, relative)

    def wants_directory(self, relative: str) -> bool:
        """Tell whether a directory may hold something that is wanted."""
        return self.excluded is None or not self.excluded.matches_any(f"{relative}/")

    def lists_directory(self, relative: str) -> bool:
        """Tell whether a directory is a result itself."""
        return self.types is None and (self.chosen is None or _below(self.chosen, f"{relative}/"))


def _below(rules: IgnoreRules, relative: str) -> bool:
    """Tell whether a glob matches a path or a directory that it is in."""
    if rules.matches_any(relative):
        return True
    slash = relative.rfind("/")
    while slash > 0:
        if rules.matches_any(relative[: slash + 1]):
            return True
        slash = relative.rfind("/", 0, slash)
    return False


def _literal(globs: Sequence[str]) -> list[str]:
    """Return globs as lines of an ignore file, where `#` and `!` have no meaning of their own at the beginning."""
    return [f"\\{glob}" if glob[:1] in ("#", "!") else glob for glob in globs]


def _type_pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    unknown = [name for name in names if name not in SEARCH_TYPES]
    if unknown:
        raise ValueError(f"unknown file type {unknown[0]!r}; there are {', '.join(SEARCH_TYPES)}")
    globs = [glob for name in names for glob in SEARCH_TYPES[name]]
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs)) if globs else None


class Traversal:
    """Yield the entries below a path, depth first, sorted by name; a directory comes before what is in it.

    The path itself is yielded if it is no directory. Links are entries, and directories or files only where they are
    followed.

    :param report: is told of what cannot be looked at.
    """

    def __init__(self, request: SearchRequest, report: Report) -> None:
        self._request = request
        self._report = report
        self._filters = Filters.of(request)
        self._names = (*IGNORE_FILES, *(name for name in request.ignore_files if os.sep not in name))
        self._single_files = [name for name in request.ignore_files if os.sep in name]

    def entries(self, root: str) -> Iterator[Found]:
        """Yield what is found from one path on."""
        try:
            status = os.stat(root)  # noqa: PTH116 - as the others here
        except OSError as exc:
            missing = isinstance(exc, FileNotFoundError)
            self._report(root, "path does not exist" if missing else reason(exc))
            return
        if not stat.S_ISDIR(status.st_mode):
            kind = FILE if stat.S_ISREG(status.st_mode) else OTHER
            yield Found(root, os.path.basename(root), kind)  # noqa: PTH119 - as it was given
            return
        identity = frozenset({(status.st_dev, status.st_ino)})
        directory = "" if root in (".", "./") else root
        rules = None if self._request.no_ignore else rules_above(directory, self._names, self._single_files)
        yield from self._below(directory, rules, identity)

    def _below(self, root: str, rules: IgnoreRules | None, identity: frozenset[tuple[int, int]]) -> Iterator[Found]:
        request, filters, follow = self._request, self._filters, self._request.follow
        hidden, filtered, deepest = request.hidden, self._filters.active, request.max_depth
        cut = len(root) if not root or root.endswith("/") else len(root) + 1
        first = self._level(root, rules, 1, identity)
        levels = [] if first is None else [first]
        while levels:
            level = levels[-1]
            if not level.entries:
                levels.pop()
                continue
            entry = level.entries.pop()
            name, rules = entry.name, level.rules
            if name[0] == "." and not hidden:
                continue
            # The entries of this very directory would begin with `./`.
            path = entry.path if root or level.depth > 1 else name
            kind = _kind(entry, follow)
            if kind == DIRECTORY:
                if rules is not None and rules.ignores(f"{path}/"):
                    continue
                if filtered and not filters.wants_directory(path[cut:]):
                    continue
                yield Found(path, name, kind, not filtered or filters.lists_directory(path[cut:]))
                if deepest is None or level.depth < deepest:
                    inner = self._inner(entry, path, level)
                    if inner is not None:
                        levels.append(inner)
                continue
            if rules is not None and rules.ignores(path):
                continue
            if filtered and not filters.wants_file(path[cut:], name):
                continue
            yield Found(path, name, kind)

    def _inner(self, entry: os.DirEntry[str], path: str, level: _Level) -> _Level | None:
        identities = level.identities
        if self._request.follow:
            try:
                status = entry.stat()
            except OSError as exc:
                self._report(path, reason(exc))
                return None
            identity = (status.st_dev, status.st_ino)
            if identity in identities:
                self._report(path, "a link to a directory that it is in; not followed")
                return None
            identities |= {identity}
        return self._level(path, level.rules, level.depth + 1, identities)

    def _level(
        self, path: str, rules: IgnoreRules | None, depth: int, identities: frozenset[tuple[int, int]]
    ) -> _Level | None:
        if self._request.max_depth is not None and depth > self._request.max_depth:
            return None
        try:
            with os.scandir(path or ".") as found:
                entries = sorted(found, key=_name, reverse=True)
        except OSError as exc:
            self._report(path, reason(exc))
            return None
        if not self._request.no_ignore:
            present = {entry.name for entry in entries} if _may_have_rules(entries, self._names) else set()
            if present:
                cut = len(path) if not path or path.endswith("/") else len(path) + 1
                rules = rules_of_directory(path, present, self._names, rules, cut=cut)
        return _Level(entries, rules, depth, identities)


def reason(exc: OSError) -> str:
    """Return why something could not be read, without its path."""
    return (exc.strerror or type(exc).__name__).lower()


def _may_have_rules(entries: Sequence[os.DirEntry[str]], names: Sequence[str]) -> bool:
    """Tell whether it is worth looking for ignore files: they stand before what begins with a letter."""
    return bool(entries) and (len(names) > len(IGNORE_FILES) or entries[-1].name[0] <= ".")


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _kind(entry: os.DirEntry[str], follow: bool) -> str:
    try:
        if entry.is_file(follow_symlinks=False):
            return FILE
        if entry.is_dir(follow_symlinks=False):
            return DIRECTORY
        if not entry.is_symlink():
            return OTHER
        if follow:
            if entry.is_dir():
                return DIRECTORY
            if entry.is_file():
                return FILE
    except OSError:
        return OTHER
    return SYMLINK
