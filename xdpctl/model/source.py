"""What a new member is loaded from, as data: an object file, or code that was kept."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, ItemsView, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from ..errors import UsageError
from ..kernel.asm import INSN_SIZE
from ..value import Value

MAX_ENTRIES = 2**32 - 1
"""The most that a map can have."""

_MAGIC, _VERSION = b"xdpi", 1
# Magic, version, flags, length of the code in bytes. The code follows, then JSON.
_HEAD = struct.Struct("=4sHHI")
_FRAGS, _GPL, _TOLD = 1 << 0, 1 << 1, 1 << 2


class Image(Value):
    """A program's code, its maps named by id; whether it takes fragments, and its licence.

    `names` has the full names of maps by id, of those that the kernel may have cut. `recipe` says
    what the program was loaded from.
    """

    code: bytes
    frags: bool
    gpl: bool
    names: tuple[tuple[int, str], ...] = ()
    recipe: Recipe | None = None

    def pack(self) -> bytes:
        told: dict[str, object] = {"names": self.names} if self.names else {}
        if self.recipe:
            told["recipe"] = self.recipe.data()
        flags = _FRAGS * self.frags | _GPL * self.gpl | _TOLD * bool(told)
        text = json.dumps(told).encode() if told else b""
        return _HEAD.pack(_MAGIC, _VERSION, flags, len(self.code)) + self.code + text

    @classmethod
    def unpack(cls, record: bytes) -> Image | None:
        """None where the record is no image, or one of a later xdpctl."""
        if len(record) < _HEAD.size:
            return None
        magic, version, flags, size = _HEAD.unpack_from(record)
        code, rest = record[_HEAD.size :][:size], record[_HEAD.size + size :]
        if (magic, version, size) != (_MAGIC, _VERSION, len(code)):
            return None
        if size % INSN_SIZE or not size:
            return None
        if rest and not flags & _TOLD:
            return None
        try:
            told = json.loads(rest or b"{}")
            names = tuple((int(number), str(name)) for number, name in told.get("names", ()))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        recipe = Recipe.parse(told.get("recipe"))
        return cls(code, bool(flags & _FRAGS), bool(flags & _GPL), names, recipe)


class Recipe(Value):
    """What a program was loaded from, and how: what a chain file says of it.

    `digest` is of the object's bytes, in hexadecimal; empty where that would not tell whether the
    program is the same. `file` is an absolute path, - for standard input, or an image in a registry
    with its digest.
    """

    file: str
    program: str
    digest: str
    pin_path: str | None = None
    flags: tuple[str, ...] = ()
    bcc: bool | None = None
    constants: tuple[tuple[str, str], ...] = ()
    entries: tuple[tuple[str, int], ...] = ()
    tails: tuple[tuple[str, str], ...] = ()

    def data(self) -> dict[str, object]:
        fields = {name: getattr(self, name) for name in self.__match_args__}
        return {name: value for name, value in fields.items() if value not in (None, ())}

    @classmethod
    def parse(cls, data: object) -> Recipe | None:
        """None where it is none, or one of a later xdpctl."""
        if not isinstance(data, dict) or not data.keys() <= {*cls.__match_args__}:
            return None
        try:
            found = cls(**data)
            texts = (found.file, found.program, found.digest, found.pin_path or "", *found.flags)
            if not all(isinstance(one, str) for one in texts):
                return None
            if found.bcc not in (None, False, True):
                return None
            return replace(
                found,
                flags=tuple(found.flags),
                constants=tuple((str(name), str(value)) for name, value in found.constants),
                entries=tuple((str(name), int(value)) for name, value in found.entries),
                tails=tuple((str(name), str(value)) for name, value in found.tails),
            )
        except (TypeError, ValueError):
            return None


class NamedMaps(Protocol):
    """Maps of a source by name, open (programs/image.py)."""

    def items(self) -> ItemsView[str, int]:
        """The names, each with a descriptor."""

    @property
    def close(self) -> Callable[[], object]:
        """Closes them; may be called again."""

    def taken(self) -> None:
        """Keep what making them left elsewhere."""


class Tail(NamedTuple):
    """A program of an object that is to be put into a place of one of its program arrays."""

    array: str
    place: int
    program: str

    @property
    def where(self) -> str:
        return f"{self.array}[{self.place}]"

    @classmethod
    def at(cls, where: str, program: str) -> Tail:
        """Of a place such as ``jumps[1]``. Raises UsageError."""
        match = re.fullmatch(r"([^\[\]=]+)\[(\d{1,10})\]", where, flags=re.ASCII)
        if not match or int(match[2]) >= MAX_ENTRIES:
            raise UsageError(
                f"{where!r} is no place in a program array", hint="write ARRAY[INDEX], as jumps[1]"
            )
        return cls(match[1], int(match[2]), program)

    @classmethod
    def parse(cls, word: str) -> Tail:
        """Of ``jumps[1]=dropper``. Raises UsageError."""
        where, _, program = word.partition("=")
        if not program:
            raise UsageError(
                f"--tail {word} names no program", hint="write --tail ARRAY[INDEX]=PROGRAM"
            )
        return cls.at(where, program)


class EmptyArray(Value):
    """A program array of a program's with nothing in it, and what of its object could go there."""

    program: int
    array: str
    fitting: tuple[str, ...]


