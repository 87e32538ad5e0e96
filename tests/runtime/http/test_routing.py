"""Which route a request is for, and what it is called with."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.core.errors import HostError, NotFoundError, SerializationError
from paglets.runtime.http.answers import answer
from paglets.runtime.http.errors import MethodNotAllowedError
from paglets.runtime.http.guards import CONTENT_TYPE, MEDIA_TYPE
from paglets.runtime.http.replies import OkReply
from paglets.runtime.http.routes import ROUTES
from paglets.runtime.http.routing import Answer, Request, Route, Routing, get, json_body, post

Count = Annotated[int, msgspec.Meta(ge=0, le=9)]


@get("/things/all", summary="Named", reply=OkReply)
async def named(request: Request) -> Answer:
    return answer("named")


@get("/things/{thing}", summary="Chosen", reply=OkReply)
async def chosen(
    request: Request,
    thing: Annotated[str, msgspec.Meta(max_length=5)],
    count: Count = 3,
    word: Annotated[str, msgspec.Meta(max_length=5)] | None = None,
) -> Answer:
    return answer([thing, count, word])


@post("/things/{number:int}", summary="Numbered", reply=OkReply)
async def numbered(request: Request, number: int, size: int, data: dict[str, int] | None = None) -> Answer:
    return answer(number)


@post("/things/{thing}/more", summary="Below", reply=OkReply)
async def below(request: Request, thing: str, data: list[int]) -> Answer:
    return answer(data)


ROUTING = Routing([named, chosen, numbered, below])


@pytest.mark.parametrize(
    ("method", "path", "route", "parts"),
    [
        ("GET", "/things/all", named, {}),
        ("GET", "/things/other", chosen, {"thing": "other"}),
        ("GET", "/things/12", chosen, {"thing": "12"}),
        ("GET", "//things//12/", chosen, {"thing": "12"}),
        ("POST", "/things/12", numbered, {"number": "12"}),
        ("POST", "/things/all/more", below, {"thing": "all"}),
    ],
)
def test_a_path_finds_its_route(method: str, path: str, route: Route, parts: dict[str, str]) -> None:
    assert ROUTING.find(method, path) == (route, parts)


@pytest.mark.parametrize("path", ["/", "", "/things", "/things/a/b", "/nothing", "/things/a/more/x", "/x" * 5000])
def test_other_paths_have_none(path: str) -> None:
    with pytest.raises(NotFoundError, match="No route for GET"):
        ROUTING.find("GET", path)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/things/12", "GET, OPTIONS, POST"), ("/things/x", "GET, OPTIONS"), ("/things/x/more", "OPTIONS, POST")],
)
def test_another_method_is_told_which_there_are(path: str, allowed: str) -> None:
    with pytest.raises(MethodNotAllowedError) as caught:
        ROUTING.find("DELETE", path)
    assert caught.value.allowed == allowed


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["GET", "POST", "PUT", "HEAD"]), st.text(max_size=30), st.sampled_from(ROUTES))
def test_any_path_is_routed_or_refused(method: str, text: str, route: Route) -> None:
    path = "/" + "/".join(text if part.startswith("{") else part for part in route.parts)
    try:
        found, parts = Routing(ROUTES).find(method, path)
    except HostError as exc:
        assert isinstance(exc, NotFoundError | MethodNotAllowedError)
    else:
        assert method in found.methods
        assert set(parts) == found.call.in_path


def test_parts_and_query_come_as_what_they_are_declared() -> None:
    assert chosen.call.arguments({"thing": "a"}, b"") == {"thing": "a", "count": 3, "word": None}
    assert chosen.call.arguments({"thing": "a"}, b"count=7&word=null&other=1") == {
        "thing": "a",
        "count": 7,
        "word": "null",
    }
    assert chosen.call.arguments({"thing": "a"}, b"count=1&count=2&thing=b&word=") == {
        "thing": "a",
        "count": 2,
        "word": "",
    }


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (b"count=x", "count: Expected `int`, got `str`"),
        (b"count=10", "count: Expected `int` <= 9"),
        (b"count=", "count: Expected `int`"),
        (b"word=toolong", "word: Expected `str` of length <= 5"),
    ],
)
def test_what_is_wrong_in_a_query_is_named(query: bytes, text: str) -> None:
    with pytest.raises(SerializationError, match=f"^{text}"):
        chosen.call.arguments({"thing": "a"}, query)


def test_what_is_missing_in_a_query_is_named() -> None:
    with pytest.raises(SerializationError, match=r"^the query lacks `size`$"):
        numbered.call.arguments({"number": "1"}, b"")


def test_the_body_is_read_whole() -> None:
    pieces = [b"[1,", b"2", b"]"]

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    assert asyncio.run(json_body(Request({}, receive))) == b"[1,2]"
    with pytest.raises(SerializationError, match="a JSON body is missing"):
        asyncio.run(json_body(Request({MEDIA_TYPE: CONTENT_TYPE}, receive)))


def test_what_a_route_is_called_with_is_known_from_its_annotations() -> None:
    assert [name for name, _, _ in numbered.call.fields] == ["number", "size"]
    assert numbered.call.in_path == {"number"}
    assert numbered.call.takes_data and numbered.call.optional
    assert below.call.takes_data and not below.call.optional
    assert not named.call.takes_data
    assert below.public_path == "/things/{thing}/more"
    assert numbered.public_path == "/things/{number}"


def test_every_route_can_be_called() -> None:
    for route in ROUTES:
        assert route.call.in_path <= {name for name, _, _ in route.call.fields}, route.path
        assert route.summary and route.description, route.path
