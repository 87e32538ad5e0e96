from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any, Generic, TypeVar

import pytest

from paglets.core.frozen import stays_frozen

T = TypeVar("T")


@stays_frozen
@dataclass(frozen=True, slots=True)
class Box(Generic[T]):
    content: T
    label: str = ""


class Crate(Box[T]):
    """Has attributes of its own, like any subclass that is no dataclass."""


@pytest.mark.parametrize("name", ["content", "label", "other", "__orig_class__"])
def test_nothing_is_set_or_deleted(name: str) -> None:
    box = Box(3)
    with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
        setattr(box, name, 4)
    with pytest.raises(FrozenInstanceError, match=f"cannot delete field '{name}'"):
        delattr(box, name)
    assert box == Box(3)


def test_one_is_made_with_its_types_named() -> None:
    assert Box[int](3, "three") == Box(3, "three")
    assert not hasattr(Box[int](3), "__dict__")


def test_a_subclass_keeps_the_fields_frozen_and_may_have_attributes() -> None:
    crate: Any = Crate[int](3)
    crate.other = 4
    assert crate.other == 4
    del crate.other
    assert not hasattr(crate, "other")
    with pytest.raises(FrozenInstanceError):
        crate.content = 4
    with pytest.raises(FrozenInstanceError):
        del crate.content


def test_copies_are_equal() -> None:
    box = Box[list[int]]([1], "one")
    for again in (copy.copy(box), copy.deepcopy(box), pickle.loads(pickle.dumps(box))):
        assert again == box
    assert replace(box, label="two") == Box([1], "two")
    assert hash(Box("a")) == hash(Box[str]("a"))
