"""Each paglet lives in a process of its own, and what happens in it harms nobody else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from paglets.core.errors import HostError, PagletCrashedError
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.runtime.kernel import DISK_THREADS
from paglets.runtime.launch.spawn import SpawnLauncher
from paglets.runtime.launch.zygote import ZygoteLauncher
from tests.agents.unruly import Unruly, UnrulyState
from tests.support import HostFactory, eventually


@pytest.fixture(params=["zygote", "spawn"])
def host(request: pytest.FixtureRequest, hosts: HostFactory) -> Iterator[Host]:
    """Give a host on each of the two launchers."""
    if request.param == "zygote":
        yield hosts()
        return
    launcher = SpawnLauncher(spares=1)
    try:
        yield hosts(launcher=launcher)
    finally:
        launcher.close()


def runs(pid: int) -> bool:
    """Tell whether a process still runs; one that has ended and is only not reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def in_background(work: Any) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as exc:
            outcome.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_a_paglet_runs_in_a_process_of_its_own_and_survives_an_exception(host: Host) -> None:
    proxy = host.create(Unruly)
    assert proxy.call(Unruly.pid) not in (os.getpid(), host.create(Unruly).call(Unruly.pid))
    assert proxy.info()["pid"] == proxy.call(Unruly.pid)
    with pytest.raises(HostError, match="this handler fails"):
        proxy.call(Unruly.fail)
    assert proxy.call(Unruly.ping) == 1


@pytest.mark.parametrize(
    ("way", "code"),
    [
        (lambda p: p.call(Unruly.leave, 3), 3),
        (lambda p: p.call(Unruly.leave, 0), 0),
        (lambda p: p.call(Unruly.drop_dead, 7), 7),
        (lambda p: p.call(Unruly.shoot), -signal.SIGKILL),
    ],
    ids=["sys.exit", "sys.exit(0)", "os._exit", "SIGKILL"],
)
def test_a_process_that_ends_is_seen_as_a_crash_and_nobody_else_is_touched(host: Host, way: Any, code: int) -> None:
    neighbour, proxy = host.create(Unruly), host.create(Unruly)
    with pytest.raises(PagletCrashedError):
        way(proxy)
    info = proxy.info()
    assert (info["active"], info["crashed"], info["exitcode"]) == (False, True, code)
    assert info["mailbox"] is None
    assert neighbour.call(Unruly.ping) == 1
    assert host.health()["active_count"] == 1
    with pytest.raises(PagletCrashedError):
        proxy.call(Unruly.ping)
    assert "paglet-crashed" in [event.kind for event in host.list_events()]
    proxy.dispose()
    assert [summary["agent_id"] for summary in host.list_agents()] == [neighbour.agent_id]


def test_sigkill_fails_everyone_who_waits_at_once(host: Host, tmp_path: Path) -> None:
    proxy = host.create(Unruly)
    marker = tmp_path / "entered"
    waiting = [in_background(lambda: proxy.call(Unruly.block, str(marker)))]
    eventually(marker.exists, "a handler that blocks")
    waiting += [in_background(lambda: proxy.call(Unruly.ping)) for _ in range(5)]
    eventually(lambda: host.mailbox_status(proxy.agent_id)["queued_count"] == 5, "five messages in the queue")

    os.kill(proxy.info()["pid"], signal.SIGKILL)

    for thread, outcome in waiting:
        thread.join(5)
        assert [type(error) for error in outcome] == [PagletCrashedError]
    assert proxy.info()["exitcode"] == -signal.SIGKILL


def test_stop_ends_a_paglet_that_blocks_for_ever(host: Host, tmp_path: Path) -> None:
    proxy = host.create(Unruly)
    pid = proxy.info()["pid"]
    marker = tmp_path / "entered"
    thread, outcome = in_background(lambda: proxy.call(Unruly.block, str(marker)))
    eventually(marker.exists, "a handler that blocks")
    host.stop()
    thread.join(5)
    assert isinstance(outcome[0], HostError | PagletCrashedError)
    assert re.search("host ended|shutting down", str(outcome[0])), outcome[0]
    eventually(lambda: not runs(pid), "the blocked process gone")


def test_shutdown_stores_a_paglet_that_blocks_for_ever_as_its_last_checkpoint_is(
    hosts: HostFactory, tmp_path: Path
) -> None:
    host = hosts()
    proxy = host.create(Unruly)
    proxy.call(Unruly.ping)
    host.checkpoint(proxy.agent_id)
    marker = tmp_path / "entered"
    thread, _ = in_background(lambda: proxy.call(Unruly.block, str(marker)))
    eventually(marker.exists, "a handler that blocks")
    host.shutdown()
    thread.join(5)
    again = hosts.new(persistence_dir=host.persistence_dir)
    assert [row["agent_id"] for row in again.list_agents(active=False, inactive=True)] == [proxy.agent_id]
    again.start_background()
    assert again.get_state(proxy.agent_id, UnrulyState).handled == 1


