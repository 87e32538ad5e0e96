"""What a host starts by itself, as the launch file says it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from paglets.config.launch_table import Findings, Table
from paglets.config.toml_places import Keys, Place, places_in
from paglets.core.allowance import Allowance
from paglets.core.errors import HostError
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.security.policy import Policy, read_policy

DEFAULT_LAUNCH_CONFIG_PATH: Final = Path("~/.paglets/launch.toml").expanduser()

LAUNCH_TABLE: Final = "launch"
POLICY_TABLE: Final = "policy"
LAUNCH_KEYS: Final = ("demo_config_id", "demo_config_version", "sync_demo_config")
STARTUP_TABLE: Final = "startup_agents"
STARTUP_KEYS: Final = ("class", "enabled", "agent_id", "singleton", "state", "init", "allowance", "use")
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
    allowance: Allowance | None = None
    """What it may use up; None takes what the class says."""


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
    allowance: Allowance | None = None
    """What it may use up; None takes what the class says."""


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

    :raises HostError: it cannot be read, is no TOML, has an unknown key or a value of the wrong kind; the text has
        path, line and key.
    """
    file = Path(path).expanduser()
    if not file.exists():
        return LaunchConfig(path=file)
    text = read_text(file)
    return launch_config_from(parse_toml(text, file), file, places_in(text))


def read_text(path: Path) -> str:
    """Return the text of a launch file.

    :raises HostError: it cannot be read, or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise HostError(f"Cannot read launch config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise HostError(f"Launch config {path} is no valid TOML: {error}") from error


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Return the content of a TOML text.

    :param path: where it is from, for the error.
    :raises HostError: it is no TOML; the text says at which line.
    """
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise HostError(f"Launch config {path} is no valid TOML: {error}") from error


def launch_config_from(data: dict[str, Any], path: Path, places: Mapping[Keys, Place] | None = None) -> LaunchConfig:
    """Return the configuration in the content of a launch file.

    :param places: where in the file its keys are, for the error.
    :raises HostError: there is an unknown key or a value of the wrong kind.
    """
    findings = Findings(path, places or {})
    config = read_config(data, findings)
    findings.raise_first()
    return config


def launch_header_from(data: dict[str, Any], path: Path, places: Mapping[Keys, Place] | None = None) -> LaunchConfig:
    """Return what the `[launch]` table says, and nothing of the others.

    :raises HostError: it is no table, or has an unknown key or a value of the wrong kind.
    """
    findings = Findings(path, places or {})
    header = _header(data, findings)
    findings.raise_first()
    return header


def read_config(data: dict[str, Any], findings: Findings) -> LaunchConfig:
    """Return the configuration in the content of a launch file, with what is wrong noted and left out."""
    top = Table(data, findings, (), "the file", (LAUNCH_TABLE, POLICY_TABLE, *ENTRY_KEYS))
    config = replace(
        _header(data, findings),
        startup_agents=tuple(_startup_agent(entry) for entry in top.entries(STARTUP_TABLE, STARTUP_KEYS)),
        resident_services=tuple(_resident_service(entry) for entry in top.entries(RESIDENT_TABLE, RESIDENT_KEYS)),
    )
    if POLICY_TABLE not in data:
        return config

    def wrong(keys: tuple[str, ...], text: str) -> None:
        findings.note((POLICY_TABLE, *keys), f"[{POLICY_TABLE}]: {text}")

    return replace(config, policy=read_policy(data[POLICY_TABLE], wrong))


def _header(data: dict[str, Any], findings: Findings) -> LaunchConfig:
    launch = Table(data.get(LAUNCH_TABLE, {}), findings, (LAUNCH_TABLE,), f"[{LAUNCH_TABLE}]", LAUNCH_KEYS)
    return LaunchConfig(
        path=findings.path,
        demo_config_id=launch.text("demo_config_id"),
        demo_config_version=launch.text("demo_config_version"),
        sync_demo_config=launch.flag("sync_demo_config"),
    )


def _startup_agent(entry: Table) -> StartupAgentConfig:
    return StartupAgentConfig(
        use=entry.text("use"),
        class_name=entry.text("class"),
        enabled=entry.flag("enabled"),
        agent_id=entry.agent_id(),
        singleton=entry.flag("singleton"),
        state=entry.table("state"),
        init=entry.get("init"),
        allowance=entry.allowance(),
    )


def _resident_service(entry: Table) -> ResidentServiceConfig:
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
        allowance=entry.allowance(),
    )
