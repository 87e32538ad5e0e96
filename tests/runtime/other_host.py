"""A host in a process of its own: prints its address, and stops when its standard input ends.

Run as ``python other_host.py NAME DIRECTORY [allowed pattern …]``.
"""

from __future__ import annotations

import sys

from paglets.runtime.host import Host


def main(name: str, directory: str, *allow: str) -> None:
    """Serve until nobody holds the other end of standard input."""
    host = Host(name, persistence_dir=directory, mesh=False, mesh_version="test-version", allow=allow or None)
    host.start_background()
    print(host.address, flush=True)
    sys.stdin.read()
    host.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
