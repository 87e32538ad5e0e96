from __future__ import annotations

import io
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest

from paglets.config import startup
from paglets.config.launch_merge import merged_launch_text
from paglets.config.startup import (
    LaunchConfigSyncResult,
    bundled_launch_config_text,
    load_launch_config,
    sync_launch_config,
)
from paglets.core.errors import HostError
from paglets.core.runtime_values import LaunchConfigSyncAction, ResidentLifecycle, ServiceScope

OLD = """
[launch]
demo_config_id = "paglets-default-launch"
demo_config_version = "4"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "launch.toml"


@pytest.fixture
def old(path: Path) -> Path:
    path.parent.mkdir()
    path.write_text(OLD)
    return path


def never(prompt: str) -> str:
    raise AssertionError("nobody may be asked")


def actions(*results: LaunchConfigSyncResult) -> list[str]:
    return [result.action.value for result in results]


def test_the_bundled_file(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(bundled_launch_config_text())
    config = load_launch_config(path)
    assert startup.DEFAULT_DEMO_CONFIG_ID == "paglets-default-launch"
    assert (config.demo_config_id, config.demo_config_version) == ("paglets-default-launch", "5")
    assert config.sync_demo_config
    assert config.startup_agents == ()
    lazy, eager = ResidentLifecycle.LAZY, ResidentLifecycle.EAGER
    assert [
        (service.class_name, service.agent_id, service.lifecycle, service.idle_timeout)
        for service in config.resident_services
    ] == [
        ("paglets.system.server_info.agent:ServerInfoAgent", "service.server-info", lazy, 30.0),
        ("paglets.system.mesh_info.agent:MeshInfoAgent", "service.mesh-info", eager, 0.0),
        ("paglets.system.compute_slots.agent:ComputeSlotsAgent", "service.compute-slots", eager, 0.0),
        ("paglets.system.user_info.agent:UserInfoAgent", "service.user-info", lazy, 30.0),
    ]
    for service in config.resident_services:
        assert (service.enabled, service.singleton, service.scope) == (True, True, ServiceScope.MESH)
        assert service.state == {"service_scope": "mesh"}


def test_result_wants_an_enum_member(path: Path) -> None:
    with pytest.raises(TypeError, match="action"):
        LaunchConfigSyncResult(cast("Any", "copied"), path, "text")


def test_switched_off(path: Path) -> None:
    result = sync_launch_config(path, enabled=False, yes=True, input_func=never)
    assert (result.action, result.backup_path) == (LaunchConfigSyncAction.SKIPPED, None)
    assert not path.parent.exists()


def test_the_first_sync_copies(path: Path) -> None:
    result = sync_launch_config(str(path), interactive=True, input_func=never)
    assert (result.action, result.path, result.backup_path) == (LaunchConfigSyncAction.COPIED, path, None)
    assert str(path) in result.message
    assert path.read_text(encoding="utf-8") == bundled_launch_config_text()
    again = sync_launch_config(path, yes=True, input_func=never)
    assert again.action is LaunchConfigSyncAction.UNCHANGED
    assert [found.name for found in path.parent.iterdir()] == ["launch.toml"]


def test_a_file_that_does_not_want_updates(old: Path) -> None:
    text = OLD + "sync_demo_config = false\n"
    old.write_text(text)
    result = sync_launch_config(old, yes=True, input_func=never)
    assert result.action is LaunchConfigSyncAction.SKIPPED
    assert old.read_text() == text


def test_an_accepted_update(old: Path) -> None:
    old.chmod(0o640)
    result = sync_launch_config(old, yes=True, input_func=never)
    assert result.action is LaunchConfigSyncAction.UPDATED
    assert result.backup_path == old.with_name("launch.toml.old")
    assert result.backup_path.read_text() == OLD
    assert old.read_text(encoding="utf-8") == bundled_launch_config_text()
    assert load_launch_config(old).demo_config_version == "5"
    assert old.stat().st_mode & 0o777 == 0o640


def test_backups_do_not_replace_each_other(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "20260102-030405")
    names = []
    for number in range(3):
        old.write_text(f"{OLD}# {number}\n")
        backup = sync_launch_config(old, yes=True).backup_path
        assert backup is not None
        assert backup.read_text().endswith(f"# {number}\n")
        names.append(backup.name)
    assert names == [
        "launch.toml.old",
        "launch.toml.old-20260102-030405",
        "launch.toml.old-20260102-030405-2",
    ]


def test_nobody_to_ask(old: Path) -> None:
    output = io.StringIO()
    result = sync_launch_config(old, interactive=False, input_func=never, output=output)
    assert result.action is LaunchConfigSyncAction.UPDATE_AVAILABLE
    assert old.read_text() == OLD
    (line,) = output.getvalue().splitlines()
    for part in ("bundled launch config", "--yes", "--no-sync-launch-config", str(old)):
        assert part in line


def test_the_warning_goes_to_standard_error(
    old: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    sync_launch_config(old, input_func=never)
    captured = capsys.readouterr()
    assert "bundled launch config" in captured.err
    assert captured.out == ""


def test_a_terminal_is_asked(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert actions(sync_launch_config(old, input_func=lambda prompt: "no")) == ["skipped"]
    monkeypatch.setattr(sys, "stdin", None)
    assert actions(sync_launch_config(old, input_func=never, output=io.StringIO())) == ["update-available"]


@pytest.mark.parametrize("answer", ["y", "YES", " Yes "])
def test_a_yes(old: Path, answer: str) -> None:
    prompts: list[str] = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return answer

    assert actions(sync_launch_config(old, interactive=True, input_func=ask)) == ["updated"]
    assert len(prompts) == 1


@pytest.mark.parametrize("answer", ["", "n", "yessir"])
def test_anything_else_is_a_no(old: Path, answer: str) -> None:
    assert actions(sync_launch_config(old, interactive=True, input_func=lambda _: answer)) == ["skipped"]
    assert old.read_text() == OLD


def test_no_answer_is_a_no(old: Path) -> None:
    def end(prompt: str) -> str:
        raise EOFError

    assert actions(sync_launch_config(old, interactive=True, input_func=end)) == ["skipped"]


def test_a_broken_file_is_not_replaced(old: Path) -> None:
    old.write_text("broken [")
    with pytest.raises(HostError, match="no valid TOML"):
        sync_launch_config(old, yes=True)
    assert old.read_text() == "broken ["


def test_an_update_through_a_symbolic_link(old: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(old)
    sync_launch_config(link, yes=True)
    assert link.is_symlink()
    assert load_launch_config(old).demo_config_version == "5"


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="Cannot write launch config"):
        sync_launch_config(tmp_path / "file" / "launch.toml")


# keeping what the owner did


def merged(previous: str) -> dict[str, Any]:
    return tomllib.loads(merged_launch_text(bundled_launch_config_text(), tomllib.loads(previous)))


def test_own_entries_are_kept() -> None:
    result = merged(
        """
        [[startup_agents]]
        class = "mine:Agent"
        state = { "odd key" = [1, "two"] }
        unknown = 1

        [[startup_agents]]
        use = "demo"

        [[resident_services]]
        class = "mine:Service"
        service = "one"
        idle_timeout = 2.5
        """
    )
    assert result["startup_agents"] == [{"class": "mine:Agent", "state": {"odd key": [1, "two"]}}]
    assert len(result["resident_services"]) == 5
    assert result["resident_services"][4] == {"class": "mine:Service", "service": "one", "idle_timeout": 2.5}
    assert result["launch"]["demo_config_version"] == "5"


def test_a_service_that_was_switched_off_stays_off() -> None:
    result = merged(
        """
        [[resident_services]]
        class = "paglets.system.mesh_info.agent:MeshInfoAgent"
        enabled = false
        lifecycle = "lazy"
        init = { x = 1 }
        """
    )
    assert [service["enabled"] for service in result["resident_services"]] == [True, False, True, True]
    mesh_info = result["resident_services"][1]
    assert (mesh_info["lifecycle"], mesh_info["init"]) == ("eager", {"x": 1})


@pytest.mark.parametrize("previous", ["", "startup_agents = 3", "resident_services = [1]", "[launch]\nx = 1"])
def test_nothing_to_keep(previous: str) -> None:
    assert merged_launch_text(bundled_launch_config_text(), tomllib.loads(previous)) == bundled_launch_config_text()


def test_kept_entries_are_written_to_the_file(old: Path) -> None:
    old.write_text(OLD + '[[startup_agents]]\nclass = "mine:Agent"\n')
    sync_launch_config(old, yes=True)
    assert [agent.class_name for agent in load_launch_config(old).startup_agents] == ["mine:Agent"]
    assert "# Kept from the previous file." in old.read_text()


def test_what_is_wrong_is_not_kept(old: Path) -> None:
    old.write_text(OLD + '[[startup_agents]]\nclass = "mine:Agent"\nstate = 3\n')
    sync_launch_config(old, yes=True)
    assert old.read_text() == bundled_launch_config_text()
