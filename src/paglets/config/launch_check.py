"""What is wrong with a launch file, all of it, and what it comes to in the end."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from paglets.config.launch_file import (
    LAUNCH_KEYS,
    LAUNCH_TABLE,
    POLICY_TABLE,
    RESIDENT_KEYS,
    RESIDENT_TABLE,
    STARTUP_KEYS,
    STARTUP_TABLE,
    LaunchConfig,
    ResidentServiceConfig,
    StartupAgentConfig,
    read_config,
)
from paglets.config.launch_resolve import resolve_resident_service, resolve_startup_agent
from paglets.config.launch_table import Findings, Problem, unknown_key
from paglets.config.toml_places import Keys, Place, nearest_place, places_in
from paglets.core.allowance import Allowance
from paglets.core.errors import HostError
from paglets.security.policy import ALLOWANCE_KEYS, POLICY_KEYS, Policy

#: Fields that have another name in the file.
_NAMES: Final = {"class_name": "class", "service_name": "service"}
_POSITION: Final = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_FROM_CLASS: Final = frozenset({"agent_id", "service", "lifecycle", "scope", "idle_timeout", "allowance"})


class Origin(StrEnum):
    """Where an effective value comes from."""

    FILE = "file"
    DEFAULT = "default"
    CLASS = "class"
    """From what the paglet class says of itself when it is started."""


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """One value that holds, and why."""

    key: str
    """As it would be written, like `resident_services[1].scope`; entries count from 1."""
    value: Any
    """A plain value; None where nothing is set."""
    origin: Origin
    line: int | None = None
    """Of the file, for values that stand in it."""


@dataclass(frozen=True, slots=True)
class LaunchCheck:
    """What became of a launch file."""

    path: Path
    config: LaunchConfig
    """What could be understood."""
    problems: tuple[Problem, ...]
    places: Mapping[Keys, Place]
    data: Mapping[str, Any]
    """What the file says."""

    def effective(self) -> list[EffectiveValue]:
        """Return every value that holds, in the order of the file's tables."""
        return list(_effective(self))


def check_launch_text(text: str, path: Path, *, resolve: bool = False) -> LaunchCheck:
    """Return what is wrong with the text of a launch file, and what it says.

    Beside what keeps a file from being loaded, entries are wrong that could not be started: without a class, or with an
    alias.

    :param path: where it is from, for errors.
    :param resolve: import the classes as a host would, which runs their code, and compare states and services with
        them.
    """
    findings = Findings(path)
    try:
        data = tomllib.loads(text)
        findings.places = places_in(text)
    except tomllib.TOMLDecodeError as error:
        return LaunchCheck(path, LaunchConfig(path=path), (_syntax_problem(str(error), text),), {}, {})
    except RecursionError:
        return LaunchCheck(path, LaunchConfig(path=path), (Problem("nested too deep"),), {}, {})
    config = read_config(data, findings)
    entries: list[tuple[str, int, StartupAgentConfig | ResidentServiceConfig]] = [
        *((STARTUP_TABLE, number, agent) for number, agent in enumerate(config.startup_agents)),
        *((RESIDENT_TABLE, number, service) for number, service in enumerate(config.resident_services)),
    ]
    wrong = {problem.keys[:2] for problem in findings.problems}
    for table, number, entry in entries:
        if (table, number) not in wrong:
            _check_entry(entry, table, number, findings, resolve=resolve)
    return LaunchCheck(path, config, tuple(findings.in_order()), findings.places, data)


def _syntax_problem(message: str, text: str) -> Problem:
    place = Place(text.count("\n") + 1, 1)
    position = _POSITION.search(message)
    if position is not None:
        message = message[: position.start()]
        if position[1]:
            place = Place(int(position[1]), int(position[2]))
    return Problem(f"no valid TOML: {message}", (), place)


