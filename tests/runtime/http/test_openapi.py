"""The description of the API is complete, needs no other server, and is true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from paglets.core.errors import PagletCrashedError
from paglets.core.messages import Message
from paglets.runtime.host import Host
from paglets.runtime.http.routes import ROUTES
from tests.agents.http_agents import Parrot, Talker
from tests.effort import thorough
from tests.runtime.http.wire import ask
from tests.support import HostFactory

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ACTIVE, INACTIVE, CRASHED = "active-one", "inactive-one", "crashed-one"
#: For each operation, once with bodies and parameters as described and once with others.
EXAMPLES = thorough(4, 8)
STATUSES = {
    "200", "400", "401", "403", "404", "405", "408", "409", "413", "415", "422", "429", "431", "500", "503", "507",
}  # fmt: skip
MOVEMENT = "application/x-paglets-movement"


@schemathesis.serializer(MOVEMENT)
def movement(ctx: Any, value: Any) -> bytes:
    """Send what was generated as it is: bytes, and next to never a movement."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@pytest.fixture(scope="module")
def described(host: Host) -> dict[str, Any]:
    reply = ask(host.address, "GET", "/schema/openapi.json")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("application/vnd.oai.openapi+json")
    document: dict[str, Any] = reply.json()
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_every_route_is_described(described: dict[str, Any]) -> None:
    served = {
        (method, re.sub(r":\w+}", "}", path))
        for route in ROUTES
        for path in route.paths
        for method in route.http_methods
    }
    assert {(method, path) for method, path, _ in operations(described)} == served
    assert {("GET", "/health"), ("POST", "/agents/{agent_id}/messages"), ("POST", "/admin/git-update")} <= served


def test_every_answer_is_described(described: dict[str, Any]) -> None:
    for method, path, operation in operations(described):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        answers = operation["responses"]
        content = path == "/artifacts/{artifact_id}" and method in ("GET", "HEAD")
        assert set(answers) == STATUSES | ({"206", "416"} if content else set()), where
        for status, answer in answers.items():
            assert answer["description"], where
            if content and status in ("200", "206"):
                assert set(answer["content"]) == {"application/octet-stream"}, where
                continue
            schema = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert (schema == "ErrorReply") is (status != "200"), where
            assert schema in described["components"]["schemas"]


def test_the_key_and_movements_are_described(described: dict[str, Any]) -> None:
    assert described["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert described["security"] == [{"bearer": []}]
    content = described["paths"]["/agents"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/x-paglets-movement"}
    for path, method in (("/artifacts", "post"), ("/blobs/{sha256}", "put")):
        assert set(described["paths"][path][method]["requestBody"]["content"]) == {"application/octet-stream"}


class Resources(HTMLParser):
    """Collect what a page would load or link to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]


def test_the_page_needs_no_other_server(host: Host, described: dict[str, Any]) -> None:
    reply = ask(host.address, "GET", "/schema")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/html")
    page = reply.body.decode()
    resources = Resources()
    resources.feed(page)
    assert resources.found == ["schema/openapi.json"]
    assert not resources.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    assert "url(" not in page
    assert "@import" not in page
    for method, path, operation in operations(described):
        assert f"<code>{method}</code>" in page
        assert f"<code>{path}</code>" in page
        assert operation["summary"].replace("'", "&#x27;") in page


def test_other_pages_are_not_there(host: Host) -> None:
    for path in ("/schema/swagger", "/schema/redoc", "/schema/openapi.yaml", "/docs", "/schema/x/y"):
        assert ask(host.address, "GET", path).status == 404


def people(host: Host) -> None:
    """See that the host has paglets in every state, and takes them."""
    host.undrain()
    present = {summary["agent_id"]: summary for summary in host.list_agents(inactive=True)}
    for agent_id, wanted in ((ACTIVE, (True, False)), (INACTIVE, (False, False)), (CRASHED, (False, True))):
        summary = present.get(agent_id)
        if summary is not None:
            if (summary["active"], summary.get("crashed", False)) == wanted:
                continue
            host.dispose(agent_id)
        proxy = host.create(Parrot if agent_id == ACTIVE else Talker, agent_id=agent_id)
        if agent_id == INACTIVE:
            proxy.deactivate()
        if agent_id == CRASHED:
            with pytest.raises(PagletCrashedError):
                proxy.send(Message("leave", {"code": 3}))


def tame(case: Any, agent_id: str | None) -> None:
    """Let a generated request reach something, and end soon."""
    if agent_id is not None and "agent_id" in (case.path_parameters or {}):
        case.path_parameters["agent_id"] = agent_id
    if isinstance((case.query or {}).get("wait"), int | float):
        case.query["wait"] = min(case.query["wait"], 0.05)
    body = case.body
    if isinstance(body, dict):
        if isinstance(body.get("ticket"), dict):
            body["ticket"] |= {"retries": 0, "timeout": 0.2}
        if agent_id is not None and "agent_class_name" in body:
            body["agent_class_name"] = "tests.agents.http_agents:Talker"


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_host_keeps_to_its_description(hosts: HostFactory, mode: GenerationMode) -> None:
    host = hosts("peopled")
    schema = schemathesis.openapi.from_url(f"{host.address}/schema/openapi.json")
    statuses: dict[str, set[int]] = {}

    def try_operation(operation: Any) -> None:
        chosen = st.sampled_from([None, ACTIVE, INACTIVE, CRASHED])

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), agent_id=chosen)
        def check(case: Any, agent_id: str | None) -> None:
            people(host)
            tame(case, agent_id)
            response = case.call_and_validate(checks=CHECKS, timeout=10)
            statuses.setdefault(operation.label, set()).add(response.status_code)

        check()

    for result in schema.get_all_operations():
        try_operation(result.ok())

    reached = set().union(*statuses.values())
    assert len(statuses) == sum(len(route.http_methods) for route in ROUTES)
    assert reached >= ({200, 400, 404} if mode is GenerationMode.POSITIVE else {400, 404}), statuses
    assert ask(host.address, "GET", "/health").status == 200