class ReusedMap(Value):
    """A map of a program that was pinned already when the program was loaded; `name` is whole."""

    program: int
    name: str
    map_id: int
    pin: str


class SharedMap(NamedTuple):
    """The same, with a program of another interface that uses it as well."""

    program: int
    name: str
    map_id: int
    pin: str
    other: int
    other_name: str
    interface: str


class Tuning(NamedTuple):
    """What a loader of its own would set in an object.

    Values of global variables, map sizes, and what is in its program arrays.
    """

    constants: tuple[tuple[str, str], ...] = ()
    entries: tuple[tuple[str, int], ...] = ()
    tails: tuple[Tail, ...] = ()

    @classmethod
    def parse(
        cls, constants: Iterable[str], entries: Iterable[str], tails: Iterable[str] = ()
    ) -> Tuning:
        """Of words such as ``LIMIT=5``, ``flows=1024``, ``jumps[1]=dropper``. Raises UsageError."""
        pairs = [word.partition("=") for word in constants]
        sizes = [word.partition("=") for word in entries]
        for name, _, value in pairs:
            if not name or not value:
                raise UsageError(f"-g {name} has no value", hint="write -g NAME=VALUE")
        for name, _, value in sizes:
            if not name or not (value.isascii() and value.isdecimal() and 0 < len(value) < 11):
                raise UsageError(
                    f"--entries {name} has no number", hint="write --entries MAP=NUMBER"
                )
        numbers = tuple((name, int(value)) for name, _, value in sizes)
        values = tuple((name, value) for name, _, value in pairs)
        return cls(values, numbers, tuple(map(Tail.parse, tails))).checked()

    def checked(self) -> Tuning:
        """Itself. Raises UsageError for what no map can have, and what is said twice."""
        for name, number in self.entries:
            if not 0 < number <= MAX_ENTRIES:
                raise UsageError(f"map {name} cannot have {number} entries")
        for said in (
            [name for name, _ in self.constants],
            [name for name, _ in self.entries],
            [one.where for one in self.tails],
        ):
            if len(said) > len(set(said)):
                raise UsageError(f"said twice: {', '.join(sorted(said))}")
        return self


class Source(Value):
    """An object file's bytes and the program in it that a new member is loaded from.

    `maps_of` is the id of a program whose maps it shares, 0 for none. Its code is to be that
    program's, unless it is `forced`; one that `replaces` it has constants and program arrays of its
    own. `maps` says otherwise of single maps, each with ``keep``, ``new`` or the path of a pin.

    One that was compiled in memory has an `image` and no bytes. The `tables`, maps of it by name,
    are pinned for as long as it is a member. `tuning` is set before it is loaded; `pins` tells
    whether maps of it ask to be pinned. The `recipe` is kept with the program. The object is
    `named` so to libbpf; as `path` says if that is empty. It is `vetted` if the policy of the
    machine was asked.
    """

    path: str
    data: bytes
    program: str
    pin_path: str | None = None
    maps_of: int = 0
    forced: bool = False
    replaces: bool = False
    maps: tuple[tuple[str, str], ...] = ()
    image: Image | None = None
    tables: NamedMaps | None = None
    tuning: Tuning = Tuning()
    pins: bool = False
    recipe: Recipe | None = None
    named: str = ""
    vetted: bool = False


class MapsAsked(Value):
    """Whose maps a program uses that takes another's place: that one's or new ones, all but some.

    `single` says otherwise of single maps, as `Source.maps` does.
    """

    keeps: bool = True
    single: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str], called: str) -> MapsAsked:
        """Of ``keep``, ``new``, ``MAP=keep``, ``MAP=new`` and ``MAP=PIN``, as `called` has them.

        Raises UsageError.
        """
        all_of_them = [word for word in words if "=" not in word]
        pairs = (word.partition("=") for word in words)
        single = tuple((name, how) for name, _, how in pairs if how)
        if len(all_of_them) + len(single) < len(words) or len(all_of_them) > 1:
            raise UsageError(f"{called} takes keep or new once, and MAP=keep, MAP=new or MAP=PIN")
        for word in all_of_them:
            if word not in ("keep", "new"):
                raise UsageError(
                    f"{called} {word} says nothing", hint="use keep, new, or MAP=keep|new|PIN"
                )
        if all_of_them == ["new"] and single:
            raise UsageError(
                f"{called} new leaves no single map to speak of", hint=f"leave out {called} new"
            )
        return cls(all_of_them != ["new"], single)
