"""Stand for `python` in a process that `server` has forked: ``-c CODE``, ``-m MODULE`` or the path of a program.

What comes after these are the arguments of the program. There are no other options but ``-P`` in front of ``-m``.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType


def main() -> None:
    """Be what the command line says."""
    match sys.argv[1:]:
        case ["-c", code, *arguments]:
            sys.argv[:] = ["-c", *arguments]
            sys.path.insert(0, "")
            sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))
        case ["-m", module, *arguments]:
            sys.argv[:] = [module, *arguments]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-P", "-m", module, *arguments]:
            sys.argv[:] = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [path, *arguments] if not path.startswith("-"):
            sys.argv[:] = [path, *arguments]
            sys.path.insert(0, str(Path(path).resolve().parent))
            runpy.run_path(path, run_name="__main__")
        case words:
            raise SystemExit(f"tests.preload.interpreter does not understand {words}")


if __name__ == "__main__":
    main()
