"""The measurements themselves."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import psutil

from bench import (
    artifacts,
    durable,
    files,
    floors,
    membership,
    relay,
    search,
    service_calls,
    services,
    start_up,
    system,
    testing,
)
from bench.agents import Caller, Echo, EchoState, Spinner
from bench.measure import Row, milliseconds, timed, with_bytecode
from bench.peers import local_host, peer_host
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy

MEGABYTE = 1024 * 1024


def creation(quick: bool) -> Iterator[Row]:
    """Create and dispose."""
    rounds = 30 if quick else 120
    floor = floors.in_small_process("fork_to_ready")
    end_floor = floors.in_small_process("kill_and_reap")
    memory_floor = round(floors.in_small_process("forked_memory"), 2)
    with local_host() as host:
        made: list[PagletProxy] = []
        seconds = timed(lambda: made.append(host.create(Echo)), rounds)
        yield milliseconds("create a paglet in its own process", seconds, floor=floor, aim=5.0, reference=154.0)
        ends = timed(lambda: made.pop().dispose(), rounds - 5)
        yield milliseconds("dispose", ends, floor=end_floor, aim=2.0, reference=42.0)
        for proxy in made:
            proxy.dispose()
        total = 80 if quick else 400
        elapsed = floors.run_threads(8, lambda _: [host.create(Echo) for _ in range(total // 8)])
        yield Row("create, 8 at once", "/s", round(total / elapsed, 1), 1000 / floor, 200.0, 9.6, larger_is_better=True)
        pids = [summary["pid"] for summary in host.list_agents()]
        private = [psutil.Process(pid).memory_full_info().uss / MEGABYTE for pid in pids]
        yield Row(
            "private memory per idle paglet",
            "MB",
            round(statistics.median(private), 2),
            memory_floor,
            2.0,
            16.7,
            samples=len(private),
        )
    # In an interpreter of its own, because all hosts of a process share the fork server and what that has preloaded.
    command = [sys.executable, "-c", "from bench.work import cold_creation; cold_creation()", str(rounds)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=with_bytecode()).stdout
    yield milliseconds(
        "create, class not preloaded",
        json.loads(printed),
        floor=floor,
        reference=154.0,
        note="each paglet imports its module",
    )


def cold_creation() -> None:
    """Print the seconds of creations of a class that every paglet imports itself."""
    with local_host(preload=False) as host:
        print(json.dumps(timed(lambda: host.create(Echo), int(sys.argv[1]))))


def messages(quick: bool) -> Iterator[Row]:
    """Send and reply."""
    rounds = 400 if quick else 3000
    each = 100 if quick else 500
    floor = floors.send_round_trip(rounds)
    best_rate = floors.concurrent_sends(each=each)
    http_floor = floors.http_round_trip(rounds)
    with local_host() as host, peer_host() as peer:
        proxy = host.create(Echo)
        message = {"a": 1}
        seconds = timed(lambda: proxy.send(Message("echo", message)), rounds, warm_up=200)
        yield milliseconds("send and reply, same host", seconds, floor=floor, aim=0.25, reference=1.39)
        with HostClient() as client:
            outside = PagletProxy(host.address, proxy.agent_id, client)
            seconds = timed(lambda: outside.send(Message("echo", message)), rounds, warm_up=200)
        yield milliseconds("send over HTTP from outside", seconds, floor=http_floor, aim=0.5, reference=1.31)
        caller = host.create(Caller)
        inside = caller.call(Caller.measure, proxy.ref(), rounds // 3)
        yield milliseconds("paglet to paglet, same host", inside, floor=2 * floor, aim=0.4, reference=1.6)
        remote = host.create_remote(peer, Echo)
        across = caller.call(Caller.measure, remote.ref(), rounds // 3)
        yield milliseconds("paglet to paglet, other host", across, floor=http_floor + floor, aim=0.6, reference=1.5)
        targets = [host.create(Echo) for _ in range(5)]

        def work(number: int) -> None:
            for index in range(each):
                targets[(number + index) % 5].send(Message("echo", message))

        rate = 16 * each / floors.run_threads(16, work)
        yield Row(
            "16 threads calling 5 paglets", "/s", round(rate), round(best_rate), 6000.0, 410.0, larger_is_better=True
        )


def moves(quick: bool) -> Iterator[Row]:
    """Move between hosts in different processes."""
    small_floor = floors.in_small_process("fork_to_ready") + 3 * (floors.http_round_trip(200) + floors.sqlite_commit())
    large_floor = floors.loopback_transfer()
    with local_host() as host, peer_host() as peer:

        def there_and_back(proxy: PagletProxy) -> Callable[[], None]:
            state = {"proxy": proxy, "away": False}

            def move() -> None:
                current = state["proxy"]
                assert isinstance(current, PagletProxy)
                state["proxy"] = current.dispatch(host.address if state["away"] else peer)
                state["away"] = not state["away"]

            return move

        seconds = timed(there_and_back(host.create(Echo)), 20 if quick else 100)
        yield milliseconds(
            "move, small state, other host",
            seconds,
            floor=small_floor,
            aim=10.0,
            reference=149.0,
            note="durable; floor: fork, 3 requests, 3 commits",
        )
        large = host.create(Echo, EchoState(content=os.urandom(64 * MEGABYTE)))
        seconds = timed(there_and_back(large), 6 if quick else 20, warm_up=2)
        yield milliseconds(
            "move 64 MB of state",
            seconds,
            floor=large_floor,
            aim=150.0,
            reference=1320.0,
            note="floor: one pass over TCP loopback",
        )


def sleeping(quick: bool) -> Iterator[Row]:
    """Deactivate and activate."""
    commit = floors.sqlite_commit()
    fork = floors.in_small_process("fork_to_ready")
    with local_host() as host:
        proxy = host.create(Echo)
        down: list[float] = []
        up: list[float] = []
        for _ in range(15 if quick else 60):
            down += timed(proxy.deactivate, 1, warm_up=0)
            up += timed(proxy.activate, 1, warm_up=0)
        yield milliseconds("deactivate", down, floor=commit, aim=2.0, reference=7.2)
        yield milliseconds("activate", up, floor=commit + fork, aim=5.0, reference=179.0)


def under_load(quick: bool) -> Iterator[Row]:
    """Ask for health while every paglet is busy; live with many paglets."""
    with local_host() as host, HostClient() as client:
        spinners = [host.create(Spinner) for _ in range(8)]
        seconds_busy = 2.0 if quick else 6.0
        running = [threading.Thread(target=p.call, args=(Spinner.spin, seconds_busy)) for p in spinners]
        for thread in running:
            thread.start()
        samples = timed(lambda: client.get_json(f"{host.address}/health"), 100 if quick else 300, warm_up=2)
        for thread in running:
            thread.join()
        row = milliseconds("/health while 8 paglets use 2 cores (p95)", samples, aim=50.0)
        row.value = row.p95 or row.value
        yield row
    count = 100 if quick else 500
    with local_host() as host:
        elapsed = floors.run_threads(8, lambda _: [host.create(Echo) for _ in range(count // 8)])
        alive = len(host.get_proxies())
        yield Row(
            f"{alive} paglets alive on one host: memory of all",
            "MB",
            round(sum(psutil.Process(s["pid"]).memory_full_info().uss for s in host.list_agents()) / MEGABYTE, 1),
            note=f"created in {elapsed:.1f} s",
        )


ALL: dict[str, Callable[[bool], Iterator[Row]]] = {
    "creation": creation,
    "messages": messages,
    "moves": moves,
    "sleeping": sleeping,
    "artifacts": artifacts.transfers,
    "recorded": durable.recorded,
    "recovery": durable.recovery,
    "sleepers": durable.sleepers,
    "files": files.files,
    "load": under_load,
    "relay": relay.relay,
    "membership": membership.membership,
    "search": search.search,
    "services": services.services,
    "calls": service_calls.calls,
    "system": system.system,
    "testing": testing.testing,
    "start-up": start_up.start_up,
}
