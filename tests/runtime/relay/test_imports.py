"""What a host without links does not load."""

from __future__ import annotations

import subprocess
import sys


def test_a_host_without_links_loads_no_websockets() -> None:
    program = "import sys, paglets.runtime.host; print('websockets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
