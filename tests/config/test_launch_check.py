from __future__ import annotations

from pathlib import Path

import pytest

from paglets.config.launch_check import EffectiveValue, Origin, check_launch_text
from paglets.config.launch_file import load_launch_config
from paglets.config.startup import bundled_launch_config_text
from paglets.core.errors import HostError

PATH = Path("/etc/launch.toml")
WRONG = """\
[lanch]
[launch]
sync_demo_config = "no"

[[startup_agents]]
class = "tests.agents.keeper:Keeper"
enabeld = true
agent_id = "../x"

[[startup_agents]]
use = "old"

[[resident_services]]
lifecycle = "hasty"
scope = 3

[[resident_services]]
class = "x:Y"
idle_timeout = -1

[[resident_services]]

[policy]
max_hops = -1
alow = []
[policy.keys.laptop]
max_state_size = 3
"""


def problems(text: str, **options: bool) -> list[tuple[int | None, str]]:
    found = check_launch_text(text, PATH, **options).problems
    return [(problem.place and problem.place.line, problem.text) for problem in found]


def test_everything_that_is_wrong_is_told_at_once_with_its_line() -> None:
    found = problems(WRONG)
    assert [line for line, _ in found] == [1, 3, 7, 8, 11, 14, 15, 19, 21, 24, 25, 27]
    texts = dict(found)
    assert texts[1].startswith("the file: unknown key 'lanch'; allowed are launch, policy")
    assert texts[1].endswith("did you mean 'launch'?")
    assert texts[3] == "[launch]: 'sync_demo_config' must be true or false"
    assert "did you mean 'enabled'?" in texts[7]
    assert texts[14].endswith("resident service lifecycle must be one of: lazy, eager")
    assert texts[11].startswith("[[startup_agents]] number 2: aliases are gone")
    assert "needs a class" in texts[21]
    assert "'max_hops' must be a whole number" in texts[24]
    assert texts[27].startswith("[policy]: keys.laptop: unknown key 'max_state_size'")


@pytest.mark.parametrize(("text", "line"), [("[launch", 1), ("a = 1\nb = \n", 2), ("a = 1\nb = [\n\n", 4)])
def test_what_is_no_toml_has_its_line(text: str, line: int) -> None:
    ((found, words),) = problems(text)
    assert (found, words.startswith("no valid TOML: ")) == (line, True)


def test_a_host_names_the_line_too(tmp_path: Path) -> None:
    path = tmp_path / "launch.toml"
    path.write_text(WRONG)
    with pytest.raises(HostError) as caught:
        load_launch_config(path)
    assert str(caught.value).startswith(f"Launch config {path}, line 1: the file: unknown key 'lanch'")
    assert "(and 8 more: see paglets config check)" in str(caught.value)


def test_classes_are_imported_only_when_asked_for() -> None:
    text = "[[startup_agents]]\nclass = 'nothing.of.that:Name'\n\n"
    text += "[[startup_agents]]\nclass = 'tests.agents.keeper:Keeper'\nstate = {refuze = true}\n"
    assert problems(text) == []
    found = problems(text, resolve=True)
    assert [line for line, _ in found] == [2, 6]
    assert found[1][1].endswith("did you mean 'refuse'?")
    assert "Cannot load startup agent" in found[0][1]


def test_the_bundled_file_is_right_and_says_where_its_values_come_from() -> None:
    check = check_launch_text(bundled_launch_config_text(), PATH)
    assert check.problems == ()
    values = {value.key: value for value in check.effective()}
    line = 1 + bundled_launch_config_text().splitlines().index('agent_id = "service.mesh-info"')
    assert values["resident_services[2].agent_id"] == EffectiveValue(
        "resident_services[2].agent_id", "service.mesh-info", Origin.FILE, line
    )
    assert values["resident_services[2].service"] == EffectiveValue("resident_services[2].service", None, Origin.CLASS)
    assert values["policy.max_hops"] == EffectiveValue("policy.max_hops", None, Origin.DEFAULT)
    assert values["launch.sync_demo_config"].value is True


def test_effective_values_of_a_policy() -> None:
    text = "[policy]\nmax_state_size = '64M'\n[policy.keys.laptop]\nmax_paglets = 3\n[[startup_agents]]\nclass='a:B'\n"
    values = {value.key: (value.value, value.origin, value.line) for value in check_launch_text(text, PATH).effective()}
    assert values["policy.max_state_size"] == ("64M", Origin.FILE, 2)
    assert values["policy.keys.laptop.max_paglets"] == (3, Origin.FILE, 4)
    assert values["policy.keys.laptop.allow"] == (None, Origin.DEFAULT, None)
    assert values["startup_agents[1].singleton"] == (True, Origin.DEFAULT, None)
    assert values["startup_agents[1].agent_id"] == (None, Origin.CLASS, None)


def test_effective_values_of_allowances() -> None:
    text = """\
[policy.keys.laptop.allowance]
max_hops = 3
[[startup_agents]]
class = "a:B"
allowance = { lifetime = "2h" }
[[startup_agents]]
class = "a:C"
[[resident_services]]
class = "a:D"
[resident_services.allowance]
max_state_size = "1K"
"""
    values = {value.key: (value.value, value.origin, value.line) for value in check_launch_text(text, PATH).effective()}
    assert values["policy.keys.laptop.allowance.max_hops"] == (3, Origin.FILE, 2)
    assert values["policy.keys.laptop.allowance.max_clones"] == (None, Origin.DEFAULT, None)
    assert values["startup_agents[1].allowance.lifetime"] == (7200.0, Origin.FILE, 5)
    assert values["startup_agents[1].allowance.max_hops"] == (None, Origin.DEFAULT, None)
    assert values["startup_agents[2].allowance"] == (None, Origin.CLASS, None)
    assert values["resident_services[1].allowance.max_state_size"] == (1024, Origin.FILE, 11)
