"""Run the benchmarks: ``python -m bench [--quick] [--only NAME] [--json]``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measure import Machine, Row
from bench.work import ALL

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure, print a table, write a result file."""
    os.environ["PAGLETS_DISCOVERY"] = "off"  # hosts that happen to run here are none of its business
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure paglets against the floor of this machine. Quit other work first; figures are medians.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples: a look, not a result")
    parser.add_argument("--only", choices=sorted(ALL), action="append", help="only this group (repeatable)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    parser.add_argument(
        "--output", type=Path, help="result file (default: bench/results/<time>.json; not with --quick)"
    )
    options = parser.parse_args()
    machine = Machine.here()
    rows: list[Row] = []
    console = Console(stderr=True)
    for name in options.only or ALL:
        console.print(f"measuring {name} ...", style="dim")
        rows += ALL[name](options.quick)
    result = {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": asdict(machine),
        "quick": options.quick,
        "rows": [row.to_wire() for row in rows],
    }
    output = options.output
    if output is None and not options.quick:
        output = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n")
        console.print(f"written to {output}", style="dim")
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        show(machine, rows)
    return 0


def show(machine: Machine, rows: list[Row]) -> None:
    """Print the table."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(
        f"{machine.processor}, {machine.cores} cores, {machine.memory_gb} GB, {machine.system}, "
        f"Python {machine.python}, load {machine.load_before}"
    )
    table = Table("work", "", "median", "p95", "floor", "x floor", "1.1.0", "x faster", "aim", "met")
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row.name,
            row.unit,
            f"{row.value:g}",
            "" if row.p95 is None else f"{row.p95:g}",
            "" if row.floor is None else f"{row.floor:.0f}" if row.floor >= 100 else f"{row.floor:.2f}",
            "" if not row.floor else f"{ratio(row.value, row.floor, row.larger_is_better):.1f}",
            "" if row.reference is None else f"{row.reference:g}",
            "" if not row.reference else f"{1 / ratio(row.value, row.reference, row.larger_is_better):.1f}",
            "" if row.aim is None else f"{row.aim:g}",
            {True: "yes", False: "NO", None: ""}[row.met],
        )
    console.print(table)


def ratio(value: float, other: float, larger_is_better: bool) -> float:
    """Return how many times worse ``value`` is than ``other``."""
    return other / value if larger_is_better else value / other


if __name__ == "__main__":
    raise SystemExit(main())
