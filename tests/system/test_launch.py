"""What a launch configuration says about system services is what their classes understand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paglets.config.startup import bundled_launch_config_text, load_launch_config, resolve_resident_service
from paglets.core.runtime_values import ServiceScope
from paglets.system.mesh_info import MeshInfoAgent
from paglets.system.server_info import ServerInfoAgent
from paglets.system.user_info import UserInfoAgent

PAGE = Path(__file__).resolve().parents[2] / "docs" / "system-services.md"


@pytest.mark.parametrize("agent_cls", [ServerInfoAgent, MeshInfoAgent, UserInfoAgent])
def test_the_bundled_configuration_is_what_the_class_declares(agent_cls: type, tmp_path: Path) -> None:
    path = tmp_path / "launch.toml"
    path.write_text(bundled_launch_config_text())
    entries = load_launch_config(path).resident_services
    (entry,) = [each for each in entries if each.class_name == f"{agent_cls.__module__}:{agent_cls.__name__}"]
    found = resolve_resident_service(entry)
    (spec,) = agent_cls.RESIDENT_SERVICES  # type: ignore[attr-defined]
    assert (found.agent_id, found.lifecycle, found.scope) == (spec.agent_id, spec.lifecycle, spec.scope)
    assert (found.idle_timeout, found.state.service_scope) == (spec.idle_timeout, ServiceScope.MESH)


def test_the_configuration_of_the_page_is_understood(tmp_path: Path) -> None:
    match = re.search(r'```toml title="launch.toml"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    path = tmp_path / "launch.toml"
    path.write_text(match[1])
    (entry,) = load_launch_config(path).resident_services
    state = resolve_resident_service(entry).state
    assert state.webhooks == ["https://chat.example/hooks/paglets"]
    assert (state.log_file, state.desktop) == ("/var/log/paglets/notices.jsonl", False)
