"""What commands share: global options, the way in, namespaces and bpffs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .. import __version__
from ..bpffs.mount import DEFAULT_BPFFS, Bpffs
from ..errors import NotFoundError, UsageError, XdpctlError
from ..host import interfaces, locks, output, rights
from ..model.chain import MAX_PRIORITY, parse_actions
from ..model.labels import Attach
from ..model.record import PROTOCOL, PROTOCOLS
from ..model.request import AskedKind, AskedMode, Request
from ..programs.clang import Build
from ..view.style import Style

if TYPE_CHECKING:
    from ..traffic.pcap import Packet


GATE = "--must-pass"

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass
class Asked:
    """What `test` asks for, in the place of a change."""

    packets: list[Packet] = field(default_factory=list)
    given: bool = False
    out: str | None = None
    live_maps: bool = False


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_LONGEST = 24 * 3600


def seconds(text: str) -> float:
    """The seconds of ``30``, ``30s``, ``2m`` or ``1h``. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text, flags=re.ASCII)
    found = float(match[1]) * _UNITS[match[2]] if match else 0
    if 0 < found <= _LONGEST:
        return found
    raise UsageError(f"{text!r} is no time", hint="use one such as 30, 30s or 2m, of a day at most")


class Settings(Style):
    """The global options, given before or after the command's name."""

    netns: str | None = None
    bpffs: str = ""
    lock_timeout: float = locks.DEFAULT_TIMEOUT
    mode: AskedMode | None = None
    attach: Attach | None = None
    root: AskedKind | None = None
    protocol: int | None = None
    must_pass: str | None = None
    trial: Asked | None = None
    confirm_within: float = 0
    section: str | None = None
    prog_name: str | None = None
    prio: int | None = None
    actions: str | None = None
    include: tuple[str, ...] = ()
    define: tuple[str, ...] = ()
    bcc: bool | None = None
    # What another name of the program than its own makes different: see loader.py.
    program: str = "xdpctl"
    first_attach: Attach | None = None
    pins_maps: bool = True
    first_of_several: bool = False
    most: int | None = None
    asks: bool = True
    # The process ends with the command: what it keeps has to be kept by others, too.
    ends: bool = False

    def ended_by(self, error: XdpctlError) -> int:
        """The exit code of an error that has been printed."""
        return error.exit_code

    def enter(self, *, changes: bool = False) -> Bpffs:
        """Enter the network namespace; returns the bpffs, mounted if that was asked for."""
        if self.netns:
            _enter_netns(self.netns)
        patience = locks.Patience(self.lock_timeout, self._tell)
        bpffs = Bpffs.chosen(self.bpffs, patience, outlives=self.ends and changes)
        wanted = changes and not self.dry_run and not bpffs.is_mounted()
        if wanted and self._mount_wanted(bpffs.path):
            rights.require()
            bpffs.mount()
        return bpffs

    @property
    def root_asked(self) -> Request:
        """What was asked for of a new root."""
        return Request(kind=self.root, protocol=self.protocol)

    @property
    def first_asked(self) -> Request:
        """The same for commands that may attach a first one."""
        return replace(
            self.root_asked, mode=self.mode, attach=self.attach, first_attach=self.first_attach
        )

    def line(self, command: str, interface: str) -> str:
        """A command line that works on an interface where this one does."""
        words = ["xdpctl", command]
        for option, value in (("--netns", self.netns), ("--bpffs", self.bpffs)):
            words += [option, value] if value else []
        return " ".join([*words, interface])

    @property
    def program_asked(self) -> dict[str, Any]:
        """What was asked for of a program of a file, as options of `objects.member`.

        Raises UsageError.
        """
        if self.section is not None and self.prog_name is not None:
            raise UsageError("-s and -n exclude each other", hint="give one of them")
        flags = [f"-I{path}" for path in self.include] + [f"-D{name}" for name in self.define]
        return {
            "section": self.section,
            "program": self.prog_name,
            "priority": self.prio,
            "actions": None if self.actions is None else parse_actions(self.actions),
            "build": Build(tuple(flags), self.bcc),
        }

    def _tell(self, text: str) -> None:
        if not self.quiet:
            output.say(f"{self.program}: {text}", err=True)

    def _mount_wanted(self, path: str) -> bool:
        if os.environ.get("LIBXDP_BPFFS_AUTOMOUNT") == "1":
            return True
        if not (self.asks and sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        return click.confirm(f"No BPF file system at {path}. Mount one?", err=True)


def _enter_netns(name: str) -> None:
    path = name if "/" in name else f"/run/netns/{name}"
    if not os.path.exists(path):
        raise NotFoundError(
            f"no network namespace {name}",
            why=f"{path} does not exist",
            hint="ip netns list shows those with a name",
        )
    try:
        interfaces.enter(path)
    except OSError as error:
        rights.require()
        raise NotFoundError(
            f"cannot enter the network namespace {name}", why=os.strerror(error.errno or 0)
        ) from error


def _store(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    settings = context.ensure_object(Settings)
    if parameter.name == "verbose":
        settings.verbose += value  # -v before the command and -v after it make two
    elif value in (None, ()) or (value is False and parameter.name != "bcc"):
        pass
    elif parameter.name:
        setattr(settings, parameter.name, value)


def _option(*names: str, **attributes: Any) -> Callable[[Command], Command]:
    """An option that is kept in Settings, not passed to the command."""
    return click.option(*names, callback=_store, expose_value=False, **attributes)


def _all(options: Sequence[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    """Some options as one, in their order."""

    def decorate(function: Command) -> Command:
        for decorator in reversed(options):
            function = decorator(function)
        return function

    return decorate


def root_options() -> Callable[[Command], Command]:
    """What kind of root is meant, for commands that load one."""
    kind = _option(
        "--root",
        type=click.Choice(["ext", "fused", "auto"]),
        help="EXT programs on a dispatcher, all in one program, or what the kernel allows [what "
        "is there, or auto].",
    )
    protocol = _option(
        "--protocol",
        type=click.IntRange(PROTOCOLS[0], PROTOCOLS[-1]),
        help=f"libxdp's protocol that a dispatcher speaks [what is there, or {PROTOCOL}].",
    )
    return _all([kind, protocol])


def first_options() -> Callable[[Command], Command]:
    """How a first root is attached, and what kind is meant, for commands that may load it."""
    mode = _option(
        "-m",
        "--mode",
        type=click.Choice(["native", "skb", "hw", "unspecified"]),
        help="How a first program is attached [native].",
    )
    attach = _option(
        "--attach",
        type=click.Choice(["link", "netlink"]),
        help="What attaches a first root: a bpf_link, or netlink as libxdp does [link].",
    )
    return _all([mode, attach, root_options()])


def program_options(*, placed: bool = True) -> Callable[[Command], Command]:
    """Which program of a file is meant, how it stands in the chain, how a C source is compiled.

    For commands that take files. One that is not `placed` stands where another one stood.
    """
    section = _option(
        "-s",
        "--section",
        help="The program of this ELF section.",
    )
    name = _option(
        "-n",
        "--prog-name",
        metavar="PROG",
        help="The program of this name.",
    )
    prio = _option(
        "-P",
        "--prio",
        type=click.IntRange(0, MAX_PRIORITY),
        help="Run priority, lowest first [the object's, or 50].",
    )
    usual = "the object's, or XDP_PASS" if placed else "what they are"
    actions = _option(
        "-A",
        "--actions",
        metavar="ACTION,...|none",
        help=f"Verdicts after which the next program runs [{usual}].",
    )
    include = _option(
        "-I",
        "--include",
        multiple=True,
        metavar="DIR",
        help="Look in DIR for what a C source includes.",
    )
    define = _option(
        "-D",
        "--define",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Define a macro for a C source.",
    )
    bcc = _option(
        "--bcc/--no-bcc",
        default=None,
        help="A C source is in BCC's dialect, or is not [as it looks].",
    )
    options = [section, name, *([prio] if placed else []), actions, include, define, bcc]

    return _all(options)


def common_options(*, changes: bool = False) -> Callable[[Command], Command]:
    """The global options, for a command and for the group alike."""

    options = [
        _option("--json", is_flag=True, help="Print one JSON document."),
        _option("--netns", metavar="NAME|PATH", help="Work in this network namespace."),
        _option(
            "--bpffs",
            metavar="PATH",
            help=f"The BPF file system to keep pins in [{DEFAULT_BPFFS}].",
        ),
        _option("-v", "--verbose", count=True, help="Say more; twice: tracebacks of errors."),
        _option("-q", "--quiet", is_flag=True, help="Print errors only."),
        click.version_option(__version__, message="xdpctl %(version)s"),
    ]
    if changes:
        options += [
            _option("--dry-run", is_flag=True, help="Print the plan, change nothing."),
            _option(
                "--lock-timeout",
                metavar="SECONDS",
                type=click.FloatRange(0),
                help="How long to wait for another process that changes the interface "
                f"[{locks.DEFAULT_TIMEOUT:g}].",
            ),
        ]

    return _all(options)


def confirm_option() -> Callable[[Command], Command]:
    """For every command that changes a chain."""
    return click.option(
        "--confirm-within",
        metavar="TIME",
        callback=lambda context, option, text: _store(
            context, option, None if text is None else seconds(text)
        ),
        expose_value=False,
        help="Go back unless xdpctl confirm, or Enter here, comes in this time (30s, 2m).",
    )


def change_options() -> Callable[[Command], Command]:
    """For commands that change a chain by `many.change`: these are what `test` can try."""
    gate = _option(
        GATE,
        metavar="FILE",
        type=click.Path(readable=False),
        help="Change nothing unless each packet of this pcap file would pass the new chain.",
    )
    return _all([gate, confirm_option(), common_options(changes=True)])
