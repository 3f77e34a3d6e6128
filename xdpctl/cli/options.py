"""Groups of options that commands share, each handed to the command's function as one value."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import click

from ..errors import NotFoundError, UsageError
from ..host import files
from ..model.chain import MAX_PRIORITY, ON_END, ON_VACANT, Member, check_label, parse_actions
from ..model.kinds import CHOICES, AskedKind
from ..model.labels import Attach
from ..model.record import PROTOCOL, PROTOCOLS
from ..model.request import MODE_WORDS, MODES, AskedMode, Request
from ..model.source import Tuning
from ..value import Value
from . import complete, offered
from .numbers import Number, seconds
from .settings import Decorator, Function, common_options, together

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from ..traffic.pcap import Packet


def _handed(
    parameter: str, group: type[DataclassInstance], options: Sequence[Decorator]
) -> Decorator:
    """Some options, handed to a function as one value: their names are the fields of the group."""
    names = [one.name for one in fields(group)]

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def called(*arguments: object, **values: object) -> object:
            values[parameter] = group(
                **{name: values.pop(name) for name in names if name in values}
            )
            return function(*arguments, **values)

        return together(options)(called)

    return decorate


# --- the root -----------------------------------------------------------------------------------


class RootOptions(Value):
    """What kind of root is meant."""

    kind: AskedKind | None = None
    protocol: int | None = None

    @property
    def request(self) -> Request:
        return Request(kind=self.kind, protocol=self.protocol)


class FirstOptions(Value):
    """How a first root is attached, and what kind is meant."""

    mode: AskedMode | None = None
    attach: Attach | None = None
    kind: AskedKind | None = None
    protocol: int | None = None

    @property
    def request(self) -> Request:
        return Request(mode=self.mode, attach=self.attach, kind=self.kind, protocol=self.protocol)


def _root() -> list[Decorator]:
    return [
        click.option(
            "--root",
            "kind",
            type=click.Choice(CHOICES),
            help="Kind of root: EXT programs on a dispatcher, all programs fused into one, or "
            "what the kernel allows [the present one, or auto].",
        ),
        click.option(
            "--protocol",
            metavar="|".join(map(str, PROTOCOLS)),
            type=Number(PROTOCOLS[0], PROTOCOLS[-1]),
            help=f"Version of libxdp's protocol for a dispatcher [the present one, or {PROTOCOL}].",
        ),
    ]


def root_options() -> Decorator:
    """Hands over `root`, for commands that load one."""
    return _handed("root", RootOptions, _root())


class _Mode(click.Choice):  # type: ignore[type-arg]  # it has none in click 8.1
    """A mode, in anybody's words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(MODE_WORDS.get(value, value), param, ctx)


def first_options() -> Decorator:
    """Hands over `first`, for commands that may load a first root."""
    mode = click.option(
        "-m", "--mode", type=_Mode(MODES), help="How the first root is attached [native]."
    )
    attach = click.option(
        "--attach",
        type=click.Choice(["link", "netlink"]),
        help="What attaches the first root: a bpf_link, or netlink, as libxdp does [link].",
    )
    return _handed("first", FirstOptions, [mode, attach, *_root()])


# --- programs of files --------------------------------------------------------------------------


class ProgramOptions(Value):
    """Which program of a file is meant, how it stands in the chain, how a C source is compiled."""

    section: str | None = None
    prog_name: str | None = None
    prio: int | None = None
    actions: str | None = None
    include: tuple[str, ...] = ()
    define: tuple[str, ...] = ()
    bcc: bool | None = None
    constants: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    label: str | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    verify_key: tuple[str, ...] = ()

    def members(
        self, paths: Sequence[str], *, pin_path: str | None, first_of_several: bool = False
    ) -> list[Member]:
        """The programs of some files. Raises UsageError, and what `objects.member` raises."""
        from ..programs import objects
        from ..programs.clang import Build

        if self.section is not None and self.prog_name is not None:
            raise UsageError("-s and -n exclude each other", hint="give one of them")
        flags = [f"-I{path}" for path in self.include] + [f"-D{name}" for name in self.define]
        build = Build(tuple(flags), self.bcc)
        build.check_used(paths)
        tuning = Tuning.parse(self.constants, self.entries, self.tail)
        actions = None if self.actions is None else parse_actions(self.actions)
        label = "" if self.label is None else check_label(self.label)
        before, after = (tuple(map(check_label, names)) for names in (self.before, self.after))
        found = [
            objects.member(
                *_found(path),
                section=self.section,
                program=self.prog_name,
                priority=self.prio,
                actions=actions,
                build=build,
                tuning=tuning,
                pin_path=pin_path,
                first_of_several=first_of_several,
                keys=self.verify_key,
            )
            for path in paths
        ]
        return [replace(one, label=label, before=before, after=after) for one in found]


PROGRAM_OPTIONS = frozenset(one.name for one in fields(ProgramOptions))


def _found(path: str) -> tuple[str] | tuple[str, bytes]:
    """What an object is called, and its bytes if they come from standard input."""
    if path != files.STANDARD_INPUT:
        return (path,)
    return "<stdin>", files.read_input(files.OBJECT)


def order_options() -> list[Decorator]:
    """What a program runs before and after, by the names of others."""
    return [
        click.option(
            "--before",
            multiple=True,
            metavar="NAME",
            shell_complete=complete.names,
            help="Have it run before this program.",
        ),
        click.option(
            "--after",
            multiple=True,
            metavar="NAME",
            shell_complete=complete.names,
            help="Have it run after this program.",
        ),
    ]


