"""Data that does not change, in classes that cost nothing to make.

A frozen dataclass has its methods compiled when its module is imported: half a millisecond each,
which is a quarter of the time of a command that imports thirty. Here they are inherited.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass
from typing import Any, ClassVar, NoReturn, dataclass_transform


@dataclass_transform(frozen_default=True)
class Value:
    """The base of a class whose annotated names are the fields of its values, in that order.

    It is a dataclass like those with ``frozen=True``: of two values with equal fields either can
    stand for the other, and dataclasses.replace(), fields() and match work. A default is a value.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    __match_args__: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        dataclass(init=False, repr=False, eq=False)(cls)

    def __init__(self, *args: object, **named: object) -> None:
        """Raises TypeError for a field that is missing, given twice or unknown."""
        names = self.__match_args__
        given = dict(zip(names, args, strict=False))
        unknown = named.keys() - (set(names) - given.keys())
        if unknown or len(args) > len(names):
            wrong = ", ".join(sorted(unknown)) or f"{len(args)} values"
            raise TypeError(f"{type(self).__name__} takes each of {', '.join(names)} once: {wrong}")
        given |= named
        for name in names:
            self.__dict__[name] = given[name] if name in given else self._default(name)

    def _default(self, name: str) -> object:
        field = self.__dataclass_fields__[name]
        if field.default_factory is not MISSING:
            return field.default_factory()
        if field.default is MISSING:
            raise TypeError(f"{type(self).__name__} needs {name}")
        return field.default

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__qualname__}({fields})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")
