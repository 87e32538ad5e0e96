"""Which entries of directories `.gitignore` and its like leave out, as git decides it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from paglets.core.packages import needing

IGNORE_FILES: Final = (".gitignore", ".ignore", ".fdignore")
#: What of one ignore file is read, bytes.
MAX_FILE_BYTES: Final = 1024 * 1024

#: How `pathspec` says that a pattern matches a path or something below it. Whatever is below an ignored directory is
#: never looked at here, and below any other one a pattern must match the path itself.
_PATH_OR_BELOW: Final = "(?:(?P<ps_d>/)|$)"
_DIRECTORY: Final = "(?P<ps_d>/)"
#: `x/**/` is every directory below x, for git. For `pathspec` it is x.
_EVERY_DIRECTORY_BELOW: Final = re.compile(r"(?:/\*\*)+/(?= *$)")


class _Verdict(NamedTuple):
    """Patterns that stand together in a file and decide alike."""

    ignored: bool
    pattern: re.Pattern[str]


class IgnoreRules:
    """The rules that hold in one directory: those of its own ignore files, and behind them those of its parents.

    Paths are those that the traversal of the tree forms, with a slash at the end of directories.
    """

    __slots__ = ("_cut", "_outer", "_prefix", "_verdicts")

    def __init__(self, verdicts: Sequence[_Verdict], outer: IgnoreRules | None, *, cut: int, prefix: str = "") -> None:
        self._verdicts = verdicts
        self._outer = outer
        self._cut = cut
        self._prefix = prefix

    def ignores(self, path: str) -> bool:
        """Tell whether a path is left out."""
        level: IgnoreRules | None = self
        while level is not None:
            relative = level._prefix + path[level._cut :]
            for ignored, pattern in level._verdicts:
                if pattern.match(relative):
                    return ignored
            level = level._outer
        return False

    def matches_any(self, relative: str) -> bool:
        """Tell whether one of the patterns matches, whatever it says."""
        return any(pattern.match(relative) for _, pattern in self._verdicts)


def rules_of_lines(
    lines: Iterable[str], outer: IgnoreRules | None = None, *, cut: int = 0, prefix: str = ""
) -> IgnoreRules | None:
    """Return rules in front of others; those others if there are none.

    :param cut: the length of what stands in front of the relative path in the paths that are asked about.
    :param prefix: what the relative path lacks at its beginning, for rules of directories above.
    """
    verdicts = _verdicts_of(tuple(lines))
    return IgnoreRules(verdicts, outer, cut=cut, prefix=prefix) if verdicts else outer


def rules_of_directory(
    directory: str, present: Collection[str], names: Sequence[str], outer: IgnoreRules | None, *, cut: int
) -> IgnoreRules | None:
    """Return the rules in a directory.

    :param present: names of its entries.
    :param names: of ignore files; what a later one says counts more.
    """
    lines: list[str] = []
    if ".git" in present:
        lines += _lines_of(os.path.join(directory, ".git", "info", "exclude"))  # noqa: PTH118 - in the hot loop
    for name in names:
        if name in present:
            lines += _lines_of(os.path.join(directory, name))  # noqa: PTH118 - in the hot loop
    return rules_of_lines(lines, outer, cut=cut) if lines else outer


def rules_above(directory: str, names: Sequence[str], extra: Iterable[str]) -> IgnoreRules | None:
    """Return the rules that hold in a directory before its own files are read.

    These are, the weakest first, the user's global ones of git, those of the directories above as far as they are
    in the same git repository, and those of the files named in `extra`, which count as written in this directory.
    """
    here = Path(directory).absolute()
    cut = len(directory) if directory.endswith("/") or not directory else len(directory) + 1
    rules = rules_of_lines(_lines_of(_global_excludes()), cut=cut)
    if not (here / ".git").exists():
        top = next((parent for parent in here.parents if (parent / ".git").exists()), None)
        if top is not None:
            above = [parent for parent in reversed(here.parents) if parent.is_relative_to(top)]
            for parent in above:
                lines = _lines_of(parent / ".git" / "info" / "exclude") if parent == top else []
                for name in names:
                    lines += _lines_of(parent / name)
                rules = rules_of_lines(lines, rules, cut=cut, prefix=f"{here.relative_to(parent)}/")
    for path in extra:
        rules = rules_of_lines(_lines_of(Path(path).expanduser()), rules, cut=cut)
    return rules


def _global_excludes() -> Path:
    """Return where git keeps what a user ignores everywhere."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "git"
    for config in (Path("~/.gitconfig").expanduser(), settings / "config"):
        for line in _lines_of(config):
            name, equals, value = line.partition("=")
            if equals and name.strip().lower() == "excludesfile":
                return Path(value.strip().strip('"')).expanduser()
    return settings / "ignore"


def _lines_of(path: str | Path) -> list[str]:
    """Return the lines of a file; none of one that is not there or cannot be read."""
    try:
        # A pipe in the place of an ignore file must not hold the search up.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return []
    with os.fdopen(descriptor, "rb") as stream:
        try:
            text = stream.read(MAX_FILE_BYTES).decode("utf-8", "surrogateescape")
        except OSError:
            return []
    return text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")


@lru_cache(maxsize=1024)
def _verdicts_of(lines: tuple[str, ...]) -> tuple[_Verdict, ...]:
    """Return patterns as they are asked: the last line of a file first, neighbours that decide alike as one."""
    rules = [line for line in reversed(lines) if line.strip() and not line.startswith("#")]
    if not rules:
        return ()
    with needing("pathspec", "leaving out what ignore files name"):  # only trees with such files need it
        from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    runs: list[tuple[bool, list[str]]] = []
    for line in rules:
        try:
            pattern = GitIgnoreSpecPattern(_EVERY_DIRECTORY_BELOW.sub("/**/*/", line))
        except (ValueError, re.error):  # git ignores a line that it does not understand, too
            continue
        if pattern.include is None or pattern.regex is None:
            continue
        text = pattern.regex.pattern.replace(_PATH_OR_BELOW, "/?$").replace(_DIRECTORY, "/$")
        if text.endswith("/"):  # `x/**` is what is in x, not x itself
            text += "."
        if not text.startswith("^"):
            text = f".*{text}"
        if runs and runs[-1][0] == pattern.include:
            runs[-1][1].append(text)
        else:
            runs.append((pattern.include, [text]))
    return tuple(_Verdict(ignored, re.compile("|".join(texts), re.DOTALL)) for ignored, texts in runs)
