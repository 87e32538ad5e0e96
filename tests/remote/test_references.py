"""References to paglets and the client a resolved one uses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from paglets.core.errors import SerializationError
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.remote.references import PagletProxyRef

REF = PagletProxyRef("http://beta", "id")


def test_wire_form_round_trips() -> None:
    assert REF.to_wire() == {"host_url": "http://beta", "agent_id": "id"}
    assert PagletProxyRef.from_wire({**REF.to_wire(), "extra": 1}) == REF


@pytest.mark.parametrize("payload", [{"host_url": "u"}, {"agent_id": "a"}, {"host_url": "u", "agent_id": 1}, None])
def test_both_addresses_are_required(payload: Any) -> None:
    with pytest.raises(SerializationError, match="paglet reference"):
        PagletProxyRef.from_wire(payload)


def test_a_proxy_and_its_reference_stand_for_the_same_paglet() -> None:
    client = HostClient()
    proxy = PagletProxy("http://beta", "id", client)
    assert PagletProxyRef.from_proxy(proxy) == REF
    assert REF.resolve(client) == proxy


def test_resolve_uses_the_client_of_a_context() -> None:
    client = HostClient()
    context = SimpleNamespace(host=SimpleNamespace(client=client))
    assert REF.resolve(context).client is client


def test_resolve_uses_a_client() -> None:
    client = HostClient()
    assert REF.resolve(client).client is client


@pytest.mark.parametrize("other", [None, SimpleNamespace(host=None)])
def test_resolve_makes_a_client_when_it_gets_none(other: Any) -> None:
    proxy = REF.resolve(other)
    assert (proxy.host_url, proxy.agent_id) == ("http://beta", "id")
    assert isinstance(proxy.client, HostClient)
