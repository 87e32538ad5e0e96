"""The table of roles: every route is in it, and no path reaches a route by another entry than its own."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Litestar, get
from litestar._asgi.routing_trie.traversal import parse_path_to_route
from litestar.exceptions import HTTPException

from paglets.runtime.host import Host
from paglets.runtime.http import access
from paglets.runtime.http.access import ACCESS, judged_path, role_of_route, wanted
from paglets.runtime.http.answers import check_listed, on_error
from paglets.runtime.http.documented import JsonRequest
from paglets.runtime.http.guards import Guard, GuardPolicy
from paglets.runtime.http.page import documented_routes
from paglets.runtime.http.routes import ROUTES
from paglets.security.roles import Role
from tests.effort import thorough
from tests.runtime.http.wire import Served, ask


@pytest.fixture
def application() -> Litestar:
    return documented_routes("0")


def served(application: Litestar) -> set[tuple[str, str]]:
    """Return method and path of every route."""
    return {
        (str(method), route.path_format)
        for route in application.routes
        for method in getattr(route, "methods", ())
        if method != "OPTIONS"
    }


def test_every_route_has_a_role(application: Litestar) -> None:
    routes = served(application)
    assert len(routes) > 30
    assert {route for route in routes if role_of_route(*route) is None} == set()


def test_every_role_has_a_route(application: Litestar) -> None:
    def plain(path: str) -> str:
        return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))

    routes = {(method, plain(path)) for method, path in served(application)}
    listed = {(method, path) for path, methods in ACCESS.items() for method in methods}
    # Those of leases are listed before they are there; what is under /relay/ is the gateway's.
    others = {entry for entry in listed - routes if not entry[1].startswith("/services/leases")}
    assert others == {
        ("GET", "/relay/link"),
        ("GET", "/relay/diagnostics"),
        ("GET", "/relay/names"),
        ("POST", "/relay/names/{}/release"),
    }


def test_who_may_see_may_not_touch() -> None:
    for path, methods in ACCESS.items():
        for method, role in methods.items():
            if method != "GET":
                assert role >= Role.MESSAGE, path
            if path.startswith("/admin") and method != "GET":
                assert role is Role.ADMIN, path
    assert wanted("GET", "/agents").role is Role.OBSERVE  # type: ignore[union-attr]
    for query in (b"include_state=1", b"include%5Fstate=no", b"x=1&include_state", b"include%5fstate=1;state=all"):
        found = wanted("GET", "/agents", query)
        assert found is not None
        assert found.role is Role.MESSAGE


@pytest.mark.parametrize(
    ("method", "path", "template", "target"),
    [
        ("GET", "/health", "/health", ""),
        ("GET", "//health/", "/health", ""),
        ("POST", "/agents/", "/agents", ""),
        ("POST", "/agents/a/messages", "/agents/{}/messages", "a"),
        ("POST", "/dead-letters/retry", "/dead-letters/retry", ""),
        ("POST", "/dead-letters/7/retry", "/dead-letters/{}/retry", "7"),
        ("POST", "/relay/hosts/b/agents/a/dispose", "/relay/hosts/{}/agents/{}/dispose", "b/a"),
    ],
)
def test_paths_find_their_entry(method: str, path: str, template: str, target: str) -> None:
    found = wanted(method, path)
    assert found is not None
    assert (found.template, found.target) == (template, target)


def test_what_is_relayed_needs_what_it_needs_here() -> None:
    for path, methods in ACCESS.items():
        for method, role in methods.items():
            found = wanted(method, "/relay/hosts/beta" + path.replace("{}", "x"))
            assert found is not None, path
            assert found.role is role
    assert wanted("POST", "/relay/hosts/b/relay/hosts/c/agents") is None


def test_a_name_with_a_slash_is_one_part() -> None:
    def judged(raw: str) -> str | None:
        found = wanted("GET", judged_path(unquote(raw), raw.encode()))
        return None if found is None else found.template

    assert judged("/relay/hosts/a%2Fagents/agents/x/state") == "/relay/hosts/{}/agents/{}/state"
    assert judged("/relay/hosts/a%2Fagents%2Fx/health") == "/relay/hosts/{}/health"
    assert judged("/relay/hosts/a/agents%2Fx%2Fstate") == "/relay/hosts/{}/agents/{}/state"
    assert judged("/relay/hosts/a%2Fhealth") is None
    assert judged("/relay%2Fhosts/a/health") is None
    assert judged("/agents%2Fx/state") == "/agents/{}/state"


@pytest.mark.parametrize("path", ["/", "", "/nowhere", "/agents/a/b/c/d", "/health/x", "/relay/hosts/x", "/x" * 1000])
def test_other_paths_have_none(path: str) -> None:
    assert wanted("GET", path) is None
    assert wanted("PATCH", "/health") is None


PARTS = sorted({part for path in ACCESS for part in path.split("/") if part} | {"x", "7", "..", ".", "", "retry "})


@settings(max_examples=thorough(133, 400), deadline=None)
@given(st.sampled_from(["GET", "POST", "PUT", "DELETE"]), st.lists(st.sampled_from(PARTS), max_size=6))
def test_no_path_is_routed_to_more_than_its_entry_allows(method: str, parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    found = wanted(method, path)
    handled = routed(method, path)
    if handled is not None and found is not None:
        # Where the two differ the route's own check is what counts; they must agree about the role.
        assert role_of_route(method, handled) == access.ACCESS[found.template.removeprefix("/relay/hosts/{}")][method]


def routed(method: str, path: str) -> str | None:
    """Return the path of the route that the application takes, None for none."""
    global _APPLICATION
    if _APPLICATION is None:
        _APPLICATION = Litestar(route_handlers=ROUTES, openapi_config=None, request_class=JsonRequest)
    router = _APPLICATION.asgi_router
    try:
        _, _, _, _, template = parse_path_to_route(
            method=method,  # type: ignore[arg-type]
            mount_paths_regex=router._mount_paths_regex,
            mount_routes=router._mount_routes,
            path="/" + "/".join(part for part in path.split("/") if part),
            plain_routes=router._plain_routes,
            root_node=router.root_route_map_node,
        )
    except HTTPException:
        return None
    return template


_APPLICATION: Any = None


def test_a_route_without_an_entry_is_served_to_nobody(host: Host) -> None:
    @get("/forgotten")
    async def forgotten() -> str:
        return "secret"

    @get("/health")
    async def fine() -> str:
        return "fine"

    inner: Any = Litestar([forgotten, fine], guards=[check_listed], exception_handlers={Exception: on_error})
    policy = GuardPolicy(None, frozenset({"localhost"}))
    with Served(Guard(inner, lambda: policy)) as address:
        assert ask(address.address, "GET", "/health").body == b"fine"
        refused = ask(address.address, "GET", "/forgotten")
    assert (refused.status, refused.error) == (403, "ForbiddenError")
