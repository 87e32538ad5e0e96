"""A paglet that is back on a host before its departure from there has quite ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from paglets.core.errors import TransferError
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from tests.agents.courier import CONTENT, NAME, Courier, CourierState
from tests.agents.hardy import HardyState, RestartedCareful
from tests.agents.keeper import Keeper
from tests.support import HostFactory, await_event, eventually, leftovers, processes_of


def test_a_paglet_that_returns_at_once_keeps_its_files(hosts: HostFactory, tmp_path: Path) -> None:
    # Given a paglet that goes to another host and back within the time its old process is given to end
    alpha, beta = hosts("alpha"), hosts("beta")
    outside = tmp_path / "outside.txt"
    outside.write_text("left")
    state = CourierState(route=[beta.address, alpha.address], outside=str(outside))

    proxy = alpha.create(Courier, state)

    # When the first process has ended, and with it the departure
    await_event(alpha, "dispatch", agent_id=proxy.agent_id)
    await_event(alpha, "arrival", agent_id=proxy.agent_id)
    eventually(
        lambda: sum(proxy.agent_id in title for title in processes_of("alpha")) == 1,
        "the end of the old process",
    )
    eventually(lambda: not outside.exists(), "the moved file left behind to be deleted")

    # Then the file is where the paglet is now
    home = alpha.proxy_for(alpha.address, proxy.agent_id)
    assert home.call(Courier.unpack) == {NAME: CONTENT, "outside": "left"}


def test_a_paglet_leaves_nothing_behind_for_its_return(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Courier, CourierState())
    kept = alpha.persistence_dir / "work" / proxy.agent_id
    assert kept.is_dir()

    there = proxy.dispatch(beta.address)
    eventually(lambda: not kept.exists(), "the work directory of the paglet that left to be removed")
    back = there.dispatch(alpha.address)

    assert back.call(Courier.unpack) == {NAME: CONTENT}
    assert [path.name for path in kept.iterdir()] == [NAME]


def test_a_paglet_created_without_naming_its_state_class_can_move(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    with HostClient() as client:
        reply = client.post_json(f"{alpha.address}/agents", {"agent_class_name": "tests.agents.courier:Courier"})
        proxy = PagletProxy.from_wire(reply["proxy"], client)
        assert proxy.dispatch(beta.address).call(Courier.unpack) == {NAME: CONTENT}


@pytest.mark.parametrize("stay", ["from outside", "by itself"])
@pytest.mark.parametrize("leave", ["dispatch", "retract", "by itself"])
def test_a_paglet_that_moved_within_a_host_leaves_nothing_there(
    hosts: HostFactory, tmp_path: Path, stay: str, leave: str
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    outside = tmp_path / "outside.txt"
    outside.write_text("moved")
    proxy = alpha.create(Keeper)
    proxy.call(Keeper.take, str(outside), mode="move")
    there = proxy.dispatch(beta.address)
    there.call(Keeper.scratch, "scratch", "of this stay")
    work = beta.work_dir_for(proxy.agent_id)

    for _ in range(2):
        if stay == "from outside":
            there.dispatch(beta.address)
        else:
            there.call(Keeper.go, beta.address)
    assert there.call(Keeper.scratched) == ["outside.txt", "scratch"]
    late = tmp_path / "late.txt"
    late.write_text("registered after the move")
    there.call(Keeper.take, str(late), mode="move")
    match leave:
        case "dispatch":
            back = there.dispatch(alpha.address)
        case "retract":
            back = alpha.retract(beta.address, proxy.agent_id)
        case _:
            back = PagletProxy.from_wire(there.call(Keeper.go, alpha.address))

    eventually(lambda: not work.exists() and not late.exists(), "what it had there to be removed")
    assert back.call(Keeper.read, "outside.txt") == "moved"
    assert back.call(Keeper.read, "late.txt") == "registered after the move"
    assert leftovers(beta) == []


def test_an_id_that_is_used_again_leaves_nothing_of_its_second_life(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    first = alpha.create(Keeper).dispatch(beta.address)
    first.dispose()
    again = beta.create(Keeper, agent_id=first.agent_id)
    again.call(Keeper.scratch, "scratch", "of the second life")
    again.dispatch(alpha.address)
    eventually(lambda: leftovers(beta) == [], "the work directory to be removed")


def test_a_paglet_that_does_not_arrive_leaves_no_work_directory(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    steps = ["scratch of a stay that never was", "fail not here"]
    proxy = alpha.create(RestartedCareful, HardyState(plan={"arrival": steps}))
    with pytest.raises(TransferError, match="not here"):
        proxy.dispatch(beta.address)
    eventually(lambda: leftovers(beta) == [], "the work directory to be removed")
