"""A chain written down in a file, in TOML: what `xdpctl apply` brings an interface to."""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from ..errors import BadObjectError, UsageError, XdpctlError, choices
from ..host import files
from ..host.text import Json
from ..model.chain import (
    MAX_PRIORITY,
    ON_END,
    ON_VACANT,
    Chain,
    Member,
    Standing,
    arranged,
    check_label,
    parse_actions,
)
from ..model.kinds import CHOICES
from ..model.record import PROTOCOLS
from ..model.request import MODE_WORDS, Request
from ..model.source import MAX_ENTRIES, MapsAsked, Tail, Tuning
from ..model.state import State
from ..supply.reference import is_image
from ..value import Value
from . import given, image, objects
from .clang import Build

_T = TypeVar("_T")
LIMIT = 1 << 20
"""The most bytes that such a file has: who names another file by mistake need not wait."""


class Written(Value):
    """What a file says.

    The programs stand in the order in which they are to run, each with whose maps it uses where it
    takes another one's place. `rules` are fields of the chain's, `request` is of the root.
    """

    members: tuple[tuple[Member, MapsAsked], ...]
    rules: Mapping[str, int]
    request: Request

    def target(self, state: State) -> Chain:
        """The chain of the file, whatever the interface runs now.

        A program that is called like one that runs takes its place. If several are called the same,
        the first takes that of the first, and so on. One that was loaded from the same bytes in the
        same way goes on as it is. Whether packets are counted stays as it is.
        A file without programs keeps an empty root.
        """
        there, members = list(state.chain.members), []
        for new, maps in self.members:
            old = next((one for one in there if one.known_as == new.known_as), None)
            if old:
                there.remove(old)
            if old and maps == MapsAsked() and _is_loaded(old, new):
                standing = {name: getattr(new, name) for name in Standing.__annotations__}
                members.append(replace(old, **standing))
            else:
                members.append(new.instead_of(old, maps) if old else new)
        rules = state.chain.rules._replace(**self.rules)
        return Chain(tuple(members), rules).if_empty(kept=True)


def _is_loaded(old: Member, new: Member) -> bool:
    """Whether a program that runs is what a new one would be."""
    wanted = new.source.recipe if new.source else None
    return wanted is not None and not old.held and image.is_loaded(old.id, wanted)


class Document(NamedTuple):
    """A file, parsed: what it is called in errors, and its table."""

    path: str
    table: Json

    @property
    def namespace(self) -> str | None:
        """The network namespace of these, by name or path; None is the present one.

        Raises BadObjectError.
        """
        return self._said("namespace", _text)

    @property
    def names_interfaces(self) -> bool:
        """Whether the file itself says which interfaces it is for."""
        return "interface" in self.table

    @property
    def interfaces(self) -> str:
        """Those that a file of a host is for: a name, a pattern, or a list with commas.

        If it names none, what it is called says it. Raises BadObjectError.
        """
        named = self._said("interface", _texts)
        if named is None:
            return os.path.basename(self.path).removesuffix(".toml")
        return ",".join(named)

    def _said(self, key: str, convert: Callable[[object], _T]) -> _T | None:
        """What the file says by a key that is not about the chain; None if nothing."""
        named = self.table.get(key)
        try:
            return None if named is None else convert(named)
        except UsageError as error:
            raise BadObjectError(f"{self.path}: {key}: {error.what}") from error

    @contextlib.contextmanager
    def opened(self, bpffs: str) -> Iterator[Written]:
        """What it says, and the programs that it names, for as long as the block takes.

        Paths in a file are relative to its directory, those in standard input to the working
        directory; maps that ask for it are pinned in `bpffs` unless it says where. Raises
        BadObjectError and what `objects.member` raises; `what` then begins with where in the file
        that is.
        """
        path = self.path
        table = dict(self.table)
        if "program" not in table:
            raise BadObjectError(
                f"{path} names no program",
                hint="begin each with [[program]]; "
                "program = [] leaves an empty root, ready for some",
            )
        programs = table.pop("program")
        if not isinstance(programs, list) or not all(isinstance(one, dict) for one in programs):
            raise BadObjectError(
                f"{path}: program: not an array of tables", hint="begin each with [[program]]"
            )
        options = _values(path, table, _INTERFACE, "program")
        for key in ("interface", "namespace"):  # those of `interfaces` and `namespace`
            options.pop(key, None)
        # What the file does not say is as usual, not as it is: the file is all there is to know.
        usual = {"on_end": ON_END["pass"], "on_vacant": ON_VACANT["pass"]}
        rules = {name: options.pop(name, verdict) for name, verdict in usual.items()}
        members, asked = list[Member](), dict[int, MapsAsked]()
        with objects.letting_go(members):
            for number, one in enumerate(programs, 1):
                member, maps = _program(f"{path}: program {number}", one, path, bpffs)
                members.append(member)
                asked[id(member)] = maps
            _check_names(path, members)
            try:
                ordered = arranged(members)
            except UsageError as error:
                raise BadObjectError(f"{path}: {error.what}", why=error.why) from error
            request = Request(**options)
            yield Written(tuple((one, asked[id(one)]) for one in ordered), rules, request)


