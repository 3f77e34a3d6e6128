"""Values are to a reader and to the standard library what frozen dataclasses are."""

from __future__ import annotations

import copy
import pickle
from dataclasses import (
    FrozenInstanceError,
    asdict,
    dataclass,
    field,
    fields,
    is_dataclass,
    make_dataclass,
    replace,
)
from typing import Any, ClassVar

import pytest

from xdpctl.value import Value


class Ours(Value):
    """One without a default, one with, one that is made anew, and what is no field."""

    limit: ClassVar[int] = 3
    name: str
    size: int = 5
    names: tuple[str, ...] = field(default_factory=tuple)

    @property
    def twice(self) -> int:
        return 2 * self.size


class Empty(Value):
    """Nothing."""


class Heir(Ours):
    """What it inherits comes first."""

    last: bool = False


@dataclass(frozen=True)
class Theirs:
    """What the standard library makes of the same."""

    limit: ClassVar[int] = 3
    name: str
    size: int = 5
    names: tuple[str, ...] = field(default_factory=tuple)


GIVEN: list[tuple[tuple[object, ...], dict[str, object]]] = [
    (("a",), {}),
    (("a", 7), {}),
    (("a", 7, ("b",)), {}),
    (("a",), {"names": ("b",)}),
    ((), {"size": 7, "name": "a"}),
]


@pytest.mark.parametrize(("args", "named"), GIVEN)
def test_it_is_like_the_dataclass(args: Any, named: Any) -> None:
    ours, theirs = Ours(*args, **named), Theirs(*args, **named)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert asdict(ours) == asdict(theirs)
    assert hash(ours) == hash(theirs)
    assert ours == Ours(*args, **named) != replace(ours, size=8)
    assert asdict(replace(ours, size=8)) == asdict(replace(theirs, size=8))
    assert len({ours, Ours(*args, **named), replace(ours, size=8)}) == 2


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), {}),
        ((), {"size": 1}),
        (("a",), {"name": "b"}),
        (("a",), {"names": (), "title": "b"}),
        (("a",), {"limit": 4}),
        (("a",), {"twice": 4}),
        (("a", 1, (), 2), {}),
    ],
)
def test_both_refuse_the_same(args: Any, named: Any) -> None:
    for kind in (Ours, Theirs):
        with pytest.raises(TypeError):
            kind(*args, **named)


def test_nothing_changes() -> None:
    value = Ours("a")
    for name in ("name", "other"):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, 1)
        with pytest.raises(FrozenInstanceError):
            delattr(value, name)
    assert value == Ours("a")


def test_what_the_library_does_with_them() -> None:
    value = Ours("a", 4)
    assert is_dataclass(value)
    assert [one.name for one in fields(value)] == ["name", "size", "names"]
    assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value
    match value:
        case Ours(name, 4):
            assert name == "a"
        case _:
            pytest.fail("it does not match")
    assert (value.twice, value.limit) == (8, 3)


def test_kinds_are_different() -> None:
    assert Ours("a") != Theirs("a")
    assert Ours("a") != Heir("a")
    assert Heir("a", last=True).last
    assert repr(Heir("a", 1)) == "Heir(name='a', size=1, names=(), last=False)"
    assert Empty() == Empty() != Ours("a")
    assert repr(Empty()) == "Empty()"


def test_a_class_of_many_fields() -> None:
    """In their order, whichever are given by name."""
    names = [f"field{number}" for number in range(40)]
    many = type("Many", (Value,), {"__annotations__": dict.fromkeys(names, int)})
    theirs = make_dataclass("Many", names, frozen=True)
    value = many(
        *range(10), **{name: number for number, name in reversed([*enumerate(names)][10:])}
    )
    assert repr(value) == repr(theirs(*range(40)))
