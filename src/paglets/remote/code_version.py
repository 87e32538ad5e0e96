"""Which code this process runs, as the mesh compares it."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import paglets

CODE_VERSION_ENV = "PAGLETS_MESH_VERSION"
_GIT_TIMEOUT_SECONDS = 5.0


def resolve_code_version(override: str | None = None) -> tuple[str, str | None]:
    """Return the code version of this process and a warning for the operator, or None.

    The first of these that is there: `override`, the environment variable `PAGLETS_MESH_VERSION`, the commit checked
    out where this package itself is a part of the checkout, the package version.
    """
    for candidate in (override, os.environ.get(CODE_VERSION_ENV)):
        if candidate and candidate.strip():
            return candidate.strip(), None
    head = _git_head(Path(paglets.__file__).resolve().parent)
    if head is not None:
        return head, None
    version = f"paglets-{_package_version()}-no-git"
    return version, (
        f"paglets does not run from a git checkout; mesh members must all report the code version {version!r}. "
        f"Set {CODE_VERSION_ENV} or --mesh-version to choose it"
    )


def _package_version() -> str:
    # What runs from a checkout, or is told its version, does without: this reads every installed package's name.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("paglets")
    except PackageNotFoundError:
        return "0"


@lru_cache(maxsize=8)
def _git_head(package: Path) -> str | None:
    # Asked once per process: what runs is what was checked out when it was imported.
    git = shutil.which("git")
    if git is None:
        return None
    # An environment inside some other project's checkout is in a work tree too, but that tree does not know its files.
    if _git(git, package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(git, package, "rev-parse", "--verify", "HEAD")


def _git(git: str, directory: Path, *arguments: str) -> str | None:
    # Hooks of git export the repository they run for, which need not be the one asked about.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        result = subprocess.run(
            [git, "-C", str(directory), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