def read(path: str) -> Document:
    """Parse a file; ``-`` is standard input. Raises NotFoundError and BadObjectError."""
    if path == files.STANDARD_INPUT:
        # Its name is in no directory.
        data, path = files.read_input(LIMIT + 1, "a chain file"), files.INPUT_NAME
    else:
        data = given.read(path, LIMIT + 1)
    if len(data) > LIMIT:
        raise BadObjectError(f"{path} is no chain file", why=f"it has more than {LIMIT >> 20} MiB")
    try:
        return Document(path, tomllib.loads(data.decode()))
    # TOMLDecodeError is a ValueError, as is the refusal of a number of too many digits.
    except (ValueError, RecursionError) as error:
        raise BadObjectError(f"{path} is not TOML", why=str(error)) from error


def _check_names(path: str, members: Sequence[Member]) -> None:
    """Each label calls one program, and each name that is asked for another one."""
    for number, member in enumerate(members):
        others = {name for one in members if one is not member for name in (one.label, one.name)}
        if member.label in others - {""}:
            raise BadObjectError(f"{path}: several programs are called {member.label}")
        for name in (*member.before, *member.after):
            if name not in others:
                raise BadObjectError(
                    f"{path}: program {number + 1}: no other program of the file is called {name}",
                    hint=f"there are {', '.join(sorted(others - {''})) or 'no others'}",
                )


_KEYS_OF = (
    ("-n PROGRAM", 'prog-name = "PROGRAM"'),
    ("-I DIR", "include = [DIR]"),
    ("--bcc", "bcc = true"),
    ("--no-bcc", "bcc = false"),
)
"""What hints call options, and how a file says the same."""


def _program(where: str, table: dict[str, Any], path: str, bpffs: str) -> tuple[Member, MapsAsked]:
    found = _values(where, table, _PROGRAM)
    if "file" not in found:
        raise BadObjectError(f"{where}: no file", hint='say file = "prog.o"')
    if "section" in found and "program" in found:
        raise BadObjectError(
            f"{where}: section and prog-name exclude each other", hint="say one of them"
        )
    here = os.path.dirname(path)
    include = [f"-I{os.path.join(here, one)}" for one in found.pop("include", ())]
    define = [f"-D{one}" for one in found.pop("define", ())]
    build = Build((*include, *define), found.pop("bcc", None))
    called = {key: found.pop(key) for key in ("label", "before", "after") if key in found}
    maps = found.pop("maps", None)
    tuning = Tuning(*(found.pop(key, ()) for key in ("constants", "entries", "tails")))
    keys = [os.path.join(here, one) for one in found.pop("keys", ())]
    file = found.pop("file")
    file = file if is_image(file) else os.path.join(here, file)
    try:
        build.check_used([file])
        said = found.get("pin_path")
        found.setdefault("pin_path", bpffs)
        member = objects.member(file, **found, build=build, tuning=tuning, keys=keys)
        objects.check_pinning([member], said)
    except XdpctlError as error:
        error.what = f"{where}: {error.what}"
        for option, key in _KEYS_OF:
            error.hint = error.hint.replace(option, key)
        raise
    if maps is None:
        # BCC's own are tied to the compiled program, and applying a file again has to work.
        maps = MapsAsked(keeps=not (member.source and member.source.image))
    return replace(member, **called), maps


