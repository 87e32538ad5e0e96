"""Which paglet classes there are: found by importing, and by reading alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.remote.admin import AgentDiscoveryConfig
from paglets.tooling.discovery import AgentClassRecord, DiscoveryResult, discover_agent_classes
from tests.support import HostFactory

SHAPES = '''
"""Shapes."""
from __future__ import annotations
import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar
import paglets.core.agent as agents
from paglets.core.agent import Paglet, PagletState
from paglets.patterns.tasks import TaskPaglet, TaskState


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int = 1
    y: float = 2.5


@dataclass
class CountState(PagletState):
    KIND: ClassVar[str] = "count"
    name: str
    count: int = 3
    items: list[int] = field(default_factory=list)
    colour: Colour = Colour.RED
    where: Point = dataclasses.field(default_factory=Point)
    tags: set[str] = field(default_factory=lambda: {"b", "a"})


class Counter(Paglet[CountState]):
    """Count things.

    At length.
    """

    State = CountState


class Derived(Counter):
    pass


class Nested(agents.Paglet):
    @dataclass
    class State:
        text: str = "t"


class Chore(TaskPaglet):
    """Do."""

    @dataclass
    class MyState(TaskState):
        more: int = 0

    State = MyState


class Base(Paglet, ABC):
    State = CountState

    @abstractmethod
    def todo(self) -> None: ...


class Done(Base):
    def todo(self) -> None: ...


class Stateless(Paglet):
    pass


class NoDataclass(Paglet):
    class State:
        pass


class Other:
    State = CountState
'''
FOUND = ["Chore", "Counter", "Derived", "Done", "Nested"]


@pytest.fixture(params=[False, True], ids=["imported", "static"])
def static(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(autouse=True)
def no_modules_stay() -> Iterator[None]:
    before, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - before:
        if name.split(".")[0].startswith("disco"):
            del sys.modules[name]


def look(*paths: Path | str, modules: tuple[str, ...] = (), static: bool) -> DiscoveryResult:
    return discover_agent_classes(AgentDiscoveryConfig([str(each) for each in paths], list(modules)), static=static)


def by_name(result: DiscoveryResult) -> dict[str, AgentClassRecord]:
    return {record.display_name: record for record in result.agent_classes}


def test_classes_and_their_states(tmp_path: Path, static: bool) -> None:
    directory = tmp_path / "disco_a"
    directory.mkdir()
    (directory / "shapes.py").write_text(SHAPES)
    (directory / "again.py").write_text("from disco_a.shapes import Counter\n")
    (directory / "_private.py").write_text("raise RuntimeError\n")
    result = look(directory, directory / "shapes.py", static=static)
    names = [record.class_name for record in result.agent_classes]
    # The file by itself is a module of another name.
    assert names == [f"disco_a.shapes:{name}" for name in FOUND] + [f"shapes:{name}" for name in FOUND]
    if not static:
        del sys.modules["shapes"]
    assert result.errors == []
    found = {record.class_name.removeprefix("disco_a.shapes:"): record for record in result.agent_classes[:5]}
    assert found["Counter"] == AgentClassRecord(
        "disco_a.shapes:Counter",
        "disco_a.shapes:CountState",
        "Counter",
        "Count things.",
        found["Counter"].state_template,
        ["name"],
    )
    assert found["Counter"].state_template == {
        "count": 3,
        "items": [],
        "colour": "red",
        "where": {"x": 1, "y": 2.5},
        "tags": ["a", "b"],
    }
    assert found["Nested"].state_class_name == "disco_a.shapes:Nested.State"
    assert found["Nested"].state_template == {"text": "t"}
    assert found["Chore"].state_class_name == "disco_a.shapes:Chore.MyState"
    assert found["Chore"].state_template["more"] == 0
    assert found["Derived"].description == ""


def test_both_ways_agree_on_the_paglets_of_this_project() -> None:
    directory = Path(__file__).parents[1] / "agents"
    one, other = (by_name(look(directory, static=each)) for each in (False, True))
    assert one.keys() == other.keys()
    assert len(one) > 20
    for name, record in one.items():
        assert other[name].class_name == record.class_name
        assert other[name].required_state_fields == record.required_state_fields
        read = other[name].state_template
        assert {key: record.state_template[key] for key in read} == read


def test_packages_in_a_directory_that_is_no_package(tmp_path: Path, static: bool) -> None:
    package = tmp_path / "not-a-name" / "disco_pkg" / "deep"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("from .deep.work import Walker\n")
    (package / "__init__.py").write_text("")
    (package / "work.py").write_text(
        "from dataclasses import dataclass\n"
        "from paglets.core.agent import Paglet\n"
        "@dataclass\nclass S:\n    a: int\n"
        "class Walker(Paglet):\n    'Walk.'\n    State = S\n"
    )
    result = look(tmp_path / "not-a-name", static=static)
    assert [record.class_name for record in result.agent_classes] == ["disco_pkg.deep.work:Walker"]
    assert result.agent_classes[0].required_state_fields == ["a"]
    assert result.errors == []


def test_problems_are_told_and_the_rest_is_found(tmp_path: Path, static: bool) -> None:
    directory = tmp_path / "disco_bad"
    directory.mkdir()
    (directory / "broken.py").write_text("def (:\n")
    (directory / "fine.py").write_text(SHAPES)
    (tmp_path / "note-book.py").write_text("")
    result = look(tmp_path / "absent", tmp_path / "note-book.py", directory, modules=("disco_missing",), static=static)
    assert sorted(by_name(result)) == FOUND
    texts = "\n".join(result.errors)
    assert f"Discovery path does not exist: {tmp_path / 'absent'}" in texts
    assert "note-book.py" in texts
    assert "SyntaxError" in texts
    assert "disco_missing" in texts
    assert len(result.errors) == 4


def test_static_runs_nothing_and_imports_find_what_is_made_at_run_time(tmp_path: Path) -> None:
    (tmp_path / "disco_run.py").write_text(
        SHAPES + "\nimport sys\nsys.disco_ran = True\nMade = type('Made', (Counter,), {'__module__': __name__})\n"
    )
    assert sorted(by_name(look(tmp_path / "disco_run.py", static=True))) == FOUND
    assert not hasattr(sys, "disco_ran")
    assert sorted(by_name(look(tmp_path / "disco_run.py", static=False))) == sorted([*FOUND, "Made"])
    del sys.disco_ran  # type: ignore[attr-defined]


def test_a_module_that_exits_or_needs_another(tmp_path: Path) -> None:
    (tmp_path / "disco_exit.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "disco_needs.py").write_text("import nothing_of_that_name\n")
    result = look(tmp_path / "disco_exit.py", tmp_path / "disco_needs.py", static=False)
    assert [error.startswith("Could not import ") for error in result.errors] == [True, True]
    assert look(tmp_path / "disco_needs.py", static=True).errors == []


def test_defaults_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "disco_def.py").write_text(
        "from dataclasses import dataclass, field\nfrom typing import Any\n"
        "from paglets.core.agent import Paglet\n"
        "def fails(): raise RuntimeError('no')\n"
        "@dataclass\nclass S:\n    a: Any = object()\n    b: int = field(default_factory=fails)\n    c: int = 1\n"
        "class P(Paglet):\n    State = S\n"
    )
    result = look(tmp_path / "disco_def.py", static=False)
    (record,) = result.agent_classes
    assert (record.state_template, record.required_state_fields) == ({"c": 1}, ["a", "b"])
    assert ["'a'" in result.errors[0], "RuntimeError: no" in result.errors[1]] == [True, True]
    (record,) = look(tmp_path / "disco_def.py", static=True).agent_classes
    # That they have a default can be read, what it is cannot.
    assert (record.state_template, record.required_state_fields) == ({"c": 1}, [])


def test_another_module_of_that_name(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "disco_same.py").write_text("")
    result = look(tmp_path / "one" / "disco_same.py", tmp_path / "two" / "disco_same.py", static=False)
    assert [f"{tmp_path / 'one' / 'disco_same.py'}" in error for error in result.errors] == [True]


def test_classes_that_extend_one_another(tmp_path: Path) -> None:
    (tmp_path / "disco_loop.py").write_text("class A(B): ...\nclass B(A): ...\nclass C(C): ...\nD = E\nE = D\n")
    assert look(tmp_path / "disco_loop.py", static=True) == DiscoveryResult([], [])


def test_a_found_class_can_be_created_with_its_template(hosts: HostFactory) -> None:
    result = look(modules=("tests.agents.keeper",), static=True)
    record = next(each for each in result.agent_classes if not each.required_state_fields)
    host = hosts("found")
    body: dict[str, Any] = {
        "agent_class_name": record.class_name,
        "state_class_name": record.state_class_name,
        "state": record.state_template,
    }
    created = host.client.post_json(f"{host.address}/agents", body)
    there = host.client.get_json(f"{host.address}/agents")["agents"]
    assert [each["agent_id"] for each in there] == [created["proxy"]["agent_id"]]
