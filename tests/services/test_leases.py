from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import HostError, RemoteHostError
from paglets.remote.references import PagletProxyRef
from paglets.services import leases
from paglets.services.records import ServiceRecord

HOST = "http://h:1/relay/hosts/b"


@given(st.text(min_size=1))
def test_what_gives_a_lease_back_is_told_from_everything_else(lease_id: str) -> None:
    url = leases.release_url(f"{HOST}/", lease_id)
    assert leases.given_back(url) == leases.GivenBack(HOST, lease_id)


@pytest.mark.parametrize("path", ["", "/services/leases", "/services/leases//release", "/services/leases/a/b/release"])
def test_other_requests_give_nothing_back(path: str) -> None:
    assert leases.given_back(f"{HOST}{path}") is None


@pytest.mark.parametrize("ttl", [0.0, -1.0, math.inf, math.nan, leases.LONGEST_LEASE_SECONDS * 1.01])
def test_a_time_that_no_lease_may_have_is_refused(ttl: float) -> None:
    with pytest.raises(HostError, match="ttl"):
        leases.checked_ttl(ttl)


@pytest.mark.parametrize("ttl", [0.001, 60, leases.LONGEST_LEASE_SECONDS])
def test_other_times_are_taken(ttl: float) -> None:
    assert leases.checked_ttl(ttl) == ttl


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"lease_id": 1, "expires_at": 1.0}, {"lease_id": "a", "expires_at": True}]
)
def test_an_answer_without_a_lease_is_malformed(answer: Any) -> None:
    with pytest.raises(RemoteHostError, match="malformed"):
        leases.granted(answer, HOST)


def test_an_answer_with_a_lease() -> None:
    assert leases.granted({"lease_id": "a", "expires_at": 2, "more": 1}, HOST) == {"lease_id": "a", "expires_at": 2.0}


def test_the_host_of_a_record_is_the_one_that_keeps_the_service() -> None:
    proxy = PagletProxyRef("http://elsewhere:1", "id")
    assert leases.host_of(ServiceRecord("s", proxy)) == "http://elsewhere:1"
    assert leases.host_of(ServiceRecord("s", proxy, host_url=f"{HOST}/")) == HOST
    assert leases.acquire_url(HOST) == f"{HOST}/services/leases"