def _check_entry(
    entry: StartupAgentConfig | ResidentServiceConfig, table: str, number: int, findings: Findings, *, resolve: bool
) -> None:
    where = f"[[{table}]] number {number + 1}"
    if entry.use is not None:
        findings.note((table, number, "use"), f'{where}: aliases are gone; name the class: class = "module:Class"')
    elif entry.class_name is None:
        findings.note((table, number), f'{where}: needs a class: class = "module:Class"')
    elif (
        isinstance(entry, ResidentServiceConfig)
        and entry.idle_timeout is not None
        and (entry.idle_timeout < 0 or math.isnan(entry.idle_timeout))
    ):
        findings.note((table, number, "idle_timeout"), f"{where}: 'idle_timeout' must not be negative")
    elif resolve:
        try:
            resolved = (
                resolve_resident_service(entry)
                if isinstance(entry, ResidentServiceConfig)
                else resolve_startup_agent(entry)
            )
        except HostError as error:
            findings.note((table, number, "class"), f"{where}: {error}")
            return
        names = [field.name for field in fields(resolved.state)]
        # A host leaves out what a state does not know; whoever wrote it meant something.
        for key in sorted(entry.state.keys() - set(names)):
            findings.note((table, number, "state", key), f"{where}: 'state': {unknown_key(key, names)}")


# --- what holds -------------------------------------------------------------------------------------------------------


def _effective(check: LaunchCheck) -> Iterator[EffectiveValue]:
    config = check.config
    for key in LAUNCH_KEYS:
        yield _value(check, (LAUNCH_TABLE, key), getattr(config, key))
    yield from _policy(check, config.policy or Policy())
    for number, agent in enumerate(config.startup_agents):
        yield from _entry(check, (STARTUP_TABLE, number), STARTUP_KEYS, agent)
    for number, service in enumerate(config.resident_services):
        yield from _entry(check, (RESIDENT_TABLE, number), RESIDENT_KEYS, service)


def _entry(
    check: LaunchCheck, where: Keys, keys: tuple[str, ...], entry: StartupAgentConfig | ResidentServiceConfig
) -> Iterator[EffectiveValue]:
    values = {_NAMES.get(field.name, field.name): getattr(entry, field.name) for field in fields(entry)}
    for key in keys:
        if key == "allowance" and entry.allowance is not None:
            yield from _allowance(check, (*where, key), entry.allowance)
        elif key != "use" or values[key] is not None:
            yield _value(check, (*where, key), values[key])


def _policy(check: LaunchCheck, policy: Policy) -> Iterator[EffectiveValue]:
    said = check.data.get(POLICY_TABLE)
    values: dict[str, Any] = {
        "allow": None if policy.classes.allow is None else list(policy.classes.allow),
        "hosts": list(policy.hosts) or None,
        "max_paglets": policy.max_paglets,
        "max_paglets_per_key": policy.max_paglets_per_key,
        "max_state_size": policy.max_state_bytes,
        "max_file_size": policy.max_file_bytes,
        "max_hops": policy.max_hops,
    }
    for key in POLICY_KEYS:
        if key in values:
            written = said.get(key) if isinstance(said, dict) else None
            yield _value(check, (POLICY_TABLE, key), values[key] if written is None else written)
    yield from _allowance(check, (POLICY_TABLE, "allowance"), policy.allowance)
    for name, own in policy.keys.items():
        allow = None if own.classes is None else list(own.classes.allow or ())
        yield _value(check, (POLICY_TABLE, "keys", name, "allow"), allow)
        yield _value(check, (POLICY_TABLE, "keys", name, "max_paglets"), own.max_paglets)
        yield from _allowance(check, (POLICY_TABLE, "keys", name, "allowance"), own.allowance)


def _allowance(check: LaunchCheck, where: Keys, most: Allowance) -> Iterator[EffectiveValue]:
    bounds = (most.max_hops, most.max_clones, most.lifetime, most.max_state_bytes)
    for key, bound in zip(ALLOWANCE_KEYS, bounds, strict=True):
        yield _value(check, (*where, key), bound)


def _value(check: LaunchCheck, keys: Keys, value: Any) -> EffectiveValue:
    if keys in check.places:
        place = nearest_place(check.places, keys)
        return EffectiveValue(dotted(keys), value, Origin.FILE, None if place is None else place.line)
    entry_key = keys[-1] if len(keys) == 3 and isinstance(keys[1], int) else None
    from_class = value is None and entry_key in _FROM_CLASS
    return EffectiveValue(dotted(keys), value, Origin.CLASS if from_class else Origin.DEFAULT)


def dotted(keys: Keys) -> str:
    """Return the way to a value as people write it; entries count from 1."""
    text = ""
    for key in keys:
        text += f"[{key + 1}]" if isinstance(key, int) else f".{key}" if text else key
    return text
