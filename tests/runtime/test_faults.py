"""Named points at which a process dies or stops, set from outside."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paglets.runtime import faults

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
from paglets.runtime import faults
for name in ("one", "two", "one", "two"):
    if faults.ARMED:
        faults.reached(name)
    print(name, flush=True)
"""


@pytest.mark.parametrize(
    ("setting", "printed"),
    [
        ("", "one two one two"),
        ("three", "one two one two"),
        ("one", ""),
        ("two", "one"),
        ("one:2", "one two"),
        ("two:2,three", "one two one"),
        ("one:3,two", "one"),
    ],
)
def test_a_process_dies_at_the_point_that_is_set(setting: str, printed: str) -> None:
    environment = {"PYTHONPATH": str(ROOT / "src"), "PAGLETS_FAULT": setting}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == printed.split()
    assert done.returncode == (0 if printed == "one two one two" else -signal.SIGKILL), done.stderr


def test_a_process_stops_at_a_point_and_goes_on() -> None:
    environment = {"PYTHONPATH": str(ROOT / "src"), "PAGLETS_FAULT": "two:1:stop"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "one\n"
    process.send_signal(signal.SIGCONT)  # has no effect on one that has not stopped yet …
    with process.stdout:
        while process.poll() is None:
            process.send_signal(signal.SIGCONT)  # … so it is repeated until the process has ended
        assert process.stdout.read().split() == ["two", "one", "two"]
    assert process.returncode == 0


@pytest.mark.parametrize("setting", ["one:x", "one:1:explode", "one:-1"])
def test_a_setting_of_another_form_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="takes name"):
        faults.arm(setting)
    assert not faults.ARMED
