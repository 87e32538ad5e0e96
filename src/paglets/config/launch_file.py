"""What a host starts by itself, as the launch file says it."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from paglets.core.errors import HostError
from paglets.core.runtime_values import EnumT, ResidentLifecycle, ServiceScope, enum_from_wire
from paglets.persistence.directory import validate_agent_id
from paglets.security.policy import Policy, policy_from

DEFAULT_LAUNCH_CONFIG_PATH: Final = Path("~/.paglets/launch.toml").expanduser()

LAUNCH_TABLE: Final = "launch"
POLICY_TABLE: Final = "policy"
LAUNCH_KEYS: Final = ("demo_config_id", "demo_config_version", "sync_demo_config")
STARTUP_TABLE: Final = "startup_agents"
STARTUP_KEYS: Final = ("class", "enabled", "agent_id", "singleton", "state", "init", "use")
RESIDENT_TABLE: Final = "resident_services"
RESIDENT_KEYS: Final = (*STARTUP_KEYS, "service", "lifecycle", "scope", "idle_timeout")
ENTRY_KEYS: Final = {STARTUP_TABLE: STARTUP_KEYS, RESIDENT_TABLE: RESIDENT_KEYS}


@dataclass(frozen=True, slots=True)
class AutoStartSpec:
    """What a paglet class proposes for its own start; its class attribute `AUTO_START`."""

    alias: str
    agent_id: str | None = None
    singleton: bool = True
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartupAgentConfig:
    """One paglet that is started with the host."""

    use: str | None = None
    """An alias of old; nothing resolves it any more."""
    class_name: str | None = None
    """`module:Class` of the paglet."""
    enabled: bool = True
    agent_id: str | None = None
    """Its id; None takes that of the class, or a fresh one."""
    singleton: bool = True
    """Whether a paglet of that id which is there already is kept."""
    state: dict[str, Any] = field(default_factory=dict)
    """Fields of its first state."""
    init: Any = None
    """What `on_creation` is given."""


@dataclass(frozen=True, slots=True)
class ResidentServiceConfig:
    """One service that is kept available; None takes what the class says."""

    use: str | None = None
    """An alias of old; nothing resolves it any more."""
    class_name: str | None = None
    """`module:Class` of the paglet."""
    service_name: str | None = None
    """The contract, when the class offers several."""
    enabled: bool = True
    agent_id: str | None = None
    singleton: bool = True
    lifecycle: ResidentLifecycle | None = None
    scope: ServiceScope | None = None
    idle_timeout: float | None = None
    """Seconds."""
    state: dict[str, Any] = field(default_factory=dict)
    """Fields of its first state."""
    init: Any = None
    """What `on_creation` is given."""


@dataclass(frozen=True, slots=True)
class LaunchConfig:
    """The content of a launch file."""

    path: Path | None = None
    demo_config_id: str | None = None
    """Which bundled file it was copied from."""
    demo_config_version: str | None = None
    """Which version of that."""
    sync_demo_config: bool = True
    """Whether updates are offered."""
    startup_agents: tuple[StartupAgentConfig, ...] = ()
    resident_services: tuple[ResidentServiceConfig, ...] = ()
    policy: Policy | None = None
    """What others may bring; None where the file does not say."""


def load_launch_config(path: Path | str = DEFAULT_LAUNCH_CONFIG_PATH) -> LaunchConfig:
    """Read a launch file; an absent one is an empty configuration.

    :raises HostError: it cannot be read, is no TOML, has an unknown key or a value of the wrong kind; the text has path
        and key.
    """
    file = Path(path).expanduser()
    if not file.exists():
        return LaunchConfig(path=file)
    return launch_config_from(read_toml(file), file)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    :raises HostError: it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HostError(f"Cannot read launch config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HostError(f"Launch config {path} is no valid TOML: {error}") from error


def launch_config_from(data: dict[str, Any], path: Path) -> LaunchConfig:
    """Return the configuration in the content of a launch file.

    :raises HostError: there is an unknown key or a value of the wrong kind.
    """
    top = _Table(data, path, "the file", (LAUNCH_TABLE, POLICY_TABLE, *ENTRY_KEYS))
    header = launch_header_from(data, path, top.entries(STARTUP_TABLE), top.entries(RESIDENT_TABLE))
    if POLICY_TABLE not in data:
        return header

    def wrong(text: str) -> HostError:
        return HostError(f"Launch config {path}: [{POLICY_TABLE}]: {text}")

    return replace(header, policy=policy_from(data[POLICY_TABLE], wrong))


def launch_header_from(
    data: dict[str, Any], path: Path, startup: list[_Table] | None = None, resident: list[_Table] | None = None
) -> LaunchConfig:
    """Return what the `[launch]` table says, with the given entries.

    :raises HostError: it is no table, or has an unknown key or a value of the wrong kind.
    """
    launch = _Table(data.get(LAUNCH_TABLE, {}), path, f"[{LAUNCH_TABLE}]", LAUNCH_KEYS)
    return LaunchConfig(
        path=path,
        demo_config_id=launch.text("demo_config_id"),
        demo_config_version=launch.text("demo_config_version"),
        sync_demo_config=launch.flag("sync_demo_config"),
        startup_agents=tuple(_startup_agent(entry) for entry in startup or ()),
        resident_services=tuple(_resident_service(entry) for entry in resident or ()),
    )


def _startup_agent(entry: _Table) -> StartupAgentConfig:
    return StartupAgentConfig(
        use=entry.text("use"),
        class_name=entry.text("class"),
        enabled=entry.flag("enabled"),
        agent_id=entry.agent_id(),
        singleton=entry.flag("singleton"),
        state=entry.table("state"),
        init=entry.get("init"),
    )


def _resident_service(entry: _Table) -> ResidentServiceConfig:
    return ResidentServiceConfig(
        use=entry.text("use"),
        class_name=entry.text("class"),
        service_name=entry.text("service"),
        enabled=entry.flag("enabled"),
        agent_id=entry.agent_id(),
        singleton=entry.flag("singleton"),
        lifecycle=entry.word("lifecycle", ResidentLifecycle, "resident service lifecycle"),
        scope=entry.word("scope", ServiceScope, "resident service scope"),
        idle_timeout=entry.seconds("idle_timeout"),
        state=entry.table("state"),
        init=entry.get("init"),
    )


class _Table:
    """One table of the file, which names itself in every error."""

    def __init__(self, values: Any, path: Path, where: str, allowed: Collection[str]) -> None:
        self._path = path
        self._where = where
        if not isinstance(values, dict):
            raise self._error("must be a table")
        unknown = sorted(values.keys() - set(allowed))
        if unknown:
            names = ", ".join(repr(name) for name in unknown)
            raise self._error(f"unknown key {names}; allowed are {', '.join(allowed)}")
        self._values: dict[str, Any] = values

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise self._error(f"{key!r} must be a text that is not empty")
        return value

    def flag(self, key: str) -> bool:
        value = self._values.get(key, True)
        if not isinstance(value, bool):
            raise self._error(f"{key!r} must be true or false")
        return value

    def seconds(self, key: str) -> float | None:
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._error(f"{key!r} must be a number of seconds")
        return float(value)

    def table(self, key: str) -> dict[str, Any]:
        value = self._values.get(key, {})
        if not isinstance(value, dict):
            raise self._error(f"{key!r} must be a table")
        return value

    def word(self, key: str, enum_cls: type[EnumT], what: str) -> EnumT | None:
        value = self._values.get(key)
        try:
            return None if value is None else enum_from_wire(value, enum_cls, what)
        except (TypeError, ValueError) as error:
            raise self._error(str(error)) from error

    def agent_id(self) -> str | None:
        value = self.text("agent_id")
        try:
            return None if value is None else validate_agent_id(value)
        except HostError as error:
            raise self._error(str(error)) from error

    def entries(self, key: str) -> list[_Table]:
        value = self._values.get(key, [])
        if not isinstance(value, list):
            raise self._error(f"{key!r} must be a list of tables: [[{key}]]")
        return [
            _Table(entry, self._path, f"[[{key}]] number {number}", ENTRY_KEYS[key])
            for number, entry in enumerate(value, start=1)
        ]

    def _error(self, text: str) -> HostError:
        return HostError(f"Launch config {self._path}: {self._where}: {text}")
