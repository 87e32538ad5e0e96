"""Qualified names and the policy over them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import ForbiddenError, SerializationError
from paglets.serialization.names import (
    ClassPolicy,
    qualified_name,
    resolve_class,
    resolve_qualified_name,
    validate_qualified_name,
)
from tests.serialization.states import Box, ComplexState, Job


class Outer:
    class Inner:
        pass


class Explosive(type):
    def __getattr__(cls, name: str) -> Any:
        raise RuntimeError("touched")


class Mine(metaclass=Explosive):
    pass


def test_name_of_a_class_and_of_an_instance() -> None:
    assert qualified_name(ComplexState) == "tests.serialization.states:ComplexState"
    assert qualified_name(Job(1)) == qualified_name(Job)
    assert qualified_name(Outer.Inner) == "tests.serialization.test_names:Outer.Inner"
    assert qualified_name(Box[int]) == "tests.serialization.states:Box"
    for cls in (ComplexState, Outer.Inner):
        assert resolve_qualified_name(qualified_name(cls)) is cls
        assert resolve_class(qualified_name(cls)) is cls


def test_a_local_class_has_no_name() -> None:
    class Local:
        pass

    for value in (Local, Local()):
        with pytest.raises(SerializationError, match="module level"):
            qualified_name(value)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "a",
        "a.b",
        "a:",
        ":b",
        "a:b:c",
        "a..b:c",
        ".a:b",
        "a:b.",
        "a b:c",
        "a:b()",
        "a:<locals>.b",
        "a/b:c",
        "../a:b",
        "a:b\n",
        "a:" + "b" * 600,
        5,
        None,
    ],
)
def test_bad_syntax_is_refused_before_any_import(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paglets.serialization.names.import_module", lambda _: pytest.fail("imported"))
    for check in (validate_qualified_name, resolve_qualified_name, ClassPolicy().check):
        with pytest.raises(SerializationError):
            check(name)


@given(st.text(max_size=60))
def test_any_text_is_split_or_refused(text: str) -> None:
    try:
        module, path = validate_qualified_name(text)
    except SerializationError:
        return
    assert f"{module}:{path}" == text


def test_what_does_not_resolve() -> None:
    with pytest.raises(SerializationError, match=r"cannot import 'no_such_module_at_all'"):
        resolve_qualified_name("no_such_module_at_all:X")
    with pytest.raises(SerializationError, match="cannot resolve"):
        resolve_qualified_name("tests.serialization.states:Missing")
    with pytest.raises(SerializationError, match="RuntimeError: touched"):
        resolve_qualified_name("tests.serialization.test_names:Mine.anything")


@pytest.mark.parametrize("body", ["raise RuntimeError('no')", "import sys; sys.exit(3)", "1/0", "def"])
def test_a_module_that_fails_to_import(body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_module_for_names.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SerializationError, match="cannot import 'failing_module_for_names'"):
        resolve_qualified_name("failing_module_for_names:X")
    sys.modules.pop("failing_module_for_names", None)


def test_a_class_answers_to_its_own_name_only() -> None:
    with pytest.raises(SerializationError, match="another name of"):
        resolve_class("tests.serialization.test_names:Job")
    with pytest.raises(SerializationError, match="not a class"):
        resolve_class("tests.serialization.test_names:sys")


class TestPolicy:
    @pytest.mark.parametrize(
        ("allow", "name", "expected"),
        [
            (("myapp",), "myapp:A", True),
            (("myapp",), "myapp.sub.mod:A", True),
            (("myapp",), "myapplication:A", False),
            (("myapp.*",), "myapp:A", False),
            (("myapp.*",), "myapp.sub:A", True),
            (("tests.test_x:Cls",), "tests.test_x:Cls", True),
            (("tests.test_x:Cls",), "tests.test_x:Cls.Inner", True),
            (("tests.test_x:Cls",), "tests.test_x:Clsx", False),
            (("tests.test_x:Cls",), "tests.test_x.sub:Cls", False),
            (("tests.test_x:*",), "tests.test_x:Any", True),
            (("tests.test_x:*",), "tests.test_x.sub:Any", False),
            (("a", "b"), "b.c:D", True),
            ((), "a:B", False),
            (None, "myapp:A", True),
            (None, "__main__:A", False),
            (None, "__mp_main__:A", False),
            (None, "builtins:eval", False),
            (None, "os:system", False),
            (None, "os.path:join", False),
            (None, "subprocess:Popen", False),
            (None, "paglets.core.agent:Paglet", True),
            (("collections",), "collections:OrderedDict", True),
        ],
    )
    def test_patterns(self, allow: tuple[str, ...] | None, name: str, expected: bool) -> None:
        policy = ClassPolicy(allow)
        assert policy.allows(name) is expected
        if expected:
            policy.check(name)
        else:
            with pytest.raises(ForbiddenError, match="allow it by adding"):
                policy.check(name)

    def test_the_default_allows_everything_but_the_dangerous(self) -> None:
        assert ClassPolicy() == ClassPolicy(None)

    @pytest.mark.parametrize("pattern", ["", "*", "a b", "a.*.b", "a:", "a:b:c", ".*", "a:b.*", 5])
    def test_a_malformed_pattern_is_refused_at_once(self, pattern: Any) -> None:
        with pytest.raises(ValueError, match="no class pattern"):
            ClassPolicy((pattern,))

    def test_a_list_will_do_but_one_text_will_not(self) -> None:
        assert ClassPolicy(["a"]).allow == ("a",)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="tuple of patterns"):
            ClassPolicy("myapp")  # type: ignore[arg-type]