def test_a_flood_of_output_stops_neither_the_host_nor_another_paglet() -> None:
    # The host's standard output is a pipe that nobody reads.
    script = """
import sys, tempfile
from paglets.runtime.host import Host
from tests.agents.unruly import Unruly
with tempfile.TemporaryDirectory() as directory:
    host = Host("flooded", persistence_dir=directory, mesh=False)
    host.start_background()
    flooder, other = host.create(Unruly), host.create(Unruly)
    flooder.call(Unruly.flood, 8)
    other.call(Unruly.say, "still here")
    print("answers:", other.call(Unruly.ping), file=sys.stderr, flush=True)
    host.stop()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stderr.readline() == "answers: 1\n"
    finally:
        process.stdout.close()  # only now, so that the pipe was full all the time
        process.stderr.close()
        process.kill()
        process.wait()


def test_what_a_paglet_prints_comes_out_at_the_host(tmp_path: Path) -> None:
    script = f"""
from paglets.runtime.host import Host
from tests.agents.unruly import Unruly
host = Host("talker", persistence_dir={str(tmp_path)!r}, mesh=False)
host.start_background()
host.create(Unruly).call(Unruly.say, "hello from a paglet")
host.stop()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "hello from a paglet\n" in done.stdout


HOST_PROCESS = """
import sys, threading
from paglets.runtime.host import Host
from paglets.runtime.launch.zygote import shared_launcher
from tests.agents.unruly import Unruly
host = Host("doomed", persistence_dir=sys.argv[1], mesh=False)
host.start_background()
proxies = [host.create(Unruly) for _ in range(3)]
# One of them never lets its interpreter run again: no code in it can notice that the host died.
threading.Thread(target=lambda: proxies[0].send_oneway(__import__("paglets.core.messages").core.messages.Message(
    "hold_the_interpreter")), daemon=True).start()
print(shared_launcher().pid, *[proxy.info()["pid"] for proxy in proxies], flush=True)
threading.Event().wait()
"""


def test_sigkill_to_the_host_leaves_no_process_behind(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOST_PROCESS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 4
    process.kill()
    process.wait()
    eventually(lambda: not any(map(runs, pids)), "no paglet and no fork server", timeout=5.0)


def test_paglets_live_on_when_the_fork_server_is_killed(hosts: HostFactory) -> None:
    launcher = ZygoteLauncher()
    try:
        host = hosts(launcher=launcher)
        survivor, killer = host.create(Unruly), host.create(Unruly)
        first_server = launcher.pid
        killer.call(Unruly.kill_the_fork_server)
        eventually(lambda: launcher.pid is None, "the fork server's end noticed")
        assert survivor.call(Unruly.ping) == 1
        newcomer = host.create(Unruly)
        assert newcomer.call(Unruly.ping) == 1
        assert launcher.pid not in (None, first_server)
        survivor.dispose()
        assert survivor.agent_id not in [summary["agent_id"] for summary in host.list_agents()]
    finally:
        launcher.close()


def test_a_module_that_leaves_threads_is_not_preloaded(hosts: HostFactory) -> None:
    launcher = ZygoteLauncher()
    try:
        refused = launcher.preload(["tests.agents.leaves_thread", "tests.agents.unruly", "no.such.module"])
        assert set(refused) == {"tests.agents.leaves_thread", "no.such.module"}
        assert "threads" in refused["tests.agents.leaves_thread"]
        host = hosts(launcher=launcher)
        assert host.create(Unruly).call(Unruly.ping) == 1
    finally:
        launcher.close()


def test_five_hundred_paglets_live_at_the_same_time(hosts: HostFactory) -> None:
    host = hosts(preload=["tests.agents.unruly"])
    proxies: list[PagletProxy] = []
    threads = [
        threading.Thread(target=lambda: proxies.extend(host.create(Unruly) for _ in range(125))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert host.health()["active_count"] == 500
    assert len({summary["pid"] for summary in host.list_agents()}) == 500
    assert [proxy.call(Unruly.ping) for proxy in proxies] == [1] * 500


def test_hundreds_of_creations_and_disposals_leave_nothing_behind(hosts: HostFactory) -> None:
    host = hosts(preload=["tests.agents.unruly"])
    this = psutil.Process()

    def rounds(count: int) -> None:
        for _ in range(count):
            host.create(Unruly).dispose()

    # What other tests of this process keep for themselves, which is no fork server of this one.
    others = {child.pid for child in this.children() if any(part.startswith("tests.") for part in child.cmdline())}

    def only_spares_left() -> bool:
        # The fork server and two processes forked ahead.
        return sum(1 for child in this.children() if child.pid not in others) == 1 and len(spares()) == 2

    def spares() -> list[psutil.Process]:
        return [below for child in this.children() if child.pid not in others for below in child.children()]

    rounds(100)
    eventually(only_spares_left, "only the fork server and two spares left")
    descriptors, threads, memory = this.num_fds(), this.num_threads(), this.memory_info().rss
    rounds(400)
    eventually(lambda: only_spares_left() and this.num_fds() <= descriptors, "descriptors back where they were")
    assert this.num_threads() <= threads + DISK_THREADS  # of the pool for blocking work, which grows as it is needed
    # The log of events is still filling, with about 10 KB for each round; `test_growth` counts what else is kept.
    assert this.memory_info().rss - memory < 6 * 1024 * 1024
