"""The tables of a launch file, read with every mistake noted where it stands."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.config.toml_places import Keys, Place, nearest_place
from paglets.core.allowance import Allowance
from paglets.core.errors import HostError
from paglets.core.runtime_values import EnumT, enum_from_wire
from paglets.persistence.directory import validate_agent_id
from paglets.security.policy import read_allowance


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a launch file."""

    text: str
    """What is wrong, and what is allowed."""
    keys: Keys = ()
    """The way to it."""
    place: Place | None = None
    """Where it stands, None where that cannot be told."""


@dataclass(slots=True)
class Findings:
    """What is wrong with one launch file.

    :param places: where its keys are; without them problems have no line.
    """

    path: Path
    places: Mapping[Keys, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def note(self, keys: Keys, text: str) -> None:
        """Note a mistake."""
        self.problems.append(Problem(text, keys, nearest_place(self.places, keys)))

    def in_order(self) -> list[Problem]:
        """Return the problems from the top of the file to its end."""
        return sorted(self.problems, key=_position)

    def raise_first(self) -> None:
        """Raise what is wrong, if anything is.

        :raises HostError: with path, line and text of the first problem, and how many others there are.
        """
        if not self.problems:
            return
        first, *others = self.in_order()
        where = "" if first.place is None else f", line {first.place.line}"
        more = f" (and {len(others)} more: see paglets config check)" if others else ""
        raise HostError(f"Launch config {self.path}{where}: {first.text}{more}")


class Table:
    """One table of the file. What is wrong with a value is noted, and the value is taken as absent.

    :param where: how errors call it.
    """

    def __init__(self, values: Any, findings: Findings, keys: Keys, where: str, allowed: Collection[str]) -> None:
        self._findings = findings
        self._keys = keys
        self._where = where
        self._values: dict[str, Any] = {}
        if not isinstance(values, dict):
            findings.note(keys, f"{where}: must be a table")
            return
        self._values = values
        for name in values.keys() - set(allowed):
            self.wrong(name, unknown_key(name, allowed))

    def get(self, key: str) -> Any:
        """Return a value as it is, None for none."""
        return self._values.get(key)

    def text(self, key: str) -> str | None:
        """Return a text that is not empty, None for none."""
        value = self._values.get(key)
        if value is None or (isinstance(value, str) and value.strip()):
            return value
        self.wrong(key, f"{key!r} must be a text that is not empty")
        return None

    def flag(self, key: str) -> bool:
        """Return true or false, true for none."""
        value = self._values.get(key, True)
        if not isinstance(value, bool):
            self.wrong(key, f"{key!r} must be true or false")
            return True
        return value

    def seconds(self, key: str) -> float | None:
        """Return a number, None for none."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.wrong(key, f"{key!r} must be a number of seconds")
            return None
        return float(value)

    def table(self, key: str) -> dict[str, Any]:
        """Return an inner table as it is, an empty one for none."""
        value = self._values.get(key, {})
        if not isinstance(value, dict):
            self.wrong(key, f"{key!r} must be a table")
            return {}
        return value

    def allowance(self) -> Allowance | None:
        """Return what an inner table gives to use up, None for none."""
        if "allowance" not in self._values:
            return None

        def wrong(keys: Keys, text: str) -> None:
            self._findings.note((*self._keys, *keys), f"{self._where}: {text}")

        return read_allowance(self._values["allowance"], ("allowance",), wrong)

    def word(self, key: str, enum_cls: type[EnumT], what: str) -> EnumT | None:
        """Return a member of an enumeration, None for none."""
        value = self._values.get(key)
        try:
            return None if value is None else enum_from_wire(value, enum_cls, what)
        except (TypeError, ValueError) as error:
            self.wrong(key, str(error))
            return None

    def agent_id(self) -> str | None:
        """Return an id that can be one, None for none."""
        value = self.text("agent_id")
        try:
            return None if value is None else validate_agent_id(value)
        except HostError as error:
            self.wrong("agent_id", str(error))
            return None

    def entries(self, key: str, allowed: Collection[str]) -> list[Table]:
        """Return the tables of a list of tables."""
        value = self._values.get(key, [])
        if not isinstance(value, list):
            self._findings.note((*self._keys, key), f"{self._where}: {key!r} must be a list of tables: [[{key}]]")
            return []
        return [
            Table(entry, self._findings, (*self._keys, key, number), f"[[{key}]] number {number + 1}", allowed)
            for number, entry in enumerate(value)
        ]

    def wrong(self, key: str, text: str) -> None:
        """Note what is wrong with a key of this table."""
        self._findings.note((*self._keys, key), f"{self._where}: {text}")


def unknown_key(name: str, allowed: Collection[str]) -> str:
    """Return the text about a key that does not exist."""
    close = difflib.get_close_matches(name, allowed, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown key {name!r}; allowed are {', '.join(allowed)}{meant}"


def _position(problem: Problem) -> tuple[bool, int, int]:
    place = problem.place
    return (True, 0, 0) if place is None else (False, place.line, place.column)
