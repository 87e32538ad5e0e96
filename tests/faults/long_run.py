"""Kill hosts for as long as wanted: ``python -m tests.faults.long_run --kills 500 --seed 7``.

Rounds of 50 kills each, every one with ledgers of its own and judged by itself, on the same three hosts. Ends with a
table; with status 1, the seed and the directory of the hosts when something was lost, doubled or stale.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.faults.chaos import Report, run_round
from tests.faults.cluster import Cluster, Nursery, cluster_in
from tests.faults.proxy import Network

KILLS_PER_ROUND = 50


def main() -> int:
    """Run, print what happened, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=500, help="how many hosts die in all (default: 500)")
    parser.add_argument(
        "--seed", type=int, default=None, help="what the plan is drawn from (default: another each time)"
    )
    parser.add_argument("--hosts", type=int, default=3, help="how many hosts there are (default: 3)")
    parser.add_argument("--network", action="store_true", help="also cut, delay, drop and partition connections")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    directory = Path(tempfile.mkdtemp(prefix=f"paglets-faults-{seed}-"))
    print(f"seed {seed}, hosts in {directory}", flush=True)
    total = Report(seed)
    nursery = Nursery()
    network = Network(seed) if options.network else None
    try:
        with cluster_in(directory, nursery, network=network) as cluster:
            cluster.start(*(f"host{number}" for number in range(max(2, options.hosts))))
            _rounds(cluster, total, seed, options.kills)
    except AssertionError as exc:  # nothing went on, or did not come to rest
        total.verdict.say(str(exc))
    finally:
        nursery.close()
        if network is not None:
            network.close()
        for name, value in total.rows():
            print(f"{name:32}{value}")
    if total.verdict:
        print("nothing lost, nothing doubled, nothing stale, one owner each, in order")
        return 0
    again = f"--kills {options.kills} --seed {seed}{' --network' if options.network else ''}"
    print(f"{total.verdict}\nrepeat with: python -m tests.faults.long_run {again}")
    return 1


def _rounds(cluster: Cluster, total: Report, seed: int, kills: int) -> None:
    number = 0
    while total.kills < kills and total.verdict:
        before = total.kills

        def progress(report: Report, before: int = before) -> None:
            line = f"\r{before + report.kills} of {kills} hosts killed, {total.told + report.told} acknowledged"
            print(line, end="", flush=True)

        plan = seed * 1_000 + number
        total.add(run_round(cluster, plan, min(KILLS_PER_ROUND, kills - before), ledgers=2, progress=progress))
        print(f"\nround {number + 1} (plan {plan}): {'good' if total.verdict else 'BAD'}", flush=True)
        number += 1


if __name__ == "__main__":
    sys.exit(main())
