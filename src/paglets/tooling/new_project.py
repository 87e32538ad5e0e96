"""Write a new project: a paglet, a program, and tests that run."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Final

from paglets.core.errors import PagletError

_NAME: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9]|[-_](?=[A-Za-z0-9]))*")
MAX_NAME: Final = 60
#: What is written, from which template; `@package@` stands for the package.
FILES: Final = {
    "pyproject.toml": "pyproject.toml.txt",
    ".gitignore": "gitignore.txt",
    "launch.toml": "launch.toml.txt",
    "README.md": "README.md.txt",
    "src/@package@/__init__.py": "",
    "src/@package@/py.typed": "",
    "src/@package@/counter.py": "counter.py.txt",
    "src/@package@/main.py": "main.py.txt",
    "tests/test_counter.py": "test_counter.py.txt",
}


class ProjectError(PagletError):
    """A project cannot be written as asked for."""


def new_project(name: str, directory: Path) -> Path:
    """Write a project into a new directory of its name, all of it or nothing, and return that directory.

    :param name: of the project; its package has underscores in place of dashes.
    :param directory: in which the new one is made; it must exist.
    :raises ProjectError: the name is none, or there is something of that name already.
    :raises OSError: it cannot be written.
    """
    package = package_of(name)
    target = directory / name
    if target.exists() or target.is_symlink():
        raise ProjectError(f"{target} exists already; choose another name or --dir, nothing was written")
    if not directory.is_dir():
        raise ProjectError(f"{directory} is no directory; make it first, or choose another --dir")
    templates = resources.files("paglets.tooling") / "starter"
    # Beside its place, so that it takes that in one step.
    unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=directory))
    try:
        unfinished.chmod(0o755)
        for path, template in FILES.items():
            text = (templates / template).read_text(encoding="utf-8") if template else ""
            file = unfinished / path.replace("@package@", package)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("@package@", package).replace("@project@", name), encoding="utf-8")
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return target


def package_of(name: str) -> str:
    """Return the name of the package of a project.

    :raises ProjectError: the name is none that a project can have.
    """
    if _NAME.fullmatch(name) is None or len(name) > MAX_NAME:
        raise ProjectError(
            f"{name!r} cannot name a project: it begins with a letter, and has letters, digits and single - or _ "
            f"between them, {MAX_NAME} at most"
        )
    package = name.replace("-", "_").lower()
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or package in ("paglets", "tests"):
        raise ProjectError(f"{name!r} cannot name a project: {package!r} is the name of something else in Python")
    return package
