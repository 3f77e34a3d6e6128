"""Data that does not change, in classes that are quick to make.

The methods of a frozen dataclass are written and compiled when its module is imported, and so are
the annotations of a NamedTuple: thirty such classes took a quarter of a command's time. Here the
methods are inherited. What is unpacked, or made by the thousand, is a NamedTuple all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass
from typing import Any, ClassVar, NoReturn, dataclass_transform


@dataclass_transform(frozen_default=True)
class Value:
    """The base of a class whose annotated names are the fields of its values, in that order.

    Such a class is to its users a dataclass with ``frozen=True``: values with equal fields are
    equal, and dataclasses.replace(), fields() and match work.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    __match_args__: ClassVar[tuple[str, ...]]
    _names: ClassVar[frozenset[str]]
    _defaults: ClassVar[dict[str, Any]]
    _factories: ClassVar[dict[str, Callable[[], Any]]]

    def __init_subclass__(cls) -> None:
        dataclass(init=False, repr=False, eq=False)(cls)
        fields = {name: cls.__dataclass_fields__[name] for name in cls.__match_args__}
        cls._names = frozenset(fields)
        cls._defaults = {
            name: one.default for name, one in fields.items() if one.default is not MISSING
        }
        cls._factories = {
            name: one.default_factory
            for name, one in fields.items()
            if one.default_factory is not MISSING
        }

    def __init__(self, *args: object, **named: object) -> None:
        """Raises TypeError for a field that is missing, given twice or unknown."""
        kind = type(self)
        given = dict(zip(kind.__match_args__, args, strict=False)) | named
        fields = kind._defaults | given
        for name, make in kind._factories.items():
            if name not in given:
                fields[name] = make()
        if fields.keys() != kind._names or len(given) != len(args) + len(named):
            wanted = ", ".join(kind.__match_args__) or "nothing"
            told = ", ".join([*map(repr, args), *named])
            raise TypeError(f"{kind.__name__} takes each of {wanted} once, not {told}")
        object.__setattr__(self, "__dict__", fields)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple([self.__dict__[name] for name in self.__match_args__]))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self.__match_args__)
        return f"{type(self).__qualname__}({fields})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")
