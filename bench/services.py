"""What it takes to use a managed service that does not run yet, or sleeps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from bench import floors
from bench.managed import PING, PINGER, Pinger
from bench.measure import Row, milliseconds, timed
from paglets.config.startup import LaunchConfig, ResidentServiceConfig
from paglets.core.context import PagletContext
from paglets.runtime.host import Host

_ID = "service.bench.pinger"


@contextmanager
def _serving() -> Iterator[Host]:
    """Give a host that keeps one lazy service."""
    entry = ResidentServiceConfig(class_name=f"{Pinger.__module__}:{Pinger.__name__}", idle_timeout=3600.0)
    with tempfile.TemporaryDirectory() as directory:
        host = Host(
            "bench",
            persistence_dir=directory,
            mesh=False,
            preload=["bench.agents", "bench.managed"],
            launch_config=LaunchConfig(resident_services=(entry,)),
        )
        host.start_background()
        try:
            yield host
        finally:
            host.stop()


def services(quick: bool) -> Iterator[Row]:
    """Call a service that was never started, that sleeps, and that runs; lease one that runs."""
    rounds = 30 if quick else 120
    floor = floors.in_small_process("fork_to_ready")
    with _serving() as host:
        context = PagletContext(host)
        handle = context.require_contract(PINGER)

        def ended() -> None:
            if host.get_proxy(_ID) is not None:
                host.dispose(_ID)

        def asleep() -> None:
            host.deactivate(_ID)

        cold = timed(lambda: handle.call(PING), rounds, before=ended)
        yield milliseconds("first call of a lazy service", cold, floor=floor, aim=15.0)
        woken = timed(lambda: handle.call(PING), rounds, before=asleep)
        yield milliseconds("call that wakes a service", woken, floor=floor, aim=15.0)
        calls = timed(lambda: handle.call(PING), rounds * 10, warm_up=100)
        yield milliseconds("call of a service that runs", calls, floor=floors.send_round_trip(rounds * 10))
        leases = timed(lambda: context.lease_contract(PINGER).release(), rounds * 5, warm_up=20)
        yield milliseconds("lease a service that runs and give that back", leases)
