"""Whatever a hook raises, the move ends, its caller hears why, and the paglet goes on where it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paglets.core.errors import HostError, PagletError, RemoteHostError
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.raises import Raises
from tests.support import HostFactory

Move = Callable[[PagletProxy, Host, Host], object]
HOOKS: dict[str, Move] = {
    "on_dispatching": lambda proxy, _, there: proxy.dispatch(there.address),
    "on_arrival": lambda proxy, _, there: proxy.dispatch(there.address),
    "on_reverting": lambda proxy, here, there: there.retract(here.address, proxy.agent_id),
    "on_cloning": lambda proxy, _, there: proxy.clone(there.address),
    "on_clone": lambda proxy, _, there: proxy.clone(there.address),
}


def about_to_fail(hosts: HostFactory, hook: str, error: str) -> tuple[Host, Host, PagletProxy]:
    """Return two hosts, and on the first a paglet one of whose hooks will raise."""
    here, there = hosts("here"), hosts("there")
    proxy = here.create(Raises)
    proxy.call(Raises.arm, hook, error)
    return here, there, proxy


def test_a_value_error_at_the_source_comes_as_it_is(hosts: HostFactory) -> None:
    here, there, proxy = about_to_fail(hosts, "on_dispatching", "ValueError")
    with pytest.raises(ValueError, match="on_dispatching says no"):
        here.dispatch(proxy.agent_id, there.address)
    proxy.call(Raises.arm, "on_cloning", "ValueError")
    with pytest.raises(ValueError, match="on_cloning says no"):
        here.clone(proxy.agent_id, target=there.address)
    # Over HTTP errors that are not of this package lose their class.
    with pytest.raises(RemoteHostError, match="on_cloning says no"):
        proxy.clone(there.address)


@pytest.mark.parametrize(
    "error", ["RuntimeError", "ValueError", "KeyError", "StopIteration", "TimeoutError", "OSError"]
)
@pytest.mark.parametrize("hook", HOOKS)
def test_the_caller_hears_and_the_paglet_goes_on(hosts: HostFactory, hook: str, error: str) -> None:
    here, there, proxy = about_to_fail(hosts, hook, error)
    with pytest.raises((PagletError, ValueError), match=f"{hook} says no"):
        HOOKS[hook](proxy, here, there)
    assert there.list_agents(active=True, inactive=True) == []
    proxy.call(Raises.arm, "", "")
    assert proxy.dispatch(there.address).host_url == there.address


def test_an_error_of_a_hook_at_the_source_is_no_transfer_error(hosts: HostFactory) -> None:
    here, there, proxy = about_to_fail(hosts, "on_dispatching", "RuntimeError")
    with pytest.raises(HostError, match="on_dispatching says no"):
        here.dispatch(proxy.agent_id, there.address)
