"""What a testing mesh takes: how long users wait for their tests."""

from __future__ import annotations

import _thread
import time
from collections.abc import Iterator

from bench.agents import Echo, EchoState, Recorded
from bench.measure import Row, milliseconds, timed
from paglets.core.messages import Message
from paglets.testing import PagletMesh


def baton_round_trip(rounds: int = 5000) -> float:
    """Return the milliseconds in which one thread lets another one run and gets its turn back."""
    there, back = _thread.allocate_lock(), _thread.allocate_lock()
    there.acquire()
    back.acquire()

    def serve() -> None:
        for _ in range(rounds):
            there.acquire()
            back.release()

    _thread.start_new_thread(serve, ())
    start = time.perf_counter()
    for _ in range(rounds):
        there.release()
        back.acquire()
    return (time.perf_counter() - start) / rounds * 1e3


def testing(quick: bool) -> Iterator[Row]:
    """Open a mesh, use it, and let an hour pass."""
    rounds = 100 if quick else 500
    floor = round(baton_round_trip(), 4)

    def opened() -> None:
        PagletMesh("alpha", "beta", "gamma").close()

    yield milliseconds("open and close a testing mesh of 3 hosts", timed(opened, 5 if quick else 20))
    with PagletMesh("alpha", "beta", "gamma") as mesh:
        echo, recorded = mesh.create("alpha", Echo), mesh.create("alpha", Recorded)
        sends = timed(lambda: echo.send(Message("echo", {"a": 1})), rounds, warm_up=20)
        yield milliseconds("testing mesh: send from the test", sends, floor=floor)
        counts = timed(lambda: recorded.call(Recorded.add), rounds, warm_up=20)
        yield milliseconds("testing mesh: send, recorded", counts, floor=floor)
        targets = iter(["beta", "alpha"] * rounds)
        moves = timed(lambda: mesh.proxy("alpha", echo.agent_id).dispatch(next(targets)), rounds // 5)
        yield milliseconds("testing mesh: move", moves, floor=floor)
        created = timed(lambda: mesh.create("beta", Echo, EchoState()), rounds // 5)
        yield milliseconds("testing mesh: create", created, floor=floor)
        yield milliseconds("testing mesh: let an hour pass", timed(lambda: mesh.advance(3600), 5, warm_up=1))
