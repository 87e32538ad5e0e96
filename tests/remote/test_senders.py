"""The threads that send messages whose replies are collected later."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from paglets.remote.senders import SenderPool, submit


def test_calls_run_on_few_named_daemon_threads() -> None:
    pool = SenderPool(max_threads=2)
    everyone = threading.Barrier(3, timeout=10)
    names = [pool.submit(lambda: (everyone.wait(), threading.current_thread())[1]) for _ in range(2)]
    waiting = pool.submit(threading.current_thread)
    assert pool.statistics().threads == 2
    everyone.wait()
    threads = {future.result(10) for future in [*names, waiting]}
    assert len(threads) == 2
    assert all(thread.daemon and thread.name.startswith("paglets-send-") for thread in threads)


def test_an_idle_thread_is_used_before_a_new_one_is_started() -> None:
    pool = SenderPool(max_threads=8)
    for _ in range(20):
        pool.submit(int).result(10)
        # A result is there an instant before its thread is free again.
        while not pool._idle:
            threading.Event().wait(0.001)
    assert pool.statistics().threads == 1


def test_whatever_a_call_raises_reaches_the_caller() -> None:
    pool = SenderPool(max_threads=1)

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        pool.submit(leave).result(10)
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(10)
    assert pool.submit(lambda: 5).result(10) == 5


def test_submitting_waits_while_too_much_is_waiting() -> None:
    pool = SenderPool(max_threads=1, max_waiting=1)
    release = threading.Event()
    busy = threading.Event()

    def hold() -> None:
        busy.set()
        release.wait(10)

    futures = [pool.submit(hold)]
    assert busy.wait(10)
    futures.append(pool.submit(int))
    entered = threading.Event()
    done = threading.Event()

    def one_more() -> None:
        entered.set()
        futures.append(pool.submit(int))
        done.set()

    thread = threading.Thread(target=one_more)
    thread.start()
    assert entered.wait(10)
    assert not done.wait(0.05)
    assert pool.statistics().waiting == 1
    release.set()
    thread.join(10)
    assert done.is_set()
    for future in futures:
        future.result(10)


def test_a_cancelled_call_does_not_run() -> None:
    pool = SenderPool(max_threads=1)
    release = threading.Event()
    ran: list[int] = []
    first = pool.submit(lambda: release.wait(10))
    second = pool.submit(lambda: ran.append(1))
    assert second.cancel()
    release.set()
    first.result(10)
    pool.submit(int).result(10)
    assert not ran


def test_a_waiting_thread_keeps_no_result_alive() -> None:
    class Result:
        pass

    pool = SenderPool(max_threads=1)
    future = pool.submit(Result)
    gone = weakref.ref(future.result(10))
    del future
    while not pool._idle:
        threading.Event().wait(0.001)
    gc.collect()
    assert gone() is None


def test_all_proxies_share_threads() -> None:
    assert submit(threading.current_thread).result(10).name.startswith("paglets-send-")