def program_options(*, placed: bool = True, ordered: bool = False) -> Decorator:
    """Hands over `programs`, for commands that take files.

    One that is not `placed` stands where another one stood. With `ordered` it has a label, and
    stands before or after others.
    """
    section = click.option(
        "-s",
        "--section",
        metavar="SECTION",
        shell_complete=complete.sections,
        help="Take the program of this ELF section.",
    )
    name = click.option(
        "-n",
        "--prog-name",
        metavar="PROG",
        shell_complete=complete.functions,
        help="Take the program of this name.",
    )
    prio = click.option(
        "-P",
        "--prio",
        metavar="PRIO",
        type=Number(0, MAX_PRIORITY),
        help="Run priority; the lowest runs first [the object's, or 50].",
    )
    usual = "the object's, or XDP_PASS" if placed else "the present ones"
    actions = click.option(
        "-A",
        "--actions",
        metavar="ACTION,...|none",
        shell_complete=offered.actions,
        help=f"Verdicts after which the next program runs [{usual}].",
    )
    include = click.option(
        "-I",
        "--include",
        multiple=True,
        metavar="DIR",
        shell_complete=offered.directories,
        help="Look in this directory for files that a C source includes.",
    )
    define = click.option(
        "-D",
        "--define",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Define a macro for a C source.",
    )
    bcc = click.option(
        "--bcc/--no-bcc",
        default=None,
        help="Say that a C source is in BCC's dialect, or that it is not [as it looks].",
    )
    constants = click.option(
        "-g",
        "--global",
        "constants",
        multiple=True,
        metavar="NAME=VALUE",
        help="Give a global variable of the program this value.",
    )
    entries = click.option(
        "--entries",
        multiple=True,
        metavar="MAP=N",
        help="Let a map of the program have this number of entries.",
    )
    tail = click.option(
        "--tail",
        multiple=True,
        metavar="ARRAY[INDEX]=PROG",
        help="Put another program of the object into a place of a program array.",
    )
    key = click.option(
        "--verify-key",
        multiple=True,
        metavar="FILE",
        shell_complete=offered.files,
        help="Load it only if it is signed by this public key, or one of several.",
    )
    compiling = [include, define, bcc, constants, entries, tail, key]
    options = [section, name, *([prio] if placed else []), actions, *compiling]
    if ordered:
        label = click.option(
            "--name", "label", metavar="LABEL", help="Give the program this label."
        )
        return _handed("programs", ProgramOptions, [*options, label, *order_options()])
    return _handed("programs", ProgramOptions, options)


# --- rules ----------------------------------------------------------------------------------------


class RulesOptions(Value):
    """What the rules of an interface are to be, where that is said."""

    on_end: str | None = None
    on_vacant: str | None = None

    @property
    def values(self) -> dict[str, int]:
        """Fields of the rules that are to be others."""
        asked = {"on_end": (ON_END, self.on_end), "on_vacant": (ON_VACANT, self.on_vacant)}
        return {name: known[word] for name, (known, word) in asked.items() if word is not None}


def rules_options() -> Decorator:
    """Hands over `rules`."""
    on_end = click.option(
        "--on-end",
        type=click.Choice(list(ON_END)),
        help="Verdict of the interface past the last program.",
    )
    on_vacant = click.option(
        "--on-vacant",
        type=click.Choice(list(ON_VACANT)),
        help="What a slot does if its program is gone: go on, or drop the packet.",
    )
    return _handed("rules", RulesOptions, [on_end, on_vacant])


# --- the change ---------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class TrialOptions:
    """What `test` asks for, in the place of a change: packets, if any were `given`."""

    packets: list[Packet] = field(default_factory=list)
    given: bool = False
    out: str | None = None
    live_maps: bool = False


class ChangeOptions(Value):
    """How a chain is changed: what has to pass it, the seconds to confirm it, or tried instead."""

    must_pass: str | None = None
    confirm_within: float = 0
    trial: TrialOptions | None = None


class ChangingCommand(click.Command):
    """A command that changes a chain by `many.change`: those can be tried."""

    trial: TrialOptions | None = None

    def invoke(self, context: click.Context) -> object:
        context.params["trial"] = self.trial
        try:
            return super().invoke(context)
        except (NotFoundError, UsageError) as error:
            from . import meant

            meant.improve(error, context)
            raise


def confirm_option() -> Decorator:
    """Hands over `confirm_within`, in seconds, 0 for no confirmation: for every change."""
    return click.option(
        "--confirm-within",
        metavar="TIME",
        callback=lambda _context, _option, text: 0 if text is None else seconds(text),
        help="Go back unless the change is confirmed within this time (30s, 2m).",
    )


def shared_option() -> Decorator:
    """Hands over `shared`, for commands that may change several interfaces to one chain."""
    return click.option(
        "--shared",
        is_flag=True,
        help="Load programs once, on one root for all interfaces that get the same chain.",
    )


def change_options() -> Decorator:
    """Hands over `changing`, to a ChangingCommand alone; with the global options."""
    gate = click.option(
        "--must-pass",
        metavar="FILE",
        type=click.Path(readable=False),
        help="Change nothing unless every packet of this pcap file would pass the new chain.",
    )
    changing = _handed("changing", ChangeOptions, [gate, confirm_option()])
    return together([changing, common_options(changes=True)])
