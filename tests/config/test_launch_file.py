from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.config.startup import (
    DEFAULT_LAUNCH_CONFIG_PATH,
    LaunchConfig,
    ResidentServiceConfig,
    StartupAgentConfig,
    load_launch_config,
)
from paglets.config.toml_text import toml_value
from paglets.core.errors import HostError
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope

FULL = """
[launch]
demo_config_id = "mine"
demo_config_version = "7"
sync_demo_config = false

[[startup_agents]]
class = "pkg.mod:Agent"
enabled = false
agent_id = "one"
singleton = false
state = { a = 1, b = { c = [1, 2] } }
init = ["x", 2]

[[startup_agents]]
use = "old"

[[resident_services]]
class = "pkg.mod:Service"
service = "pkg.service"
agent_id = "service.one"
lifecycle = "eager"
scope = "mesh"
idle_timeout = 5
state = { n = 1 }
init = 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "launch.toml"


def test_the_default_path() -> None:
    assert Path.home() / ".paglets" / "launch.toml" == DEFAULT_LAUNCH_CONFIG_PATH


def test_an_absent_file_is_empty(path: Path) -> None:
    assert load_launch_config(path) == LaunchConfig(path=path)
    assert load_launch_config(str(path)).sync_demo_config is True


def test_an_empty_file_is_empty(path: Path) -> None:
    path.write_text("")
    assert load_launch_config(path) == LaunchConfig(path=path)


def test_a_full_file(path: Path) -> None:
    path.write_text(FULL)
    assert load_launch_config(path) == LaunchConfig(
        path=path,
        demo_config_id="mine",
        demo_config_version="7",
        sync_demo_config=False,
        startup_agents=(
            StartupAgentConfig(
                class_name="pkg.mod:Agent",
                enabled=False,
                agent_id="one",
                singleton=False,
                state={"a": 1, "b": {"c": [1, 2]}},
                init=["x", 2],
            ),
            StartupAgentConfig(use="old"),
        ),
        resident_services=(
            ResidentServiceConfig(
                class_name="pkg.mod:Service",
                service_name="pkg.service",
                agent_id="service.one",
                lifecycle=ResidentLifecycle.EAGER,
                scope=ServiceScope.MESH,
                idle_timeout=5.0,
                state={"n": 1},
                init=3,
            ),
        ),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no toml at all", "no valid TOML"),
        ("launch = 3", r"\[launch\]: must be a table"),
        ("startup_agents = 3", "'startup_agents' must be a list"),
        ("[startup_agents]", "'startup_agents' must be a list"),
        ("startup_agents = [3]", r"\[\[startup_agents\]\] number 1: must be a table"),
        ("[[resident_services]]\nstate = 3", r"\[\[resident_services\]\] number 1: 'state' must be a table"),
        ("[[resident_services]]\nclass = ''", "'class' must be a text"),
        ("[[startup_agents]]\nenabled = 'yes'", "'enabled' must be true or false"),
        ("[[startup_agents]]\n[[startup_agents]]\nsingleton = 1", "number 2: 'singleton' must be"),
        ("[[startup_agents]]\nagent_id = '../x'", "Invalid agent id"),
        ("[[resident_services]]\nidle_timeout = 'long'", "'idle_timeout' must be a number"),
        ("[[resident_services]]\nidle_timeout = true", "'idle_timeout' must be a number"),
        ("[[resident_services]]\nlifecycle = 'hasty'", "resident service lifecycle must be one of: lazy, eager"),
        ("[[resident_services]]\nlifecycle = 3", "resident service lifecycle must be a string"),
        ("[[resident_services]]\nscope = 'galaxy'", "resident service scope must be one of: local, mesh"),
        ("[[startup_agents]]\nallowance = 3", "number 1: allowance: must be a table with max_hops, max_clones"),
        (
            "[[startup_agents]]\nallowance = { hops = 3 }",
            "number 1: allowance: unknown key 'hops'; allowed are max_hops",
        ),
        ("[[resident_services]]\n[resident_services.allowance]\nlifetime = 'x'", "line 3: .*'lifetime' must be a time"),
        ("[launch]\nsync_demo_config = 0", "'sync_demo_config' must be true or false"),
        ("[launch]\ndemo_config_version = 5", "'demo_config_version' must be a text"),
        ("[lunch]", "the file: unknown key 'lunch'; allowed are launch, policy, startup_agents, resident_services"),
        ("[launch]\nsync = false", r"\[launch\]: unknown key 'sync'; allowed are demo_config_id"),
        ("[[startup_agents]]\nscope = 'mesh'", "unknown key 'scope'; allowed are class, enabled"),
        ("[[resident_services]]\nidle_timout = 3", "unknown key 'idle_timout'; allowed are .*idle_timeout"),
    ],
)
def test_mistakes_are_named_with_their_place(path: Path, text: str, expected: str) -> None:
    path.write_text(text)
    with pytest.raises(HostError, match=expected) as caught:
        load_launch_config(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read(path: Path) -> None:
    path.mkdir()
    with pytest.raises(HostError, match="Cannot read launch config"):
        load_launch_config(path)


def test_a_file_in_another_encoding(path: Path) -> None:
    path.write_bytes(b'x = "\xff"')
    with pytest.raises(HostError, match="no valid TOML"):
        load_launch_config(path)


TOML_VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.datetimes()
    | st.dates()
    | st.times(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


@given(TOML_VALUES)
def test_toml_values_come_back(value: object) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}") == {"x": value}


def test_toml_lacks_null() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        toml_value([None])
