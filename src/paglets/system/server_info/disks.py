"""How full volumes are."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from paglets.system.server_info.patience import Patience

DISK_SECONDS: Final = 2.0
MAX_PATHS: Final = 256


class Usage(NamedTuple):
    """The size of a volume and what is used of it, in bytes, and in percent of what users may use."""

    total: int
    used: int
    free: int
    percent: float


class Disks:
    """Looks at volumes; one that hangs, as network file systems do without their server, holds nobody up for long."""

    def __init__(self) -> None:
        self._patience = Patience()

    def volumes(self) -> list[str]:
        """Return where volumes are mounted, and the root, sorted."""
        from paglets.system.server_info.machine import psutil

        return sorted({"/", *(partition.mountpoint for partition in psutil.disk_partitions(all=False))})

    def read(self, paths: list[str], *, files: bool = True) -> tuple[dict[str, Usage], dict[str, str]]:
        """Return the volume that each path is on, and why some could not be read, in the order of the paths.

        :param files: whether a path may be that of a file. Containers have single files mounted, which are no volumes.
        """
        found: dict[str, Usage] = {}
        errors: dict[str, str] = {}
        different = list(dict.fromkeys(paths))
        errors.update(dict.fromkeys(different[MAX_PATHS:], f"only {MAX_PATHS} paths are looked at"))
        for path in different[:MAX_PATHS]:
            try:
                usage = self._patience.call(path, partial(_usage, path, files=files), DISK_SECONDS)
            except (OSError, ValueError) as exc:
                errors[path] = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            else:
                if usage is not None:
                    found[path] = usage
        return found, errors


def _usage(path: str, *, files: bool) -> Usage | None:
    if not files and stat.S_ISREG(Path(path).stat().st_mode):
        return None
    from paglets.system.server_info.machine import psutil

    usage = psutil.disk_usage(path)
    usable = usage.used + usage.free
    return Usage(usage.total, usage.used, usage.free, round(100 * usage.used / usable, 2) if usable else 0.0)
