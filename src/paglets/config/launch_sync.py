"""Bringing the launch file of a user up to the bundled one."""

from __future__ import annotations

import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TextIO

from paglets.config.launch_file import (
    DEFAULT_LAUNCH_CONFIG_PATH,
    LaunchConfig,
    launch_config_from,
    launch_header_from,
    parse_toml,
    read_text,
)
from paglets.config.launch_merge import merged_launch_text
from paglets.config.toml_places import places_in
from paglets.core.errors import HostError
from paglets.core.runtime_values import LaunchConfigSyncAction, require_enum
from paglets.persistence.atomic import make_directories, write_bytes

DEFAULT_DEMO_CONFIG_ID: Final = "paglets-default-launch"


@dataclass(frozen=True, slots=True)
class LaunchConfigSyncResult:
    """What became of a launch file.

    :raises TypeError: `action` is not a `LaunchConfigSyncAction` member.
    """

    action: LaunchConfigSyncAction
    path: Path
    message: str
    """For people."""
    backup_path: Path | None = None
    """Where the previous file is, when it was updated."""

    def __post_init__(self) -> None:
        require_enum(self.action, LaunchConfigSyncAction, "action")


def bundled_launch_config_text() -> str:
    """Return the launch file that comes with this package."""
    return (resources.files("paglets.config") / "defaults" / "launch.toml").read_text(encoding="utf-8")


def sync_launch_config(
    path: Path | str = DEFAULT_LAUNCH_CONFIG_PATH,
    *,
    enabled: bool = True,
    yes: bool = False,
    interactive: bool | None = None,
    input_func: Callable[[str], str] = input,
    output: TextIO | None = None,
) -> LaunchConfigSyncResult:
    """Copy the bundled launch file where there is none, and update an older one when the user agrees.

    At any time the file is the old or the complete new one. An update keeps the previous file beside it, and what
    `launch_merge` keeps of it.

    :param enabled: False does nothing.
    :param yes: agree without being asked.
    :param interactive: whether somebody can be asked; None finds out from standard input.
    :param output: where a line about an update goes when nobody can be asked; None is standard error.
    :raises HostError: the file cannot be read or written, or is no valid TOML.
    """
    file = Path(path).expanduser()
    if not enabled:
        return _result(LaunchConfigSyncAction.SKIPPED, file, "launch config sync is off")
    text = bundled_launch_config_text()
    bundled = launch_config_from(tomllib.loads(text), file)
    if not file.exists():
        write_launch_text(file, text)
        return _result(LaunchConfigSyncAction.COPIED, file, f"copied the bundled launch config to {file}")

    old_text = read_text(file)
    previous = parse_toml(old_text, file)
    present = launch_header_from(previous, file, places_in(old_text))
    if not present.sync_demo_config:
        return _result(LaunchConfigSyncAction.SKIPPED, file, f"{file} says sync_demo_config = false")
    if _version(present) == _version(bundled):
        return _result(LaunchConfigSyncAction.UNCHANGED, file, f"{file} is up to date")

    offer = (
        f"launch config {file} ({_described(present)}) differs from the bundled launch config ({_described(bundled)})"
    )
    if not yes and not _can_ask(interactive):
        message = f"{offer}; update it with --yes, or silence this with --no-sync-launch-config"
        (sys.stderr if output is None else output).write(f"WARNING: {message}\n")
        return _result(LaunchConfigSyncAction.UPDATE_AVAILABLE, file, message)
    if not yes and not _agrees(f"The {offer}. Update it? [y/N] ", input_func):
        return _result(LaunchConfigSyncAction.SKIPPED, file, f"kept {file} as it is")
    backup = _back_up(file)
    write_launch_text(file, _updated_text(text, previous, file))
    message = f"updated {file} to the bundled launch config ({_described(bundled)}); the previous file is {backup}"
    return _result(LaunchConfigSyncAction.UPDATED, file, message, backup)


def _result(
    action: LaunchConfigSyncAction, path: Path, message: str, backup: Path | None = None
) -> LaunchConfigSyncResult:
    return LaunchConfigSyncResult(action=action, path=path, message=message, backup_path=backup)


def _version(config: LaunchConfig) -> tuple[str | None, str | None]:
    return config.demo_config_id, config.demo_config_version


def _described(config: LaunchConfig) -> str:
    return f"{config.demo_config_id or 'no id'} version {config.demo_config_version or 'unknown'}"


def _can_ask(interactive: bool | None) -> bool:
    if interactive is not None:
        return interactive
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):  # no standard input, or a closed one
        return False


def _agrees(prompt: str, input_func: Callable[[str], str]) -> bool:
    try:
        return input_func(prompt).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _updated_text(bundled: str, previous: dict[str, Any], path: Path) -> str:
    merged = merged_launch_text(bundled, previous)
    try:
        launch_config_from(tomllib.loads(merged), path)
    except (HostError, tomllib.TOMLDecodeError):
        # What was kept is wrong in itself. The backup has it; the update shall give a file that works.
        return bundled
    return merged


def _back_up(path: Path) -> Path:
    backup = path.with_name(f"{path.name}.old")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    counter = 1
    while backup.exists():
        suffix = "" if counter == 1 else f"-{counter}"
        backup = path.with_name(f"{path.name}.old-{stamp}{suffix}")
        counter += 1
    # Copied, not renamed: there is a launch file at any time.
    with _writing(backup):
        write_bytes(backup, path.read_bytes())
        shutil.copystat(path, backup)
    return backup


def write_launch_text(path: Path, text: str) -> None:
    """Replace a launch file, or what a link in its place points to; at any time it is the old or the new one.

    :raises HostError: it cannot be written.
    """
    with _writing(path):
        target = path.resolve() if path.is_symlink() else path
        make_directories(target.parent)
        write_bytes(target, text.encode())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(f"Cannot write launch config {path}: {error.strerror}") from error