# --- keys ---------------------------------------------------------------------------------------

# Each has what it is called elsewhere, and how its value is read: UsageError says what is wrong.
_Keys = Mapping[str, tuple[str, Callable[[object], object]]]


def _values(where: str, table: Mapping[str, Any], keys: _Keys, *others: str) -> dict[str, Any]:
    """What a table says, by the names that are used elsewhere. Raises BadObjectError."""
    found = {}
    for key, value in table.items():
        if key not in keys:
            raise BadObjectError(
                f"{where}: unknown key {key!r}", hint=choices(key, [*keys, *others])
            )
        name, convert = keys[key]
        try:
            found[name] = convert(value)
        except UsageError as error:
            raise BadObjectError(
                f"{where}: {key}: {error.what}", why=error.why, hint=error.hint
            ) from error
    return found


def _text(value: object) -> str:
    if isinstance(value, str) and value and "\0" not in value:
        return value
    raise UsageError("not a text")


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(_text, value if isinstance(value, list) else [value]))


def _path(value: object) -> str:
    """One that does not depend on where the command is run."""
    if os.path.isabs(_text(value)):
        return str(value)
    raise UsageError("not an absolute path")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise UsageError("neither true nor false")


def _number(least: int, most: int) -> Callable[[object], int]:
    def convert(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise UsageError(f"not a number from {least} to {most}")

    return convert


def _one_of(*words: str) -> Callable[[object], str]:
    def convert(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise UsageError(f"none of {', '.join(words)}")

    return convert


def _mode(value: object) -> str:
    known = MODE_WORDS.get(value, value) if isinstance(value, str) else value
    return _one_of("native", "skb", "unspecified")(known)


def _verdict(verdicts: Mapping[str, int]) -> Callable[[object], int]:
    return lambda value: verdicts[_one_of(*verdicts)(value)]


def _actions(value: object) -> int:
    return parse_actions(",".join(_texts(value)) or "none")


def _constants(value: object) -> tuple[tuple[str, str], ...]:
    """A table of numbers, truth values and names of enumerations."""
    if not isinstance(value, dict):
        raise UsageError("not a table of numbers, truth values or names")
    words = list[tuple[str, str]]()
    for name, one in value.items():
        if not isinstance(one, int | str):
            raise UsageError(f"{name}: not a number, a truth value or a name")
        words.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    return tuple(words)


def _entries(value: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, dict):
        raise UsageError("not a table of numbers")
    number = _number(1, MAX_ENTRIES)
    return tuple((name, number(one)) for name, one in value.items())


def _tails(value: object) -> tuple[Tail, ...]:
    if not isinstance(value, dict):
        raise UsageError("not a table of programs")
    found = tuple(Tail.at(where, _text(one)) for where, one in value.items())
    return Tuning(tails=found).checked().tails


def _names(value: object) -> tuple[str, ...]:
    return tuple(map(check_label, _texts(value)))


_INTERFACE: _Keys = {
    "interface": ("interface", _texts),
    "namespace": ("namespace", _text),
    "mode": ("mode", _mode),
    "attach": ("attach", _one_of("link", "netlink")),
    "root": ("kind", _one_of(*CHOICES)),
    "protocol": ("protocol", _number(PROTOCOLS[0], PROTOCOLS[-1])),
    "shared": ("shared", _flag),
    "on-end": ("on_end", _verdict(ON_END)),
    "on-vacant": ("on_vacant", _verdict(ON_VACANT)),
}
_PROGRAM: _Keys = {
    "file": ("file", _text),
    "section": ("section", _text),
    "prog-name": ("program", _text),
    "prio": ("priority", _number(0, MAX_PRIORITY)),
    "actions": ("actions", _actions),
    "name": ("label", lambda value: check_label(_text(value))),
    "before": ("before", _names),
    "after": ("after", _names),
    "maps": ("maps", lambda value: MapsAsked.parse(_texts(value), "maps")),
    "pin-path": ("pin_path", _path),
    "include": ("include", _texts),
    "define": ("define", _texts),
    "bcc": ("bcc", _flag),
    "constants": ("constants", _constants),
    "entries": ("entries", _entries),
    "tail": ("tails", _tails),
    "verify-key": ("keys", _texts),
}
